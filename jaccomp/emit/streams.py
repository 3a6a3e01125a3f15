"""Loops whose results may outgrow the cache write them to a line that stays in it, and stream the line past it.

for i: y[i] = f(x[i])
    ->   for first by LINE up to last: { for i in first .. last: line[i - first] = f(x[i]); y[first..] <- line }

Whether a line is used is decided by sizes when the loop runs; else the loop writes where the line would go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import sympy as sp

from jaccomp.lowering.affine import divided, slope
from jaccomp.lowering.ir import (
    LEAVES,
    Accumulate,
    Assign,
    Block,
    Guard,
    Loop,
    Node,
    Scatter,
    leaf_accesses,
    walk,
    wanted_nodes,
)
from jaccomp.notation import Access

LINE = 512
"""Iterations of one line: a few of them stay in the first cache beside what they are computed from."""


@dataclass(frozen=True, slots=True)
class Line:
    """Places that a loop writes one after the other: each iteration all `targets`, in their order."""

    targets: tuple[Access, ...]
    outputs: tuple[str, ...]

    @property
    def stride(self) -> int:
        return len(self.targets)

    @property
    def name(self) -> str:
        return str(self.targets[0].name)


def write_only(body: Block) -> frozenset[str]:
    """The buffers that nothing in a nest reads, accumulates in or sets to a constant."""
    written, others = _uses(walk(body))
    return written - others


def mended_only(body: Block) -> frozenset[str]:
    """The buffers of which single places, outside all loops, are accumulated in, and that are else only written."""
    written, others = _uses(walk(body))
    single = [n for n in _outside_loops(body) if isinstance(n, Accumulate | Scatter)]
    places = {n.target.name for n in single} & written & others
    _, elsewhere = _uses(n for n in walk(body) if n not in single)
    inside = {a.name for n in single for e in (n.value, *n.target.indices) for a in e.atoms(Access)}
    return frozenset(places - elsewhere - inside)


def _outside_loops(block: Block) -> Iterator[Node]:
    for node in block.nodes:
        if isinstance(node, Guard):
            yield from _outside_loops(node.body)
        elif not isinstance(node, Loop):
            yield node


def _uses(nodes: Iterable[Node]) -> tuple[frozenset[str], frozenset[str]]:
    """The buffers that are assigned what changes, and those that are used otherwise."""
    written: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        if isinstance(node, Assign) and node.value.has(Access):
            written.add(node.target.name)
            others |= {a.name for a in node.value.atoms(Access)}
            others |= {a.name for i in node.target.indices for a in i.atoms(Access)}
        elif isinstance(node, LEAVES):
            others |= {a.name for a in leaf_accesses(node)}
        elif isinstance(node, Guard):
            others |= {a.name for c in node.constraints for a in c.expr.atoms(Access)}
    return frozenset(written), frozenset(others)


def lines(loop: Loop, candidates: Collection[str]) -> tuple[Line, ...]:
    """What an innermost loop writes of `candidates` that goes through memory in order."""
    if loop.stop is not None or any(isinstance(n, Loop) for n in walk(loop.body)):
        return ()
    found: dict[tuple[str, int, sp.Expr, tuple[str, ...]], dict[int, Access]] = {}
    for leaf, outputs in wanted_nodes(loop.body):
        if not isinstance(leaf, Assign) or leaf.target.name not in candidates:
            continue
        if leaf.target.is_integer or not leaf.target.indices:
            continue
        (offset,) = leaf.target.indices
        step = slope(offset, loop.index)
        if step is None or not step.is_Integer or step < 1:
            continue
        start, place = divided(offset - step * loop.index, int(step))
        key = (leaf.target.name, int(step), start, outputs)
        found.setdefault(key, {})[place] = leaf.target
    return tuple(
        Line(tuple(places[r] for r in range(step)), outputs)
        for (_, step, _, outputs), places in found.items()
        if sorted(places) == list(range(step))
    )

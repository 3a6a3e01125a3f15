"""Loops that touch one run of places: what only sets or copies it is one call.

for i: for d: t[i*D + d] = 0     ->   fill(t, N*D, 0)
for d: y[n*D + d] = t[ids[n]*D + d]   ->   copy(y + n*D, t + ids[n]*D, D)
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from jaccomp.lowering.contraction import run_stride
from jaccomp.lowering.ir import Assign, Loop, Node
from jaccomp.notation import Access


@dataclass(frozen=True, slots=True)
class Run:
    """Loops, slowest first, around one assignment of reals: where each starts and how far it goes."""

    leaf: Assign
    starts: dict[sp.Expr, sp.Expr]
    extents: dict[sp.Symbol, sp.Expr]

    @property
    def count(self) -> sp.Expr:
        return sp.Mul(*self.extents.values())

    def first(self, offset: sp.Expr) -> sp.Expr | None:
        """Where an offset starts if it takes one place after the other; else None."""
        expanded = sp.expand(offset)
        if run_stride(expanded, tuple(self.extents), self.extents) != 1:
            return None
        return sp.expand(expanded.xreplace(self.starts))


def run(loop: Loop) -> Run | None:
    """The run of loops that hold nothing but each other and one assignment to an array; None if they are no such."""
    starts: dict[sp.Expr, sp.Expr] = {}
    extents: dict[sp.Symbol, sp.Expr] = {}
    node: Node = loop
    while isinstance(node, Loop):
        if node.stop is not None or len(node.lower) != 1 or len(node.upper) != 1 or len(node.body.nodes) != 1:
            return None
        starts[node.index] = node.lower[0]
        extents[node.index] = sp.expand(node.upper[0] - node.lower[0]) if node.lower[0] != 0 else node.upper[0]
        (node,) = node.body.nodes
    if not isinstance(node, Assign) or not node.target.indices or node.target.is_integer:
        return None
    moved = {s for a in node.value.atoms(Access) | {node.target} for i in a.indices for s in _read(i)}
    return None if moved & set(extents) else Run(node, starts, extents)


def _read(offset: sp.Expr) -> set[sp.Basic]:
    """The symbols that data inside an offset are read at."""
    return {s for a in offset.atoms(Access) for i in a.indices for s in i.free_symbols}

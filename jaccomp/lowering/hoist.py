"""Factors that a reduction's loops do not change are taken out of its sum, and multiplied in once.

    acc = 0; for k: acc += a x[k] / K    ->    acc = 0; for k: acc += x[k];  if K > 0: acc = acc a / K

Input: a block of a placed nest, its accumulators promoted to locals. Output: the block, equal up to the rounding that
reordering allows. An empty sum stays 0 even where the factor is not finite: there the product is guarded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import sympy as sp

from jaccomp.lowering.ir import LEAVES, Accumulate, Assign, Block, Guard, Loop, Node, leaf_accesses, walk
from jaccomp.notation import Access
from jaccomp.program import Constraint, accesses

Path = tuple[Loop | Guard, ...]


def hoist(block: Block) -> Block:
    """The block with every sum that starts at 0 and is added up by one loop nest freed of constant factors."""
    nodes: list[Node] = []
    zero: set[Access] = set()
    for node in block.nodes:
        if isinstance(node, Loop):
            loop, scaled = _hoisted(node, zero)
            nodes += [replace(loop, body=hoist(loop.body)), *scaled]
        elif isinstance(node, Guard):
            nodes.append(replace(node, body=hoist(node.body)))
        else:
            nodes.append(node)
        zero -= _written(node)
        if isinstance(node, Assign) and node.value == 0:
            zero.add(node.target)
    return Block(tuple(nodes))


def _written(node: Node) -> set[Access]:
    return {a for n in walk(node) if isinstance(n, LEAVES) for a in leaf_accesses(n)}


def _hoisted(loop: Loop, zero: set[Access]) -> tuple[Loop, list[Node]]:
    """The loop without the factors, and the statements after it that multiply them in."""
    inner = {s for n in walk(loop) if isinstance(n, Loop) for s in (n.index, n.stop) if s is not None}
    leaves = [n for n in walk(loop) if isinstance(n, LEAVES)]
    changed = {n.target.name for n in leaves}
    found: dict[Accumulate, sp.Expr] = {}
    after: dict[tuple[Constraint, ...], list[Node]] = {}
    for leaf, path in _leaves(loop, ()):
        if not isinstance(leaf, Accumulate) or leaf.reducer != "sum" or leaf.target not in zero:
            continue
        if leaf.target.indices or sum(leaf.target in leaf_accesses(n) for n in leaves) > 1:
            continue
        factors = sp.Mul.make_args(leaf.value)
        outside = [f for f in factors if not _varies(f, inner, changed)]
        factor = sp.Mul(*outside)
        tests = _not_empty(path, inner) if _may_be_infinite(factor) else ()
        if len(outside) == len(factors) or factor in (1, -1) or tests is None:
            continue
        found[leaf] = sp.Mul(*(f for f in factors if f not in outside))
        after.setdefault(tests, []).append(Assign(leaf.target, leaf.target * factor, leaf.needs))
    scaled: list[Node] = []
    for tests, products in after.items():
        scaled += [Guard(Block(tuple(products)), tests)] if tests else products
    return (_replaced(loop, found) if found else loop), scaled


def _varies(factor: sp.Expr, inner: set[sp.Symbol], changed: set[str]) -> bool:
    return bool(factor.free_symbols & inner) or any(a.name in changed for a in accesses(factor))


def _may_be_infinite(factor: sp.Expr) -> bool:
    return factor.has(Access) or any(p.exp.is_negative is not False for p in factor.atoms(sp.Pow))


def _leaves(node: Node, path: Path) -> Iterator[tuple[Node, Path]]:
    """Every leaf below a node, and the loops and guards around it."""
    if isinstance(node, Block):
        for one in node.nodes:
            yield from _leaves(one, path)
    elif isinstance(node, Loop | Guard):
        yield from _leaves(node.body, (*path, node))
    else:
        yield node, path


def _not_empty(path: Path, inner: set[sp.Symbol]) -> tuple[Constraint, ...] | None:
    """What says that the loops run at least once; None if no test outside them can."""
    tests: dict[Constraint, None] = {}
    for one in path:
        if isinstance(one, Guard) or any(b.free_symbols & inner for b in (*one.lower, *one.upper)):
            return None
        for low in one.lower:
            tests.update(dict.fromkeys(Constraint(sp.expand(high - low - 1)) for high in one.upper))
    return tuple(t for t in tests if not (t.expr.is_number and t.expr >= 0))


def _replaced(node: Node, values: dict[Accumulate, sp.Expr]) -> Loop:
    changed = _with_values(node, values)
    assert isinstance(changed, Loop)
    return changed


def _with_values(node: Node, values: dict[Accumulate, sp.Expr]) -> Node:
    match node:
        case Block():
            return Block(tuple(_with_values(n, values) for n in node.nodes))
        case Loop() | Guard():
            body = _with_values(node.body, values)
            assert isinstance(body, Block)
            return replace(node, body=body)
        case Accumulate() if node in values:
            return replace(node, value=values[node])
        case _:
            return node

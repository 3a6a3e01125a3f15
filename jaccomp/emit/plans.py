"""The plan of a sum of products over boxes: the numbers that `jaccomp_tiles.h` reads.

y[o, i] = b[o] + Σ_c,r w[o, c, r] x[c, Within(i + r - P, 1, H)]
    ->   1, 1, 2, 1;  O, OH, 1, C*R, 0;  OH, 1, 0, 0, 0;  C, 0, 0, R, H;  R, 0, 0, 1, 0;  1, 1, 1, H, -P, 0, 1, 0, 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.lowering.affine import slope
from jaccomp.lowering.ir import LEAVES, Contract, Function, Greatest, Select, Span, Within, walk
from jaccomp.notation import Access
from jaccomp.program import Program

Row = tuple[sp.Expr, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where target, onto, left and right start, and the rows: counts, then loops, then windows."""

    starts: tuple[sp.Expr, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An operand that all iterations of a nest read alike, where it starts, and the rows: counts, then its loops.

    w[o, c, r]   ->   1, 1, 2;  O, C*R;  C, R;  R, 1
    """

    node: Contract
    operand: Access
    start: sp.Expr
    rows: tuple[Row, ...]


def prepared(function: Function, program: Program) -> tuple[Prepared, ...]:
    """What is the same for every part of the sums in register tiles of a nest: it may be packed once for all."""
    known = {*program.sizes, *(s.symbol for s in program.scalars)}
    leaves = [n for n in walk(function.body) if isinstance(n, LEAVES)]
    made = {b.name for b in function.scratch} | {n.target.name for n in leaves}
    made |= {a.name for n in leaves if isinstance(n, Select) for a in (n.best, n.seen)}
    found = [
        _prepared(node, side)
        for node in leaves
        if isinstance(node, Contract) and node.tiled and function.parallel
        for side in range(2)
        if _is_alike(node, side, known) and (node.left, node.right)[side].name not in made
    ]
    return tuple({one.node: one for one in reversed(found)}.values())


def _is_alike(node: Contract, side: int, known: set[sp.Basic]) -> bool:
    (offset,) = (node.left, node.right)[side].indices
    spans = _spans(node, side)
    bounds = [e for span in spans for ends in (*span.lower, *span.upper) for e in ends]
    free = {s for e in (offset, *bounds) for s in e.free_symbols} - {i for span in spans for i in span.indices}
    return not offset.has(Access, Within) and free <= known


def _prepared(node: Contract, side: int) -> Prepared:
    operand = (node.left, node.right)[side]
    (offset,) = operand.indices
    spans = _spans(node, side)
    lower, upper = _bounds(spans)
    loops = [(sp.expand(upper[i] - lower[i]), _slope(offset, i)) for span in spans for i in span.indices]
    counts = (sp.Integer(side), *(sp.Integer(len(span.indices)) for span in spans))
    return Prepared(node, operand, _started(offset, lower), (counts, *loops))


def _spans(node: Contract, side: int) -> tuple[Span, Span]:
    return (node.m, node.n)[side], node.k


def _bounds(spans: Sequence[Span]) -> tuple[dict[sp.Symbol, sp.Expr], dict[sp.Symbol, sp.Expr]]:
    """Where each loop starts, and where it ends."""
    lower = {i: _greatest(low) for span in spans for i, low in zip(span.indices, span.lower, strict=True)}
    upper = {i: _least(high) for span in spans for i, high in zip(span.indices, span.upper, strict=True)}
    return lower, upper


def plan(node: Contract, offsets: Sequence[sp.Expr]) -> Plan:
    """The plan of a tiled contraction, given the flat offsets of its target, what it is added to, left and right."""
    spans = (node.m, node.n, node.k)
    indices = [i for span in spans for i in span.indices]
    lower, upper = _bounds(spans)
    plain = [sp.Add(*(a for a in sp.Add.make_args(o) if not a.has(Within))) for o in offsets]
    windows = [(side, *found) for side, offset in enumerate(offsets[2:]) for found in _windows(offset)]
    counts = (*(sp.Integer(len(s.indices)) for s in spans), sp.Integer(len(windows)))
    loops = [(sp.expand(upper[i] - lower[i]), *(_slope(p, i) for p in plain)) for i in indices]
    cuts = [
        (sp.Integer(side), stride, step, extent, _started(place, lower), *(_slope(place, i) for i in indices))
        for side, stride, place, step, extent in windows
    ]
    return Plan(tuple(_started(p, lower) for p in plain), (counts, *loops, *cuts))


def _windows(offset: sp.Expr) -> list[tuple[sp.Expr, sp.Expr, sp.Expr, sp.Expr]]:
    """(stride, place, step, extent) of each window that is part of an offset, in order of appearance."""
    strides: dict[sp.Expr, list[sp.Expr]] = {}
    for addend in sp.Add.make_args(offset):
        for factor in sp.Mul.make_args(addend):
            if isinstance(factor, Within):
                strides.setdefault(factor, []).append(addend.xreplace({factor: sp.S.One}))
    return [(sp.Add(*strides[w]), *w.args) for w in sorted(strides, key=sp.default_sort_key)]


def _slope(expr: sp.Expr, index: sp.Symbol) -> sp.Expr:
    found = slope(expr, index)
    assert found is not None
    return found


def _started(expr: sp.Expr, lower: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    return sp.expand(expr.xreplace(dict(lower)))


def _greatest(bounds: Sequence[sp.Expr]) -> sp.Expr:
    return bounds[0] if len(bounds) == 1 else Greatest(*bounds)


def _least(bounds: Sequence[sp.Expr]) -> sp.Expr:
    return bounds[0] if len(bounds) == 1 else -Greatest(*(-b for b in bounds))

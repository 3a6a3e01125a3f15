"""The plan of a sum of products over boxes: the numbers that `jaccomp_tiles.h` reads.

y[o, i] = b[o] + Σ_c,r w[o, c, r] x[c, Within(i + r - P, 1, H)]
    ->   1, 1, 2, 1;  O, OH, 1, C*R, 0;  OH, 1, 0, 0, 0;  C, 0, 0, R, H;  R, 0, 0, 1, 0;  1, 1, 1, H, -P, 0, 1, 0, 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.lowering.affine import slope
from jaccomp.lowering.ir import Contract, Greatest, Within

Row = tuple[sp.Expr, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where target, onto, left and right start, and the rows: counts, then loops, then windows."""

    starts: tuple[sp.Expr, ...]
    rows: tuple[Row, ...]


def plan(node: Contract, offsets: Sequence[sp.Expr]) -> Plan:
    """The plan of a tiled contraction, given the flat offsets of its target, what it is added to, left and right."""
    spans = (node.m, node.n, node.k)
    indices = [i for span in spans for i in span.indices]
    lower = {i: _greatest(low) for span in spans for i, low in zip(span.indices, span.lower, strict=True)}
    upper = {i: _least(high) for span in spans for i, high in zip(span.indices, span.upper, strict=True)}
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

"""Affine facts about index expressions: coefficients, strides, loop bounds, injectivity.

Indices are symbols; everything else in an expression (sizes, integer scalars) is a coefficient. An index inside a data
access, a floor or a product with another index is not affine: `slope` answers None.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

import sympy as sp

from jaccomp.lowering.ir import CeilDiv, FloorDiv, LowerBound, UpperBound
from jaccomp.notation import Access
from jaccomp.program import Constraint


@lru_cache(maxsize=1 << 16)
def slope(expr: sp.Expr, index: sp.Symbol) -> sp.Expr | None:
    """The coefficient of `index` in an expression affine in it; None if it is not."""
    if expr == index:
        return sp.S.One
    if index not in expr.free_symbols:
        return sp.S.Zero
    total: list[sp.Expr] = []
    for addend in sp.Add.make_args(sp.expand(expr)):
        if index not in addend.free_symbols:
            continue
        factors = [f for f in sp.Mul.make_args(addend) if index in f.free_symbols]
        if factors != [index]:
            return None
        total.append(sp.Mul(*(f for f in sp.Mul.make_args(addend) if f != index)))
    return sp.Add(*total)


def divided(expr: sp.Expr, step: int) -> tuple[sp.Expr, int]:
    """The expression without what its constant leaves over when divided by `step`, and that."""
    expanded = sp.expand(expr)
    constant = expanded.as_coeff_Add()[0]
    left = int(constant) % step if constant.is_Integer else 0
    return expanded - left, left


def is_affine(expr: sp.Expr, indices: Iterable[sp.Symbol]) -> bool:
    """Affine in each index, with coefficients free of all of them, and no data access."""
    inside = [i for i in indices if i in expr.free_symbols]
    if expr.has(Access):
        return False
    for index in inside:
        coefficient = slope(expr, index)
        if coefficient is None or any(other in coefficient.free_symbols for other in inside):
            return False
    return True


def flat_offset(indices: Sequence[sp.Expr], shape: Sequence[sp.Expr]) -> sp.Expr:
    """The row-major offset of `indices` in an array of `shape`, expanded."""
    offset: sp.Expr = sp.S.Zero
    for index, extent in zip(indices, shape, strict=True):
        offset = offset * extent + index
    return sp.expand(offset)


def step(indices: Sequence[sp.Expr], index: sp.Symbol) -> sp.Expr | None:
    """How far an access moves with `index`: 0 not at all, 1 to the next element, None further or unknown."""
    moves = [slope(e, index) for e in indices]
    if all(m == 0 for m in moves):
        return sp.S.Zero
    return sp.S.One if moves[-1] == 1 and all(m == 0 for m in moves[:-1]) else None


def index_set(expr: sp.Basic, indices: Collection[sp.Symbol]) -> tuple[sp.Symbol, ...]:
    """Those of `indices` that occur in `expr`, in their order."""
    free = expr.free_symbols
    return tuple(i for i in indices if i in free)


def bounds_of(index: sp.Symbol, constraints: Iterable[Constraint]) -> tuple[tuple[sp.Expr, ...], tuple[sp.Expr, ...]]:
    """Lower and (exclusive) upper bounds of `index` that the inequalities imply, coefficients of any sign included.

    j - e >= 0        -> j >= e            2j + e >= 0  -> j >= ceil(-e/2)
    -S*j + e >= 0     -> S unknown: decided when the kernel runs
    """
    lower: dict[sp.Expr, None] = {}
    upper: dict[sp.Expr, None] = {}
    for constraint in constraints:
        c = slope(constraint.expr, index)
        if c is None or c == 0:
            continue
        rest = sp.expand(constraint.expr - c * index)
        if c == 1:
            lower.setdefault(sp.expand(-rest))
        elif c == -1:
            upper.setdefault(sp.expand(rest + 1))
        elif c.is_Integer and c > 0:
            lower.setdefault(CeilDiv(sp.expand(-rest), c))
        elif c.is_Integer:
            upper.setdefault(FloorDiv(rest, -c) + 1)
        else:
            lower.setdefault(LowerBound(c, rest))
            upper.setdefault(UpperBound(c, rest))
    return tuple(lower), tuple(upper)


def is_mixed_radix(
    expr: sp.Expr, indices: Sequence[sp.Symbol], extents: dict[sp.Symbol, tuple[sp.Expr, sp.Expr] | None]
) -> bool:
    """Do different values of `indices` in their boxes give different values of `expr`? A sufficient test.

    g*K + k with 0 <= k < K;  2*j;  c*H*W + h*W + w.
    """
    slopes: list[tuple[sp.Symbol, sp.Expr]] = []
    for index in indices:
        c = slope(expr, index)
        if c is None or c == 0:
            return False
        slopes.append((index, -c if c.could_extract_minus_sign() else c))
    if len(slopes) == 1:
        return bool(slopes[0][1].is_Integer)
    step: sp.Expr = sp.S.One
    waiting = list(slopes)
    while waiting:
        found = next((pair for pair in waiting if sp.expand(pair[1] - step) == 0), None)
        if found is None:
            return False
        waiting.remove(found)
        box = extents.get(found[0])
        if box is None:
            return not waiting
        step = sp.expand(step * (box[1] - box[0]))
    return True

"""Sums of monomials as matrices: what all of them share stands outside, and the shortest way to write it is kept.

g_i rstd δ_ij - g_i rstd xhat_i xhat_j / D   ->   rstd diag(g) (I - xhat xhatᵀ/D)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.matrix.nodes import (
    Axis,
    Diag,
    Entries,
    Identity,
    Node,
    Ones,
    burden,
    hadamard,
    product,
    scaled,
    total,
    transpose,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Monomial:
    """`coefficient · diag(left) core diag(right)` over rows and columns; without a core the outer product.

    If `tied`, rows and columns are one: the diagonal matrix of `left`.
    """

    coefficient: sp.Expr
    rows: Axis
    columns: Axis
    left: tuple[Node, ...] = ()
    core: Node | None = None
    right: tuple[Node, ...] = ()
    tied: bool = False


def assembled(monomials: Sequence[Monomial]) -> Node:
    """The sum, with its common scalar in front and common diagonals on their sides where that is shorter."""
    common = shared_factor([m.coefficient for m in monomials])
    own = [replace(m, coefficient=m.coefficient / common) for m in monomials]
    first = own[0]
    if not first.rows and not first.columns:
        return Entries(sp.Add(*(m.coefficient for m in monomials)), ())
    if not first.rows:
        return scaled(common, transpose(total(_column(m.coefficient, m.right, m.columns) for m in own)))
    if not first.columns:
        return scaled(common, total(_column(m.coefficient, m.left, m.rows) for m in own))
    left = _shared([m.left for m in own])
    right = _shared([_as_right(m) if m.tied else m.right for m in own])
    forms = [_sided(own, left, ()), _sided(own, (), right), _sided(own, left, right), _sided(own, (), ())]
    return scaled(common, min(forms, key=burden))


def _column(coefficient: sp.Expr, factors: Sequence[Node], axis: Axis) -> Node:
    return scaled(coefficient, hadamard(factors) if factors else Ones(axis))


def _sided(monomials: Sequence[Monomial], left: tuple[Node, ...], right: tuple[Node, ...]) -> Node:
    """The sum with these factors outside of every monomial, on either side."""
    rest = []
    for one in monomials:
        if one.tied:
            taken = Counter(left) + Counter(_renamed(f, one.columns, one.rows) for f in right)
            if any(taken[f] > Counter(one.left)[f] for f in taken):
                return _sided(monomials, (), ()) if left or right else _plain(monomials)
            rest.append(replace(one, left=_without(one.left, taken)))
        else:
            rest.append(replace(one, left=_without(one.left, Counter(left)), right=_without(one.right, Counter(right))))
    outside = [[Diag(hadamard(side))] if side else [] for side in (left, right)]
    return product([*outside[0], _plain(rest), *outside[1]])


def _plain(monomials: Sequence[Monomial]) -> Node:
    return total(scaled(m.coefficient, _matrix(m)) for m in monomials)


def _matrix(one: Monomial) -> Node:
    if one.tied:
        return Diag(hadamard(one.left)) if one.left else Identity(one.rows)
    if one.core is None:
        u, v = (
            hadamard(side) if side else Ones(axis) for side, axis in ((one.left, one.rows), (one.right, one.columns))
        )
        return product([u, transpose(v)])
    before, after = ([Diag(hadamard(side))] if side else [] for side in (one.left, one.right))
    return product([*before, one.core, *after])


def _as_right(one: Monomial) -> tuple[Node, ...]:
    """The factors of a diagonal as functions of its column."""
    return tuple(_renamed(f, one.rows, one.columns) for f in one.left)


def _renamed(node: Node, axis: Axis, to: Axis) -> Node:
    if isinstance(node, Entries) and node.rows == axis:
        where: dict[sp.Expr, sp.Expr] = {a: b for (a, _), (b, _) in zip(axis, to, strict=True)}
        return Entries(node.expr.xreplace(where), to)
    return node


def _shared(sides: Iterable[tuple[Node, ...]]) -> tuple[Node, ...]:
    """What every side holds, in the order of the first."""
    first, *others = [Counter(side) for side in sides]
    for other in others:
        first &= other
    return tuple(first.elements())


def _without(side: tuple[Node, ...], taken: Counter[Node]) -> tuple[Node, ...]:
    left = Counter(taken)
    kept = []
    for one in side:
        if left[one] > 0:
            left[one] -= 1
        else:
            kept.append(one)
    return tuple(kept)


def shared_factor(coefficients: Sequence[sp.Expr]) -> sp.Expr:
    """What divides all coefficients as they are written: equal factors, and a number that is the same in each."""
    first, *others = [Counter(_powers(c)) for c in coefficients]
    for other in others:
        first &= other
    common = sp.Mul(*first.elements())
    rest = [c / common for c in coefficients]
    numbers = {abs(sp.Mul(*(f for f in sp.Mul.make_args(c) if f.is_Number))) for c in rest}
    if len(numbers) == 1:
        common *= numbers.pop()
    return -common if all((c / common).could_extract_minus_sign() for c in coefficients) else common


def _powers(expr: sp.Expr) -> list[sp.Expr]:
    """`2 a**3/b` as [a, a, a, 1/b]."""
    found: list[sp.Expr] = []
    for factor in sp.Mul.make_args(expr):
        base, exponent = factor.as_base_exp()
        if factor.is_Number:
            continue
        if exponent.is_Integer and abs(exponent) < 16:
            found += [base ** sp.sign(exponent)] * abs(int(exponent))
        else:
            found.append(factor)
    return found


def pulled_out(expr: sp.Expr, inside: Iterable[sp.Symbol]) -> tuple[sp.Expr, sp.Expr]:
    """`2 x_i - 2 z_i` as (2, x_i - z_i): the scalar that all addends share, and the rest."""
    if not isinstance(expr, sp.Add):
        return sp.S.One, expr
    symbols = set(inside)
    scalars = [sp.Mul(*(f for f in sp.Mul.make_args(a) if not f.free_symbols & symbols)) for a in expr.args]
    common = shared_factor(scalars)
    return common, sp.Add(*(a / common for a in expr.args))

"""Sums of products, collected: what all addends share stands in front, what several share is grouped.

Nothing is expanded here that was not a plain product of sums of a few addends, and no polynomial arithmetic is asked:
`cancel` on whole expressions explodes. A form is kept only if it has no more operations.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import sympy as sp

from jaccomp.algebra.absorption import absorbed
from jaccomp.algebra.cost import FUNCTION_WEIGHT, operations
from jaccomp.notation import Access

LARGEST_EXPANSION = 64  # addends

Powers = dict[sp.Expr, sp.Expr]


def weight(expr: sp.Expr) -> int:
    return operations(expr, FUNCTION_WEIGHT)


def cheapest(*forms: sp.Expr) -> sp.Expr:
    """The form with the fewest operations, then the shortest, then the first of equals."""
    return min(forms, key=lambda form: (weight(form), _length(form)))


@lru_cache(maxsize=1 << 16)
def _length(expr: sp.Expr) -> int:
    """The nodes of an expression; a read is one."""
    return 1 if isinstance(expr, Access) else 1 + sum(_length(one) for one in expr.args)


def collected(expr: sp.Expr) -> sp.Expr:
    """An equal expression with no more operations: expanded where that is small, then factored."""
    if isinstance(expr, Access) or not expr.args or not isinstance(expr, sp.Add | sp.Mul | sp.Pow):
        return expr
    expr = absorbed(expr)
    flat = flattened(expr)
    return cheapest(expr, joined(factored(expr)), joined(factored(joined(flat))))


def flattened(expr: sp.Expr) -> sp.Expr:
    """Products distributed over sums, unless that makes too many addends or opens a power of a sum."""
    if isinstance(expr, sp.Add):
        return sp.Add(*(flattened(one) for one in expr.args))
    if not isinstance(expr, sp.Mul) or not 1 < expansion(expr) <= LARGEST_EXPANSION:
        return expr
    addends: list[sp.Expr] = [sp.S.One]
    for factor in expr.args:
        addends = [a * b for a in addends for b in sp.Add.make_args(factor)]
    return sp.Add(*(flattened(a) if a.has(sp.Add) and a != expr else a for a in addends))


@lru_cache(maxsize=1 << 16)
def expansion(expr: sp.Expr) -> int:
    """How many addends an expression has when all its products are distributed."""
    if isinstance(expr, Access) or not isinstance(expr, sp.Add | sp.Mul):
        return 1
    counts = [expansion(one) for one in expr.args]
    return sum(counts) if isinstance(expr, sp.Add) else prod(counts)


def joined(expr: sp.Expr) -> sp.Expr:
    """`exp(a) exp(b)` as `exp(a + b)` in the products of an expression; SymPy joins only what cancels."""
    if isinstance(expr, Access) or not expr.args or not expr.has(sp.exp):
        return expr
    if isinstance(expr, sp.Add):
        return sp.Add(*(joined(one) for one in expr.args))
    if isinstance(expr, sp.Mul):
        powers = [f for f in expr.args if isinstance(f, sp.exp)]
        rest = [joined(f) for f in expr.args if not isinstance(f, sp.exp)]
        if len(powers) > 1:
            return sp.Mul(*rest, sp.exp(sp.Add(*(p.args[0] for p in powers))))
        return sp.Mul(*rest, *powers)
    return expr


def _powers(addend: sp.Expr) -> tuple[sp.Expr, Powers]:
    """A product as (rational coefficient, base -> exponent); only rational exponents are split off."""
    coefficient, rest = addend.as_coeff_Mul()
    powers: Powers = {}
    for factor in sp.Mul.make_args(rest):
        base, exponent = factor.as_base_exp() if isinstance(factor, sp.Pow) else (factor, sp.S.One)
        if base == sp.E or not exponent.is_Rational:
            base, exponent = factor, sp.S.One
        powers[base] = powers.get(base, sp.S.Zero) + exponent
    powers.pop(sp.S.One, None)
    return coefficient, powers


def factored(expr: sp.Expr) -> sp.Expr:
    """A sum with the factors that all addends share in front, and groups of addends with a shared factor inside."""
    if isinstance(expr, sp.Mul):
        return sp.Mul(*(factored(one) for one in expr.args))
    if not isinstance(expr, sp.Add):
        return expr
    rows = [_powers(addend) for addend in expr.args]
    shared = _shared([powers for _, powers in rows])
    scale = _scale([coefficient for coefficient, _ in rows])
    inner = [_build(c / scale, _less(powers, shared)) for c, powers in rows]
    front = _build(scale, shared)
    body = _grouped(inner)
    if front == 1:
        return body
    return sp.Mul(front, body, evaluate=False) if front.is_Number and isinstance(body, sp.Add) else front * body


def _scale(coefficients: list[sp.Expr]) -> sp.Expr:
    """A rational to take out of all addends: when all have it but for the sign."""
    first = abs(coefficients[0])
    if first != 1 and all(abs(c) == first for c in coefficients):
        return -first if all(c < 0 for c in coefficients) else first
    return -sp.S.One if all(c < 0 for c in coefficients) else sp.S.One


def _shared(rows: list[Powers]) -> Powers:
    found: Powers = {}
    for base in rows[0]:
        exponents = [row.get(base, sp.S.Zero) for row in rows]
        if all(e > 0 for e in exponents):
            found[base] = min(exponents)
        elif all(e < 0 for e in exponents):
            found[base] = max(exponents)
    return found


def _less(powers: Powers, shared: Powers) -> Powers:
    return {b: e - shared.get(b, sp.S.Zero) for b, e in powers.items() if e != shared.get(b, sp.S.Zero)}


def _build(coefficient: sp.Expr, powers: Powers) -> sp.Expr:
    return sp.Mul(coefficient, *(b**e for b, e in powers.items()))


def _grouped(addends: list[sp.Expr]) -> sp.Expr:
    """Greedy: the factor that most addends share is taken out of them, again and again."""
    rest = list(addends)
    groups: list[sp.Expr] = []
    while len(rest) > 2:
        rows = [_powers(addend)[1] for addend in rest]
        counts: dict[tuple[sp.Expr, bool], int] = {}
        for row in rows:
            for base, exponent in row.items():
                if not base.has(Access):
                    continue  # constants of a row are better absorbed in its statistics
                key = (base, bool(exponent > 0))
                counts[key] = counts.get(key, 0) + 1
        best = max(counts, key=lambda key: counts[key], default=None)
        if best is None or counts[best] < 2:
            break
        chosen = [k for k, row in enumerate(rows) if best[0] in row and bool(row[best[0]] > 0) == best[1]]
        if len(chosen) == len(rest):
            break
        groups.append(factored(sp.Add(*(rest[k] for k in chosen))))
        rest = [a for k, a in enumerate(rest) if k not in chosen]
    return sp.Add(*groups, *rest)

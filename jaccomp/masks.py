"""Factors of a sum's body that are 0 under a condition, written so that what they mask never counts.

(1 - δ(i,j)) f                       ->  cases(0 if i = j; f otherwise)
cases(c exp(a) if ..; 0 otherwise)   ->  c exp(cases(a if ..; -∞ otherwise))
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from jaccomp.notation import Access, Pad


def excluded(factors: Sequence[sp.Expr]) -> list[sp.Expr]:
    """The factors, those of the form `1 - δ` as one case around the others.

    Multiplied out, what is excluded would be taken from the whole sum again, and leave its rounding error there.
    """
    equal = {f: sp.Eq(*one.args[:2]) for f in factors if (one := _delta(f)) is not None}
    rest = [f for f in factors if f not in equal]
    if not equal or any(f.has(sp.KroneckerDelta, Pad) for f in rest):
        return list(factors)
    return [sp.Piecewise((sp.S.Zero, sp.Or(*equal.values())), (sp.Mul(*rest), True))]


def _delta(factor: sp.Expr) -> sp.Expr | None:
    """The δ of `1 - δ`."""
    delta = 1 - factor if isinstance(factor, sp.Add) else None
    return delta if isinstance(delta, sp.KroneckerDelta) else None


def masked(factor: sp.Expr) -> sp.Expr:
    """A masked exponential as the exponential of a mask: it can then be shifted by the largest that is left."""
    values = [value for value, _ in factor.args] if isinstance(factor, sp.Piecewise) else []
    if len(values) != 2 or sp.S.Zero not in values:
        return factor
    factors = sp.Mul.make_args(values[0] + values[1])
    powers = [f for f in factors if isinstance(f, sp.exp)]
    rest = [f for f in factors if f not in powers]
    if len(powers) != 1 or not all(f.is_number or isinstance(f, Access) for f in rest):
        return factor
    exponents = [(powers[0].args[0] if value != 0 else -sp.oo, condition) for value, condition in factor.args]
    return sp.Mul(*rest, sp.exp(sp.Piecewise(*exponents)))


def multiplied_out(expr: sp.Expr) -> sp.Expr:
    """Products of sums as sums of products, but not inside functions and other sums."""
    spread = sp.expand_mul(expr, deep=False)
    return sp.Add(*map(multiplied_out, spread.args)) if isinstance(spread, sp.Add) else spread

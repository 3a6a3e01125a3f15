"""Laws of signs, steps and quotients that a derivative leaves behind: one row each, with its law.

    2 max(z, 0) step(z)  ->  2 max(z, 0)          sign(z) (1 - 2 σ(-2|z|))  ->  tanh(z)

Each holds for every real z by the conventions at kinks, step(0) = 0 and sign(0) = 0, and makes the expression shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from jaccomp.algebra.matching import Rewrite, rewritten
from jaccomp.calculus.functions import Sigmoid, Step
from jaccomp.notation import Access

ODD = (sp.tanh, sp.sin, sp.sinh, sp.atan, sp.asinh, sp.erf)
TOUCHED = (Step, sp.sign, Sigmoid, sp.Pow)


@dataclass(frozen=True, slots=True)
class Law:
    """`left = right` for all reals, and the function that rewrites a node; None where the law does not apply."""

    name: str
    statement: str
    rewrite: Rewrite


def _step_of_extremum(expr: sp.Expr) -> sp.Expr | None:
    if not isinstance(expr, sp.Mul):
        return None
    for step in (f for f in expr.args if isinstance(f, Step)):
        z = step.args[0]
        rest = [f for f in expr.args if f != step]
        if any(_base(f) in (sp.Max(0, z), sp.Min(0, -z)) for f in rest):
            return sp.Mul(*rest)
    return None


def _base(factor: sp.Expr) -> sp.Expr:
    """What a factor is a whole positive power of."""
    is_power = isinstance(factor, sp.Pow) and factor.exp.is_Integer and factor.exp > 0
    return factor.base if is_power else factor


def _sign_times_itself(expr: sp.Expr) -> sp.Expr | None:
    if not isinstance(expr, sp.Mul):
        return None
    for sign in (f for f in expr.args if isinstance(f, sp.sign)):
        z = sign.args[0]
        rest = [f for f in expr.args if f != sign]
        if isinstance(z, Access) and z in rest:
            rest[rest.index(z)] = sp.Abs(z)
            return sp.Mul(*rest)
        odd = next((f for f in rest if isinstance(f, ODD) and f.args[0] in (sp.Abs(z), sp.Abs(-z))), None)
        if odd is not None:
            rest[rest.index(odd)] = odd.func(z)
            return sp.Mul(*rest)
    return None


def _logistic(expr: sp.Expr) -> sp.Expr | None:
    if not isinstance(expr, sp.Add) or len(expr.args) != 2:
        return None
    constant, rest = expr.as_coeff_Add()
    coefficient, function = rest.as_coeff_Mul()
    if isinstance(function, Sigmoid) and abs(constant) == 1 and coefficient == -2 * constant:
        return constant * sp.tanh(-function.args[0] / 2)
    return None


def _quotient(expr: sp.Expr) -> sp.Expr | None:
    if not isinstance(expr, sp.Add) or len(expr.args) != 2:
        return None
    constant, rest = expr.as_coeff_Add()
    if constant == 0:
        return None
    for factor in sp.Mul.make_args(rest):
        if isinstance(factor, sp.Pow) and factor.exp == -1 and isinstance(factor.base, sp.Add):
            left = sp.expand_mul(constant * factor.base + rest * factor.base)
            if left.is_number:
                return left * factor
    return None


LAWS: tuple[Law, ...] = (
    Law("step-of-extremum", "max(z, 0) step(z) = max(z, 0); min(z, 0) step(-z) = min(z, 0)", _step_of_extremum),
    Law("sign-times-odd", "z sign(z) = |z|; f(|z|) sign(z) = f(z), f odd", _sign_times_itself),
    Law("centred-logistic", "1 - 2 σ(z) = tanh(-z/2)", _logistic),
    Law("complement", "1 - z/(c + z) = c/(c + z)", _quotient),
)


def absorbed(expr: sp.Expr) -> sp.Expr:
    """The expression with every instance of a law's left side rewritten, innermost first."""
    return rewritten(expr, [law.rewrite for law in LAWS], TOUCHED)

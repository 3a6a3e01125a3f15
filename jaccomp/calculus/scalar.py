"""Derivatives of scalar expressions: one table of functions, one table of conventions at kinks, one walk.

SymPy's own `diff` leaves `Heaviside`, `DiracDelta` and unevaluated `floor'` behind and knows nothing of conventions;
here a function without a row is an error. Nothing else in jaccomp holds a derivative but the reducers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sympy as sp

from jaccomp.calculus.functions import (
    Expm1,
    Finite,
    HalfStep,
    InverseRoot,
    Log1p,
    Sigmoid,
    Softplus,
    Step,
)
from jaccomp.errors import DerivativeError
from jaccomp.notation import Access

Rule = Callable[..., sp.Expr]


@dataclass(frozen=True, slots=True)
class Derivative:
    """`rules[k](z, ..., y)`: the partial by argument k, in the arguments z and the value y."""

    function: type
    rules: tuple[Rule, ...]
    source: str = "definition"


@dataclass(frozen=True, slots=True)
class Convention:
    """The value that stands in where a derivative, or a value, does not exist."""

    what: str
    value: str
    source: str


def _zero(*_: sp.Expr) -> sp.Expr:
    return sp.S.Zero


DERIVATIVES: tuple[Derivative, ...] = (
    Derivative(sp.exp, (lambda z, y: y,)),
    Derivative(sp.log, (lambda z, y: 1 / z,)),
    Derivative(Log1p, (lambda z, y: 1 / (1 + z),)),
    Derivative(Expm1, (lambda z, y: sp.exp(z),)),
    Derivative(Sigmoid, (lambda z, y: y * (1 - y),)),
    Derivative(Softplus, (lambda z, y: Sigmoid(z),)),
    Derivative(InverseRoot, (lambda z, y: -(y**3) / 2,)),
    Derivative(sp.sin, (lambda z, y: sp.cos(z),)),
    Derivative(sp.cos, (lambda z, y: -sp.sin(z),)),
    Derivative(sp.tan, (lambda z, y: 1 + y**2,)),
    Derivative(sp.asin, (lambda z, y: (1 - z**2) ** sp.Rational(-1, 2),)),
    Derivative(sp.acos, (lambda z, y: -((1 - z**2) ** sp.Rational(-1, 2)),)),
    Derivative(sp.atan, (lambda z, y: 1 / (1 + z**2),)),
    Derivative(sp.atan2, (lambda a, b, y: b / (a**2 + b**2), lambda a, b, y: -a / (a**2 + b**2))),
    Derivative(sp.sinh, (lambda z, y: sp.cosh(z),)),
    Derivative(sp.cosh, (lambda z, y: sp.sinh(z),)),
    Derivative(sp.tanh, (lambda z, y: 1 - y**2,)),
    Derivative(sp.asinh, (lambda z, y: (1 + z**2) ** sp.Rational(-1, 2),)),
    Derivative(sp.acosh, (lambda z, y: (z**2 - 1) ** sp.Rational(-1, 2),)),
    Derivative(sp.atanh, (lambda z, y: 1 / (1 - z**2),)),
    Derivative(sp.erf, (lambda z, y: 2 / sp.sqrt(sp.pi) * sp.exp(-(z**2)),)),
    Derivative(sp.erfc, (lambda z, y: -2 / sp.sqrt(sp.pi) * sp.exp(-(z**2)),)),
    Derivative(sp.Abs, (lambda z, y: sp.sign(z),), source="subgradient used by PyTorch and JAX"),
    Derivative(sp.sign, (_zero,)),
    Derivative(Step, (_zero,)),
    Derivative(HalfStep, (_zero,)),
    Derivative(sp.floor, (_zero,)),
    Derivative(sp.ceiling, (_zero,)),
    Derivative(Finite, (lambda z, y: sp.S.One,)),
)

CONVENTIONS: tuple[Convention, ...] = (
    Convention("derivative of Max(x, c), Min(x, c), c constant, at x = c", "0", "relu'(0) = 0 in PyTorch and JAX"),
    Convention("derivative of Max(a, b), Min(a, b) at a = b", "1/2 each", "jax.numpy.maximum; torch.maximum"),
    Convention("derivative of |x| at 0", "0", "torch.abs; jax.numpy.abs gives 1"),
    Convention("derivative of a maximum or minimum over an index", "1 at the first extremum", "torch.max(dim)"),
    Convention("x/‖x‖ and the derivative of ‖x‖ at 0", "0", "torch.linalg.norm's subgradient"),
    Convention("softmax of a fully masked row (every entry -∞)", "0", "flash attention's convention"),
)

_TABLE: Mapping[type, Derivative] = {row.function: row for row in DERIVATIVES}


def known_functions() -> tuple[type, ...]:
    """The functions with a row, in the order of the table."""
    return tuple(_TABLE)


def partials(body: sp.Expr) -> dict[Access, sp.Expr]:
    """The partial derivative of a scalar expression by each distinct access of a real tensor in it.

    Raises `DerivativeError` where a function has no row.
    """
    found = _walk(body)
    return {access: value for access, value in found.items() if value != 0}


def _walk(expr: sp.Expr) -> dict[Access, sp.Expr]:
    if isinstance(expr, Access):
        return {} if expr.is_integer else {expr: sp.S.One}
    if not expr.has(Access):
        return {}
    if isinstance(expr, sp.Add):
        return _add(*((one, sp.S.One) for one in expr.args))
    if isinstance(expr, sp.Mul):
        return _add(
            *((one, sp.Mul(*expr.args[:k], *expr.args[k + 1 :])) for k, one in enumerate(expr.args) if one.has(Access))
        )
    if isinstance(expr, sp.Pow):
        return _power(expr)
    if isinstance(expr, sp.Max | sp.Min):
        return _extremum(expr)
    if isinstance(expr, sp.Piecewise):
        return _piecewise(expr)
    row = _TABLE.get(type(expr))
    if row is None:
        if expr.is_integer:
            return {}
        raise DerivativeError(
            f"derivative of {expr}",
            f"the function {type(expr).__name__} has no derivative in jaccomp's table.",
            f"Known: {', '.join(sorted(f.__name__ for f in _TABLE))}, powers, Max, Min and Piecewise.",
        )
    return _add(*((z, rule(*expr.args, expr)) for z, rule in zip(expr.args, row.rules, strict=True)))


def _add(*parts: tuple[sp.Expr, sp.Expr]) -> dict[Access, sp.Expr]:
    """The chain rule: inner derivatives of each part, times its outer one."""
    total: dict[Access, sp.Expr] = {}
    for inner, outer in parts:
        for access, value in _walk(inner).items():
            total[access] = total.get(access, sp.S.Zero) + outer * value
    return total


def _power(expr: sp.Pow) -> dict[Access, sp.Expr]:
    base, exponent = expr.args
    parts = [(base, exponent * base ** (exponent - 1))]
    if exponent.has(Access):
        parts.append((exponent, expr * sp.log(base)))
    return _add(*parts)


def _extremum(expr: sp.Expr) -> dict[Access, sp.Expr]:
    """Max and Min of several arguments as nested ones of two: the constants first, then in canonical order."""
    sign = 1 if isinstance(expr, sp.Max) else -1
    arguments = sorted(expr.args, key=lambda one: bool(one.has(Access)))
    first, rest = arguments[-1], arguments[:-1]
    other = expr.func(*rest)
    step = HalfStep if other.has(Access) else Step
    parts = [(first, step(sign * (first - other)))]
    if other.has(Access):
        parts.append((other, HalfStep(sign * (other - first))))
    return _add(*parts)


def _piecewise(expr: sp.Piecewise) -> dict[Access, sp.Expr]:
    """Branch by branch, under the conditions as they stand."""
    branches = [(_walk(value), condition) for value, condition in expr.args]
    found = dict.fromkeys(access for inner, _ in branches for access in inner)
    return {
        access: sp.Piecewise(*((inner.get(access, sp.S.Zero), condition) for inner, condition in branches))
        for access in found
    }

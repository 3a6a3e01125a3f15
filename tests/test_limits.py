"""Values that expressions may take, and what they say of where a program has no value, no derivative, or overflows."""

from __future__ import annotations

from math import inf
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from sympy import Abs, Eq, Max, Min, Ne, Piecewise, Sum, acos, atanh, cos, exp, floor, log, sqrt, tan

import jaccomp as jc
from jaccomp.algebra.limits import limits, overflows
from jaccomp.algebra.values import FUNCTIONS, NONNEGATIVE, POSITIVE, REAL, Scope, Values, scope_of
from jaccomp.calculus import functions as own
from jaccomp.notation import Access
from jaccomp.pipeline import halves
from jaccomp.program import value_symbol

N = jc.size("N")
n, k = jc.index("n", N), jc.index("k", N)
x, z, y, m = jc.tensor("x z y m", N)
eps = jc.scalar("eps", default=1e-6)

INTERVALS = (Values(-3, -1, False), Values(-2, 0.5), Values(0, 4), Values(0.5, 2, False), REAL, NONNEGATIVE, POSITIVE)
NUMERIC: dict[type, Any] = {
    own.Expm1: mpmath.expm1, own.Log1p: mpmath.log1p, own.Sigmoid: lambda v: 1 / (1 + mpmath.exp(-v)),
    own.Softplus: lambda v: mpmath.log1p(mpmath.exp(v)), own.InverseRoot: lambda v: 0 if v == 0 else 1 / mpmath.sqrt(v),
    own.Finite: lambda v: v, own.Step: lambda v: float(v > 0), own.HalfStep: lambda v: np.heaviside(float(v), 0.5),
    sp.Abs: abs, sp.sign: mpmath.sign, sp.atan: mpmath.atan,
}  # fmt: skip


def inside(value: Any, values: Values) -> bool:
    slack = 1e-9 * (1 + abs(float(value)))
    return values.low - slack <= value <= values.high + slack and (value != 0 or values.has_zero)


def samples(values: Values) -> list[float]:
    ends = max(values.low, -600.0), min(values.high, 600.0)
    return [float(v) for v in np.linspace(*ends, 41) if inside(v, values)]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_the_image_of_an_interval_holds_the_values(function: type, interval: Values) -> None:
    image = FUNCTIONS[function](interval)
    compute = NUMERIC.get(function) or getattr(mpmath, function.__name__)
    for value in samples(interval):
        try:
            found = compute(mpmath.mpf(value))
        except (ValueError, ZeroDivisionError):
            continue
        if isinstance(found, mpmath.mpc) or not np.isfinite(float(found)):
            continue
        assert inside(found, image), (value, found, image)


@pytest.mark.parametrize("a", INTERVALS, ids=str)
@pytest.mark.parametrize("b", INTERVALS, ids=str)
def test_sums_products_and_powers_hold_their_values(a: Values, b: Values) -> None:
    for u in samples(a)[::5]:
        for v in samples(b)[::5]:
            assert inside(u + v, a + b) and inside(u * v, a * b)
        for power in (sp.Integer(2), sp.Integer(3), sp.Integer(-1), sp.Integer(-2), sp.S.Half, -sp.S.Half):
            if (u == 0 and power < 0) or (u < 0 and not power.is_Integer):
                continue
            assert inside(u ** float(power), a.power(power)), (u, power)


def test_a_condition_narrows_what_it_is_about() -> None:
    read = Access(value_symbol("x0", "real"), sp.Symbol("i0", integer=True))
    scope = Scope({}, {}, {})
    cases = Piecewise((sp.Symbol("a"), read > 1), (sp.Symbol("b"), read < -1), (sp.Symbol("c"), True))
    first, second, third = (here.of(read) for _, here in scope.cases(cases))
    assert (first.low, second.high) == (1, -1) and (third.low, third.high) == (-1, 1)
    assert not scope.where(Ne(read, 0)).of(read).has_zero


def test_a_shift_by_the_maximum_leaves_nothing_above_zero() -> None:
    program = halves(jc.layers.softmax.derivation).forward
    scope = scope_of(program)
    (exponent,) = {e.args[0] for e in program.definition("u0").body.atoms(sp.exp)}  # type: ignore[union-attr]
    assert scope.of(exponent).high == 0
    assert scope.of(exponent - exponent.args[1]).high == inf


# Limits


def found(right: Any, *, inputs: tuple[Any, ...] = (x,), scalars: tuple[Any, ...] = ()) -> list[tuple[str, str]]:
    layer = jc.Layer("one", inputs=list(inputs), scalars=list(scalars), outputs=[y], equations=[Eq(y[n], right)])
    return [(note.what, note.where.text) for note in layer.card().domain]


ONE = {
    "1/x": (1 / x[n], [("undefined", "x[n] = 0")]),
    "1/(1+x²)": (1 / (1 + x[n] ** 2), []),
    "sqrt": (sqrt(x[n]), [("undefined", "x[n] < 0"), ("not differentiable", "x[n] = 0")]),
    "rsqrt": (1 / sqrt(x[n]), [("undefined", "x[n] ≤ 0")]),
    "sqrt(1+x²)": (sqrt(1 + x[n] ** 2), []),
    "rsqrt(exp + 1)": (1 / sqrt(1 + exp(-(x[n] ** 2))), []),
    "log": (log(x[n]), [("undefined", "x[n] ≤ 0")]),
    "log(x²)": (log(x[n] ** 2), [("undefined", "x[n]² = 0")]),
    "log(1+x²)": (log(1 + x[n] ** 2), []),
    "abs": (Abs(x[n]), [("not differentiable", "x[n] = 0")]),
    "abs(1+x²)": (Abs(1 + x[n] ** 2), []),
    "abs²": (Abs(x[n]) ** 2 * 3, []),
    "abs³": (Abs(x[n]) ** 3, []),
    "max": (Max(x[n], 2), [("not differentiable", "x[n] = 2")]),
    "max never": (Max(x[n] ** 2, -1), []),
    "max squared": (Max(x[n], 0) ** 2, []),
    "min": (Min(cos(x[n]), 2) + 1, []),
    "floor": (floor(x[n]) * x[n], [("not differentiable", "x[n] = floor(x[n])")]),
    "acos": (acos(x[n]), [("undefined", "|x[n]| > 1"), ("not differentiable", "|x[n]| = 1")]),
    "acos(cos)": (acos(cos(x[n]) / 2), []),
    "atanh": (atanh(x[n]), [("undefined", "|x[n]| ≥ 1")]),
    "tan": (tan(x[n]), [("undefined", "cos(x[n]) = 0")]),
    "smooth cases": (Piecewise((x[n] ** 2, x[n] > 0), (0, True)), []),
    "kinked cases": (Piecewise((x[n] ** 2, x[n] > 0), (x[n], True)), [("not differentiable", "x[n] = 0")]),
    "jump": (Piecewise((x[n] + 1, x[n] > 0), (x[n], True)), [("not differentiable", "x[n] = 0")]),
    "guarded": (Piecewise((log(x[n]), x[n] > 1), (0, True)), [("not differentiable", "x[n] = 1")]),
    "guarded division": (Piecewise((1 / x[n], x[n] > 1), (1, True)), [("not differentiable", "x[n] = 1")]),
    "exp": (exp(x[n]), [("overflow", "x[n] > 88.7")]),
    "exp(-x²)": (exp(-(x[n] ** 2)), []),
    "exp(min)": (exp(Min(x[n], 0)), [("not differentiable", "x[n] = 0")]),
    "cosh": (sp.cosh(x[n]), [("overflow", "|x[n]| > 88.7")]),
}


@pytest.mark.parametrize("name", ONE)
def test_the_limits_of_an_expression(name: str) -> None:
    right, expected = ONE[name]
    assert found(right) == expected


def test_two_arguments_of_a_maximum_meet() -> None:
    assert found(Max(x[n], z[n]), inputs=(x, z)) == [("not differentiable", "x[n] = z[n]")]


def test_the_sign_of_a_scalar_rules_a_limit_out() -> None:
    layer = jc.Layer("one", inputs=[x], scalars=[eps], outputs=[y], equations=[Eq(y[n], 1 / (x[n] ** 2 + eps))])
    (limit,) = limits(layer.prepared)
    assert (limit.kind, limit.unless) == ("undefined", ("c0 > 0",))
    assert layer.card().domain[0].why.endswith("never where eps > 0")


def test_extrema_over_an_index_may_tie() -> None:
    assert found(jc.MaxOver(x[k] * x[n], k))[0][1].startswith("ties in ")


def test_an_exponential_that_is_stabilised_is_not_said_to_overflow() -> None:
    layer = jc.Layer("one", inputs=[x], outputs=[y], equations=[Eq(y[n], exp(x[n]) / Sum(exp(x[k]), k))])
    kinds = {one.kind for one in overflows(layer.program, halves(layer.derivation).forward)}
    assert kinds == {"stabilised"}

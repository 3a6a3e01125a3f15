"""The table of scalar derivatives: every row against mpmath's numeric derivative, every convention at its kink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp

import jaccomp as jc
from jaccomp.calculus import functions as own
from jaccomp.calculus.scalar import CONVENTIONS, DERIVATIVES, Derivative, known_functions, partials
from jaccomp.errors import DerivativeError
from jaccomp.notation import Access
from jaccomp.program import value_symbol

DIGITS = 40
EVERYWHERE = (-2.25, -0.75, 0.375, 1.5)
INSIDE = (-0.75, -0.25, 0.375, 0.875)
ABOVE_ONE = (1.125, 1.75, 4.5)
POSITIVE = (0.125, 0.75, 2.5)

Numeric = Callable[..., Any]
TRUTH: dict[type, tuple[Numeric, tuple[float, ...]]] = {
    sp.exp: (mpmath.exp, EVERYWHERE),
    sp.log: (mpmath.log, POSITIVE),
    own.Log1p: (mpmath.log1p, (-0.75, 0.375, 1.5)),
    own.Expm1: (mpmath.expm1, EVERYWHERE),
    own.Sigmoid: (lambda z: 1 / (1 + mpmath.exp(-z)), EVERYWHERE),
    own.Softplus: (lambda z: mpmath.log1p(mpmath.exp(z)), EVERYWHERE),
    own.InverseRoot: (lambda z: 1 / mpmath.sqrt(z), POSITIVE),
    sp.sin: (mpmath.sin, EVERYWHERE),
    sp.cos: (mpmath.cos, EVERYWHERE),
    sp.tan: (mpmath.tan, INSIDE),
    sp.asin: (mpmath.asin, INSIDE),
    sp.acos: (mpmath.acos, INSIDE),
    sp.atan: (mpmath.atan, EVERYWHERE),
    sp.atan2: (mpmath.atan2, EVERYWHERE),
    sp.sinh: (mpmath.sinh, EVERYWHERE),
    sp.cosh: (mpmath.cosh, EVERYWHERE),
    sp.tanh: (mpmath.tanh, EVERYWHERE),
    sp.asinh: (mpmath.asinh, EVERYWHERE),
    sp.acosh: (mpmath.acosh, ABOVE_ONE),
    sp.atanh: (mpmath.atanh, INSIDE),
    sp.erf: (mpmath.erf, EVERYWHERE),
    sp.erfc: (mpmath.erfc, EVERYWHERE),
    sp.Abs: (abs, EVERYWHERE),
    sp.sign: (mpmath.sign, EVERYWHERE),
    own.Step: (lambda z: mpmath.mpf(z > 0), EVERYWHERE),
    own.HalfStep: (lambda z: mpmath.mpf(z > 0), EVERYWHERE),
    sp.floor: (mpmath.floor, EVERYWHERE),
    sp.ceiling: (mpmath.ceil, EVERYWHERE),
    own.Finite: (lambda z: z, EVERYWHERE),
}


def defined(expr: sp.Expr) -> sp.Expr:
    """jaccomp's own functions as the expressions that define them, so that SymPy can evaluate them to any digits."""
    return expr.replace(
        lambda e: isinstance(e, own.RealFunction) and hasattr(e, "definition"), lambda e: e.definition()
    )


def read(name: str) -> Access:
    return Access(value_symbol(name, "real"))


def value(expr: sp.Expr, at: dict[Access, float]) -> Any:
    """The expression at rational points, to the test's digits."""
    where = {access: sp.Rational(number) for access, number in at.items()}
    return mpmath.mpmathify(sp.N(defined(expr.xreplace(where)), DIGITS))


@pytest.mark.parametrize("row", DERIVATIVES, ids=lambda row: row.function.__name__)
def test_a_row_is_the_numeric_derivative(row: Derivative) -> None:
    function, points = TRUTH[row.function]
    names = [read(f"x{k}") for k in range(len(row.rules))]
    found = partials(row.function(*names))
    with mpmath.workdps(DIGITS):
        for k, one in enumerate(names):
            for shift in range(len(points) if len(names) > 1 else 1):
                others = dict(zip(names, points[shift:] + points[:shift], strict=False))
                for z in points:
                    at = others | {one: z}
                    order = tuple(1 if j == k else 0 for j in range(len(names)))
                    numbers = tuple(mpmath.mpf(at[name]) for name in names)
                    expected = mpmath.diff(
                        function, numbers if len(names) > 1 else numbers[0], order if len(names) > 1 else 1
                    )
                    assert abs(value(found.get(one, sp.S.Zero), at) - expected) < 1e-15 * (1 + abs(expected))


def test_the_tests_know_every_row() -> None:
    assert tuple(TRUTH) == known_functions()
    assert all(row.source for row in DERIVATIVES)


def test_powers_by_base_and_exponent() -> None:
    a, b = read("x0"), read("x1")
    found = partials(a**b)
    for at in ({a: 0.75, b: 1.5}, {a: 2.5, b: -0.5}):
        with mpmath.workdps(DIGITS):
            x, y = mpmath.mpf(at[a]), mpmath.mpf(at[b])
            assert abs(value(found[a], at) - y * x ** (y - 1)) < 1e-30
            assert abs(value(found[b], at) - x**y * mpmath.log(x)) < 1e-30
    assert partials(a**3) == {a: 3 * a**2}
    assert partials(sp.sqrt(a)) == {a: a ** sp.Rational(-1, 2) / 2}


def test_an_exponential_and_a_power_of_a_sum_by_the_chain_rule() -> None:
    a, b = read("x0"), read("x1")
    found = partials(sp.exp(a * b) * sp.sin(a + b**2))
    at = {a: 0.375, b: -0.75}
    with mpmath.workdps(DIGITS):
        for k, one in enumerate((a, b)):
            expected = mpmath.diff(
                lambda x, y: mpmath.exp(x * y) * mpmath.sin(x + y**2), (0.375, -0.75), (1, 0) if k == 0 else (0, 1)
            )
            assert abs(value(found[one], at) - expected) < 1e-15


def test_each_access_is_a_variable_of_its_own() -> None:
    i, j = sp.Symbol("i0", integer=True), sp.Symbol("b0", integer=True)
    x = value_symbol("x0", "real")
    found = partials(Access(x, i) * Access(x, j))
    assert found == {Access(x, i): Access(x, j), Access(x, j): Access(x, i)}


def test_integer_tensors_have_no_derivative() -> None:
    ids = Access(value_symbol("x1", "int64"))
    a = read("x0")
    assert partials(a * ids) == {a: ids}
    assert partials(sp.Mod(ids, 3) * a) == {a: sp.Mod(ids, 3)}


def test_a_piecewise_is_differentiated_branch_by_branch_under_its_conditions() -> None:
    a, b = read("x0"), read("x1")
    found = partials(sp.Piecewise((a * b, a > 0), (b**2, True)))
    assert found[a] == sp.Piecewise((b, a > 0), (0, True))
    assert found[b] == sp.Piecewise((a, a > 0), (2 * b, True))


def test_an_unknown_function_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(DerivativeError) as caught:
        partials(sp.gamma(read("x0")))
    message = str(caught.value)
    assert "derivative of gamma(x0)" in message and "no derivative in jaccomp's table" in message
    assert all(f.__name__ in message for f in known_functions())
    assert "Max, Min and Piecewise" in message


# ----------------------------------------------------------------------------------------------------- conventions

N, K = jc.size("N"), jc.size("K")
n, k = jc.index("n", N), jc.index("k", K)
x, z, y = jc.tensor("x z y", N)
wide, row = jc.tensor("x", N, K), jc.tensor("y", N, K)


def pulled(layer: jc.Layer, *inputs: Any) -> list[list[float]]:
    """The cotangents of a layer's real inputs for a cotangent of ones."""
    kernel = jc.compile(layer, backend="numpy")
    arrays = [np.asarray(one, dtype=float) for one in inputs]
    out, pullback = kernel.vjp(*arrays)
    return [np.asarray(one).tolist() for one in pullback(np.ones_like(out))]


def of_one(body: sp.Expr, at: list[float]) -> list[float]:
    return pulled(jc.Layer("f", inputs=[x], outputs=[y], equations=[sp.Eq(y[n], body)]), at)[0]


def of_two(body: sp.Expr, left: list[float], right: list[float]) -> list[list[float]]:
    return pulled(jc.Layer("f", inputs=[x, z], outputs=[y], equations=[sp.Eq(y[n], body)]), left, right)


def constant_wins() -> None:
    assert of_one(sp.Max(x[n], 0), [-1, 0, 1]) == [0, 0, 1]
    assert of_one(sp.Min(x[n], 0), [-1, 0, 1]) == [1, 0, 0]
    assert of_one(sp.Max(x[n], 2), [1, 2, 3]) == [0, 0, 1]
    assert of_one(sp.Min(sp.Max(x[n], -1), 1), [-2, -1, 0, 1, 2]) == [0, 0, 1, 0, 0]


def half_each() -> None:
    assert of_two(sp.Max(x[n], z[n]), [0, 1, 2], [1, 1, 1]) == [[0, 0.5, 1], [1, 0.5, 0]]
    assert of_two(sp.Min(x[n], z[n]), [0, 1, 2], [1, 1, 1]) == [[1, 0.5, 0], [0, 0.5, 1]]


def absolute() -> None:
    assert of_one(sp.Abs(x[n]), [-2, 0, 3]) == [-1, 0, 1]


def first_extremum() -> None:
    values = [[1, 3, 3], [2, 2, 2], [0, -1, -1]]
    for reducer, expected in (
        (jc.MaxOver, [[0, 1, 0], [1, 0, 0], [1, 0, 0]]),
        (jc.MinOver, [[1, 0, 0], [1, 0, 0], [0, 1, 0]]),
    ):
        layer = jc.Layer("f", inputs=[wide], outputs=[y], equations=[sp.Eq(y[n], reducer(wide[n, k], k))])
        assert pulled(layer, values) == [expected]


def norm_at_zero() -> None:
    i = jc.index("i", K)
    norm = sp.sqrt(sp.Sum(wide[n, k] ** 2, k))
    of_norm = jc.Layer("f", inputs=[wide], outputs=[y], equations=[sp.Eq(y[n], norm)])
    assert pulled(of_norm, [[0, 0], [3, 4]]) == [[[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]]
    unit = jc.Layer("f", inputs=[wide], outputs=[row], equations=[sp.Eq(row[n, i], wide[n, i] / norm)])
    kernel = jc.compile(unit, backend="numpy")
    value, pullback = kernel.vjp(np.zeros((1, 2)))
    assert np.array_equal(value, np.zeros((1, 2)))
    assert np.array_equal(pullback(np.ones((1, 2)))[0], np.zeros((1, 2)))


def masked_row() -> None:
    i = jc.index("i", K)
    e = sp.exp(wide[n, i]) / sp.Sum(sp.exp(wide[n, k]), k)
    kernel = jc.compile(jc.Layer("f", inputs=[wide], outputs=[row], equations=[sp.Eq(row[n, i], e)]), backend="numpy")
    value, pullback = kernel.vjp(np.full((1, 3), -np.inf))
    assert np.array_equal(value, np.zeros((1, 3)))
    assert np.array_equal(pullback(np.ones((1, 3)))[0], np.zeros((1, 3)))


AT_THE_KINK: tuple[Callable[[], None], ...] = (
    constant_wins,
    half_each,
    absolute,
    first_extremum,
    norm_at_zero,
    masked_row,
)


@pytest.mark.parametrize(
    ("convention", "holds"), tuple(zip(CONVENTIONS, AT_THE_KINK, strict=True)), ids=lambda one: getattr(one, "what", "")
)
def test_a_convention_holds_at_its_kink(convention: Any, holds: Callable[[], None]) -> None:
    assert convention.value and convention.source
    holds()

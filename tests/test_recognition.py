"""Forms that a user has already stabilised: each identity by its row, and whole layers against the plain form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
from points import STEP

import jaccomp as jc
from jaccomp.algebra.recognition import IDENTITIES, Identity, recognise, recognised
from jaccomp.calculus.functions import Expm1, Log1p, Sigmoid, Softplus
from jaccomp.notation import Access
from jaccomp.program import value_symbol

u, v = (Access(value_symbol(name, "real")) for name in ("x0", "x1"))
exp, log = sp.exp, sp.log

FORMS: dict[str, tuple[tuple[sp.Expr, sp.Expr], ...]] = {
    "sigmoid": (
        (1 / (1 + exp(-u)), Sigmoid(u)),
        (1 / (1 + exp(u * v)), Sigmoid(-u * v)),
        ((1 + exp(-u)) ** -2, Sigmoid(u) ** 2),
    ),
    "sigmoid-product": ((exp(u) / (1 + exp(u)), Sigmoid(u)), (v * exp(-u) / (1 + exp(-u)), v * Sigmoid(-u))),
    "softplus": (
        (log(1 + exp(u)), Softplus(u)),
        (log(1 / (1 + exp(-u))), -Softplus(-u)),
        (log(1 - 1 / (1 + exp(-u))), -Softplus(u)),
        (log(exp(u) * (1 + exp(v))), u + Softplus(v)),
        (log(1 + u**2), Log1p(u**2)),
        (log(1 + u**2 + v**2), Log1p(u**2 + v**2)),
    ),
    "split-softplus": (
        (sp.Max(u, 0) + log(1 + exp(-sp.Abs(u))), Softplus(u)),
        (v * u - sp.Max(u, 0) - log(1 + exp(-sp.Abs(u))), v * u - Softplus(u)),
        (sp.Min(u, 0) - log(1 + exp(-sp.Abs(u))), -Softplus(-u)),
        (sp.Max(-u, 0) + log(1 + exp(-sp.Abs(u))), Softplus(-u)),
    ),
    "expm1": ((exp(u) - 1, Expm1(u)), (v * exp(u) - v, v * Expm1(u)), (2 * exp(u / 3) - 2 + v, 2 * Expm1(u / 3) + v)),
    "tanh": (
        ((exp(u) - exp(-u)) / (exp(u) + exp(-u)), sp.tanh(u)),
        (v * (exp(u) - exp(-u)) / (exp(u) + exp(-u)), v * sp.tanh(u)),
    ),
    "heaviside": (
        (sp.Heaviside(u), sp.Piecewise((1, u > 0), (sp.Rational(1, 2), sp.Eq(u, 0)), (0, True))),
        (sp.Heaviside(u, 0), sp.Piecewise((1, u > 0), (0, sp.Eq(u, 0)), (0, True))),
    ),
}
POINTS = ((0.75, -0.5), (-1.25, 2.0), (3.5, 0.25))


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda one: one.name)
def test_an_identity_rewrites_its_forms(identity: Identity) -> None:
    assert identity.law
    for left, right in FORMS[identity.name]:
        assert recognised(left) == right


@pytest.mark.parametrize("name", FORMS)
def test_both_sides_of_an_identity_are_equal(name: str) -> None:
    for left, right in FORMS[name]:
        for at in POINTS:
            where = dict(zip((u, v), map(sp.Rational, at), strict=True))
            defined = right.replace(lambda e: hasattr(e, "definition"), lambda e: e.definition())
            assert abs(sp.N((left - defined).xreplace(where), 40)) < 1e-35


def test_every_identity_has_forms() -> None:
    assert list(FORMS) == [identity.name for identity in IDENTITIES]


@pytest.mark.parametrize("expr", [1 / (2 + exp(-u)), log(2 + exp(u)), exp(u) - 2, exp(u) - v, (exp(u) - exp(-v)) / 2])
def test_what_only_looks_like_an_identity_is_left_alone(expr: sp.Expr) -> None:
    assert recognised(expr) == expr


def test_a_split_of_two_different_values_is_no_softplus() -> None:
    assert recognised(sp.Max(u, 0) + log(1 + exp(-sp.Abs(v)))) == sp.Max(u, 0) + Softplus(-sp.Abs(v))


# --------------------------------------------------------------------------------------- whole layers, written stably

N, K = jc.size("N"), jc.size("K")
n, i, k = jc.index("n", N), jc.index("i", K), jc.index("k", K)
x, y, e = jc.tensor("x y e", N, K)
m, lse, total = jc.tensor("m lse total", N)
z, loss = jc.tensor("z", N, K), jc.tensor("y", N)
largest = jc.MaxOver(x[n, k], k)
shifted = exp(x[n, i] - m[n])


def layer(*equations: Any, inputs: Any = (x,), output: Any = y) -> jc.Layer:
    return jc.Layer("stable", inputs=list(inputs), outputs=[output], equations=list(equations))


ROW_MAX = sp.Eq(m[n], largest)
SUM_SHIFTED = sp.Sum(exp(x[n, k] - m[n]), k)
PLAIN: dict[str, jc.Layer] = {
    "softmax": layer(sp.Eq(y[n, i], exp(x[n, i]) / sp.Sum(exp(x[n, k]), k))),
    "log_softmax": layer(sp.Eq(y[n, i], x[n, i] - log(sp.Sum(exp(x[n, k]), k)))),
    "logsumexp": layer(sp.Eq(loss[n], log(sp.Sum(exp(x[n, k]), k))), output=loss),
    "bce": layer(sp.Eq(y[n, i], log(1 + exp(x[n, i])) - x[n, i] * z[n, i]), inputs=(x, z)),
    "softplus": layer(sp.Eq(y[n, i], log(1 + exp(x[n, i])))),
    "sigmoid": layer(sp.Eq(y[n, i], 1 / (1 + exp(-x[n, i])))),
    "log_sigmoid": layer(sp.Eq(y[n, i], -log(1 + exp(-x[n, i])))),
}
STABLE: dict[str, tuple[jc.Layer, ...]] = {
    "softmax": (
        layer(
            ROW_MAX, sp.Eq(e[n, i], shifted), sp.Eq(total[n], sp.Sum(e[n, k], k)), sp.Eq(y[n, i], e[n, i] / total[n])
        ),
        layer(ROW_MAX, sp.Eq(y[n, i], shifted / SUM_SHIFTED)),
        layer(sp.Eq(y[n, i], exp(x[n, i] - largest) / sp.Sum(exp(x[n, k] - jc.MaxOver(x[n, i], i)), k))),
        layer(ROW_MAX, sp.Eq(e[n, i], x[n, i] - m[n]), sp.Eq(y[n, i], exp(e[n, i]) / sp.Sum(exp(e[n, k]), k))),
        layer(sp.Eq(e[n, i], exp(x[n, i])), sp.Eq(total[n], sp.Sum(e[n, k], k)), sp.Eq(y[n, i], e[n, i] / total[n])),
    ),
    "log_softmax": (
        layer(ROW_MAX, sp.Eq(y[n, i], x[n, i] - m[n] - log(SUM_SHIFTED))),
        layer(ROW_MAX, sp.Eq(lse[n], m[n] + log(SUM_SHIFTED)), sp.Eq(y[n, i], x[n, i] - lse[n])),
        layer(ROW_MAX, sp.Eq(e[n, i], x[n, i] - m[n]), sp.Eq(y[n, i], e[n, i] - log(sp.Sum(exp(e[n, k]), k)))),
    ),
    "logsumexp": (
        layer(ROW_MAX, sp.Eq(loss[n], m[n] + log(SUM_SHIFTED)), output=loss),
        layer(sp.Eq(loss[n], largest + log(sp.Sum(exp(x[n, k] - jc.MaxOver(x[n, i], i)), k))), output=loss),
    ),
    "bce": (
        layer(sp.Eq(y[n, i], sp.Max(x[n, i], 0) - x[n, i] * z[n, i] + log(1 + exp(-sp.Abs(x[n, i])))), inputs=(x, z)),
        layer(
            sp.Eq(y[n, i], (1 - z[n, i]) * x[n, i] + log(1 + exp(-sp.Abs(x[n, i]))) + sp.Max(-x[n, i], 0)),
            inputs=(x, z),
        ),
    ),
    "softplus": (layer(sp.Eq(y[n, i], sp.Max(x[n, i], 0) + log(1 + exp(-sp.Abs(x[n, i]))))),),
    "sigmoid": (
        layer(
            sp.Eq(
                y[n, i],
                sp.Piecewise((1 / (1 + exp(-x[n, i])), x[n, i] >= 0), (exp(x[n, i]) / (1 + exp(x[n, i])), True)),
            )
        ),
        layer(sp.Eq(y[n, i], exp(x[n, i]) / (1 + exp(x[n, i])))),
        layer(sp.Eq(y[n, i], (1 + sp.tanh(x[n, i] / 2)) / 2)),
    ),
    "log_sigmoid": (
        layer(sp.Eq(y[n, i], sp.Min(x[n, i], 0) - log(1 + exp(-sp.Abs(x[n, i]))))),
        layer(sp.Eq(y[n, i], log(1 / (1 + exp(-x[n, i]))))),
    ),
}
ALL = [(name, k) for name, variants in STABLE.items() for k in range(len(variants))]
TIES = np.array([[0.0, 0.0, 0.0], [1.5, 1.5, -2.0], [0.0, -3.0, 2.0]])
"""Ties and zeros: where the derivative of the shift, or of the split, is not the function's."""


@pytest.mark.parametrize(("name", "k"), ALL)
def test_a_stable_form_has_the_derivative_of_the_plain_one_at_ties_too(name: str, k: int) -> None:
    targets = np.array([[0.0, 1.0, 0.25]] * 3)
    inputs = (TIES, targets) if name == "bce" else (TIES,)
    plain, stable = (jc.compile(one, backend="numpy") for one in (PLAIN[name], STABLE[name][k]))
    value, pull = plain.vjp(*inputs)
    found, stable_pull = stable.vjp(*inputs)
    np.testing.assert_allclose(found, value, rtol=1e-14, atol=1e-15)
    ct = np.random.default_rng(1).standard_normal(value.shape)
    for one, other in zip(stable_pull(ct), pull(ct), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("name", "k"), ALL)
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_a_stable_form_is_finite_and_right_at_large_values(name: str, k: int, scale: float) -> None:
    values = scale * np.array([[1.0, -1.0, 0.5], [-1.0, -0.75, -1.0], [0.25, 1.0, 1.0]])
    inputs = (values, np.ones_like(values)) if name == "bce" else (values,)
    for one in (PLAIN[name], STABLE[name][k]):
        found, pull = jc.compile(one, backend="numpy").vjp(*inputs)
        assert np.isfinite(found).all()
        assert all(np.isfinite(part).all() for part in pull(np.ones_like(found)))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_a_shift_by_a_maximum_leaves_the_program_that_is_differentiated(name: str) -> None:
    for variant in STABLE[name]:
        assert all(equation.reducer == "sum" for equation in recognise(variant.program).equations)


def test_a_maximum_that_does_not_cancel_stays() -> None:
    kept = layer(ROW_MAX, sp.Eq(y[n, i], exp(x[n, i] - m[n])))
    assert any(equation.reducer == "max" for equation in recognise(kept.program).equations)
    kernel = jc.compile(kept, backend="numpy")
    at = np.array([[1.0, 2.0, -1.0]])
    _, pull = kernel.vjp(at)
    step = np.exp((at + 1j * STEP * np.eye(3)) - (at + 1j * STEP * np.eye(3))[:, 1:2]).imag / STEP
    np.testing.assert_allclose(pull(np.ones((1, 3)))[0][0], step.sum(1), rtol=1e-14)

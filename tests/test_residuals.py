"""What a forward call keeps: statistics and costly slopes, by names that a user's own do not take."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Eq, Sum, tanh

import jaccomp as jc
from jaccomp import layers


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "softplus", "mish"])
def test_a_costly_slope_is_kept_and_backward_only_multiplies(name: str) -> None:
    kernel = jc.compile(layers.get(name))
    x, ct = np.linspace(-4, 4, 37), np.linspace(1, 2, 37)
    y, residuals = kernel.fwd(x)
    assert residuals._fields == ("slope0",) and residuals[0].shape == x.shape
    step = 1e-6
    measured = (kernel.forward(x + step) - kernel.forward(x - step)) / (2 * step)
    np.testing.assert_allclose(kernel.bwd(residuals, ct)[0], ct * measured, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(kernel.forward(x), y, rtol=1e-13)


def test_a_slope_that_costs_nothing_is_computed_again() -> None:
    _, residuals = jc.compile(layers.get("squared_relu")).fwd(np.linspace(-1, 1, 5))
    assert residuals._fields == ("x",)


def test_a_slope_gives_way_to_names_of_the_layer() -> None:
    size = jc.size("N")
    n = jc.index("n", size)
    slope0, y = jc.tensor("slope0", size), jc.tensor("y", size)
    layer = jc.Layer("named", inputs=[slope0], outputs=[y], equations=[Eq(y[n], slope0[n] * tanh(slope0[n]))])
    kernel = jc.compile(layer)
    x = np.linspace(-1, 1, 5)
    _, residuals = kernel.fwd(x)
    assert residuals._fields == ("slope0_",)
    np.testing.assert_allclose(kernel.bwd(residuals, np.ones(5))[0], np.tanh(x) + x / np.cosh(x) ** 2, rtol=1e-14)


def summed(*, products: bool) -> jc.Layer:
    """x + r times its squared norm; with `products` the backward half needs x and r for themselves too."""
    N, D = jc.size("N"), jc.size("D")
    n, i, k = jc.index("n", N), jc.index("i", D), jc.index("k", D)
    x, r, s, y = jc.tensor("x r s y", N, D)
    scaled = s[n, i] * Sum(s[n, k] ** 2, k)
    right = scaled * x[n, i] * r[n, i] if products else scaled
    return jc.Layer(
        "summed", inputs=[x, r], outputs=[y], equations=[Eq(s[n, i], x[n, i] + r[n, i]), Eq(y[n, i], right)]
    )


def test_a_sum_of_two_inputs_is_kept_where_backward_sees_them_through_it_alone() -> None:
    rng = np.random.default_rng(0)
    x, r, ct = rng.standard_normal((3, 4, 5))
    kernel = jc.compile(summed(products=False))
    y, residuals = kernel.fwd(x, r)
    assert "s" in residuals._fields and not {"x", "r"} & set(residuals._fields)
    s = x + r
    np.testing.assert_allclose(y, s * (s * s).sum(1, keepdims=True), rtol=1e-13)
    expected = ct * (s * s).sum(1, keepdims=True) + 2 * s * (ct * s).sum(1, keepdims=True)
    for found in kernel.bwd(residuals, ct):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert {"x", "r"} <= set(jc.compile(summed(products=True)).fwd(x, r)[1]._fields)

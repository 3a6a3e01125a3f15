"""Mean-field theory, spectra of wide networks and learning dynamics, against closed forms that others derived."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import erf
from sympy import Eq

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.activation import Activation, activation, kinks
from jaccomp.analysis.gaussian import expectation, gaussian_rule, joint_expectation
from jaccomp.analysis.linear_dynamics import reaching_time, strength
from jaccomp.analysis.recursion import depth_scale
from jaccomp.analysis.theory import Maps, critical_scales, critical_sigma_w, mean_field
from jaccomp.analysis.wide_spectra import (
    Gates,
    Moments,
    SlopeLaw,
    finite_moments,
    fuss_catalan,
    wide_moments,
    wide_spectrum,
)
from jaccomp.errors import UsageError

ERF = Activation("erf", lambda u: erf(u), lambda u: 2 / math.sqrt(math.pi) * np.exp(-(u**2)))
LENGTHS = (1e-6, 0.1, 1.0, 30.0, 1e6)


# Expectations


@pytest.mark.parametrize("q", LENGTHS)
def test_expectations_of_one_gaussian_are_the_closed_forms(q: float) -> None:
    relu, hardtanh = activation("relu"), activation("hardtanh")
    assert expectation(lambda u: relu.value(u) ** 2, q, relu.kinks) == pytest.approx(q / 2, rel=1e-13)
    assert expectation(lambda u: relu.slope(u) ** 2, q, relu.kinks) == pytest.approx(1 / 2, rel=1e-13)
    assert expectation(lambda u: ERF.value(u) ** 2, q) == pytest.approx(
        2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-12
    )
    assert expectation(lambda u: ERF.slope(u) ** 2, q) == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-12)
    inside = math.erf(1 / math.sqrt(2 * q))
    edge = math.sqrt(2 * q / math.pi) * math.exp(-1 / (2 * q))
    square = q * inside - edge + (1 - inside)  # ∫ u² inside, 1 outside
    assert expectation(lambda u: hardtanh.slope(u) ** 2, q, hardtanh.kinks) == pytest.approx(inside, rel=1e-12)
    assert expectation(lambda u: hardtanh.value(u) ** 2, q, hardtanh.kinks) == pytest.approx(square, rel=1e-9)


@pytest.mark.parametrize("steep", [1.0, 30.0, 500.0])
@pytest.mark.parametrize("q", [1e-4, 1.0, 1e4, 1e8])
def test_steep_activations_are_integrated_like_others(q: float, steep: float) -> None:
    """erf(k u) at q is erf(u) at k² q."""
    scaled = Activation("steep", lambda u: erf(steep * u), lambda u: steep * ERF.slope(steep * u))
    u, w = gaussian_rule(q)
    z = 2 * steep**2 * q
    assert float(w @ scaled.value(u) ** 2) == pytest.approx(2 / math.pi * math.asin(z / (1 + z)), rel=1e-10)
    slopes = 4 * steep**2 / math.pi / math.sqrt(1 + 2 * z)
    assert expectation(lambda u: scaled.slope(u) ** 2, q) == pytest.approx(slopes, rel=1e-10)


@pytest.mark.parametrize(("mean", "variance"), [(0.7, 1e-6), (-2.0, 3.0), (5.0, 0.0), (0.3, 1e6)])
def test_expectations_about_a_mean_are_the_closed_forms(mean: float, variance: float) -> None:
    relu, s = activation("relu"), math.sqrt(variance)
    above = (1 + math.erf(mean / (s * math.sqrt(2)))) / 2 if s else 1.0
    edge = s / math.sqrt(2 * math.pi) * math.exp(-(mean**2) / (2 * variance)) if s else 0.0
    assert expectation(relu.slope, variance, relu.kinks, mean) == pytest.approx(above, rel=1e-12)
    assert expectation(relu.value, variance, relu.kinks, mean) == pytest.approx(mean * above + edge, rel=1e-12)


@pytest.mark.parametrize("c", [-1.0, -0.5, 0.0, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("q", [0.1, 1.0, 30.0])
def test_expectations_of_two_gaussians_are_the_closed_forms(q: float, c: float) -> None:
    relu = activation("relu")
    angle = math.acos(c)  # Cho and Saul, 2009
    value = q / (2 * math.pi) * (math.sin(angle) + (math.pi - angle) * c)
    assert joint_expectation(relu.value, q, c, relu.kinks) == pytest.approx(value, abs=1e-9 * q)
    assert joint_expectation(relu.slope, q, c, relu.kinks) == pytest.approx(1 / 2 - angle / (2 * math.pi), abs=1e-9)
    arc = 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q))  # Williams, 1997
    assert joint_expectation(ERF.value, q, c) == pytest.approx(arc, abs=1e-9)


@pytest.mark.parametrize("name", ["tanh", "hardtanh", "gelu", "relu", "softplus"])
def test_slopes_of_the_maps_are_their_derivatives(name: str) -> None:
    maps, q, c, h = Maps(activation(name), 1.4, 0.2), 0.8, 0.4, 1e-4
    length = (maps.length(q + h) - maps.length(q - h)) / (2 * h)
    assert maps.length_slope(q) == pytest.approx(length, rel=1e-6)
    correlation = (maps.correlation(c + h, q) - maps.correlation(c - h, q)) / (2 * h)
    assert maps.correlation_slope(c, q) == pytest.approx(correlation, rel=1e-6)


# Fixed points


@pytest.mark.parametrize(
    ("name", "sigma_w", "sigma_b", "length", "chi", "phase"),
    [
        ("linear", 1.0, 0.0, 1.0, 1.0, "critical"),
        ("linear", 0.9, 0.3, 0.09 / 0.19, 0.81, "ordered"),
        ("linear", 1.1, 0.0, math.inf, 1.21, "chaotic"),
        ("relu", math.sqrt(2), 0.0, 1.0, 1.0, "critical"),
        ("relu", 1.0, 0.3, 0.18, 0.5, "ordered"),
        ("relu", 2.0, 0.0, math.inf, 2.0, "chaotic"),
        ("tanh", 1.0, 0.0, 0.0, 1.0, "critical"),
        ("tanh", 0.8, 0.0, 0.0, 0.64, "ordered"),
        ("hardtanh", 0.0, 0.5, 0.25, 0.0, "ordered"),
    ],
)
def test_fixed_points_that_are_known(
    name: str, sigma_w: float, sigma_b: float, length: float, chi: float, phase: str
) -> None:
    field = mean_field(name, sigma_w, sigma_b)
    assert (field.length, field.chi) == (pytest.approx(length, rel=1e-9), pytest.approx(chi, rel=1e-9, abs=1e-12))
    assert field.phase == phase
    assert field.correlation == 1.0


@pytest.mark.parametrize(
    ("name", "sigma_w", "sigma_b"), [("tanh", 1.5, 0.1), ("hardtanh", 2.0, 0.3), ("gelu", 1.4, 0.2)]
)
def test_fixed_points_are_fixed(name: str, sigma_w: float, sigma_b: float) -> None:
    field = mean_field(name, sigma_w, sigma_b)
    maps = Maps(activation(name), sigma_w, sigma_b)
    assert maps.length(field.length) == pytest.approx(field.length, rel=1e-11)
    assert maps.correlation(field.correlation, field.length) == pytest.approx(field.correlation, abs=1e-10)
    assert maps.correlation_slope(1.0, field.length) == pytest.approx(field.chi, rel=1e-9)
    assert maps.correlation_slope(field.correlation, field.length) < 1
    assert maps.lengths(0.5, 200)[-1] == pytest.approx(field.length, rel=1e-9)
    assert (field.correlation < 1) == (field.chi > 1)
    assert field.gradient_depth == pytest.approx(1 / abs(math.log(field.chi)))


def test_erf_networks_have_the_fixed_points_of_their_closed_forms() -> None:
    sigma_w, sigma_b = 1.7, 0.2
    q = 1.0
    for _ in range(500):
        q = sigma_w**2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + sigma_b**2
    field = mean_field(ERF, sigma_w, sigma_b)
    assert field.length == pytest.approx(q, rel=1e-10)
    assert field.chi == pytest.approx(sigma_w**2 * 4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-10)


@pytest.mark.parametrize("name", ["tanh", "hardtanh"])
@pytest.mark.parametrize("sigma_b", [0.0, 0.05, 0.3])
def test_the_order_to_chaos_line_parts_the_phases(name: str, sigma_b: float) -> None:
    line = critical_sigma_w(name, sigma_b)
    assert mean_field(name, line, sigma_b).chi == pytest.approx(1, abs=1e-5)
    assert mean_field(name, line * 0.98, sigma_b).phase == "ordered"
    assert mean_field(name, line * 1.02, sigma_b).phase == "chaotic"


def test_the_line_of_relu_is_one_point() -> None:
    sigma_w, sigma_b = critical_scales("relu", [0.1, 1.0, 10.0])
    np.testing.assert_allclose(sigma_w, math.sqrt(2), rtol=1e-13)
    np.testing.assert_allclose(sigma_b, 0, atol=1e-5)
    with pytest.raises(UsageError, match=r"does not reach σ_b = 0\.1"):
        critical_sigma_w("relu", 0.1)


def test_the_line_of_an_activation_that_is_not_0_at_0_starts_at_a_length_of_its_own() -> None:
    """σ_b² there is the least at which the line has any; softplus has none at all."""
    for bias in (0.0, 0.3, 1.0):
        line = critical_sigma_w("sigmoid", bias)
        assert mean_field("sigmoid", line, bias).chi == pytest.approx(1, abs=1e-9)
    with pytest.raises(UsageError, match=r"does not reach σ_b = 0\.0"):
        critical_sigma_w("softplus", 0.0)
    with pytest.raises(UsageError, match="σ_b is -1"):
        critical_sigma_w("tanh", -1)
    with pytest.raises(UsageError, match="a length is 0, negative"):
        critical_scales("tanh", [1.0, 0.0])
    flat = Activation("flat", np.zeros_like, np.zeros_like)
    sigma_w, sigma_b = critical_scales(flat, 1.0)
    assert np.isinf(sigma_w) and np.isnan(sigma_b)


@pytest.mark.parametrize("q", [1e-9, 1e-3])
def test_a_small_fixed_length_is_as_exact_as_a_large_one(q: float) -> None:
    field = mean_field("linear", 0.5, math.sqrt(0.75 * q))
    assert field.length == pytest.approx(q, rel=1e-11)


def test_networks_of_no_weights_and_flat_activations_have_a_field() -> None:
    for field in (mean_field("tanh", 0.0), mean_field(Activation("flat", np.zeros_like, np.zeros_like), 1.0)):
        assert (field.length, field.chi, field.phase, field.correlation) == (0.0, 0.0, "ordered", 1.0)
        assert field.correlation_depth == field.gradient_depth == 0.0
    grown = mean_field(Activation("exp", np.exp, np.exp), 0.5, 0.1)
    assert (grown.length, grown.phase) == (math.inf, "chaotic") and math.isnan(grown.correlation)
    with pytest.raises(UsageError, match=r"is NaN or infinite at length 1\.0"):
        mean_field(Activation("log", np.log, lambda u: 1 / u), 1.0)


def test_depth_scales() -> None:
    assert [depth_scale(x) for x in (0.0, 1.0, math.exp(-0.5), -math.exp(-0.5), math.e)] == [
        0.0, math.inf, pytest.approx(2), pytest.approx(2), pytest.approx(1),
    ]  # fmt: skip
    assert math.isnan(depth_scale(math.nan))


def test_a_field_is_written_as_text_and_json() -> None:
    field = mean_field("relu", 2.0)
    assert str(field).startswith("relu, σ_w 2, σ_b 0: chaotic; q* inf, χ 2")
    assert json.loads(field.json())["length"] == "inf"
    assert field.growth == pytest.approx(math.sqrt(2))


def test_layers_themselves_are_activations() -> None:
    assert mean_field(L.tanh, 1.5, 0.1) == mean_field("tanh", 1.5, 0.1)
    assert mean_field(L.hardtanh.bind(low=-2, high=2), 1.5, 0.1, length=4).length > mean_field("hardtanh", 1.5).length


@pytest.mark.parametrize(
    ("layer", "where"),
    [
        (L.tanh, ()),
        (L.relu6, (0, 6)),
        (L.softsign, (0,)),
        (L.selu, (0,)),
        (L.hardtanh.bind(low=-0.3, high=1.7), (-0.3, 1.7)),
        (L.hardswish, (-3, 3)),
        (L.hard_shrink, (-0.5, 0.5)),
        (L.soft_shrink.bind(threshold=0.2), (-0.2, 0.2)),
    ],
    ids=str,
)
def test_kinks_are_where_equations_change_sides(layer: jc.Layer, where: tuple[float, ...]) -> None:
    """Each is met; others do no harm."""
    found = activation(layer).kinks
    assert all(min(abs(one - k) for one in found) < 1e-12 for k in where)
    assert len(found) <= len(where) + 1 and (where or not found)


def test_kinks_may_be_at_infinity() -> None:
    assert kinks(L.hardtanh, (("low", np.float64(-0.5)), ("high", math.inf))) == (-0.5,)


def test_expectations_over_a_bound_layer_follow_its_kinks() -> None:
    clipped = activation(L.hardtanh.bind(low=-0.3, high=1.7))
    inside = (math.erf(1.7 / math.sqrt(2)) + math.erf(0.3 / math.sqrt(2))) / 2
    assert Maps(clipped, 1.0, 0.0).chi(1.0) == pytest.approx(inside, rel=1e-13)


def one_axis(body: Any, *, scalars: Any = ()) -> jc.Layer:
    M = jc.size("M")
    m = jc.index("m", M)
    x, y = jc.tensor("x", M), jc.tensor("y", M)
    return jc.Layer("own", inputs=[x], scalars=scalars, outputs=[y], equations=[Eq(y[m], body(x[m], m, M))])


def test_a_layer_that_differs_from_place_to_place_is_no_activation() -> None:
    """n x[n], and x[n]/N, are diagonal too; a scalar without a default must be bound."""
    for body in (lambda x, m, M: m * x, lambda x, m, M: x / M):
        with pytest.raises(UsageError, match="same function of one number in each place"):
            activation(one_axis(body))
    assert activation(one_axis(lambda x, m, M: 2 * x)).slope(np.ones(3)) == pytest.approx([2, 2, 2])
    gain = jc.scalar("gain")
    own = one_axis(lambda x, m, M: gain * x, scalars=[gain])
    with pytest.raises(UsageError, match="its scalar gain has no default"):
        activation(own)
    assert mean_field(own.bind(gain=2), 0.5, 0.1).chi == pytest.approx(1.0)
    with pytest.raises(UsageError, match="it reads what was derived"):
        activation(L.tanh.jvp())


@pytest.mark.parametrize(
    ("given", "said"),
    [("softmax", "its Jacobian is block diagonal"), ("linear_relu", "no layer"), ("add", "it reads x, z")],
)
def test_what_is_no_activation_is_refused(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mean_field(given, 1.0)


@pytest.mark.parametrize(("sigma_w", "sigma_b", "length"), [(-1, 0, 1), (1, -1, 1), (1, 0, 0), (math.inf, 0, 1)])
def test_scales_that_make_no_sense_are_refused(sigma_w: float, sigma_b: float, length: float) -> None:
    with pytest.raises(UsageError, match="Scales are 0 or more"):
        mean_field("tanh", sigma_w, sigma_b, length=length)


# Moments of the end-to-end Jacobian


def drawn_moments(ensemble: str, gate: Gates, width: int, depth: int, draws: int) -> np.ndarray:
    """[draws, 2]: the mean and the variance of s² of products of D W, where D² is 0 or one value, of these moments."""
    rng = np.random.default_rng(3)
    share, high = gate.first**2 / gate.second, gate.second / gate.first
    found = []
    for _ in range(draws):
        J = np.eye(width)
        for _ in range(depth):
            W = rng.standard_normal((width, width)) / math.sqrt(width)
            if ensemble == "orthogonal":
                W, R = np.linalg.qr(W)
                W = W * np.sign(np.diag(R))
            J = math.sqrt(high) * (rng.random((width, 1)) < share) * (W @ J)
        squares = np.linalg.eigvalsh(J @ J.T)
        found.append((squares.mean(), squares.var()))
    return np.array(found)


@pytest.mark.parametrize("ensemble", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("gate", [Gates(1.0, 1.0), Gates(0.5, 0.5), Gates(0.9, 0.9)], ids=["linear", "relu", "gate"])
def test_moments_at_a_finite_width_are_those_of_products_of_random_matrices(ensemble: str, gate: Gates) -> None:
    """At width 8 the infinite-width forms are far outside; the recursion must be inside 4 standard errors."""
    width, depth = 8, 3
    found = drawn_moments(ensemble, gate, width, depth, 6000)
    exact = finite_moments(ensemble, 1.0, [gate] * depth, width)  # type: ignore[arg-type]
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found)) + 1e-14
    mean, variance = np.abs(found.mean(axis=0) - [exact.mean, exact.variance]) / error
    assert mean < 4
    assert variance < 4
    assert found[:, 0].std(ddof=1) == pytest.approx(exact.scatter, rel=0.1, abs=1e-12)
    wide = wide_moments(ensemble, 1.0, [gate] * depth)  # type: ignore[arg-type]
    if gate.first < 1 or ensemble == "gaussian":
        assert abs(found.mean(axis=0)[1] - wide.variance) > 4 * error[1]


@pytest.mark.parametrize("ensemble", ["gaussian", "orthogonal"])
def test_finite_moments_become_the_wide_ones(ensemble: str) -> None:
    gates = [Gates(0.8, 0.7), Gates(0.5, 0.4), Gates(1.0, 1.0)]
    wide = wide_moments(ensemble, 1.3, gates)  # type: ignore[arg-type]
    finite = finite_moments(ensemble, 1.3, gates, 10**9)  # type: ignore[arg-type]
    assert (finite.mean, finite.variance) == (pytest.approx(wide.mean), pytest.approx(wide.variance, rel=1e-7))
    assert finite.scatter < 1e-3
    with pytest.raises(UsageError, match="no ensemble 'sparse'"):
        wide_moments("sparse", 1.0, gates)  # type: ignore[arg-type]


# Their whole distribution


@pytest.mark.parametrize("depth", [1, 2, 5, 12])
def test_spectra_of_gaussian_products_are_fuss_and_catalans(depth: int) -> None:
    s, density = fuss_catalan(depth)
    inner = slice(60, -20)  # off the edge, where the blur shows
    found = wide_spectrum("gaussian", 1.0, SlopeLaw(np.ones(1), np.ones(1)), depth, s[inner], blur=1e-7)
    np.testing.assert_allclose(found.density, density[inner], rtol=1e-5)


def test_one_gaussian_matrix_has_the_quarter_circle() -> None:
    s, density = fuss_catalan(1)
    np.testing.assert_allclose(density, np.sqrt(4 - s**2) / math.pi, rtol=1e-10)


@pytest.mark.parametrize("name", ["relu", "hardtanh", "tanh"])
@pytest.mark.parametrize("ensemble", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("depth", [3, 10])
def test_spectra_have_the_moments_that_are_known(name: str, ensemble: str, depth: int) -> None:
    sigma_w, sigma_b = (math.sqrt(2), 0.0) if name == "relu" else (critical_sigma_w(name, 0.2), 0.2)
    maps = Maps(activation(name), sigma_w, sigma_b)
    q = mean_field(name, sigma_w, sigma_b).length
    wide = wide_moments(ensemble, sigma_w, [Gates.of(maps, q)] * depth)  # type: ignore[arg-type]
    law = SlopeLaw.of(maps, q)
    s = np.geomspace(0.02, 20, 1500)
    found = wide_spectrum(ensemble, sigma_w, law, depth, s, blur=1e-5)  # type: ignore[arg-type]
    mean, square = (
        np.trapezoid(found.density * s**k, s) + found.top * found.largest**k for k in (2, 4)
    )  # below 0.02 they have no weight to speak of
    assert mean == pytest.approx(wide.mean, rel=2e-3)
    assert square - wide.mean**2 == pytest.approx(wide.variance, rel=1e-2)
    assert found.zero == pytest.approx({"relu": 0.5, "tanh": 0.0}.get(name, 1 - Gates.of(maps, q).first), abs=1e-9)
    shares = found.cumulative(np.array([0.0, 1.0, 100.0]))
    assert shares[0] == pytest.approx(found.zero) and shares[-1] == pytest.approx(1)
    assert np.all(np.diff(found.cumulative(s)) >= -1e-9)


def test_the_atom_of_projections_between_rotations() -> None:
    law = SlopeLaw(np.array([0.0, 1.0]), np.array([0.05, 0.95]))
    found = wide_spectrum("orthogonal", 1.0, law, 4, np.geomspace(0.01, 0.8, 300))
    assert (found.top, found.largest) == (pytest.approx(0.8), 1.0)
    rng, n = np.random.default_rng(0), 400
    J = np.eye(n)
    for _ in range(4):
        gates = np.ones(n)
        gates[: n // 20] = 0
        J = gates[:, None] * (np.linalg.qr(rng.standard_normal((n, n)))[0] @ J)
    s = np.linalg.svd(J, compute_uv=False)
    assert np.mean(np.abs(s - 1) < 1e-9) == pytest.approx(0.8)
    assert np.mean((s > 1e-9) & (s < 0.5)) == pytest.approx(found.cumulative(0.5) - found.zero, abs=0.01)


@pytest.mark.parametrize("values", [[0.0, 1.0], [], [1.0, math.nan], [1.0, math.inf]])
def test_singular_values_that_have_no_density_are_refused(values: list[float]) -> None:
    with pytest.raises(UsageError, match="must be positive and finite"):
        wide_spectrum("gaussian", 1.0, SlopeLaw(np.ones(1), np.ones(1)), 3, values)


def test_networks_without_a_spectrum_are_refused() -> None:
    one, none = SlopeLaw(np.ones(1), np.ones(1)), SlopeLaw(np.zeros(1), np.ones(1))
    for sigma_w, law, depth in ((1.0, one, 0), (0.0, one, 2), (1.0, none, 2)):
        with pytest.raises(UsageError, match="a layer or more, positive σ_w"):
            wide_spectrum("gaussian", sigma_w, law, depth, [1.0])
    with pytest.raises(UsageError, match="the width is 0"):
        finite_moments("gaussian", 1.0, [Gates(1, 1)], 0)
    with pytest.raises(UsageError, match="the depth is 0"):
        fuss_catalan(0)
    assert wide_moments("gaussian", 1.0, [Gates(0, 0), Gates(1, 1)]) == Moments(0.0, 0.0)


# Learning


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7])
def test_strengths_solve_their_differential_equation(layers: int) -> None:
    s, start = 1.7, 0.02
    times = np.linspace(0, float(reaching_time(0.99 * s, s, start, layers)), 40)
    solved = solve_ivp(
        lambda t, u: layers * u ** (2 - 2 / layers) * (s - u),
        (0, times[-1]), [start], t_eval=times, rtol=1e-11, atol=1e-13,
    )  # fmt: skip
    found = strength(times, s, start, layers)
    np.testing.assert_allclose(found, solved.y[0], atol=1e-6)
    np.testing.assert_allclose(reaching_time(found, s, start, layers), times, atol=1e-5)


@pytest.mark.parametrize(("target", "start", "layers"), [(1, 0, 2), (1, 1, 2), (1, 0.1, 0), (math.inf, 0.1, 2)])
def test_dynamics_that_never_start_are_refused(target: float, start: float, layers: int) -> None:
    with pytest.raises(UsageError, match="between 0 and the strength"):
        strength([0.0], target, start, layers)
    with pytest.raises(UsageError, match="between 0 and the strength"):
        reaching_time([0.5], target, start, layers)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_times_and_strengths_beyond_the_dynamics_are_refused(layers: int) -> None:
    for times in ([-1.0], [math.nan]):
        with pytest.raises(UsageError, match="a time is negative or NaN"):
            strength(times, 1.0, 0.1, layers)
    for strengths in ([1.0], [-0.1], [math.nan]):
        with pytest.raises(UsageError, match=r"not between 0 and 1\.0"):
            reaching_time(strengths, 1.0, 0.1, layers)
    np.testing.assert_allclose(strength([0.0, 1e6], 1.0, 0.1, layers), [0.1, 1.0], rtol=1e-9)

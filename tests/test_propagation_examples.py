"""The literature on random and deep linear networks, measured by jaccomp's kernels, as the examples print it.

The whole grid is `python examples/signal_propagation.py`; here stands a part of it.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaccomp.analysis.model import dense
from jaccomp.analysis.theory import critical_sigma_w, mean_field
from jaccomp.errors import UsageError

FOLDER = Path(__file__).parent.parent / "examples"


@cache
def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# Singular values


@cache
def rows() -> list[Any]:
    """Width 400, depths 10 and 20, 20 draws: one case of each activation, and of orthogonal weights three."""
    it = example("signal_propagation")
    tanh, hard = (critical_sigma_w(name, 0.1) for name in ("tanh", "hardtanh"))
    cases = [
        it.Case("linear", "gaussian", 1.05),
        it.Case("relu", "gaussian", math.sqrt(2), 0.1),
        it.Case("hardtanh", "gaussian", hard, 0.1),
        it.Case("tanh", "gaussian", 1.0),
        it.Case("linear", "orthogonal", 0.95, 0.1),
        it.Case("tanh", "orthogonal", tanh, 0.1),
    ]
    return it.compare(it.measure(cases, (10, 20), 400, 20), 400)  # type: ignore[no-any-return]


@pytest.mark.parametrize("quantity", ["mean", "variance", "chi"])
@pytest.mark.parametrize("depth", [10, 20])
def test_singular_values_agree_with_theory(quantity: str, depth: int) -> None:
    """Within three standard errors of 20 draws; tanh and hard tanh, of which only the infinite width is known, also
    within L/N of the moments and 1/N of χ. 36 comparisons of a seed that is fixed."""
    some = [row for row in rows() if (row.quantity, row.depth) == (quantity, depth)]
    assert len(some) == 6
    assert [row for row in some if not row.passed] == []


def test_theory_of_another_network_does_not_agree() -> None:
    """The comparison has teeth: 3 % more σ_w, or Gaussian for orthogonal weights, is told apart."""
    it = example("signal_propagation")
    for row in rows():
        off = it.predicted(replace(row.case, sigma_w=1.03 * row.case.sigma_w), row.depth, 400)
        if row.quantity == "chi":
            assert not replace(row, theory=off["chi"][0], allowance=off["chi"][1]).passed
        other = it.predicted(replace(row.case, ensemble="gaussian"), row.depth, 400)
        if row.quantity == "variance" and row.case.ensemble == "orthogonal":
            assert not replace(row, theory=other["variance"][0], allowance=other["variance"][1]).passed


def test_the_table_tells_what_passes() -> None:
    it = example("signal_propagation")
    text = it.table(rows())
    assert text.count(" ok") == len(rows()) and "36 of 36 agree" in text
    wrong = replace(rows()[0], theory=2 * rows()[0].theory)
    assert "35 of 36 agree" in it.table([wrong, *rows()[1:]]) and " NO" in it.table([wrong, *rows()[1:]])


def test_jacobians_by_factors_are_the_models_own() -> None:
    it = example("signal_propagation")
    case, rng = it.Case("tanh", "gaussian", 1.3, 0.2), np.random.default_rng(0)
    model = it.placed(case, it.Model(it.network("tanh", 5)), it.unit_draw(rng, "gaussian", 12, 5), rng)
    x = it.first_input(case, rng, 12)
    J, _ = it.end_to_end(model, x, (5,))[5]
    np.testing.assert_allclose(J, dense(model.at(x).operator()), rtol=1e-11, atol=1e-13)
    mean, variance = it.moments(J)
    squares = np.linalg.svd(J, compute_uv=False) ** 2
    assert (mean, variance) == (pytest.approx(squares.mean()), pytest.approx(squares.var()))


def test_distributions_are_those_of_free_products() -> None:
    """Kolmogorov and Smirnov's distance: within 0.03 of the infinite width at N = 200, L = 4, where N p of the ReLU's
    units fluctuate by 0.035 N from draw to draw."""
    it = example("signal_propagation")
    figure, numbers = it.distribution_figure(it.distributions(it.shown(), (4,), 200, 2))
    assert len(figure.axes) == len(numbers) == 8
    for one in numbers:
        assert one["distance"] < (0.05 if one["activation"] == "relu" else 0.03), one
        assert one["zero"] == pytest.approx(one["zero_theory"], abs=0.08)
        assert one["top"] == pytest.approx(one["top_theory"], abs=0.04)


# Order and chaos


def test_tangents_grow_by_chi_and_cross_the_line_where_it_is() -> None:
    it = example("order_to_chaos")
    model, bias = it.network("tanh", 16), 0.2
    near = critical_sigma_w("tanh", bias)
    growths = [it.measure_growth(model, near + step, bias, 200, 6) for step in (-0.1, -0.05, 0.0, 0.05, 0.1)]
    for one in growths:
        assert one.chi == pytest.approx(one.theory, abs=3.5 * one.error + one.theory / 200)
    line, error = it.crossing(growths)
    assert line == pytest.approx(near, abs=3.5 * error + 1 / 200)
    assert error < 0.03


@pytest.mark.parametrize("sigma_w", [0.9, 2.2])
def test_correlations_follow_their_map_over_the_depth_scale(sigma_w: float) -> None:
    it = example("order_to_chaos")
    decay = it.measure_decay(it.network("tanh", 16), sigma_w, 0.2, 300, 6)
    off = np.abs(np.array(decay.correlations) - decay.expected)
    assert np.all(off < 4 * np.array(decay.errors) + 16 / 300)
    assert decay.depth == pytest.approx(decay.fitted, abs=3.5 * decay.depth_error + 0.05 * decay.fitted)
    assert decay.theory == mean_field("tanh", sigma_w, 0.2).correlation_depth


def test_the_phase_figure_shows_what_was_measured() -> None:
    it = example("order_to_chaos")
    model = it.network("tanh", 12)
    growths = [it.measure_growth(model, w, 0.2, 60, 3) for w in (1.0, 1.3, 1.6)]
    decays = [it.measure_decay(model, w, 0.2, 60, 3) for w in (0.9, 2.0)]
    figure, numbers = it.phase_figure("tanh", growths, decays, [(0.2, *it.crossing(growths))])
    assert len(figure.axes) == 5  # one is the colour bar
    assert [one["chi"] for one in numbers["growth"]] == [one.chi for one in growths]
    assert numbers["line"][0]["theory"] == critical_sigma_w("tanh", 0.2)


# Learning


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_deep_linear_networks_learn_as_in_closed_form(layers: int) -> None:
    """Gradient descent leaves gradient flow by the order of the step: half the step, half the distance."""
    it = example("learning_dynamics")
    coarse, fine = (it.learn_aligned(layers, rate=rate, until=4.0) for rate in (8e-3, 4e-3))
    assert fine.distance < 0.03
    assert coarse.distance / fine.distance == pytest.approx(2, rel=0.15)


def test_from_small_random_weights_modes_rise_in_the_same_shape() -> None:
    it = example("learning_dynamics")
    learned = it.learn_random(2, rate=8e-3)
    assert learned.distance < 0.03
    order = [float(np.interp(s / 2, u, learned.times)) for s, u in zip(it.STRENGTHS, learned.measured.T, strict=True)]
    assert order == sorted(order)  # the strongest first
    figure, numbers = it.dynamics_figure([learned])
    assert len(figure.axes) == 1 and numbers[0]["layers"] == 2


def test_what_was_not_learned_has_no_shape() -> None:
    with pytest.raises(UsageError, match="its mode of strength 4 was not learned"):
        example("learning_dynamics").learn_random(2, rate=8e-3, until=0.1)


@pytest.mark.parametrize("name", ["signal_propagation", "order_to_chaos"])
def test_one_draw_has_no_standard_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example(name).main(["--draws", "1"])
    assert "standard errors need 2 draws" in capsys.readouterr().err

"""Sensitivity: each number against a closed form or a dense Jacobian, and the digits by their own curvature."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis import sensitivity as S
from jaccomp.analysis.amplification import amplification
from jaccomp.analysis.margin import margins
from jaccomp.analysis.model import Model, dense
from jaccomp.analysis.rows import row_jacobians, rows_apart
from jaccomp.analysis.stages import local, second_order, values_from
from jaccomp.analysis.validity import validity
from jaccomp.errors import UsageError
from jaccomp.reference import sampling


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def linear(width: int = 5, outputs: int = 3) -> Model:
    weights = {"W": rng().standard_normal((outputs, width)), "b": rng(1).standard_normal(outputs)}
    return Model(L.linear, weights, backend="numpy")


def block() -> Model:
    """norm -> fc -> gelu, added to norm, -> head: a branch, curvature, and a stage of two inputs that move."""
    draw = rng(3)
    weights = {
        "norm_g": draw.standard_normal(4), "norm_bias": draw.standard_normal(4),
        "fc_W": draw.standard_normal((4, 4)), "fc_b": draw.standard_normal(4),
        "head_W": draw.standard_normal((3, 4)), "head_b": draw.standard_normal(3),
    }  # fmt: skip
    sum_ = jc.stage(L.add, x="act", z="norm")
    chain = jc.chain("block", norm=L.layernorm, fc=L.linear, act=L.gelu, sum=sum_, head=L.linear)
    return Model(chain, weights, backend="numpy")


# Stage by stage


def test_second_derivatives_along_a_line_are_those_of_differences() -> None:
    model, x, v, h = block(), rng().standard_normal((2, 4)), rng(1).standard_normal((2, 4)), 1e-3
    at = model.at(x)
    found = second_order(at, "x", v)
    for name in ("norm_y", "act_y", "y"):
        near, far = (
            (values_from(at, {"x": x + s * v})[name] - 2 * at.values[name] + values_from(at, {"x": x - s * v})[name])
            / s**2
            for s in (h, 2 * h)
        )
        np.testing.assert_allclose(found[name][1], (4 * near - far) / 3, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found[name][0], at.jvp({"x": v}, name), rtol=1e-12)


def test_tangents_cotangents_and_values_of_every_tensor() -> None:
    model, x, t = block(), rng().standard_normal((2, 4)), rng(1).standard_normal((2, 4))
    at = model.at(x)
    ct = rng(2).standard_normal(at.values["y"].shape)
    forward, back = at.tangents({"x": t}), at.cotangents({"y": ct}, "x")
    for name in ("norm_y", "sum_y", "y"):
        np.testing.assert_allclose(forward[name], at.jvp({"x": t}, name), rtol=1e-12)
        np.testing.assert_allclose(back[name], at.vjp({"y": ct}, name), rtol=1e-12)
    assert model.moving("x")["sum"] == ("x", "z")
    np.testing.assert_allclose(values_from(at, {"x": x + t})["y"], model(x + t), rtol=1e-13)
    assert list(model.moving("act_y")) == ["sum", "head"]


def test_the_local_operator_of_a_stage_of_two_inputs() -> None:
    at = block().at(rng().standard_normal((1, 4)))
    J = local(at, "sum", ("x", "z"))
    np.testing.assert_array_equal(dense(J), np.hstack([np.eye(4), np.eye(4)]))
    np.testing.assert_array_equal(J.rmatmat(np.eye(4)), dense(J).T)
    with pytest.raises(UsageError, match="stage 'q' of model 'block': there is none"):
        local(at, "q", ("x",))


# Rows


def test_rows_that_depend_on_others_are_known_without_a_number() -> None:
    def apart(name: str) -> bool:
        layer = L.get(name)
        sample = sampling.draw(layer.spec, "different", sampling.different(layer.spec, rng()), rng())
        assert sample is not None
        model = Model(layer, backend="numpy", **sample.scalars)
        at = model.at(*(sample.inputs[t.name] for t in layer.spec.inputs))
        return rows_apart(at, layer.spec.outputs[0].name, layer.spec.inputs[0].name)

    assert [n for n in ("linear", "layernorm", "gelu", "attention", "conv2d", "maxpool2d") if not apart(n)] == []
    assert [n for n in ("batchnorm", "mse", "cross_entropy") if apart(n)] == []
    at = block().at(rng().standard_normal((1, 4)))
    assert rows_apart(at, "y", "x") and not rows_apart(at, "y", "fc_W")
    assert not rows_apart(block().at(rng().standard_normal(4)), "y", "x"), "its leading axis is not of samples"


def test_rows_that_meet_a_parameter_of_one_sample_go_one_by_one() -> None:
    """A state is of as many samples as it has rows: the cell takes one sample at a time."""
    draw = rng(4)
    shapes = {"h": (1, 3), "c": (1, 3), "w_ih": (12, 2), "w_hh": (12, 3), "b_ih": (12,), "b_hh": (12,)}
    model = Model(L.lstm_cell, {name: draw.standard_normal(shape) for name, shape in shapes.items()}, backend="numpy")
    x = draw.standard_normal((4, 2))
    assert not rows_apart(model.at(x[:1]), "h_next", "x")
    each = np.stack([dense(model.at(x[k : k + 1]).operator("h_next", "x")) for k in range(4)])
    np.testing.assert_allclose(S.influence(model, x, of="h_next").mean, each.mean(0), rtol=1e-12)


def test_each_row_has_its_own_jacobian() -> None:
    at = block().at(rng().standard_normal((3, 4)))
    whole = dense(at.operator()).reshape(3, 3, 3, 4)
    each = row_jacobians(at, "y", "x")
    for k in range(3):
        np.testing.assert_allclose(each[k], whole[k, :, k], rtol=1e-12)
    with pytest.raises(UsageError, match=r"a row of y has 3 entries, and each takes a VJP"):
        row_jacobians(at, "y", "x", limit=2)


# Influence


def test_the_influence_of_a_linear_model_is_its_matrix() -> None:
    model, x = linear(), rng(2).standard_normal((300, 5))
    found = S.influence(model, x)
    W = model.parameters["W"]
    np.testing.assert_allclose(found.mean, W, rtol=1e-13)
    np.testing.assert_allclose(found.mean_squared, W**2, rtol=1e-13)
    np.testing.assert_allclose(found.shown, np.abs(W) * x.std(axis=0), rtol=1e-12)
    assert found.samples == 300 and np.all(found.consistency == 1) and np.all(found.error < 1e-7)
    assert "over 300 samples" in found.text and len(found.plain()["mean"]) == 3


def test_influence_is_an_average_of_dense_jacobians() -> None:
    model, x = block(), rng().standard_normal((7, 4))
    each = np.stack([dense(model.at(x[k : k + 1]).operator()) for k in range(7)])
    found = S.influence(model, x)
    np.testing.assert_allclose(found.mean_absolute, np.abs(each).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.error, np.abs(each).std(0, ddof=1) / np.sqrt(7), rtol=1e-9)
    np.testing.assert_allclose(found.consistency, np.abs(np.sign(each).mean(0)), rtol=1e-12)


def test_energy_of_an_output_without_samples_is_exact_too() -> None:
    model = Model(L.mse, {"z": np.zeros((1, 3))}, backend="numpy")
    x = rng().standard_normal((1, 3))
    found = S.energy(model, x)
    np.testing.assert_allclose(found.values, (2 * x / 3) ** 2, rtol=1e-12)
    assert found.probes == 0 and np.all(found.errors == 0)


def test_energy_is_exact_for_few_outputs_and_estimated_for_many() -> None:
    model, x = linear(width=6, outputs=40), rng().standard_normal((5, 6))
    exact = S.energy(model, x, probes=40)
    np.testing.assert_allclose(exact.values, np.tile((model.parameters["W"] ** 2).sum(0), (5, 1)), rtol=1e-12)
    assert exact.probes == 0
    rough = S.energy(model, x, probes=30)
    # 30 numbers, each within 5 standard errors of the truth: by Student's t with 29 degrees of freedom, one in 40,000.
    assert rough.probes == 30 and np.all(np.abs(rough.values - exact.values) < 5 * rough.errors)


# Layers, perturbations, slopes


def test_amplification_ranks_stages_by_their_norms() -> None:
    rotation = np.linalg.qr(rng().standard_normal((80, 80)))[0]
    weights = {"turn_W": rotation, "turn_b": np.zeros(80), "grow_W": 3 * rotation.T, "grow_b": np.zeros(80)}
    model = Model(jc.chain("turning", turn=L.linear, grow=L.linear), weights, backend="numpy")
    found = amplification(model, rng().standard_normal((3, 80)), draws=2)
    assert [one.stage for one in found.ranked] == ["grow", "turn"]
    for one, expected in zip(found.stages, (1.0, 3.0), strict=True):
        assert [one.norm, one.largest, one.growth, one.worst_growth] == pytest.approx([expected] * 4, rel=1e-9)
        assert one.residual < 1e-8 and one.norm_error < 1e-9
    assert found.text.splitlines()[1].startswith("grow")


def test_growths_multiply_to_the_gain_of_the_worst_perturbation() -> None:
    weights = {f"fc{k}_{n}": rng(k).standard_normal(s) for k in (0, 1) for n, s in (("W", (4, 4)), ("b", (4,)))}
    model = Model(jc.chain("deep", fc0=L.linear, act=L.tanh, fc1=L.linear), weights, backend="numpy")
    x = rng(5).standard_normal((1, 4))
    found = amplification(model, x, draws=1)
    gain = S.worst_case(model.at(x)).gain
    assert np.prod([one.worst_growth for one in found.stages]) == pytest.approx(gain, rel=1e-10)


@pytest.mark.parametrize("width", [5, 90])
def test_the_worst_perturbation_is_the_top_singular_vector(width: int) -> None:
    model = linear(width, width)
    found = S.worst_case(model.at(rng().standard_normal((1, width))))
    _, s, vt = np.linalg.svd(model.parameters["W"])
    assert found.gain == pytest.approx(s[0], rel=1e-10) and found.residual < 1e-8
    assert abs(vt[0] @ found.direction[0]) == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(model.parameters["W"] @ found.direction[0], s[0] * found.response[0], atol=1e-7)
    assert found.direction.max() == np.abs(found.direction).max()


def test_slopes_and_chords_bound_the_lipschitz_constant_from_below() -> None:
    model, x = linear(), rng().standard_normal((9, 5))
    norm = np.linalg.norm(model.parameters["W"], 2)
    found = S.lipschitz(model, x)
    assert found.value == found.steepest == pytest.approx(norm, rel=1e-12) and found.chord <= norm * (1 + 1e-12)
    # Of tanh far from 0 the Jacobian at the samples says little, and the chord across 0 says more.
    saturated = S.lipschitz(Model(L.tanh, backend="numpy"), np.array([[-3.0], [3.0]]))
    assert saturated.value == saturated.chord == pytest.approx(np.tanh(3) / 3) and saturated.steepest < 0.01


# How far first order holds


def test_of_a_quadratic_form_the_radius_is_known() -> None:
    A = rng().standard_normal((4, 4))
    model = Model(L.quadratic, {"A": A}, backend="numpy")
    x, v = rng(1).standard_normal((1, 4)), rng(2).standard_normal((1, 4))
    v /= np.linalg.norm(v)
    found = validity(model.at(x), 7 * v)
    exact = 0.05 * abs((x @ (A + A.T) @ v.T).item() / (v @ A @ v.T).item())
    said = [found.radius, found.predicted, found.cautious, found.guaranteed]
    assert said == pytest.approx([exact] * 4, rel=1e-6)


def test_of_an_odd_function_the_third_derivative_alone_says_how_far() -> None:
    """tanh r = r - r³/3 + ...: nothing bends at 0, and r²/3 is 5 % at √0.15."""
    found = validity(Model(L.tanh, backend="numpy").at(np.zeros((1, 1))), np.ones((1, 1)))
    assert found.curvature == 0 and found.predicted == np.inf
    assert found.cautious == pytest.approx(np.sqrt(0.15), rel=1e-7)
    assert found.cautious < found.radius < 1.1 * found.cautious


def test_of_a_linear_model_first_order_holds_everywhere() -> None:
    found = validity(linear().at(np.ones((1, 5))), np.ones((1, 5)))
    assert found.radius == found.predicted == found.cautious == found.guaranteed == np.inf
    assert '"radius": "inf"' in found.json()


def test_what_validity_refuses() -> None:
    at = linear().at(np.ones((1, 5)))
    with pytest.raises(UsageError, match=r"the direction has shape \(5,\), x \(1, 5\)"):
        validity(at, np.ones(5))
    with pytest.raises(UsageError, match="y does not move along the direction to first order"):
        validity(at, np.zeros((1, 5)))


# Margins


def test_the_margins_of_a_linear_classifier_are_distances_to_planes() -> None:
    model, x = linear(outputs=4), rng(5).standard_normal((20, 5))
    found = margins(model, x)
    W, y = model.parameters["W"], model(x)
    for k in range(20):
        a = y[k].argmax()
        away = {b: (y[k, a] - y[k, b]) / np.linalg.norm(W[a] - W[b]) for b in range(4) if b != a}
        assert found.classes[k] == a and found.rivals[k] == min(away, key=lambda b: away[b])
        assert found.linear[k] == pytest.approx(min(away.values()), rel=1e-12)
    np.testing.assert_allclose(found.stepped, found.linear, rtol=1e-6)
    with pytest.raises(UsageError, match=r"margins by 'norm': its shape is \(3,\)"):
        margins(Model(L.l2_norm, backend="numpy"), np.ones((3, 2)))


def test_data_without_samples_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data for model 'linear': its shape is \(0, 5\)"):
        S.influence(linear(), np.empty((0, 5)))


# The digits


@cache
def digits() -> tuple[Model, Any, Any]:
    pytest.importorskip("sklearn")
    from jaccomp.cli import digits as demo

    kernels = {name: jc.compile(name) for name in demo.LAYERS}
    data = demo.load_digits()
    trained = demo.train(kernels, data, lambda epoch: None)
    model = demo.classifier(trained)
    shown = demo.Network(kernels).logits(data.x_test - trained.mean, trained.parameters)
    np.testing.assert_allclose(model(data.x_test.astype(np.float64)), shown, rtol=1e-3, atol=1e-3)
    return model, data.x_test.astype(np.float64), data.labels_test


def test_the_digits_are_told_apart() -> None:
    model, x, labels = digits()
    assert (model(x).argmax(axis=1) == labels).mean() >= 0.97


def test_first_order_holds_on_the_digits_as_far_as_curvature_says() -> None:
    """Along the worst perturbation of each of 30 digits, both ways: first order holds within 5 % in all of the radius
    that the Hessian-vector product and its derivative at the point say, and in all that the product along the way
    guarantees; that of the product at the point alone is right to leading order.
    """
    model, x, _ = digits()
    found = []
    for k in range(30):
        at = model.at(x[k : k + 1])
        worst = S.worst_case(at)
        assert worst.residual < 1e-10
        found += [validity(at, sign * worst.direction) for sign in (1, -1)]
    radius, predicted, cautious, guaranteed = (
        np.array([getattr(one, name) for one in found]) for name in ("radius", "predicted", "cautious", "guaranteed")
    )
    assert np.all(radius >= guaranteed) and np.all(radius >= cautious) and np.all(cautious > 0.3 * radius)
    assert np.all(guaranteed > 0.5 * predicted)
    assert 0.9 < np.median(radius / predicted) < 1.1
    for one in found:
        inside = one.radii <= one.guaranteed
        assert inside.sum() > 20 and np.all(one.errors[inside] <= 0.05)


def test_margins_of_the_digits_are_where_classes_change() -> None:
    model, x, _ = digits()
    found = margins(model, x)
    assert np.isfinite(found.stepped).all()
    assert 0.9 < np.median(found.stepped / found.linear) < 1.1


def test_the_influence_maps_of_the_digits_show_the_digits() -> None:
    """Ink in the hole of a nought speaks against it; pixels that never vary show nothing; middles more than edges."""
    model, x, _ = digits()
    found = S.influence(model, x)
    maps, ways = found.shown.reshape(10, 8, 8), (found.mean * found.spread).reshape(10, 8, 8)
    assert ways[0, 3:5, 3:5].max() < 0 < ways[0, 1:7, [1, 2, 5, 6]].mean()
    assert np.all(maps[:, :, 0] < 0.05 * maps.max()) and np.all(maps[:, x.reshape(-1, 8, 8).std(0) == 0] == 0)
    assert maps[:, 1:7, 1:7].mean() > 2 * maps[:, :, [0, 7]].mean()

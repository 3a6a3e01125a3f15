"""Columns as one batch: the same numbers as one by one, and only where the equations allow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator
from test_composition import CASES, arguments

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis import batching
from jaccomp.analysis.model import Linearisation, Model, dense
from jaccomp.reference import sampling

COUPLED = {
    "batchnorm", "bce_with_logits", "cross_entropy", "embedding", "embedding_bag", "gaussian_nll", "hinge", "huber",
    "kl_divergence", "l1", "log_cosh", "mse", "nll", "poisson_nll", "smooth_l1", "smoothed_cross_entropy",
    "soft_cross_entropy", "squared_hinge", "triplet_margin",
}  # fmt: skip


def one_by_one(J: Any, V: np.ndarray) -> np.ndarray:
    return np.stack([J.matvec(v) for v in V.T], axis=1)


def compare(at: Linearisation, of: str, wrt: str) -> None:
    J = at.operator(of, wrt)
    rng = np.random.default_rng(3)
    V, U = rng.standard_normal((J.shape[1], 3)), rng.standard_normal((J.shape[0], 3))
    scale = 1e-13 * max(1, np.abs(one_by_one(J, V)).max(initial=0))
    np.testing.assert_allclose(J.matmat(V), one_by_one(J, V), rtol=1e-12, atol=scale)
    scale = 1e-13 * max(1, np.abs(one_by_one(J.T, U)).max(initial=0))
    np.testing.assert_allclose(J.rmatmat(U), one_by_one(J.T, U), rtol=1e-12, atol=scale)


def ranks(at: Linearisation) -> dict[str, int]:
    return {name: value.ndim for name, value in at.values.items()}


@pytest.mark.parametrize("name", L.names())
def test_a_batch_of_columns_of_every_layer_of_the_library(name: str) -> None:
    layer = L.get(name)
    assert (batching.leading(layer.spec) is None) == (name in COUPLED)
    rng = np.random.default_rng(1)
    sample = sampling.draw(layer.spec, "different", sampling.different(layer.spec, rng), rng)
    assert sample is not None
    loose = {k: sample.sizes[k] for k in sampling.loose_sizes(layer.spec)}
    model = Model(layer, backend="numpy", **loose, **sample.scalars)
    at = model.at(*(sample.inputs[t.name] for t in layer.spec.inputs))
    for of in (t.name for t in layer.spec.outputs if t.dtype == "real"):
        for wrt in model.inputs:
            if at.values[wrt].dtype.kind == "f":
                compare(at, of, wrt)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_columns_of_chains(name: str) -> None:
    chain, sizes, others = CASES[name]
    call = arguments(chain, sizes, **others)
    first, *parameters = [t.name for t in chain.spec.inputs]
    at = Model(chain, {k: call[k] for k in parameters}, backend="numpy", **others).at(call[first])
    for (of, wrt), J in at.blocks().items():
        assert J.shape == (at.values[of].size, at.values[wrt].size)
        compare(at, of, wrt)


def mlp(shape: tuple[int, ...]) -> Linearisation:
    rng = np.random.default_rng(0)
    chain = jc.chain("mlp", fc1=L.linear, act=L.gelu, fc2=L.linear)
    shapes = {"fc1_W": (5, 4), "fc1_b": (5,), "fc2_W": (3, 5), "fc2_b": (3,)}
    weights = {name: rng.standard_normal(one) for name, one in shapes.items()}
    return Model(chain, weights, backend="numpy").at(rng.standard_normal(shape))


def test_what_comes_after_the_tensor_asked_for_does_not_run() -> None:
    at = mlp((2, 4))
    plan = batching.plan(at.model.chain, "act_y", "fc1_y", ranks(at))
    assert plan is not None and [one.name for one in plan.stages] == ["act"]


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4)], ids=str)
def test_any_number_of_leading_axes_is_a_batch(shape: tuple[int, ...]) -> None:
    at = mlp(shape)
    assert batching.plan(at.model.chain, "y", "x", ranks(at)) is not None
    compare(at, "y", "x")


def test_a_parameter_is_no_batch() -> None:
    at = mlp((2, 4))
    assert batching.plan(at.model.chain, "y", "fc1_W", ranks(at)) is None
    compare(at, "y", "fc1_W")


def test_columns_beyond_the_largest_batch_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    at = mlp((2, 4))
    whole = dense(at.operator())
    monkeypatch.setattr(batching, "LARGEST_BATCH", 2 * at.values["fc1_y"].nbytes)
    np.testing.assert_allclose(dense(at.operator()), whole, rtol=1e-13)


def test_operators_compose_without_matrices() -> None:
    at = mlp((2, 4))
    J, first, last = at.operator(), at.operator("act_y", "x"), at.operator("y", "act_y")
    A, F, B = map(dense, (J, first, last))
    np.testing.assert_allclose(A, B @ F, rtol=1e-12, atol=1e-14)
    for operator, matrix in (
        (last @ first, B @ F),
        (J.T, A.T),
        (J.T @ J, A.T @ A),
        (J @ J.T, A @ A.T),
        ((last @ first).T, A.T),
        (2 * J + last @ first, 3 * A),
        (J @ aslinearoperator(np.diag(np.arange(8.0))), A * np.arange(8.0)),
    ):
        np.testing.assert_allclose(dense(operator), matrix, rtol=1e-12, atol=1e-13)

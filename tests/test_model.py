"""Linearised models: every operator is the transpose of its transpose, and agrees with the chain's own Jacobian."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from test_composition import CASES, arguments

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.model import Model, dense
from jaccomp.errors import UsageError
from jaccomp.reference import sampling


def transposes(J: Any, seed: int = 0) -> None:
    """`⟨u, J v⟩ = ⟨Jᵀ u, v⟩` to 1e-12 of ‖u‖‖J v‖; of a J that is 0 but for rounding, to an eps of ‖u‖‖v‖."""
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal(J.shape[0]), rng.standard_normal(J.shape[1])
    forward, back = J.matvec(v), J.rmatvec(u)
    scale, least = np.linalg.norm(u) * np.linalg.norm(forward), np.linalg.norm(u) * np.linalg.norm(v)
    assert abs(u @ forward - back @ v) <= max(1e-12 * scale, 2e-16 * least)


@pytest.mark.parametrize("name", L.names())
def test_operators_of_every_layer_of_the_library(name: str) -> None:
    layer = L.get(name)
    rng = np.random.default_rng(1)
    sample = sampling.draw(layer.spec, "different", sampling.different(layer.spec, rng), rng)
    assert sample is not None
    loose = {k: sample.sizes[k] for k in sampling.loose_sizes(layer.spec)}
    model = Model(layer, backend="numpy", **loose, **sample.scalars)
    at = model.at(*(sample.inputs[t.name] for t in layer.spec.inputs))
    for of in (t.name for t in layer.spec.outputs if t.dtype == "real"):
        for wrt in model.inputs:
            if at.values[wrt].dtype.kind == "f":
                transposes(at.operator(of, wrt))


@pytest.mark.parametrize("name", CASES)
def test_operators_of_chains_are_the_chains_own_jacobians(name: str) -> None:
    chain, sizes, others = CASES[name]
    call = arguments(chain, sizes, **others)
    first, *parameters = [t.name for t in chain.spec.inputs]
    model = Model(chain, {k: call[k] for k in parameters}, backend="numpy", **others)
    at = model.at(call[first])
    kernel = jc.compile(chain, backend="numpy")
    result = kernel(**call)
    several = isinstance(result, tuple)
    for found, expected in zip(*((r if several else (r,)) for r in (model(call[first]), result)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    for wrt in [t.name for t in chain.spec.inputs if t.dtype == "real"]:
        J = at.operator(wrt=wrt)
        transposes(J)
        expected = kernel.jacobian(**call, of=model.outputs[-1], wrt=wrt).reshape(J.shape)
        np.testing.assert_allclose(dense(J), expected, rtol=1e-11, atol=1e-12)


def deep(depth: int, width: int, seed: int = 0) -> Model:
    stages: dict[str, Any] = {}
    for k in range(depth):
        stages[f"fc{k}"] = L.linear
        stages[f"act{k}"] = L.tanh
    chain = jc.chain("deep", **stages)
    rng = np.random.default_rng(seed)
    weights = {f"fc{k}_W": rng.standard_normal((width, width)) / np.sqrt(width) for k in range(depth)}
    return Model(chain, {**weights, **{f"fc{k}_b": np.zeros(width) for k in range(depth)}}, backend="numpy")


@pytest.mark.parametrize("depth", [1, 10, 50])
def test_operators_of_deep_chains(depth: int) -> None:
    at = deep(depth, 6).at(np.random.default_rng(1).standard_normal((2, 6)))
    J = at.operator()
    transposes(J)
    if depth == 10:
        split = at.operator("y", "act4_y") @ at.operator("act4_y", "x")
        np.testing.assert_allclose(dense(split), dense(J), rtol=1e-11, atol=1e-13)
        gram = J.T @ J
        np.testing.assert_allclose(dense(gram), dense(J).T @ dense(J), rtol=1e-10, atol=1e-13)


def test_a_wide_chain_is_linearised_in_memory_for_its_values() -> None:
    width, rows = 512, 64
    model = deep(8, width)
    x = np.random.default_rng(1).standard_normal((rows, width))
    tracemalloc.start()
    at = model.at(x)
    J = at.operator()
    J.rmatvec(np.ones(J.shape[0]))
    J.matvec(np.ones(J.shape[1]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20, "the explicit Jacobian has 8 GiB"


def test_what_a_model_refuses() -> None:
    with pytest.raises(UsageError, match=r"model 'linear': the chain has no input 'Q'.\n  It has x, W, b."):
        Model(L.linear, {"Q": np.ones(3)})
    with pytest.raises(UsageError, match=r"model 'tanh': the chain has no scalar or size 'x'.\n  It has N."):
        Model(L.tanh, x=3)
    with pytest.raises(UsageError, match="model 'tanh': the chain has no input 'N'"):
        Model(L.tanh, {"N": np.ones(3)})
    model = Model(L.tanh, backend="numpy")
    with pytest.raises(UsageError, match="2 inputs for 1: x"):
        model(np.ones(3), np.ones(3))
    with pytest.raises(UsageError, match="there is no tensor 'q'"):
        model.at(np.ones(3)).operator("q")
    with pytest.raises(UsageError, match="3 by 3 is more than 8 bytes"):
        dense(model.at(np.ones(3)).operator(), limit=8)


def test_other_parameters_share_the_kernels() -> None:
    one = deep(3, 5)
    other = one.having(deep(3, 5, seed=1).parameters)
    x = np.random.default_rng(2).standard_normal((2, 5))
    assert other.kernels is one.kernels and other.inputs == one.inputs
    np.testing.assert_array_equal(other(x), deep(3, 5, seed=1)(x))
    assert not np.array_equal(other(x), one(x))

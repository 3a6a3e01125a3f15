"""Derived layers are compiled like others: forward first, what is derived from them in turn when it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp

import jaccomp as jc
from jaccomp import layers
from jaccomp.errors import UsageError

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape)


CASES: dict[str, tuple[Any, ...]] = {
    "layernorm": (normal(8, 64), normal(64), normal(64)),
    "softmax": (normal(3, 5),),
    "mse": (normal(4, 3), normal(4, 3)),
    "cross_entropy": (normal(4, 7), RNG.integers(0, 7, 4)),
    "lstm_cell": (normal(2, 3), normal(2, 4), normal(2, 4), normal(16, 3), normal(16, 4), normal(16), normal(16)),
    "conv2d": (normal(2, 3, 6, 6), normal(4, 3, 3, 3), normal(4)),
    "causal_attention": (normal(2, 5, 4), normal(2, 5, 4), normal(2, 5, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_derived_vjp_is_the_pullback_in_one_call(name: str) -> None:
    layer, inputs = layers.get(name), CASES[name]
    label = layer.program.labels.name
    y, pullback = jc.compile(layer).vjp(*inputs)
    outputs = y if isinstance(y, tuple) else (y,)
    cotangents = tuple(normal(*np.shape(one)) for one in outputs)
    wanted = [ct for ct in _tuple(pullback(cotangents if len(outputs) > 1 else cotangents[0])) if ct is not None]
    values = dict(zip(map(label, layer.program.inputs), inputs, strict=True))
    values |= dict(zip((f"ct_{label(o)}" for o in layer.program.outputs), cotangents, strict=True))
    derived = layer.vjp()
    kernel = jc.compile(derived)
    assert "fwd" not in vars(kernel)
    found = _tuple(kernel(*(values[derived.program.labels.name(n)] for n in derived.program.inputs)))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_a_pushforward_is_the_tangent_of_the_inputs_that_move(name: str) -> None:
    layer, inputs = layers.get(name), CASES[name]
    names = [layer.program.labels.name(one) for one in layer.program.inputs]
    whole = jc.compile(layer, backend="numpy")
    for place, moved in enumerate(inputs):
        if moved.dtype.kind == "f":
            t = normal(*moved.shape)
            _, expected = whole.jvp(inputs, tuple(t if k == place else None for k in range(len(inputs))))
            found = jc.compile(layer.pushforward([names[place]]), backend="numpy")(*inputs, t)
            for one, other in zip(_tuple(found), _tuple(expected), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_what_does_not_move_costs_a_pushforward_nothing() -> None:
    linear = layers.get("linear")
    body = "t_y[n,o] = Σ_k t_x[n,k] W[o,k]"
    assert str(linear.pushforward(["x"])).splitlines() == ["linear_pushforward(x, W, b, t_x) -> t_y", f"    {body}"]
    assert len(linear.pushforward().program.inputs) == 6
    with pytest.raises(UsageError, match=r"pushforward of 'cross_entropy': wrt='labels' is none of its real tensors"):
        layers.get("cross_entropy").pushforward(["labels"])


@pytest.mark.parametrize("backend", ["cython", "numpy"])
def test_what_is_derived_from_a_derived_layer_is_built_when_it_is_asked_for(backend: str) -> None:
    kernel = jc.compile(layers.get("softmax").vjp(), backend=backend)
    x, ct, seed = normal(3, 5), normal(3, 5), normal(3, 5)
    _, pullback = kernel.vjp(x, ct)
    _, tangent = kernel.jvp((x, ct), (seed, np.zeros_like(ct)))
    if backend == "cython":
        assert len(kernel.modules) == 3
    assert np.vdot(pullback(seed)[0], seed) == pytest.approx(np.vdot(tangent, seed))  # a Hessian is its own transpose


def test_the_cotangents_of_an_affine_map_and_its_cross_entropy() -> None:
    """More rows and classes than a tile has, labels at its borders."""
    N, D, C = jc.size("N D C")
    n, c, k = jc.index("n", N), jc.index("c", C), jc.index("k", D)
    x, W, labels = jc.tensor("x", N, D), jc.tensor("W", C, D), jc.tensor("labels", N, dtype="int64")
    z, lse, loss = jc.tensor("z", N, C), jc.tensor("lse", N), jc.tensor("loss")
    equations = [
        sp.Eq(z[n, c], sp.Sum(W[c, k] * x[n, k], k)),
        sp.Eq(lse[n], sp.log(sp.Sum(sp.exp(z[n, c]), c))),
        sp.Eq(loss, sp.Sum(lse[n] - z[n, labels[n]], n) / N),
    ]
    layer = jc.Layer("classify", inputs=[x, W, labels], outputs=[loss], equations=equations)
    a, b, ids = normal(300, 5), normal(513, 5), RNG.integers(0, 513, 300)
    ids[:6] = 0, 255, 256, 511, 512, 1
    _, pullback = jc.compile(layer).vjp(a, b, ids)
    ct_x, ct_w, _ = pullback()
    logits = a @ b.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    ct = (p / p.sum(1, keepdims=True) - np.eye(513)[ids]) / 300
    np.testing.assert_allclose(ct_x, ct @ b, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(ct_w, ct.T @ a, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ["linear", "sum_pool"])
def test_a_long_sum_of_rows_is_no_single_chain_of_additions(name: str) -> None:
    """A chain of 32,768 equal float32 additions is wrong by 2167 ulp; chains of 128 and 256 by at most 384."""
    rows = np.full((32768, 4), 0.1, np.float32)
    if name == "linear":
        x, w, b = (np.ones(shape, np.float32) for shape in ((32768, 3), (4, 3), (4,)))
        found = jc.compile(layers.get(name)).vjp(x, w, b)[1](rows, wrt=("b",))[2]
    else:
        found = jc.compile(layers.get(name))(rows[None])[0]
    np.testing.assert_allclose(found, rows.astype(np.float64).sum(0), rtol=384 * np.finfo(np.float32).eps)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)

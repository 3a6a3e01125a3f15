"""A composed block, where everything meets: fused kernels against NumPy, and the pullback against the tangent map."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

import jaccomp as jc

EXAMPLE = Path(__file__).parents[1] / "examples" / "blocks.py"
SHAPES = [(2, 3, 1, 4, 5), (1, 5, 4, 2, 3), (3, 70, 6, 5, 7)]


@pytest.fixture(scope="module")
def block() -> Any:
    return runpy.run_path(str(EXAMPLE))["transformer_block"]


def arrays(layer: Any, sizes: tuple[int, ...], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    values = dict(zip("BTDEF", sizes, strict=True))
    return [rng.standard_normal([values[str(extent)] for extent in t.shape]) for t in layer.spec.inputs]


def expected(
    x: Any, g1: Any, b1: Any, w_q: Any, w_k: Any, w_v: Any, w_o: Any, g2: Any, b2: Any, up: Any, down: Any
) -> Any:
    def norm(source: Any, gain: Any, bias: Any) -> Any:
        centred = source - source.mean(-1, keepdims=True)
        return gain * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) + bias

    h = norm(x, g1, b1)
    scores = (h @ w_q.T) @ (h @ w_k.T).swapaxes(1, 2) / np.sqrt(w_q.shape[0])
    scores = np.where(np.tril(np.ones(scores.shape[1:])) > 0, scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mid = x + p @ (h @ w_v.T) @ w_o.T
    z = norm(mid, g2, b2) @ up.T
    return mid + (z * (1 + erf(z / np.sqrt(2))) / 2) @ down.T


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_the_fused_block_is_the_formula(block: Any, sizes: tuple[int, ...]) -> None:
    inputs = arrays(block, sizes)
    y = jc.compile(block)(*inputs)
    np.testing.assert_allclose(y, expected(*inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sizes", SHAPES[1:], ids=str)
def test_the_pullback_is_the_derivative(block: Any, sizes: tuple[int, ...]) -> None:
    kernel, inputs = jc.compile(block), arrays(block, sizes)
    directions = arrays(block, sizes, seed=1)
    y, pullback = kernel.vjp(*inputs)
    ct = np.random.default_rng(2).standard_normal(y.shape)
    step = 1e-6
    ahead, behind = ([a + sign * step * t for a, t in zip(inputs, directions, strict=True)] for sign in (1, -1))
    measured = ((expected(*ahead) - expected(*behind)) * ct).sum() / (2 * step)
    derived = sum((c * t).sum() for c, t in zip(pullback(ct), directions, strict=True))
    assert derived == pytest.approx(measured, rel=1e-6)

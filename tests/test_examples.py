"""The layers under examples/, which the library does not have, against NumPy and complex step."""

from __future__ import annotations

import itertools
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from library_formulas import Array, Case, distributions, ids_below, positive
from points import Point, check_formula, check_vjp, check_vjp_of_vjp
from scipy import special

from jaccomp.checking import check
from jaccomp.layer import Layer
from jaccomp.layers import names

FOLDER = Path(__file__).parent.parent / "examples"
LAYERS: dict[str, Layer] = {
    value.name: value
    for path in sorted(FOLDER.glob("*.py"))
    for value in runpy.run_path(str(path)).values()
    if isinstance(value, Layer)
}


def mixture(x: Array, gate: Array, W: Array) -> Array:
    return x + np.einsum("ne,eik,nk->ni", special.softmax(x @ gate.T, axis=1), W, x)


def distances(x: Array, centre: Array) -> Array:
    return ((x[:, None] - centre[None]) ** 2).sum(-1)


def window_attention(q: Array, k: Array, v: Array, reach: int) -> Array:
    t, m = np.indices((q.shape[1], q.shape[1]))
    scores = np.where((m <= t) & (m >= t - reach), q @ np.swapaxes(k, 1, 2) / np.sqrt(q.shape[2]), -np.inf)
    return special.softmax(scores, axis=-1) @ v


def local_response(x: Array, reach: int, alpha: float, beta: float, bias: float) -> Array:
    total = np.stack([(x[:, max(0, c - reach) : c + reach + 1] ** 2).sum(1) for c in range(x.shape[1])], axis=1)
    return x / (bias + alpha * total) ** beta


def pixel_shuffle(x: Array) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c // 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def film(x: Array, z: Array, W: Array, V: Array, eps: float) -> Array:
    centred = x - x.mean(1, keepdims=True)
    return (1 + z @ W.T) * centred / np.sqrt(x.var(1, keepdims=True) + eps) + z @ V.T


def squeeze_excite(x: Array, down: Array, up: Array) -> Array:
    return x * special.expit(np.maximum(x.mean(2) @ down.T, 0) @ up.T)[..., None]


def focal(x: Array, labels: Array, gamma: float) -> Array:
    p = special.softmax(x, axis=1)[np.arange(len(x)), labels]
    return -np.mean((1 - p) ** gamma * np.log(p))


def contrastive(a: Array, b: Array, temperature: Array) -> Array:
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b)]
    s = unit[0] @ unit[1].T / temperature
    rows, columns = (np.diag(special.log_softmax(s, axis=axis)).mean() for axis in (1, 0))
    return -(rows + columns) / 2


def sinkhorn(cost: Array, mass: Array, v: Array, epsilon: float) -> Array:
    """The potentials that give the plan its row sums."""
    return epsilon * np.log(mass / (np.exp(-cost / epsilon) @ np.exp(v / epsilon)))


def logistic(w: Array, x: Array, sign: Array, ridge: float) -> Array:
    return np.logaddexp(0, -sign * (x @ w)).mean() + ridge * (w @ w)


def padded_attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    scores = q @ np.swapaxes(k, 2, 3) / np.sqrt(q.shape[3])
    return special.softmax(np.where(mask[:, None, None] == 1, scores, -np.inf), axis=-1) @ v


def mean_of_tokens(x: Array, mask: Array) -> Array:
    return np.stack([sentence[: row.sum()].mean(axis=0) for sentence, row in zip(x, mask, strict=True)])


def padding(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """At least one token in each row, then padding."""
    return (np.arange(shape[1]) < rng.integers(1, shape[1] + 1, (shape[0], 1))).astype(np.int64)


def probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.uniform(0.1, 0.9, shape)


HEADS = {"B": 2, "T": 4, "H": 3, "K": 2}
GRID = {"N": 3, "D": 4, "M": 5}
CASES: dict[str, Case] = {
    "mixture_gating": Case({"N": 3, "D": 4, "E": 2}, mixture),
    "rbf": Case(
        GRID, lambda x, c, width: np.exp(-distances(x, c) / (2 * width**2)), draw={"width": positive}
    ),
    "prototypes": Case(GRID, lambda x, c: special.log_softmax(-distances(x, c), axis=1)),
    "tropical": Case(GRID, lambda x, W: (x[:, None] + W[None]).max(-1)),
    "noisy_or": Case(
        GRID, lambda x, W: 1 - np.prod(1 - x[:, None] * W[None], -1), draw={"x": probabilities, "W": probabilities}
    ),
    "window_attention": Case({"B": 2, "T": 6, "D": 3, "E": 2}, window_attention, {"reach": 2}),
    "local_response": Case(
        {"N": 2, "C": 6, "H": 2, "W": 3}, local_response, {"reach": 2, "alpha": 0.3, "beta": 0.75, "bias": 2.0}
    ),
    "pixel_shuffle": Case({"N": 2, "C": 3, "H": 2, "W": 3, "R": 2}, pixel_shuffle),
    "film_layernorm": Case({"N": 3, "D": 5, "K": 2}, film, {"eps": 1e-2}),
    "squeeze_excite": Case({"N": 2, "C": 4, "P": 5, "R": 3}, squeeze_excite),
    "focal_loss": Case({"N": 4, "C": 5}, focal, {"gamma": 2.0}, {"labels": ids_below(5)}),
    "contrastive": Case({"N": 4, "D": 3}, contrastive, draw={"temperature": positive}),
    "logistic": Case({"N": 4, "D": 3}, logistic, {"ridge": 0.1}),
    "add_positions": Case(
        {"B": 2, "T": 3, "D": 4, "P": 6, "S": 2},
        lambda x, places, kinds, offset: x + places[offset : offset + x.shape[1]] + kinds[0],
        {"offset": 2},
    ),
    "split_heads": Case(HEADS, lambda x: x.reshape(2, 4, 3, 2).transpose(0, 2, 1, 3)),
    "join_heads": Case(HEADS, lambda x: x.transpose(0, 2, 1, 3).reshape(2, 4, 6)),
    "padded_attention": Case(HEADS, padded_attention, draw={"mask": padding}),
    "mean_of_tokens": Case({"B": 3, "T": 4, "D": 2}, mean_of_tokens, draw={"mask": padding}),
    "sinkhorn_step": Case({"N": 3, "M": 4}, sinkhorn, {"epsilon": 0.5}, {"mass": distributions}),
    "crf_step": Case(
        {"B": 2, "S": 4}, lambda a, e, t: e + special.logsumexp(a[:, :, None] + t[None], axis=1)
    ),
}  # fmt: skip


TESTED_ELSEWHERE = {"transformer_block"}  # against its parts, in test_blocks.py
CLIMBED = (
    "film_layernorm", "local_response", "mixture_gating", "noisy_or", "squeeze_excite", "tropical", "window_attention",
)  # fmt: skip


def test_every_example_is_new_and_has_a_formula() -> None:
    assert sorted(set(LAYERS) - TESTED_ELSEWHERE) == sorted(CASES)
    assert not set(LAYERS) & set(names())


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_its_formula(name: str) -> None:
    check_formula(Point(LAYERS[name], CASES[name]), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_a_vjp_is_the_transpose_of_complex_step(name: str) -> None:
    check_vjp(Point(LAYERS[name], CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_the_vjp_of_a_vjp_is_the_transpose_of_complex_step(name: str) -> None:
    check_vjp_of_vjp(Point(LAYERS[name], CASES[name]))


@pytest.mark.parametrize("name", CLIMBED)
def test_a_layer_of_ones_own_climbs_the_whole_ladder(name: str) -> None:
    report = check(LAYERS[name])
    assert report, str(report.summary())


def run(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_newtons_method_converges_quadratically() -> None:
    printed = run("numpy_kernels.py")
    norms = [float(word) for word in printed.split("\n")[0].split(":")[1].split()]
    assert norms[0] > 0.1 and norms[-1] < 1e-14
    assert all(after <= 2 * before**2 for before, after in itertools.pairwise(norms) if 1e-7 < before < 0.1)


def test_the_digits_are_learned() -> None:
    assert float(run("train_digits.py").split("%")[0]) >= 96.0

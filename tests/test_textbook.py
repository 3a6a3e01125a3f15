"""The blocks that textbooks print: the same numbers, in no more operations, however the layer was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp
from dense import assert_close, jacobian
from library_formulas import CASES
from points import Point
from scipy import special

import jaccomp as jc
from jaccomp.algebra.cost import operations
from jaccomp.layers import get

Formula = Callable[..., Any]
eye = np.eye


def softmax_block(x: Any) -> Any:
    y = special.softmax(x, -1)
    return y[:, :, None] * (eye(x.shape[1]) - y[:, None, :])


def layernorm_block(x: Any, g: Any, bias: Any) -> Any:
    rstd = 1 / np.sqrt(x.var(-1) + 1e-2)
    xhat = (x - x.mean(-1, keepdims=True)) * rstd[:, None]
    inner = eye(x.shape[1]) - (1 + xhat[:, :, None] * xhat[:, None, :]) / x.shape[1]
    return (g * rstd[:, None])[:, :, None] * inner


def rmsnorm_block(x: Any, g: Any) -> Any:
    rstd = 1 / np.sqrt((x * x).mean(-1) + 1e-2)
    xhat = x * rstd[:, None]
    return (g * rstd[:, None])[:, :, None] * (eye(x.shape[1]) - xhat[:, :, None] * xhat[:, None, :] / x.shape[1])


def unit_block(x: Any) -> Any:
    norm = np.linalg.norm(x, axis=-1)
    y = x / norm[:, None]
    return (eye(x.shape[1]) - y[:, :, None] * y[:, None, :]) / norm[:, None, None]


def gelu_tanh_slope(x: Any) -> Any:
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2)


def cosine_block(x: Any, z: Any) -> Any:
    nx, nz = np.linalg.norm(x, axis=-1), np.linalg.norm(z, axis=-1)
    y = (x * z).sum(-1) / nx / nz
    return z / (nx * nz)[:, None] - (y / nx**2)[:, None] * x


def one_hot_less(x: Any, labels: Any) -> Any:
    return (special.softmax(x, -1) - eye(x.shape[1])[labels]) / len(x)


# name, the textbook's formula (by row, or elementwise), its operations for an entry; a δ is read, not computed
TEXTBOOK: tuple[tuple[str, Formula, int], ...] = (
    ("softmax", softmax_block, 3),  # δ y (δ - y)
    ("log_softmax", lambda x: eye(x.shape[1]) - special.softmax(x, -1)[:, None, :], 3),  # δ (δ - exp(y))
    ("logsumexp", lambda x: special.softmax(x, -1), 3),  # δ exp(x - y)
    ("l2_normalize", unit_block, 4),  # δ (δ - y y)/norm
    ("layernorm", layernorm_block, 7),  # δ g rstd (δ - (1 + xhat xhat)/D)
    ("rmsnorm", rmsnorm_block, 6),  # δ g rstd (δ - xhat xhat/D)
    ("sigmoid", lambda x: special.expit(x) * special.expit(-x), 3),  # δ y (1 - y)
    ("tanh", lambda x: 1 / np.cosh(x) ** 2, 3),  # δ (1 - y²)
    ("softplus", special.expit, 2),  # δ σ(x)
    ("gelu", lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), 11),  # δ (Φ + x φ)
    ("gelu_tanh", gelu_tanh_slope, 25),  # δ ((1 + t)/2 + x (1 - t²) c (1 + 3 a x²)/2)
    ("silu", lambda x: special.expit(x) * (1 + x * special.expit(-x)), 7),  # δ σ (1 + x (1 - σ))
    ("linear", lambda x, W, b: np.broadcast_to(W, (len(x), *W.shape)), 1),  # δ W
    ("bilinear", lambda x, z, W, b: np.einsum("ode,ne->nod", W, z), 2),  # δ Σ W z
    ("quadratic", lambda x, A: x @ (A + A.T), 3),  # δ Σ (A + Aᵀ) x
    ("cross_entropy", one_hot_less, 4),  # (exp(x - lse) - δ)/N
    ("squared_distance", lambda x, z: 2 * (x[:, None] - z[None]), 3),  # 2 δ (x - z)
    ("l2_norm", lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True), 2),  # δ x/norm
    ("cosine_similarity", cosine_block, 7),  # δ (z/(‖x‖ ‖z‖) - y x/‖x‖²)
    ("mse", lambda x, z: 2 * (x - z) / len(x), 3),  # 2 (x - z)/N
)


@pytest.mark.parametrize(("name", "formula", "most"), TEXTBOOK, ids=[row[0] for row in TEXTBOOK])
def test_the_numbers_and_the_operations_of_the_textbook(name: str, formula: Formula, most: int) -> None:
    layer = get(name)
    point = Point(layer, CASES[name])
    output, x = layer.program.outputs[0], layer.program.inputs[0]
    block = jacobian(point, point.program, point.inputs)[output, x]
    expected = formula(*point.inputs.values())
    rank = len(point.shape(output))
    dense = block.reshape(*point.shape(output), *point.shape(x))
    assert_close(own_rows(dense, rank) if rank else dense, (expected.ravel(), np.abs(expected).ravel()))
    assert entry_operations(layer.jacobian(of=label(layer, output), wrt=label(layer, x)).expr) <= most


def label(layer: jc.Layer, name: str) -> str:
    return layer.program.labels.name(name)


def own_rows(dense: Any, rank: int) -> Any:
    """The blocks of each row by itself; a row does not depend on another."""
    moved = np.moveaxis(dense, rank, 1)
    N = len(moved)
    assert (moved[~eye(N, dtype=bool)] == 0).all()
    return moved[np.arange(N), np.arange(N)]


def entry_operations(expr: sp.Expr) -> int:
    """Operations of one addend of every sum; a δ is a number that is read."""
    deltas = sorted(expr.atoms(sp.KroneckerDelta), key=str)
    read = {one: jc.tensor(f"delta{k}", 1)[0] for k, one in enumerate(deltas)}
    sums = {one: one.function for one in expr.atoms(sp.Sum)}
    return operations(expr.xreplace(sums).xreplace(read))


# ---------------------------------------------------------------------------------------- the same layer, other words

R, F = jc.size("R"), jc.size("F")
r, p, q = jc.index("r", R), jc.index("p", F), jc.index("q", F)
u, out, mid = jc.tensor("u w mid", R, F)
total = jc.tensor("total", R)


def nested(body: Any, output: Any = out, steps: Any = ()) -> jc.Layer:
    at = output[r, p] if output is out else output[r]
    return jc.Layer("nested", inputs=[u], outputs=[output], equations=[*steps, sp.Eq(at, body)])


SUM = sp.Sum(sp.exp(u[r, q]), q)
NORM = sp.sqrt(sp.Sum(u[r, q] ** 2, q))
OTHER_WORDS: dict[str, tuple[jc.Layer, str]] = {
    "softmax": (nested(sp.exp(u[r, p]) / SUM), "w[r,p] δ(r,m) (δ(p,j) - w[r,j])"),
    "softmax in steps": (
        nested(mid[r, p] / total[r], steps=[sp.Eq(mid[r, p], sp.exp(u[r, p])), sp.Eq(total[r], sp.Sum(mid[r, q], q))]),
        "w[r,p] δ(r,m) (δ(p,j) - w[r,j])",
    ),
    "log_softmax": (nested(sp.log(sp.exp(u[r, p]) / SUM)), "δ(r,m) (δ(p,j) - exp(w[r,j]))"),
    "l2_normalize": (nested(u[r, p] / NORM), "δ(r,m) (δ(p,j) - w[r,j] w[r,p]) (Σ_l u[r,l]²)^(-1/2)"),
    "sigmoid": (nested(1 / (1 + sp.exp(-u[r, p]))), "w[r,p] δ(p,j) δ(r,m) (1 - w[r,p])"),
    "tanh": (nested(sp.tanh(u[r, p])), "δ(p,j) δ(r,m) (1 - w[r,p]²)"),
}


@pytest.mark.parametrize("name", OTHER_WORDS)
def test_one_nested_expression_in_other_names_derives_as_well(name: str) -> None:
    layer, text = OTHER_WORDS[name]
    assert layer.jacobian().text == text

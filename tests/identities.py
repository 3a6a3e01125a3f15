"""Derivatives of the textbooks: of each a layer, its block in NumPy by the textbook's formula, and that one's entry.

The formulas are written here by hand, over whole arrays, and share nothing with what is derived. An entry is one of the
block as the textbook writes it; a δ in it is a number that is read, a sum one of its addends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from library_formulas import CASES, Case
from scipy import special

import jaccomp as jc
from jaccomp.calculus import functions
from jaccomp.layers import get

Array = Any
Block = Callable[..., Array]
eye = np.eye
einsum = np.einsum
softmax = special.softmax
expit = special.expit


@dataclass(frozen=True)
class Identity:
    """`block(*inputs, **scalars)` is ∂of/∂wrt over the axes of both; `entry` is one of it."""

    name: str
    layer: jc.Layer
    wrt: str
    block: Block
    entry: sp.Expr
    case: Case
    of: str

    def __str__(self) -> str:
        return self.name


IDENTITIES: dict[str, Identity] = {}


def library(layer: str, wrt: str, block: Block, entry: sp.Expr, *, of: str = "") -> None:
    """An identity of a layer of the library, at the sizes of its case."""
    one = get(layer)
    _add(f"{layer}_{wrt}" if not of else f"{layer}_{of}_{wrt}", one, wrt, block, entry, CASES[layer], of)


def written(
    layer: jc.Layer,
    wrt: str,
    sizes: Mapping[str, int],
    block: Block,
    entry: sp.Expr,
    *,
    scalars: Mapping[str, Any] | None = None,
    draw: Mapping[str, Any] | None = None,
) -> None:
    """An identity of a layer that is written here."""
    case = Case(sizes, lambda *_: None, dict(scalars or {}), dict(draw or {}))
    _add(f"{layer.name}_{wrt}", layer, wrt, block, entry, case, "")


def _add(name: str, layer: jc.Layer, wrt: str, block: Block, entry: Any, case: Case, of: str) -> None:
    assert name not in IDENTITIES
    output = of or layer.program.labels.name(layer.program.outputs[0])
    IDENTITIES[name] = Identity(name, layer, wrt, block, sp.sympify(entry, strict=True), case, output)


# ---------------------------------------------------------------------------------------------------- arrays of blocks


def each(block: Array, axes: int) -> Array:
    """δ(n,m) block[n]: from one block for each n, of `axes` axes of the output, the whole."""
    count = len(block)
    whole = np.zeros((*block.shape[: 1 + axes], count, *block.shape[1 + axes :]))
    for n in range(count):
        whole[(n, *(slice(None),) * axes, n)] = block[n]
    return whole


def rows(slope: Array) -> Array:
    """Of a scalar for each row: δ(n,m) slope[n, :]."""
    return each(slope, 0)


d, e, f = sp.symbols("d e f")  # deltas, which are read
x, y, z, g, r, p, q, u, v, w = sp.symbols("x y z g r p q u v w", real=True)
a, b, c, k, s, t, N, D, norm = sp.symbols("a b c k s t N D norm", real=True)
exp, sqrt = sp.exp, sp.sqrt
sigma, step = functions.Sigmoid, functions.Step

# Softmaxes and normalisations


def softmax_block(x: Array) -> Array:
    y = softmax(x, -1)
    return each(einsum("ni,ij->nij", y, eye(x.shape[1])) - einsum("ni,nj->nij", y, y), 1)


library("softmax", "x", softmax_block, d * y * (e - z))
library("softmin", "x", lambda x: -softmax_block(-x), d * y * (z - e))
library("log_softmax", "x", lambda x: each(eye(x.shape[1]) - softmax(x, -1)[:, None, :], 1), d * (e - exp(y)))
library("logsumexp", "x", lambda x: rows(softmax(x, -1)), d * exp(x - y))


def normalised(x: Array, eps: float, *, centred: bool = True) -> tuple[Array, Array]:
    """(xhat, rstd) along the last axis."""
    moved = x - x.mean(-1, keepdims=True) if centred else x
    rstd = 1 / np.sqrt((moved**2).mean(-1, keepdims=True) + eps)
    return moved * rstd, rstd


def norm_block(xhat: Array, rstd: Array, *, centred: bool = True) -> Array:
    """rstd (I - 1 1ᵀ/D - xhat xhatᵀ/D) along the last axis, for all others."""
    size = xhat.shape[-1]
    ones = 1.0 if centred else 0.0
    return rstd[..., None] * (eye(size) - (ones + xhat[..., :, None] * xhat[..., None, :]) / size)


def layernorm_x(x: Array, g: Array, bias: Array, eps: float) -> Array:
    return each(g[:, None] * norm_block(*normalised(x, eps)), 1)


def rmsnorm_x(x: Array, g: Array, eps: float) -> Array:
    return each(g[:, None] * norm_block(*normalised(x, eps, centred=False), centred=False), 1)


def repeated(matrix: Array, count: int) -> Array:
    """The same matrix for each of the first axis."""
    return np.broadcast_to(matrix, (count, *matrix.shape))


library("layernorm", "x", layernorm_x, d * g * r * (e - (1 + y * z) / D))
library("layernorm", "g", lambda x, g, bias, eps: einsum("ni,ij->nij", normalised(x, eps)[0], eye(len(g))), d * y)
library("layernorm", "bias", lambda x, g, bias, eps: repeated(eye(len(g)), len(x)), d)
library("rmsnorm", "x", rmsnorm_x, d * g * r * (e - y * z / D))
library(
    "rmsnorm", "g", lambda x, g, eps: einsum("ni,ij->nij", normalised(x, eps, centred=False)[0], eye(len(g))), d * y
)


def unit_block(x: Array) -> Array:
    norm = np.linalg.norm(x, axis=-1)[:, None]
    y = x / norm
    return each((eye(x.shape[1]) - einsum("ni,nj->nij", y, y)) / norm[:, :, None], 1)


def weightnorm_v(v: Array, g: Array) -> Array:
    return g[:, None, None, None] * unit_block(v)


library("l2_normalize", "x", unit_block, d * (e - y * z) / norm)
library("l2_norm", "x", lambda x: rows(x / np.linalg.norm(x, axis=-1, keepdims=True)), d * x / norm)
library("weightnorm", "v", weightnorm_v, d * g * (e - y * z / norm**2) / norm)
library("weightnorm", "g", lambda v, g: each(v / np.linalg.norm(v, axis=1, keepdims=True), 1), d * v / norm)


def channel_first(x: Array) -> Array:
    """[N, C, H, W] as [C, N H W]."""
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def batchnorm_x(x: Array, g: Array, bias: Array, eps: float) -> Array:
    N, C, H, W = x.shape
    own = g[:, None, None] * norm_block(*normalised(channel_first(x), eps))
    return einsum("cnhwmgj,cd->nchwmdgj", own.reshape(C, N, H, W, N, H, W), eye(C))


def batch_xhat(x: Array, eps: float) -> Array:
    N, C, H, W = x.shape
    return np.moveaxis(normalised(channel_first(x), eps)[0].reshape(C, N, H, W), 0, 1)


def batchnorm_var(x: Array, g: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean((0, 2, 3), keepdims=True)
    return 2 * einsum("nchw,cd->dnchw", centred, eye(len(g))) / (x.size // len(g))


library("batchnorm", "x", batchnorm_x, d * g * r * (e * f * a - (1 + y * z) / (N * D * k)))
library("batchnorm", "g", lambda x, g, bias, eps: einsum("nchw,cd->nchwd", batch_xhat(x, eps), eye(len(g))), d * y)
library("batchnorm", "bias", lambda x, g, bias, eps: einsum("nchw,cd->nchwd", np.ones(x.shape), eye(len(g))), d)
library(
    "batchnorm", "x",
    lambda x, g, bias, eps: einsum("nchw,cd->dnchw", np.ones(x.shape), eye(len(g))) / (x.size // len(g)),
    d / (N * D * k), of="mean",
)  # fmt: skip
library("batchnorm", "x", batchnorm_var, 2 * d * (x - y) / (N * D * k), of="var")


def instancenorm_x(x: Array, g: Array, bias: Array, eps: float) -> Array:
    N, C, H, W = x.shape
    own = g[:, None, None] * norm_block(*normalised(x.reshape(N, C, -1), eps))
    return einsum("nchwgj,nm,cd->nchwmdgj", own.reshape(N, C, H, W, H, W), eye(N), eye(C))


def groupnorm_x(x: Array, g: Array, bias: Array, eps: float) -> Array:
    N, C, H, W = x.shape
    G = CASES["groupnorm"].sizes["G"]
    K = C // G
    own = norm_block(*normalised(x.reshape(N, G, -1), eps)).reshape(N, G, K, H, W, K, H, W)
    whole = einsum("naehwfgj,nm,ab->naehwmbfgj", own, eye(N), eye(G))
    return g[:, None, None, None, None, None, None] * whole.reshape(N, C, H, W, N, C, H, W)


library("instancenorm", "x", instancenorm_x, d * g * r * e * (f * a - (1 + y * z) / (D * k)))
library("groupnorm", "x", groupnorm_x, d * g * (r * e * f * a - r * b * (1 + y * z) / (N * D * k)))
library(
    "scale_shift",
    "x",
    lambda x, g, bias: each(einsum("i,ij->ij", g, eye(len(g)))[None].repeat(len(x), 0), 1),
    d * e * g,
)
library("scale_shift", "g", lambda x, g, bias: einsum("ni,ij->nij", x, eye(len(g))), d * x)
library("scale_shift", "bias", lambda x, g, bias: repeated(eye(len(g)), len(x)), d)

# Products


def at_own_row(matrix: Array, count: int) -> Array:
    """δ(n,m) times the same matrix."""
    return each(repeated(matrix, count), matrix.ndim - 1)


library("linear", "x", lambda x, W, b: at_own_row(W, len(x)), d * w)
library("linear", "W", lambda x, W, b: einsum("nk,op->nopk", x, eye(len(W))), d * x)
library("linear", "b", lambda x, W, b: repeated(eye(len(W)), len(x)), d)
library("matmul", "x", lambda x, z: einsum("nkm,nj,pl->npmjlk", z, eye(len(x)), eye(x.shape[1])), d * e * z)
library("matmul", "z", lambda x, z: einsum("npk,nj,ml->npmjkl", x, eye(len(x)), eye(z.shape[2])), d * e * x)
library("dot", "x", lambda x, z: rows(z), d * z)
library("bilinear", "x", lambda x, z, W, b: each(einsum("ode,ne->nod", W, z), 1), d * w * z)
library("bilinear", "z", lambda x, z, W, b: each(einsum("ode,nd->noe", W, x), 1), d * w * x)
library("bilinear", "W", lambda x, z, W, b: einsum("nd,ne,op->nopde", x, z, eye(len(W))), d * x * z)
library("quadratic", "x", lambda x, A: rows(x @ (A + A.T)), d * x * (a + b))
library("quadratic", "A", lambda x, A: einsum("ni,nj->nij", x, x), x * y)
library("multiply", "x", lambda x, z: np.diag(z), d * z)
library("add", "x", lambda x, z: eye(len(x)), d)
library("dropout", "x", lambda x, mask, rate: np.diag(mask / (1 - rate)), d * x / (1 - r))
library(
    "squared_distance", "x",
    lambda x, z: each(2 * (x[:, None] - z[None]), 1), 2 * d * (x - z),
)  # fmt: skip
library(
    "squared_distance", "z",
    lambda x, z: 2 * einsum("nmk,mj->nmjk", z[None] - x[:, None], eye(len(z))), 2 * d * (z - x),
)  # fmt: skip


def cosine_block(x: Array, z: Array) -> Array:
    nx, nz = np.linalg.norm(x, axis=-1), np.linalg.norm(z, axis=-1)
    y = (x * z).sum(-1) / nx / nz
    return rows(z / (nx * nz)[:, None] - (y / nx**2)[:, None] * x)


library("cosine_similarity", "x", cosine_block, d * (z / (a * b) - y * x / a**2))
library("cosine_similarity", "z", lambda x, z: cosine_block(z, x), d * (x / (a * b) - y * z / b**2))

# Attention


def weights(q: Array, k: Array, future: Array) -> Array:
    scores = einsum("bnk,bmk->bnm", q, k) / np.sqrt(q.shape[-1])
    return softmax(np.where(future, -np.inf, scores), -1)


def attention_blocks(q: Array, k: Array, v: Array, *, causal: bool = False) -> dict[str, Array]:
    future = np.triu(np.ones((q.shape[1], k.shape[1]), bool), 1) & causal
    P = weights(q, k, future)
    o = einsum("bnm,bme->bne", P, v)
    change = einsum("bnm,bnme->bnme", P, v[:, None] - o[:, :, None]) / np.sqrt(q.shape[-1])
    B, M, E = len(q), eye(q.shape[1]), eye(v.shape[2])
    return {
        "q": einsum("bnme,bmk,ba,nj->bneajk", change, k, eye(B), M),
        "k": einsum("bnme,bnk,ba->bneamk", change, q, eye(B)),
        "v": einsum("bnm,ba,ef->bneamf", P, eye(B), E),
    }


library("attention", "q", lambda q, k, v: attention_blocks(q, k, v)["q"], d * e * k * p * (v - y) / sqrt(D))
library("attention", "k", lambda q, k, v: attention_blocks(q, k, v)["k"], d * q * p * (v - y) / sqrt(D))
library("attention", "v", lambda q, k, v: attention_blocks(q, k, v)["v"], d * e * p)
CAUSAL = sp.Piecewise((p, c > 0), (0, True))  # [m ≤ n] p
library(
    "causal_attention", "q", lambda q, k, v: attention_blocks(q, k, v, causal=True)["q"],
    d * e * k * p * (v - y) / sqrt(D),
)  # fmt: skip
library(
    "causal_attention", "k", lambda q, k, v: attention_blocks(q, k, v, causal=True)["k"],
    d * q * CAUSAL * (v - y) / sqrt(D),
)  # fmt: skip
library("causal_attention", "v", lambda q, k, v: attention_blocks(q, k, v, causal=True)["v"], d * e * CAUSAL)

# Losses


def one_hot(labels: Array, count: int) -> Array:
    return eye(count)[labels]


def pinball(difference: Array, delta: float) -> Array:
    return np.clip(difference, -delta, delta)


library("mse", "x", lambda x, z: 2 * (x - z) / len(x), 2 * (x - z) / N)
library("l1", "x", lambda x, z: np.sign(x - z) / len(x), sp.sign(x - z) / N)
library(
    "huber", "x", lambda x, z, delta: pinball(x - z, delta) / len(x),
    sp.Piecewise((d, sp.Abs(d) <= e), (e * sp.sign(d), True)) / N,
)  # fmt: skip
library(
    "smooth_l1", "x", lambda x, z, beta: pinball((x - z) / beta, 1) / len(x),
    sp.Piecewise((d / e, sp.Abs(d) < e), (sp.sign(d), True)) / N,
)  # fmt: skip
library("log_cosh", "x", lambda x, z: np.tanh(x - z) / len(x), sp.tanh(x - z) / N)
library("bce_with_logits", "x", lambda x, z: (expit(x) - z) / len(x), (sigma(x) - z) / N)
library("bce_with_logits", "z", lambda x, z: -x / len(x), -x / N)
library("hinge", "x", lambda x, z: -z * (x * z < 1) / len(x), -z * step(1 - x * z) / N)
library(
    "squared_hinge", "x", lambda x, z: -2 * z * np.maximum(1 - x * z, 0) / len(x), -2 * z * sp.Max(0, 1 - x * z) / N
)
library(
    "cross_entropy", "x", lambda x, labels: (softmax(x, -1) - one_hot(labels, x.shape[1])) / len(x),
    (exp(x - y) - d) / N,
)  # fmt: skip
library(
    "soft_cross_entropy", "x", lambda x, z: (softmax(x, -1) - z) / len(x),
    (exp(x - y) - z) / N,
)  # fmt: skip
library(
    "smoothed_cross_entropy", "x",
    lambda x, labels, smoothing: (
        softmax(x, -1) - (1 - smoothing) * one_hot(labels, x.shape[1]) - smoothing / x.shape[1]
    ) / len(x),
    (exp(x - y) - (1 - s) * d - s / c) / N,
)  # fmt: skip
library("nll", "log_p", lambda log_p, labels: -one_hot(labels, log_p.shape[1]) / len(log_p), -d / N)
library("kl_divergence", "log_q", lambda log_q, p: -p / len(p), sp.Piecewise((-p, p > 0), (0, True)) / N)
library(
    "kl_divergence", "p", lambda log_q, p: (np.log(p) - log_q + 1) / len(p),
    sp.Piecewise((sp.log(p) - q + 1, p > 0), (0, True)) / N,
)  # fmt: skip
library("poisson_nll", "x", lambda x, z: (np.exp(x) - z) / len(x), (exp(x) - z) / N)
library("gaussian_nll", "x", lambda x, z, variance: (x - z) / variance / len(x), (x - z) / (v * N))
library(
    "gaussian_nll", "variance", lambda x, z, variance: (1 / variance - (x - z) ** 2 / variance**2) / (2 * len(x)),
    (1 - (x - z) ** 2 / v) / (2 * v * N),
)  # fmt: skip

# Activations


def gelu_tanh_slope(x: Array) -> Array:
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2)


def mish_slope(x: Array) -> Array:
    t = np.tanh(np.logaddexp(0, x))
    return t + x * (1 - t**2) * expit(x)


def normal(x: Array) -> Array:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


PHI = (1 + sp.erf(x / sqrt(2))) / 2
TURN = sqrt(2 / sp.pi)
INNER = sp.tanh(TURN * (x + a * x**3))
library("sigmoid", "x", lambda x: np.diag(expit(x) * expit(-x)), d * y * (1 - y))
library("log_sigmoid", "x", lambda x: np.diag(expit(-x)), d * sigma(-x))
library("tanh", "x", lambda x: np.diag(1 / np.cosh(x) ** 2), d * (1 - y**2))
library("softplus", "x", lambda x: np.diag(expit(x)), d * sigma(x))
library("relu", "x", lambda x: np.diag(x > 0) * 1.0, d * step(x))
library("squared_relu", "x", lambda x: np.diag(2 * np.maximum(x, 0)), 2 * d * sp.Max(0, x))
library(
    "elu", "x", lambda x, alpha: np.diag(np.where(x > 0, 1, alpha * np.exp(x))),
    d * sp.Piecewise((1, x > 0), (a * exp(x), True)),
)  # fmt: skip
library(
    "leaky_relu", "x", lambda x, negative_slope: np.diag(np.where(x > 0, 1, negative_slope)),
    d * sp.Piecewise((1, x > 0), (a, True)),
)  # fmt: skip
library("prelu", "slope", lambda x, slope: np.minimum(x, 0), sp.Piecewise((0, x > 0), (x, True)))
library("silu", "x", lambda x: np.diag(expit(x) * (1 + x * expit(-x))), d * sigma(x) * (1 + x * (1 - sigma(x))))
library(
    "quick_gelu", "x", lambda x: np.diag(expit(1.702 * x) * (1 + 1.702 * x * expit(-1.702 * x))),
    d * sigma(a * x) * (1 + a * x * (1 - sigma(a * x))),
)  # fmt: skip
library(
    "gelu", "x", lambda x: np.diag(special.ndtr(x) + x * normal(x)),
    d * (PHI + x * exp(-(x**2) / 2) / sqrt(2 * sp.pi)),
)  # fmt: skip
library(
    "gelu_tanh", "x", lambda x: np.diag(gelu_tanh_slope(x)),
    d * ((1 + INNER) / 2 + x * (1 - INNER**2) * TURN * (1 + 3 * a * x**2) / 2),
)  # fmt: skip
SOFTPLUS = functions.Softplus(x)
library(
    "mish", "x", lambda x: np.diag(mish_slope(x)), d * (sp.tanh(SOFTPLUS) + x * sigma(x) * (1 - sp.tanh(SOFTPLUS) ** 2))
)
library("softsign", "x", lambda x: np.diag(1 / (1 + abs(x)) ** 2), d / (1 + sp.Abs(x)) ** 2)
library("tanh_shrink", "x", lambda x: np.diag(np.tanh(x) ** 2), d * (x - y) ** 2)

# Gates, joins, embeddings, pools, rotations


def halves(x: Array) -> tuple[Array, Array]:
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]


def gated(slopes: tuple[Array, Array]) -> Array:
    """[diag(first), diag(second)] of each row."""
    return each(np.concatenate([one[:, :, None] * eye(one.shape[1]) for one in slopes], -1), 1)


def glu_block(x: Array) -> Array:
    value, gate = halves(x)
    return gated((expit(gate), value * expit(gate) * expit(-gate)))


def swiglu_block(x: Array) -> Array:
    gate, value = halves(x)
    return gated((value * expit(gate) * (1 + gate * expit(-gate)), gate * expit(gate)))


library("glu", "x", glu_block, d * sigma(y) * (e + f * x * (1 - sigma(y))))
library("swiglu", "x", swiglu_block, d * sigma(x) * (f * x + e * y * (1 + x * (1 - sigma(x)))))
library("concat", "x", lambda x, z: at_own_row(eye(x.shape[1] + z.shape[1], x.shape[1]), len(x)), d * e)
library(
    "concat", "z",
    lambda x, z: at_own_row(eye(x.shape[1] + z.shape[1], z.shape[1], -x.shape[1]), len(x)), d * e,
)  # fmt: skip
library(
    "embedding", "table", lambda ids, table: einsum("nv,de->ndve", eye(len(table))[ids], eye(table.shape[1])), d * e
)
library(
    "embedding_bag", "table",
    lambda ids, table: einsum("nlv,de->ndve", eye(len(table))[ids], eye(table.shape[1])), d * e,
)  # fmt: skip
library(
    "mean_pool",
    "x",
    lambda x: einsum("t,nm,de->ndmte", np.ones(x.shape[1]) / x.shape[1], eye(len(x)), eye(x.shape[2])),
    d * e / t,
)
library("sum_pool", "x", lambda x: einsum("t,nm,de->ndmte", np.ones(x.shape[1]), eye(len(x)), eye(x.shape[2])), d * e)
library(
    "max_pool", "x",
    lambda x: einsum("ndt,nm,de->ndmte", eye(x.shape[1])[x.argmax(1)], eye(len(x)), eye(x.shape[2])), d * e * f,
)  # fmt: skip


def rope_block(x: Array, base: float, offset: int) -> Array:
    N, T, width = x.shape
    pairs = width // 2
    angle = (np.arange(T) + offset)[:, None] * base ** (-np.arange(pairs) / pairs)
    whole = np.zeros((T, width, width))
    for t in range(T):
        for pair in range(pairs):
            cos, sin = np.cos(angle[t, pair]), np.sin(angle[t, pair])
            whole[t, 2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = [[cos, -sin], [sin, cos]]
    return einsum("tij,nm,ts->ntimsj", whole, eye(N), eye(T))


ROTATED = d * e * (sp.cos(t) * a * b + sp.cos(t) * p * q + sp.sin(t) * r * s - sp.sin(t) * v * w)
library("rope", "x", rope_block, ROTATED)

# ------------------------------------------------------------------------------------- layers that are written here

SN, SM, SD, SE = jc.size("N M D E")
n, m = jc.index("n", SN), jc.index("m", SM)
i, j, l = jc.index("i", SD), jc.index("j", SD), jc.index("l", SE)  # noqa: E741 - beside k
X, Z, Y = jc.tensor("x z y", SN, SD)
other = jc.tensor("z", SM, SD)
per_row = jc.tensor("y", SN)
A, B = jc.tensor("A", SM, SD), jc.tensor("b", SM)
SMALL = {"N": 3, "D": 4}
PAIRS = {"N": 3, "M": 2, "D": 4}


def layer(name: str, inputs: Any, output: Any, *equations: Any, scalars: Any = ()) -> jc.Layer:
    made = [sp.Eq(left, right) for left, right in equations]
    return jc.Layer(name, inputs=inputs, outputs=[output], equations=made, scalars=scalars)


def elementwise(name: str, body: Any, slope: Block, entry: sp.Expr, **words: Any) -> None:
    u, out = jc.tensor("x y", SN)
    one = layer(name, [u], out, (out[n], body(u[n])))
    written(one, "x", {"N": 5}, lambda x: np.diag(slope(x)), entry, **words)


POSITIVE = {"x": lambda rng, shape: rng.uniform(0.5, 2.0, shape)}
elementwise("exponential", sp.exp, np.exp, d * y)
elementwise("logarithm", sp.log, lambda x: 1 / x, d / x, draw=POSITIVE)
elementwise("sine", sp.sin, np.cos, d * sp.cos(x))
elementwise("cosine", sp.cos, lambda x: -np.sin(x), -d * sp.sin(x))
elementwise("square_root", sp.sqrt, lambda x: 0.5 / np.sqrt(x), d / (2 * y), draw=POSITIVE)
elementwise("reciprocal", lambda u: 1 / u, lambda x: -1 / x**2, -d * y**2, draw=POSITIVE)
elementwise("power", lambda u: u**3, lambda x: 3 * x**2, 3 * d * x**2)
elementwise("gaussian", lambda u: sp.exp(-(u**2)), lambda x: -2 * x * np.exp(-(x**2)), -2 * d * x * y)
elementwise("arctangent", sp.atan, lambda x: 1 / (1 + x**2), d / (1 + x**2))
elementwise(
    "logit", lambda u: sp.log(u / (1 - u)), lambda x: 1 / (x * (1 - x)), d / (x * (1 - x)),
    draw={"x": lambda rng, shape: rng.uniform(0.1, 0.9, shape)},
)  # fmt: skip

squared_norm = layer("squared_norm", [X], per_row, (per_row[n], sp.Sum(X[n, i] ** 2, i)))
written(squared_norm, "x", SMALL, lambda x: rows(2 * x), 2 * d * x)

euclidean_norm = layer("euclidean_norm", [X], per_row, (per_row[n], sp.sqrt(sp.Sum(X[n, i] ** 2, i))))
written(euclidean_norm, "x", SMALL, lambda x: rows(x / np.linalg.norm(x, axis=1, keepdims=True)), d * x / y)

U, OUT = jc.tensor("x", SD), jc.tensor("y")
residual = jc.tensor("r", SM)
least_squares = jc.Layer(
    "least_squares", inputs=[A, U, B], outputs=[OUT],
    equations=[sp.Eq(residual[m], sp.Sum(A[m, i] * U[i], i) - B[m]), sp.Eq(OUT, sp.Sum(residual[m] ** 2, m))],
)  # fmt: skip
LEAST = {"M": 5, "D": 3}
written(least_squares, "x", LEAST, lambda A, x, b: 2 * (A @ x - b) @ A, 2 * a * r)
written(least_squares, "A", LEAST, lambda A, x, b: 2 * np.outer(A @ x - b, x), 2 * r * x)
written(least_squares, "b", LEAST, lambda A, x, b: -2 * (A @ x - b), -2 * r)

distance = layer("distance", [X, Z], per_row, (per_row[n], sp.sqrt(sp.Sum((X[n, i] - Z[n, i]) ** 2, i))))
written(
    distance, "x", SMALL, lambda x, z: rows((x - z) / np.linalg.norm(x - z, axis=1, keepdims=True)), d * (x - z) / y
)

S = jc.tensor("S", SD, SD)
mahalanobis = layer(
    "mahalanobis", [X, Z, S], per_row,
    (per_row[n], sp.Sum((X[n, i] - Z[n, i]) * S[i, j] * (X[n, j] - Z[n, j]), i, j)),
)  # fmt: skip
written(mahalanobis, "x", SMALL, lambda x, z, S: rows((x - z) @ (S + S.T)), d * (a + b) * (x - z))
written(mahalanobis, "S", SMALL, lambda x, z, S: einsum("ni,nj->nij", x - z, x - z), (a - b) * (x - z))

K = jc.tensor("K", SN, SM)
gamma, shift = jc.scalar("gamma"), jc.scalar("c")
dot = sp.Sum(X[n, i] * other[m, i], i)
rbf = layer(
    "rbf_kernel", [X, other], K, (K[n, m], sp.exp(-gamma * sp.Sum((X[n, i] - other[m, i]) ** 2, i))), scalars=[gamma]
)
KERNEL = {"gamma": 0.3}


def rbf_values(x: Array, z: Array, gamma: float) -> Array:
    return np.exp(-gamma * ((x[:, None] - z[None]) ** 2).sum(-1))


written(
    rbf, "x", PAIRS,
    lambda x, z, gamma: each(-2 * gamma * (x[:, None] - z[None]) * rbf_values(x, z, gamma)[..., None], 1),
    2 * d * g * k * (z - x), scalars=KERNEL,
)  # fmt: skip
written(
    rbf, "z", PAIRS,
    lambda x, z, gamma: einsum(
        "nmk,nm,ml->nmlk", 2 * gamma * (x[:, None] - z[None]), rbf_values(x, z, gamma), eye(len(z))
    ),
    2 * d * g * k * (x - z), scalars=KERNEL,
)  # fmt: skip
polynomial = layer("polynomial_kernel", [X, other], K, (K[n, m], (dot + shift) ** 3), scalars=[shift])
written(
    polynomial, "x", PAIRS,
    lambda x, z, c: each(3 * (x @ z.T + c)[..., None] ** 2 * z[None], 1), 3 * d * z * (c + x * w) ** 2,
    scalars={"c": 0.7},
)  # fmt: skip
sigmoid_kernel = layer("sigmoid_kernel", [X, other], K, (K[n, m], sp.tanh(gamma * dot + shift)), scalars=[gamma, shift])
written(
    sigmoid_kernel, "x", PAIRS,
    lambda x, z, gamma, c: each(gamma * z[None] / np.cosh(gamma * (x @ z.T) + c)[..., None] ** 2, 1),
    d * g * z * (1 - k**2), scalars={"gamma": 0.3, "c": 0.7},
)  # fmt: skip
linear_kernel = layer("linear_kernel", [X, other], K, (K[n, m], dot))
written(linear_kernel, "x", PAIRS, lambda x, z: at_own_row(z, len(x)), d * z)

# mixture of experts: the gate's softmax times what the experts say
gate, share = jc.tensor("s p", SN, SE)
h = jc.index("h", SE)
experts, mixed = jc.tensor("f", SN, SE, SD), jc.tensor("y", SN, SD)
mixture = jc.Layer(
    "mixture", inputs=[gate, experts], outputs=[mixed],
    equations=[
        sp.Eq(share[n, l], sp.exp(gate[n, l]) / sp.Sum(sp.exp(gate[n, h]), h)),
        sp.Eq(mixed[n, i], sp.Sum(share[n, l] * experts[n, l, i], l)),
    ],
)  # fmt: skip
MIXTURE = {"N": 3, "E": 4, "D": 2}


def mixture_gate(s: Array, f: Array) -> Array:
    P = softmax(s, -1)
    y = einsum("ne,ned->nd", P, f)
    return each(einsum("ne,ned->nde", P, f - y[:, None]), 1)


written(mixture, "s", MIXTURE, mixture_gate, d * p * (f - y))
written(mixture, "f", MIXTURE, lambda s, f: each(einsum("ne,dj->ndej", softmax(s, -1), eye(f.shape[2])), 1), d * e * p)

u1, v1, outer = jc.tensor("u", SN), jc.tensor("v", SM), jc.tensor("y", SN, SM)
outer_product = layer("outer_product", [u1, v1], outer, (outer[n, m], u1[n] * v1[m]))
OUTER = {"N": 3, "M": 4}
written(outer_product, "u", OUTER, lambda u, v: einsum("m,nj->nmj", v, eye(len(u))), d * v)
written(outer_product, "v", OUTER, lambda u, v: einsum("n,mj->nmj", u, eye(len(v))), d * u)

mean_row = layer("mean", [X], per_row, (per_row[n], sp.Sum(X[n, i], i) / SD))
written(mean_row, "x", SMALL, lambda x: rows(np.ones(x.shape) / x.shape[1]), d / D)
middle = jc.tensor("mean", SN)
variance = jc.Layer(
    "variance", inputs=[X], outputs=[per_row],
    equations=[
        sp.Eq(middle[n], sp.Sum(X[n, i], i) / SD),
        sp.Eq(per_row[n], sp.Sum((X[n, i] - middle[n]) ** 2, i) / SD),
    ],
)  # fmt: skip
written(variance, "x", SMALL, lambda x: rows(2 * (x - x.mean(1, keepdims=True)) / x.shape[1]), 2 * d * (x - y) / D)

centred = jc.Layer(
    "centring", inputs=[X], outputs=[Y],
    equations=[sp.Eq(middle[n], sp.Sum(X[n, i], i) / SD), sp.Eq(Y[n, i], X[n, i] - middle[n])],
)  # fmt: skip
written(centred, "x", SMALL, lambda x: at_own_row(eye(x.shape[1]) - 1 / x.shape[1], len(x)), d * (e - 1 / D))

total = jc.tensor("t", SN)
shares = jc.Layer(
    "sum_to_one", inputs=[X], outputs=[Y],
    equations=[sp.Eq(total[n], sp.Sum(X[n, i], i)), sp.Eq(Y[n, i], X[n, i] / total[n])],
)  # fmt: skip


def sum_to_one_block(x: Array) -> Array:
    t = x.sum(1)[:, None, None]
    y = x[:, :, None] / t
    return each((eye(x.shape[1]) - y) / t, 1)


written(shares, "x", SMALL, sum_to_one_block, d * (e - y) / t, draw=POSITIVE)

temperature = jc.scalar("tau")
cool = layer(
    "softmax_with_temperature", [X], Y,
    (Y[n, i], sp.exp(X[n, i] / temperature) / sp.Sum(sp.exp(X[n, j] / temperature), j)), scalars=[temperature],
)  # fmt: skip
written(cool, "x", SMALL, lambda x, tau: softmax_block(x / tau) / tau, d * y * (e - z) / t, scalars={"tau": 0.7})

past = jc.index("j", i + 1)
cumulative = layer("cumulative_sum", [X], Y, (Y[n, i], sp.Sum(X[n, past], past)))
written(
    cumulative, "x", SMALL, lambda x: at_own_row(np.tril(np.ones((x.shape[1],) * 2)), len(x)),
    d * sp.Piecewise((1, c > 0), (0, True)),
)  # fmt: skip

rayleigh_top, rayleigh_norm = jc.tensor("a", SN), jc.tensor("s", SN)
rayleigh = jc.Layer(
    "rayleigh_quotient", inputs=[X, S], outputs=[per_row],
    equations=[
        sp.Eq(rayleigh_norm[n], sp.Sum(X[n, i] ** 2, i)),
        sp.Eq(per_row[n], sp.Sum(X[n, i] * S[i, j] * X[n, j], i, j) / rayleigh_norm[n]),
    ],
)  # fmt: skip


def rayleigh_block(x: Array, S: Array) -> Array:
    squared = (x**2).sum(1)[:, None]
    quotient = einsum("ni,ij,nj->n", x, S, x)[:, None] / squared
    return rows((x @ (S + S.T) - 2 * quotient * x) / squared)


written(rayleigh, "x", SMALL, rayleigh_block, d * ((a + b) * x - 2 * y * z) / s)

pair, turned, angle = jc.tensor("x", SN, 2), jc.tensor("y", SN, 2), jc.tensor("theta", SN)
cos, sin = sp.cos(angle[n]), sp.sin(angle[n])
place = jc.index("o", 2)
first, second = (sp.KroneckerDelta(place, one) for one in (0, 1))
rotation = layer(
    "rotation",
    [pair, angle],
    turned,
    (
        turned[n, place],
        first * (cos * pair[n, 0] - sin * pair[n, 1]) + second * (sin * pair[n, 0] + cos * pair[n, 1]),
    ),
)


def rotation_x(x: Array, theta: Array) -> Array:
    return each(np.moveaxis(np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]]), 2, 0), 1)


written(rotation, "x", {"N": 3}, rotation_x, ROTATED)
written(
    rotation, "theta", {"N": 3},
    lambda x, theta: each(np.stack([
        -np.sin(theta) * x[:, 0] - np.cos(theta) * x[:, 1], np.cos(theta) * x[:, 0] - np.sin(theta) * x[:, 1]
    ], 1), 1),
    d * (a * (-sp.sin(t) * x - sp.cos(t) * y) + b * (sp.cos(t) * x - sp.sin(t) * y)),
)  # fmt: skip

"""The library's layers once more, in NumPy and SciPy: what tests/test_layers.py compares the equations with.

A case is the sizes (by the user's names), what must be drawn with care, and the formula. It takes the inputs in order,
then scalars by keyword, and returns the outputs as a tuple. Nothing here reads jaccomp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import signal, special

Array = Any
Formula = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """Sizes, the formula, the scalars to pass, and the inputs that are not standard normal: name -> rng, shape."""

    sizes: Mapping[str, int]
    formula: Formula
    scalars: Mapping[str, Any] = field(default_factory=dict)
    draw: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = field(default_factory=dict)


def ids_below(stop: int) -> Callable[[np.random.Generator, tuple[int, ...]], Array]:
    return lambda rng, shape: rng.integers(0, stop, shape)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.2, 2.0, shape)


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.choice([-1.0, 1.0], shape)


def bits(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(0, 2, shape).astype(float)


def distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


# Activations


def elementwise(formula: Formula, **scalars: Any) -> Case:
    return Case({"N": 23}, formula, scalars, {"x": lambda rng, shape: 3 * rng.standard_normal(shape)})


ACTIVATIONS = {
    "relu": elementwise(lambda x: np.maximum(x, 0)),
    "relu6": elementwise(lambda x: np.clip(2 * x, 0, 12) / 2),
    "squared_relu": elementwise(lambda x: np.where(x > 0, x * x, 0)),
    "leaky_relu": elementwise(lambda x, negative_slope: np.where(x > 0, x, negative_slope * x), negative_slope=0.07),
    "prelu": elementwise(lambda x, slope: np.where(x > 0, x, slope * x)),
    "elu": elementwise(lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)), alpha=1.3),
    "selu": elementwise(
        lambda x: 1.0507009873554804934 * np.where(x > 0, x, 1.6732632423543772848 * np.expm1(x)),
    ),
    "celu": elementwise(lambda x, alpha: np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)), alpha=1.7),
    "gelu": elementwise(lambda x: x * special.ndtr(x)),
    "gelu_tanh": elementwise(lambda x: x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": elementwise(lambda x: x * special.expit(1.702 * x)),
    "sigmoid": elementwise(special.expit),
    "log_sigmoid": elementwise(special.log_expit),
    "silu": elementwise(lambda x: x * special.expit(x)),
    "mish": elementwise(lambda x: x * np.tanh(np.logaddexp(0, x))),
    "softplus": elementwise(lambda x: np.logaddexp(0, x)),
    "softsign": elementwise(lambda x: x / (1 + np.abs(x))),
    "tanh": elementwise(np.tanh),
    "tanh_shrink": elementwise(lambda x: x - np.tanh(x)),
    "hardtanh": elementwise(lambda x, low, high: np.clip(x, low, high), low=-0.7, high=1.9),
    "hardsigmoid": elementwise(lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    "hardswish": elementwise(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "soft_shrink": elementwise(lambda x, threshold: np.sign(x) * np.maximum(np.abs(x) - threshold, 0), threshold=0.6),
    "hard_shrink": elementwise(lambda x, threshold: x * (np.abs(x) > threshold), threshold=0.6),
}

# Softmaxes and gates

SOFTMAXES = {
    "softmax": Case({"N": 3, "D": 5}, lambda x: special.softmax(x, axis=-1)),
    "softmin": Case({"N": 3, "D": 5}, lambda x: special.softmax(-x, axis=-1)),
    "log_softmax": Case({"N": 3, "D": 5}, lambda x: special.log_softmax(x, axis=-1)),
    "logsumexp": Case({"N": 3, "D": 5}, lambda x: special.logsumexp(x, axis=-1)),
}


def gated(gate: Formula) -> Case:
    return Case({"N": 3, "H": 4}, lambda x: gate(*np.split(x, 2, axis=-1)))


GATES = {
    "glu": gated(lambda a, b: a * special.expit(b)),
    "reglu": gated(lambda a, b: np.maximum(a, 0) * b),
    "geglu": gated(lambda a, b: a * special.ndtr(a) * b),
    "swiglu": gated(lambda a, b: a * special.expit(a) * b),
}

# Products


def cosine(x: Array, z: Array) -> Array:
    return np.sum(x * z, -1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(z, axis=-1)


PRODUCTS = {
    "linear": Case({"N": 3, "D": 4, "O": 5}, lambda x, W, b: x @ W.T + b),
    "bilinear": Case({"N": 3, "D": 4, "E": 2, "O": 5}, lambda x, z, W, b: np.einsum("nd,ode,ne->no", x, W, z) + b),
    "quadratic": Case({"N": 3, "D": 4}, lambda x, A: np.array([row @ A @ row for row in x])),
    "matmul": Case({"N": 2, "P": 3, "D": 4, "M": 5}, lambda x, z: x @ z),
    "dot": Case({"N": 3, "D": 4}, lambda x, z: (x * z).sum(-1)),
    "cosine_similarity": Case({"N": 3, "D": 4}, cosine),
    "squared_distance": Case({"N": 3, "D": 4, "M": 5}, lambda x, z: np.linalg.norm(x[:, None] - z[None], axis=-1) ** 2),
}

# Normalisations


def standardised(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def channels(values: Array) -> Array:
    return values[:, None, None]


def batchnorm(x: Array, g: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    y = channels(g) * standardised(x, (0, 2, 3), eps) + channels(bias)
    return y, x.mean((0, 2, 3)), x.var((0, 2, 3))


def batchnorm_inference(x: Array, g: Array, bias: Array, mean: Array, var: Array, eps: float) -> Array:
    return channels(g) * (x - channels(mean)) / np.sqrt(channels(var) + eps) + channels(bias)


def groupnorm(x: Array, g: Array, bias: Array, eps: float) -> Array:
    grouped = x.reshape(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:])
    return channels(g) * standardised(grouped, (2, 3, 4), eps).reshape(x.shape) + channels(bias)


IMAGE = {"N": 3, "C": 2, "H": 4, "W": 5}
NORMALISATIONS = {
    "layernorm": Case({"N": 3, "D": 5}, lambda x, g, bias, eps: g * standardised(x, (1,), eps) + bias, {"eps": 1e-2}),
    "rmsnorm": Case(
        {"N": 3, "D": 5}, lambda x, g, eps: g * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps), {"eps": 1e-2}
    ),
    "l2_norm": Case({"N": 3, "D": 5}, lambda x: np.linalg.norm(x, axis=-1)),
    "l2_normalize": Case({"N": 3, "D": 5}, lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)),
    "weightnorm": Case({"O": 3, "D": 5}, lambda v, g: (g / np.linalg.norm(v, axis=-1))[:, None] * v),
    "scale_shift": Case({"N": 3, "D": 5}, lambda x, g, bias: x * g + bias),
    "batchnorm": Case(IMAGE, batchnorm, {"eps": 1e-2}),
    "batchnorm_inference": Case(IMAGE, batchnorm_inference, {"eps": 1e-2}, {"var": positive}),
    "instancenorm": Case(
        IMAGE,
        lambda x, g, bias, eps: channels(g) * standardised(x, (2, 3), eps) + channels(bias),
        {"eps": 1e-2},
    ),
    "groupnorm": Case({"N": 2, "G": 2, "K": 3, "H": 2, "W": 3}, groupnorm, {"eps": 1e-2}),
}

# Attention and embeddings


def attention(q: Array, k: Array, v: Array, mask: Array | float = 0.0) -> Array:
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + mask
    return special.softmax(scores, axis=-1) @ v


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    future = np.triu(np.full((q.shape[1], q.shape[1]), -np.inf), 1)
    return attention(q, k, v, future)


def rope(x: Array, base: float, offset: int) -> Array:
    """As multiplication of complex numbers by unit ones."""
    pairs = x.shape[-1] // 2
    frequency = base ** (-np.arange(pairs) / pairs)
    turn = np.exp(1j * (np.arange(x.shape[1]) + offset)[:, None] * frequency)
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * turn
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


QUERIES = {"B": 2, "N": 4, "M": 5, "D": 3, "E": 2}
ATTENTIONS = {
    "attention": Case(QUERIES, attention),
    "masked_attention": Case(QUERIES, attention),
    "causal_attention": Case({"B": 2, "N": 4, "D": 3, "E": 2}, causal_attention),
}
EMBEDDINGS = {
    "embedding": Case({"N": 6, "V": 4, "D": 3}, lambda ids, table: table[ids], draw={"ids": ids_below(4)}),
    "embedding_bag": Case(
        {"N": 3, "L": 5, "V": 4, "D": 2}, lambda ids, table: table[ids].sum(1), draw={"ids": ids_below(4)}
    ),
    "positional_embedding": Case({"N": 2, "T": 3, "D": 4}, lambda x, table: x + table),
    "rope": Case({"N": 2, "T": 5, "P": 3}, rope, {"base": 100.0, "offset": 7}),
}

# Convolutions


def convolve(x: Array, weight: Array, stride: int, padding: int, dilation: int) -> Array:
    """[N, C, *space] by [O, C, *taps], each pair of channels by SciPy, over any number of spatial axes."""
    rank = x.ndim - 2
    taps = [dilation * (k - 1) + 1 for k in weight.shape[2:]]
    spread = np.zeros((*weight.shape[:2], *taps))
    spread[(..., *(slice(None, None, dilation),) * rank)] = weight
    padded = np.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * rank])
    rows = [
        [sum(signal.correlate(one[c], kernel[c], "valid", "direct") for c in range(len(one))) for kernel in spread]
        for one in padded
    ]
    return np.array(rows)[(..., *(slice(None, None, stride),) * rank)]


def conv1d(x: Array, weight: Array, b: Array, **geometry: int) -> Array:
    return convolve(x, weight, **geometry) + b[:, None]


def conv2d(x: Array, weight: Array, b: Array, **geometry: int) -> Array:
    return convolve(x, weight, **geometry) + channels(b)


def depthwise_conv2d(x: Array, weight: Array, b: Array, **geometry: int) -> Array:
    each = [convolve(x[:, c : c + 1], weight[None, c : c + 1], **geometry) for c in range(x.shape[1])]
    return np.concatenate(each, axis=1) + channels(b)


def causal_conv1d(x: Array, weight: Array, b: Array, dilation: int) -> Array:
    past = np.pad(x, [(0, 0), (0, 0), (dilation * (weight.shape[2] - 1), 0)])
    return convolve(past, weight, 1, 0, dilation) + b[:, None]


def transposed(x: Array, weight: Array, stride: int, padding: int, dilation: int) -> Array:
    """Every source spreads its kernel over the target, by loops."""
    rank = x.ndim - 2
    full = [
        (length - 1) * stride + dilation * (taps - 1) + 1
        for length, taps in zip(x.shape[2:], weight.shape[2:], strict=True)
    ]
    y = np.zeros((x.shape[0], weight.shape[1], *full))
    for place in np.ndindex(*x.shape[2:]):
        for tap in np.ndindex(*weight.shape[2:]):
            at = tuple(stride * p + dilation * t for p, t in zip(place, tap, strict=True))
            y[(slice(None), slice(None), *at)] += x[(slice(None), slice(None), *place)] @ weight[(..., *tap)]
    return y[(..., *(slice(padding, length - padding) for length in full[:rank]))]


def conv_transpose1d(x: Array, weight: Array, b: Array, **geometry: int) -> Array:
    return transposed(x, weight, **geometry) + b[:, None]


def conv_transpose2d(x: Array, weight: Array, b: Array, **geometry: int) -> Array:
    return transposed(x, weight, **geometry) + channels(b)


GEOMETRY = {"stride": 2, "padding": 2, "dilation": 2}
CONVOLUTIONS = {
    "conv1d": Case({"N": 2, "C": 3, "O": 2, "L": 9, "K": 3}, conv1d, GEOMETRY),
    "conv2d": Case({"N": 2, "C": 3, "O": 2, "H": 7, "W": 8, "KH": 3, "KW": 2}, conv2d, GEOMETRY),
    "depthwise_conv2d": Case({"N": 2, "C": 3, "H": 7, "W": 8, "KH": 3, "KW": 2}, depthwise_conv2d, GEOMETRY),
    "causal_conv1d": Case({"N": 2, "C": 3, "O": 2, "L": 9, "K": 3}, causal_conv1d, {"dilation": 2}),
    "conv_transpose1d": Case({"N": 2, "C": 3, "O": 2, "L": 4, "K": 3}, conv_transpose1d, GEOMETRY),
    "conv_transpose2d": Case(
        {"N": 2, "C": 2, "O": 3, "H": 3, "W": 4, "KH": 3, "KW": 2}, conv_transpose2d, GEOMETRY | {"padding": 1}
    ),
}

# Pooling


def windows(x: Array, outside: float, rank: int, kernel: int, stride: int, padding: int) -> Array:
    padded = np.pad(x, [(0, 0), *[(padding, padding)] * rank], constant_values=outside)
    seen = sliding_window_view(padded, (kernel,) * rank, axis=tuple(range(1, 1 + rank)))
    return seen[(slice(None), *(slice(None, None, stride),) * rank)]


WINDOW = {"kernel": 3, "stride": 2, "padding": 1}
POOLINGS = {
    "maxpool1d": Case({"N": 3, "L": 8}, lambda x, **g: windows(x, -np.inf, 1, **g).max(-1), WINDOW),
    "maxpool2d": Case({"N": 3, "H": 6, "W": 7}, lambda x, **g: windows(x, -np.inf, 2, **g).max((-2, -1)), WINDOW),
    "avgpool1d": Case({"N": 3, "L": 8}, lambda x, **g: windows(x, 0, 1, **g).mean(-1), WINDOW),
    "avgpool2d": Case({"N": 3, "H": 6, "W": 7}, lambda x, **g: windows(x, 0, 2, **g).mean((-2, -1)), WINDOW),
    "global_maxpool2d": Case({"N": 3, "H": 2, "W": 5}, lambda x: x.reshape(3, -1).max(-1)),
    "global_avgpool2d": Case({"N": 3, "H": 2, "W": 5}, lambda x: x.reshape(3, -1).mean(-1)),
    "sum_pool": Case({"N": 3, "T": 4, "D": 2}, lambda x: x.sum(1)),
    "mean_pool": Case({"N": 3, "T": 4, "D": 2}, lambda x: x.mean(1)),
    "max_pool": Case({"N": 3, "T": 4, "D": 2}, lambda x: x.max(1)),
}

# Losses


def picked(log_p: Array, labels: Array) -> Array:
    return np.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]


def smoothed(x: Array, labels: Array, smoothing: float) -> Array:
    target = (1 - smoothing) * np.eye(x.shape[1])[labels] + smoothing / x.shape[1]
    return -(target * special.log_softmax(x, axis=1)).sum(1).mean()


def triplet(x: Array, positive: Array, negative: Array, margin: float) -> Array:
    gap = np.linalg.norm(x - positive, axis=1) - np.linalg.norm(x - negative, axis=1)
    return np.mean(np.maximum(gap + margin, 0))


def gaussian(x: Array, z: Array, variance: Array) -> Array:
    return np.mean(0.5 * np.log(2 * np.pi) + np.log(np.sqrt(variance)) + 0.5 * ((x - z) / np.sqrt(variance)) ** 2)


def paired(formula: Formula, scalars: Mapping[str, Any] | None = None, **draw: Any) -> Case:
    return Case({"N": 9}, formula, scalars or {}, draw)


ROWS = {"N": 4, "C": 5}
LABELLED = {"labels": ids_below(5)}
LOSSES = {
    "mse": paired(lambda x, z: np.mean((x - z) ** 2)),
    "l1": paired(lambda x, z: np.mean(np.abs(x - z))),
    "huber": paired(lambda x, z, delta: special.huber(delta, x - z).mean(), {"delta": 0.8}),
    "smooth_l1": paired(lambda x, z, beta: special.huber(beta, x - z).mean() / beta, {"beta": 0.8}),
    "log_cosh": paired(lambda x, z: np.mean(np.logaddexp(x - z, z - x) - np.log(2))),
    "hinge": paired(lambda x, z: np.maximum(1 - x * z, 0).mean(), z=signs),
    "squared_hinge": paired(lambda x, z: (np.maximum(1 - x * z, 0) ** 2).mean(), z=signs),
    "bce_with_logits": paired(
        lambda x, z: -np.mean(z * special.log_expit(x) + (1 - z) * special.log_expit(-x)), z=bits
    ),
    "poisson_nll": paired(lambda x, z: np.mean(np.exp(x) - z * x), z=lambda rng, shape: rng.poisson(2.0, shape) + 0.0),
    "gaussian_nll": paired(gaussian, variance=positive),
    "cross_entropy": Case(
        ROWS, lambda x, labels: -picked(special.log_softmax(x, axis=1), labels).mean(), draw=LABELLED
    ),
    "smoothed_cross_entropy": Case(ROWS, smoothed, {"smoothing": 0.3}, LABELLED),
    "soft_cross_entropy": Case(
        ROWS, lambda x, z: -(z * special.log_softmax(x, axis=1)).sum(1).mean(), draw={"z": distributions}
    ),
    "nll": Case(ROWS, lambda log_p, labels: -picked(log_p, labels).mean(), draw=LABELLED),
    "kl_divergence": Case(
        ROWS, lambda log_q, p: (special.xlogy(p, p) - p * log_q).sum() / 4, draw={"p": distributions}
    ),
    "triplet_margin": Case({"N": 4, "D": 3}, triplet, {"margin": 0.5}),
}

# Cells and joins


def lstm(x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=1)
    c = special.expit(f) * c + special.expit(i) * np.tanh(g)
    return special.expit(o) * np.tanh(c), c


def gru(x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> Array:
    ir, iz, inn = np.split(x @ w_ih.T + b_ih, 3, axis=1)
    hr, hz, hn = np.split(h @ w_hh.T + b_hh, 3, axis=1)
    z = special.expit(iz + hz)
    return (1 - z) * np.tanh(inn + special.expit(ir + hr) * hn) + z * h


STEP = {"N": 3, "I": 4, "H": 2}
CELLS = {
    "rnn_cell": Case(STEP, lambda x, h, w_ih, w_hh, b_ih, b_hh: np.tanh(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh)),
    "lstm_cell": Case(STEP, lstm),
    "gru_cell": Case(STEP, gru),
}
JOINS = {
    "add": paired(np.add),
    "multiply": paired(np.multiply),
    "dropout": paired(lambda x, mask, rate: np.where(mask == 1, x / (1 - rate), 0), {"rate": 0.2}, mask=bits),
    "concat": Case({"N": 3, "A": 2, "B": 4}, lambda x, z: np.concatenate([x, z], axis=-1)),
}

CASES: dict[str, Case] = {
    **ACTIVATIONS, **SOFTMAXES, **GATES, **PRODUCTS, **NORMALISATIONS, **ATTENTIONS, **EMBEDDINGS, **CONVOLUTIONS,
    **POOLINGS, **LOSSES, **CELLS, **JOINS,
}  # fmt: skip

"""NumPy: every forward, and the VJPs whose closed form is a few lines. erf is SciPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import erf, expit

from jaccomp.benchmark.cases import Mode
from jaccomp.benchmark.peer import Given, Unsupported
from jaccomp.benchmark.timing import Entry

Function = Callable[..., Any]


def _gelu(x: Any) -> Any:
    y = erf(x * np.float32(0.5**0.5))
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


def _gelu_tanh(x: Any) -> Any:
    cube = x * x * np.float32(0.044715)
    y = np.tanh(x * (1 + cube) * np.float32((2 / np.pi) ** 0.5))
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


def _swiglu(x: Any) -> Any:
    gate, value = np.split(x, 2, axis=-1)
    return gate * expit(gate) * value


def _softmax(x: Any) -> Any:
    y = x - x.max(-1, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(-1, keepdims=True)
    return y


def _cross_entropy(x: Any, labels: Any) -> Any:
    high = x.max(-1, keepdims=True)
    shifted = x - high
    chosen = np.take_along_axis(shifted, labels[:, None], -1)[:, 0]
    np.exp(shifted, out=shifted)
    return np.asarray((np.log(shifted.sum(-1)) - chosen).mean())


def _mse(x: Any, z: Any) -> Any:
    d = (x - z).reshape(-1)
    return np.asarray(np.dot(d, d) / np.float32(d.size))


def _normalised(x: Any, axes: tuple[int, ...], eps: float = 1e-5) -> tuple[Any, Any]:
    """x without mean and variance, and what it was multiplied by."""
    shifted = x - x.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(np.square(shifted).mean(axes, keepdims=True) + np.float32(eps))
    shifted *= rstd
    return shifted, rstd


def _layernorm(x: Any, g: Any, bias: Any) -> Any:
    y, _ = _normalised(x, (-1,))
    y *= g
    y += bias
    return y


def _rmsnorm(x: Any, g: Any) -> Any:
    return x * (1 / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(1e-6))) * g


def _batchnorm(x: Any, g: Any, bias: Any) -> Any:
    return _normalised(x, (0, 2, 3))[0] * g[:, None, None] + bias[:, None, None]


def _groupnorm(x: Any, g: Any, bias: Any, G: int) -> Any:
    grouped = x.reshape(x.shape[0], G, -1, *x.shape[2:])
    return _normalised(grouped, (2, 3, 4))[0].reshape(x.shape) * g[:, None, None] + bias[:, None, None]


def _maxpool(x: Any) -> Any:
    y = np.maximum(x[..., 0::2, 0::2], x[..., 0::2, 1::2])
    np.maximum(y, x[..., 1::2, 0::2], out=y)
    return np.maximum(y, x[..., 1::2, 1::2], out=y)


def _rope(x: Any) -> Any:
    steps, pairs = x.shape[-2], x.shape[-1] // 2
    rate = np.float32(10000) ** (np.arange(pairs, dtype=np.float32) * np.float32(-1 / pairs))
    angle = np.arange(steps, dtype=np.float32)[:, None] * rate
    cos, sin = np.cos(angle), np.sin(angle)
    even, odd, y = x[..., 0::2], x[..., 1::2], np.empty_like(x)
    y[..., 0::2] = even * cos - odd * sin
    y[..., 1::2] = even * sin + odd * cos
    return y


def _linear(x: Any, W: Any, b: Any) -> Any:
    y = x @ W.T
    y += b
    return y


def _attention(q: Any, k: Any, v: Any) -> Any:
    steps = q.shape[-2]
    scores = q @ np.swapaxes(k, -1, -2)
    scores *= np.float32(q.shape[-1] ** -0.5)
    np.copyto(scores, -np.inf, where=~np.tri(steps, dtype=bool))
    return _softmax(scores) @ v


def _lstm(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    kept, forgotten, new, shown = np.split(_linear(x, w_ih, b_ih) + _linear(h, w_hh, b_hh), 4, axis=-1)
    c_next = expit(forgotten) * c + expit(kept) * np.tanh(new)
    return expit(shown) * np.tanh(c_next), c_next


def _conv2d(x: Any, weight: Any, b: Any, padding: int) -> Any:
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, weight.shape[2:], (2, 3))
    y = np.tensordot(weight, windows, ((1, 2, 3), (1, 4, 5)))
    return np.moveaxis(y, 0, 1) + b[:, None, None]


FORWARD: dict[str, Function] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * expit(x),
    "swiglu": _swiglu,
    "softmax": _softmax,
    "cross_entropy": _cross_entropy,
    "mse": _mse,
    "layernorm": _layernorm,
    "rmsnorm": _rmsnorm,
    "batchnorm": _batchnorm,
    "groupnorm": _groupnorm,
    "maxpool2d": _maxpool,
    "rope": _rope,
    "embedding": lambda ids, table: table[ids],
    "linear": _linear,
    "linear_gelu": lambda x, W, b: _gelu(_linear(x, W, b)),
    "causal_attention": _attention,
    "lstm_cell": _lstm,
    "conv2d": _conv2d,
    "residual_layernorm": lambda x, r, g, bias: _layernorm(x + r, g, bias),
    "linear_cross_entropy": lambda x, W, b, labels: _cross_entropy(_linear(x, W, b), labels),
}


def _pull_softmax(y: Any, ct: Any) -> Any:
    return (y * (ct - (y * ct).sum(-1, keepdims=True)),)


def _pull_layernorm(xhat: Any, rstd: Any, g: Any, ct: Any) -> Any:
    pulled = ct * g
    inner = pulled - pulled.mean(-1, keepdims=True) - xhat * (pulled * xhat).mean(-1, keepdims=True)
    return rstd * inner, (ct * xhat).sum(0), ct.sum(0)


def _pull_mse(d: Any, ct: Any) -> Any:
    pulled = d * np.float32(2 * ct / d.size)
    return pulled, -pulled


KEPT: dict[str, Function] = {
    "relu": lambda x: (x,),
    "softmax": lambda x: (_softmax(x),),
    "mse": lambda x, z: (x - z,),
    "layernorm": lambda x, g, bias: (*_normalised(x, (-1,)), g),
    "linear": lambda x, W, b: (x, W),
}
"""What the pullback needs of the inputs."""

PULLED: dict[str, Function] = {
    "relu": lambda x, ct: (ct * (x > 0),),
    "softmax": _pull_softmax,
    "mse": _pull_mse,
    "layernorm": _pull_layernorm,
    "linear": lambda x, W, ct: (ct @ W, ct.T @ x, ct.sum(0)),
}


class Numpy:
    name = "numpy"

    def version(self) -> str:
        return np.__version__

    def entries(self, given: Given, mode: Mode) -> list[Entry]:
        operation, inputs, keywords = given.problem.operation, given.inputs, given.problem.keywords
        if mode == "forward":
            forward = FORWARD[operation]
            return [Entry(self.name, lambda: forward(*inputs, **keywords), _arrays)]
        if operation not in PULLED:
            raise Unsupported("its derivative is not written in NumPy")
        keep, pull, cotangents = KEPT[operation], PULLED[operation], given.cotangents
        if mode == "vjp":
            return [Entry(self.name, lambda: pull(*keep(*inputs), *cotangents), _arrays)]
        kept = keep(*inputs)
        return [Entry(self.name, lambda: pull(*kept, *cotangents), _arrays)]


def _arrays(result: Any) -> list[NDArray[Any]]:
    return list(result) if isinstance(result, tuple) else [result]


PEERS = (Numpy,)

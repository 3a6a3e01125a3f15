"""JAX: `jit` of the function, of its VJP, and of the pullback that a jitted VJP returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jaccomp.benchmark.cases import Mode
from jaccomp.benchmark.peer import Given, of_real
from jaccomp.benchmark.timing import Entry

jax.config.update("jax_enable_x64", True)  # labels stay int64, as everyone's; arrays keep their float32
Function = Callable[..., Any]


def _cross_entropy(x: Any, labels: Any) -> Any:
    chosen = jnp.take_along_axis(x, labels[:, None], axis=-1)[:, 0]
    return (jax.nn.logsumexp(x, axis=-1) - chosen).mean()


def _swiglu(x: Any) -> Any:
    gate, value = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * value


def _layernorm(x: Any, g: Any, bias: Any) -> Any:
    return _normalised(x, (-1,)) * g + bias


def _normalised(x: Any, axes: tuple[int, ...]) -> Any:
    shifted = x - x.mean(axes, keepdims=True)
    return shifted * lax.rsqrt((shifted * shifted).mean(axes, keepdims=True) + np.float32(1e-5))


def _rmsnorm(x: Any, g: Any) -> Any:
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-6)) * g


def _batchnorm(x: Any, g: Any, bias: Any) -> Any:
    return _normalised(x, (0, 2, 3)) * g[:, None, None] + bias[:, None, None]


def _groupnorm(x: Any, g: Any, bias: Any, G: int) -> Any:
    grouped = x.reshape(x.shape[0], G, -1, *x.shape[2:])
    return _normalised(grouped, (2, 3, 4)).reshape(x.shape) * g[:, None, None] + bias[:, None, None]


def _maxpool(x: Any) -> Any:
    return lax.reduce_window(x, -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def _maxpool_reshaped(x: Any) -> Any:
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))


def _rope(x: Any) -> Any:
    steps, pairs = x.shape[-2], x.shape[-1] // 2
    rate = 10000.0 ** (jnp.arange(pairs, dtype=x.dtype) * np.asarray(-1.0 / pairs, x.dtype))
    angle = jnp.arange(steps, dtype=x.dtype)[:, None] * rate
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack((even * cos - odd * sin, even * sin + odd * cos), -1).reshape(x.shape)


def _linear(x: Any, W: Any, b: Any) -> Any:
    return x @ W.T + b


def _attention(q: Any, k: Any, v: Any) -> Any:
    steps = q.shape[-2]
    scores = jnp.einsum("...nd,...md->...nm", q, k) * np.asarray(q.shape[-1] ** -0.5, q.dtype)
    seen = jnp.tril(jnp.ones((steps, steps), bool))
    return jax.nn.softmax(jnp.where(seen, scores, -np.inf), axis=-1) @ v


def _lstm(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    gates = _linear(x, w_ih, b_ih) + _linear(h, w_hh, b_hh)
    kept, forgotten, new, shown = jnp.split(gates, 4, axis=-1)
    c_next = jax.nn.sigmoid(forgotten) * c + jax.nn.sigmoid(kept) * jnp.tanh(new)
    return jax.nn.sigmoid(shown) * jnp.tanh(c_next), c_next


def _conv2d(x: Any, weight: Any, b: Any, padding: int) -> Any:
    around = ((padding, padding), (padding, padding))
    y = lax.conv_general_dilated(x, weight, (1, 1), around, dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return y + b[:, None, None]


FUNCTIONS: dict[str, tuple[Function, ...]] = {
    "relu": (jax.nn.relu,),
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False),),
    "gelu_tanh": (lambda x: jax.nn.gelu(x, approximate=True),),
    "silu": (jax.nn.silu,),
    "swiglu": (_swiglu,),
    "softmax": (lambda x: jax.nn.softmax(x, axis=-1),),
    "cross_entropy": (_cross_entropy,),
    "mse": (lambda x, z: jnp.square(x - z).mean(),),
    "layernorm": (_layernorm,),
    "rmsnorm": (_rmsnorm,),
    "batchnorm": (_batchnorm,),
    "groupnorm": (_groupnorm,),
    "maxpool2d": (_maxpool, _maxpool_reshaped),
    "rope": (_rope,),
    "embedding": (
        lambda ids, table: table[ids],
        lambda ids, table: table.at[ids].get(mode="promise_in_bounds"),
    ),
    "linear": (_linear,),
    "linear_gelu": (lambda x, W, b: jax.nn.gelu(_linear(x, W, b), approximate=False),),
    "causal_attention": (_attention,),
    "lstm_cell": (_lstm,),
    "conv2d": (_conv2d,),
    "residual_layernorm": (lambda x, r, g, bias: _layernorm(x + r, g, bias),),
    "linear_cross_entropy": (lambda x, W, b, labels: _cross_entropy(_linear(x, W, b), labels),),
}
"""Each operation in the ways that are worth timing."""


class Jax:
    name = "jax"

    def version(self) -> str:
        return str(jax.__version__)

    def entries(self, given: Given, mode: Mode) -> list[Entry]:
        return [self._entry(function, given, mode) for function in FUNCTIONS[given.problem.operation]]

    def _entry(self, function: Function, given: Given, mode: Mode) -> Entry:
        problem = given.problem
        inputs = [jax.device_put(one) for one in given.inputs]
        cotangents = [jax.device_put(one) for one in given.cotangents]
        cotangent = tuple(cotangents) if len(cotangents) > 1 else cotangents[0]

        def vjp(*inputs: Any) -> Any:
            """The results and the pullback to the real inputs."""
            real = [inputs[k] for k in problem.real]
            return jax.vjp(of_real(problem, function, inputs), *real)

        if mode == "forward":
            forward = jax.jit(lambda *inputs: function(*inputs, **problem.keywords))
            return Entry(self.name, lambda: jax.block_until_ready(forward(*inputs)), _arrays)
        if mode == "vjp":
            pulled = jax.jit(lambda inputs, cotangent: vjp(*inputs)[1](cotangent))
            return Entry(self.name, lambda: jax.block_until_ready(pulled(inputs, cotangent)), _arrays)
        _, pullback = jax.block_until_ready(jax.jit(vjp)(*inputs))
        backward = jax.jit(lambda pullback, cotangent: pullback(cotangent))
        return Entry(self.name, lambda: jax.block_until_ready(backward(pullback, cotangent)), _arrays)


def _arrays(result: Any) -> list[NDArray[Any]]:
    return [np.asarray(one) for one in (result if isinstance(result, tuple | list) else (result,))]


def reference(given: Given, mode: Mode) -> list[NDArray[Any]]:
    """The results in float64."""
    wide = Given(
        given.problem,
        tuple(one.astype(np.float64) if one.dtype.kind == "f" else one for one in given.inputs),
        tuple(one.astype(np.float64) for one in given.cotangents),
    )
    entry = Jax().entries(wide, mode)[0]
    return [np.array(one) for one in entry.arrays(entry.call())]


PEERS = (Jax,)

"""PyTorch: eager, `torch.compile`, and `torch.func.vjp` inside `torch.compile`. Also the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch._functorch.config
import torch._inductor.config
import torch.nn.functional as F
from numpy.typing import NDArray

from jaccomp.benchmark.cases import Mode, Problem
from jaccomp.benchmark.peer import Arrays, Given, Unsupported, of_real, spread
from jaccomp.benchmark.timing import Entry

Tensor = Any  # mypy follows no import of PyTorch
Function = Callable[..., Any]


def _rope(x: Tensor) -> Tensor:
    cos, sin = _angles(x, torch.cos), _angles(x, torch.sin)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def _rope_complex(x: Tensor) -> Tensor:
    angle = _angles(x, lambda angle: angle)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(turned).flatten(-2)


def _angles(x: Tensor, of: Function) -> Any:
    steps, pairs = x.shape[-2], x.shape[-1] // 2
    rate = 10000.0 ** (torch.arange(pairs, dtype=x.dtype) * (-1.0 / pairs))
    return of(torch.arange(steps, dtype=x.dtype)[:, None] * rate)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    steps = q.shape[-2]
    future = torch.ones(steps, steps, dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(future, -torch.inf)
    return scores.softmax(-1) @ v


def _lstm(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor]:
    kept, forgotten, new, shown = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c_next = forgotten.sigmoid() * c + kept.sigmoid() * new.tanh()
    return shown.sigmoid() * c_next.tanh(), c_next


def _lstm_fused(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> Any:
    return torch._VF.lstm_cell(x, (h, c), *weights)


def _swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, -1)
    return F.silu(gate) * value


def _layernorm(x: Tensor, g: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], g, bias, 1e-5)


def _rmsnorm(x: Tensor, g: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], g, 1e-6)


def _rmsnorm_written(x: Tensor, g: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * g


FUNCTIONS: dict[str, tuple[Function, ...]] = {
    "relu": (F.relu,),
    "gelu": (F.gelu,),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"),),
    "silu": (F.silu,),
    "swiglu": (_swiglu,),
    "softmax": (lambda x: F.softmax(x, -1),),
    "cross_entropy": (F.cross_entropy,),
    "mse": (F.mse_loss,),
    "layernorm": (_layernorm,),
    "rmsnorm": (_rmsnorm, _rmsnorm_written),
    "batchnorm": (lambda x, g, bias: F.batch_norm(x, None, None, g, bias, True, 0.0, 1e-5),),
    "groupnorm": (lambda x, g, bias, G: F.group_norm(x, G, g, bias, 1e-5),),
    "maxpool2d": (lambda x: F.max_pool2d(x, 2),),
    "rope": (_rope, _rope_complex),
    "embedding": (F.embedding,),
    "linear": (F.linear,),
    "linear_gelu": (lambda x, W, b: F.gelu(F.linear(x, W, b)),),
    "causal_attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        _attention,
    ),
    "lstm_cell": (_lstm, _lstm_fused),
    "conv2d": (lambda x, weight, b, padding: F.conv2d(x, weight, b, padding=padding),),
    "residual_layernorm": (lambda x, r, g, bias: _layernorm(x + r, g, bias),),
    "linear_cross_entropy": (lambda x, W, b, labels: F.cross_entropy(F.linear(x, W, b), labels),),
}
"""Each operation in the ways that are worth timing; the first is the float64 reference too."""

UNCOMPILED = {"rope": 1, "lstm_cell": 1, "rmsnorm": 1}
"""How many of the ways are compiled, where the others are there for eager's sake."""


class Eager:
    """PyTorch as it runs without a compiler."""

    name = "torch"

    def version(self) -> str:
        return str(torch.__version__)

    def entries(self, given: Given, mode: Mode) -> list[Entry]:
        return [self._entry(function, given, mode) for function in self._ways(given.problem)]

    def _ways(self, problem: Problem) -> Sequence[Function]:
        return FUNCTIONS[problem.operation]

    def _entry(self, function: Function, given: Given, mode: Mode) -> Entry:
        problem, inputs = given.problem, _tensors(given.inputs)
        cotangents = _tensors(given.cotangents)

        def whole(*inputs: Tensor) -> Any:
            return function(*inputs, **problem.keywords)

        compiled = self._compiled(whole)
        if mode == "forward":
            return Entry(self.name, _without_graph(compiled, inputs), _arrays)
        leaves = [inputs[k].requires_grad_() for k in problem.real]
        if mode == "vjp":
            return Entry(self.name, lambda: torch.autograd.grad(compiled(*inputs), leaves, cotangents), _arrays)
        with _graph_kept():
            kept = compiled(*inputs)

            def backward() -> Any:
                return torch.autograd.grad(kept, leaves, cotangents, retain_graph=True)

            backward()  # compiled at its first call
        return Entry(self.name, backward, _arrays)

    def _compiled(self, function: Function) -> Function:
        return function


class Inductor(Eager):
    """PyTorch's compiler; the backward graph is what it compiles for autograd."""

    name = "inductor"

    def _ways(self, problem: Problem) -> Sequence[Function]:
        return FUNCTIONS[problem.operation][: UNCOMPILED.get(problem.operation)]

    def _compiled(self, function: Function) -> Function:
        return _compile(function)


class InductorVjp(Inductor):
    """`torch.func.vjp` inside PyTorch's compiler: forward and pullback in one graph, outputs not returned."""

    name = "inductor_vjp"

    def _entry(self, function: Function, given: Given, mode: Mode) -> Entry:
        if mode != "vjp":
            raise Unsupported("it is a way to compute the vjp")
        problem = given.problem
        several = len(problem.outputs) > 1

        def pulled(inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Any:
            real = [inputs[k] for k in problem.real]
            _, pullback = torch.func.vjp(of_real(problem, function, inputs), *real)
            return pullback(tuple(cotangents) if several else cotangents[0])

        inputs, cotangents = _tensors(given.inputs), _tensors(given.cotangents)
        compiled = _compile(pulled)
        return Entry(self.name, _without_graph(compiled, (inputs, cotangents)), _arrays)


def _compile(function: Function) -> Function:
    torch._dynamo.reset()  # one function, one shape: nothing that an earlier row compiled is looked at
    compiled: Function = torch.compile(function, dynamic=False, fullgraph=True)
    return compiled


@contextmanager
def _graph_kept() -> Iterator[None]:
    """While a function is compiled whose backward graph is to be called again: no residual may be overwritten.

    The compiler's caches are left out, since they give back code that was compiled to overwrite.
    """
    with (
        torch._functorch.config.patch(donated_buffer=False, enable_autograd_cache=False),
        torch._inductor.config.patch(fx_graph_cache=False),
    ):
        yield


def _without_graph(function: Function, arguments: Sequence[Any]) -> Callable[[], Any]:
    def call() -> Any:
        with torch.no_grad():
            return function(*arguments)

    return call


def _tensors(arrays: Arrays) -> list[Tensor]:
    return [torch.from_numpy(one) for one in arrays]


def _arrays(result: Any) -> list[NDArray[Any]]:
    results = result if isinstance(result, tuple | list) else (result,)
    return [one.detach().numpy() for one in results]


def reference(given: Given, mode: Mode) -> list[NDArray[Any]]:
    """The results in float64."""
    problem = given.problem
    inputs = [t.double() if t.is_floating_point() else t for t in _tensors(given.inputs)]
    function = FUNCTIONS[problem.operation][0]
    if mode == "forward":
        with torch.no_grad():
            return _arrays(function(*inputs, **problem.keywords))
    real = [inputs[k].requires_grad_() for k in problem.real]
    results = function(*spread(problem, real, inputs), **problem.keywords)
    cotangents = [t.double() for t in _tensors(given.cotangents)]
    return [np.asarray(one) for one in _arrays(torch.autograd.grad(results, real, cotangents))]


PEERS = (Eager, Inductor, InductorVjp)

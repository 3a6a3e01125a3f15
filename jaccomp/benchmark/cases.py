"""The rows of the core suite: which layer, arrays of which shapes, and the least that each mode must do.

A row is a function of its sizes, so that the same problem serves timing (as stated) and counting instructions (small).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.layer import Layer

Mode = Literal["forward", "vjp", "backward"]
MODES: tuple[Mode, ...] = ("forward", "vjp", "backward")
Kind = Literal["memory", "product", "small"]


@dataclass(frozen=True, slots=True)
class Array:
    """An input or output by the layer's name for it; float32, or int64 ids in [0, `below`). Normal, times `scale`."""

    name: str
    shape: tuple[int, ...]
    scale: float = 1.0
    below: int | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * (4 if self.below is None else 8)


@dataclass(frozen=True, slots=True)
class Cost:
    """The least of one call: bytes read and written, operations of its products, calls of vector functions."""

    read: int
    written: int
    flops: int = 0
    calls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A library layer inside a chain: which arrays it reads, by name, and which one it makes."""

    layer: str
    reads: tuple[str, ...]
    makes: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One layer at one set of sizes. `operation` is what peers know it by; `outputs` are those that get cotangents."""

    operation: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    costs: Mapping[Mode, Cost]
    keywords: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    @property
    def real(self) -> tuple[int, ...]:
        """The positions of the inputs that have cotangents."""
        return tuple(k for k, one in enumerate(self.inputs) if one.below is None)


@dataclass(frozen=True, slots=True)
class Row:
    """A problem at the sizes that are timed and at those whose instructions are counted."""

    name: str
    kind: Kind
    problem: Callable[..., Problem]
    sizes: Mapping[str, int]
    small: Mapping[str, int]

    def timed(self) -> Problem:
        return self.problem(**self.sizes)

    def counted(self) -> Problem:
        return self.problem(**self.small)


def _bytes(arrays: Iterable[Array], without: Sequence[str] = ()) -> int:
    return sum(one.bytes for one in arrays if one.name not in without)


def _costs(
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    *,
    unread: tuple[Sequence[str], Sequence[str]] = ((), ()),
    also_read: int = 0,
    calls: tuple[Mapping[str, int], Mapping[str, int]] = ({}, {}),
    residuals: int | None = None,
    products: tuple[int, int, int] = (0, 0, 0),
) -> dict[Mode, Cost]:
    """The costs of forward, VJP and backward, where every array is read once and every result written once.

    `unread` names the inputs that forward and the others need not read; `also_read` is what forward reads of such an
    input (the rows that ids name). Backward is given the residuals that save it most, derivatives and probabilities
    among them, so that it calls no function; where they are not as large as the inputs, `residuals` is their bytes.
    """
    real = [one for one in inputs if one.below is None]
    cotangents, results = _bytes(outputs), _bytes(real)
    pulled = _bytes(inputs, unread[1])
    kept = pulled if residuals is None else residuals
    return {
        "forward": Cost(_bytes(inputs, unread[0]) + also_read, cotangents, products[0], calls[0]),
        "vjp": Cost(pulled + cotangents, results, products[1], calls[1]),
        "backward": Cost(kept + cotangents, results, products[2]),
    }


def _elementwise(operation: str, forward: Sequence[str] = (), pull: Sequence[str] = ()) -> Callable[..., Problem]:
    """y = f(x), where forward and the derivative each call these vector functions once an element."""

    def problem(N: int, D: int) -> Problem:
        inputs, outputs = (Array("x", (N, D)),), (Array("y", (N, D)),)
        first, then = (dict.fromkeys(names, N * D) for names in (forward, pull))
        return Problem(operation, inputs, outputs, _costs(inputs, outputs, calls=(first, then)))

    return problem


def _swiglu(N: int, H: int) -> Problem:
    inputs, outputs = (Array("x", (N, 2 * H)),), (Array("y", (N, H)),)
    exp = {"exp": N * H}
    return Problem("swiglu", inputs, outputs, _costs(inputs, outputs, calls=(exp, exp)))


def _softmax(N: int, D: int) -> Problem:
    inputs, outputs = (Array("x", (N, D)),), (Array("y", (N, D)),)
    exp = {"exp": N * D}
    return Problem("softmax", inputs, outputs, _costs(inputs, outputs, calls=(exp, exp)))


def _cross_entropy(N: int, C: int) -> Problem:
    inputs, outputs = (Array("x", (N, C)), Array("labels", (N,), below=C)), (Array("loss", ()),)
    exp = {"exp": N * C}
    return Problem("cross_entropy", inputs, outputs, _costs(inputs, outputs, calls=(exp, exp)))


def _mse(N: int, D: int) -> Problem:
    inputs, outputs = (Array("x", (N, D)), Array("z", (N, D))), (Array("loss", ()),)
    return Problem("mse", inputs, outputs, _costs(inputs, outputs, residuals=4 * N * D))  # x - z


def _layernorm(N: int, D: int) -> Problem:
    inputs = (Array("x", (N, D)), Array("g", (D,)), Array("bias", (D,)))
    outputs = (Array("y", (N, D)),)
    return Problem("layernorm", inputs, outputs, _costs(inputs, outputs, unread=((), ("bias",))))


def _rmsnorm(N: int, D: int) -> Problem:
    inputs, outputs = (Array("x", (N, D)), Array("g", (D,))), (Array("y", (N, D)),)
    return Problem("rmsnorm", inputs, outputs, _costs(inputs, outputs))


def _over_images(operation: str) -> Callable[..., Problem]:
    """A normalisation of images; a `G` is the number of its groups."""

    def problem(N: int, C: int, H: int, **keywords: int) -> Problem:
        inputs = (Array("x", (N, C, H, H)), Array("g", (C,)), Array("bias", (C,)))
        outputs = (Array("y", (N, C, H, H)),)
        return Problem(operation, inputs, outputs, _costs(inputs, outputs, unread=((), ("bias",))), keywords)

    return problem


def _maxpool2d(N: int, C: int, H: int) -> Problem:
    inputs, outputs = (Array("x", (N, C, H, H)),), (Array("y", (N, C, H // 2, H // 2)),)
    places = outputs[0].elements  # which of four, in a byte
    return Problem("maxpool2d", inputs, outputs, _costs(inputs, outputs, residuals=places))


def _rope(B: int, A: int, T: int, D: int) -> Problem:
    inputs, outputs = (Array("x", (B, A, T, D)),), (Array("y", (B, A, T, D)),)
    return Problem("rope", inputs, outputs, _costs(inputs, outputs, unread=((), ("x",))))


def _embedding(V: int, D: int, N: int) -> Problem:
    inputs, outputs = (Array("ids", (N,), below=V), Array("table", (V, D))), (Array("y", (N, D)),)
    costs = _costs(inputs, outputs, unread=(("table",), ("table",)), also_read=4 * min(N, V) * D)
    return Problem("embedding", inputs, outputs, costs)


def _linear(N: int, D: int, O: int) -> Problem:  # noqa: E741 - the output's size
    inputs = (Array("x", (N, D)), Array("W", (O, D), D**-0.5), Array("b", (O,)))
    outputs = (Array("y", (N, O)),)
    product = 2 * N * D * O
    costs = _costs(inputs, outputs, unread=((), ("b",)), products=(product, 2 * product, 2 * product))
    return Problem("linear", inputs, outputs, costs)


def _linear_gelu(N: int, D: int, O: int) -> Problem:  # noqa: E741
    inputs = (Array("x", (N, D)), Array("W", (O, D), D**-0.5), Array("b", (O,)))
    outputs = (Array("y", (N, O)),)
    product, values = 2 * N * D * O, N * O
    both = {"erf": values, "exp": values}
    costs = _costs(
        inputs,
        outputs,
        calls=({"erf": values}, both),
        products=(product, 3 * product, 2 * product),
        residuals=_bytes(inputs, "b") + 4 * values,
    )
    parts = (Part("linear", ("x", "W", "b"), "h"), Part("gelu", ("h",), "y"))
    return Problem("linear_gelu", inputs, outputs, costs, parts=parts)


def _causal_attention(B: int, A: int, T: int, D: int) -> Problem:
    inputs = tuple(Array(name, (B, A, T, D)) for name in "qkv")
    outputs = (Array("o", (B, A, T, D)),)
    pairs = B * A * T * (T + 1) // 2
    product, exp = 2 * pairs * D, {"exp": pairs}
    costs = _costs(
        inputs,
        outputs,
        calls=(exp, exp),
        products=(2 * product, 5 * product, 4 * product),
        residuals=_bytes(inputs) + 4 * pairs,
    )
    return Problem("causal_attention", inputs, outputs, costs)


def _lstm_cell(N: int, H: int) -> Problem:
    inputs = (
        Array("x", (N, H)),
        Array("h", (N, H)),
        Array("c", (N, H)),
        Array("w_ih", (4 * H, H), H**-0.5),
        Array("w_hh", (4 * H, H), H**-0.5),
        Array("b_ih", (4 * H,)),
        Array("b_hh", (4 * H,)),
    )
    outputs = (Array("h_next", (N, H)), Array("c_next", (N, H)))
    product, calls = 2 * 2 * N * H * 4 * H, {"exp": 3 * N * H, "tanh": 2 * N * H}
    costs = _costs(inputs, outputs, calls=(calls, calls), products=(product, 3 * product, 2 * product))
    return Problem("lstm_cell", inputs, outputs, costs)


def _conv2d(N: int, C: int, H: int, O: int, K: int) -> Problem:  # noqa: E741
    inputs = (
        Array("x", (N, C, H, H)),
        Array("weight", (O, C, K, K), (C * K * K) ** -0.5),
        Array("b", (O,)),
    )
    outputs = (Array("y", (N, O, H, H)),)
    product = 2 * N * H * H * O * C * K * K
    costs = _costs(inputs, outputs, unread=((), ("b",)), products=(product, 2 * product, 2 * product))
    return Problem("conv2d", inputs, outputs, costs, {"padding": K // 2})


def _residual_layernorm(N: int, D: int) -> Problem:
    inputs = (Array("x", (N, D)), Array("r", (N, D)), Array("g", (D,)), Array("bias", (D,)))
    outputs = (Array("y", (N, D)),)
    parts = (Part("add", ("x", "r"), "s"), Part("layernorm", ("s", "g", "bias"), "y"))
    costs = _costs(inputs, outputs, unread=((), ("bias",)))
    return Problem("residual_layernorm", inputs, outputs, costs, parts=parts)


def _linear_cross_entropy(N: int, D: int, C: int) -> Problem:
    inputs = (
        Array("x", (N, D)),
        Array("W", (C, D), D**-0.5),
        Array("b", (C,)),
        Array("labels", (N,), below=C),
    )
    outputs = (Array("loss", ()),)
    product, exp = 2 * N * D * C, {"exp": N * C}
    parts = (Part("linear", ("x", "W", "b"), "h"), Part("cross_entropy", ("h", "labels"), "loss"))
    costs = _costs(
        inputs,
        outputs,
        calls=(exp, exp),
        products=(product, 3 * product, 2 * product),
        residuals=_bytes(inputs, ("b", "labels")) + 4 * N * C,
    )
    return Problem("linear_cross_entropy", inputs, outputs, costs, parts=parts)


_FLAT, _FEW = {"N": 64, "D": 4096}, {"N": 16, "D": 2051}
_TABLE, _LITTLE = {"N": 4096, "D": 1024}, {"N": 65, "D": 515}
_IMAGES, _STAMPS = {"N": 32, "C": 64, "H": 56}, {"N": 4, "C": 16, "H": 28}
_HEADS, _HEAD = {"B": 4, "A": 12, "T": 1024, "D": 64}, {"B": 1, "A": 2, "T": 120, "D": 32}
_LINEAR, _NARROW = {"N": 64, "D": 4096, "O": 4096}, {"N": 16, "D": 256, "O": 192}

ROWS: tuple[Row, ...] = (
    Row("relu [64,4096]", "memory", _elementwise("relu"), _FLAT, _FEW),
    Row("gelu [64,4096]", "memory", _elementwise("gelu", ["erf"], ["erf", "exp"]), _FLAT, _FEW),
    Row("gelu_tanh [64,4096]", "memory", _elementwise("gelu_tanh", ["tanh"], ["tanh"]), _FLAT, _FEW),
    Row("silu [64,4096]", "memory", _elementwise("silu", ["exp"], ["exp"]), _FLAT, _FEW),
    Row("swiglu [4096,2816]", "memory", _swiglu, {"N": 4096, "H": 2816}, {"N": 16, "H": 1027}),
    Row("softmax [4096,1024]", "memory", _softmax, _TABLE, _LITTLE),
    Row("softmax [64,32000]", "memory", _softmax, {"N": 64, "D": 32000}, {"N": 8, "D": 4001}),
    Row("cross_entropy [2048,32000]", "memory", _cross_entropy, {"N": 2048, "C": 32000}, {"N": 16, "C": 2001}),
    Row("mse [4096,1024]", "memory", _mse, _TABLE, _LITTLE),
    Row("layernorm [4096,1024]", "memory", _layernorm, _TABLE, _LITTLE),
    Row("rmsnorm [4096,1024]", "memory", _rmsnorm, _TABLE, _LITTLE),
    Row("batchnorm [32,64,56,56]", "memory", _over_images("batchnorm"), _IMAGES, _STAMPS),
    Row("groupnorm [32,64,56,56]", "memory", _over_images("groupnorm"), {**_IMAGES, "G": 32}, {**_STAMPS, "G": 8}),
    Row("maxpool2d [32,64,56,56]", "memory", _maxpool2d, _IMAGES, _STAMPS),
    Row("rope [4,12,1024,64]", "memory", _rope, _HEADS, _HEAD),
    Row(
        "embedding [50257,768]", "memory", _embedding, {"V": 50257, "D": 768, "N": 4096}, {"V": 60, "D": 192, "N": 100}
    ),
    Row("residual_layernorm [4096,1024]", "memory", _residual_layernorm, _TABLE, _LITTLE),
    Row("linear [64,4096]", "product", _linear, _LINEAR, _NARROW),
    Row("linear 2048", "product", _linear, {"N": 2048, "D": 2048, "O": 2048}, {"N": 128, "D": 128, "O": 128}),
    Row("linear_gelu [64,4096]", "product", _linear_gelu, _LINEAR, _NARROW),
    Row(
        "linear_cross_entropy [2048,512]x[512,8192]",
        "product",
        _linear_cross_entropy,
        {"N": 2048, "D": 512, "C": 8192},
        {"N": 16, "D": 64, "C": 1003},
    ),
    Row("causal_attention [4,12,1024,64]", "product", _causal_attention, _HEADS, _HEAD),
    Row("lstm_cell [64,512]", "product", _lstm_cell, {"N": 64, "H": 512}, {"N": 16, "H": 64}),
    Row(
        "conv2d [32,64,56,56]",
        "product",
        _conv2d,
        {**_IMAGES, "O": 64, "K": 3},
        {"N": 2, "C": 8, "H": 28, "O": 16, "K": 3},
    ),
    Row("small layernorm [8,64]", "small", _layernorm, {"N": 8, "D": 64}, {"N": 8, "D": 64}),
    Row("small softmax [1,10]", "small", _softmax, {"N": 1, "D": 10}, {"N": 1, "D": 10}),
    Row("small linear [1,16]", "small", _linear, {"N": 1, "D": 16, "O": 16}, {"N": 1, "D": 16, "O": 16}),
)


def select(words: Sequence[str]) -> tuple[Row, ...]:
    """The rows that `words` name, whole or by what stands before a space, in the suite's order; all for no words."""
    for word in words:
        if not any(_names(word, row) for row in ROWS):
            known = ", ".join(dict.fromkeys(row.name.split(" ")[0] for row in ROWS))
            raise UsageError(f"row {word!r}", "the core suite has no such row.", f"It has {known}.")
    return tuple(row for row in ROWS if not words or any(_names(word, row) for word in words))


def _names(word: str, row: Row) -> bool:
    return row.name == word or row.name.startswith(f"{word} ")


def layer_of(operation: str) -> Layer:
    """The layer of the library, or the chain, that an operation is."""
    from jaccomp import layers

    chains = {
        "linear_gelu": _gelu_chain,
        "residual_layernorm": _layernorm_chain,
        "linear_cross_entropy": _cross_entropy_chain,
    }
    return chains[operation]() if operation in chains else layers.get(operation)


def _gelu_chain() -> Layer:
    from sympy import Eq, Sum, erf, sqrt

    from jaccomp.layer import Layer
    from jaccomp.notation import index, size, tensor

    N, (D, O) = size("N", typical=64), size("D O", typical=4096)  # noqa: E741
    n, o, k = index("n", N), index("o", O), index("k", D)
    x, W, b, (h, y) = tensor("x", N, D), tensor("W", O, D), tensor("b", O), tensor("h y", N, O)
    return Layer(
        "linear_gelu",
        inputs=[x, W, b],
        outputs=[y],
        equations=[
            Eq(h[n, o], Sum(W[o, k] * x[n, k], k) + b[o]),
            Eq(y[n, o], h[n, o] * (1 + erf(h[n, o] / sqrt(2))) / 2),
        ],
        doc="An affine map and a Gaussian error linear unit.",
    )


def _layernorm_chain() -> Layer:
    from sympy import Eq, Rational, Sum

    from jaccomp.layer import Layer
    from jaccomp.notation import index, scalar, size, tensor

    N, D = size("N", typical=4096), size("D", typical=1024)
    n, i, k = index("n", N), index("i", D), index("k", D)
    x, r, s, xhat, y = tensor("x r s xhat y", N, D)
    g, bias = tensor("g bias", D)
    mean, rstd = tensor("mean rstd", N)
    eps = scalar("eps", default=1e-5)
    return Layer(
        "residual_layernorm",
        inputs=[x, r, g, bias],
        scalars=[eps],
        outputs=[y],
        equations=[
            Eq(s[n, i], x[n, i] + r[n, i]),
            Eq(mean[n], Sum(s[n, k], k) / D),
            Eq(rstd[n], (Sum((s[n, k] - mean[n]) ** 2, k) / D + eps) ** Rational(-1, 2)),
            Eq(xhat[n, i], (s[n, i] - mean[n]) * rstd[n]),
            Eq(y[n, i], g[i] * xhat[n, i] + bias[i]),
        ],
        doc="A residual connection and layer normalisation.",
    )


def _cross_entropy_chain() -> Layer:
    from sympy import Eq, Sum, exp, log

    from jaccomp.layer import Layer
    from jaccomp.notation import index, size, tensor

    N, D, C = size("N", typical=2048), size("D", typical=512), size("C", typical=8192)
    n, c, j, k = index("n", N), index("c", C), index("j", C), index("k", D)
    x, W, b, h = tensor("x", N, D), tensor("W", C, D), tensor("b", C), tensor("h", N, C)
    labels, lse, loss = tensor("labels", N, dtype="int64"), tensor("lse", N), tensor("loss")
    return Layer(
        "linear_cross_entropy",
        inputs=[x, W, b, labels],
        outputs=[loss],
        equations=[
            Eq(h[n, c], Sum(W[c, k] * x[n, k], k) + b[c]),
            Eq(lse[n], log(Sum(exp(h[n, j]), j))),
            Eq(loss, Sum(lse[n] - h[n, labels[n]], n) / N),
        ],
        doc="An affine map and the cross entropy of integer labels.",
    )

"""Convolutions as neural networks have them (cross-correlations), over [N, C, H, W] and [N, C, L].

One stride, one padding by zeros and one dilation serve all spatial axes.
"""

from __future__ import annotations

from typing import Any

from sympy import Eq, KroneckerDelta, Sum

from jaccomp.layer import Layer
from jaccomp.notation import index, pad, scalar, size, tensor

N = size("N", axes="any", typical=32)
C, O = size("C O", typical=64)  # noqa: E741 - the output's channels
(H, W), L = size("H W", typical=56), size("L", typical=1024)
KH, KW, K = size("KH KW K", typical=3)
stride = scalar("stride", default=1, dtype="int64")
padding = scalar("padding", default=0, dtype="int64")
dilation = scalar("dilation", default=1, dtype="int64")
SCALARS = [stride, padding, dilation]


def steps(length: Any, kernel: Any) -> Any:
    """How many times a dilated kernel fits into a padded length."""
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def reached(length: Any, kernel: Any) -> Any:
    """The length from which `length` steps would have been made: the inverse of `steps`."""
    return (length - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1


def at(step: Any, tap: Any) -> Any:
    """Where a tap of the kernel reads at a step."""
    return stride * step + dilation * tap - padding


n, c, o = index("n", N), index("c", C), index("o", O)
r, s, k = index("r", KH), index("s", KW), index("k", K)
h, w, l = index("h", H), index("w", W), index("l", L)  # noqa: E741 - a position along L
i, j, t = index("i", steps(H, KH)), index("j", steps(W, KW)), index("t", steps(L, K))
image, line = tensor("x", N, C, H, W), tensor("x", N, C, L)
b, b_c = tensor("b", O), tensor("b", C)

kernel1, y1 = tensor("weight", O, C, K), tensor("y", N, O, steps(L, K))
conv1d = Layer(
    "conv1d",
    inputs=[line, kernel1, b],
    scalars=SCALARS,
    outputs=[y1],
    equations=[Eq(y1[n, o, t], Sum(pad(line[n, c, at(t, k)]) * kernel1[o, c, k], c, k) + b[o])],
    doc="Convolution over time (Waibel et al., 1989).",
)

kernel2, y2 = tensor("weight", O, C, KH, KW), tensor("y", N, O, steps(H, KH), steps(W, KW))
conv2d = Layer(
    "conv2d",
    inputs=[image, kernel2, b],
    scalars=SCALARS,
    outputs=[y2],
    equations=[
        Eq(y2[n, o, i, j], Sum(pad(image[n, c, at(i, r), at(j, s)]) * kernel2[o, c, r, s], c, r, s) + b[o]),
    ],
    doc="Convolution of images (LeCun et al., 1989; dilated, Yu and Koltun, 2016).",
)

depthwise, y_depth = tensor("weight", C, KH, KW), tensor("y", N, C, steps(H, KH), steps(W, KW))
depthwise_conv2d = Layer(
    "depthwise_conv2d",
    inputs=[image, depthwise, b_c],
    scalars=SCALARS,
    outputs=[y_depth],
    equations=[
        Eq(y_depth[n, c, i, j], Sum(pad(image[n, c, at(i, r), at(j, s)]) * depthwise[c, r, s], r, s) + b_c[c]),
    ],
    doc="Convolution of each channel by a kernel of its own (Sifre and Mallat, 2014; Chollet, 2017).",
)

causal, y_causal = tensor("weight", O, C, K), tensor("y", N, O, L)
causal_conv1d = Layer(
    "causal_conv1d",
    inputs=[line, causal, b],
    scalars=[dilation],
    outputs=[y_causal],
    equations=[
        Eq(y_causal[n, o, l], Sum(pad(line[n, c, l - dilation * (K - 1 - k)]) * causal[o, c, k], c, k) + b[o]),
    ],
    doc="Convolution over the present and the past alone (van den Oord et al., WaveNet, 2016).",
)

wide = tensor("y", N, O, reached(L, K))
spread1 = tensor("weight", C, O, K)
u = index("t", reached(L, K))
conv_transpose1d = Layer(
    "conv_transpose1d",
    inputs=[line, spread1, b],
    scalars=SCALARS,
    outputs=[wide],
    equations=[
        Eq(wide[n, o, u], Sum(line[n, c, l] * spread1[c, o, k] * KroneckerDelta(u, at(l, k)), c, l, k) + b[o]),
    ],
    doc="Transposed convolution over time (Zeiler et al., 2010).",
)

large = tensor("y", N, O, reached(H, KH), reached(W, KW))
spread2 = tensor("weight", C, O, KH, KW)
p, q = index("i", reached(H, KH)), index("j", reached(W, KW))
conv_transpose2d = Layer(
    "conv_transpose2d",
    inputs=[image, spread2, b],
    scalars=SCALARS,
    outputs=[large],
    equations=[
        Eq(
            large[n, o, p, q],
            Sum(
                image[n, c, h, w]
                * spread2[c, o, r, s]
                * KroneckerDelta(p, at(h, r))
                * KroneckerDelta(q, at(w, s)),
                c, h, w, r, s,
            )
            + b[o],
        ),
    ],
    doc="Transposed convolution of images (Zeiler et al., 2010; Dumoulin and Visin, 2016).",
)  # fmt: skip

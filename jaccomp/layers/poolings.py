"""Pooling over windows, over whole images and over sequences.

Windows of maxima take padding as -∞; averages count it, as in PyTorch. `kernel`, `stride` and `padding` serve both
spatial axes.
"""

from __future__ import annotations

from typing import Any

from sympy import Eq, Sum, oo

from jaccomp.layer import Layer
from jaccomp.notation import MaxOver, index, pad, scalar, size, tensor

N = size("N", axes="any", typical=2048)
(H, W), L = size("H W", typical=56), size("L", typical=1024)
T, D = size("T", typical=512), size("D", typical=512)
kernel = scalar("kernel", default=2, dtype="int64")
stride = scalar("stride", default=2, dtype="int64")
padding = scalar("padding", default=0, dtype="int64")
SCALARS = [kernel, stride, padding]


def steps(length: Any) -> Any:
    """How many windows fit into a padded length."""
    return (length + 2 * padding - kernel) // stride + 1


n, d, t = index("n", N), index("d", D), index("t", T)
h, w = index("h", H), index("w", W)
i, j, l = index("i", steps(H)), index("j", steps(W)), index("l", steps(L))  # noqa: E741 - a step along L
r, s = index("r s", kernel)
image, line, sequence = tensor("x", N, H, W), tensor("x", N, L), tensor("x", N, T, D)
small, short = tensor("y", N, steps(H), steps(W)), tensor("y", N, steps(L))
one, vector = tensor("y", N), tensor("y", N, D)


def seen(outside: Any) -> Any:
    """The pixel under the window at a step, or `outside` where there is none."""
    return pad(image[n, stride * i + r - padding, stride * j + s - padding], outside)


maxpool1d = Layer(
    "maxpool1d",
    inputs=[line],
    scalars=SCALARS,
    outputs=[short],
    equations=[Eq(short[n, l], MaxOver(pad(line[n, stride * l + r - padding], -oo), r))],
    doc="The maximum of each window (Zhou and Chellappa, 1988).",
)

maxpool2d = Layer(
    "maxpool2d",
    inputs=[image],
    scalars=SCALARS,
    outputs=[small],
    equations=[Eq(small[n, i, j], MaxOver(seen(-oo), r, s))],
    doc="The maximum of each window (Zhou and Chellappa, 1988; Riesenhuber and Poggio, 1999).",
)

avgpool1d = Layer(
    "avgpool1d",
    inputs=[line],
    scalars=SCALARS,
    outputs=[short],
    equations=[Eq(short[n, l], Sum(pad(line[n, stride * l + r - padding]), r) / kernel)],
    doc="The mean of each window (LeCun et al., 1989).",
)

avgpool2d = Layer(
    "avgpool2d",
    inputs=[image],
    scalars=SCALARS,
    outputs=[small],
    equations=[Eq(small[n, i, j], Sum(seen(0), r, s) / kernel**2)],
    doc="The mean of each window (LeCun et al., 1989).",
)

global_maxpool2d = Layer(
    "global_maxpool2d",
    inputs=[image],
    outputs=[one],
    equations=[Eq(one[n], MaxOver(image[n, h, w], h, w))],
    doc="The maximum of each channel (Oquab et al., 2015).",
)

global_avgpool2d = Layer(
    "global_avgpool2d",
    inputs=[image],
    outputs=[one],
    equations=[Eq(one[n], Sum(image[n, h, w], h, w) / (H * W))],
    doc="The mean of each channel (Lin, Chen and Yan, 2014).",
)

sum_pool = Layer(
    "sum_pool",
    inputs=[sequence],
    outputs=[vector],
    equations=[Eq(vector[n, d], Sum(sequence[n, t, d], t))],
    doc="The sum over a set or sequence of vectors (Zaheer et al., 2017).",
)

mean_pool = Layer(
    "mean_pool",
    inputs=[sequence],
    outputs=[vector],
    equations=[Eq(vector[n, d], Sum(sequence[n, t, d], t) / T)],
    doc="The mean over a sequence of vectors (Kalchbrenner and Blunsom, 2013).",
)

max_pool = Layer(
    "max_pool",
    inputs=[sequence],
    outputs=[vector],
    equations=[Eq(vector[n, d], MaxOver(sequence[n, t, d], t))],
    doc="The maximum over a sequence of vectors (Collobert et al., 2011).",
)

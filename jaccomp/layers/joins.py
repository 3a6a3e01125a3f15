"""Putting arrays together: sums, products, concatenation, a mask."""

from __future__ import annotations

from sympy import Eq

from jaccomp.layer import Layer
from jaccomp.notation import index, scalar, size, tensor

N = size("N", axes="any", typical=1 << 20)
A, B = size("A B", typical=512)
n, i, j = index("n", N), index("i", A), index("j", B)
x, z, mask, y = tensor("x z mask y", N)

add = Layer(
    "add",
    inputs=[x, z],
    outputs=[y],
    equations=[Eq(y[n], x[n] + z[n])],
    doc="Elementwise sum: the residual connection (He et al., 2016).",
)

multiply = Layer(
    "multiply",
    inputs=[x, z],
    outputs=[y],
    equations=[Eq(y[n], x[n] * z[n])],
    doc="Elementwise product (Schur, 1911).",
)

rate = scalar("rate", default=0.5)
dropout = Layer(
    "dropout",
    inputs=[x, mask],
    scalars=[rate],
    outputs=[y],
    equations=[Eq(y[n], x[n] * mask[n] / (1 - rate))],
    doc="Inverted dropout by a given mask of zeros and ones (Srivastava et al., 2014).",
)

head, tail, joined = tensor("x", N, A), tensor("z", N, B), tensor("y", N, A + B)
concat = Layer(
    "concat",
    inputs=[head, tail],
    outputs=[joined],
    equations=[Eq(joined[n, i], head[n, i]), Eq(joined[n, A + j], tail[n, j])],
    doc="Concatenation along the last axis (Szegedy et al., 2015).",
)

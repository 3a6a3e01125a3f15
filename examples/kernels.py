"""Layers of distances and of other semirings."""

from sympy import Eq, Product, Sum, exp, log

import jaccomp as jc

N = jc.size("N", axes="any", typical=1024)
D, M = jc.size("D", typical=64), jc.size("M", typical=128)
n, k, m, j = jc.index("n", N), jc.index("k", D), jc.index("m", M), jc.index("j", M)
x, centre, W = jc.tensor("x", N, D), jc.tensor("centre", M, D), jc.tensor("W", M, D)
y, width = jc.tensor("y", N, M), jc.tensor("width", M)

rbf = jc.Layer(
    "rbf",
    inputs=[x, centre, width],
    outputs=[y],
    equations=[Eq(y[n, m], exp(-Sum((x[n, k] - centre[m, k]) ** 2, k) / (2 * width[m] ** 2)))],
    doc="Gaussian radial basis functions with learned centres and widths (Broomhead and Lowe, 1988).",
)

prototypes = jc.Layer(
    "prototypes",
    inputs=[x, centre],
    outputs=[y],
    equations=[
        Eq(
            y[n, m],
            -Sum((x[n, k] - centre[m, k]) ** 2, k)
            - log(Sum(exp(-Sum((x[n, k] - centre[j, k]) ** 2, k)), j)),
        )
    ],
    doc="Log probabilities of classes by squared distance to their prototypes (Snell, Swersky and Zemel, 2017).",
)  # fmt: skip

tropical = jc.Layer(
    "tropical",
    inputs=[x, W],
    outputs=[y],
    equations=[Eq(y[n, m], jc.MaxOver(x[n, k] + W[m, k], k))],
    doc="A linear map in the max-plus semiring: morphological dilation (Ritter and Sussner, 1996).",
)

noisy_or = jc.Layer(
    "noisy_or",
    inputs=[x, W],
    outputs=[y],
    equations=[Eq(y[n, m], 1 - Product(1 - W[m, k] * x[n, k], k))],
    doc="The probability that any of independent causes acts (Pearl, 1988).",
)

"""Softmax and its relations, over the last axis of arrays with any number of leading axes."""

from __future__ import annotations

from sympy import Eq, Sum, exp, log

from jaccomp.layer import Layer
from jaccomp.notation import index, size, tensor

N = size("N", axes="any", typical=4096)
D = size("D", typical=1024)
n, i, k = index("n", N), index("i", D), index("k", D)
x, y = tensor("x y", N, D)
lse = tensor("y", N)

softmax = Layer(
    "softmax",
    inputs=[x],
    outputs=[y],
    equations=[Eq(y[n, i], exp(x[n, i]) / Sum(exp(x[n, k]), k))],
    doc="Softmax (Bridle, 1990).",
)

softmin = Layer(
    "softmin",
    inputs=[x],
    outputs=[y],
    equations=[Eq(y[n, i], exp(-x[n, i]) / Sum(exp(-x[n, k]), k))],
    doc="Softmax of the negated input (Bridle, 1990).",
)

log_softmax = Layer(
    "log_softmax",
    inputs=[x],
    outputs=[y],
    equations=[Eq(y[n, i], x[n, i] - log(Sum(exp(x[n, k]), k)))],
    doc="Logarithm of softmax (Bridle, 1990).",
)

logsumexp = Layer(
    "logsumexp",
    inputs=[x],
    outputs=[lse],
    equations=[Eq(lse[n], log(Sum(exp(x[n, k]), k)))],
    doc="Logarithm of a sum of exponentials, the smooth maximum (Boyd and Vandenberghe, 2004, section 3.1.5).",
)

"""Gated units: one half of the last axis gates the other.

As in Dauphin et al. the second half gates in `glu`; as in Shazeer the first half does in the others.
"""

from __future__ import annotations

from typing import Any

from sympy import Eq, Max, erf, exp, sqrt

from jaccomp.layer import Layer
from jaccomp.notation import index, size, tensor

N = size("N", axes="any", typical=4096)
H = size("H", typical=1024)
n, i = index("n", N), index("i", H)
x, y = tensor("x", N, 2 * H), tensor("y", N, H)
first, second = x[n, i], x[n, i + H]


def gated(name: str, body: Any, doc: str) -> Layer:
    """The layer `y[n, i] = body`, a function of both halves of `x[n]` at i."""
    return Layer(name, inputs=[x], outputs=[y], equations=[Eq(y[n, i], body)], doc=doc)


glu = gated("glu", first / (1 + exp(-second)), "Gated linear unit (Dauphin et al., 2017).")

reglu = gated("reglu", Max(first, 0) * second, "Gated linear unit with a ReLU gate (Shazeer, 2020).")

geglu = gated(
    "geglu", first * (1 + erf(first / sqrt(2))) / 2 * second, "Gated linear unit with a GELU gate (Shazeer, 2020)."
)

swiglu = gated("swiglu", first / (1 + exp(-first)) * second, "Gated linear unit with a swish gate (Shazeer, 2020).")

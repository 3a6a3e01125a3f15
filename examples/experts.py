"""A mixture of experts with a residual connection: `jaccomp show examples/experts.py:mixture_gating`."""

from sympy import Eq, Sum, exp

import jaccomp as jc

N = jc.size("N", axes="any", typical=1024)
D, E = jc.size("D", typical=256), jc.size("E", typical=8)
n, i, k = jc.index("n", N), jc.index("i", D), jc.index("k", D)
e, f = jc.index("e", E), jc.index("f", E)
x, y = jc.tensor("x y", N, D)
gate, W = jc.tensor("gate", E, D), jc.tensor("W", E, D, D)
s, p = jc.tensor("s p", N, E)

mixture_gating = jc.Layer(
    "mixture_gating",
    inputs=[x, gate, W],
    outputs=[y],
    equations=[
        Eq(s[n, e], Sum(gate[e, k] * x[n, k], k)),
        Eq(p[n, e], exp(s[n, e]) / Sum(exp(s[n, f]), f)),
        Eq(y[n, i], x[n, i] + Sum(p[n, e] * W[e, i, k] * x[n, k], e, k)),
    ],
    doc="Linear experts weighted by a softmax gate, added to the input (Jacobs et al., 1991).",
)

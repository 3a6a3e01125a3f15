"""A whole transformer block as one layer: pre-norm causal attention and a GELU network, each behind a residual sum.

jaccomp show examples/blocks.py
jaccomp check examples/blocks.py
"""

from sympy import Eq, Rational, Sum, erf, exp, sqrt

import jaccomp as jc

B, T, D, E, F = jc.size("B T D E F")
b, t, d, e, f, k = (jc.index(name, size) for name, size in zip("btdefk", (B, T, D, E, F, D), strict=True))
m, u = jc.index("m u", t + 1)
eps = jc.scalar("eps", default=1e-5)

x, y, h1, h2, xhat1, xhat2, mid = jc.tensor("x y h1 h2 xhat1 xhat2 mid", B, T, D)
g1, b1, g2, b2 = jc.tensor("g1 b1 g2 b2", D)
mean1, rstd1, mean2, rstd2 = jc.tensor("mean1 rstd1 mean2 rstd2", B, T)
w_q, w_k, w_v, w_o = (*jc.tensor("w_q w_k w_v", E, D), jc.tensor("w_o", D, E))
q, key, v, o = jc.tensor("q key v o", B, T, E)
s, p = jc.tensor("s p", B, T, T)
w_up, w_down = jc.tensor("w_up", F, D), jc.tensor("w_down", D, F)
z, a = jc.tensor("z a", B, T, F)


def normalised(source, mean, rstd, xhat, gain, bias, target):
    """Layer normalisation of `source`, as in the library."""
    return [
        Eq(mean[b, t], Sum(source[b, t, k], k) / D),
        Eq(rstd[b, t], (Sum((source[b, t, k] - mean[b, t]) ** 2, k) / D + eps) ** Rational(-1, 2)),
        Eq(xhat[b, t, d], (source[b, t, d] - mean[b, t]) * rstd[b, t]),
        Eq(target[b, t, d], gain[d] * xhat[b, t, d] + bias[d]),
    ]


transformer_block = jc.Layer(
    "transformer_block",
    inputs=[x, g1, b1, w_q, w_k, w_v, w_o, g2, b2, w_up, w_down],
    scalars=[eps],
    outputs=[y],
    equations=[
        *normalised(x, mean1, rstd1, xhat1, g1, b1, h1),
        Eq(q[b, t, e], Sum(h1[b, t, k] * w_q[e, k], k)),
        Eq(key[b, t, e], Sum(h1[b, t, k] * w_k[e, k], k)),
        Eq(v[b, t, e], Sum(h1[b, t, k] * w_v[e, k], k)),
        Eq(s[b, t, m], Sum(q[b, t, e] * key[b, m, e], e) / sqrt(E)),
        Eq(p[b, t, m], exp(s[b, t, m]) / Sum(exp(s[b, t, u]), u)),
        Eq(o[b, t, e], Sum(p[b, t, m] * v[b, m, e], m)),
        Eq(mid[b, t, d], x[b, t, d] + Sum(o[b, t, e] * w_o[d, e], e)),
        *normalised(mid, mean2, rstd2, xhat2, g2, b2, h2),
        Eq(z[b, t, f], Sum(h2[b, t, k] * w_up[f, k], k)),
        Eq(a[b, t, f], z[b, t, f] * (1 + erf(z[b, t, f] / sqrt(2))) / 2),
        Eq(y[b, t, d], mid[b, t, d] + Sum(a[b, t, f] * w_down[d, f], f)),
    ],
    doc="Pre-norm transformer block with causal attention (Vaswani et al., 2017; Xiong et al., 2020).",
)

__all__ = ["transformer_block"]

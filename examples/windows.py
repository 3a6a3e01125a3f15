"""Layers whose sums run over windows: banded attention, normalisation across channels, pixels from channels."""

from sympy import Eq, Max, Min, Sum, exp, sqrt

import jaccomp as jc

B = jc.size("B", axes="any", typical=16)
T, D, E = jc.size("T", typical=1024), jc.size("D", typical=64), jc.size("E", typical=64)
reach = jc.scalar("reach", default=2, dtype="int64")
b, t, k, e = jc.index("b", B), jc.index("t", T), jc.index("k", D), jc.index("e", E)
m, l = jc.index("m l", Max(0, t - reach), t + 1)  # noqa: E741 - two indices over one window
q, key, v = jc.tensor("q", B, T, D), jc.tensor("k", B, T, D), jc.tensor("v", B, T, E)
s, p, o = jc.tensor("s", B, T, T), jc.tensor("p", B, T, T), jc.tensor("o", B, T, E)

window_attention = jc.Layer(
    "window_attention",
    inputs=[q, key, v],
    scalars=[reach],
    outputs=[o],
    equations=[
        Eq(s[b, t, m], Sum(q[b, t, k] * key[b, m, k], k) / sqrt(D)),
        Eq(p[b, t, m], exp(s[b, t, m]) / Sum(exp(s[b, t, l]), l)),
        Eq(o[b, t, e], Sum(p[b, t, m] * v[b, m, e], m)),
    ],
    doc="Attention to the present and the `reach` positions before it (Beltagy, Peters and Cohan, 2020).",
)

N, C, H, W = jc.size("N", typical=16), jc.size("C", typical=64), jc.size("H", typical=28), jc.size("W", typical=28)
n, c, h, w = jc.index("n", N), jc.index("c", C), jc.index("h", H), jc.index("w", W)
near = jc.index("d", Max(0, c - reach), Min(C, c + reach + 1))
x, y = jc.tensor("x y", N, C, H, W)
alpha, beta, bias = jc.scalar("alpha", default=1e-4), jc.scalar("beta", default=0.75), jc.scalar("bias", default=2.0)

local_response = jc.Layer(
    "local_response",
    inputs=[x],
    scalars=[reach, alpha, beta, bias],
    outputs=[y],
    equations=[Eq(y[n, c, h, w], x[n, c, h, w] * (bias + alpha * Sum(x[n, near, h, w] ** 2, near)) ** -beta)],
    doc="Normalisation by the channels nearby (Krizhevsky, Sutskever and Hinton, 2012).",
)

R = jc.size("R", typical=2)
i, j = jc.index("i", R), jc.index("j", R)
packed, image = jc.tensor("x", N, C * R**2, H, W), jc.tensor("y", N, C, H * R, W * R)

pixel_shuffle = jc.Layer(
    "pixel_shuffle",
    inputs=[packed],
    outputs=[image],
    equations=[Eq(image[n, c, h * R + i, w * R + j], packed[n, c * R**2 + i * R + j, h, w])],
    doc="Channels spread over a finer grid, R times as fine (Shi et al., 2016).",
)

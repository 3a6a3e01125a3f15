"""Layers that one input applies to another."""

from sympy import Eq, Max, Rational, Sum, exp

import jaccomp as jc

N = jc.size("N", axes="any", typical=1024)
D, K = jc.size("D", typical=512), jc.size("K", typical=128)
n, i, d, k = jc.index("n", N), jc.index("i", D), jc.index("d", D), jc.index("k", K)
x, xhat, y, scale, shift = jc.tensor("x xhat y scale shift", N, D)
z, W, V = jc.tensor("z", N, K), jc.tensor("W", D, K), jc.tensor("V", D, K)
mean, rstd = jc.tensor("mean rstd", N)
eps = jc.scalar("eps", default=1e-5)

film_layernorm = jc.Layer(
    "film_layernorm",
    inputs=[x, z, W, V],
    scalars=[eps],
    outputs=[y],
    equations=[
        Eq(mean[n], Sum(x[n, d], d) / D),
        Eq(rstd[n], (Sum((x[n, d] - mean[n]) ** 2, d) / D + eps) ** Rational(-1, 2)),
        Eq(xhat[n, i], (x[n, i] - mean[n]) * rstd[n]),
        Eq(scale[n, i], 1 + Sum(W[i, k] * z[n, k], k)),
        Eq(shift[n, i], Sum(V[i, k] * z[n, k], k)),
        Eq(y[n, i], scale[n, i] * xhat[n, i] + shift[n, i]),
    ],
    doc="Layer norm whose gain and shift are linear in a condition z (Perez et al., 2018).",
)

P, C, R = jc.size("P", typical=784), jc.size("C", typical=64), jc.size("R", typical=16)
p, c, g, r = jc.index("p", P), jc.index("c", C), jc.index("g", C), jc.index("r", R)
features, out = jc.tensor("x y", N, C, P)
down, up = jc.tensor("down", R, C), jc.tensor("up", C, R)
squeezed, hidden = jc.tensor("squeezed", N, C), jc.tensor("hidden", N, R)

squeeze_excite = jc.Layer(
    "squeeze_excite",
    inputs=[features, down, up],
    outputs=[out],
    equations=[
        Eq(squeezed[n, c], Sum(features[n, c, p], p) / P),
        Eq(hidden[n, r], Max(Sum(down[r, g] * squeezed[n, g], g), 0)),
        Eq(out[n, c, p], features[n, c, p] / (1 + exp(-Sum(up[c, r] * hidden[n, r], r)))),
    ],
    doc="Channels scaled by a gate that sees them all (Hu, Shen and Sun, 2018).",
)

"""Normalisations. `g` is the gain and `bias` the shift, one for each feature or channel.

`layernorm`, `rmsnorm` and `l2_normalize` act on the last axis; `batchnorm`, `groupnorm` and `instancenorm` on images
[N, C, H, W], as in PyTorch. `batchnorm` is the one of training: it returns the mean and the (biased) variance of the
batch too, from which running statistics are made; `batchnorm_inference` takes them.
"""

from __future__ import annotations

from sympy import Eq, Rational, Sum, sqrt

from jaccomp.layer import Layer
from jaccomp.notation import index, scalar, size, tensor

INVERSE_ROOT = Rational(-1, 2)

rows = size("N", axes="any", typical=4096)
D, O = size("D", typical=1024), size("O", typical=1024)  # noqa: E741 - the output's size
n, i, k, o = index("n", rows), index("i", D), index("k", D), index("o", O)
x, xhat, y = tensor("x xhat y", rows, D)
g, bias = tensor("g bias", D)
mean, rstd, ms, norm = tensor("mean rstd ms norm", rows)
eps = scalar("eps", default=1e-5)

layernorm = Layer(
    "layernorm",
    inputs=[x, g, bias],
    scalars=[eps],
    outputs=[y],
    equations=[
        Eq(mean[n], Sum(x[n, k], k) / D),
        Eq(rstd[n], (Sum((x[n, k] - mean[n]) ** 2, k) / D + eps) ** INVERSE_ROOT),
        Eq(xhat[n, i], (x[n, i] - mean[n]) * rstd[n]),
        Eq(y[n, i], g[i] * xhat[n, i] + bias[i]),
    ],
    doc="Layer normalisation (Ba, Kiros and Hinton, 2016).",
)

small = scalar("eps", default=1e-6)
rmsnorm = Layer(
    "rmsnorm",
    inputs=[x, g],
    scalars=[small],
    outputs=[y],
    equations=[
        Eq(ms[n], Sum(x[n, k] ** 2, k) / D),
        Eq(rstd[n], (ms[n] + small) ** INVERSE_ROOT),
        Eq(xhat[n, i], x[n, i] * rstd[n]),
        Eq(y[n, i], g[i] * xhat[n, i]),
    ],
    doc="Root-mean-square normalisation (Zhang and Sennrich, 2019).",
)

l2_norm = Layer(
    "l2_norm",
    inputs=[x],
    outputs=[norm],
    equations=[Eq(norm[n], sqrt(Sum(x[n, k] ** 2, k)))],
    doc="Euclidean norm of the last axis (Cauchy, 1821).",
)

l2_normalize = Layer(
    "l2_normalize",
    inputs=[x],
    outputs=[y],
    equations=[Eq(norm[n], sqrt(Sum(x[n, k] ** 2, k))), Eq(y[n, i], x[n, i] / norm[n])],
    doc="Projection to the unit sphere, x/‖x‖ (Schroff, Kalenichenko and Philbin, 2015); 0 at the origin.",
)

v, normalised = tensor("v w", O, D)
gain, length = tensor("g norm", O)
weightnorm = Layer(
    "weightnorm",
    inputs=[v, gain],
    outputs=[normalised],
    equations=[Eq(length[o], sqrt(Sum(v[o, k] ** 2, k))), Eq(normalised[o, i], gain[o] * v[o, i] / length[o])],
    doc="Weight normalisation, w = g v/‖v‖ for each row (Salimans and Kingma, 2016).",
)

scale_shift = Layer(
    "scale_shift",
    inputs=[x, g, bias],
    outputs=[y],
    equations=[Eq(y[n, i], g[i] * x[n, i] + bias[i])],
    doc="A gain and a shift for each feature (Ioffe and Szegedy, 2015, the last step).",
)

N, C = size("N", typical=32), size("C", typical=64)
H, W = size("H W", typical=56)
b, c, h, w = index("n", N), index("c", C), index("h", H), index("w", W)
image, normed, out = tensor("x xhat y", N, C, H, W)
gain_c, bias_c = tensor("g bias", C)
mean_c, var_c, rstd_c = tensor("mean var rstd", C)
count = N * H * W

batchnorm = Layer(
    "batchnorm",
    inputs=[image, gain_c, bias_c],
    scalars=[eps],
    outputs=[out, mean_c, var_c],
    equations=[
        Eq(mean_c[c], Sum(image[b, c, h, w], b, h, w) / count),
        Eq(var_c[c], Sum((image[b, c, h, w] - mean_c[c]) ** 2, b, h, w) / count),
        Eq(rstd_c[c], (var_c[c] + eps) ** INVERSE_ROOT),
        Eq(normed[b, c, h, w], (image[b, c, h, w] - mean_c[c]) * rstd_c[c]),
        Eq(out[b, c, h, w], gain_c[c] * normed[b, c, h, w] + bias_c[c]),
    ],
    doc="Batch normalisation in training, with the mean and biased variance of the batch (Ioffe and Szegedy, 2015).",
)

batchnorm_inference = Layer(
    "batchnorm_inference",
    inputs=[image, gain_c, bias_c, mean_c, var_c],
    scalars=[eps],
    outputs=[out],
    equations=[
        Eq(rstd_c[c], (var_c[c] + eps) ** INVERSE_ROOT),
        Eq(normed[b, c, h, w], (image[b, c, h, w] - mean_c[c]) * rstd_c[c]),
        Eq(out[b, c, h, w], gain_c[c] * normed[b, c, h, w] + bias_c[c]),
    ],
    doc="Batch normalisation by given statistics (Ioffe and Szegedy, 2015).",
)

mean_nc, rstd_nc = tensor("mean rstd", N, C)
instancenorm = Layer(
    "instancenorm",
    inputs=[image, gain_c, bias_c],
    scalars=[eps],
    outputs=[out],
    equations=[
        Eq(mean_nc[b, c], Sum(image[b, c, h, w], h, w) / (H * W)),
        Eq(rstd_nc[b, c], (Sum((image[b, c, h, w] - mean_nc[b, c]) ** 2, h, w) / (H * W) + eps) ** INVERSE_ROOT),
        Eq(normed[b, c, h, w], (image[b, c, h, w] - mean_nc[b, c]) * rstd_nc[b, c]),
        Eq(out[b, c, h, w], gain_c[c] * normed[b, c, h, w] + bias_c[c]),
    ],
    doc="Instance normalisation (Ulyanov, Vedaldi and Lempitsky, 2016).",
)

G, K = size("G", typical=32), size("K", typical=2)
a, e, f = index("a", G), index("k", K), index("c", G * K)
grouped, grouped_hat, grouped_out = tensor("x xhat y", N, G * K, H, W)
gain_gk, bias_gk = tensor("g bias", G * K)
mean_ng, rstd_ng = tensor("mean rstd", N, G)
members = K * H * W
groupnorm = Layer(
    "groupnorm",
    inputs=[grouped, gain_gk, bias_gk],
    scalars=[eps],
    outputs=[grouped_out],
    equations=[
        Eq(mean_ng[b, a], Sum(grouped[b, a * K + e, h, w], e, h, w) / members),
        Eq(
            rstd_ng[b, a],
            (Sum((grouped[b, a * K + e, h, w] - mean_ng[b, a]) ** 2, e, h, w) / members + eps) ** INVERSE_ROOT,
        ),
        Eq(grouped_hat[b, a * K + e, h, w], (grouped[b, a * K + e, h, w] - mean_ng[b, a]) * rstd_ng[b, a]),
        Eq(grouped_out[b, f, h, w], gain_gk[f] * grouped_hat[b, f, h, w] + bias_gk[f]),
    ],
    doc="Group normalisation of G groups of K channels each (Wu and He, 2018).",
)

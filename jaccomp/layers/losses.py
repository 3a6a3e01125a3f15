"""Losses, each a mean over the leading axes into a tensor of rank 0. `x` is what a network says, `z` the target."""

from __future__ import annotations

from typing import Any

from sympy import Abs, Eq, Max, Piecewise, Sum, exp, log, pi, sqrt

from jaccomp.layer import Layer
from jaccomp.notation import index, scalar, size, tensor

N, C = size("N", axes="any", typical=4096), size("C", typical=1024)
D = size("D", typical=256)
n, c, j, k = index("n", N), index("c", C), index("j", C), index("k", D)
x, z, d = tensor("x z d", N)
loss = tensor("loss")


def mean_of(name: str, term: Any, doc: str, inputs: Any = (x, z), scalars: Any = (), steps: Any = ()) -> Layer:
    """The layer `loss = Σ_n term / N`, after the equations in `steps`."""
    mean = Eq(loss, Sum(term, n) / N)
    return Layer(name, inputs=inputs, scalars=scalars, outputs=[loss], equations=[*steps, mean], doc=doc)


DIFFERENCE = Eq(d[n], x[n] - z[n])

mse = mean_of("mse", (x[n] - z[n]) ** 2, "Mean squared error (Legendre, 1805).")

l1 = mean_of("l1", Abs(x[n] - z[n]), "Mean absolute error (Boscovich, 1757).")

delta = scalar("delta", default=1.0)
huber = mean_of(
    "huber",
    Piecewise((d[n] ** 2 / 2, Abs(d[n]) <= delta), (delta * (Abs(d[n]) - delta / 2), True)),
    "Huber loss: squared near, absolute far (Huber, 1964).",
    scalars=[delta],
    steps=[DIFFERENCE],
)

beta = scalar("beta", default=1.0)
smooth_l1 = mean_of(
    "smooth_l1",
    Piecewise((d[n] ** 2 / (2 * beta), Abs(d[n]) < beta), (Abs(d[n]) - beta / 2, True)),
    "Smooth absolute error (Girshick, 2015).",
    scalars=[beta],
    steps=[DIFFERENCE],
)

log_cosh = mean_of(
    "log_cosh",
    Abs(x[n] - z[n]) + log(1 + exp(-2 * Abs(x[n] - z[n]))) - log(2),
    "Logarithm of the hyperbolic cosine (Green, 1990), as |d| + log(1 + exp(-2|d|)) - log 2, which cannot overflow.",
)

hinge = mean_of("hinge", Max(1 - z[n] * x[n], 0), "Hinge loss of targets -1 and 1 (Cortes and Vapnik, 1995).")

squared_hinge = mean_of(
    "squared_hinge", Max(1 - z[n] * x[n], 0) ** 2, "Squared hinge loss of targets -1 and 1 (Tang, 2013)."
)

bce_with_logits = mean_of(
    "bce_with_logits",
    log(1 + exp(x[n])) - x[n] * z[n],
    "Binary cross entropy of logits with targets in [0, 1] (Cox, 1958).",
)

poisson_nll = mean_of(
    "poisson_nll", exp(x[n]) - z[n] * x[n], "Negative log likelihood of counts under log rates (Poisson, 1837)."
)

variance = tensor("variance", N)
gaussian_nll = mean_of(
    "gaussian_nll",
    (log(2 * pi * variance[n]) + (x[n] - z[n]) ** 2 / variance[n]) / 2,
    "Negative log likelihood of a normal distribution (Nix and Weigend, 1994).",
    inputs=[x, z, variance],
)

logits, lse = tensor("x", N, C), tensor("lse", N)
labels = tensor("labels", N, dtype="int64")
LOGSUMEXP = Eq(lse[n], log(Sum(exp(logits[n, j]), j)))

cross_entropy = mean_of(
    "cross_entropy",
    lse[n] - logits[n, labels[n]],
    "Cross entropy of logits with integer labels (Good, 1952; Bridle, 1990).",
    inputs=[logits, labels],
    steps=[LOGSUMEXP],
)

smoothing = scalar("smoothing", default=0.1)
smoothed_cross_entropy = mean_of(
    "smoothed_cross_entropy",
    lse[n] - (1 - smoothing) * logits[n, labels[n]] - smoothing * Sum(logits[n, c], c) / C,
    "Cross entropy of logits with labels mixed with the uniform distribution (Szegedy et al., 2016).",
    inputs=[logits, labels],
    scalars=[smoothing],
    steps=[LOGSUMEXP],
)

target = tensor("z", N, C)
soft_cross_entropy = mean_of(
    "soft_cross_entropy",
    lse[n] - Sum(target[n, c] * logits[n, c], c),
    "Cross entropy of logits with target distributions (Hinton, Vinyals and Dean, 2015).",
    inputs=[logits, target],
    steps=[LOGSUMEXP],
)

log_p = tensor("log_p", N, C)
nll = mean_of(
    "nll",
    -log_p[n, labels[n]],
    "Negative log likelihood of integer labels under log probabilities (Fisher, 1922).",
    inputs=[log_p, labels],
)

log_q, p = tensor("log_q p", N, C)
kl_divergence = mean_of(
    "kl_divergence",
    Sum(Piecewise((p[n, c] * (log(p[n, c]) - log_q[n, c]), p[n, c] > 0), (0, True)), c),
    "Divergence of p from log probabilities, with 0 log 0 = 0 (Kullback and Leibler, 1951).",
    inputs=[log_q, p],
)

margin = scalar("margin", default=1.0)
anchor, positive, negative = tensor("x positive negative", N, D)
near, far = tensor("near far", N)
triplet_margin = mean_of(
    "triplet_margin",
    Max(near[n] - far[n] + margin, 0),
    "Triplet loss: the positive nearer than the negative by a margin (Schroff, Kalenichenko and Philbin, 2015).",
    inputs=[anchor, positive, negative],
    scalars=[margin],
    steps=[
        Eq(near[n], sqrt(Sum((anchor[n, k] - positive[n, k]) ** 2, k))),
        Eq(far[n], sqrt(Sum((anchor[n, k] - negative[n, k]) ** 2, k))),
    ],
)

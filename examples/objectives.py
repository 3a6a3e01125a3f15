"""Losses, and single steps of algorithms that are differentiated through."""

from sympy import Eq, Sum, exp, log, sqrt

import jaccomp as jc

N, M = jc.size("N", typical=512), jc.size("M", typical=512)
C, D = jc.size("C", typical=128), jc.size("D", typical=128)
n, m, c, k = jc.index("n", N), jc.index("m", N), jc.index("c", C), jc.index("k", D)
loss = jc.tensor("loss")

x, labels = jc.tensor("x", N, C), jc.tensor("labels", N, dtype="int64")
log_p = jc.tensor("log_p", N)
gamma = jc.scalar("gamma", default=2.0)

focal_loss = jc.Layer(
    "focal_loss",
    inputs=[x, labels],
    scalars=[gamma],
    outputs=[loss],
    equations=[
        Eq(log_p[n], x[n, labels[n]] - log(Sum(exp(x[n, c]), c))),
        Eq(loss, -Sum((1 - exp(log_p[n])) ** gamma * log_p[n], n) / N),
    ],
    doc="Cross entropy that turns away from what is known already (Lin et al., 2017).",
)

a, b = jc.tensor("a", N, D), jc.tensor("b", N, D)
s = jc.tensor("s", N, N)
temperature = jc.tensor("temperature")

contrastive = jc.Layer(
    "contrastive",
    inputs=[a, b, temperature],
    outputs=[loss],
    equations=[
        Eq(
            s[n, m],
            Sum(a[n, k] * b[m, k], k) / sqrt(Sum(a[n, k] ** 2, k) * Sum(b[m, k] ** 2, k)) / temperature,
        ),
        Eq(loss, Sum(log(Sum(exp(s[n, m]), m)) + log(Sum(exp(s[m, n]), m)) - 2 * s[n, n], n) / (2 * N)),
    ],
    doc="Symmetric contrastive loss of pairs, with a learned temperature (Radford et al., 2021).",
)

i, j = jc.index("i", N), jc.index("j", M)
cost, mass, v, u = jc.tensor("cost", N, M), jc.tensor("mass", N), jc.tensor("v", M), jc.tensor("u", N)
epsilon = jc.scalar("epsilon", default=0.1)

sinkhorn_step = jc.Layer(
    "sinkhorn_step",
    inputs=[cost, mass, v],
    scalars=[epsilon],
    outputs=[u],
    equations=[Eq(u[i], epsilon * (log(mass[i]) - log(Sum(exp((v[j] - cost[i, j]) / epsilon), j))))],
    doc="Half a step of entropic optimal transport, in logarithms (Cuturi, 2013; Peyré and Cuturi, 2019).",
)

B, S = jc.size("B", axes="any", typical=64), jc.size("S", typical=64)
r, t, f = jc.index("r", B), jc.index("t", S), jc.index("f", S)
before, after, emission = jc.tensor("before after emission", B, S)
transition = jc.tensor("transition", S, S)

crf_step = jc.Layer(
    "crf_step",
    inputs=[before, emission, transition],
    outputs=[after],
    equations=[Eq(after[r, t], emission[r, t] + log(Sum(exp(before[r, f] + transition[f, t]), f)))],
    doc="One step of the forward recursion of a conditional random field (Lafferty, McCallum and Pereira, 2001).",
)

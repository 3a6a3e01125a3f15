"""Attention over keys of values, for any number of leading axes (batch, heads)."""

from __future__ import annotations

from typing import Any

from sympy import Eq, Sum, exp, sqrt

from jaccomp.layer import Layer
from jaccomp.notation import index, size, tensor

B = size("B", axes="any", typical=32)
N, M = size("N M", typical=512)
D, E = size("D E", typical=64)
b, n, m, l = index("b", B), index("n", N), index("m", M), index("l", M)  # noqa: E741 - beside m in the alphabet
k, e = index("k", D), index("e", E)
q = tensor("q", B, N, D)
key, v = tensor("k", B, M, D), tensor("v", B, M, E)
s, p = tensor("s p", B, N, M)
o = tensor("o", B, N, E)
mask = tensor("mask", N, M)

SCORE = Sum(q[b, n, k] * key[b, m, k], k) / sqrt(D)


def attend(name: str, inputs: list[Any], score: Any, doc: str) -> Layer:
    """The layer `o = softmax(score) v`, each query attending to every key."""
    return Layer(
        name,
        inputs=inputs,
        outputs=[o],
        equations=[
            Eq(s[b, n, m], score),
            Eq(p[b, n, m], exp(s[b, n, m]) / Sum(exp(s[b, n, l]), l)),
            Eq(o[b, n, e], Sum(p[b, n, m] * v[b, m, e], m)),
        ],
        doc=doc,
    )


attention = attend("attention", [q, key, v], SCORE, "Scaled dot-product attention (Vaswani et al., 2017).")

masked_attention = attend(
    "masked_attention",
    [q, key, v, mask],
    SCORE + mask[n, m],
    "Scaled dot-product attention with a mask or bias added to the scores; -∞ masks (Vaswani et al., 2017).",
)

past, earlier = index("m", n + 1), index("l", n + 1)
own_key, own_v = tensor("k", B, N, D), tensor("v", B, N, E)
own_s, own_p = tensor("s p", B, N, N)
causal_attention = Layer(
    "causal_attention",
    inputs=[q, own_key, own_v],
    outputs=[o],
    equations=[
        Eq(own_s[b, n, past], Sum(q[b, n, k] * own_key[b, past, k], k) / sqrt(D)),
        Eq(own_p[b, n, past], exp(own_s[b, n, past]) / Sum(exp(own_s[b, n, earlier]), earlier)),
        Eq(o[b, n, e], Sum(own_p[b, n, past] * own_v[b, past, e], past)),
    ],
    doc="Scaled dot-product attention to the present and the past alone (Vaswani et al., 2017).",
)

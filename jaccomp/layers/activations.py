"""Elementwise activations, over arrays of any shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp
from sympy import Abs, Eq, Max, Min, Piecewise, Rational, erf, exp, log, pi, sqrt

from jaccomp.layer import Layer
from jaccomp.notation import index, scalar, size, tensor

N = size("N", axes="any", typical=1 << 20)
n = index("n", N)
x, y = tensor("x y", N)
slope = tensor("slope")
alpha = scalar("alpha", default=1.0)
negative_slope = scalar("negative_slope", default=0.01)
low, high = scalar("low", default=-1.0), scalar("high", default=1.0)
threshold = scalar("threshold", default=0.5)

# The fixed point for mean 0 and variance 1 (Klambauer et al., 2017, equation 14).
SELU_ALPHA = Rational("1.6732632423543772848170429916717")
SELU_SCALE = Rational("1.0507009873554804934193349852946")


def elementwise(name: str, body: Any, doc: str, scalars: Sequence[Any] = ()) -> Layer:
    """The layer `y[n] = body`, a function of `x[n]` alone."""
    return Layer(name, inputs=[x], scalars=scalars, outputs=[y], equations=[Eq(y[n], body)], doc=doc)


relu = elementwise("relu", Max(x[n], 0), "Rectified linear unit (Nair and Hinton, 2010).")

relu6 = elementwise("relu6", Min(Max(x[n], 0), 6), "Rectified linear unit capped at 6 (Krizhevsky, 2010).")

squared_relu = elementwise("squared_relu", Max(x[n], 0) ** 2, "Squared rectified linear unit (So et al., 2021).")

leaky_relu = elementwise(
    "leaky_relu",
    Piecewise((x[n], x[n] > 0), (negative_slope * x[n], True)),
    "Leaky rectified linear unit (Maas, Hannun and Ng, 2013).",
    [negative_slope],
)

prelu = Layer(
    "prelu",
    inputs=[x, slope],
    outputs=[y],
    equations=[Eq(y[n], Piecewise((x[n], x[n] > 0), (slope * x[n], True)))],
    doc="Parametric rectified linear unit with one learnable slope (He et al., 2015).",
)

elu = elementwise(
    "elu",
    Piecewise((x[n], x[n] > 0), (alpha * (exp(x[n]) - 1), True)),
    "Exponential linear unit (Clevert, Unterthiner and Hochreiter, 2016).",
    [alpha],
)

selu = elementwise(
    "selu",
    SELU_SCALE * Piecewise((x[n], x[n] > 0), (SELU_ALPHA * (exp(x[n]) - 1), True)),
    "Scaled exponential linear unit (Klambauer et al., 2017).",
)

celu = elementwise(
    "celu",
    Piecewise((x[n], x[n] > 0), (alpha * (exp(x[n] / alpha) - 1), True)),
    "Continuously differentiable exponential linear unit (Barron, 2017).",
    [alpha],
)

gelu = elementwise(
    "gelu",
    x[n] * (1 + erf(x[n] / sqrt(2))) / 2,
    "Gaussian error linear unit, x Φ(x) (Hendrycks and Gimpel, 2016).",
)

gelu_tanh = elementwise(
    "gelu_tanh",
    x[n] * (1 + sp.tanh(sqrt(2 / pi) * (x[n] + Rational("0.044715") * x[n] ** 3))) / 2,
    "Gaussian error linear unit, the approximation by tanh (Hendrycks and Gimpel, 2016).",
)

quick_gelu = elementwise(
    "quick_gelu",
    x[n] / (1 + exp(-Rational("1.702") * x[n])),
    "Gaussian error linear unit, the approximation by a sigmoid (Hendrycks and Gimpel, 2016).",
)

sigmoid = elementwise("sigmoid", 1 / (1 + exp(-x[n])), "Logistic sigmoid (Verhulst, 1845).")

log_sigmoid = elementwise("log_sigmoid", -log(1 + exp(-x[n])), "Logarithm of the logistic sigmoid (Verhulst, 1845).")

silu = elementwise(
    "silu",
    x[n] / (1 + exp(-x[n])),
    "Sigmoid linear unit (Elfwing, Uchibe and Doya, 2018), also swish (Ramachandran, Zoph and Le, 2017).",
)

mish = elementwise("mish", x[n] * sp.tanh(log(1 + exp(x[n]))), "Mish, x tanh(softplus(x)) (Misra, 2019).")

softplus = elementwise("softplus", log(1 + exp(x[n])), "Softplus (Dugas et al., 2001).")

softsign = elementwise("softsign", x[n] / (1 + Abs(x[n])), "Softsign (Bergstra et al., 2009).")

tanh = elementwise("tanh", sp.tanh(x[n]), "Hyperbolic tangent (as an activation, LeCun et al., 1998).")

tanh_shrink = elementwise("tanh_shrink", x[n] - sp.tanh(x[n]), "x - tanh(x) (torch.nn.Tanhshrink).")

hardtanh = elementwise("hardtanh", Min(Max(x[n], low), high), "Piecewise linear tanh (Collobert, 2004).", [low, high])

hardsigmoid = elementwise(
    "hardsigmoid",
    Min(Max(x[n] + 3, 0), 6) / 6,
    "Piecewise linear sigmoid (Courbariaux, Bengio and David, 2015; of slope 1/6, Howard et al., 2019).",
)

hardswish = elementwise("hardswish", x[n] * Min(Max(x[n] + 3, 0), 6) / 6, "Hard swish (Howard et al., 2019).")

soft_shrink = elementwise(
    "soft_shrink",
    Max(x[n] - threshold, 0) + Min(x[n] + threshold, 0),
    "Soft thresholding, the proximal operator of the l1 norm (Donoho, 1995).",
    [threshold],
)

hard_shrink = elementwise(
    "hard_shrink",
    Piecewise((x[n], Abs(x[n]) > threshold), (0, True)),
    "Hard thresholding (Donoho and Johnstone, 1994).",
    [threshold],
)

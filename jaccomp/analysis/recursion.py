"""The mean-field recursion: what each kind of layer does, in wide random networks, to entries and to gradients.

    weights       q -> σ_w² q + σ_b²                      χ -> σ_w² χ
    activation    q -> E φ(h)²                            χ -> E φ'(h)² χ       h ~ N(m, q - m²)
    layer norm    q -> (q - m²) E g² / (q - m² + ε) + E b²    χ -> E g² / (q - m² + ε) χ
    RMS norm      q -> q E g² / (q + ε)                   χ -> E g² / (q + ε) χ
    sum           variances and means add                 χ -> s² χ + χ'        of s x + z

q is the mean square of a tensor's entries and m their mean; χ is the growth of the mean square of a cotangent, or of a
tangent, since the recursion began. Weights are taken to be independent of what they meet, and centred (Poole et al.,
2016; Schoenholz et al., 2017; Yang and Schoenholz, 2017, for residual sums).

The theory of one activation (`theory`) and what is expected of a model (`expectation`) are both made of these steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from jaccomp.analysis.activation import Activation
from jaccomp.analysis.gaussian import gaussian_rule

TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Signal:
    """The mean square `q` and the mean `m` of a tensor's entries, and the growth `chi` of squared norms so far.

    `drawn` are the random weights that it was last made by: signals that share none are uncorrelated but for means.
    """

    q: float
    m: float = 0.0
    chi: float = 1.0
    drawn: frozenset[str] = frozenset()

    @property
    def variance(self) -> float:
        return max(self.q - self.m**2, 0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """The mean square and the mean of a parameter's entries."""

    square: float
    mean: float = 0.0


def through_weights(one: Signal, gain: float, bias: Spread, drawn: frozenset[str] = frozenset()) -> Signal:
    """W x + b, with `gain` = σ_w², the mean square of a row of W."""
    return Signal(gain * one.q + bias.square, bias.mean, gain * one.chi, drawn)


def through_activation(one: Signal, phi: Activation) -> Signal:
    u, weights = gaussian_rule(one.variance, phi.kinks, one.m)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite mean square is said by its value
        values, slopes = phi.value(u), phi.slope(u)
        square, mean, steep = float(weights @ values**2), float(weights @ values), float(weights @ slopes**2)
    return replace(one, q=square, m=mean, chi=steep * one.chi)


def through_layer_norm(one: Signal, gain: Spread, shift: Spread, eps: float) -> Signal:
    share = gain.square / max(one.variance + eps, TINY)
    return replace(one, q=share * one.variance + shift.square, m=shift.mean, chi=share * one.chi)


def through_rms_norm(one: Signal, gain: Spread, eps: float) -> Signal:
    size = max(one.q + eps, TINY)
    mean = gain.mean * one.m / math.sqrt(size)
    return replace(one, q=gain.square * one.q / size, m=mean, chi=gain.square / size * one.chi)


def through_sum(one: Signal, other: Signal, scale: float = 1.0) -> Signal | None:
    """scale · one + other; None where both were made by the same weights, and are correlated in ways not told here."""
    if one.drawn & other.drawn:
        return None
    mean = scale * one.m + other.m
    variance = scale**2 * one.variance + other.variance
    return Signal(variance + mean**2, mean, scale**2 * one.chi + other.chi, one.drawn | other.drawn)


def depth_scale(slope: float) -> float:
    """1/|log slope|, the layers over which slope^l changes by a factor e; infinite at 1, NaN where it is not known."""
    if math.isnan(slope):
        return math.nan
    if slope == 0:
        return 0.0
    rate = abs(math.log(abs(slope)))
    return 1 / rate if rate > 1e-9 else math.inf

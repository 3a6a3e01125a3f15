"""Mean-field theory of wide random networks: what the activation and the scales of weights and biases alone decide.

    h[l] = W[l] x[l-1] + b[l],   x[l] = φ(h[l]),   W[l] ~ N(0, σ_w²/N),   b[l] ~ N(0, σ_b²)

In the limit of infinite width every h is Gaussian of a variance q, its length, which goes from layer to layer by the
length map; and a tangent or cotangent grows by χ = σ_w² E[φ'(√q z)²] per layer in its mean square (Poole et al., 2016;
Schoenholz et al., 2017). χ < 1: gradients vanish, and any two inputs become one (order); χ > 1: they explode, and close
inputs part (chaos).

    field = mean_field("tanh", sigma_w=1.5, sigma_b=0.1)
    field.length, field.chi, field.phase, field.gradient_depth

An activation is any elementwise layer (`activation`); the maps are the steps of `recursion`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from jaccomp.analysis.activation import Activation, activation
from jaccomp.analysis.gaussian import Array, expectation, joint_expectation
from jaccomp.analysis.recursion import Signal, Spread, depth_scale, through_activation, through_weights
from jaccomp.analysis.result import Result
from jaccomp.errors import UsageError
from jaccomp.layer import Layer

Phase = Literal["ordered", "critical", "chaotic"]

SMALLEST, LARGEST = 1e-12, 1e12  # lengths beyond which a limit is taken for 0 or infinity
CRITICAL = 1e-6  # |log χ| below which a network counts as critical


# The maps from layer to layer


@dataclass(frozen=True, slots=True)
class Maps:
    """How lengths and correlations go from a layer to the next, for one activation and one initialisation."""

    activation: Activation
    sigma_w: float
    sigma_b: float

    def step(self, q: float) -> Signal:
        """From the pre-activations of a layer, of length q, to those of the next."""
        return through_weights(through_activation(Signal(q), self.activation), self.sigma_w**2, Spread(self.sigma_b**2))

    def length(self, q: float) -> float:
        """σ_w² E[φ(√q z)²] + σ_b² (Poole et al., 2016)."""
        return self.step(q).q

    def chi(self, q: float) -> float:
        """χ = σ_w² E[φ'(√q z)²]: the growth per layer of the mean square of a tangent or a cotangent."""
        return self.step(q).chi

    def slope_moment(self, q: float, k: int = 1) -> float:
        """μ_k = E[φ'(√q z)^(2k)] (Pennington, Schoenholz and Ganguli, 2018)."""
        one = self.activation
        return expectation(lambda u: one.slope(u) ** (2 * k), q, one.kinks)

    def length_slope(self, q: float) -> float:
        """The derivative of the length map, σ_w² E[z φ φ'] / √q."""
        one = self.activation
        return self.sigma_w**2 / q * expectation(lambda u: u * one.value(u) * one.slope(u), q, one.kinks)

    def correlation(self, c: float, q: float) -> float:
        """The correlation of two inputs after a layer (Poole et al., 2016)."""
        one = self.activation
        both = self.sigma_w**2 * joint_expectation(one.value, q, c, one.kinks) + self.sigma_b**2
        return both / self.length(q)

    def correlation_slope(self, c: float, q: float) -> float:
        """The derivative of the correlation map, at c = 1 and the fixed length χ; 0 where no signal is left."""
        one = self.activation
        after = self.length(q)
        return self.sigma_w**2 * joint_expectation(one.slope, q, c, one.kinks) * q / after if after > 0 else 0.0

    def lengths(self, first: float, depth: int) -> Array:
        """q[1] ... q[depth] of the pre-activations, from that of the first layer."""
        found = [first]
        while len(found) < depth:
            found.append(self.length(found[-1]))
        return np.array(found[:depth])


@dataclass(frozen=True)
class MeanField(Result):
    """What the theory says of one activation and initialisation.

    `length` is the fixed point q* of the length map: 0 where signals die out, infinite where they grow for ever. `chi`
    is the growth of the mean square of gradients per layer there, `correlation` the stable fixed point of the
    correlation map, and `length_depth`, `correlation_depth` (ξ_q and ξ_c of Schoenholz et al., 2017)
    and `gradient_depth` = 1/|log χ| are the numbers of layers over which each changes by a factor e; infinite where it
    changes more slowly than exponentially.
    """

    activation: str
    sigma_w: float
    sigma_b: float
    length: float
    chi: float
    phase: Phase
    correlation: float
    length_depth: float
    correlation_depth: float
    gradient_depth: float

    @property
    def growth(self) -> float:
        """The factor per layer of the norm of a gradient, √χ."""
        return math.sqrt(self.chi)

    @property
    def text(self) -> str:
        return (
            f"{self.activation}, σ_w {self.sigma_w:.4g}, σ_b {self.sigma_b:.4g}: {self.phase}; q* {self.length:.4g}, "
            f"χ {self.chi:.4g}, c* {self.correlation:.4g}; depth scales: length {self.length_depth:.3g}, "
            f"correlation {self.correlation_depth:.3g}, gradient {self.gradient_depth:.3g}"
        )


def mean_field(
    given: str | Layer | Activation, sigma_w: float, sigma_b: float = 0.0, *, length: float = 1.0
) -> MeanField:
    """The fixed point that a network reaches from the length `length` of its first pre-activations, and all that it
    decides. A length that is a fixed point itself stays: every one is, for linear networks of σ_w = 1 and σ_b = 0.

    Raises `UsageError` for scales that are negative or not finite, for a length that is not positive, and for an
    activation that is not finite there.
    """
    if not (0 <= sigma_w < math.inf and 0 <= sigma_b < math.inf and 0 < length < math.inf):
        raise UsageError(
            "mean-field theory",
            f"σ_w is {sigma_w}, σ_b is {sigma_b}, and the first length is {length}.",
            "Scales are 0 or more, and a length is positive.",
        )
    maps = Maps(activation(given), float(sigma_w), float(sigma_b))
    first = maps.step(length)
    if not (math.isfinite(first.q) and math.isfinite(first.chi)):
        raise UsageError(
            f"mean-field theory of {maps.activation.name!r}",
            f"E[φ²] or E[φ'²] is NaN or infinite at length {length}.",
            "Pass an activation that is finite on the whole line, or a smaller length.",
        )
    q = fixed_length(maps, length)
    near = min(max(q, SMALLEST), LARGEST)
    chi = maps.chi(near)
    phase: Phase = "ordered" if chi < math.exp(-CRITICAL) else "chaotic" if chi > math.exp(CRITICAL) else "critical"
    c = fixed_correlation(maps, near)
    return MeanField(
        maps.activation.name,
        maps.sigma_w,
        maps.sigma_b,
        q,
        chi,
        phase,
        c,
        depth_scale(maps.length_slope(near)),
        depth_scale(maps.correlation_slope(c, near)),
        depth_scale(chi),
    )


def fixed_length(maps: Maps, start: float) -> float:
    """q* next to `start` in the direction in which the length map leads; 0 or infinite where it leads that far."""
    from scipy.optimize import brentq

    def excess(q: float) -> float:
        return maps.length(q) / q - 1

    here = excess(start)
    if abs(here) < 1e-12:
        return start
    factor = 2.0 if here > 0 else 0.5
    near, far = start, start * factor
    while SMALLEST <= far <= LARGEST:
        if excess(far) * here <= 0:
            low, high = min(near, far), max(near, far)
            return float(brentq(excess, low, high, xtol=1e-14 * low, rtol=1e-13))
        near, far = far, far * factor
    return 0.0 if here < 0 else math.inf


def fixed_correlation(maps: Maps, q: float) -> float:
    """The stable fixed point of the correlation map at a length: 1 in order; in chaos, one below.

    NaN where the moments of the activation there are infinite.
    """
    from scipy.optimize import brentq

    slope = maps.correlation_slope(1.0, q)
    if math.isnan(slope) or slope <= math.exp(CRITICAL):
        return math.nan if math.isnan(slope) else 1.0

    def excess(c: float) -> float:
        return maps.correlation(c, q) - c

    top = 1 - 1e-7
    while excess(top) >= 0:  # so close to the line that the fixed point is lost in rounding
        top = 1 - 2 * (1 - top)
        if top < 0.5:
            return 1.0
    if excess(0.0) <= 1e-14:
        return 0.0
    return float(brentq(excess, 0.0, top, xtol=1e-13))


def critical_scales(given: str | Layer | Activation, lengths: ArrayLike) -> tuple[Array, Array]:
    """The order-to-chaos line χ = 1 by its length q*: σ_w and σ_b for each, NaN where no σ_b serves.

    σ_w² = 1 / E[φ'²] and σ_b² = q - σ_w² E[φ²] (Pennington, Schoenholz and Ganguli, 2017). Raises `UsageError` for a
    length that is not positive.
    """
    one = activation(given)
    q = np.asarray(lengths, dtype=float)
    if not np.all((q > 0) & np.isfinite(q)):
        raise UsageError("order-to-chaos line", "a length is 0, negative or not finite.", "Pass positive lengths.")
    found = np.array([_critical(one, float(each)) for each in q.flat]).reshape(*q.shape, 2)
    return found[..., 0], np.sqrt(np.where(found[..., 1] >= 0, found[..., 1], np.nan))


def _critical(one: Activation, q: float) -> tuple[float, float]:
    """σ_w and σ_b² on the order-to-chaos line at a length; σ_w is infinite where φ is flat, σ_b² may be negative."""
    after = Maps(one, 1.0, 0.0).step(q)
    if after.chi == 0:
        return math.inf, -math.inf
    bias = q - after.q / after.chi
    return after.chi**-0.5, 0.0 if abs(bias) < 1e-12 * q else bias


def critical_sigma_w(given: str | Layer | Activation, sigma_b: float) -> float:
    """σ_w on the order-to-chaos line at this σ_b, at the least length where there are several.

    Raises `UsageError` where the line does not reach it, as for ReLU with any bias, and for a negative σ_b.
    """
    from scipy.optimize import brentq

    one = activation(given)
    what = f"order-to-chaos line of {one.name!r}"
    if not 0 <= sigma_b < math.inf:
        raise UsageError(what, f"σ_b is {sigma_b}.", "Pass 0 or more.")

    def excess(log_length: float) -> float:
        return max(_critical(one, math.exp(log_length))[1], -LARGEST) - sigma_b**2

    grid = np.linspace(math.log(SMALLEST), math.log(1e6), 60)
    above = np.array([excess(one) >= 0 for one in grid.tolist()])
    if not above.any():
        raise UsageError(what, f"it does not reach σ_b = {sigma_b}.", "Pass another σ_b.")
    k = int(np.argmax(above))
    log_length = grid[0] if k == 0 else brentq(excess, grid[k - 1], grid[k], xtol=1e-13)
    return _critical(one, math.exp(float(log_length)))[0]

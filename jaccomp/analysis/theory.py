"""Mean-field theory of wide random networks: what the activation and the scales of weights and biases alone decide.

    h[l] = W[l] x[l-1] + b[l],   x[l] = φ(h[l]),   W[l] ~ N(0, σ_w²/N),   b[l] ~ N(0, σ_b²)

In the limit of infinite width every h is Gaussian of a variance q, its length, which goes from layer to layer by the
length map; and a tangent or cotangent grows by χ = σ_w² E[φ'(√q z)²] per layer in its mean square (Poole et al., 2016;
Schoenholz et al., 2017). χ < 1: gradients vanish, and any two inputs become one (order); χ > 1: they explode, and close
inputs part (chaos).

    field = mean_field("tanh", sigma_w=1.5, sigma_b=0.1)
    field.length, field.chi, field.phase, field.gradient_depth

An activation is any elementwise layer of the library, evaluated by its own kernels; expectations are Gauss-Legendre
sums over panels that end at its kinks, where the usual Gauss-Hermite sums converge slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.result import Result
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.layer import Layer

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
Phase = Literal["ordered", "critical", "chaotic"]

# Where each layer of the library is not smooth: ends of panels.
KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "relu6": (0.0, 6.0),
    "squared_relu": (0.0,),
    "leaky_relu": (0.0,),
    "elu": (0.0,),
    "selu": (0.0,),
    "celu": (0.0,),
    "softsign": (0.0,),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
}
REACH = 12.0  # standard deviations; the Gaussian beyond weighs 4e-33
NODES, JOINT_NODES = 32, 14  # of each panel, in one variable and in each of two
SMALLEST, LARGEST = 1e-12, 1e12  # lengths beyond which a limit is taken for 0 or infinity
CRITICAL = 1e-6  # |log χ| below which a network counts as critical


@dataclass(frozen=True, slots=True)
class Activation:
    """φ and φ' as functions of arrays, and the `kinks` where φ or φ' is not smooth."""

    name: str
    value: Function
    slope: Function
    kinks: tuple[float, ...] = ()


IDENTITY = Activation("linear", lambda u: u, np.ones_like)


def activation(given: str | Layer | Activation) -> Activation:
    """An elementwise layer, or the library's by its name, as φ and φ'; "linear" and "identity" are φ(u) = u.

    Raises `UsageError` for a layer that is not a function of one array at its default scalars.
    """
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        if given in {"linear", "identity"}:
            return IDENTITY
        return _of_library(given)
    return _of_layer(given)


@cache
def _of_library(name: str) -> Activation:
    from jaccomp import layers

    return _of_layer(layers.get(name))


def _of_layer(layer: Layer) -> Activation:
    from jaccomp.compiling import compile

    spec = layer.spec
    if len(spec.inputs) != 1 or len(spec.outputs) != 1 or any(s.default is None for s in spec.scalars):
        raise UsageError(
            f"mean-field theory of layer {layer.name!r}",
            f"it reads {', '.join(t.name for t in spec.inputs)}, and an activation reads one array.",
            "Bind the others, or pass an Activation with φ and φ'.",
        )
    kernel: Any = compile(layer, backend="numpy")
    if not layer.jacobian().certificate.words.startswith("diagonal"):
        raise UsageError(
            f"mean-field theory of layer {layer.name!r}",
            f"its Jacobian is {layer.jacobian().certificate.words}, and that of an activation is diagonal.",
            "Pass an elementwise layer.",
        )
    return Activation(
        layer.name,
        lambda u: np.asarray(kernel.forward(u)),
        lambda u: np.asarray(kernel.jvp((u,), (np.ones_like(u),))[1]),
        KINKS.get(layer.name, ()),
    )


# Expectations


def _panels(ends: Array, count: int = NODES) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights of N(0, 1) on the panels between `ends` [..., P + 1] -> [..., P * count]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    left, right = ends[..., :-1, None], ends[..., 1:, None]
    z = (left + right) / 2 + (right - left) / 2 * nodes
    w = (right - left) / 2 * weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    flat = (*ends.shape[:-1], -1)
    return z.reshape(flat), w.reshape(flat)


def _marks(scale: float, kinks: Iterable[float]) -> Array:
    """Where φ(scale·z) may change its course: its kinks, and places that are of the order of 1 before scaling."""
    steps = 2.0 ** np.arange(-1, 7)
    inner = np.array([*kinks, 0.0, *steps, *-steps]) / scale if scale > 0 else np.zeros(1)
    return np.unique(np.clip(np.concatenate([inner, np.linspace(-REACH, REACH, 9)]), -REACH, REACH))


def gaussian_rule(length: float, kinks: Iterable[float] = ()) -> tuple[Array, Array]:
    """Nodes u and weights with Σ w f(u) = E[f(u)], u ~ N(0, q) at q = `length`, for an f with these kinks."""
    scale = math.sqrt(length)
    z, w = _panels(_marks(scale, kinks))
    return scale * z, w


def expectation(function: Function, length: float, kinks: Iterable[float] = ()) -> float:
    """E[f(√q z)] of z ~ N(0, 1) at q = `length`; f may have kinks where it is told."""
    u, w = gaussian_rule(length, kinks)
    return float(w @ function(u))


def joint_expectation(function: Function, length: float, correlation: float, kinks: Iterable[float] = ()) -> float:
    """E[f(u₁) f(u₂)] of two Gaussians of variance q = `length` and a correlation of -1 to 1.

    u₂ is integrated given u₁, with panels that follow its kinks.
    """
    scale, apart = math.sqrt(length), math.sqrt(max(0.0, 1 - correlation**2))
    kinks = tuple(kinks)
    # Near a kink, u₁ decides on which side of it u₂ lies, the more sharply the less apart they are.
    close = [(k / scale + reach * apart) / (correlation or 1.0) for k in kinks for reach in (-8, -4, -1.5, 1.5, 4, 8)]
    outer = np.concatenate([_marks(scale, kinks), np.clip(close, -REACH, REACH)])
    first, weights = _panels(np.sort(outer), JOINT_NODES)
    if apart < 1e-8:
        return float(weights @ (function(scale * first) * function(math.copysign(scale, correlation) * first)))
    marks = (_marks(scale, kinks)[None, :] - correlation * first[:, None]) / apart
    fixed = np.broadcast_to(np.linspace(-REACH, REACH, 9), (first.size, 9))
    ends = np.sort(np.clip(np.concatenate([marks, fixed], axis=1), -REACH, REACH), axis=1)
    second, inner = _panels(ends, JOINT_NODES)
    u = scale * (correlation * first[:, None] + apart * second)
    return float(weights @ (function(scale * first) * np.sum(inner * function(u), axis=1)))


# The maps from layer to layer


@dataclass(frozen=True, slots=True)
class Maps:
    """How lengths and correlations go from a layer to the next, for one activation and one initialisation."""

    activation: Activation
    sigma_w: float
    sigma_b: float

    def length(self, q: float) -> float:
        """σ_w² E[φ(√q z)²] + σ_b² (Poole et al., 2016)."""
        one = self.activation
        return self.sigma_w**2 * expectation(lambda u: one.value(u) ** 2, q, one.kinks) + self.sigma_b**2

    def slope_moment(self, q: float, k: int = 1) -> float:
        """μ_k = E[φ'(√q z)^(2k)] (Pennington, Schoenholz and Ganguli, 2018)."""
        one = self.activation
        return expectation(lambda u: one.slope(u) ** (2 * k), q, one.kinks)

    def chi(self, q: float) -> float:
        """χ = σ_w² E[φ'(√q z)²]: the growth per layer of the mean square of a tangent or a cotangent."""
        return self.sigma_w**2 * self.slope_moment(q)

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
        """The derivative of the correlation map; at c = 1 and the fixed length it is χ."""
        one = self.activation
        return self.sigma_w**2 * joint_expectation(one.slope, q, c, one.kinks) * q / self.length(q)

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

    Raises `UsageError` for scales that are negative or not finite, and for a length that is not positive.
    """
    if not (0 <= sigma_w < math.inf and 0 <= sigma_b < math.inf and 0 < length < math.inf):
        raise UsageError(
            "mean-field theory",
            f"σ_w is {sigma_w}, σ_b is {sigma_b}, and the first length is {length}.",
            "Scales are 0 or more, and a length is positive.",
        )
    maps = Maps(activation(given), float(sigma_w), float(sigma_b))
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
        _depth(maps.length_slope(near)),
        _depth(maps.correlation_slope(c, near)),
        _depth(chi),
    )


def _depth(slope: float) -> float:
    """The number of layers over which slope^l changes by a factor e."""
    if slope <= 0:
        return 0.0
    rate = abs(math.log(slope))
    return 1 / rate if rate > 1e-9 else math.inf


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
            return float(brentq(excess, min(near, far), max(near, far), xtol=1e-14 * start, rtol=1e-13))
        near, far = far, far * factor
    return 0.0 if here < 0 else math.inf


def fixed_correlation(maps: Maps, q: float) -> float:
    """The stable fixed point of the correlation map at a length: 1 in order; in chaos, one below."""
    from scipy.optimize import brentq

    if maps.correlation_slope(1.0, q) <= math.exp(CRITICAL):
        return 1.0

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

    σ_w² = 1 / E[φ'²] and σ_b² = q - σ_w² E[φ²] (Pennington, Schoenholz and Ganguli, 2017).
    """
    one = activation(given)
    q = np.asarray(lengths, dtype=float)
    squares = np.array([expectation(lambda u: one.value(u) ** 2, float(each), one.kinks) for each in q.flat])
    slopes = np.array([expectation(lambda u: one.slope(u) ** 2, float(each), one.kinks) for each in q.flat])
    bias = q - (squares / slopes).reshape(q.shape)
    bias = np.where(np.abs(bias) < 1e-12 * q, 0.0, bias)
    return (slopes**-0.5).reshape(q.shape), np.sqrt(np.where(bias >= 0, bias, np.nan))


def critical_sigma_w(given: str | Layer | Activation, sigma_b: float) -> float:
    """σ_w on the order-to-chaos line at this σ_b. Raises `UsageError` where the line does not reach it, as for ReLU
    with any bias."""
    from scipy.optimize import brentq

    one = activation(given)
    if sigma_b == 0:
        return float(critical_scales(one, SMALLEST)[0])

    def excess(log_length: float) -> float:
        bias = critical_scales(one, math.exp(log_length))[1]
        return float(bias) - sigma_b if math.isfinite(bias) else -sigma_b

    low, high = math.log(SMALLEST), math.log(1e6)
    if excess(high) < 0:
        raise UsageError(
            f"order-to-chaos line of {one.name!r}", f"it does not reach σ_b = {sigma_b}.", "Pass a smaller σ_b."
        )
    return float(critical_scales(one, math.exp(float(brentq(excess, low, high, xtol=1e-13))))[0])

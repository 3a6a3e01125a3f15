"""What mean-field theory expects of a model: how squared norms of cotangents grow over each layer, in wide layers.

    linear        q -> σ_w² q + σ_b²              χ -> σ_w² χ         σ_w² = ‖W‖_F² / outputs
    elementwise   q -> E φ(h)²                    χ -> E φ'(h)² χ     h ~ N(m, q - m²)
    layer norm    q -> mean g² + mean bias²       χ -> mean g² / (q - m²) χ
    sum           q -> variances and means add    χ -> Σ scale² χ

q is the mean square of a tensor's entries and m their mean. Weights are taken to be independent of what they meet and
centred (Poole et al., 2016; Schoenholz et al., 2017; Yang and Schoenholz, 2017, for residual sums).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.analysis.architecture import known, scaled_sum
from jaccomp.analysis.result import Result
from jaccomp.analysis.segments import Segment
from jaccomp.composition import Placed
from jaccomp.layer import Layer
from jaccomp.layers import joins, normalisations, products

if TYPE_CHECKING:
    from jaccomp.analysis.model import Model

Array = NDArray[Any]
NODES = np.linspace(-8.0, 8.0, 1601)  # a trapezoid rule, since activations have kinks: good to 1e-5
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
LARGEST = 1e100  # a mean square beyond which nothing is said
LONGEST = 200  # steps to a fixed point; at criticality q comes to it by powers of the depth only


@dataclass(frozen=True, slots=True)
class Moments:
    """The mean square `q` and the mean `m` of a tensor's entries, and the growth `chi` of squared norms so far."""

    q: float
    m: float
    chi: float


@dataclass(frozen=True)
class Expectation(Result):
    """The mean-field growth of the norm over each layer, as a logarithm, the input's first; `rate` is their mean.

    `chi` is the growth of squared norms over one more layer like the last, at the `q` that such layers come to, and
    `depth_scale` the layers 1/|log χ| over which it acts; NaN where q does not settle.
    """

    growths: tuple[float, ...]
    rate: float
    q: float
    chi: float
    depth_scale: float

    @property
    def text(self) -> str:
        return (
            f"mean-field: {self.rate:+.4f} a layer; fixed point q = {self.q:.4g}, χ = {self.chi:.4g}, "
            f"depth scale {self.depth_scale:.3g}"
        )


def expectation(
    model: Model, layers: Sequence[Segment], square: float, mean: float = 0.0, *, settle: bool = True
) -> Expectation | None:
    """What theory expects of a model whose input's entries have that mean square and mean.

    The fixed point is sought where `settle`. None where a stage is neither linear, elementwise, a layer or RMS norm
    over the features, nor a sum; and where numbers leave the range of floats, or no gradient is left.
    """
    if not layers:
        return None
    growths = []
    state = Moments(square, mean, 1.0)
    for one in layers:
        after = _through(model, one, Moments(state.q, state.m, 1.0))
        if after is None or not 0 < after.chi < LARGEST or not after.q < LARGEST:
            return None
        growths.append(log(after.chi) / 2)
        state = after
    q, chi = _fixed(model, layers[-1], state) if settle else (float("nan"), float("nan"))
    return Expectation(tuple(growths), float(np.mean(growths)), q, chi, depth_scale(chi))


def _fixed(model: Model, layer: Segment, state: Moments) -> tuple[float, float]:
    """q and χ where that layer's map has come to rest; NaN where it does not."""
    for _ in range(LONGEST):
        after = _through(model, layer, Moments(state.q, state.m, 1.0))
        if after is None or not after.q < 1e12:
            break
        if abs(after.q - state.q) <= 1e-6 * max(abs(after.q), 1e-6):
            return after.q, after.chi
        state = after
    return float("nan"), float("nan")


def _through(model: Model, layer: Segment, start: Moments) -> Moments | None:
    state = {layer.start: start}
    for placed in layer.stages:
        given = {own: state[name] for own, name in placed.inputs.items() if name in state}
        found = _stage(model, placed, given)
        if found is None:
            return None
        state |= dict.fromkeys(placed.outputs.values(), found)
    return state.get(layer.end)


def _stage(model: Model, placed: Placed, given: dict[str, Moments]) -> Moments | None:
    values = {own: model.parameters[name] for own, name in placed.inputs.items() if name in model.parameters}
    kind = known(placed.layer)
    if kind is products.linear and [*given] == ["x"]:
        one, gain = given["x"], float((values["W"] ** 2).sum() / len(values["W"]))
        return Moments(gain * one.q + float(np.mean(values["b"] ** 2)), float(np.mean(values["b"])), gain * one.chi)
    if kind in (normalisations.layernorm, normalisations.rmsnorm) and [*given] == ["x"]:
        one = given["x"]
        gain = float(np.mean(values["g"] ** 2))
        shift = values.get("bias", np.zeros(1))
        spread = one.q - one.m**2 if kind is normalisations.layernorm else one.q
        mean = (
            0.0
            if kind is normalisations.layernorm
            else one.m / max(spread, 1e-300) ** 0.5 * float(np.mean(values["g"]))
        )
        return Moments(
            gain + float(np.mean(shift**2)), mean + float(np.mean(shift)), gain / max(spread, 1e-300) * one.chi
        )
    if kind in (joins.add, scaled_sum()) and len(given) == 2:
        scale = float(model.own(placed).get("scale", 1.0)) if kind is scaled_sum() else 1.0
        scales = {"x": scale, "z": 1.0}
        spread = sum(scales[own] ** 2 * (one.q - one.m**2) for own, one in given.items())
        mean = sum(scales[own] * one.m for own, one in given.items())
        return Moments(spread + mean**2, mean, sum(scales[own] ** 2 * one.chi for own, one in given.items()))
    if len(given) == 1 and not values and _is_elementwise(placed.layer):
        return _elementwise(model, placed, next(iter(given.values())))
    return None


@cache
def _is_elementwise(layer: Layer) -> bool:
    if len(layer.spec.inputs) != 1 or len(layer.spec.outputs) != 1:
        return False
    return layer.jacobian().certificate.words in ("diagonal", "identity")


def _elementwise(model: Model, placed: Placed, one: Moments) -> Moments:
    points = one.m + max(one.q - one.m**2, 0.0) ** 0.5 * NODES
    values, pullback = model.kernels[placed.name].vjp(points, **model.own(placed))
    slopes = pullback(np.ones_like(points))[0]
    return Moments(float(WEIGHTS @ values**2), float(WEIGHTS @ values), float(WEIGHTS @ slopes**2) * one.chi)


def depth_scale(chi: float) -> float:
    """1/|log χ|: infinite at χ = 1, NaN where χ is not known."""
    return float("nan") if not chi > 0 else float("inf") if chi == 1 else 1 / abs(log(chi))

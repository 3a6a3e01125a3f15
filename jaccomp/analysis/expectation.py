"""What mean-field theory expects of a model: how squared norms of cotangents grow over each layer, in wide layers.

Stages are taken one by one through the steps of `recursion`, at the parameters that the model has:
σ_w² = ‖W‖_F² / outputs, and the means over entries of biases, gains and shifts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from jaccomp.analysis.activation import is_elementwise, of_kernel
from jaccomp.analysis.architecture import known, scaled_sum
from jaccomp.analysis.recursion import (
    Signal,
    Spread,
    depth_scale,
    through_activation,
    through_layer_norm,
    through_rms_norm,
    through_sum,
    through_weights,
)
from jaccomp.analysis.result import Result
from jaccomp.analysis.segments import Segment
from jaccomp.composition import Placed
from jaccomp.layers import joins, normalisations, products

if TYPE_CHECKING:
    from jaccomp.analysis.model import Model

LARGEST = 1e100  # a mean square beyond which nothing is said
REST = 1e-6  # the part of q within which its fixed point is known
LONGEST = 200  # steps to a fixed point; at criticality q comes to it by powers of the depth only


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
        grows = f"mean-field: {self.rate:+.4f} a layer; "
        if math.isnan(self.q):
            return grows + "too few layers, or too unlike, for a fixed point"
        return grows + f"fixed point q = {self.q:.4g}, χ = {self.chi:.4g}, depth scale {self.depth_scale:.3g}"


def expectation(
    model: Model, layers: Sequence[Segment], square: float, mean: float = 0.0, *, settle: bool = True
) -> Expectation | None:
    """What theory expects of a model whose input's entries have that mean square and mean.

    The fixed point is sought where `settle`. None where a stage is neither linear, elementwise, a layer or RMS norm
    over the features, nor a sum of what different weights made; where one of them reads a parameter that is not the
    model's; and where numbers leave the range of floats, or no gradient is left.
    """
    if not layers:
        return None
    growths = []
    state = Signal(square, mean)
    for one in layers:
        after = _through(model, one, state)
        if after is None or not 0 < after.chi < LARGEST or not after.q < LARGEST:
            return None
        growths.append(math.log(after.chi) / 2)
        state = after
    q, chi = _fixed(model, layers[-1], state) if settle else (math.nan, math.nan)
    return Expectation(tuple(growths), float(np.mean(growths)), q, chi, depth_scale(chi))


def _fixed(model: Model, layer: Segment, state: Signal) -> tuple[float, float]:
    """q and χ where that layer's map has come to rest, to about `REST` of q; NaN where it does not.

    Two changes that follow each other, c and r c, leave c r/(1 - r) to come.
    """
    before = math.inf
    for _ in range(LONGEST):
        after = _through(model, layer, state)
        if after is None or not after.q < 1e12:
            break
        change, size = abs(after.q - state.q), max(after.q, REST)
        still = change <= 1e-12 * size
        if still or (change < before < math.inf and change**2 <= REST * size * (before - change)):
            return after.q, after.chi
        state, before = after, change
    return math.nan, math.nan


def _through(model: Model, layer: Segment, before: Signal) -> Signal | None:
    """The signal behind a layer, and its growth over that layer alone."""
    state = {layer.start: Signal(before.q, before.m, 1.0, frozenset([layer.start]))}
    for placed in layer.stages:
        given = {own: state[name] for own, name in placed.inputs.items() if name in state}
        found = _stage(model, placed, given)
        if found is None:
            return None
        state |= dict.fromkeys(placed.outputs.values(), found)
    return state.get(layer.end)


def _stage(model: Model, placed: Placed, given: dict[str, Signal]) -> Signal | None:
    kind, constants = known(placed.layer), model.own(placed)
    values = {own: model.parameters[name] for own, name in placed.inputs.items() if name in model.parameters}
    if len(given) + len(values) < len(placed.inputs):
        return None
    if kind is joins.add and len(given) == 2:
        return through_sum(given["x"], given["z"])
    if kind is scaled_sum() and len(given) == 2:
        return through_sum(given["x"], given["z"], float(constants.get("scale", 1.0)))
    if [*given] != [placed.layer.spec.inputs[0].name]:
        return None
    (one,) = given.values()
    if kind is products.linear:
        gain = spread(values["W"]).square * values["W"].shape[1]
        return through_weights(one, gain, spread(values["b"]), frozenset([placed.inputs["W"]]))
    eps = float(constants.get("eps", next((s.default or 0.0 for s in placed.layer.spec.scalars), 0.0)))
    if kind is normalisations.layernorm:
        return through_layer_norm(one, spread(values["g"]), spread(values["bias"]), eps)
    if kind is normalisations.rmsnorm:
        return through_rms_norm(one, spread(values["g"]), eps)
    if is_elementwise(placed.layer):
        return through_activation(one, of_kernel(placed.layer, model.kernels[placed.name], constants))
    return None


def spread(values: ArrayLike) -> Spread:
    """The mean square and the mean of a parameter's entries."""
    entries = np.asarray(values, float)
    return Spread(float(np.mean(entries**2)), float(np.mean(entries)))

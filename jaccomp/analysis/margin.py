"""Adversarial margins of a classifier: how far each sample is from the nearest boundary, linearised and by stepping.

For class a of a sample and any other b, to first order the boundary f_a = f_b lies at |f_a - f_b| / ‖∇(f_a - f_b)‖
(Moosavi-Dezfooli, Fawzi and Frossard, DeepFool, 2016, equation 6). Stepping that way finds where the class changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.result import Result
from jaccomp.analysis.rows import ends, linearised, row_jacobians
from jaccomp.analysis.stages import values_from
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation, Model

Array = NDArray[Any]
FURTHEST, STEPS, HALVINGS = 4.0, 64, 30


@dataclass(frozen=True)
class Margins(Result):
    """One entry for each sample: its `classes`, the `rivals` that are nearest, and how far they are.

    `linear` is the linearised distance. `stepped` is how far the class really changes along the linearised way, which
    bounds the true distance from above; infinite where it does not within 4 times `linear`.
    """

    classes: Array
    rivals: Array
    linear: Array
    stepped: Array

    @property
    def text(self) -> str:
        crossed = np.isfinite(self.stepped)
        low, middle, high = np.quantile(self.linear, [0.1, 0.5, 0.9], method="lower")
        lines = [f"margins of {len(self.linear)} samples: 10 % {low:.4g}, median {middle:.4g}, 90 % {high:.4g}"]
        if crossed.any():
            ratio = float(np.median(self.stepped[crossed] / self.linear[crossed]))
            lines.append(f"  {crossed.sum()} change class along the way, at {ratio:.3f} times the margin in the median")
        return "\n".join(lines)


def stepped(at: Linearisation, of: str, wrt: str) -> Margins:
    """The margins of a linearisation whose rows are apart; `of` has a row of scores for each sample."""
    scores = at.values[of]
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise UsageError(
            f"margins by {of!r}", f"its shape is {scores.shape}.", "Name a tensor with a score for each of 2 classes."
        )
    rows = np.arange(len(scores))
    classes = scores.argmax(axis=1)
    each = row_jacobians(at, of, wrt).reshape(*scores.shape, -1)
    slope = each[rows, classes][:, None, :] - each
    gap = scores[rows, classes][:, None] - scores
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = gap / np.linalg.norm(slope, axis=2)
    distance[rows, classes] = np.inf
    distance[np.isnan(distance)] = np.inf
    rivals = distance.argmin(axis=1)
    linear = distance[rows, rivals]
    away = -slope[rows, rivals]
    size = np.linalg.norm(away, axis=1, keepdims=True)
    way = (away / np.where(size > 0, size, 1)).reshape(at.values[wrt].shape)
    return Margins(classes, rivals, linear, _crossings(at, of, wrt, classes, way, linear))


def _crossings(at: Linearisation, of: str, wrt: str, classes: Array, way: Array, linear: Array) -> Array:
    """The first step along `way` at which each sample's class changes, by a scan and then by halving."""
    point = at.values[wrt]
    unit = np.where(np.isfinite(linear), linear, 0)

    def changed(step: Array) -> Array:
        moved = point + step.reshape(-1, *(1 for _ in point.shape[1:])) * way
        found = values_from(at, {wrt: moved.astype(point.dtype)})[of]
        return np.asarray(found.argmax(axis=1) != classes)

    low, high = np.zeros(len(unit)), np.full(len(unit), np.inf)
    for k in range(1, STEPS + 1):
        step = unit * (FURTHEST * k / STEPS)
        crossed, open_ = changed(step), np.isinf(high)
        high[open_ & crossed] = step[open_ & crossed]
        low[open_ & ~crossed] = step[open_ & ~crossed]
    found = np.isfinite(high)
    for _ in range(HALVINGS):
        middle = np.where(found, (low + np.where(found, high, 0)) / 2, 0)
        crossed = changed(middle)
        high = np.where(found & crossed, middle, high)
        low = np.where(found & ~crossed, middle, low)
    return high


def joined(parts: Sequence[Margins]) -> Margins:
    """The margins of parts of a data set, one after the other."""
    names = ("classes", "rivals", "linear", "stepped")
    return Margins(*(np.concatenate([getattr(one, name) for one in parts]) for name in names))


def margins(model: Model, x: ArrayLike, *, of: str | None = None, wrt: str | None = None) -> Margins:
    """The margins of every sample of `x`; `of` are the scores, of which the largest is a sample's class."""
    target, source = ends(model, of, wrt)
    return joined([stepped(at, target, source) for at in linearised(model, x, target, source)])

"""What a model's outputs depend on: influence of each feature, the worst perturbation, slopes.

Each is an average or a maximum over a data set, samples along the leading axis, through products with the Jacobian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.amplification import top
from jaccomp.analysis.result import Result
from jaccomp.analysis.rows import ends, linearised, row_jacobians

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation, Model

Array = NDArray[Any]


# Influence


@dataclass(frozen=True)
class Influence(Result):
    """How each output moves with each feature over a data set, arrays [*row of `of`, *row of `wrt`].

    `mean_absolute` is the mean of |∂y/∂x| and `error` its standard error; `mean_squared` that of (∂y/∂x)²; `mean` that
    of ∂y/∂x itself; `consistency` is |mean of the sign|, 1 where the derivative never changes sign over the data.
    `spread` [*row of `wrt`] is the standard deviation of the features themselves: a feature that never varies may have
    any slope and still tell outputs nothing, so `mean_absolute * spread` is what the data can show.
    """

    of: str
    wrt: str
    samples: int
    mean: Array
    mean_absolute: Array
    error: Array
    mean_squared: Array
    consistency: Array
    spread: Array

    @property
    def shown(self) -> Array:
        """`mean_absolute * spread`: how far an output moves, to first order, when a feature varies as it does."""
        return self.mean_absolute * self.spread

    @property
    def text(self) -> str:
        total = self.shown.reshape(-1, self.spread.size).sum(axis=0)
        first = ", ".join(f"{k}: {total[k]:.3g}" for k in np.argsort(-total, kind="stable")[:5])
        sure = float(self.consistency.mean())
        return (
            f"influence of {self.wrt} on {self.of} over {self.samples} samples\n"
            f"  entries of {self.wrt} with the largest Σ mean |∂{self.of}/∂{self.wrt}| spread: {first}\n"
            f"  mean consistency of signs {sure:.2f}"
        )


@dataclass(frozen=True)
class Moments:
    """Sums over some samples, to be added in the order of the samples."""

    samples: int
    total: Array
    absolute: Array
    squared: Array
    signs: Array
    features: Array
    features_squared: Array

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.samples + other.samples,
            self.total + other.total,
            self.absolute + other.absolute,
            self.squared + other.squared,
            self.signs + other.signs,
            self.features + other.features,
            self.features_squared + other.features_squared,
        )


def moments(at: Linearisation, of: str, wrt: str) -> Moments:
    """The sums of one linearisation whose rows are apart."""
    each = row_jacobians(at, of, wrt).astype(np.float64, copy=False)
    x = at.values[wrt].astype(np.float64, copy=False)
    signs = np.sign(each).sum(0)
    return Moments(len(each), each.sum(0), np.abs(each).sum(0), (each**2).sum(0), signs, x.sum(0), (x**2).sum(0))


def summed(parts: Sequence[Moments], of: str, wrt: str) -> Influence:
    """The influence that sums over parts of a data set come to."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    n = total.samples
    mean_absolute, mean_squared = total.absolute / n, total.squared / n
    spread = np.maximum(mean_squared - mean_absolute**2, 0)
    error = np.sqrt(spread / max(n - 1, 1))
    wide = np.sqrt(np.maximum(total.features_squared / n - (total.features / n) ** 2, 0))
    return Influence(of, wrt, n, total.total / n, mean_absolute, error, mean_squared, np.abs(total.signs) / n, wide)


def influence(model: Model, x: ArrayLike, *, of: str | None = None, wrt: str | None = None) -> Influence:
    """How each entry of a row of `of` moves with each entry of a row of `wrt`, over the samples of `x`.

    A VJP for each entry of a row of `of` serves a whole batch where rows are apart; else samples go one by one. Raises
    `UsageError` where `of` has too many entries: use `energy`.
    """
    target, source = ends(model, of, wrt)
    return summed([moments(at, target, source) for at in linearised(model, x, target, source)], target, source)


@dataclass(frozen=True)
class Energy(Result):
    """Σ over outputs of (∂y/∂x)² for each entry of each sample's `wrt`, [samples, *row of `wrt`], with its standard
    error where it was estimated from `probes` random cotangents, 0 where it is exact."""

    of: str
    wrt: str
    values: Array
    errors: Array
    probes: int


def energy(
    model: Model, x: ArrayLike, *, of: str | None = None, wrt: str | None = None, probes: int = 32, seed: int = 0
) -> Energy:
    """The squared norms of the columns of each sample's Jacobian, the diagonal of JᵀJ.

    Exact by a VJP for each output where those are no more than `probes`, else Bekas, Kokiopoulou and Saad's estimator
    (2007): the mean of (Jᵀv)² over `probes` random signs v, whose expectation it is.
    """
    target, source = ends(model, of, wrt)
    return energies(
        [
            energy_at(at, target, source, probes=probes, seed=(seed, number))
            for number, at in enumerate(linearised(model, x, target, source))
        ]
    )


def energy_at(at: Linearisation, of: str, wrt: str, *, probes: int, seed: int | Sequence[int]) -> Energy:
    """The energy of one linearisation whose rows are apart."""
    rng, target, source = np.random.default_rng(seed), at.values[of], at.values[wrt]
    rows = len(target) if target.ndim and len(target) == len(source) else 1
    if target.size <= rows * probes:
        values = np.zeros_like(source)
        for k in range(target.size // rows):
            unit = np.zeros((rows, target.size // rows), target.dtype)
            unit[:, k] = 1
            values += at.vjp({of: unit.reshape(target.shape)}, wrt) ** 2
        return Energy(of, wrt, values, np.zeros_like(values), 0)
    draws = np.stack([at.vjp({of: _signs(rng, target)}, wrt) ** 2 for _ in range(probes)])
    return Energy(of, wrt, draws.mean(0), draws.std(0, ddof=1) / np.sqrt(probes), probes)


def energies(parts: Sequence[Energy]) -> Energy:
    """The energies of parts of a data set, one after the other."""
    values, errors = (np.concatenate([getattr(one, name) for one in parts]) for name in ("values", "errors"))
    return Energy(parts[0].of, parts[0].wrt, values, errors, parts[0].probes)


def _signs(rng: np.random.Generator, like: Array) -> Array:
    return (2 * rng.integers(0, 2, like.shape) - 1).astype(like.dtype)


# The worst perturbation, and slopes


@dataclass(frozen=True)
class WorstCase(Result):
    """The unit perturbation of `wrt` that moves `of` most, to first order: by `gain` in the direction `response`."""

    of: str
    wrt: str
    gain: float
    direction: Array
    response: Array
    residual: float


def worst_case(at: Linearisation, of: str | None = None, wrt: str | None = None, *, seed: int = 0) -> WorstCase:
    """The top right singular vector of ∂of/∂wrt at a point, shaped as `wrt`, its largest entry positive."""
    target, source = ends(at.model, of, wrt)
    found = top(at.operator(target, source), seed)
    return WorstCase(
        target,
        source,
        found.value,
        found.right.reshape(at.values[source].shape),
        found.left.reshape(at.values[target].shape),
        found.residual,
    )


@dataclass(frozen=True)
class LipschitzLowerBound(Result):
    """A number that no Lipschitz constant of the model, in Euclidean norms of rows, is below.

    It is the larger of the steepest Jacobian met, that of `sample`, and the steepest chord between two samples. The
    true constant can be far above: nothing is known of the model away from the data. `gains` are the samples' own.
    """

    value: float
    sample: int
    steepest: float
    chord: float
    gains: Array

    @property
    def text(self) -> str:
        low, middle, high = np.quantile(self.gains, [0.1, 0.5, 0.9])
        return (
            f"Lipschitz constant >= {self.value:.4g}: Jacobian norm {self.steepest:.4g} at sample {self.sample}, "
            f"steepest chord {self.chord:.4g}\n"
            f"  Jacobian norms over {self.gains.size} samples: 10 % {low:.4g}, median {middle:.4g}, 90 % {high:.4g}"
        )


def slopes(at: Linearisation, of: str, wrt: str) -> Array:
    """The spectral norm of each sample's Jacobian, [samples], where rows are apart."""
    rows = at.values[of].shape[0] if at.values[of].ndim else 1
    if rows == 1:
        return np.array([top(at.operator(of, wrt)).value])
    each = row_jacobians(at, of, wrt)
    return np.asarray(np.linalg.norm(each.reshape(rows, at.values[of][0].size, -1), ord=2, axis=(1, 2)))


def bounded(gains: Array, x: Array, y: Array) -> LipschitzLowerBound:
    """The lower bound from samples' own slopes, and from chords between inputs `x` and outputs `y` [samples, ...]."""
    from scipy.spatial.distance import pdist

    apart, moved = (pdist(one.reshape(len(one), -1)) for one in (x, y))
    chord = float(np.max(moved[apart > 0] / apart[apart > 0], initial=0.0))
    steepest = float(gains.max())
    return LipschitzLowerBound(max(steepest, chord), int(gains.argmax()), steepest, chord, gains)


def lipschitz(model: Model, x: ArrayLike, *, of: str | None = None, wrt: str | None = None) -> LipschitzLowerBound:
    """A lower bound of the model's Lipschitz constant from the samples of `x`, at most some thousands: chords of all
    pairs are looked at."""
    target, source = ends(model, of, wrt)
    parts = [(slopes(at, target, source), at.values) for at in linearised(model, x, target, source)]
    gains, inputs, outputs = (
        np.concatenate(one) for one in zip(*((g, values[source], values[target]) for g, values in parts), strict=True)
    )
    return bounded(gains, inputs, outputs)

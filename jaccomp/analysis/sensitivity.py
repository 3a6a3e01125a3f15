"""What a model's outputs depend on: influence of each feature, layers that amplify, the worst perturbation, slopes.

Each is an average or a maximum over a data set, samples along the leading axis, through products with the Jacobian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.result import Result
from jaccomp.analysis.rows import chunks, row_jacobians, rows_apart
from jaccomp.analysis.stages import local, moving, tangents
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation, Model

Array = NDArray[Any]
SMALL = 64
"""An operator with this many rows or columns at most is decomposed whole."""


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
    return Moments(
        len(each), each.sum(0), np.abs(each).sum(0), (each**2).sum(0), signs, x.sum(0), (x**2).sum(0)
    )


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
    rng, target = np.random.default_rng(seed), at.values[of]
    if len(target) == len(at.values[wrt]) and target[0].size <= probes:
        each = row_jacobians(at, of, wrt)
        values = (each**2).sum(axis=tuple(range(1, target.ndim)))
        return Energy(of, wrt, values, np.zeros_like(values), 0)
    draws = np.stack([at.vjp({of: _signs(rng, target)}, wrt) ** 2 for _ in range(probes)])
    return Energy(of, wrt, draws.mean(0), draws.std(0, ddof=1) / np.sqrt(probes), probes)


def energies(parts: Sequence[Energy]) -> Energy:
    """The energies of parts of a data set, one after the other."""
    values, errors = (np.concatenate([getattr(one, name) for one in parts]) for name in ("values", "errors"))
    return Energy(parts[0].of, parts[0].wrt, values, errors, parts[0].probes)


def _signs(rng: np.random.Generator, like: Array) -> Array:
    return (2 * rng.integers(0, 2, like.shape) - 1).astype(like.dtype)


# Layers


@dataclass(frozen=True)
class StageGain(Result):
    """One stage: the spectral norm of its own Jacobian over samples, and the growth ‖out‖/‖in‖ of tangents.

    `norm` and `growth` are geometric means over samples, `*_error` the standard errors of their logarithms; `largest`
    is the largest norm met. `growth` is that of random tangents of the model's input, `worst_growth` that of the
    tangent that the whole model amplifies most, sample by sample. `residual` bounds the error of each norm:
    ‖Jᵀu - σv‖/σ.
    """

    stage: str
    layer: str
    norm: float
    norm_error: float
    largest: float
    residual: float
    growth: float
    growth_error: float
    worst_growth: float


@dataclass(frozen=True)
class Amplification(Result):
    """The stages in their order; `ranked` has those that amplify most, by their own norms, first."""

    stages: tuple[StageGain, ...]

    @property
    def ranked(self) -> tuple[StageGain, ...]:
        return tuple(sorted(self.stages, key=lambda one: -one.norm))

    @property
    def text(self) -> str:
        lines = ["stage            norm (largest)      random growth   worst growth"]
        lines += [
            f"{one.stage:16} {one.norm:8.4g} ({one.largest:.4g})   {one.growth:8.4g} ± {one.growth_error:5.1%}"
            f"   {one.worst_growth:8.4g}"
            for one in self.ranked
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Gains:
    """The logarithms of one sample's norms and growths, [stages]; growths of random tangents [draws, stages]."""

    norms: Array
    residuals: Array
    growths: Array
    worst: Array


def gains(at: Linearisation, of: str, wrt: str, *, draws: int, seed: int | Sequence[int]) -> Gains:
    """One sample's amplification: the norm of every stage's Jacobian, and how tangents grow through it."""
    rng = np.random.default_rng(seed)
    stages = moving(at.model, wrt)
    found = [top(local(at, name, inputs), seed=0) for name, inputs in stages.items()]
    like = at.values[wrt]
    growths = [_growths(at, stages, wrt, rng.standard_normal(like.shape).astype(like.dtype)) for _ in range(draws)]
    worst = top(at.operator(of, wrt), seed=0).right.reshape(like.shape)
    with np.errstate(divide="ignore"):
        return Gains(
            np.log([one.value for one in found]),
            np.array([one.residual for one in found]),
            np.array(growths),
            np.array(_growths(at, stages, wrt, worst)),
        )


def _growths(at: Linearisation, stages: dict[str, tuple[str, ...]], wrt: str, t: Array) -> Array:
    """log ‖tangent out‖/‖tangent in‖ of each stage."""
    known = tangents(at, {wrt: t})
    by_name = {one.name: one for one in at.model.chain.stages}
    logs = []
    for name, inputs in stages.items():
        placed = by_name[name]
        into = [known[placed.inputs[own]] for own in inputs]
        out = [known[made] for made in placed.outputs.values() if made in known]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs.append(np.log(_norm(out)) - np.log(_norm(into)))
    return np.array(logs)


def _norm(parts: Sequence[Array]) -> float:
    return float(np.sqrt(sum(float(np.vdot(one, one)) for one in parts)))


def gathered(model: Model, wrt: str, parts: Sequence[Gains]) -> Amplification:
    """The amplification that samples come to."""
    by_name = {one.name: one for one in model.chain.stages}
    norms = np.stack([one.norms for one in parts])
    growths = np.stack([one.growths.mean(axis=0) for one in parts])
    worst = np.stack([one.worst for one in parts]).mean(axis=0)
    residuals = np.stack([one.residuals for one in parts]).max(axis=0)
    n = len(parts)
    error = np.sqrt(n * max(n - 1, 1))
    with np.errstate(invalid="ignore"):  # a stage that some sample does not pass has growth 0, its error no number
        rows = [
            StageGain(
                name,
                by_name[name].layer.name,
                float(np.exp(norms[:, k].mean())),
                float(np.linalg.norm(norms[:, k] - norms[:, k].mean()) / error),
                float(np.exp(norms[:, k].max())),
                float(residuals[k]),
                float(np.exp(growths[:, k].mean())),
                float(np.linalg.norm(growths[:, k] - growths[:, k].mean()) / error),
                float(np.exp(worst[k])),
            )
            for k, name in enumerate(moving(model, wrt))
        ]
    return Amplification(tuple(rows))


def amplification(
    model: Model, x: ArrayLike, *, of: str | None = None, wrt: str | None = None, draws: int = 8, seed: int = 0
) -> Amplification:
    """Which stages amplify: each sample of `x` by itself, `draws` random tangents each."""
    target, source = ends(model, of, wrt)
    parts = [
        gains(at, target, source, draws=draws, seed=(seed, k)) for k, at in enumerate(one_by_one(model, x))
    ]
    return gathered(model, source, parts)


# The worst perturbation, and slopes


@dataclass(frozen=True)
class Top(Result):
    """The largest singular value σ with J right = σ left, and ‖Jᵀ left - σ right‖/σ."""

    value: float
    left: Array
    right: Array
    residual: float


def top(linear: Any, seed: int = 0) -> Top:
    """The largest singular value of an operator and its vectors, the largest entry of `right` positive.

    Lanczos on the smaller Gram operator (SciPy's `svds`) from a seeded start; whole where a side is small.
    """
    from scipy.sparse.linalg import svds

    rows, columns = linear.shape
    if min(rows, columns) <= SMALL:
        from jaccomp.analysis.model import dense

        u, s, vt = np.linalg.svd(dense(linear), full_matrices=False)
        left, value, right = u[:, 0], float(s[0]), vt[0]
    else:
        start = np.random.default_rng(seed).standard_normal(min(rows, columns)).astype(linear.dtype)
        u, s, vt = svds(linear, k=1, v0=start)
        left, value, right = u[:, 0], float(s[0]), vt[0]
    sign = 1 if right[np.argmax(np.abs(right))] >= 0 else -1
    left, right = sign * left, sign * right
    gap = float(np.linalg.norm(linear.rmatvec(left) - value * right))
    return Top(value, left, right, gap / value if value else gap)


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
    """The lower bound from samples' own slopes, and from the chords between inputs `x` and outputs `y` [samples, ...]."""
    from scipy.spatial.distance import pdist

    apart, moved = (pdist(one.reshape(len(one), -1)) for one in (x, y))
    chord = float(np.max(moved[apart > 0] / apart[apart > 0], initial=0.0))
    steepest = float(gains.max())
    return LipschitzLowerBound(max(steepest, chord), int(gains.argmax()), steepest, chord, gains)


def lipschitz(
    model: Model, x: ArrayLike, *, of: str | None = None, wrt: str | None = None
) -> LipschitzLowerBound:
    """A lower bound of the model's Lipschitz constant from the samples of `x`, at most some thousands: chords of all
    pairs are looked at."""
    target, source = ends(model, of, wrt)
    parts = [(slopes(at, target, source), at.values) for at in linearised(model, x, target, source)]
    gains, inputs, outputs = (
        np.concatenate(one)
        for one in zip(*((g, values[source], values[target]) for g, values in parts), strict=True)
    )
    return bounded(gains, inputs, outputs)


# Data sets


def ends(model: Model, of: str | None, wrt: str | None) -> tuple[str, str]:
    """The tensors that are meant: by default the last output, and the first input."""
    return of or model.outputs[-1], wrt or model.inputs[0]


def linearised(model: Model, x: ArrayLike, of: str, wrt: str) -> Iterator[Linearisation]:
    """The model at the samples of `x`, many together where their rows are apart."""
    samples = checked(model, x)
    for part in chunks(len(samples), rows_apart(model, of, wrt)):
        yield model.at(samples[part])


def one_by_one(model: Model, x: ArrayLike) -> Iterator[Linearisation]:
    """The model at each sample of `x`, with a leading axis of 1."""
    samples = checked(model, x)
    for k in range(len(samples)):
        yield model.at(samples[k : k + 1])


def checked(model: Model, x: ArrayLike) -> Array:
    """Samples along the leading axis, at least one. Raises `UsageError`."""
    samples = np.asarray(x)
    if samples.ndim == 0 or len(samples) == 0:
        raise UsageError(f"data for model {model.name!r}", f"its shape is {samples.shape}.", "Give samples along axis 0.")
    return samples

"""A whole study of a model over a data set, as tasks that can run anywhere: what `jaccomp analyze` reports.

Three kinds of task: a batch of samples, for what is averaged over all data; one chosen sample, for what takes many
products with its own Jacobian; and random draws, for how gradients propagate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis import amplification, depth, margin, sensitivity
from jaccomp.analysis.amplification import Amplification, Gains
from jaccomp.analysis.depth import AtDepths, Depths
from jaccomp.analysis.margin import Margins
from jaccomp.analysis.parallel import run
from jaccomp.analysis.propagation import Propagation, propagate
from jaccomp.analysis.result import Result
from jaccomp.analysis.rows import MOST_OUTPUTS, checked, chunks, ends, rows_apart
from jaccomp.analysis.sensitivity import Energy, Influence, LipschitzLowerBound, Moments, WorstCase
from jaccomp.analysis.validity import Validity, validity
from jaccomp.errors import JaccompError, UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Model

Array = NDArray[Any]


@dataclass(frozen=True)
class Study(Result):
    """Everything that was found. `influence` and `margins` are None where a row of the output has too many entries, or
    is no row of scores; `energy` is of the chosen samples. `chosen` are their positions in the data, `worst` and
    `validity` one each; a perturbation may go two ways, and `validity` has both, or none where no way moves the output.
    """

    model: str
    of: str
    wrt: str
    samples: int
    seed: int
    chosen: tuple[int, ...]
    influence: Influence | None
    energy: Energy
    depths: Depths
    propagation: Propagation
    amplification: Amplification
    lipschitz: LipschitzLowerBound
    margins: Margins | None
    worst: tuple[WorstCase, ...]
    validity: tuple[tuple[Validity, ...], ...]

    @property
    def text(self) -> str:
        parts = [
            f"{self.model}: ∂{self.of}/∂{self.wrt} over {self.samples} samples, {len(self.chosen)} of them one by one",
            self.depths.text,
            f"gradients {self.propagation.text}",
            self.amplification.text,
            self.lipschitz.text,
            f"worst perturbation: gain {np.median([one.gain for one in self.worst]):.4g} in the median{self._held}",
        ]
        parts += [one.text for one in (self.influence, self.margins) if one is not None]
        return "\n\n".join(parts)

    @property
    def _held(self) -> str:
        ways = [one for pair in self.validity for one in pair]
        if not ways:
            return ""
        measured = np.array([[one.radius, one.predicted, one.cautious, one.guaranteed] for one in ways])
        radius, *said = np.quantile(measured, 0.5, axis=0, method="lower")
        reach = (measured[:, :1] >= measured[:, 1:]).mean(axis=0)
        words = "by curvature at the point", "by it and its own derivative there", "by curvature along the way"
        lines = [f"; first order holds within {ways[0].tolerance:.0%} up to {radius:.4g}"]
        lines += [
            f"  {word:34} {one:8.4g}, which {held:.0%} reach"
            for word, one, held in zip(words, said, reach, strict=True)
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """What every task reads."""

    model: Model
    of: str
    wrt: str
    draws: int
    probes: int
    seed: int


@dataclass(frozen=True)
class Batch:
    """Samples that are linearised together; `scores` says that rows of `of` are scores of classes."""

    x: Array
    scores: bool


@dataclass(frozen=True)
class Point:
    """One sample, with its leading axis, and its position among the chosen."""

    x: Array
    number: int


@dataclass(frozen=True)
class Draws:
    """Samples of which random ones are drawn, one at a time, to see how cotangents and tangents grow."""

    x: Array
    count: int


@dataclass(frozen=True)
class OfBatch:
    moments: Moments
    slopes: Array
    margins: Margins | None


@dataclass(frozen=True)
class OfPoint:
    gains: Gains
    depths: AtDepths
    worst: WorstCase
    validity: tuple[Validity, ...]
    energy: Energy
    whole: tuple[bool, ...]


Task: TypeAlias = Batch | Point | Draws


def work(plan: Plan, task: Task) -> OfBatch | OfPoint | Propagation:
    """Do one task."""
    if isinstance(task, Draws):
        batch, count = partial(_drawn, task.x), task.count
        return propagate(plan.model, batch, draws=count, of=plan.of, wrt=plan.wrt, seed=plan.seed)
    return _batch(plan, task) if isinstance(task, Batch) else _point(plan, task)


def _drawn(x: Array, rng: np.random.Generator) -> Array:
    k = int(rng.integers(len(x)))
    return x[k : k + 1]


def _batch(plan: Plan, task: Batch) -> OfBatch:
    at = plan.model.at(task.x)
    return OfBatch(
        sensitivity.moments(at, plan.of, plan.wrt),
        sensitivity.slopes(at, plan.of, plan.wrt),
        margin.stepped(at, plan.of, plan.wrt) if task.scores else None,
    )


def _point(plan: Plan, task: Point) -> OfPoint:
    at, of, wrt, number = plan.model.at(task.x), plan.of, plan.wrt, task.number
    worst = sensitivity.worst_case(at, of, wrt)
    names = depth.cuts(plan.model.chain, of, wrt)
    ways = (worst.direction, -worst.direction) if worst.gain > 0 else ()
    return OfPoint(
        amplification.gains(at, of, wrt, draws=plan.draws, seed=(plan.seed, number, 0)),
        depth.at_depths(at, of, wrt, draws=plan.draws, seed=(plan.seed, number, 1)),
        worst,
        tuple(validity(at, way, of=of, wrt=wrt) for way in ways),
        sensitivity.energy_at(at, of, wrt, probes=plan.probes, seed=(plan.seed, number, 2)),
        (True, *(depth.is_whole(at, name, wrt) for name in names[1:])),
    )


def study(
    model: Model,
    x: ArrayLike,
    *,
    of: str | None = None,
    wrt: str | None = None,
    chosen: int = 16,
    draws: int = 8,
    probes: int = 32,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    step: Callable[[int, int], None] | None = None,
) -> Study:
    """Study a model of one open input over samples `x` along the leading axis, `chosen` of them, drawn at `seed`, one
    by one. `step` is told how many tasks are done, and of how many. Raises `UsageError`.
    """
    if len(model.inputs) != 1:
        raise UsageError(
            f"study of model {model.name!r}",
            f"{len(model.inputs)} inputs are open: {', '.join(model.inputs)}.",
            "Give all but one as parameters.",
        )
    target, source = ends(model, of, wrt)
    samples = checked(model, x)
    picked = np.sort(np.random.default_rng(seed).permutation(len(samples))[:chosen])
    y = _known(model, samples[:1], target, source)
    wide = y.ndim < 1 or y.shape[0] != 1 or y.size > MOST_OUTPUTS
    plan = Plan(model, target, source, draws, probes, seed)
    parts = () if wide else chunks(len(samples), rows_apart(model, target, source))
    points = [Point(samples[k : k + 1], number) for number, k in enumerate(picked)]
    scores = y.ndim == 2 and y.size > 1
    batches = [Batch(samples[part], scores) for part in parts]
    tasks: list[Task] = [Draws(samples[picked], max(2, len(points))), *batches, *points]
    done = run(
        work, plan, tasks, workers=workers, scheduler=scheduler,
        step=None if step is None else lambda count: step(count, len(tasks)),
    )  # fmt: skip
    averaged = [one for one in done if isinstance(one, OfBatch)]
    singles = [one for one in done if isinstance(one, OfPoint)]
    near = samples[picked]
    gains = np.concatenate([one.slopes for one in averaged]) if averaged else np.array([w.worst.gain for w in singles])
    seen = samples if averaged else near
    margins = [one.margins for one in averaged if one.margins is not None]
    return Study(
        model.name,
        target,
        source,
        len(samples),
        seed,
        tuple(int(k) for k in picked),
        sensitivity.summed([one.moments for one in averaged], target, source) if averaged else None,
        sensitivity.energies([one.energy for one in singles]),
        depth.by_depth(depth.cuts(model.chain, target, source), singles[0].whole, [one.depths for one in singles]),
        next(one for one in done if isinstance(one, Propagation)),
        amplification.gathered(model, source, [one.gains for one in singles]),
        sensitivity.bounded(gains, *_pairs(model, seen, target, source)),
        margin.joined(margins) if margins else None,
        tuple(one.worst for one in singles),
        tuple(one.validity for one in singles),
    )


def _known(model: Model, x: Array, of: str, wrt: str) -> Array:
    """The value of `of`. Raises `UsageError` where a sample does not fit, or either is no real tensor of the model."""
    what = f"study of model {model.name!r}"
    try:
        at = model.at(x)
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, JaccompError):
            raise
        raise UsageError(what, f"it does not take a sample of shape {x.shape}: {error}") from None
    at.operator(of, wrt)
    for name in (of, wrt):
        if at.values[name].dtype.kind != "f":
            raise UsageError(what, f"{name} is of integers.", "Name a real tensor, as that of the embedded tokens.")
    if not at.values[wrt].ndim or len(at.values[wrt]) != 1:
        raise UsageError(what, f"{wrt} has no axis of samples.", "Name a tensor that is made of the data.")
    return at.values[of]


def _pairs(model: Model, x: Array, of: str, wrt: str, most: int = 1024) -> tuple[Array, Array]:
    """The values of `wrt` and `of` at the first samples, to compare in pairs."""
    at = model.at(x[:most])
    source, target = at.values[wrt], at.values[of]
    return (source, target) if len(source) == len(target) else (source[:1], target[:1])

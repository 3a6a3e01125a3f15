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
    from jaccomp.analysis.model import Linearisation, Model

Array = NDArray[Any]
PAIRED = 1024  # samples of which chords are looked at, in pairs
KEPT = 1e-3  # of a radius: less than that is the error of quadrature


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
        reach = measured[:, :1] >= (1 - KEPT) * measured[:, 1:]
        words = "by curvature at the point", "by it and its own derivative there", "by curvature along the way"
        lines = [f"; first order holds within {ways[0].tolerance:.0%} up to {radius:.4g}"]
        lines += [
            f"  {word:34} {one:8.4g}, which {held:.0%} reach"
            for word, one, held in zip(words, said, reach.mean(axis=0), strict=True)
            if np.isfinite(one)
        ]
        if not reach[:, -1].all():
            lines.append("  ways that fall short of curvature along them meet a kink, as of relu or of a maximum")
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
    """What came of a batch; `inputs` and `outputs` are the values of `wrt` and `of`, row by row."""

    inputs: Array
    outputs: Array
    moments: Moments
    slopes: Array
    margins: Margins | None


@dataclass(frozen=True)
class OfPoint:
    """What came of one sample; `inputs` and `outputs` have a leading axis of 1."""

    inputs: Array
    outputs: Array
    gains: Gains
    depths: AtDepths
    worst: WorstCase
    validity: tuple[Validity, ...]
    energy: Energy
    whole: tuple[bool, ...]


Task: TypeAlias = Batch | Point | Draws


def work(plan: Plan, task: Task) -> OfBatch | OfPoint | Propagation:
    """Do one task. Raises `UsageError` where the model does not take a sample of it."""
    if isinstance(task, Draws):
        for k in range(len(task.x)):
            _at(plan.model, task.x[k : k + 1])
        batch, count = partial(_drawn, task.x), task.count
        return propagate(plan.model, batch, draws=count, of=plan.of, wrt=plan.wrt, seed=plan.seed)
    return _batch(plan, task) if isinstance(task, Batch) else _point(plan, task)


def _drawn(x: Array, rng: np.random.Generator) -> Array:
    k = int(rng.integers(len(x)))
    return x[k : k + 1]


def _at(model: Model, x: Array) -> Linearisation:
    try:
        return model.at(x)
    except (ValueError, TypeError, IndexError) as error:
        if isinstance(error, JaccompError):
            raise
        raise UsageError(
            f"study of model {model.name!r}", f"it does not take samples of shape {x.shape[1:]}: {error}"
        ) from None


def _batch(plan: Plan, task: Batch) -> OfBatch:
    at = _at(plan.model, task.x)
    return OfBatch(
        at.values[plan.wrt],
        at.values[plan.of],
        sensitivity.moments(at, plan.of, plan.wrt),
        sensitivity.slopes(at, plan.of, plan.wrt),
        margin.stepped(at, plan.of, plan.wrt) if task.scores else None,
    )


def _point(plan: Plan, task: Point) -> OfPoint:
    at, of, wrt, number = _at(plan.model, task.x), plan.of, plan.wrt, task.number
    worst = sensitivity.worst_case(at, of, wrt)
    names = depth.cuts(plan.model.chain, of, wrt)
    ways = (worst.direction, -worst.direction) if worst.gain > 0 else ()
    return OfPoint(
        at.values[wrt],
        at.values[of].reshape(1, -1),
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
    at = _known(model, samples[:1], target, source)
    y = at.values[target]
    wide = y.ndim < 1 or y.shape[0] != 1 or y.size > MOST_OUTPUTS
    plan = Plan(model, target, source, draws, probes, seed)
    parts = () if wide else chunks(len(samples), rows_apart(at, target, source) and _takes(model, samples[:2]))
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
    inputs, outputs = ([getattr(one, name) for one in averaged or singles] for name in ("inputs", "outputs"))
    gains = np.concatenate([one.slopes for one in averaged]) if averaged else np.array([w.worst.gain for w in singles])
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
        sensitivity.bounded(gains, *(np.concatenate(one)[:PAIRED] for one in (inputs, outputs))),
        margin.joined(margins) if margins else None,
        tuple(one.worst for one in singles),
        tuple(one.validity for one in singles),
    )


def _known(model: Model, x: Array, of: str, wrt: str) -> Linearisation:
    """The model at a sample. Raises `UsageError` where it does not fit, or either name is no real tensor of samples."""
    what = f"study of model {model.name!r}"
    at = _at(model, x)
    at.operator(of, wrt)
    for name in (of, wrt):
        if at.values[name].dtype.kind != "f":
            raise UsageError(
                what, f"{name} is of integers.", "Name a real tensor for `wrt`, as that of the embedded tokens."
            )
    if not at.values[wrt].ndim or len(at.values[wrt]) != 1:
        raise UsageError(what, f"{wrt} has no axis of samples.", "Name a tensor that is made of the data.")
    return at


def _takes(model: Model, x: Array) -> bool:
    """Does the model take several samples at once? Where a parameter is of one sample, as a state, it does not."""
    try:
        model(x)
    except (ValueError, TypeError, IndexError):
        return False
    return True

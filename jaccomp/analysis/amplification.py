"""Which stages amplify: the norms of their own Jacobians, and how tangents grow on their way through a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.result import Result
from jaccomp.analysis.rows import ends, one_by_one
from jaccomp.analysis.spectra import singular_values
from jaccomp.analysis.stages import local

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation, Model

Array = NDArray[Any]
SMALL = 64
"""An operator with this many rows or columns at most is decomposed whole."""


@dataclass(frozen=True)
class StageGain(Result):
    """One stage: the spectral norm of its own Jacobian over samples, and the growth ‖out‖/‖in‖ of tangents.

    `norm` and `growth` are geometric means over samples, `*_error` the standard errors of their logarithms; `largest`
    is the largest norm met. `growth` is that of random tangents of the model's input, `worst_growth` that of the
    tangent that the whole model amplifies most, sample by sample. `residual` bounds the relative error of each norm.
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
    stages = at.model.moving(wrt)
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
    known = at.tangents({wrt: t})
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
            for k, name in enumerate(model.moving(wrt))
        ]
    return Amplification(tuple(rows))


def amplification(
    model: Model, x: ArrayLike, *, of: str | None = None, wrt: str | None = None, draws: int = 8, seed: int = 0
) -> Amplification:
    """Which stages amplify: each sample of `x` by itself, `draws` random tangents each."""
    target, source = ends(model, of, wrt)
    parts = [gains(at, target, source, draws=draws, seed=(seed, k)) for k, at in enumerate(one_by_one(model, x))]
    return gathered(model, source, parts)


@dataclass(frozen=True)
class Top(Result):
    """The largest singular value σ, with J right = σ left, and the larger of the residuals of both over σ."""

    value: float
    left: Array
    right: Array
    residual: float


def top(linear: Any, seed: int = 0) -> Top:
    """The largest singular value of an operator and its vectors, the largest entry of `right` positive."""
    found = singular_values(linear, 1, method="svds" if min(linear.shape) > SMALL else "dense", seed=seed)
    value, left, right = float(found.values[0]), found.left[:, 0], found.right[:, 0]
    sign = 1 if right[np.argmax(np.abs(right))] >= 0 else -1
    gap = float(found.residuals[0])
    return Top(value, sign * left, sign * right, gap / value if value > 0 else gap)

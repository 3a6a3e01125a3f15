"""Do gradients vanish or explode? Norms of cotangents and tangents by depth, over batches and initialisations.

    found = propagate(model, batch, draw=initialise, draws=16)
    print(found)                              vanishing: -0.21 ± 0.008 a layer (confidence 1), ...
    print(remedies(model, batch, draw=initialise))

The rate is the mean logarithmic growth of a cotangent's norm per layer, on its way from the output to the input. A
network is stable while |rate| is below `band`, vanishing below it and exploding above; which of them is asked of
bootstrap resamples of the draws, and where no answer reaches `level` the verdict is "uncertain".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis import architecture
from jaccomp.analysis.expectation import Expectation, expectation
from jaccomp.analysis.model import Linearisation, Model
from jaccomp.analysis.result import Estimate, Result, mean
from jaccomp.analysis.segments import Segment, layers, weighs
from jaccomp.composition import Chain, Placed
from jaccomp.errors import UsageError

Array = NDArray[Any]
Batch: TypeAlias = "Callable[[np.random.Generator], Any]"
Draw: TypeAlias = "Callable[[np.random.Generator], Mapping[str, ArrayLike]]"
WORDS = ("vanishing", "stable", "exploding")
NOTHING = -690.0  # the logarithm of a norm that is 0 over one that is not
RESAMPLES = 2000


@dataclass(frozen=True)
class Verdict(Result):
    """`word` is vanishing, stable, exploding or uncertain; `rate` is per layer, as a logarithm, over draws.

    `confidence` is the share of bootstrap resamples in the likeliest class; `responsible` the fewest layers that make
    up half of the drift, the worst first.
    """

    word: str
    rate: Estimate
    confidence: float
    band: float
    responsible: tuple[str, ...]
    spread: bool

    @property
    def text(self) -> str:
        said = f"{self.word}: {self.rate.value:+.4f} ± {self.rate.error:.2g} a layer (confidence {self.confidence:.3g})"
        if self.spread:
            return f"{said}, spread over its layers"
        return said + (f", by {', '.join(self.responsible)}" if self.responsible else "")


@dataclass(frozen=True)
class Propagation(Result):
    """Norms by depth: `cotangents` and `tangents` [draws, layers + 1] are logarithms, the input's column first.

    Cotangents are 0 at the output, tangents at the input. `expected` is what mean-field theory says, where it applies.
    """

    layers: tuple[str, ...]
    cotangents: Array
    tangents: Array | None
    verdict: Verdict
    expected: Expectation | None
    seed: int

    @property
    def growths(self) -> Array:
        """[draws, layers]: the logarithmic growth of a cotangent over each layer, on its way back."""
        return np.asarray(-np.diff(self.cotangents, axis=1))

    @property
    def text(self) -> str:
        width = max(map(len, self.layers))
        lines = [str(self.verdict)] + ([str(self.expected)] if self.expected else [])
        lines.append(
            f"  {'layer':<{width}}  growth back          " + ("growth ahead" if self.tangents is not None else "")
        )
        for k, name in enumerate(self.layers):
            line = f"  {name:<{width}}  {mean(self.growths[:, k])!s:<20} "
            if self.tangents is not None:
                line += str(mean(np.diff(self.tangents, axis=1)[:, k]))
            lines.append(line.rstrip())
        return "\n".join(lines)


def propagate(
    model: Model,
    batch: Batch,
    *,
    draw: Draw | None = None,
    draws: int = 12,
    of: str | None = None,
    wrt: str | None = None,
    tangents: bool = True,
    band: float = 0.05,
    level: float = 0.99,
    seed: int = 0,
) -> Propagation:
    """Norms of random cotangents and tangents by depth, and what they say.

    `batch(rng)` gives the open inputs, an array or a tuple; `draw(rng)` new parameters for each of `draws`, where None
    keeps the model's own, so that only batches and directions vary. Raises `UsageError` for fewer than one draw, where
    no path leads from `wrt` to `of`, where a norm is not finite, and what `judge` does.
    """
    if draws < 1:
        raise UsageError("gradient propagation", f"{draws} draws were asked for.", "Ask for 1 or more.")
    target, source = of or model.outputs[-1], wrt or model.inputs[0]
    parts = layers(model.chain, target, source)
    back: list[Array] = []
    ahead: list[Array] = []
    expected: list[Expectation | None] = []
    for stream in np.random.SeedSequence(seed).spawn(draws):
        rng = np.random.default_rng(stream)
        drawn = model if draw is None else model.having(draw(rng))
        given = batch(rng)
        at = drawn.at(*(given if isinstance(given, tuple) else (given,)))
        back.append(_back(at, parts, rng))
        if tangents:
            ahead.append(_ahead(at, parts, rng))
        x = at.values[source]
        first = not expected  # the fixed point is that of one draw; weights of others differ little
        expected.append(expectation(drawn, parts, float(np.mean(x**2)), float(np.mean(x)), settle=first))
    cotangents = np.array(back)
    growths = -np.diff(cotangents, axis=1)
    return Propagation(
        tuple(one.name for one in parts),
        cotangents,
        np.array(ahead) if tangents else None,
        judge(growths, [one.name for one in parts], band=band, level=level, seed=seed),
        _typical(expected),
        seed,
    )


def _back(at: Linearisation, parts: Sequence[Segment], rng: np.random.Generator) -> Array:
    """Logarithms of a cotangent's norm at the cuts, the input's first; it is scaled to 1 at each, so none overflows."""
    logs = [0.0]
    v = _direction(at.values[parts[-1].end], rng)
    for one in reversed(parts):
        v = at.vjp({one.end: v}, one.start)
        v, step = _unit(v, at.values[one.start], rng, one.name)
        logs.append(logs[-1] + step)
    return np.array(logs[::-1])


def _ahead(at: Linearisation, parts: Sequence[Segment], rng: np.random.Generator) -> Array:
    logs = [0.0]
    t = _direction(at.values[parts[0].start], rng)
    for one in parts:
        t, step = _unit(at.jvp({one.start: t}, one.end), at.values[one.end], rng, one.name)
        logs.append(logs[-1] + step)
    return np.array(logs)


def _direction(like: Array, rng: np.random.Generator) -> Array:
    t = rng.standard_normal(like.shape).astype(like.dtype)
    return np.asarray(t / np.linalg.norm(t))


def _unit(t: Array, like: Array, rng: np.random.Generator, layer: str) -> tuple[Array, float]:
    """The direction of t and the logarithm of its norm; one that died goes on as a new direction."""
    norm = float(np.linalg.norm(t))
    if not np.isfinite(norm):
        raise _not_finite(layer)
    return (t / norm, float(np.log(norm))) if norm > 0 else (_direction(like, rng), NOTHING)


def _not_finite(layers: str) -> UsageError:
    return UsageError(
        "gradient propagation",
        f"norms over {layers} are NaN or infinite.",
        "Look for NaN, infinities or overflow in the batch and the parameters; float64 reaches further.",
    )


def _typical(found: Sequence[Expectation | None]) -> Expectation | None:
    """The mean growths over draws."""
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    growths = np.mean([one.growths for one in known], axis=0)
    return replace(known[0], growths=tuple(map(float, growths)), rate=float(growths.mean()))


def judge(growths: Array, names: Sequence[str], *, band: float = 0.05, level: float = 0.99, seed: int = 0) -> Verdict:
    """The verdict on growths [draws, layers] of cotangents.

    Resamples of few draws vary too little: their deviations are widened by √(n/(n - 3)), which gives them the variance
    of Student's t. Fewer than 4 draws are always uncertain. Raises `UsageError` for a growth that is not finite, and
    for a band or a level that makes no sense.
    """
    count, depth = growths.shape
    if not (band > 0 and 0.5 <= level <= 1):
        raise UsageError(
            "verdict on gradients",
            f"band is {band} and level {level}.",
            "A band is a positive rate, a level a share of 0.5 to 1.",
        )
    lost = [names[k] for k in range(depth) if not np.isfinite(growths[:, k]).all()]
    if lost:
        raise _not_finite(", ".join(lost))
    rates = growths.mean(axis=1)
    rate = mean(rates)
    if count < 4:
        return Verdict("uncertain", rate, 0.0, band, (), False)
    rng = np.random.default_rng(seed)
    resampled = rates[rng.integers(0, count, (RESAMPLES, count))].mean(axis=1)
    spread = rate.value + sqrt(count / (count - 3)) * (resampled - rate.value)
    shares = [float(np.mean(spread < -band)), 0.0, float(np.mean(spread > band))]
    shares[1] = 1.0 - shares[0] - shares[2]
    likeliest = int(np.argmax(shares))
    word = WORDS[likeliest] if shares[likeliest] >= level else "uncertain"
    responsible = _responsible(growths.mean(axis=0), names) if word in ("vanishing", "exploding") else ()
    return Verdict(word, rate, shares[likeliest], band, responsible, 3 * len(responsible) > depth > 2)


def _responsible(growths: Array, names: Sequence[str]) -> tuple[str, ...]:
    """The fewest layers whose growths are half of the whole drift."""
    along = growths * np.sign(growths.sum())
    order = np.argsort(-along, kind="stable")
    enough = int(np.searchsorted(np.cumsum(along[order]), along.sum() / 2)) + 1
    return tuple(names[k] for k in order[:enough])


# Remedies


@dataclass(frozen=True)
class Remedy(Result):
    """A change, and the verdict on the network that has it, by the same seeds."""

    name: str
    what: str
    verdict: Verdict

    @property
    def text(self) -> str:
        return f"{self.name} ({self.what}): {self.verdict}"


@dataclass(frozen=True)
class Remedies(Result):
    """What was measured as it is, and changes by what they leave of the rate, the best first."""

    before: Verdict
    ranked: tuple[Remedy, ...]

    @property
    def text(self) -> str:
        return "\n".join([f"as it is: {self.before}", *(f"  {k + 1}. {one}" for k, one in enumerate(self.ranked))])


def remedies(model: Model, batch: Batch, *, draw: Draw | None = None, **options: Any) -> Remedies:
    """Initial scale, residual sums of two scales, and layer normalisation, each measured and ranked by what is left.

    Each is applied to every layer that it fits: a scale to weights, a sum where a layer keeps its shape and has none,
    a normalisation behind weights that none follows. Options are those of `propagate`.
    """
    options = {"tangents": False, **options}
    initialise: Draw = draw if draw is not None else lambda rng: model.parameters
    before = propagate(model, batch, draw=initialise, **options)
    rng = np.random.default_rng(options.get("seed", 0))
    first = model.having(initialise(rng))
    given = batch(rng)
    at = first.at(*(given if isinstance(given, tuple) else (given,)))
    parts = layers(model.chain, options.get("of") or model.outputs[-1], options.get("wrt") or model.inputs[0])
    found = [_scaled(model, batch, initialise, before.verdict, at, options)]
    found += _residual(model, batch, initialise, at, parts, options)
    found += _normalised(model, batch, initialise, at, parts, options)
    ranked = sorted((one for one in found if one is not None), key=lambda one: abs(one.verdict.rate.value))
    return Remedies(before.verdict, tuple(ranked))


def _scaled(
    model: Model, batch: Batch, draw: Draw, before: Verdict, at: Linearisation, options: Mapping[str, Any]
) -> Remedy | None:
    """The weights times a factor, sought by the secant method on the measured rate."""
    weights = {name for name in model.parameters if at.values[name].ndim >= 2}
    if not weights:
        return None

    def measured(log_scale: float) -> Verdict:
        def scaled(rng: np.random.Generator) -> Mapping[str, ArrayLike]:
            drawn = draw(rng)
            return {k: float(np.exp(log_scale)) * np.asarray(v) if k in weights else v for k, v in drawn.items()}

        return propagate(model, batch, draw=scaled, **options).verdict

    tried = [(0.0, before)]
    step = float(np.clip(-before.rate.value, -1.5, 1.5))
    for _ in range(5):
        tried.append((tried[-1][0] + step, measured(tried[-1][0] + step)))
        (a, one), (b, other) = tried[-2:]
        slope = (other.rate.value - one.rate.value) / (b - a) if b != a else 0.0
        if abs(other.rate.value) <= other.rate.error or slope == 0:
            break
        step = float(np.clip(-other.rate.value / slope, -1.0, 1.0))
    log_scale, verdict = min(tried[1:], key=lambda one: abs(one[1].rate.value))
    return Remedy("initial scale", f"weights times {np.exp(log_scale):.3g}", verdict)


def _residual(
    model: Model, batch: Batch, draw: Draw, at: Linearisation, parts: Sequence[Segment], options: Mapping[str, Any]
) -> list[Remedy]:
    plain = [one for one in parts if len(model.chain.paths(one.end, one.start)) == 1]
    fit = [one for one in plain if at.values[one.start].shape == at.values[one.end].shape]
    if not fit:
        return []
    chain = architecture.with_residuals(model.chain, fit)
    names = [p.scalars["scale"] for p in chain.stages if architecture.known(p.layer) is architecture.scaled_sum()]
    added = [name for name in names if name not in {s.name for s in model.chain.spec.scalars}]
    found = []
    for words, scale in (("1", 1.0), ("1/√L", 1 / sqrt(len(parts)))):
        changed = _changed(model, chain, {}, dict.fromkeys(added, scale))
        verdict = propagate(changed, batch, draw=draw, **_ends(changed, model, options)).verdict
        found.append(Remedy("residual sums", f"branches times {words} in {len(fit)} layers", verdict))
    return found


def _normalised(
    model: Model, batch: Batch, draw: Draw, at: Linearisation, parts: Sequence[Segment], options: Mapping[str, Any]
) -> list[Remedy]:
    plain = [
        one for one in parts if len(one.stages) > 1 and not any(architecture.normalises(p.layer) for p in one.stages)
    ]
    behind = {one.name: one for one in (_first_weight(model.chain, part, parts[0].start) for part in plain) if one}
    if not behind:
        return []
    chain = architecture.normalised(model.chain, behind)
    extra: dict[str, Array] = {}
    old = {one.name for one in model.chain.stages}
    for placed in (one for one in chain.stages if one.name not in old):
        stage_name, output = placed.sources["x"]
        like = at.values[behind[stage_name].outputs[output]]
        ones = np.ones(like.shape[-1], like.dtype)
        extra |= {placed.inputs["g"]: ones, placed.inputs["bias"]: np.zeros_like(ones)}
    changed = _changed(model, chain, extra, {})
    verdict = propagate(changed, batch, draw=draw, **_ends(changed, model, options)).verdict
    return [Remedy("normalisation", f"layer norm behind {len(behind)} weights", verdict)]


def _first_weight(chain: Chain, part: Segment, wrt: str) -> Placed | None:
    return next((one for one in part.stages if weighs(chain, one, wrt)), None)


def _changed(model: Model, chain: Chain, parameters: Mapping[str, Array], constants: Mapping[str, float]) -> Model:
    """The model of a changed chain, with what that has more."""
    own = {**model.parameters, **parameters}
    return Model(chain, own, backend=model.backend, threads=model.threads, **{**model.constants, **constants})


def _ends(changed: Model, model: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a changed chain, whose last output may be another tensor."""
    wanted = options.get("of")
    return {**options, "of": changed.outputs[-1] if wanted in (None, model.outputs[-1]) else wanted}

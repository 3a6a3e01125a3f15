"""Deep networks to measure, and changes of a chain to measure again: normalisation after its weights, residual sums.

    made = deep(tanh, depth=12)
    model = Model(made, gaussian(made, width=64, rng, sigma_w=1.5))
    normalised(made, ["fc0"]), with_residuals(made, segments(made, "y", "x"))

What a layer is, linear or a normalisation, is told by its equations, never by its name (`known`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Eq

from jaccomp.analysis.segments import Segment
from jaccomp.composition import INPUT, Chain, Stage, chain, stage
from jaccomp.errors import UsageError
from jaccomp.layer import Layer
from jaccomp.layers import joins, normalisations, products
from jaccomp.notation import scalar

Array = NDArray[Any]
Parameters = dict[str, Array]
NORMALISATIONS = (
    normalisations.layernorm,
    normalisations.rmsnorm,
    normalisations.batchnorm,
    normalisations.groupnorm,
    normalisations.instancenorm,
    normalisations.l2_normalize,
)


@cache
def scaled_sum() -> Layer:
    """The layer y = z + scale x: a residual connection whose branch is scaled (Szegedy et al., 2017)."""
    scale = scalar("scale", default=1.0)
    return Layer(
        "scaled_sum",
        inputs=[joins.x, joins.z],
        scalars=[scale],
        outputs=[joins.y],
        equations=[Eq(joins.y[joins.n], joins.z[joins.n] + scale * joins.x[joins.n])],
        doc="Residual sum with a scaled branch (Szegedy et al., 2017).",
    )


@cache
def known(layer: Layer) -> Layer | None:
    """The layer that this one is, by whatever name: linear, a normalisation, a sum of two; None for any other.

    Layers are one where their specs are, names of tensors included; only the layer's own name and its doc are free.
    """
    told = (products.linear, *NORMALISATIONS, joins.add, scaled_sum())
    return next((one for one in told if one is layer or _equations(one) == _equations(layer)), None)


def normalises(layer: Layer) -> bool:
    return known(layer) in NORMALISATIONS


def _equations(layer: Layer) -> str | None:
    return replace(layer.spec, name="", doc="").serialise() if layer.is_written else None


def deep(
    activation: Layer, depth: int, *, normalisation: Layer | None = None, residual: bool = False, name: str = "deep"
) -> Chain:
    """`depth` layers of linear, normalisation, activation, and a scaled residual sum: stages fc0, norm0, act0, sum0."""
    stages: dict[str, Layer | Stage] = {}
    before = "input"
    for k in range(depth):
        stages[f"fc{k}"] = stage(products.linear, x=before)
        if normalisation is not None:
            stages[f"norm{k}"] = normalisation
        stages[f"act{k}"] = activation
        before = f"act{k}"
        if residual:
            start = f"sum{k - 1}" if k else "input"
            stages[f"sum{k}"] = stage(scaled_sum(), x=f"act{k}", z=start)
            before = f"sum{k}"
    return chain(name, **stages)


def gaussian(
    made: Chain, width: int, rng: np.random.Generator, *, sigma_w: float = 1.0, sigma_b: float = 0.0
) -> Parameters:
    """Parameters of a `deep` chain: weights of variance σ_w²/width, biases of σ_b², gains 1 and shifts 0."""
    found: Parameters = {}
    for placed in made.stages:
        own = {key: placed.inputs[key] for key in placed.inputs if key not in placed.sources}
        if known(placed.layer) is products.linear:
            found[own["W"]] = sigma_w / np.sqrt(width) * rng.standard_normal((width, width))
            found[own["b"]] = sigma_b * rng.standard_normal(width)
        elif normalises(placed.layer):
            found |= {name: np.full(width, float(key == "g")) for key, name in own.items()}
    return found


@dataclass(frozen=True, slots=True)
class Behind:
    """A stage to come behind an output of another, which its input `x` reads: its name, layer, and other wires."""

    name: str
    layer: Layer
    wires: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def normalised(made: Chain, after: Collection[str], norm: Layer = normalisations.layernorm) -> Chain:
    """The chain with `norm` behind each stage named in `after`: stage `fc0` is followed by `fc0_norm`.

    Raises `UsageError` for a stage that there is not.
    """
    first = {placed.name: next(iter(placed.outputs)) for placed in made.stages}
    for name in after:
        if name not in first:
            raise UsageError(f"chain {made.name!r}", f"it has no stage {name!r}.", f"It has {', '.join(first)}.")
    return _rebuilt(made, {(name, first[name]): Behind(_free(made, f"{name}_norm"), norm) for name in after})


def with_residuals(made: Chain, segments: Sequence[Segment]) -> Chain:
    """The chain with the start of each segment added to its end, by `scaled_sum` stages named for the end's.

    Raises `UsageError` for a segment that starts at a parameter, or ends at no stage's output.
    """
    sources = {name: (one.name, own) for one in made.stages for own, name in one.outputs.items()}
    starts = {one.inputs[own]: source for one in made.stages for own, source in one.sources.items()} | sources
    behind = {}
    for one in segments:
        if one.end not in sources or one.start not in starts:
            facts = f"it has no segment from {one.start!r} to {one.end!r}."
            raise UsageError(f"chain {made.name!r}", facts, "Take them from `segments` or `layers`.")
        sum_name = _free(made, f"{sources[one.end][0]}_sum")
        behind[sources[one.end]] = Behind(sum_name, scaled_sum(), {"z": starts[one.start]})
    return _rebuilt(made, behind)


def _free(made: Chain, name: str) -> str:
    taken = {placed.name for placed in made.stages}
    while name in taken:
        name += "_"
    return name


def _rebuilt(made: Chain, behind: Mapping[tuple[str, str], Behind]) -> Chain:
    """The chain with stages behind outputs, (stage, output); all that read such an output read the new stage's."""
    now: dict[tuple[str, str], str] = {}

    def wire(source: tuple[str, str]) -> str:
        name, output = source
        return now.get(source, name if source == (INPUT, INPUT) else f"{name}.{output}")

    stages: dict[str, Layer | Stage] = {}
    for placed in made.stages:
        stages[placed.name] = stage(placed.layer, **{own: wire(source) for own, source in placed.sources.items()})
        for output in placed.outputs:
            new = behind.get((placed.name, output))
            if new is not None:
                wires = {own: wire(source) for own, source in new.wires.items()}
                stages[new.name] = stage(new.layer, x=f"{placed.name}.{output}", **wires)
                now[placed.name, output] = new.name
    return chain(made.name, **stages)

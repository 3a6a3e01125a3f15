"""A layer in pictures, and what those of a Jacobian are drawn from: a block in numbers, at arrays or at a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaccomp import pipeline
from jaccomp.compiling import compile as compile_layer
from jaccomp.errors import UsageError
from jaccomp.jacobian import Jacobian
from jaccomp.layer import Layer
from jaccomp.pictures import Instance, Picture, graph, heat, sparsity, spectrum
from jaccomp.reference import sampling
from jaccomp.reference.interpreter import evaluate

GRAPHS = ("graph", "vjp")
BLOCKS = {"heat": heat, "sparsity": sparsity, "spectrum": spectrum}


def picture(layer: Layer, kind: str = "graph", of: str | None = None, wrt: str | None = None, **where: Any) -> Picture:
    """The layer as a graph ("graph"), its VJP as one ("vjp"), or a block in numbers ("heat", "sparsity", "spectrum").

    `where` says at which numbers: inputs, sizes, scalars, seed, as `instance` takes them.
    """
    what = f"picture of {layer.name!r}"
    if kind in BLOCKS:
        return BLOCKS[kind](instance(layer, of, wrt, **where))
    if kind not in GRAPHS:
        raise UsageError(what, f"there is no kind {kind!r}.", f"kind is one of {', '.join((*GRAPHS, *BLOCKS))}.")
    given = {"of": of, "wrt": wrt, **where}
    for name, value in given.items():
        if value is not None:
            raise UsageError(what, f"a graph has no {name}.", "Leave it out, or choose heat, sparsity or spectrum.")
    return graph(layer.program if kind == "graph" else layer.derivation.vjp)


def instance(
    layer: Layer,
    of: str | None = None,
    wrt: str | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    scalars: Mapping[str, float] | None = None,
    seed: int = 1,
) -> Instance:
    """∂of/∂wrt at `inputs`, else at random ones of `sizes`, else at small sizes that the layer allows.

    Beside inputs, `sizes` are those that no input determines.
    Raises `UsageError` where the layer does not have such sizes, and what `kernel.jacobian` raises for its arguments.
    """
    block = layer.jacobian(of, wrt)
    if inputs is None:
        sample = _drawn(layer, f"instance of {block.head}", sizes, seed)
        given = replace(sample, scalars={**sample.scalars, **(scalars or {})})
        values, entries = _evaluated(layer, block, given), given.inputs[block.wrt]
        note = ", ".join(f"{name} = {value}" for name, value in sample.sizes.items()) + f"; inputs of seed {seed}"
    else:
        defaults = {s.name: s.default for s in layer.spec.scalars if s.default is not None}
        kernel = compile_layer(layer, backend="numpy")
        constants = {**defaults, **(scalars or {}), **(sizes or {})}
        values = kernel.jacobian(**inputs, of=block.of, wrt=block.wrt, **constants)
        entries = inputs[block.wrt]
        note = ", ".join(f"{name} of shape {np.shape(value)}" for name, value in inputs.items())
    rows, columns = block.head.removeprefix("∂").split("/∂")
    return Instance(block.of, block.wrt, rows, columns, values.ndim - np.ndim(entries), values, note)


def _evaluated(layer: Layer, block: Jacobian, sample: sampling.Sample) -> Any:
    """The block's own program at a sample: no kernel is made, and no row is pulled back by itself."""
    program = pipeline.jacobian_program(layer.derivation, block.block.of, block.block.wrt)
    label = program.labels.name
    arrays = {name: sample.inputs[label(name)] for name in program.inputs}
    sizes = {s.name: sample.sizes[label(s.name)] for s in program.sizes}
    scalars = {s.name: sample.scalars[label(s.name)] for s in program.scalars}
    return evaluate(program, arrays, sizes, scalars)[program.outputs[0]]


def _drawn(layer: Layer, what: str, sizes: Mapping[str, int] | None, seed: int) -> sampling.Sample:
    spec = layer.spec
    if sizes is None:
        sizes = sampling.handy(spec).sizes
    names = [s.name for s in spec.sizes]
    if sorted(sizes) != sorted(names):
        raise UsageError(what, f"sizes are given for {sorted(sizes)}, but the layer has {sorted(names)}.", "Give each.")
    found = sampling.draw(spec, "instance", iter([dict(sizes)]), np.random.default_rng(seed))
    if found is None:
        raise UsageError(what, f"the layer does not allow the sizes {dict(sizes)}.", "Choose sizes that fit together.")
    return found

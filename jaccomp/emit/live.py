"""A layer to play with in a page: its programs in JavaScript, and all that choosing sizes and inputs needs.

    spec, forward, blocks   ->   Live   ->   one JavaScript expression

The value of the expression is an object: `sizes`, `scalars` and `inputs` with their labels, defaults and limits, `draw`
(the inputs of a seed), `forward` and `blocks`, each with `evaluate` and its shape. Labels are JSON, in which nothing
ends a script element.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sympy as sp

from jaccomp.emit.javascript import Constants, program_function
from jaccomp.emit.templates import render
from jaccomp.errors import UsageError
from jaccomp.printing import axis_letters
from jaccomp.program import Program
from jaccomp.reference import sampling
from jaccomp.reference.sampling import Sample
from jaccomp.spec import Spec

LARGEST = 1 << 16  # entries of a block that a page computes
COMFORTABLE = 1 << 14  # entries of the largest block that a page opens with
LARGEST_SIZE = 64
UNBOUNDED = 3  # integer inputs that name no position are drawn below it
MODEST = (3, 5, 4, 2, 3, 4, 2)
TRIES = 120


@dataclass(frozen=True, slots=True)
class LiveBlock:
    """∂of/∂wrt by the user's names, and its program; the first `rank` axes of its output are those of `of`."""

    of: str
    wrt: str
    rank: int
    program: Program


@dataclass(frozen=True, slots=True)
class Live:
    """A layer's programs, its sample (whose sizes and scalars are the defaults), and where integer inputs end."""

    name: str
    forward: Program
    blocks: tuple[LiveBlock, ...]
    sample: Sample
    stops: tuple[tuple[str, tuple[sp.Expr, ...]], ...]

    @property
    def script(self) -> str:
        """The JavaScript expression."""
        return live_script(self)


def assemble(spec: Spec, forward: Program, blocks: Sequence[LiveBlock]) -> Live:
    """A written layer with its forward program and its blocks. Raises `UsageError` where no sizes fit the layer."""
    label = forward.labels.name
    words: dict[sp.Expr, sp.Expr] = {}
    for own, written in ((forward.sizes, spec.sizes), (tuple(s.symbol for s in forward.scalars), spec.scalars)):
        by_name = {one.name: one for one in written}
        words |= {by_name[label(one.name)]: one for one in own}
    stops = tuple(
        (name, tuple(e.xreplace(words) for e in sampling.stops(spec, label(name))))
        for name in forward.inputs
        if forward.tensor(name).dtype == "int64"
    )
    return Live(spec.name, forward, tuple(blocks), sample(spec), stops)


def sample(spec: Spec) -> Sample:
    """Small sizes, scalars and kinds of inputs that the layer allows: no axis of one element, no block that is large.

    Where no drawn sizes are such, the first that the layer allows.
    """
    rng = np.random.default_rng(0)
    fallback: Sample | None = None
    for sizes in itertools.islice(_modest(spec, rng), TRIES):
        found = sampling.draw(spec, "live", iter([sizes]), rng)
        if found is not None and _is_handy(spec, found):
            return found
        fallback = fallback or found
    if fallback is None:
        raise UsageError(f"layer {spec.name!r}", "no small sizes were found that it allows.", "Bind some of its sizes.")
    return fallback


def _is_handy(spec: Spec, one: Sample) -> bool:
    constants = {**one.sizes, **one.scalars}
    above, below = ([sampling.extents(t.shape, constants) for t in side] for side in (spec.outputs, spec.inputs))
    largest = max(math.prod(shape) for shape in above) * max(math.prod(shape) for shape in below)
    return largest <= COMFORTABLE and all(length > 1 for shape in (*above, *below) for length in shape)


def _modest(spec: Spec, rng: np.random.Generator) -> Iterator[dict[str, int]]:
    names = [s.name for s in spec.sizes]
    if len(names) < len(MODEST):
        yield dict(zip(names, (12,) if len(names) == 1 else MODEST, strict=False))
    for attempt in itertools.count():
        yield {name: int(rng.integers(2, 6 if attempt < TRIES / 2 else 4)) for name in names}


def live_script(one: Live) -> str:
    """An expression whose value the page's script mounts; it reads no global but `Math` and the typed arrays."""
    program = one.forward
    label = program.labels.name
    values = {**one.sample.sizes, **one.sample.scalars}
    functions = ["forward", *(f"block{k}" for k in range(len(one.blocks)))]
    programs = [program, *(b.program for b in one.blocks)]
    stops, constants = dict(one.stops), Constants(program)
    return render(
        "javascript/live.js.j2",
        functions=render("javascript/functions.js").rstrip("\n"),
        drawing=render("javascript/drawing.js").rstrip("\n"),
        programs=[program_function(name, p) for name, p in zip(functions, programs, strict=True)],
        name=text(one.name),
        limit=LARGEST,
        sizes=[
            {"id": s.name, "label": text(label(s.name)), "value": values[label(s.name)], "most": LARGEST_SIZE}
            for s in program.sizes
        ],
        scalars=[
            {
                "id": s.name,
                "label": text(label(s.name)),
                "value": json.dumps(values[label(s.name)]),
                "whole": json.dumps(s.dtype == "int64"),
            }
            for s in program.scalars
        ],
        inputs=[
            {
                "id": name,
                "label": text(label(name)),
                "kind": one.sample.kinds.get(label(name), "whole"),
                "position": k,
                "shape": f"(sizes, scalars) => {constants.shape(program.tensor(name).shape)}",
                "count": constants.product(program.tensor(name).shape),
                "below": constants.least(stops.get(name, ()), UNBOUNDED),
            }
            for k, name in enumerate(program.inputs)
        ],
        outputs=[text(name) for name in program.outputs],
        blocks=[_block(b, name) for b, name in zip(one.blocks, functions[1:], strict=True)],
    ).rstrip("\n")


def _block(block: LiveBlock, function: str) -> dict[str, object]:
    (output,) = block.program.outputs
    tensor = block.program.tensor(output)
    letters = [text(letter) for letter in axis_letters(block.program.labels, tensor)]
    return {
        "of": text(block.of),
        "wrt": text(block.wrt),
        "rows": letters[: block.rank],
        "columns": letters[block.rank :],
        "output": output,
        "shape": f"(sizes, scalars) => {Constants(block.program).shape(tensor.shape)}",
        "function": function,
    }


def text(value: str) -> str:
    """A JavaScript string literal in ASCII that ends no script element and opens no comment."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

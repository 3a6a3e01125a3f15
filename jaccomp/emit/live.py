"""A layer to play with in a page: its programs in JavaScript, and all that choosing sizes and inputs needs.

    spec, forward, blocks   ->   Live   ->   one JavaScript expression

The value of the expression is an object: `sizes`, `scalars` and `inputs` with their labels, defaults and limits, `draw`
(the inputs of a seed), `forward` and `blocks`, each with `evaluate` and its shape. Labels are JSON, in which nothing
ends a script element.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.emit.javascript import Constants, program_function
from jaccomp.emit.templates import render, verbatim
from jaccomp.printing import axis_letters
from jaccomp.program import Program
from jaccomp.reference import sampling
from jaccomp.reference.sampling import Sample
from jaccomp.spec import Spec

LARGEST = 1 << 16  # entries of a block that a page computes
LARGEST_SIZE = 64
UNBOUNDED = 3  # integer inputs that name no position are drawn below it


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
    return Live(spec.name, forward, tuple(blocks), sampling.handy(spec), stops)


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
        functions=verbatim("javascript/functions.js"),
        drawing=verbatim("javascript/drawing.js"),
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
                "below": constants.least(stops.get(name, ()), str(UNBOUNDED)),
                "stop": f"(sizes, scalars) => {constants.least(stops.get(name, ()), 'Infinity')}",
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

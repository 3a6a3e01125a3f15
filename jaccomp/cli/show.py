"""Print what a layer is and what was derived from it: equations, Jacobian blocks, VJP, conventions; or one stage."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaccomp.cli import console
from jaccomp.cli.target import targets
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.algebra.engine import Step
    from jaccomp.jacobian import Jacobian
    from jaccomp.layer import Layer
    from jaccomp.pipeline import Derivation
    from jaccomp.program import Program

HELP = "a layer's equations, Jacobian and VJP, or one stage of its compilation"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer", nargs="+", metavar="LAYER")
    parser.add_argument("--stage", choices=tuple(STAGES), help="print this stage alone")
    parser.add_argument("--of", metavar="Y", help="only the Jacobian of this output")
    parser.add_argument("--wrt", metavar="X", help="only the Jacobian with respect to this input")
    parser.add_argument("--trace", action="store_true", help="list the rules that simplified it, before and after")
    parser.add_argument("--json", action="store_true", help='{"layers": [{"name", "equations", "jacobian", ...}]}')


def run(arguments: argparse.Namespace) -> int:
    if arguments.stage not in (None, "jacobian") and (arguments.of or arguments.wrt):
        raise UsageError("show", f"--of and --wrt choose Jacobian blocks; stage {arguments.stage} has none.")
    layers = [one.load() for one in targets(arguments.layer)]
    if arguments.json:
        console.print_json({"layers": [_record(layer, arguments) for layer in layers]})
        return 0
    shown = [_shown(layer, arguments) for layer in layers]
    print("\n\n".join(shown))
    return 0


def _shown(layer: Layer, asked: argparse.Namespace) -> str:
    parts = []
    if asked.stage == "jacobian":
        parts.append("\n".join(map(_block_line, _blocks(layer, asked.of, asked.wrt))))
    elif asked.stage is not None:
        parts.append(STAGES[asked.stage](layer))
    else:
        parts.append(_page(layer, asked.of, asked.wrt))
    if asked.trace:
        parts.append(_trace(_steps(layer)))
    return "\n\n".join(parts)


# The page


def _page(layer: Layer, of: str | None, wrt: str | None) -> str:
    blocks = _blocks(layer, of, wrt)
    sections = {
        "equations": _equations(layer.prepared),
        "Jacobian": [_block_line(one) for one in blocks],
        "VJP, as derived and simplified": _derived(layer.derivation),
        "conventions": [f"{row['what']}: {row['value']} ({row['source']})" for row in _conventions(layer)],
    }
    head = console.heading(signature(layer)) + (f"\n{console.indented([layer.doc])}" if layer.doc else "")
    body = [f"{console.heading(title)}\n{console.indented(lines)}" for title, lines in sections.items() if lines]
    return "\n\n".join([head, *body])


def signature(layer: Layer) -> str:
    """`rmsnorm(x[N, D], g[D], *, eps=1e-06) -> y[N, D]`; of a layer that was derived, in the words of its origin."""
    program = layer.program
    words = {one: one.func(program.labels.name(one.name)) for one in program.sizes}
    written = {one.name: one for one in layer.spec.inputs + layer.spec.outputs} if layer.is_written else {}

    def tensor(canonical: str) -> str:
        name, one = program.labels.name(canonical), program.tensor(canonical)
        shape = written[name].shape if name in written else [extent.xreplace(words) for extent in one.shape]
        return name + (f"[{', '.join(map(str, shape))}]" if shape else "") + (": int64" if one.dtype == "int64" else "")

    scalars = [
        program.labels.name(one.name) + ("" if one.default is None else f"={one.default!r}") for one in program.scalars
    ]
    takes = [*map(tensor, program.inputs), *(["*", *scalars] if scalars else [])]
    return f"{layer.name}({', '.join(takes)}) -> {', '.join(map(tensor, program.outputs))}"


def _equations(program: Program) -> list[str]:
    from jaccomp.printing import equation_text

    return [equation_text(program, equation) for equation in program.equations]


def _derived(derivation: Derivation) -> list[str]:
    """The equations of a VJP that are not the layer's own."""
    from jaccomp.printing import equation_text

    own = {equation.target for equation in derivation.program.equations}
    return [equation_text(derivation.vjp, one) for one in derivation.vjp.equations if one.target not in own]


def _blocks(layer: Layer, of: str | None, wrt: str | None) -> list[Jacobian]:
    """The Jacobian blocks of real outputs by real inputs, or those of them that were chosen."""
    names = layer.jacobians()
    outputs, inputs = (list(dict.fromkeys(key[k] for key in names)) for k in (0, 1))
    for option, chosen, known in (("--of", of, outputs), ("--wrt", wrt, inputs)):
        if chosen is not None and chosen not in known:
            raise UsageError(
                f"{option} {chosen}", f"{layer.name} has {', '.join(known) or 'none'}.", "Name one of them."
            )
    return [block for (y, x), block in names.items() if of in (None, y) and wrt in (None, x)]


def _block_line(block: Jacobian) -> str:
    return f"{block}    ({block.structure})"


def _conventions(layer: Layer) -> list[dict[str, str]]:
    from dataclasses import asdict

    from jaccomp import pipeline
    from jaccomp.calculus.conventions import in_force

    parts = pipeline.halves(layer.derivation)
    return [asdict(row) for row in in_force(layer.program, parts.fwd, parts.bwd)]


# Stages


def _steps(layer: Layer) -> tuple[Step, ...]:
    from jaccomp import pipeline

    return pipeline.derive(layer.prepared, traced=True).steps


def _spec(layer: Layer) -> str:
    return "\n".join([signature(layer), *(f"    {equation}" for equation in layer.spec.equations)])


def _program(layer: Layer) -> str:
    from jaccomp.printing import program_text

    return program_text(layer.program)


def _vjp(layer: Layer) -> str:
    from jaccomp.printing import program_text

    return program_text(layer.derivation.vjp)


def _jvp(layer: Layer) -> str:
    from jaccomp import pipeline
    from jaccomp.printing import program_text

    return program_text(pipeline.derive_jvp(layer.prepared))


def _stabilise(layer: Layer) -> str:
    from jaccomp import pipeline
    from jaccomp.printing import program_text

    parts = pipeline.halves(layer.derivation)
    return "\n\n".join(program_text(one) for one in (parts.forward, parts.fwd, parts.bwd))


def _kernel(layer: Layer) -> str:
    from jaccomp import pipeline
    from jaccomp.lowering import lower

    parts = pipeline.halves(layer.derivation)
    return "\n\n".join(str(lower(one)) for one in (parts.forward, parts.fwd, parts.bwd))


def _source(layer: Layer) -> str:
    from jaccomp.compiling import source

    return source(layer, "whole").pyx.rstrip("\n")


STAGES: Mapping[str, Callable[[Layer], str]] = {
    "spec": _spec,
    "program": _program,
    "jacobian": lambda layer: "\n".join(map(_block_line, _blocks(layer, None, None))),
    "vjp": _vjp,
    "jvp": _jvp,
    "stabilise": _stabilise,
    "kernel": _kernel,
    "source": _source,
}


def _trace(steps: tuple[Step, ...]) -> str:
    lines = []
    for step in steps:
        lines.append(console.heading(step.rule))
        lines += [f"  - {line}" for line in step.before] + [f"  + {line}" for line in step.after]
    return "\n".join(lines) if lines else "no rule fired"


def _record(layer: Layer, asked: argparse.Namespace) -> dict[str, Any]:
    import sympy

    record: dict[str, Any] = {"name": layer.name, "signature": signature(layer), "doc": layer.doc}
    if asked.stage not in (None, "jacobian"):
        record["stage"], record["text"] = asked.stage, STAGES[asked.stage](layer)
    else:
        record["jacobian"] = [
            {"of": one.of, "wrt": one.wrt, "formula": str(one), "latex": sympy.latex(one), "structure": one.structure}
            for one in _blocks(layer, asked.of, asked.wrt)
        ]
    if asked.stage is None:
        record["equations"] = _equations(layer.prepared)
        record["vjp"] = _derived(layer.derivation)
        record["conventions"] = _conventions(layer)
    if asked.trace:
        record["trace"] = [
            {"rule": one.rule, "before": list(one.before), "after": list(one.after)} for one in _steps(layer)
        ]
    return record

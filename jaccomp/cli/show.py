"""Print what a layer is and what was derived from it: equations, Jacobian blocks, VJP, conventions.

With --card, or --format, the whole derivation card: local Jacobians, chain, rules with their laws, residuals, costs,
domain and generated source too. With --stage, one stage of its compilation. On a terminal, long output is paged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaccomp.cli import console
from jaccomp.cli.target import targets
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.algebra.engine import Step
    from jaccomp.card import Card
    from jaccomp.jacobian import Jacobian
    from jaccomp.layer import Layer
    from jaccomp.pipeline import Derivation
    from jaccomp.program import Program

FORMATS = ("text", "markdown", "latex", "html", "json")
LAYOUTS = ("numerator", "denominator")
HELP = "a layer's equations, Jacobian and VJP, or one stage of its compilation"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer", nargs="+", metavar="LAYER")
    parser.add_argument("--stage", choices=tuple(STAGES), help="print this stage alone")
    parser.add_argument("--of", metavar="Y", help="only the Jacobian of this output")
    parser.add_argument("--wrt", metavar="X", help="only the Jacobian with respect to this input")
    parser.add_argument("--trace", action="store_true", help="list the rules that simplified it, before and after")
    parser.add_argument("--card", action="store_true", help="print the whole derivation card")
    parser.add_argument("--format", choices=FORMATS, help="print the whole card as this")
    parser.add_argument(
        "--layout", choices=LAYOUTS, default="numerator", help="of the card's matrices: rows of the output, or columns"
    )
    parser.add_argument("--check", action="store_true", help="run the layer's checks, and record them in its card")
    parser.add_argument("--open", action="store_true", help="open the card's HTML in the browser")
    parser.add_argument("--json", action="store_true", help='{"layers": [{"name", "equations", "jacobian", ...}]}')


def run(arguments: argparse.Namespace) -> int:
    _refuse(arguments)
    layers = [one.load() for one in targets(arguments.layer)]
    if arguments.open:
        for layer in layers:
            _open(_card(layer, arguments))
    elif arguments.card or arguments.format:
        console.page(_cards([_card(layer, arguments) for layer in layers], arguments.format or "text"))
    elif arguments.json:
        console.print_json({"layers": [_record(layer, arguments) for layer in layers]})
    else:
        console.page("\n\n".join(_shown(layer, arguments) for layer in layers))
    return 0


def _refuse(asked: argparse.Namespace) -> None:
    """Raises `UsageError` for options that do not go together."""
    is_card = bool(asked.card or asked.format or asked.open)
    if asked.stage not in (None, "jacobian") and (asked.of or asked.wrt):
        raise UsageError("show", f"--of and --wrt choose Jacobian blocks; stage {asked.stage} has none.")
    for option, given in (("--stage", asked.stage), ("--trace", asked.trace), ("--json", asked.json)):
        if is_card and given:
            remedy = "Use --format json." if option == "--json" else f"Leave out {option}, or --card and --format."
            raise UsageError("show", f"{option} is no part of a card, which is printed whole.", remedy)
    if asked.check and not is_card:
        raise UsageError("show", "--check records checks in a card, and none is asked for.", "Add --card or --format.")
    if asked.open and asked.format not in (None, "html"):
        raise UsageError("show", f"--open shows HTML, not {asked.format}.", "Leave out --format.")


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


# The card


def _card(layer: Layer, asked: argparse.Namespace) -> Card:
    """The card with the blocks that were chosen."""
    from dataclasses import replace

    from jaccomp.checking import check

    chosen = {(one.of, one.wrt) for one in _blocks(layer, asked.of, asked.wrt)}
    card = layer.card(checks=check if asked.check else None, layout=asked.layout)
    return replace(card, blocks=tuple(one for one in card.blocks if (one.of, one.wrt) in chosen))


def _cards(cards: list[Card], format: str) -> str:
    """Several cards as one text of the format; JSON of several is a list."""
    import json

    from jaccomp.cards import latex, text
    from jaccomp.cards.json import record

    if format == "html" and len(cards) > 1:
        raise UsageError(
            "show", f"{len(cards)} layers make {len(cards)} pages of HTML.", "Name one, or use jaccomp gallery."
        )
    if format == "latex":
        return latex.document(cards).rstrip("\n")
    if format == "json" and len(cards) > 1:
        return json.dumps([record(one) for one in cards], indent=1, ensure_ascii=False)
    shown = [text.render(one, _painted) if format == "text" else one.as_(format) for one in cards]
    return "\n".join(shown).rstrip("\n")


def _open(card: Card) -> None:
    """Show a card in the browser, from a file in a folder that only its user can read; without one, say where it is."""
    import tempfile
    import webbrowser
    from pathlib import Path

    path = Path(tempfile.mkdtemp(prefix="jaccomp-")) / f"{card.name}.html"
    path.write_text(card.as_("html"), encoding="utf-8")
    print(path if not webbrowser.open(path.as_uri()) else f"opened {path}", file=sys.stderr)


def _painted(line: str, kind: str) -> str:
    return console.painted(line, {"title": console.BOLD, "before": console.RED, "after": console.GREEN}[kind])


# The page


def _page(layer: Layer, of: str | None, wrt: str | None) -> str:
    from jaccomp.cards.subject import signature

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
    from jaccomp.cards.gather import conventions

    return [asdict(row) for row in conventions(layer, pipeline.halves(layer.derivation))]


# Stages


def _steps(layer: Layer) -> tuple[Step, ...]:
    from jaccomp import pipeline

    return pipeline.derive(layer.prepared, traced=True).steps


def _spec(layer: Layer) -> str:
    from jaccomp.cards.subject import signature

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

    from jaccomp.cards.subject import signature

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

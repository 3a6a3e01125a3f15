"""Measure layers: beside PyTorch, JAX and NumPy and against the machine's limits, or how long their builds take.

`--suite core` times each row forward, as VJP from the inputs and backward from residuals, every peer in the same
process and interleaved, and prints the ratio best peer / jaccomp and the fraction of the limit. `--suite latency` times
derivations, cold builds and warm loads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaccomp.cli import console
from jaccomp.errors import UsageError

HELP = "layers beside peers and the machine's limits, or how long builds take"
SUITES = ("core", "latency")
CORE = ("peers", "threads", "allocator", "modes", "seconds", "output", "instructions", "against", "markdown")
SECONDS = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "row", nargs="*", metavar="ROW", help="rows of the core suite, or layers of the latency suite; all by default"
    )
    parser.add_argument("--suite", choices=SUITES, default="latency", help="%(default)s")
    parser.add_argument("--json", action="store_true", help="core: [{case, mode, threads, allocator, ...}, ...]")
    core = parser.add_argument_group("the core suite")
    core.add_argument("--peers", metavar="LIST", help="of torch, inductor, inductor_vjp, jax, numpy; all by default")
    core.add_argument("--threads", metavar="LIST", help="numbers of threads: 1")
    core.add_argument("--allocator", metavar="LIST", help="of default, keep: default")
    core.add_argument("--modes", metavar="LIST", help="of forward, vjp, backward; all by default")
    core.add_argument("--seconds", type=float, metavar="S", help=f"of timed calls, for a row and mode: {SECONDS}")
    core.add_argument("--output", metavar="FILE", help="append each record, as it is measured, as a line of JSON")
    core.add_argument("--instructions", action="store_true", help="count instructions, at small sizes, by valgrind")
    core.add_argument("--against", metavar="FILE", help="what --instructions --json printed; exit 1 where a row grew")
    core.add_argument("--markdown", metavar="FILE", help="print the table of records that --output wrote; no run")


def run(arguments: argparse.Namespace) -> int:
    if arguments.suite == "latency":
        _refuse(arguments, CORE, "it belongs to the core suite.", "Add --suite core.")
        return _latency(arguments)
    if not arguments.instructions:
        _refuse(arguments, ("against",), "it is what counts are compared with.", "Add --instructions.")
    if arguments.markdown:
        from jaccomp.benchmark import text

        print(text.markdown(*_stored(arguments.markdown)))
        return 0
    return _instructions(arguments) if arguments.instructions else _core(arguments)


def _refuse(arguments: argparse.Namespace, names: Sequence[str], facts: str, remedy: str) -> None:
    """Raise for the first of these options that was given."""
    for name in names:
        if getattr(arguments, name) not in (None, False):
            raise UsageError(f"bench --{name}", facts, remedy)


def _latency(arguments: argparse.Namespace) -> int:
    from jaccomp.benchmark.latency import latency, steps
    from jaccomp.cli.target import library, targets

    chosen = targets(arguments.row) or library()
    with console.Progress(steps(chosen)) as progress:
        record = latency(chosen, progress.step)
    if arguments.json:
        console.print_json(record)
        return 0
    rows = [("layer", "derivation", "cold build")]
    rows += [(r["name"], f"{r['derive_ms']:.0f} ms", f"{r['cold_build_s']:.2f} s") for r in record["layers"]]
    totals = [(key, f"{value}") for key, value in record.items() if key != "layers"]
    print(f"{console.table(rows)}\n\n{console.table(totals)}")
    return 0


def _core(arguments: argparse.Namespace) -> int:
    from jaccomp.benchmark import cases, process, suite, text

    plan = suite.Plan(
        cases.select(arguments.row),
        _listed("--modes", arguments.modes, cases.MODES),
        _listed("--peers", arguments.peers, suite.PEERS),
        _seconds(SECONDS if arguments.seconds is None else arguments.seconds),
    )
    allocators = _listed(
        "--allocator", "default" if arguments.allocator is None else arguments.allocator, process.ALLOCATORS
    )
    configurations = suite.configurations(
        _numbers("--threads", "1" if arguments.threads is None else arguments.threads), allocators
    )
    everything: list[dict[str, Any]] = []
    with console.Progress(len(configurations) * len(plan.rows) * len(plan.modes)) as progress:
        for one in configurations:
            abouts: list[dict[str, Any]] = []
            records: list[dict[str, Any]] = []
            for kind, record in suite.measured(plan, one, progress.step):
                (abouts if kind == "about" else records).append(record)
                if arguments.output:
                    _append(arguments.output, {kind: record})
            everything += records
            if not arguments.json:
                print("\n\n".join([*map(text.about_text, abouts), text.table_text(records)]), end="\n\n", flush=True)
    if arguments.json:
        console.print_json(everything)
    return 0


def _instructions(arguments: argparse.Namespace) -> int:
    from jaccomp.benchmark import cases, instructions

    rows = cases.select(arguments.row)
    modes = _listed("--modes", arguments.modes, cases.MODES)
    before = _counts(arguments.against) if arguments.against else None
    with console.Progress(len(rows) * len(modes) + 1) as progress:
        now = instructions.counted(rows, modes, progress.step)
    lines = [] if before is None else instructions.grown(now, before)
    if arguments.json:
        console.print_json(now)
    else:
        head = ("row", "mode", "instructions")
        print(console.table([head, *((one["case"], one["mode"], f"{one['instructions']:,}") for one in now)]))
    for line in lines:
        print(console.painted(f"grew: {line}", console.RED, sys.stderr), file=sys.stderr)
    return 1 if lines else 0


def _counts(path: str) -> list[dict[str, Any]]:
    """What an earlier run counted."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        return [{key: one[key] for key in ("case", "mode", "instructions")} for one in stored]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--against {path}", f"it holds no counts: {error}.", "Store --instructions --json.") from None


def _listed(flag: str, given: str | None, known: Sequence[Any]) -> tuple[Any, ...]:
    """The words of a comma-separated list, each once; all that are known where none is given."""
    words = tuple(dict.fromkeys(given.split(","))) if given is not None else tuple(known)
    for word in words:
        if word not in known:
            raise UsageError(f"{flag} {word!r}", "there is no such thing.", f"Choose from {', '.join(known)}.")
    return words


def _numbers(flag: str, given: str) -> tuple[int, ...]:
    words = given.split(",")
    for word in words:
        if not word.isdecimal():
            raise UsageError(f"{flag} {word!r}", "it is not a whole number.", "Give some as 1,2.")
    return tuple(dict.fromkeys(map(int, words)))


def _seconds(given: float) -> float:
    if not 0 < given < float("inf"):
        raise UsageError(f"--seconds {given}", "it is not a positive number.", "Give one.")
    return given


def _append(path: str, event: dict[str, Any]) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            print(json.dumps(event, ensure_ascii=False), file=file)
    except OSError as error:
        raise UsageError(f"--output {path}", f"it cannot be written: {error.strerror}.") from None


def _stored(path: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The facts and the rows that a run appended to a file; of a row that was measured twice, the later one."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        events = [pair for line in lines if line.strip() for pair in json.loads(line).items()]
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}", f"it holds no run: {error}.", "Store one with --output.") from None
    rows = [value for kind, value in events if kind == "row"]
    return [value for kind, value in events if kind == "about"], list(_latest(rows))


def _latest(rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return {tuple(one[key] for key in ("case", "mode", "threads", "allocator")): one for one in rows}.values()

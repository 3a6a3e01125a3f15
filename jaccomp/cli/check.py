"""Climb the ladder of references with compiled layers: forward, VJP and JVP, in float32 and float64."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from jaccomp.cli import console
from jaccomp.cli.target import Target, library, targets
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.reference.report import Report

HELP = "layers against references that do not share their derivation"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer", nargs="*", metavar="LAYER")
    parser.add_argument("--all", action="store_true", help="every layer of the library")
    parser.add_argument("--backend", choices=("cython", "numpy"), default="cython", help="%(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the samples: %(default)s")
    parser.add_argument("--rows", action="store_true", help="print every row, not the worst of each kind")
    parser.add_argument("--json", action="store_true", help='{"passed": bool, "rows": [...]}')


def run(arguments: argparse.Namespace) -> int:
    if not arguments.layer and not arguments.all:
        raise UsageError("check", "no layer was named.", "Name some, or give --all.")
    if arguments.seed < 0:
        raise UsageError("check", f"--seed is {arguments.seed}.", "Give a whole number >= 0.")
    chosen = {one.name: one for one in (library() if arguments.all else ())}
    chosen.update({one.name: one for one in targets(arguments.layer)})
    report = checked(tuple(chosen.values()), backend=arguments.backend, seed=arguments.seed)
    if arguments.json:
        print(report.to_json())
    else:
        print(report if arguments.rows else text(report))
    return 0 if report.passed else 1


def checked(chosen: tuple[Target, ...], *, backend: str = "cython", seed: int = 0) -> Report:
    """The reports of several layers as one; how far it is stands on stderr."""
    from jaccomp.checking import check
    from jaccomp.reference.report import Report

    report = Report(())
    with console.Progress(len(chosen)) as progress:
        for one in chosen:
            progress.step(f"checking {one.name}")
            report = report + check(one.asked, backend=backend, seed=seed)
    return report


def text(report: Report) -> str:
    """The worst row of each layer, dtype, what and reference, and how many rows there were."""
    lines = str(report.summary()).split("\n")
    verdict = "passed" if report.passed else f"{len(report.failures)} failed"
    colour = console.GREEN if report.passed else console.RED
    return "\n".join([*lines[:-1], console.painted(f"{len(report.rows)} rows: {verdict}", colour)])

"""Print the layers there are: the library's, and those of spec files."""

from __future__ import annotations

import argparse

from jaccomp.cli import console
from jaccomp.cli.target import library, targets

HELP = "the layers there are: names, families, sources"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", nargs="*", metavar="SPEC", help="list these, and not the library")
    parser.add_argument("--json", action="store_true", help='{"layers": [{"name", "family", "source"}]}')


def run(arguments: argparse.Namespace) -> int:
    found = targets(arguments.spec) if arguments.spec else library()
    if arguments.json:
        rows = [{"name": one.name, "family": one.family, "source": one.source} for one in found]
        console.print_json({"layers": rows})
    else:
        print(console.table([(one.name, one.family, one.source) for one in found]))
    return 0

"""Look at what a build needs of this machine: compiler, headers, Cython, OpenMP, CPU, cache, BLAS."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from jaccomp.build import doctor
from jaccomp.cli import console

HELP = "what a build needs of this machine, and what is missing"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help='{"ok": bool, "findings": [{"name", "ok", ...}]}')


def run(arguments: argparse.Namespace) -> int:
    findings = doctor()
    well = all(one.ok for one in findings)
    if arguments.json:
        console.print_json({"ok": well, "findings": [asdict(one) for one in findings]})
        return 0 if well else 1
    width = max(len(one.name) for one in findings)
    for one in findings:
        verdict = console.painted("ok     ", console.GREEN) if one.ok else console.painted("missing", console.RED)
        print(f"{verdict}  {one.name.ljust(width)}  {one.detail}")
        if one.remedy:
            print(f"{'':7}  {'':{width}}  {one.remedy}")
    if not well:
        print('Without a compiler, jc.compile(layer, backend="numpy") serves.')
    return 0 if well else 1

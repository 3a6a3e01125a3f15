"""Measure how long a person waits: derivations, cold builds and warm loads, over the library.

Derivation is spec to simplified VJP, SymPy's caches emptied. A cold build is forward and VJP of one layer from nothing,
in a cache of its own. A warm load is a new process that loads a layer by name, less one that imports NumPy alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from jaccomp.cli import console
from jaccomp.cli.target import Target, library, targets
from jaccomp.errors import BuildError

HELP = "how long derivations, cold builds and warm loads take"
SUITES = ("latency",)
LOADS = 9
"""New processes of each kind: their median is what is reported."""
LOADED = "layernorm"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer", nargs="*", metavar="LAYER", help="measure these; all of the library by default")
    parser.add_argument("--suite", choices=SUITES, default="latency", help="%(default)s")
    parser.add_argument("--json", action="store_true", help='{"derive_median_ms", ..., "layers": [...]}')


def run(arguments: argparse.Namespace) -> int:
    chosen = targets(arguments.layer) or library()
    record = latency(chosen)
    if arguments.json:
        console.print_json(record)
    else:
        print(_text(record))
    return 0


def latency(chosen: Sequence[Target]) -> dict[str, Any]:
    """The medians and the worst of each measurement, and the rows they come from."""
    rows: list[dict[str, Any]] = []
    with console.Progress(2 * len(chosen) + 1) as progress:
        for one in chosen:
            progress.step(f"deriving {one.name}")
            rows.append({"name": one.name, "derive_ms": 1e3 * _derivation(one)})
        with tempfile.TemporaryDirectory(prefix="jaccomp-bench-") as folder, _cache_in(folder):
            for one, row in zip(chosen, rows, strict=True):
                progress.step(f"building {one.name}")
                row["cold_build_s"] = _timed(_cold_build(one))
            progress.step(f"loading {LOADED}")
            warm = _warm_load()
    derivations, builds = ([float(row[key]) for row in rows] for key in ("derive_ms", "cold_build_s"))
    return {
        "derive_median_ms": round(statistics.median(derivations), 2),
        "derive_worst_ms": round(max(derivations), 2),
        "cold_build_median_s": round(statistics.median(builds), 3),
        "cold_build_worst_s": round(max(builds), 3),
        "warm_load_ms": round(1e3 * warm, 2),
        "layers": [{key: value if key == "name" else round(float(value), 3) for key, value in r.items()} for r in rows],
    }


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _derivation(one: Target) -> float:
    from sympy.core.cache import clear_cache

    from jaccomp import pipeline

    spec = one.load().spec
    clear_cache()
    return _timed(lambda: pipeline.derive(pipeline.prepare(spec)))


def _cold_build(one: Target) -> Callable[[], object]:
    """The build of a layer that this process has neither derived nor compiled; the tools themselves are loaded."""
    from importlib import import_module

    from sympy.core.cache import clear_cache

    from jaccomp.compiling import compile
    from jaccomp.layer import Layer

    import_module("Cython.Compiler.Main")
    import_module("jaccomp.bundling")
    fresh = Layer.of_spec(one.load().spec)
    clear_cache()
    return lambda: compile(fresh)


class _cache_in:
    """A cache of one's own while it lasts."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.before: str | None = None

    def __enter__(self) -> None:
        self.before = os.environ.get("JACCOMP_CACHE_DIR")
        os.environ["JACCOMP_CACHE_DIR"] = self.folder

    def __exit__(self, *_: object) -> None:
        with suppress(KeyError):
            del os.environ["JACCOMP_CACHE_DIR"]
        if self.before is not None:
            os.environ["JACCOMP_CACHE_DIR"] = self.before


def _warm_load() -> float:
    """Seconds that loading a library layer by name adds to importing NumPy, in new processes with a warm cache."""
    load = f"import jaccomp; jaccomp.load({LOADED!r})"
    _process(load)
    bare, loaded = [], []
    for _ in range(LOADS):  # in turn, so that a busy machine slows both
        bare.append(_process("import numpy"))
        loaded.append(_process(f"import numpy; {load}"))
    return max(0.0, statistics.median(loaded) - statistics.median(bare))


def _process(code: str) -> float:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    start = time.perf_counter()
    done = subprocess.run(  # the interpreter, its imports and its end: what a person waits for
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"new process for {code!r}", done.stderr.strip().splitlines()[-1], "Run `jaccomp doctor`.")
    return time.perf_counter() - start


def _text(record: dict[str, Any]) -> str:
    rows = [("layer", "derivation", "cold build")]
    rows += [(r["name"], f"{r['derive_ms']:.0f} ms", f"{r['cold_build_s']:.2f} s") for r in record["layers"]]
    totals = [(key, f"{value}") for key, value in record.items() if key != "layers"]
    return f"{console.table(rows)}\n\n{console.table(totals)}"

"""How long a person waits: derivations, cold builds and warm loads of layers.

Derivation is spec to simplified VJP, SymPy's caches emptied. A cold build is forward and VJP of one layer from nothing,
in a cache of its own. A warm load is a new process that loads a layer by name, less one that imports NumPy alone.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from jaccomp.errors import BuildError
from jaccomp.layer import Layer

LOADS = 9
"""New processes of each kind: their median is what is reported."""
LOADED = "layernorm"


class Target(Protocol):
    """A layer that a command names."""

    @property
    def name(self) -> str: ...

    @property
    def load(self) -> Callable[[], Layer]: ...


def steps(chosen: Sequence[Target]) -> int:
    """How many times `latency` reports what it does."""
    return 2 * len(chosen) + 1


def latency(chosen: Sequence[Target], progress: Callable[[str], None]) -> dict[str, Any]:
    """The medians and the worst of each measurement, and the rows they come from."""
    rows: list[dict[str, Any]] = []
    for one in chosen:
        progress(f"deriving {one.name}")
        rows.append({"name": one.name, "derive_ms": 1e3 * _derivation(one)})
    with tempfile.TemporaryDirectory(prefix="jaccomp-bench-") as folder, _cache_in(folder):
        for one, row in zip(chosen, rows, strict=True):
            progress(f"building {one.name}")
            row["cold_build_s"] = _timed(_cold_build(one))
        progress(f"loading {LOADED}")
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

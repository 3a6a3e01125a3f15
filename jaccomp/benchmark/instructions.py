"""Counts of instructions: what one call of each row executes, which a busy machine does not change.

The kernels of all rows, at small sizes, run in one process under valgrind's callgrind, on one thread. Each is called a
few times, then a few times more; the difference is what the calls cost, whatever came before them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaccomp
from jaccomp.benchmark import process
from jaccomp.benchmark.cases import Mode, Row, layer_of
from jaccomp.errors import BuildError, UsageError

if TYPE_CHECKING:
    from jaccomp.layer import Layer

FEW, MORE = 2, 6
"""Calls of the first part and of the second."""
GROWTH = 0.03
"""How much more than a stored count is no regression."""
MARK = "jc_bench_mark"
TOOL = "valgrind"

Record = dict[str, Any]


def tool() -> str:
    """Where valgrind is. Raises `UsageError` where it is not."""
    found = shutil.which(TOOL)
    if found is None:
        raise UsageError(
            "bench --instructions",
            f"{TOOL} is not on PATH.",
            f"Install it (Debian, Ubuntu: apt-get install {TOOL}; Fedora: dnf install {TOOL}).",
        )
    return found


def march() -> str:
    """The processor that kernels are compiled for: no newer than what valgrind knows, the same on every machine."""
    return "x86-64-v3" if platform.machine().lower() in {"x86_64", "amd64"} else "baseline"


def counted(rows: Sequence[Row], modes: Sequence[Mode], progress: Callable[[str], None]) -> list[Record]:
    """The instructions of one call of each row in each mode."""
    valgrind = tool()
    jobs = []
    for row in rows:
        for mode in modes:
            progress(f"building {row.name} {mode}")
            jobs.append(job(row, mode))
    progress(f"counting {len(jobs)} rows")
    totals = _run(valgrind, jobs)
    return [
        {"case": one["case"], "mode": one["mode"], "instructions": count}
        for one, count in zip(jobs, of_calls(totals, len(jobs)), strict=True)
    ]


def job(row: Row, mode: Mode) -> Record:
    """What the process that is counted needs: a module, which function of it, and how to call that."""
    problem = row.counted()
    layer = layer_of(problem.operation)
    label = layer.program.labels.name
    outputs = [label(name) for name in layer.program.outputs]
    name, path = _built(layer)
    facts = {"case": row.name, "mode": mode, "outputs": outputs, "keywords": dict(problem.keywords)}
    if mode != "vjp":
        return {**facts, "module": name, "path": str(path), "reads": [one.name for one in problem.inputs]}
    from jaccomp.build import load_module

    given = {one.name: one.shape for one in problem.inputs}
    shapes = load_module(name, path).shapes(**given, **problem.keywords)
    derived = layer.vjp()
    reads = [derived.program.labels.name(one) for one in derived.program.inputs]
    name, path = _built(derived)
    zeros = {f"ct_{one}": shapes[one] for one in outputs if one not in {known.name for known in problem.outputs}}
    return {**facts, "module": name, "path": str(path), "reads": reads, "zeros": zeros}


def _built(layer: Layer) -> tuple[str, Path]:
    from jaccomp.build import compile_module
    from jaccomp.compiling import source

    text = source(layer)
    return text.name, compile_module(text, march=march())


def of_calls(totals: Sequence[int], jobs: int) -> list[int]:
    """The instructions of one call of each job, from those between marks: a job's two parts and what lies between.

    before, [few, more], between, [few, more], after   ->   (more - few) / (MORE - FEW), of each
    """
    if len(totals) < 3 * jobs:
        raise BuildError("bench --instructions", f"{TOOL} wrote {len(totals)} parts, not {3 * jobs}.")
    parts = [totals[3 * k + 1 : 3 * k + 3] for k in range(jobs)]
    return [round((more - few) / (MORE - FEW)) for few, more in parts]


def grown(now: Iterable[Mapping[str, Any]], before: Iterable[Mapping[str, Any]]) -> list[str]:
    """The rows that execute more than a stored run says, by more than a few percent; and those that it lacks."""
    stored = {(one["case"], one["mode"]): one["instructions"] for one in before}
    lines = []
    for one in now:
        known = stored.get((one["case"], one["mode"]))
        name = f"{one['case']} {one['mode']}"
        if known is None:
            lines.append(f"{name}: not in the stored run")
        elif one["instructions"] > known * (1 + GROWTH):
            lines.append(f"{name}: {one['instructions']:,} instructions, {one['instructions'] / known - 1:+.1%}")
    return lines


def _run(valgrind: str, jobs: Sequence[Record]) -> list[int]:
    """The instructions between one mark and the next, in order."""
    root = str(Path(jaccomp.__file__).resolve().parent.parent)
    environment = process.environment(1, os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    environment |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory(prefix="jaccomp-count-", ignore_cleanup_errors=True) as folder:
        _mark_library(Path(folder))
        Path(folder, "jobs.json").write_text(json.dumps(jobs))
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                f"--callgrind-out-file={folder}/out",
                "--quiet",
                sys.executable,
                "-m",
                "jaccomp.benchmark.counting",
                folder,
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildError("bench --instructions", f"its process ended with {done.returncode}: {done.stderr[-400:]}")
        parts = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        return [_total(path.read_text()) for path in parts]


def _total(part: str) -> int:
    """The instructions of one part of callgrind's output."""
    found = re.findall(r"^(?:totals|summary): (\d+)", part, re.MULTILINE)
    return int(found[-1]) if found else 0


def _mark_library(folder: Path) -> None:
    """A shared object with one function, which ends a part."""
    from jaccomp.build.toolchain import compiler_environment, find_toolchain

    (folder / "mark.c").write_text(f"#include <valgrind/callgrind.h>\nvoid {MARK}(void) {{ CALLGRIND_DUMP_STATS; }}\n")
    words = [*find_toolchain().command, "-O1", "-fPIC", "-shared", "mark.c", "-o", "mark.so"]
    done = subprocess.run(words, cwd=folder, env=compiler_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(
            "bench --instructions",
            f"its mark does not compile: {done.stderr[-400:]}",
            f"{TOOL}'s headers must be there; some systems have them in a package of their own, {TOOL}-devel.",
        )

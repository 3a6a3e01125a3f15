"""The process whose instructions are counted: every job's calls, a few and then more, with a mark before each part."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaccomp.benchmark.cases import ROWS
from jaccomp.benchmark.instructions import FEW, MARK, MORE
from jaccomp.benchmark.peer import draw
from jaccomp.build import load_module


def main() -> int:
    folder = Path(sys.argv[1])
    mark = getattr(ctypes.CDLL(str(folder / "mark.so")), MARK)
    gc.disable()
    for job in json.loads((folder / "jobs.json").read_text()):
        call = prepared(job)
        call()
        mark()
        for _ in range(FEW):
            call()
        mark()
        for _ in range(MORE):
            call()
        mark()
    return 0


def prepared(job: dict[str, Any]) -> Callable[[], Any]:
    """The call of a job: `forward` of the layer or of its VJP, or `bwd` with what `fwd` kept."""
    (row,) = (one for one in ROWS if one.name == job["case"])
    problem = row.counted()
    given = draw(problem)
    module = load_module(job["module"], Path(job["path"]))
    known: dict[str, Any] = {one.name: array for one, array in zip(problem.inputs, given.inputs, strict=True)}
    pulled = {one.name: array for one, array in zip(problem.outputs, given.cotangents, strict=True)}
    keywords = {**job["keywords"], "threads": 1}
    if job["mode"] == "backward":
        _, kept = module.fwd(*given.inputs, **keywords)
        cotangents = tuple(pulled.get(name) for name in job["outputs"])
        cotangent = cotangents if len(cotangents) > 1 else cotangents[0]
        return lambda: module.bwd(kept, cotangent, threads=1)
    if job["mode"] == "vjp":
        known |= {f"ct_{name}": array for name, array in pulled.items()}
        known |= {name: np.zeros(shape, np.float32) for name, shape in job["zeros"].items()}
    arguments = [known[name] for name in job["reads"]]
    return lambda: module.forward(*arguments, **keywords)


if __name__ == "__main__":
    sys.exit(main())

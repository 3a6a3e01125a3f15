"""Emitted JavaScript, run by Node.js: many programs at many points in one process."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaccomp.emit.javascript import module
from jaccomp.program import Program

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node on the path to run JavaScript with")

ENCODE = "const encode = (data) => Array.from(data, String);"
CALL = """
for (const [name, key, sizes, scalars, inputs] of calls) {
  const arrays = Object.fromEntries(Object.entries(inputs).map(([k, v]) => [k, Float64Array.from(v, Number)]));
  const found = modules[name][key](arrays, sizes, scalars);
  results.push(Object.entries(found).map(([k, one]) => [k, one.shape, encode(one.data)]));
}
"""


@dataclass
class Session:
    """Programs and calls that wait for one process."""

    programs: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = field(default_factory=list)

    def call(
        self, program: Program, sizes: Mapping[str, int], scalars: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> int:
        """The number of the call among the results."""
        defaults = {s.name: s.default for s in program.scalars}
        name = f"p{len(self.programs)}"
        self.programs[name] = module({"evaluate": program})
        flat = {key: [_text(v) for v in np.ravel(value)] for key, value in inputs.items()}
        self.calls.append((name, "evaluate", dict(sizes), {**defaults, **scalars}, flat))
        return len(self.calls) - 1

    def results(self, folder: Path) -> list[dict[str, Any]]:
        modules = ",\n".join(f"{name}: {text}" for name, text in self.programs.items())
        data = f"const results = [];\nconst modules = {{\n{modules}\n}};\nconst calls = {json.dumps(self.calls)};"
        found = run(f"{ENCODE}\n{data}{CALL}console.log(JSON.stringify(results));", folder)
        return [{name: decoded(data).reshape(shape) for name, shape, data in each} for each in found]


def run(script: str, folder: Path, *arguments: str) -> Any:
    """What a script prints, which is JSON."""
    assert NODE is not None
    path = folder / "script.js"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run([NODE, str(path), *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def apply(functions: Sequence[tuple[str, Sequence[float]]], source: str, folder: Path) -> list[list[float]]:
    """The values of functions of `source`, each over its arguments."""
    calls = "\n".join(
        f"results.push([{', '.join(_text(v) for v in values)}].map((z) => String({name}(z))));"
        for name, values in functions
    )
    return [
        [float(v) for v in one]
        for one in run(
            f'"use strict";\n{source}\nconst results = [];\n{calls}\nconsole.log(JSON.stringify(results));', folder
        )
    ]


def decoded(data: Sequence[str]) -> Any:
    return np.array([float(v) for v in data])


def _text(value: Any) -> str:
    number = float(value)
    if math.isnan(number):
        return "NaN"
    return repr(number) if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")

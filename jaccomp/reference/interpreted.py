"""A kernel that interprets programs: what the ladder climbs where nothing is compiled, such as a mutant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from jaccomp.calculus.vjp import jvp, vjp
from jaccomp.errors import UsageError
from jaccomp.program import Program
from jaccomp.reference import indices
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.scalars import Array


class Interpreted:
    """The layer of `program` by its four programs; `backward` and `tangent` default to the derived ones."""

    def __init__(self, program: Program, backward: Program | None = None, tangent: Program | None = None) -> None:
        self.program = program
        self.backward = vjp(program) if backward is None else backward
        self.tangent = jvp(program) if tangent is None else tangent
        self.user = {program.labels.name(one.name): one.name for one in (*program.sizes, *program.scalars)}

    def forward(self, *inputs: Any, **constants: Any) -> Any:
        return self._outputs(self._run(self.program, inputs, constants), self.program.outputs)

    def vjp(self, *inputs: Any, **constants: Any) -> Any:
        values = self._run(self.program, inputs, constants)
        real = [name for name in self.program.outputs if self.program.tensor(name).dtype == "real"]

        def pullback(dy: Any) -> tuple[Array | None, ...]:
            """The cotangent of each input, None of an integer one."""
            given = dict(zip(self.program.outputs, dy if isinstance(dy, tuple) else (dy,), strict=True))
            extra = {f"ct_{name}": np.zeros_like(values[name]) if given[name] is None else given[name] for name in real}
            pulled = self._run(self.backward, inputs, constants, extra)
            return tuple(pulled.get(f"ct_{name}") for name in self.program.inputs)

        return self._outputs(values, self.program.outputs), pullback

    def jvp(self, inputs: Sequence[Any], tangents: Sequence[Any], **constants: Any) -> Any:
        extra = {
            f"t_{name}": np.zeros_like(value) if along is None else along
            for name, value, along in zip(self.program.inputs, inputs, tangents, strict=True)
            if self.program.tensor(name).dtype == "real"
        }
        values = self._run(self.tangent, inputs, constants, extra)
        names = self.program.outputs
        return self._outputs(values, names), self._outputs(values, [f"t_{name}" for name in names])

    def _outputs(self, values: Mapping[str, Array], names: Sequence[str]) -> Any:
        found = tuple(values.get(name) for name in names)
        return found[0] if len(found) == 1 else found

    def _run(
        self,
        program: Program,
        inputs: Sequence[Any],
        constants: Mapping[str, Any],
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Array]:
        arrays = {**dict(zip(self.program.inputs, map(np.asarray, inputs), strict=True)), **(extra or {})}
        given = {self.user.get(name, name): value for name, value in constants.items()}
        sizes = solve_sizes(self.program, {name: arrays[name].shape for name in self.program.inputs}, given)
        floats = [a.dtype for a in arrays.values() if a.dtype.kind == "f"]
        return evaluate(program, arrays, sizes, given, dtype=np.result_type(*floats) if floats else np.float64)


def solve_sizes(program: Program, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> dict[str, int]:
    """The number of each size: given, standing bare in a shape, or solved where an extent has one unknown, linearly."""
    known: dict[str, int] = {s.name: int(given[s.name]) for s in program.sizes if s.name in given}
    pairs = [
        (extent, length)
        for name in program.inputs
        for extent, length in zip(program.tensor(name).shape, shapes[name], strict=True)
    ]
    known |= {e.name: length for e, length in pairs if isinstance(e, sp.Symbol) and e in program.sizes}
    constants = {**{s.name: s.default for s in program.scalars}, **given}
    for _ in program.sizes:
        for extent, length in pairs:
            unknown = [s.name for s in program.sizes if s in extent.free_symbols and s.name not in known]
            if len(unknown) == 1:
                base, slope = (_at(extent, {**constants, **known, unknown[0]: v}) for v in (0, 1))
                known[unknown[0]] = (length - base) // (slope - base) if slope != base else 0
    missing = [program.labels.name(s.name) for s in program.sizes if s.name not in known]
    if missing:
        raise UsageError(f"layer {program.name!r}", f"no input determines {missing}.", "Pass them as keywords.")
    return known


def _at(extent: sp.Expr, constants: Mapping[str, Any]) -> int:
    return int(indices.integer(extent, lambda leaf: constants[leaf.name]))

"""The generated code of a layer, nest by nest, each with the equations that it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jaccomp.card import SourcePart
from jaccomp.emit.expressions import DType
from jaccomp.emit.nest import Nest
from jaccomp.emit.scope import Scope
from jaccomp.lowering import lower
from jaccomp.lowering.ir import LEAVES, Function, walk
from jaccomp.program import Equation, Program

DTYPE: DType = "f32"
"""The nests of float64 are the same but for their types."""


def source_parts(programs: Mapping[str, Program]) -> tuple[SourcePart, ...]:
    """The nests of the kernels of programs, by the name of the function that each is part of."""
    return tuple(part for name, program in programs.items() for part in _parts(name, program))


def _parts(name: str, program: Program) -> Iterator[SourcePart]:
    kernel = lower(program)
    scope = Scope(kernel, name, DTYPE)
    for function in kernel.functions:
        yield SourcePart(
            name, tuple(scope.comments(_equations(function))), Nest(scope, function).made().text.strip("\n") + "\n"
        )


def _equations(function: Function) -> Iterator[Equation]:
    for node in walk(function.body):
        if isinstance(node, LEAVES) and node.equation is not None:
            yield node.equation

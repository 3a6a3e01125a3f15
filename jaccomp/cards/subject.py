"""What a card is made of: a layer, as far as its derivation goes; and how it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import sympy as sp

from jaccomp.card import Argument
from jaccomp.jacobian import Jacobian
from jaccomp.latex_names import latex_name
from jaccomp.pipeline import Derivation
from jaccomp.printing_latex import formula_latex
from jaccomp.program import Program
from jaccomp.spec import Spec

SETS = {"real": r"\mathbb{R}", "int64": r"\mathbb{Z}"}


class Subject(Protocol):
    """A layer, with what is derived from it."""

    name: str
    doc: str
    family: str

    @property
    def is_written(self) -> bool: ...
    @property
    def spec(self) -> Spec: ...
    @property
    def program(self) -> Program: ...
    @property
    def prepared(self) -> Program: ...
    @property
    def derivation(self) -> Derivation: ...
    def serialise(self) -> str: ...
    def jacobians(self) -> dict[tuple[str, str], Jacobian]: ...


def signature(layer: Subject) -> str:
    """`rmsnorm(x[N, D], g[D], *, eps=1e-06) -> y[N, D]`; of a layer that was derived, in the words of its origin."""
    program = layer.program

    def tensor(canonical: str) -> str:
        name, one = program.labels.name(canonical), program.tensor(canonical)
        return name + _bracketed(_shape(layer, canonical)) + (": int64" if one.dtype == "int64" else "")

    scalars = [
        program.labels.name(one.name) + ("" if one.default is None else f"={one.default!r}") for one in program.scalars
    ]
    takes = [*map(tensor, program.inputs), *(["*", *scalars] if scalars else [])]
    return f"{layer.name}({', '.join(takes)}) -> {', '.join(map(tensor, program.outputs))}"


def arguments(layer: Subject) -> tuple[Argument, ...]:
    """Inputs, scalars and outputs, in the order of the signature."""
    program = layer.program

    def tensor(canonical: str, role: str) -> Argument:
        one, shape = program.tensor(canonical), _shape(layer, canonical)
        name = program.labels.name(canonical)
        latex = rf"{latex_name(name)} \in {space(one.dtype, shape)}"
        return Argument(name, role, one.dtype, _bracketed(shape), latex)  # type: ignore[arg-type]

    scalars = []
    for one in program.scalars:
        name = program.labels.name(one.name)
        default = "" if one.default is None else repr(one.default)
        latex = rf"{latex_name(name)} \in {SETS[one.dtype]}"
        scalars.append(Argument(name, "scalar", one.dtype, "", latex, default))
    inputs = [tensor(name, "input") for name in program.inputs]
    return (*inputs, *scalars, *(tensor(name, "output") for name in program.outputs))


def space(dtype: str, shape: Sequence[sp.Expr]) -> str:
    """The space of a tensor in LaTeX, its extents in the user's words: reals or whole numbers, for each element one."""
    extents = r" \times ".join(map(formula_latex, shape))
    return SETS[dtype] + (f"^{{{extents}}}" if shape else "")


def shape_text(layer: Subject, program: Program, canonical: str) -> str:
    """The shape of a tensor of a program derived from the layer, in the user's sizes: `[N, D]`, empty at rank 0."""
    return _bracketed(_in_words(program, program.tensor(canonical).shape))


def _shape(layer: Subject, canonical: str) -> tuple[sp.Expr, ...]:
    """The extents as their author wrote them; of a tensor that was derived, in the words of its origin."""
    program = layer.program
    written = {one.name: one for one in layer.spec.inputs + layer.spec.outputs} if layer.is_written else {}
    name = program.labels.name(canonical)
    return written[name].shape if name in written else _in_words(program, program.tensor(canonical).shape)


def _in_words(program: Program, shape: tuple[sp.Expr, ...]) -> tuple[sp.Expr, ...]:
    words = {one: one.func(program.labels.name(one.name)) for one in program.sizes}
    words |= {one.symbol: sp.Symbol(program.labels.name(one.name)) for one in program.scalars}
    return tuple(extent.xreplace(words) for extent in shape)


def _bracketed(shape: tuple[sp.Expr, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else ""

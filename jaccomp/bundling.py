"""A layer's programs, kernels and formulas, gathered for the module frame."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaccomp import pipeline
from jaccomp.build.source import Source
from jaccomp.emit.bundle import Bundle, Formula, Role
from jaccomp.emit.loops import emit_kernel
from jaccomp.emit.module import emit_module
from jaccomp.lowering import lower
from jaccomp.lowering.ir import Kernel
from jaccomp.printing import equation_text
from jaccomp.program import AXES, Program, accesses

if TYPE_CHECKING:
    from jaccomp.layer import Layer

MAIN: tuple[Role, ...] = ("forward", "fwd", "bwd")
ROLES_OF: dict[str, tuple[Role, ...]] = {
    "main": MAIN,
    "forward": ("forward",),
    "pullback": MAIN,
    "tangent": ("jvp",),
    "whole": (*MAIN, "jvp"),
}
SUFFIX_OF = {"pullback": "_vjp", "tangent": "_jvp"}
"""What is added to a layer's name for a module that is built on demand."""


def bundle(layer: Layer, part: str, dtypes: Sequence[str]) -> Bundle:
    """What the frame spells: with no dtypes, the programs alone."""
    programs, wanted, residuals = _programs(layer, part)
    lowered: dict[Role, Kernel] = {role: lower(programs[role]) for role in wanted} if dtypes else {}
    return Bundle(
        name=layer.name + SUFFIX_OF.get(part, ""),
        programs=programs,
        kernels={(role, dtype): emit_kernel(k, role, dtype) for role, k in lowered.items() for dtype in dtypes},  # type: ignore[arg-type]
        residuals=residuals,
        formulas=_formulas(layer) if part != "tangent" and layer.is_written else {},
        equations=tuple(equation_text(layer.program, e) for e in layer.program.equations),
        doc=layer.doc,
        spec_hash=hashlib.sha256(layer.serialise().encode()).hexdigest(),
        layer=layer.name,
        any_axes=layer.program.any_axes,
        inplace=_elementwise(programs["forward"]),
    )


def _programs(layer: Layer, part: str) -> tuple[dict[Role, Program], tuple[Role, ...], tuple[str, ...]]:
    """The programs of a part, those that get kernels, and what fwd keeps.

    For forward alone nothing is derived from the layer: it is what a derived layer is compiled to at first.
    """
    if part == "forward":
        return {"forward": pipeline.computable(layer.program)}, ROLES_OF[part], ()
    halves = pipeline.halves(layer.derivation)
    # Where nothing is kept forward serves fwd; where something is, a kernel that never stores it is the faster forward.
    wanted = tuple(role for role in ROLES_OF[part] if role != "fwd" or halves.residuals)
    programs: dict[Role, Program] = {"forward": halves.forward, "fwd": halves.fwd, "bwd": halves.bwd}
    if "jvp" in wanted:
        programs["jvp"] = pipeline.tangent(layer.prepared)
    return programs, wanted, halves.residuals


def _elementwise(program: Program) -> tuple[tuple[str, str], ...]:
    """The (output, input) pairs of a program that reads each element of the input only to write the same one."""
    if len(program.outputs) != 1 or not all(equation.is_map for equation in program.equations):
        return ()
    (output,) = program.outputs
    shape = program.tensor(output).shape
    own = AXES[: len(shape)]
    reads = [a for e in program.equations for a in accesses(e.body) if len(a.indices) == len(shape)]
    if any(a.indices != own for a in reads):
        return ()
    tensors = (program.tensor(name) for name in program.inputs)
    return tuple((output, t.name) for t in tensors if t.shape == shape and t.dtype == "real")


def _formulas(layer: Layer) -> dict[tuple[str, str], Formula]:
    """Every block of a written layer; those of a derived one are asked for with `layer.jacobian`, one at a time."""
    import sympy as sp

    return {key: Formula(str(j), sp.latex(j), j.structure) for key, j in layer.jacobians().items()}


def module_source(layer: Layer, part: str, dtypes: Sequence[str]) -> Source:
    """The Cython source of one module of a layer."""
    return emit_module(bundle(layer, part, dtypes))

"""A program that is elementwise throughout runs over one flat index: its rows may be too short to be worth a loop.

y[n,i] = x[n,i] g,  all of one shape      ->   y[f] = x[f] g,  f < N D
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from jaccomp.lowering.affine import index_set
from jaccomp.program import AXES, Program, scalar_map, term_accesses


def flatten(program: Program) -> Program:
    """The program over flat tensors, if every equation is a map and reads whole elements or tensors of rank 0."""
    shapes = {t.shape for t in program.tensors if t.rank > 0}
    if len(shapes) != 1 or not all(e.is_map for e in program.equations):
        return program
    (shape,) = shapes
    axes = AXES[: len(shape)]
    if len(shape) < 2:
        return program
    for equation in program.equations:
        if equation.axes != axes:
            return program
        found = term_accesses(equation.terms[0])
        where: dict[sp.Expr, sp.Expr] = {a: sp.Symbol(a.name) for a in found}
        if any(a.indices not in ((), axes) for a in found) or index_set(equation.body.xreplace(where), axes):
            return program
    flat = (sp.Mul(*shape),)
    tensors = tuple(replace(t, shape=flat) if t.rank else t for t in program.tensors)
    one = {t.name: t for t in tensors}
    equations = []
    for equation in program.equations:
        where = {a: one[a.name][AXES[:1]] for a in term_accesses(equation.terms[0]) if a.indices}
        equations.append(scalar_map(equation.target, 1, equation.body.xreplace(where)))
    return replace(program, tensors=tensors, equations=tuple(equations))

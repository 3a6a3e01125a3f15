"""Maps that two nests need are computed in each, rather than kept whole between them.

ct_h = f'(h) ct_y;  ct_x = ct_h W;  ct_W = ct_hᵀ x      with ct_h in tiles of rows in one nest, of columns in the other
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import sympy as sp

from jaccomp.lowering.contraction import sides
from jaccomp.notation import Access
from jaccomp.program import Equation, Program, Tensor, Term, reads, term_accesses


def compute_again(program: Program, temporaries: Collection[str]) -> Program:
    """The program with a copy of each pointwise temporary for every product that reads it but the first."""
    equations: list[Equation] = []
    new: list[Tensor] = []
    wanted = {n for n in temporaries if _is_pointwise(program, n) and n not in program.outputs}
    read: set[str] = set()
    for equation in program.equations:
        mine = [n for n in reads(equation) if n in wanted]
        if sides(equation) is None or not any(n in read for n in mine):
            equations.append(equation)
            read.update(mine if sides(equation) is not None else ())
            continue
        names: dict[str, Tensor] = {}
        for name in mine:
            _copy(program, name, wanted, names, equations, new)
        equations.append(_renamed(equation, names))
    return program.with_equations(equations, new) if new else program


def _is_pointwise(program: Program, name: str) -> bool:
    definition = program.definition(name)
    return (
        definition is not None
        and definition.reducer == "sum"
        and not any(c.is_data for t in definition.terms for c in t.domain)
        and all(sides(replace(definition, terms=(t,))) is None for t in definition.terms)
        and len(definition.axes) > 1
    )


def _copy(
    program: Program, name: str, wanted: Collection[str], names: dict[str, Tensor], equations: list[Equation],
    new: list[Tensor],
) -> None:  # fmt: skip
    """Append a copy of the definition of `name`, and first of the temporaries that it reads."""
    if name in names:
        return
    definition, tensor = program.definition(name), program.tensor(name)
    assert definition is not None
    for other in reads(definition):
        if other in wanted:
            _copy(program, other, wanted, names, equations, new)
    made = replace(tensor, name=f"{name}_again{len(new)}")
    new.append(made)
    equations.append(replace(_renamed(definition, names), target=made.name))
    names[name] = made


def _renamed(equation: Equation, names: dict[str, Tensor]) -> Equation:
    return replace(equation, terms=tuple(_term(t, names) for t in equation.terms))


def _term(term: Term, names: dict[str, Tensor]) -> Term:
    where: dict[sp.Expr, sp.Expr] = {
        a: Access(names[a.name][a.indices].base, *a.indices) for a in term_accesses(term) if a.name in names
    }
    return term.over(where)

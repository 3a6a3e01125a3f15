"""Maps that are cheaper to compute again than to keep are written into the statements that read them.

gy[n,i] = g[i] ct_y[n,i];  a[n] = Σ_i gy[n,i]   ->   a[n] = Σ_i g[i] ct_y[n,i]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.domains import axis_ranges, proves
from jaccomp.lowering.contraction import sides
from jaccomp.notation import Access
from jaccomp.program import Domain, Equation, Program, Term, accesses, instantiate, live, term_accesses

CHEAP = 6
"""Additions and multiplications up to which a map is recomputed for each reader."""

SIMPLE = 3
"""The same for a map of inputs that is recomputed in every iteration of loops it does not depend on."""


def inline(program: Program) -> Program:
    """Substitute maps into their readers where no work, or little, is repeated; drop what nobody reads any more."""
    current = program
    for name in [e.target for e in program.equations if _is_pointwise(e) and e.target not in program.outputs]:
        definition = current.definition(name)
        if definition is None or (not _is_cheap(definition.terms[0].body) and _readings(current, name) > 1):
            continue
        current = current.with_equations(
            replace(
                e,
                terms=tuple(
                    _inlined(e, t, definition, axis_ranges(current.tensor(e.target)), current.inputs) for t in e.terms
                ),
            )
            for e in current.equations
        )
        if not any(name in {a.name for t in e.terms for a in term_accesses(t)} for e in current.equations):
            current = live(current)
    return live(current)


def _is_pointwise(equation: Equation) -> bool:
    """One body, without reduction; it may be confined to a part of the target, by inequalities."""
    if equation.reducer != "sum" or len(equation.terms) != 1:
        return False
    (term,) = equation.terms
    return not term.bound and not any(c.equality or c.is_data for c in term.domain)


def _is_cheap(body: sp.Expr, most: int = CHEAP) -> bool:
    operations = 0
    for node in sp.preorder_traversal(body):
        if isinstance(node, Access):
            continue
        if isinstance(node, sp.Add | sp.Mul):
            operations += len(node.args) - 1
        elif isinstance(node, sp.Pow):
            if not (node.exp.is_Integer and abs(node.exp) <= 3):
                return False
            if node.exp < 0 and accesses(node.base):
                return False
            operations += 1
        elif isinstance(node, sp.Function | sp.Piecewise):
            return False
    return operations <= most


def _readings(program: Program, name: str) -> int:
    return sum(len([a for a in term_accesses(t) if a.name == name]) for e in program.equations for t in e.terms)


def _inlined(equation: Equation, term: Term, definition: Equation, given: Domain, inputs: Sequence[str]) -> Term:
    mine = [a for a in accesses(term.body) if a.name == definition.target]
    if not mine or any(a.name == definition.target for c in term.domain for a in accesses(c.expr)):
        return term
    if sides(replace(equation, terms=(term,))) is not None and len(definition.axes) > 0:
        return term
    loops = {*equation.axes, *term.bound}
    simple = _is_cheap(definition.terms[0].body, SIMPLE) and all(
        a.name in inputs for a in accesses(definition.terms[0].body)
    )
    where: dict[sp.Expr, sp.Expr] = {}
    for access in mine:
        if not loops <= access.free_symbols and not simple:
            continue
        if any(access in inner.indices for inner in accesses(term.body)):
            continue
        (instance,) = instantiate(definition, access.indices, 0)
        if not all(proves([*given, *term.domain], c) for c in instance.domain):
            continue
        where[access] = instance.body
    return replace(term, body=term.body.xreplace(where))

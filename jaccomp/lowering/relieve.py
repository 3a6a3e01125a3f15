"""A sum need not wait for the factors that its own indices do not change: they are multiplied in when it is done.

a[n] = Σ_k r[n] x[n,k] y[n,k]   ->   s[n] = Σ_k x[n,k] y[n,k];  a[n] = r[n] s[n] where there is a k

So the sum shares a pass over the data with those that `r` itself is computed from. An empty sum stays 0 even where the
factor is not finite. Input: a program, its maps inlined. Output: the same program, equal up to the rounding that
reordering allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import sympy as sp

from jaccomp.domains import axis_ranges, without_implied
from jaccomp.lowering.affine import bounds_of, index_set
from jaccomp.lowering.contraction import is_product
from jaccomp.program import Constraint, Equation, Program, Tensor, Term, accesses, hoisted

LARGE = 1 << 14
"""Addends of a sum that outgrow a first-level cache: below, one pass more costs nothing that can be measured."""


def relieve(program: Program, typical: Mapping[sp.Expr, sp.Expr], large: int = LARGE) -> Program:
    """The program with an equation of its own for each typically large sum that a computed factor multiplies."""
    shapes = {t.name: t.shape for t in program.tensors}
    equations: list[Equation] = []
    new: list[Tensor] = []
    for equation in program.equations:
        target = program.tensor(equation.target)
        extents = () if is_product(equation, shapes, target) else _extents(equation)
        factor, rest = hoisted(equation.terms[0]) if extents else (sp.S.One, sp.S.One)
        addends = sp.Mul(*extents).xreplace(dict(typical))
        computed = any(a.name not in program.inputs for a in accesses(factor))
        if not (computed and addends.is_number and addends >= large):
            equations.append(equation)
            continue
        (term,) = equation.terms
        total = replace(target, name=f"{target.name}_total")
        tests = without_implied([Constraint(e - 1) for e in extents], axis_ranges(target))
        new.append(total)
        equations.append(replace(equation, target=total.name, terms=(replace(term, body=rest),)))
        equations.append(replace(equation, terms=(Term(factor * total[equation.axes], (), tests),)))
    return program.with_equations(equations, new)


def _extents(equation: Equation) -> tuple[sp.Expr, ...]:
    """How far the indices of a sum go, if it has one term and runs over a box; else nothing."""
    if equation.reducer != "sum" or len(equation.terms) != 1:
        return ()
    (term,) = equation.terms
    if any(c.equality or len(index_set(c.expr, (*equation.axes, *term.bound))) != 1 for c in term.domain):
        return ()
    bounds = [bounds_of(b, [c for c in term.domain if b in c.expr.free_symbols]) for b in term.bound]
    return tuple(sp.expand(high - low) for lower, upper in bounds for low in lower for high in upper)

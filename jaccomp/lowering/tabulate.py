"""Costly values that some loops of an equation do not change are computed once, in a table over the others.

y[n,t,p] = x[n,t,p] cos(a[t,p])   ->   table[t,p] = cos(a[t,p]);  y[n,t,p] = x[n,t,p] table[t,p]

Input: a program, its maps inlined. Output: the same program with an equation for each such table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import sympy as sp

from jaccomp.domains import axis_ranges
from jaccomp.lowering.affine import bounds_of, index_set
from jaccomp.lowering.share import CHEAP
from jaccomp.lowering.statements import Statement
from jaccomp.notation import Access
from jaccomp.program import AXES, Constraint, Equation, Program, Tensor, Term, ordered

AGAIN = 4
"""Computations of one value, at representative sizes, from which on a table is worth its memory."""

TABLE = "table"
"""What the names of tables begin with: no canonical name does."""

Key = tuple[sp.Expr, tuple[sp.Expr, ...]]


def tabulate(program: Program, typical: Mapping[sp.Expr, sp.Expr]) -> Program:
    """The program with a table for each costly value that is computed over and over in loops that do not change it."""
    tables: dict[Key, Tensor] = {}
    equations = []
    for equation in program.equations:
        given = axis_ranges(program.tensor(equation.target))
        terms = tuple(_tabulated(equation, term, given, typical, tables) for term in equation.terms)
        equations.append(replace(equation, terms=terms))
    if not tables:
        return program
    made = [Equation(t.name, AXES[: t.rank], (Term(value),)) for (value, _), t in tables.items()]
    return program.with_equations(ordered([*made, *equations], program.inputs), tables.values())


def is_table(statement: Statement) -> bool:
    """Does a statement fill a table that this pass made?"""
    return statement.target.name.startswith(TABLE)


def _tabulated(
    equation: Equation,
    term: Term,
    given: tuple[Constraint, ...],
    typical: Mapping[sp.Expr, sp.Expr],
    tables: dict[Key, Tensor],
) -> Term:
    loops = (*equation.axes, *term.bound)
    extents = _extents(loops, [*given, *term.domain])
    where: dict[sp.Expr, sp.Expr] = {}
    for value in _costly(term.body, loops):
        inside = index_set(value, loops)
        if any(i not in extents for i in loops):
            continue
        free = [i for i in loops if i not in inside and not _decided(i, inside, term)]
        again = sp.Mul(*(extents[i] for i in free)).xreplace(dict(typical))
        if not again.is_number or again < AGAIN:
            continue
        order: dict[sp.Expr, sp.Expr] = dict(zip(inside, AXES, strict=False))
        key = (value.xreplace(order), tuple(extents[i] for i in inside))
        tensor = tables.setdefault(key, Tensor(f"{TABLE}{len(tables)}", key[1]))
        where[value] = tensor[inside]
    return replace(term, body=term.body.xreplace(where)) if where else term


def _costly(body: sp.Expr, loops: tuple[sp.Symbol, ...]) -> list[sp.Expr]:
    """The largest functions and powers in a body that some, not all, of its loops change, outside choices."""
    found: dict[sp.Expr, None] = {}

    def visit(expr: sp.Expr) -> None:
        if isinstance(expr, Access | sp.Piecewise):
            return
        function = isinstance(expr, sp.Function) and not isinstance(expr, CHEAP)
        power = isinstance(expr, sp.Pow) and not expr.exp.is_Rational
        inside = index_set(expr, loops)
        if (function or power) and not expr.is_integer and 0 < len(inside) < len(loops):
            found.setdefault(expr)
            return
        for arg in expr.args:
            visit(arg)

    visit(body)
    return list(found)


def _decided(index: sp.Symbol, inside: tuple[sp.Symbol, ...], term: Term) -> bool:
    """Does an equality leave one value of the index for each of those inside?"""
    return any(c.equality and index in c.expr.free_symbols and index_set(c.expr, inside) for c in term.domain)


def _extents(loops: tuple[sp.Symbol, ...], domain: list[Constraint]) -> dict[sp.Symbol, sp.Expr]:
    """The extents of the loops whose own bounds begin at 0."""
    result: dict[sp.Symbol, sp.Expr] = {}
    for index in loops:
        alone = [c for c in domain if not c.equality and index_set(c.expr, loops) == (index,) and not c.is_data]
        lower, upper = bounds_of(index, alone)
        if len(lower) == len(upper) == 1 and lower[0] == 0:
            result[index] = upper[0]
    return result

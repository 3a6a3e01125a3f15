"""Loops over the later parts of a result begin at 0, as that over the first one does: all of them are then one loop.

y[n,i] = x[n,i] f(x[n,i]) for i < H;   y[n,i] = f(x[n,i-H]) for H <= i < 2 H
    ->   y[n,i] = x[n,i] f(x[n,i]),  y[n,i+H] = f(x[n,i]) for i < H

Only of results that nothing else reads: who reads the whole of one takes its parts where they lie. Input: statements in
dependency order. Output: the same statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.domains import without_implied
from jaccomp.lowering.affine import index_set
from jaccomp.lowering.fusion import is_fill, loop_bounds
from jaccomp.lowering.statements import Statement
from jaccomp.notation import Access
from jaccomp.program import Constraint


def from_zero(made: Sequence[Statement]) -> tuple[Statement, ...]:
    """The statements, those that assign a part of an array that no statement reads from 0 on."""
    read = {a.name for s in made for a in s.reads()}
    return tuple(_shifted(s) if s.action == "assign" and s.target.name not in read else s for s in made)


def _shifted(statement: Statement) -> Statement:
    if statement.product is not None or is_fill(statement) or statement.chosen is not None:
        return statement
    where: dict[sp.Expr, sp.Expr] = {}
    statement = replace(statement, domain=without_implied(statement.domain, ()))
    for index in statement.loops:
        bounds = loop_bounds(statement, index)
        if bounds is None or len(bounds[0]) != 1 or len(bounds[1]) != 1:
            continue
        (start,) = bounds[0]
        if start != 0 and not index_set(start, statement.loops) and not start.has(sp.Function):
            where[index] = index + start

    if not where:
        return statement
    return replace(
        statement,
        target=_moved(statement.target, where),
        value=_moved(statement.value, where),
        domain=_all_moved(statement.domain, where),
        guards=_all_moved(statement.guards, where),
    )


def _all_moved(constraints: Sequence[Constraint], where: Mapping[sp.Expr, sp.Expr]) -> tuple[Constraint, ...]:
    return tuple(replace(c, expr=sp.expand(_moved(c.expr, where))) for c in constraints)


def _moved(expr: sp.Expr, where: Mapping[sp.Expr, sp.Expr]) -> sp.Expr:
    """The expression with its loops replaced, the indices of its accesses expanded."""
    if isinstance(expr, Access):
        return Access(expr.base, *(sp.expand(_moved(i, where)) for i in expr.indices))
    if not expr.free_symbols & set(where):
        return expr
    return where.get(expr, expr) if not expr.args else expr.func(*(_moved(a, where) for a in expr.args))

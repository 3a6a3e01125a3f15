"""What the non-linear reducers need before they can be differentiated: where an extremum lies, products without one.

max, min    `arg[f]`, an integer equation; the derivative is constrained to `position(b) = arg[f]` (`places`)
prod        `before[f, b] = Π{b' before b} body`, `after[f, b]` likewise: never `T / body`, which fails at zero
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.calculus.places import at_its_point, by_places
from jaccomp.domains import axis_ranges, hull, position
from jaccomp.program import AXES, Constraint, Equation, Program, Reducer, Tensor, Term, at_least, equal, index_symbol


@dataclass(frozen=True, slots=True)
class Linearised:
    """One term as a sum over its bound indices: what is added to its domain, what its partials are multiplied by."""

    term: Term
    extra: tuple[Constraint, ...]
    factor: sp.Expr


def linearise(program: Program, equation: Equation) -> tuple[list[Linearised], list[tuple[Tensor, Equation]]]:
    """The terms whose partials sum to the derivative of `equation`, and the new equations that they read."""
    target = program.tensor(equation.target)
    if equation.reducer == "sum":
        return [Linearised(term, (), sp.S.One) for term in equation.terms], []
    (term,) = equation.terms
    if equation.reducer in ("max", "min"):
        given, placed = axis_ranges(target), by_places(program, term)
        where, definition = _argument(target, replace(equation, terms=(placed,)))
        here = equal(position(placed, given), where[equation.axes])
        return [Linearised(at_its_point(placed, given), (here,), sp.S.One)], [(where, definition)]
    if equation.reducer == "prod":
        return _products(target, equation)
    return [], []


def _argument(target: Tensor, equation: Equation) -> tuple[Tensor, Equation]:
    reducer: Reducer = "argmax" if equation.reducer == "max" else "argmin"
    where = Tensor(f"arg_{target.name}", target.shape, "int64")
    return where, replace(equation, target=where.name, reducer=reducer)


def _products(target: Tensor, equation: Equation) -> tuple[list[Linearised], list[tuple[Tensor, Equation]]]:
    (term,) = equation.terms
    given = axis_ranges(target)
    extents = tuple(hull(term, b, given)[1] + 1 for b in term.bound)
    own = AXES[target.rank : target.rank + len(term.bound)]
    mine = dict(zip(term.bound, own, strict=True))
    others = {b: index_symbol(f"b{len(term.bound) + k}") for k, b in enumerate(term.bound)}
    other, here = term.over(others), position(term, given)
    new: list[tuple[Tensor, Equation]] = []
    for side in ("before", "after"):
        there = here.xreplace(others)
        order = (
            at_least(here.xreplace(mine), there + 1) if side == "before" else at_least(there, here.xreplace(mine) + 1)
        )
        partial = Tensor(f"{side}_{target.name}", (*target.shape, *extents))
        row = Term(other.body, other.bound, (*other.domain, order))
        new.append((partial, Equation(partial.name, AXES[: partial.rank], (row,), "prod")))
    factor = sp.Mul(*(partial[(*equation.axes, *term.bound)] for partial, _ in new))
    return [Linearised(term, (), factor)], new

"""What a program costs: one for each arithmetic operation or function per element, a reduction by its range.

A factor that no bound index changes is counted outside its sum, as lowering computes it. Where two costs must be
compared, sizes take their typical values and each index its whole box, half of it under a triangle.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import sympy as sp

from jaccomp.domains import is_index
from jaccomp.notation import Access
from jaccomp.program import Constraint, Equation, Program, Term

FUNCTION_WEIGHT = 8  # a transcendental function against an addition, where two forms are weighed


@lru_cache(maxsize=1 << 16)
def operations(expr: sp.Expr, function_weight: int = 1) -> int:
    """The arithmetic operations and functions of a scalar expression; what only indices or numbers enter is free."""
    if isinstance(expr, Access) or not expr.args or not expr.free_symbols:
        return 0
    if isinstance(expr, sp.Mul):
        return _product(expr, function_weight)
    inside = sum(operations(one, function_weight) for one in expr.args)
    if isinstance(expr, sp.Add):
        return inside + len(expr.args) - 1
    if isinstance(expr, sp.Pow):
        if expr.base == sp.E:
            return inside + function_weight
        if expr.exp.is_Integer or expr.exp in (sp.S.Half, -sp.S.Half):
            return inside + (1 if abs(expr.exp) <= 2 else 2)
        return inside + function_weight
    if isinstance(expr, sp.functions.elementary.piecewise.ExprCondPair | sp.logic.boolalg.Boolean):
        return inside
    if isinstance(expr, sp.Piecewise | sp.Max | sp.Min):
        return inside + len(expr.args) - 1
    cheap = type(expr).__name__ in ("Step", "HalfStep", "Abs", "sign", "floor", "ceiling", "Finite", "InverseRoot")
    return inside + (1 if cheap else function_weight)


def _product(expr: sp.Mul, weight: int) -> int:
    varying = [f for f in expr.args if f.free_symbols]
    constant = sp.Mul(*(f for f in expr.args if not f.free_symbols))
    inside = sum(operations(1 / f if _is_divisor(f) else f, weight) for f in varying)
    return inside + _joins(False, varying if constant in (1, -1) else [*varying, constant])


def typical_values(program: Program) -> dict[sp.Expr, sp.Expr]:
    """A representative number for every size and integer scalar."""
    values: dict[sp.Expr, sp.Expr] = {s: sp.Integer(t) for s, t in zip(program.sizes, program.typical, strict=False)}
    for size in program.sizes:
        values.setdefault(size, sp.Integer(64))
    for scalar in program.scalars:
        if scalar.dtype == "int64":
            values[scalar.symbol] = sp.Integer(scalar.default or 1)
    return values


def equation_cost(program: Program, equation: Equation, values: Mapping[sp.Expr, sp.Expr], weight: int = 1) -> float:
    """The operations of one equation at the given sizes, each done once for all indices that it does not see."""
    extents = {
        axis: typical_number(extent, values)
        for axis, extent in zip(equation.axes, program.tensor(equation.target).shape, strict=True)
    }
    elements = _volume(extents)
    total = elements * max(len(equation.terms) - 1, 0)
    for term in equation.terms:
        ranges = {**extents, **{b: _extent(term, b, values) for b in term.bound}}
        share = 0.5 ** sum(1 for c in term.domain if _is_triangular(c))
        share /= 8.0 ** sum(1 for c in term.domain if c.equality)
        total += share * spread(term.body, ranges, weight)
        if term.bound:
            total += share * _volume(ranges)
    return total


def spread(expr: sp.Expr, ranges: Mapping[sp.Symbol, float], weight: int) -> float:
    """The operations of an expression, each times the extents of the indices that it depends on."""
    if isinstance(expr, Access) or not expr.args:
        return 0.0
    if isinstance(expr, sp.Add | sp.Mul):
        total = sum(spread(1 / a if _is_divisor(a) else a, ranges, weight) for a in expr.args)
        by_space: dict[frozenset[sp.Symbol], list[sp.Expr]] = {}
        for one in expr.args:
            if one != -1:
                by_space.setdefault(frozenset(s for s in one.free_symbols if s in ranges), []).append(one)
        seen: frozenset[sp.Symbol] = frozenset()
        spaces = sorted(by_space, key=lambda s: (len(s), sorted(map(str, s))))
        for k, space in enumerate(spaces):
            total += _joins(isinstance(expr, sp.Add), by_space[space]) * _volume({s: ranges[s] for s in space})
            seen |= space
            if k:
                total += _volume({s: ranges[s] for s in seen})
        return total
    inside = sum(spread(one, ranges, weight) for one in expr.args)
    own = operations(expr, weight) - sum(operations(one, weight) for one in expr.args)
    return inside + own * _volume({s: ranges[s] for s in ranges if s in expr.free_symbols})


def _is_divisor(expr: sp.Expr) -> bool:
    return isinstance(expr, sp.Pow) and bool(expr.exp.is_Integer) and expr.exp < 0


def _joins(is_sum: bool, arguments: list[sp.Expr]) -> int:
    """The operations that join the arguments of one sum or product."""
    if is_sum:
        return len(arguments) - 1
    below = sum(1 for a in arguments if _is_divisor(a))
    above = len(arguments) - below
    return max(above - 1, 0) + below


def _volume(ranges: Mapping[sp.Symbol, float]) -> float:
    result = 1.0
    for extent in ranges.values():
        result *= extent
    return result


def _is_triangular(constraint: Constraint) -> bool:
    return not constraint.equality and sum(1 for s in constraint.expr.free_symbols if is_index(s)) == 2


def typical_number(expr: sp.Expr, values: Mapping[sp.Expr, sp.Expr]) -> float:
    """An expression at typical sizes; 64 where they do not decide it."""
    value = expr.xreplace(dict(values))
    return float(value) if value.is_number and value.is_finite else 64.0


def _extent(term: Term, index: sp.Symbol, values: Mapping[sp.Expr, sp.Expr]) -> float:
    for stop in term.upper_bounds(index):
        if not any(is_index(s) for s in stop.free_symbols):
            return max(typical_number(stop, values), 1.0)
    return 64.0


def program_cost(program: Program, weight: int = 1, only: frozenset[str] | None = None) -> float:
    """The operations of all equations, or of those whose targets are in `only`."""
    values = typical_values(program)
    return sum(equation_cost(program, e, values, weight) for e in program.equations if only is None or e.target in only)

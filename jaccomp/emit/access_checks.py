"""Which reads can fall outside their tensor: proved not to, or checked once a call.

An affine access is proved in range from its term's domain and the ranges of the axes, or checked at the two corners of
its box where each index is at an end of its range. An access at an id (`table[ids[n], d]`, or the data equality
`ids[n] == v` that differentiation makes of it) is checked by a scan of the whole integer array.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sympy as sp

from jaccomp.domains import axis_ranges, proves
from jaccomp.notation import Access
from jaccomp.printing import access_text, term_names
from jaccomp.program import Constraint, Domain, Equation, Program, Tensor, Term, accesses, at_least

_MOST_CORNERS = 64


@dataclass(frozen=True, slots=True)
class Corner:
    """`text` reads `low` to `high` of `axis`, which has `extent`, unless one of `ranges` (counts) is empty."""

    text: str
    axis: int
    low: sp.Expr
    high: sp.Expr
    extent: sp.Expr
    ranges: tuple[sp.Expr, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """Each id of the input `ids`, plus `low` to `high`, must lie in an axis of `extent`; `text` is what reads there.

    Of ids that the layer computed itself, as an argmax, an empty axis has none to point at: `computed`.
    """

    ids: str
    text: str
    axis: int
    low: sp.Expr
    high: sp.Expr
    extent: sp.Expr
    computed: bool


def corners(program: Program) -> tuple[Corner, ...]:
    """The affine accesses that are not proved in range, each once."""
    found: dict[tuple[sp.Basic, ...], Corner] = {}
    for equation, term, access in _reads(program):
        tensor = program.tensor(access.name)
        facts = (*axis_ranges(program.tensor(equation.target)), *term.domain)
        for axis, (index, extent) in enumerate(zip(access.indices, tensor.shape, strict=True)):
            if accesses(index) or _inside(facts, index, index, extent):
                continue
            ends = _ends(equation, term, facts, index)
            if ends is not None and not _inside((), *ends, extent):
                one = Corner(
                    _text(program, equation, term, access), axis, *ends, extent, _ranges(equation, term, facts, program)
                )
                found.setdefault((sp.Integer(axis), access.base, *ends, extent, *one.ranges), one)
    return tuple(found.values())


def scans(program: Program, computed: frozenset[str] = frozenset()) -> tuple[Scan, ...]:
    """The integer inputs whose values are used as indices, each use once; `computed` are those that the layer made."""
    found: dict[tuple[sp.Basic, ...], Scan] = {}

    def add(ids: Access, text: str, axis: int, ends: tuple[sp.Expr, sp.Expr], extent: sp.Expr) -> None:
        if ids.name in program.inputs:
            one = Scan(ids.name, text, axis, *ends, extent, ids.name in computed)
            found.setdefault((ids.base, *ends, extent), one)

    for equation, term, access in _reads(program):
        tensor = program.tensor(access.name)
        facts = (*axis_ranges(program.tensor(equation.target)), *term.domain)
        for axis, (index, extent) in enumerate(zip(access.indices, tensor.shape, strict=True)):
            inner = [a for a in accesses(index) if index.has(a) and sp.expand(index).coeff(a) == 1]
            for ids in inner[:1]:
                ends = _ends(equation, term, facts, sp.expand(index - ids))
                if ends is not None:
                    add(ids, _text(program, equation, term, access), axis, ends, extent)
    for equation in program.equations:
        target = program.tensor(equation.target)
        for term in equation.terms:
            for constraint in term.domain:
                one = _identified(constraint, equation, term, target)
                if one is not None:
                    ids, index, extent = one
                    axis = equation.axes.index(index) if index in equation.axes else 0
                    text = _text(program, equation, term, target[equation.axes])
                    add(ids, text, axis, (sp.S.Zero, sp.S.Zero), extent)
    return tuple(found.values())


def _identified(
    constraint: Constraint, equation: Equation, term: Term, target: Tensor
) -> tuple[Access, sp.Symbol, sp.Expr] | None:
    """Of `ids[...] == index`: the ids, the index, and how far its range goes from 0, if that is an extent."""
    if not (constraint.equality and constraint.is_data):
        return None
    ids = accesses(constraint.expr)[0]
    sign = constraint.expr.coeff(ids)
    index = sp.expand(ids - sign * constraint.expr) if sign in (1, -1) else None
    if not isinstance(index, sp.Symbol):
        return None
    if index in equation.axes:
        return ids, index, target.shape[equation.axes.index(index)]
    indices = {*equation.axes, *term.bound}
    stops = [e for e in term.upper_bounds(index) if not e.free_symbols & indices and not e.has(Access)]
    starts = [e for e in term.lower_bounds(index) if not e.free_symbols & indices]
    return (ids, index, sp.expand(stops[0])) if index in term.bound and stops and sp.S.Zero in starts else None


def _text(program: Program, equation: Equation, term: Term, access: Access) -> str:
    """An access as a message spells it, with the user's names."""
    return access_text(program.labels, access, term_names(program, equation, term))


def _reads(program: Program) -> Iterator[tuple[Equation, Term, Access]]:
    for equation in program.equations:
        for term in equation.terms:
            for expr in (term.body, *(c.expr for c in term.domain)):
                for access in accesses(expr):
                    yield equation, term, access


def _inside(facts: Domain, low: sp.Expr, high: sp.Expr, extent: sp.Expr) -> bool:
    """Is it proved that 0 <= low and high < extent?"""
    goals = (at_least(low, sp.S.Zero), at_least(extent - 1, high))
    return all(goal in facts or proves(facts, goal) for goal in goals)


def _ends(equation: Equation, term: Term, facts: Domain, index: sp.Expr) -> tuple[sp.Expr, sp.Expr] | None:
    """The least and the greatest value of an affine expression over the box of the indices, in sizes and scalars."""
    low, high = ([sp.expand(index)], [sp.expand(index)])
    indices = (*reversed(term.bound), *reversed(equation.axes))
    box = Term(term.body, term.bound, facts)
    for _ in range(len(indices) + 1):
        for one in indices:
            low = _eliminate(box, low, one, -1, indices)
            high = _eliminate(box, high, one, 1, indices)
    left = set(indices)
    if any(e.free_symbols & left or e.has(Access) for e in (*low, *high)):
        return None
    return _one(sp.Min, low), _one(sp.Max, high)


def _one(extremum: type[sp.Expr], candidates: list[sp.Expr]) -> sp.Expr:
    return candidates[0] if len(candidates) == 1 else extremum(*candidates, evaluate=False)


def _eliminate(
    box: Term, candidates: list[sp.Expr], index: sp.Symbol, sign: int, indices: tuple[sp.Symbol, ...]
) -> list[sp.Expr]:
    """Put an index at the ends of its range; at both where the sign of its coefficient is unknown."""
    result: dict[sp.Expr, None] = {}
    for expr in candidates:
        slope = expr.coeff(index)
        if index not in expr.free_symbols:
            result.setdefault(expr)
            continue
        wanted = (
            [1, -1] if not (slope.is_nonnegative or slope.is_nonpositive) else [sign if slope.is_nonnegative else -sign]
        )
        for direction in wanted:
            end = _end(box, index, direction, indices)
            result.setdefault(expr if end is None else sp.expand(expr.xreplace({index: end})))
    return list(result) if len(result) <= _MOST_CORNERS else candidates


def _end(box: Term, index: sp.Symbol, direction: int, indices: tuple[sp.Symbol, ...]) -> sp.Expr | None:
    """An end of the range of an index: one in sizes alone, if there is one, else the first in other indices."""
    ends = list(box.lower_bounds(index)) if direction < 0 else [e - 1 for e in box.upper_bounds(index)]
    ends = [e for e in ends if not e.has(Access)]
    return next((e for e in ends if not e.free_symbols & set(indices)), ends[0] if ends else None)


def _ranges(equation: Equation, term: Term, facts: Domain, program: Program) -> tuple[sp.Expr, ...]:
    """How many values each index has at most: where one has none, nothing is read."""
    counts: dict[sp.Expr, None] = {}
    for index in (*equation.axes, *term.bound):
        ends = _ends(equation, term, facts, index)
        if ends is not None:
            count = sp.expand(ends[1] - ends[0] + 1)
            if not count.is_positive:
                counts.setdefault(count)
    return tuple(counts)

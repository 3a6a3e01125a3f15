"""Domains to loops: the equalities of a term solved, so that its indices run free.

Input: a term of an equation. Output: where it stores, its loops with affine bounds, and what is left to guard.

In this order, for an equality of the domain:
  a bound index that is an axis plus a constant     renamed, with its range constraints
  an axis that is injective in the bound indices     loop over the source indices, store at `α`
  a bound index with a unit coefficient              substituted; its range bounds the other loops
  an axis with a unit coefficient                    a scatter: only axes bare in the target may run in parallel
  none                                               a guard
An equality that reads a tensor solves for a bound index (a gather), then for an axis (one-hot or scatter-add), else
for several indices that it counts together, `h W + w = arg[f]`, as the digits of the number; else guards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.domains import axis_ranges, hull, without_implied
from jaccomp.lowering.affine import bounds_of, index_set, is_affine, is_mixed_radix, slope
from jaccomp.lowering.ir import FloorDiv
from jaccomp.notation import Access
from jaccomp.program import (
    Constraint,
    Equation,
    Program,
    Term,
    accesses,
    at_least,
    in_range,
)


@dataclass(frozen=True, slots=True)
class Solved:
    store: tuple[sp.Expr, ...]
    loops: tuple[sp.Symbol, ...]
    domain: tuple[Constraint, ...]
    guards: tuple[Constraint, ...]
    body: sp.Expr
    injective: bool


def solve(equation: Equation, term: Term, given: tuple[Constraint, ...]) -> Solved:
    """One term over free indices: its equalities substituted, stored at or guarded."""
    axes: list[sp.Symbol] = list(equation.axes)
    bound: list[sp.Symbol] = list(term.bound)
    store: list[sp.Expr] = list(equation.axes)
    waiting = [c for c in term.domain if c.equality]
    domain: list[Constraint] = [*given, *(c for c in term.domain if not c.equality)]
    guards: list[Constraint] = []
    body = term.body
    injective = True

    def replace_index(index: sp.Symbol, value: sp.Expr) -> None:
        nonlocal body, waiting, domain, store, guards
        where = {index: value}
        body = body.xreplace(where)
        waiting = [Constraint(sp.expand(c.expr.xreplace(where)), True) for c in waiting]
        domain = [Constraint(sp.expand(c.expr.xreplace(where))) for c in domain]
        guards = [Constraint(sp.expand(c.expr.xreplace(where)), c.equality) for c in guards]
        store = [sp.expand(e.xreplace(where)) for e in store]

    while waiting:
        waiting = [c for c in waiting if c.expr != 0]
        counted = next((one for c in waiting if (one := _digits(c, axes, bound, domain)) is not None), None)
        if counted is not None:
            waiting = [c for c in waiting if c is not counted.constraint]
            domain = [c for c in domain if c not in counted.ranges] + list(counted.inside)
            for index, value in counted.values.items():
                (bound if index in bound else axes).remove(index)
                injective = injective and index not in equation.axes
                replace_index(index, value)
            continue
        found = next(
            (
                (constraint, choice)
                for kind in ("rename", "store", "substitute", "scatter")
                for constraint in waiting
                if (choice := _choose(kind, constraint.expr, axes, bound, domain)) is not None
            ),
            None,
        )
        if found is None:
            guards += waiting
            break
        constraint, (index, value, unique) = found
        waiting = [c for c in waiting if c is not constraint]
        if index in bound:
            bound.remove(index)
        else:
            axes.remove(index)
            injective = injective and unique
        replace_index(index, value)

    loops = (*axes, *bound)
    known = tuple(c for c in given if not any(a in c.expr.free_symbols for a in equation.axes if a not in axes))
    affine = [c for c in dict.fromkeys(domain) if is_affine(c.expr, loops)]
    guards += [c for c in dict.fromkeys(domain) if not is_affine(c.expr, loops)]
    own = [c for c in affine if c not in known]
    own += _hulls((*known, *own), term, given, loops)
    single = without_implied([c for c in own if len(index_set(c.expr, loops)) == 1], known)
    boxes = _with_boxes((*known, *single), own, loops)
    kept = without_implied([c for c in own if len(index_set(c.expr, loops)) != 1], boxes)
    return Solved(tuple(store), loops, (*boxes, *kept), tuple(guards), body, injective)


def _with_boxes(
    single: tuple[Constraint, ...], domain: list[Constraint], loops: tuple[sp.Symbol, ...]
) -> tuple[Constraint, ...]:
    """Bounds of each index alone, where only its relation to another says them: 0 <= c <= b gives 0 <= b."""
    result = list(single)
    found = True
    while found:
        found = False
        for constraint in [c for c in domain if len(index_set(c.expr, loops)) == 2]:
            for index, other in (pair := index_set(constraint.expr, loops), pair[::-1]):
                implied = _without(constraint, index, other, result, loops)
                if implied is not None:
                    result.append(implied)
                    found = True
    return tuple(result)


def _hulls(
    known: Sequence[Constraint], term: Term, given: tuple[Constraint, ...], loops: tuple[sp.Symbol, ...]
) -> tuple[Constraint, ...]:
    """Ends of each loop that has none on a side, since the index that it went through equals what data say.

    Σ_{m,k : k <= m, k = ids[n]} with 0 <= k        ->  0 <= m, and the guard ids[n] <= m
    """
    found: list[Constraint] = []
    for index in (i for i in loops if i in term.bound):
        lower, upper = bounds_of(index, [c for c in known if index in c.expr.free_symbols])
        if not (lower and upper):
            low, high = hull(term, index, given)
            found += [at_least(index, low)] * (not lower) + [at_least(high, index)] * (not upper)
    return tuple(found)


def _without(
    constraint: Constraint, index: sp.Symbol, other: sp.Symbol, single: list[Constraint], loops: tuple[sp.Symbol, ...]
) -> Constraint | None:
    """The bound that the constraint puts on `index`, `other` at its end, if `index` has no such bound yet."""
    mine, theirs = slope(constraint.expr, index), slope(constraint.expr, other)
    if mine not in (1, -1) or theirs not in (1, -1):
        return None
    lower, upper = bounds_of(index, [c for c in single if index_set(c.expr, loops) == (index,)])
    if lower if mine == 1 else upper:
        return None
    low, high = bounds_of(other, [c for c in single if index_set(c.expr, loops) == (other,)])
    ends = high if theirs == 1 else low
    if not ends:
        return None
    end = ends[0] - 1 if theirs == 1 else ends[0]
    return Constraint(sp.expand(constraint.expr.xreplace({other: end})))


def rename_bounds(program: Program) -> Program:
    """Substitute every bound index that equals an axis; what was a sum over a delta is a map again."""
    return program.with_equations(
        replace(e, terms=tuple(_bounds_renamed(t, e, axis_ranges(program.tensor(e.target))) for t in e.terms))
        for e in program.equations
    )


def _bounds_renamed(term: Term, equation: Equation, given: tuple[Constraint, ...]) -> Term:
    bound, domain, body = list(term.bound), list(term.domain), term.body
    found = True
    while found:
        found = False
        for constraint in domain:
            choice = _choose("rename", constraint.expr, list(equation.axes), bound, []) if constraint.equality else None
            if choice is None:
                continue
            where = {choice[0]: choice[1]}
            domain = [Constraint(sp.expand(c.expr.xreplace(where)), c.equality) for c in domain if c is not constraint]
            body = body.xreplace(where)
            bound.remove(choice[0])
            found = True
            break
    if len(bound) == len(term.bound):
        return term
    domain = [c for c in domain if not (c.equality and c.expr == 0)]
    return Term(body, tuple(bound), without_implied(list(dict.fromkeys(domain)), given))


def _choose(
    kind: str, expr: sp.Expr, axes: list[sp.Symbol], bound: list[sp.Symbol], domain: list[Constraint]
) -> tuple[sp.Symbol, sp.Expr, bool] | None:
    """(index, what it equals, whether distinct iterations still write to distinct places), by the rule `kind`."""
    data = {i for a in accesses(expr) for i in a.free_symbols}
    everything = [*axes, *bound]
    candidates = [i for i in (bound if kind in ("rename", "substitute") else axes) if i not in data]
    for index in reversed(candidates):
        c = expr.coeff(index)
        if c not in (1, -1):
            continue
        value = sp.expand(-c * (expr - c * index))
        if index in value.free_symbols:
            continue
        inside = index_set(value, everything)
        if kind == "rename" and (value.has(Access) or len(inside) > 1 or any(slope(value, i) != 1 for i in inside)):
            continue
        if kind == "store":
            sources = [i for i in inside if i in bound]
            if value.has(Access) and sources:
                continue
            boxes = {i: _box(i, domain, everything) for i in sources}
            if sources and not is_mixed_radix(value, sources, boxes):
                continue
        if kind == "rename" or kind == "substitute":
            return index, value, True
        return index, value, kind == "store"
    return None


@dataclass(frozen=True, slots=True)
class _Digits:
    """Indices that one number counts: what each equals, the ranges this implies, and that the number is in its own."""

    constraint: Constraint
    values: dict[sp.Symbol, sp.Expr]
    ranges: tuple[Constraint, ...]
    inside: tuple[Constraint, ...]


def _digits(
    constraint: Constraint, axes: list[sp.Symbol], bound: list[sp.Symbol], domain: list[Constraint]
) -> _Digits | None:
    """The indices that an equality with data counts in a mixed radix, by which the data say them all.

    h W + w = arg[f], 0 <= h < H, 0 <= w < W   ->   h = ⌊arg[f] / W⌋, w = arg[f] - W ⌊arg[f] / W⌋, 0 <= arg[f] < H W

    The place `h W + w` of a row-major array is then `arg[f]` again, and nothing is divided.
    """
    read = accesses(constraint.expr)
    if len(read) != 1 or constraint.expr.coeff(read[0]) not in (1, -1):
        return None
    expr = sp.expand(-constraint.expr.coeff(read[0]) * constraint.expr)
    everything = [i for i in (*axes, *bound) if i not in read[0].free_symbols]
    steps = {i: slope(expr, i) for i in index_set(expr, everything)}
    chain: list[tuple[sp.Symbol, sp.Expr, Constraint, Constraint]] = []
    radix: sp.Expr = sp.S.One
    while index := next((i for i in steps if steps[i] == radix and all(i != one[0] for one in chain)), None):
        ends = _ends(index, domain, everything)
        if ends is None:
            break
        low, high = ends
        chain.append((index, radix, low, high))
        radix = sp.expand(radix * (low.expr + high.expr + 1))
    if len(chain) < 2:
        return None
    number = rest = sp.expand(sp.Add(*(step * low.expr for _, step, low, _ in chain)) - expr)
    values: dict[sp.Symbol, sp.Expr] = {}
    for index, step, low, _ in reversed(chain):
        digit = rest if step == 1 else FloorDiv(rest, step)
        values[index] = sp.expand(index - low.expr + digit)
        rest = sp.expand(rest - step * digit)
    ranges = tuple(c for _, _, low, high in chain for c in (low, high))
    return _Digits(constraint, values, ranges, in_range(number, radix))


def _ends(
    index: sp.Symbol, domain: list[Constraint], everything: list[sp.Symbol]
) -> tuple[Constraint, Constraint] | None:
    """The constraints `index >= low` and `index <= high` of its range in sizes alone, if it has one."""
    alone = _alone(index, domain, everything)
    low = next((c for c in alone if slope(c.expr, index) == 1), None)
    high = next((c for c in alone if slope(c.expr, index) == -1), None)
    return (low, high) if low is not None and high is not None else None


def _alone(index: sp.Symbol, domain: list[Constraint], everything: list[sp.Symbol]) -> list[Constraint]:
    """The constraints that name no other index and no data."""
    others = [i for i in everything if i != index]
    return [c for c in domain if not index_set(c.expr, others) and not c.expr.has(Access)]


def _box(index: sp.Symbol, domain: list[Constraint], everything: list[sp.Symbol]) -> tuple[sp.Expr, sp.Expr] | None:
    """The range of an index in sizes alone, if it has one."""
    lower, upper = bounds_of(index, _alone(index, domain, everything))
    return (lower[0], upper[0]) if lower and upper else None

"""The terms of a block, made ready for matrix notation: nothing in them is nameless that has a closed form.

    Term(body, bound, domain)   ->   Addend(factors, bound with their extents, ties, one-hots, triangles)

A tie is `column = row + shift`; a one-hot says where data put a column; a triangle is `row >= column` or its mirror.
What is none of these has no matrix notation here, and the block none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.domains import is_index, is_index_free
from jaccomp.matrix.nodes import Axis
from jaccomp.notation import Access
from jaccomp.program import Constraint, Program, Term, accesses, expand, instantiate


@dataclass(frozen=True, slots=True)
class Tie:
    """`column = row + shift`."""

    row: sp.Symbol
    column: sp.Symbol
    shift: sp.Expr


@dataclass(frozen=True, slots=True)
class Place:
    """`index = position`, which data give; of several indices their flat number."""

    indices: tuple[sp.Symbol, ...]
    position: sp.Expr


@dataclass(frozen=True, slots=True)
class Cell:
    """`index = radix · bound + place`: where in each of the blocks, of which there is one for each value of `bound`.

    Without a bound index there is one block.
    """

    index: sp.Symbol
    place: int
    radix: int = 0
    bound: sp.Symbol | None = None


@dataclass(frozen=True, slots=True)
class Addend:
    factors: tuple[sp.Expr, ...]
    bound: Axis
    ties: tuple[Tie, ...] = ()
    places: tuple[Place, ...] = ()
    cells: tuple[Cell, ...] = ()
    lower: tuple[tuple[sp.Symbol, sp.Symbol], ...] = ()
    """Pairs (a, b) with `a >= b`, which no factor says by being 0 elsewhere."""


def inlined(program: Program, expr: sp.Expr) -> sp.Expr:
    """The expression with every read of a nameless map replaced by its body."""
    definitions = program.definitions()
    while True:
        where = {}
        for access in accesses(expr):
            definition = definitions.get(access.name)
            if definition is not None and definition.is_map and access.name not in program.labels.names:
                (term,) = instantiate(definition, access.indices, 0)
                where[access] = term.body
        if not where:
            return expr
        expr = expr.xreplace(where)


def addend(
    program: Program, term: Term, rows: Mapping[sp.Symbol, sp.Expr], columns: Mapping[sp.Symbol, sp.Expr]
) -> Addend | None:
    """A term as an addend; None where its domain says more than ties, places, triangles and whole ranges."""
    factors = tuple(f for f in sp.Mul.make_args(inlined(program, term.body)) if f != 1)
    ties: list[Tie] = []
    places: list[Place] = []
    cells: list[Cell] = []
    lower: list[tuple[sp.Symbol, sp.Symbol]] = []
    extents = {**rows, **columns}
    domain = list(term.domain)
    for index in term.bound:
        whole = _whole_range(program, index, domain, factors)
        if whole is None:
            return None
        extents[index], domain = whole
    for constraint in domain:
        if not constraint.equality and _is_said_by_zeros(program, constraint, factors):
            continue
        if constraint.is_data and constraint.equality:
            place = _place(constraint, extents)
            if place is None:
                return None
            places.append(place)
            continue
        cell = _cell(constraint, {*rows, *columns}, term.bound) if constraint.equality else None
        if cell is not None:
            cells.append(cell)
            continue
        pair = _pair(constraint, extents)
        if pair is None:
            return None
        plus, minus, rest = pair
        if not constraint.equality:
            if rest != 0:
                return None
            lower.append((plus, minus))
        elif plus in columns and minus in rows:
            ties.append(Tie(minus, plus, -rest))
        elif plus in rows and minus in columns:
            ties.append(Tie(plus, minus, rest))
        else:
            return None
    summed = tuple((b, extents[b]) for b in term.bound)
    return Addend(factors, summed, tuple(ties), tuple(places), tuple(cells), tuple(lower))


def _whole_range(
    program: Program, index: sp.Symbol, domain: Sequence[Constraint], factors: Sequence[sp.Expr]
) -> tuple[sp.Expr, list[Constraint]] | None:
    """(extent, the other constraints) of an index that runs from 0 to where the tensors that it reads end."""
    low = [c for c in domain if not c.equality and expand(c.expr - index) == 0]
    ends = {
        expand(index + c.expr + 1): c
        for c in domain
        if not c.equality and not c.is_data and c.expr.coeff(index) == -1 and is_index_free(expand(index + c.expr))
    }
    rest = [c for c in domain if c not in low and c not in ends.values()]
    read = [program.tensor(a.name).shape[a.indices.index(index)] for a in _reads_at(factors, index)]
    if not ends and read:
        ends = {read[0]: low[0]} if low else {}
    if len(low) != 1 or len(ends) != 1:
        return None
    (end,) = ends
    return end, rest


def _reads_at(factors: Sequence[sp.Expr], index: sp.Symbol) -> Iterator[Access]:
    return (a for f in factors for a in accesses(f) if index in a.indices)


def _is_said_by_zeros(program: Program, constraint: Constraint, factors: Sequence[sp.Expr]) -> bool:
    """Is a factor a read of a tensor that is 0 wherever the constraint does not hold?"""
    for factor in factors:
        definition = program.definition(factor.name) if isinstance(factor, Access) else None
        if definition is None or definition.reducer != "sum":
            continue
        terms = instantiate(definition, factor.indices, 0)
        if terms and all(any(expand(c.expr - constraint.expr) == 0 for c in t.domain) for t in terms):
            return True
    return False


def _cell(constraint: Constraint, sides: set[sp.Symbol], bound: Sequence[sp.Symbol]) -> Cell | None:
    """A place in small blocks that an index of rows or columns has, if the constraint says one."""
    own = [s for s in sorted(constraint.expr.free_symbols, key=str) if s in sides]
    inner = [b for b in bound if b in constraint.expr.free_symbols]
    if constraint.is_data or len(own) != 1 or len(inner) > 1 or constraint.expr.coeff(own[0]) not in (1, -1):
        return None
    value = expand(own[0] - constraint.expr.coeff(own[0]) * constraint.expr)
    radix = value.coeff(inner[0]) if inner else sp.S.Zero
    place = expand(value - radix * inner[0]) if inner else value
    if not radix.is_Integer or not place.is_Integer or (inner and not 0 <= place < radix) or place < 0:
        return None
    return Cell(own[0], int(place), int(radix), inner[0] if inner else None)


def _pair(constraint: Constraint, extents: Mapping[sp.Symbol, sp.Expr]) -> tuple[sp.Symbol, sp.Symbol, sp.Expr] | None:
    """(a, b, c) of `a - b + c`."""
    indices = [s for s in sorted(constraint.expr.free_symbols, key=str) if s in extents]
    if len(indices) != 2 or constraint.is_data:
        return None
    slopes = [constraint.expr.coeff(s) for s in indices]
    if set(slopes) != {sp.S.One, sp.S.NegativeOne}:
        return None
    plus, minus = indices if slopes[0] == 1 else indices[::-1]
    rest = expand(constraint.expr - plus + minus)
    return (plus, minus, rest) if is_index_free(rest) else None


def _place(constraint: Constraint, extents: Mapping[sp.Symbol, sp.Expr]) -> Place | None:
    """`index = read`, or `index K + other = read` with the other below K: the flat number of both."""
    outside = constraint.expr.xreplace(dict.fromkeys(accesses(constraint.expr), sp.S.Zero))
    indices = sorted((s for s in outside.free_symbols if s in extents), key=str)
    if not indices:
        return None
    sign = outside.coeff(indices[-1])
    if sign not in (1, -1):
        return None
    flat: sp.Expr = sp.S.Zero
    for index in indices:
        flat = flat * extents[index] + index
    if expand(sign * outside - flat) != 0:
        return None
    position = expand(flat - sign * constraint.expr)
    if any(is_index(s) and s in indices for s in position.free_symbols):
        return None
    return Place(tuple(indices), position)

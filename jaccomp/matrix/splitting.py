"""Axes that a block reads by their digits, taken apart: a channel `c` as `K a + k` where only its group `a` is tied.

    { a : ⌊c/K⌋ = a = ⌊d/K⌋ } body[c, d]   ->   { a = b } body[K a + k, K b + l]

Group normalisation is then for each group what layer normalisation is for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra.blocks import Block
from jaccomp.domains import digits
from jaccomp.matrix.frames import Indices
from jaccomp.program import Constraint, Program, Term, accesses, equal, expand, index_symbol, instantiate

FIRST = 300  # of the numbers of the new symbols, beyond those of rows


@dataclass(frozen=True, slots=True)
class Split:
    """`axis = radix high + low`."""

    axis: sp.Symbol
    radix: sp.Expr
    count: sp.Expr
    high: sp.Symbol
    low: sp.Symbol

    @property
    def value(self) -> sp.Expr:
        return self.radix * self.high + self.low


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a block and its terms over them; `places` are the block's own indices in their symbols."""

    rows: Indices
    columns: Indices
    places: Mapping[sp.Symbol, sp.Expr]
    terms: tuple[Term, ...]


def axes(program: Program, block: Block, rows: Indices, columns: Indices) -> Axes:
    """The axes of a block, those taken apart that its terms read by a digit."""
    found = _splits(block)
    if not found:
        return Axes(rows, columns, {s: s for s, _ in (*rows, *columns)}, block.terms)
    places: dict[sp.Symbol, sp.Expr] = {s: found[s].value if s in found else s for s, _ in (*rows, *columns)}
    return Axes(
        _taken_apart(rows, found),
        _taken_apart(columns, found),
        places,
        tuple(_apart(program, term, places, tuple(found.values())) for term in block.terms),
    )


def _splits(block: Block) -> dict[sp.Symbol, Split]:
    """The axes that a bound index is a digit of, those of the rows first."""
    found: dict[sp.Symbol, Split] = {}
    read = [(digit, term) for term in block.terms for digit in digits(term, term.bound)]
    for side in (*block.rows, *block.columns):
        for digit, term in read:
            ends = term.upper_bounds(digit.index)
            if digit.value == side and side not in found and ends:
                high, low = (index_symbol(f"_{FIRST + 2 * len(found) + k}") for k in range(2))
                found[side] = Split(side, digit.radix, ends[0], high, low)
    return found


def _taken_apart(side: Indices, splits: Mapping[sp.Symbol, Split]) -> Indices:
    pairs: list[tuple[sp.Symbol, sp.Expr]] = []
    for symbol, size in side:
        one = splits.get(symbol)
        pairs += [(symbol, size)] if one is None else [(one.high, one.count), (one.low, one.radix)]
    return tuple(pairs)


def _apart(program: Program, term: Term, places: Mapping[sp.Symbol, sp.Expr], splits: Sequence[Split]) -> Term:
    """A term over the new axes: its digits and its ties said of them, nameless sums of one digit in place."""
    where: dict[sp.Expr, sp.Expr] = dict(places)
    domain: list[Constraint] = []
    for constraint in term.domain:
        domain += _tie(constraint, places, splits) or [
            Constraint(expand(constraint.expr.xreplace(where)), constraint.equality)
        ]
    moved = _resolved(replace(term, body=term.body.xreplace(where), domain=tuple(domain)), splits)
    names = {a: value for a in accesses(moved.body) if (value := _value(program, a, splits)) is not None}
    moved = replace(moved, body=moved.body.xreplace(names))
    by_rows: dict[sp.Expr, sp.Expr] = {}
    for constraint in moved.domain:
        pair = [s for one in splits for s in (one.high, one.low) if s in constraint.expr.free_symbols]
        if constraint.equality and len(pair) == 2:
            by_rows[pair[1]] = pair[0]
    return replace(moved, body=moved.body.xreplace(by_rows))


def _tie(constraint: Constraint, places: Mapping[sp.Symbol, sp.Expr], splits: Sequence[Split]) -> list[Constraint]:
    """`axis = axis` as equal digits, where both are taken apart by one radix."""
    own = [one for one in splits if one.axis in constraint.expr.free_symbols]
    if not constraint.equality or len(own) != 2 or own[0].radix != own[1].radix:
        return []
    left, right = own
    if expand(constraint.expr - left.axis + right.axis) != 0 and expand(constraint.expr + left.axis - right.axis) != 0:
        return []
    return [equal(left.high, right.high), equal(left.low, right.low)]


def _resolved(term: Term, splits: Sequence[Split]) -> Term:
    """The term without the bound indices that are the high digit of a split; a second digit is a tie."""
    for digit in digits(term, term.bound):
        for one in splits:
            if expand(digit.value - one.value) == 0 and expand(digit.radix - one.radix) == 0:
                where: dict[sp.Expr, sp.Expr] = {digit.index: one.high}
                kept = [c for c in term.domain if c not in digit.constraints and not _is_range(c, digit.index)]
                domain = tuple(Constraint(expand(c.expr.xreplace(where)), c.equality) for c in kept)
                bound = tuple(b for b in term.bound if b != digit.index)
                return _resolved(_tied(Term(term.body.xreplace(where), bound, domain), splits), splits)
    return term


def _is_range(constraint: Constraint, index: sp.Symbol) -> bool:
    indices = [s for s in constraint.expr.free_symbols if s.name[0] in "ib_" and s.name[1:].isdigit()]
    return not constraint.equality and indices == [index]


def _tied(term: Term, splits: Sequence[Split]) -> Term:
    """`0 <= K b + l - K a < K`, l below K, as `a = b`."""
    domain = list(term.domain)
    for low in term.domain:
        for one in splits:
            for other in splits:
                high = next((c for c in domain if expand(c.expr + low.expr - one.radix + 1) == 0), None)
                is_digit = expand(low.expr - one.value + one.radix * other.high) == 0
                if one is not other and is_digit and low in domain and high is not None:
                    domain = [c for c in domain if c not in (low, high)] + [equal(one.high, other.high)]
    return replace(term, domain=tuple(domain))


def _value(program: Program, access: sp.Expr, splits: Sequence[Split]) -> sp.Expr | None:
    """What a nameless sum over one digit of a split axis is: its body at that digit."""
    definition = program.definition(access.name)
    if definition is None or access.name in program.labels.names or definition.reducer != "sum":
        return None
    terms = [_resolved(t, splits) for t in instantiate(definition, access.indices, 600)]
    if len(terms) != 1 or terms[0].bound or terms[0].domain:
        return None
    inner = {a: value for a in accesses(terms[0].body) if (value := _value(program, a, splits)) is not None}
    return terms[0].body.xreplace(inner)

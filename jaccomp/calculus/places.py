"""Where an extremum lies, as a place of the array that it is taken over.

A maximum over a window names its elements by their offsets in the window. Its cotangent goes to a place of the array,
and of that place one number says everything: `h W + w` is the element itself. So before the argument of an extremum is
asked for, offsets become places; and what is known of that one point, that it lies in its window, is not asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.domains import hull, is_index, without_implied
from jaccomp.notation import Access
from jaccomp.program import Constraint, Program, Term, accesses, expand, in_range


def by_places(program: Program, term: Term) -> Term:
    """The term over places of what it reads, where several indices are bound and one of them is an offset.

    max {r, s : r, s < K} x[S i + r, S j + s]   ->   max {h, w : S i <= h < S i + K, S j <= w < S j + K} x[h, w]
    """
    if len(term.bound) < 2:
        return term
    found = term
    for index in term.bound:
        place = _place(program, found, index)
        if place is None:
            continue
        start, extent = place
        moved = _over(found, index, index - start)
        found = replace(moved, domain=tuple(dict.fromkeys((*in_range(index, extent), *moved.domain))))
    return found


def _over(term: Term, index: sp.Symbol, value: sp.Expr) -> Term:
    where = {index: value}
    reads = {a: Access(a.base, *(expand(i.xreplace(where)) for i in a.indices)) for a in accesses(term.body)}
    domain = tuple(Constraint(expand(c.expr.xreplace(where)), c.equality) for c in term.domain)
    return Term(term.body.xreplace(reads), term.bound, domain)


def _place(program: Program, term: Term, index: sp.Symbol) -> tuple[sp.Expr, sp.Expr] | None:
    """Where the index starts to count on the one axis that it moves along, and the axis' extent; None if it is bare."""
    reads = accesses(term.body)
    if index in term.body.xreplace(dict.fromkeys(reads, sp.S.Zero)).free_symbols:
        return None
    found = {
        (expand(e - index), extent)
        for a in reads
        for e, extent in zip(a.indices, program.tensor(a.name).shape, strict=True)
        if index in e.free_symbols
    }
    if len(found) != 1:
        return None
    ((start, extent),) = found
    steps_aside = start.free_symbols & {*term.bound} or start.has(Access)
    return (start, extent) if start.free_symbols and not steps_aside and _moves(start) else None


def _moves(start: sp.Expr) -> bool:
    return any(is_index(s) for s in start.free_symbols)


def at_its_point(term: Term, given: Sequence[Constraint]) -> Term:
    """The term at the one point where its extremum lies, over the box of its places instead of its domain.

    {h, w : 0 <= h < H, 0 <= w < W, S i <= h < S i + K, ..}   ->   {h, w : 0 <= h < H, 0 <= w < W, 0 <= S i + K - 1, ..}

    What the point's indices satisfy beyond their ranges follows from the point's being one of the domain's; that there
    is any is what the domain says once they are eliminated (Fourier and Motzkin: exact for unit coefficients). `given`
    are the ranges of the axes.
    """
    kept: list[Constraint] = []
    known: list[Constraint] = []
    for constraint in term.domain:
        inside = [b for b in term.bound if b in constraint.expr.free_symbols]
        alone = not any(is_index(s) for s in constraint.expr.free_symbols - set(inside))
        if len(inside) > 1 or constraint.equality or constraint.is_data:
            return term
        if inside and constraint.expr.coeff(inside[0]) not in (1, -1):
            return term
        (kept if alone or not inside else known).append(constraint)
    if not known or not _reads_bare(term) or not all(_is_boxed(term, kept, index, given) for index in term.bound):
        return term
    exists = [c for index in term.bound for c in _eliminated([*kept, *known], known, index)]
    return replace(term, domain=(*kept, *without_implied(list(dict.fromkeys(exists)), (*given, *kept))))


def _reads_bare(term: Term) -> bool:
    """Is the range of each bound index all that keeps what it reads inside its tensor?"""
    return all(e in term.bound or e.free_symbols.isdisjoint(term.bound) for a in accesses(term.body) for e in a.indices)


def _is_boxed(term: Term, box: Sequence[Constraint], index: sp.Symbol, given: Sequence[Constraint]) -> bool:
    """Do the box's constraints keep the index in the range that its position is counted over?"""
    low, high = hull(term, index, given)
    alone = replace(term, domain=tuple(box))
    return low in alone.lower_bounds(index) and any(expand(e - high) == 1 for e in alone.upper_bounds(index))


def _eliminated(domain: Sequence[Constraint], known: Sequence[Constraint], index: sp.Symbol) -> list[Constraint]:
    """Each lower bound of the index against each upper one, but for pairs of the box alone."""
    lower = [c for c in domain if c.expr.coeff(index) == 1]
    upper = [c for c in domain if c.expr.coeff(index) == -1]
    return [Constraint(expand(a.expr + b.expr)) for a in lower for b in upper if a in known or b in known]

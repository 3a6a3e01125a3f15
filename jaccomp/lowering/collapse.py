"""Adjacent axes that every equation runs over together become one: their rows may be too short to be worth a loop.

mean[c] = Σ_n,h,w x[n,c,h,w] / M      ->   mean[c] = Σ_n,h x[n,c,h] / M,  h < H W
y[n,i] = x[n,i] s                     ->   y[n] = x[n] s,                 n < N D

An array is the same memory under either shape. Input: a program before its loops are solved for. Output: the same
program over tensors of lower rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import sympy as sp

from jaccomp.lowering.affine import index_set
from jaccomp.notation import Access
from jaccomp.program import (
    AXES,
    Constraint,
    Equation,
    Labels,
    Program,
    Tensor,
    Term,
    accesses,
    in_range,
    term_accesses,
)

Place = tuple[str, int]
"""A tensor and one of its axes."""


def collapse(program: Program) -> Program:
    """The program with every run of axes that are read and written together everywhere as one axis."""
    declared = program.declarations()
    scopes = [_scope(declared, e, t) for e in program.equations for t in e.terms or (Term(sp.S.Zero),)]
    joined = {(t.name, axis) for t in program.tensors for axis in range(t.rank - 1)}
    apart = joined
    while apart:
        apart = {place for scope in scopes for place in scope.apart(joined)}
        joined = joined - apart
    if not joined:
        return program
    shorter = _Shorter(declared, frozenset(joined))
    return replace(
        program,
        tensors=tuple(shorter.tensor(t) for t in program.tensors),
        equations=tuple(shorter.equation(e) for e in program.equations),
        labels=shorter.labels(program.labels),
    )


@dataclass(frozen=True, slots=True)
class _Scope:
    """One term with its target: every access, the indices it reads whole axes by, and where each of them stands."""

    accesses: tuple[Access, ...]
    order: tuple[sp.Symbol, ...]
    places: dict[sp.Symbol, tuple[Place, ...]]

    def apart(self, joined: set[Place]) -> Iterator[Place]:
        """The joined places at which an axis and the next are not one run in this term."""
        for access in self.accesses:
            for axis, (one, other) in enumerate(pairwise(access.indices)):
                if (access.name, axis) in joined and not self._run_together(one, other, joined):
                    yield access.name, axis

    def _run_together(self, one: sp.Expr, other: sp.Expr, joined: set[Place]) -> bool:
        here, there = self.places.get(one, ()), self.places.get(other, ())
        return (
            bool(here)
            and (one, other) in pairwise(self.order)
            and set(there) == {(name, axis + 1) for name, axis in here}
            and all(place in joined for place in here)
        )


def _scope(declared: dict[str, Tensor], equation: Equation, term: Term) -> _Scope:
    target = declared[equation.target]
    found = tuple(dict.fromkeys((target[equation.axes], *term_accesses(term))))
    order = (*equation.axes, *term.bound)
    places = {i: tuple((a.name, k) for a in found for k, e in enumerate(a.indices) if e == i) for i in order}
    whole = {i: tuple(dict.fromkeys(at)) for i, at in places.items() if _runs_whole(declared, equation, term, i, at)}
    return _Scope(found, order, whole)


def _runs_whole(
    declared: dict[str, Tensor], equation: Equation, term: Term, index: sp.Symbol, places: tuple[Place, ...]
) -> bool:
    """Does the index only choose a place along whole axes, all of one extent?"""
    extents = {declared[name].shape[axis] for name, axis in places}
    if len(extents) != 1:
        return False
    box = () if index in equation.axes else in_range(index, next(iter(extents)))
    others = [c.expr for c in term.domain if c not in box]
    bare: dict[sp.Expr, sp.Expr] = {
        a: sp.Symbol(a.name) for a in term_accesses(term) if all(e == index or not e.has(index) for e in a.indices)
    }
    return not any(index_set(expr.xreplace(bare), (index,)) for expr in (term.body, *others))


class _Shorter:
    """Rewrites declarations, equations and labels; an axis of a joined place takes the next one in."""

    def __init__(self, declared: dict[str, Tensor], joined: frozenset[Place]) -> None:
        self.declared = declared
        self.joined = joined

    def kept(self, name: str, rank: int) -> list[int]:
        return [axis for axis in range(rank) if (name, axis - 1) not in self.joined]

    def tensor(self, tensor: Tensor) -> Tensor:
        ends = [*self.kept(tensor.name, tensor.rank), tensor.rank]
        return replace(tensor, shape=tuple(sp.Mul(*tensor.shape[start:end]) for start, end in pairwise(ends)))

    def labels(self, labels: Labels) -> Labels:
        """A run of axes is called as its first one was."""
        axes: dict[str, tuple[str, ...]] = dict(labels.axes)
        ranges: dict[tuple[sp.Expr, tuple[str, ...]], None] = {}
        for name, tensor in self.declared.items():
            given = labels.axis_names(name)
            if given is None or len(given) != tensor.rank:
                continue
            axes[name] = tuple(given[axis] for axis in self.kept(name, tensor.rank))
            ranges.update(dict.fromkeys((e, (a,)) for e, a in zip(self.tensor(tensor).shape, axes[name], strict=True)))
        known = {extent for extent, _ in labels.ranges}
        return replace(labels, axes=axes, ranges=(*labels.ranges, *(r for r in ranges if r[0] not in known)))

    def equation(self, equation: Equation) -> Equation:
        kept = [equation.axes[axis] for axis in self.kept(equation.target, len(equation.axes))]
        named: dict[sp.Expr, sp.Expr] = dict(zip(kept, AXES, strict=False))
        terms = tuple(self.term(term).over(named) for term in equation.terms)
        return replace(equation, axes=AXES[: len(kept)], terms=terms)

    def term(self, term: Term) -> Term:
        gone: set[sp.Basic] = set()
        implied: set[Constraint] = set()
        ranges: dict[Constraint, Constraint] = {}
        for access in term_accesses(term):
            old = self.declared[access.name]
            kept = self.kept(access.name, old.rank)
            for axis, index in enumerate(access.indices):
                if axis not in kept:
                    gone.add(index)
                    implied |= set(in_range(index, old.shape[axis]))
            for axis, extent in zip(kept, self.tensor(old).shape, strict=True):
                if (access.name, axis) in self.joined:
                    index = access.indices[axis]
                    boxes = in_range(index, old.shape[axis]), in_range(index, extent)
                    ranges.update(zip(*boxes, strict=True))
        domain = tuple(ranges.get(c, c) for c in term.domain if c not in implied)
        inside = tuple(replace(c, expr=self.inside(c.expr)) for c in domain)
        return Term(self.inside(term.body), tuple(b for b in term.bound if b not in gone), inside)

    def access(self, access: Access) -> Access:
        inside = [self.inside(access.indices[axis]) for axis in self.kept(access.name, len(access.indices))]
        return Access(access.base, *inside)

    def inside(self, expr: sp.Expr) -> sp.Expr:
        where: dict[sp.Expr, sp.Expr] = {a: self.access(a) for a in accesses(expr)}
        return expr.xreplace(where)

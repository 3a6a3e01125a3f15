"""An axis that is read digit by digit becomes two axes, one for each digit.

mean[n,a] = Σ_k x[n, a·K + k] / K             ->   mean[n,a] = Σ_k x[n,a,k] / K
y[n,c] = Σ_{a : a = ⌊c/K⌋} x[n,c] - mean[n,a]      y[n,a,k] = x[n,a,k] - mean[n,a]

An array is the same memory under either shape; what was a relation between indices is now a loop that both sides share.
Input: a program before its loops are solved for. Output: the same program over tensors of higher rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.lowering.affine import index_set, slope
from jaccomp.lowering.solve import rename_bounds
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
    equal,
    in_range,
    index_symbol,
    term_accesses,
    tidy,
)

Place = tuple[str, int]
"""A tensor and one of its axes."""


def unravel(program: Program) -> Program:
    """The program with every axis that is read by digits as two, as far as all that reads it allows."""
    refused: set[Place] = set()
    current = program
    while True:
        found = next((d for d in _read_by_digits(current) if d.place not in refused), None)
        if found is None:
            return current
        places = _Reach(current, found).places()
        if places is None:
            refused.add(found.place)
            continue
        current = rename_bounds(_Longer(current, found, places).program())
        refused = set()


@dataclass(frozen=True, slots=True)
class _Digits:
    """`place` has the extent `high * low` and is read at `low * a + k`, k < low."""

    place: Place
    high: sp.Expr
    low: sp.Expr

    @property
    def extent(self) -> sp.Expr:
        return self.high * self.low

    def of(self, expr: sp.Expr, boxes: Mapping[sp.Symbol, sp.Expr]) -> tuple[sp.Symbol, sp.Symbol] | None:
        """The indices (a, k) of `low * a + k` over the whole ranges of both digits."""
        inside = index_set(expr, tuple(boxes))
        for a, k in ((a, k) for a in inside for k in inside if a != k):
            if (boxes[a], boxes[k]) == (self.high, self.low) and sp.expand(expr - self.low * a - k) == 0:
                return a, k
        return None

    def pair(self, index: sp.Symbol, other: sp.Symbol) -> tuple[Constraint, Constraint]:
        """What says that the high digit of `index` is `other`."""
        lowest = sp.expand(self.low * other)
        return Constraint(index - lowest), Constraint(sp.expand(lowest + self.low - 1) - index)


def _boxes(declared: Mapping[str, Tensor], equation: Equation, term: Term) -> dict[sp.Symbol, sp.Expr]:
    """The extents of the indices that run from 0 to one."""
    boxes: dict[sp.Symbol, sp.Expr] = dict(zip(equation.axes, declared[equation.target].shape, strict=True))
    for index in term.bound:
        for stop in term.upper_bounds(index):
            if set(in_range(index, stop)) <= set(term.domain) and not index_set(stop, (*equation.axes, *term.bound)):
                boxes[index] = stop
    return boxes


def _scopes(program: Program) -> Iterator[tuple[Equation, Term]]:
    for equation in program.equations:
        for term in equation.terms or (Term(sp.S.Zero),):
            yield equation, term


def _touched(program: Program, equation: Equation, term: Term) -> tuple[Access, ...]:
    return tuple(dict.fromkeys((program.tensor(equation.target)[equation.axes], *term_accesses(term))))


def _read_by_digits(program: Program) -> Iterator[_Digits]:
    """Axes read at `K a + k`, or by an index that some `K a <= index < K a + K` confines."""
    declared = program.declarations()
    for equation, term in _scopes(program):
        order = (*equation.axes, *term.bound)
        for access in _touched(program, equation, term):
            for axis, (at, extent) in enumerate(zip(access.indices, declared[access.name].shape, strict=True)):
                if at in order:
                    relating = [c.expr for c in term.domain if not c.equality and slope(c.expr, at) in (1, -1)]
                else:
                    relating = [at]
                for low in dict.fromkeys(s for e in relating for s in _steps(e, order)):
                    high = extent / low
                    if low != extent and sp.fraction(high)[1] == 1:
                        yield _Digits((access.name, axis), high, low)


def _steps(expr: sp.Expr, order: tuple[sp.Symbol, ...]) -> Iterator[sp.Expr]:
    """The steps, if it is affine in two indices and one of them has step 1."""
    slopes = [slope(expr, i) for i in index_set(expr, order)]
    if len(slopes) == 2 and any(s in (1, -1) for s in slopes):
        for one in slopes:
            if one is not None and one not in (1, -1) and not index_set(one, order) and not one.has(Access):
                yield -one if one.could_extract_minus_sign() else one


class _Reach:
    """All places that indices carry the digits to."""

    def __init__(self, program: Program, digits: _Digits) -> None:
        self.program, self.digits = program, digits
        self.declared = program.declarations()

    def places(self) -> frozenset[Place] | None:
        """The places; None if something there is read in another way."""
        places, more = {self.digits.place}, True
        while more:
            more = False
            for equation, term in _scopes(self.program):
                touched = _touched(self.program, equation, term)
                split = {e for a in touched for k, e in enumerate(a.indices) if (a.name, k) in places}
                found = {(a.name, k) for a in touched for k, e in enumerate(a.indices) if e.is_Symbol and e in split}
                more = more or not found <= places
                places |= found
        fits = all(self._fits(equation, term, places) for equation, term in _scopes(self.program))
        return frozenset(places) if fits else None

    def _fits(self, equation: Equation, term: Term, places: set[Place]) -> bool:
        boxes = _boxes(self.declared, equation, term)
        order = (*equation.axes, *term.bound)
        touched = _touched(self.program, equation, term)
        split: set[sp.Symbol] = set()
        for access in touched:
            for axis, at in enumerate(access.indices):
                if (access.name, axis) not in places:
                    continue
                if at in order and self.declared[access.name].shape[axis] == self.digits.extent:
                    split.add(at)
                elif self.digits.of(at, boxes) is None:
                    return False
        return all(self._only_chooses(equation, term, index, touched) for index in split)

    def _only_chooses(self, equation: Equation, term: Term, index: sp.Symbol, touched: tuple[Access, ...]) -> bool:
        """Does it, or its low digit, stand only in accesses, over its range or where another is its high digit?"""
        if index in term.bound and equation.reducer in ("argmax", "argmin"):
            return False
        said = _said(equation, term, index, self.digits)
        rest = [c.expr for c in term.domain if c not in said]
        known = {index, *_low_digits(equation, term, index, self.digits)}
        bare: dict[sp.Expr, sp.Expr] = {
            a: sp.Symbol(a.name) for a in touched if all(e in known or not e.has(index) for e in a.indices)
        }
        return not any(index_set(expr.xreplace(bare), (index,)) for expr in (term.body, *rest))


def _said(equation: Equation, term: Term, index: sp.Symbol, digits: _Digits) -> set[Constraint]:
    """The constraints that say the range of the index, or its high digit."""
    said = set(in_range(index, digits.extent))
    for other in _high_digits(equation, term, index, digits):
        said |= set(digits.pair(index, other))
    return said


def _high_digits(equation: Equation, term: Term, index: sp.Symbol, digits: _Digits) -> tuple[sp.Symbol, ...]:
    """The indices that constraints equate with the high digit of `index`."""
    others = (i for i in (*equation.axes, *term.bound) if i != index)
    return tuple(i for i in others if set(digits.pair(index, i)) <= set(term.domain))


def _low_digits(equation: Equation, term: Term, index: sp.Symbol, digits: _Digits) -> tuple[sp.Expr, ...]:
    """How the low digit of `index` is written where another index is the high one."""
    return tuple(sp.expand(index - digits.low * high) for high in _high_digits(equation, term, index, digits))


class _Longer:
    """Rewrites declarations, equations and labels for two axes at each place."""

    def __init__(self, program: Program, digits: _Digits, places: frozenset[Place]) -> None:
        self.old, self.digits, self.places = program, digits, places
        self.declared = program.declarations()

    def program(self) -> Program:
        return replace(
            self.old,
            tensors=tuple(self._tensor(t) for t in self.old.tensors),
            equations=tuple(self._equation(e) for e in self.old.equations),
            labels=self._labels(self.old.labels),
        )

    def _tensor(self, tensor: Tensor) -> Tensor:
        shape: list[sp.Expr] = []
        for axis, extent in enumerate(tensor.shape):
            shape += (self.digits.high, self.digits.low) if (tensor.name, axis) in self.places else (extent,)
        return replace(tensor, shape=tuple(shape))

    def _labels(self, labels: Labels) -> Labels:
        """No name is known for the new axes together with the old: they go by the letters of their extents."""
        longer = {name for name, _ in self.places}
        axes = {name: labels.axis_names(name) for name in self.declared}
        return replace(labels, axes={name: given for name, given in axes.items() if given and name not in longer})

    def _equation(self, equation: Equation) -> Equation:
        axes: list[sp.Symbol] = []
        for axis, index in enumerate(equation.axes):
            axes += _both(index) if (equation.target, axis) in self.places else (index,)
        named: dict[sp.Expr, sp.Expr] = dict(zip(axes, AXES, strict=False))
        terms = tuple(tidy(self._term(equation, term).over(named)) for term in equation.terms)
        return replace(equation, axes=AXES[: len(axes)], terms=terms)

    def _term(self, equation: Equation, term: Term) -> Term:
        boxes = _boxes(self.declared, equation, term)
        order = (*equation.axes, *term.bound)
        touched = _touched(self.old, equation, term)
        split = [
            i
            for i in order
            if any((a.name, k) in self.places and e == i for a in touched for k, e in enumerate(a.indices))
        ]
        lows: dict[sp.Expr, sp.Expr] = {
            low: _both(index)[1] for index in split for low in _low_digits(equation, term, index, self.digits)
        }
        where: dict[sp.Expr, sp.Expr] = {}
        for access in touched:
            at: list[sp.Expr] = []
            for axis, index in enumerate(access.indices):
                if (access.name, axis) in self.places:
                    at += _both(index) if index in split else self.digits.of(index, boxes) or ()
                else:
                    at.append(lows.get(index, index))
            where[access] = Access(access.base, *at)
        bound: list[sp.Symbol] = []
        implied: set[Constraint] = set()
        domain: list[Constraint] = []
        for index in split:
            implied |= _said(equation, term, index, self.digits)
            high, low = _both(index)
            domain += [equal(high, other) for other in _high_digits(equation, term, index, self.digits)]
            if index in term.bound:
                domain += (*in_range(high, self.digits.high), *in_range(low, self.digits.low))
        domain = [*(c for c in term.domain if c not in implied), *domain]
        for index in term.bound:
            bound += _both(index) if index in split else (index,)
        return Term(
            _inside(term.body, where), tuple(bound), tuple(replace(c, expr=_inside(c.expr, where)) for c in domain)
        )


def _both(index: sp.Expr) -> tuple[sp.Symbol, sp.Symbol]:
    return index_symbol(f"{index}_high"), index_symbol(f"{index}_low")


def _inside(expr: sp.Expr, where: Mapping[sp.Expr, sp.Expr]) -> sp.Expr:
    """The expression with its accesses replaced, those inside the indices of others too."""
    whole: dict[sp.Expr, sp.Expr] = {}
    for access in accesses(expr):
        changed = where.get(access, access)
        whole[access] = changed.func(changed.args[0], *(_inside(e, where) for e in changed.args[1:]))
    return expr.xreplace(whole)

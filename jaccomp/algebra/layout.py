"""A Jacobian block read over labels: its axes as terms tie them to each other, each term as a product or a pattern.

    ∂y[n,i]/∂x[m,j] = δ(n,m) y[n,i] (δ(i,j) - y[n,j])

    labels   n, i of the rows; m, j of the columns
    parts    {n = m, i = j} y[n,i]        {n = m} -1 · y[n,i] · y[n,j]

An axis has one label, or two, quotient and remainder, where terms tie the quotient alone (the group that a channel lies
in). A term whose constraints are ties and plain ranges is a product of factors, contracted over labels like an einsum;
any other constraint (a shift, a window, a triangle, a data equality) makes it a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import sympy as sp

from jaccomp.algebra.blocks import Block
from jaccomp.domains import digits, expanded_reads, is_index, proves
from jaccomp.program import AXES, Constraint, Domain, Term, equal, expand, in_range, index_symbol

Label: TypeAlias = sp.Symbol
Tie: TypeAlias = tuple[sp.Symbol, sp.Symbol]
MOST_PRODUCTS = 16  # a sum of products multiplied out; beyond it a factor stays whole


@dataclass(frozen=True, slots=True)
class Layout:
    """The labels of each axis of rows and of columns, slowest first, and how far each label runs from 0."""

    rows: tuple[tuple[Label, ...], ...]
    columns: tuple[tuple[Label, ...], ...]
    extents: Mapping[Label, sp.Expr]

    @property
    def row_labels(self) -> tuple[Label, ...]:
        return tuple(label for axis in self.rows for label in axis)

    @property
    def column_labels(self) -> tuple[Label, ...]:
        return tuple(label for axis in self.columns for label in axis)

    def volume(self, labels: Iterable[Label]) -> sp.Expr:
        """The number of points over labels."""
        return sp.Mul(*(self.extents[label] for label in labels))

    @property
    def ranges(self) -> Domain:
        return tuple(c for label, extent in self.extents.items() for c in in_range(label, extent))


@dataclass(frozen=True, slots=True)
class Product:
    """`Σ_bound Π factors` where row label and column label of each tie are equal; factors read ties as row labels."""

    ties: tuple[Tie, ...]
    bound: tuple[Label, ...]
    factors: tuple[sp.Expr, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A term with constraints beside its ties and the ranges of labels; those are what its domain holds."""

    ties: tuple[Tie, ...]
    term: Term


Part = Product | Pattern


@dataclass(frozen=True, slots=True)
class Structure:
    """A block as the sum of `parts` over a layout."""

    layout: Layout
    parts: tuple[Part, ...]

    @property
    def ties(self) -> tuple[Tie, ...]:
        """What every part ties: the block is block diagonal over it."""
        if not self.parts:
            return ()
        first, *others = self.parts
        return tuple(tie for tie in first.ties if all(tie in part.ties for part in others))


def read(block: Block, rows: Sequence[sp.Expr], columns: Sequence[sp.Expr]) -> Structure:
    """The structure of a block whose axes have these extents."""
    extents = {**dict(zip(block.rows, rows, strict=True)), **dict(zip(block.columns, columns, strict=True))}
    radices = _radices(block, extents)
    terms = [_over_labels(term, k, radices) for k, term in enumerate(block.terms)]
    own = {label: extent for s, e in extents.items() for label, extent in _labels(s, e, radices).items()}
    ranges = tuple(c for label, extent in own.items() for c in in_range(label, extent))
    for term in terms:
        own.update(_plain_stops(term))
    layout = Layout(
        tuple(tuple(_labels(s, extents[s], radices)) for s in block.rows),
        tuple(tuple(_labels(s, extents[s], radices)) for s in block.columns),
        own,
    )
    return Structure(layout, tuple(part for term in terms for part in _parts(layout, ranges, term)))


# Axes as quotient and remainder


def _labels(axis: Label, extent: sp.Expr, radices: Mapping[Label, sp.Expr]) -> dict[Label, sp.Expr]:
    """The labels of an axis and their extents."""
    if axis not in radices:
        return {axis: extent}
    quotient, remainder = _digits_of(axis)
    return {quotient: expand(extent / radices[axis]), remainder: radices[axis]}


def _digits_of(axis: Label) -> tuple[Label, Label]:
    place = int(axis.name[1:]) + (500 if axis.name[0] == "i" else 0)
    return index_symbol(f"_{1000 + place}"), index_symbol(f"_{2000 + place}")


def _radices(block: Block, extents: Mapping[Label, sp.Expr]) -> dict[Label, sp.Expr]:
    """Axis -> radix where terms tie quotients, carried over ties; none at all where an axis does not divide so."""
    found: dict[Label, sp.Expr] = {}
    ties: list[Tie] = []
    for term in block.terms:
        for digit in digits(term, (*term.bound, *extents)):
            if digit.value in extents and found.setdefault(digit.value, digit.radix) != digit.radix:
                return {}
        ties += _ties(term.domain, block.rows, block.columns, extents)
    for _ in ties:
        for row, column in (*ties, *((c, r) for r, c in ties)):
            if row in found and found.setdefault(column, found[row]) != found[row]:
                return {}
    return found if all(_is_whole(expand(extents[axis] / radix)) for axis, radix in found.items()) else {}


def _is_whole(expr: sp.Expr) -> bool:
    """Is it a polynomial with whole coefficients?"""
    return sp.fraction(expr)[1] == 1 and all(c.is_Integer for c in expand(expr).as_coefficients_dict().values())


def _over_labels(term: Term, place: int, radices: Mapping[Label, sp.Expr]) -> Term:
    """The term in labels, its bound indices named apart from those of other terms, quotients solved."""
    term = term.over({b: index_symbol(f"_{4000 + 100 * place + k}") for k, b in enumerate(term.bound)})
    if not radices:
        return term
    where = {axis: _digits_of(axis)[0] * radix + _digits_of(axis)[1] for axis, radix in radices.items()}
    domain: list[Constraint] = []
    solved: dict[sp.Expr, sp.Expr] = {}
    pairs = {d.constraints: d for d in digits(term, (*term.bound, *radices)) if d.value in radices}
    dropped = {c for pair in pairs for c in pair}
    for digit in pairs.values():
        quotient = _digits_of(digit.value)[0]
        index = _digits_of(digit.index)[0] if digit.index in radices else digit.index
        if index in term.bound and index not in solved:
            solved[index] = quotient
        else:
            domain.append(equal(solved.get(index, index), quotient))
    for constraint in term.domain:
        if constraint in dropped:
            continue
        axes = [s for s in constraint.expr.free_symbols if s in radices]
        if constraint.equality and len(axes) == 2 and expand(constraint.expr.subs(axes[0], axes[1])) == 0:
            (q, r), (s, t) = (_digits_of(axis) for axis in axes)
            domain += [equal(q, s), equal(r, t)]
        else:
            domain.append(constraint.over(where))
    opened = Term(term.body.xreplace(where), tuple(b for b in term.bound if b not in solved), tuple(domain))
    moved = Term(opened.body, opened.bound, opened.domain).over(solved)
    return replace(
        moved,
        body=expanded_reads(moved.body),
        domain=tuple(Constraint(expand(c.expr), c.equality) for c in moved.domain),
    )


# Terms


def _ties(
    domain: Domain, rows: Sequence[Label], columns: Sequence[Label], extents: Mapping[Label, sp.Expr]
) -> list[Tie]:
    """`row = column` over axes of one extent; over others it is a selection."""
    found = []
    for constraint in domain:
        if not constraint.equality or constraint.is_data:
            continue
        symbols = [s for s in constraint.expr.free_symbols if is_index(s)]
        row, column = ([s for s in symbols if s in side] for side in (rows, columns))
        if len(symbols) == 2 and len(row) == len(column) == 1:
            is_tie = constraint.expr in (row[0] - column[0], column[0] - row[0])
            if is_tie and expand(extents[row[0]] - extents[column[0]]) == 0:
                found.append((row[0], column[0]))
    return found


def _plain_stops(term: Term) -> dict[Label, sp.Expr]:
    """The stops of bound indices that run from 0 to an end in sizes."""
    found = {}
    for bound in term.bound:
        about = [c for c in term.domain if bound in c.expr.free_symbols and not c.equality]
        stops = [expand(bound + c.expr + 1) for c in about if c.expr.coeff(bound) == -1]
        plain = [s for s in stops if not any(is_index(x) for x in s.free_symbols)]
        if plain and any(c.expr == bound for c in about):
            found[bound] = plain[0]
    return found


def _parts(layout: Layout, ranges: Domain, term: Term) -> list[Part]:
    ties = tuple(_ties(term.domain, layout.row_labels, layout.column_labels, layout.extents))
    where: dict[sp.Expr, sp.Expr] = {column: row for row, column in ties}
    domain = [c.over(where) for c in term.domain]
    domain = [Constraint(expand(c.expr), c.equality) for c in domain]
    plain = [c for b in term.bound if b in layout.extents for c in in_range(b, layout.extents[b])]
    rest = [c for c in domain if c not in plain and c.expr != 0 and (c.equality or not proves(ranges, c, depth=3))]
    body = term.body.xreplace(where)
    if rest or any(b not in layout.extents for b in term.bound):
        return [Pattern(ties, Term(body, term.bound, (*plain, *rest)))]
    return [Product(ties, term.bound, factors) for factors in _split(body, layout, ties)]


def _split(body: sp.Expr, layout: Layout, ties: Sequence[Tie]) -> list[tuple[sp.Expr, ...]]:
    """The products that a body is the sum of, each factor of rows or of columns alone where it can be."""
    tied = {row for row, _ in ties}
    rows, columns = set(layout.row_labels) - tied, set(layout.column_labels)
    products: list[list[sp.Expr]] = [[]]
    for factor in sp.Mul.make_args(body):
        seen = factor.free_symbols
        if isinstance(factor, sp.Add) and seen & rows and seen & columns:
            inner = [one for addend in factor.args for one in _split(addend, layout, ties)]
            apart = all(not (f.free_symbols & rows and f.free_symbols & columns) for one in inner for f in one)
            if apart and len(inner) * len(products) <= MOST_PRODUCTS:
                products = [[*known, *one] for known in products for one in inner]
                continue
        products = [[*known, factor] for known in products]
    return [tuple(sp.Mul.make_args(sp.Mul(*one))) for one in products]


def labels_of(expr: sp.Expr, layout: Layout) -> tuple[Label, ...]:
    """The labels that an expression sees, in the order of the layout."""
    seen = expr.free_symbols
    return tuple(label for label in layout.extents if label in seen)


def over_places(expr: sp.Expr, labels: Sequence[Label]) -> sp.Expr:
    """An array's element with its labels named by their places: what is the same array over other labels is equal."""
    return expr.xreplace(dict(zip(labels, AXES, strict=False)))

"""The entries of a part of a block, enumerated: what is visited, where each lies, what it is.

    ∂y[n,o,t]/∂x[m,c,i] = {n = m, i = S t + k - P} Σ_k W[o,c,k]

    box          n, o, t, c, k                    as many points as there are entries, or little more
    rows         n, o, t
    columns      n, c, S t + k - P
    conditions   0 <= S t + k - P < L
    value        W[o,c,k]

Equalities are solved for a label, a column's first; a window `low <= i <= low + width - 1` is visited as `i = low + r`;
a triangle is visited whole, under its condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.algebra.layout import Label, Layout, Part, Product
from jaccomp.domains import expanded_reads, hull, is_index, proves
from jaccomp.program import Constraint, Domain, Term, accesses, expand, in_range, index_symbol


@dataclass(frozen=True, slots=True)
class Entries:
    """`box` runs over `extents`; `rows`, `columns` are the indices of each axis, affine in the box or read from data.

    An entry is there where `conditions` hold, and where what data say lies inside its axis (`read` lists those indices
    with their extents). Several points may be the same entry: they are added.
    """

    box: tuple[Label, ...]
    extents: Mapping[Label, sp.Expr]
    rows: tuple[sp.Expr, ...]
    columns: tuple[sp.Expr, ...]
    conditions: Domain
    value: Term
    read: tuple[tuple[sp.Expr, sp.Expr], ...] = ()

    @property
    def count(self) -> sp.Expr:
        """The number of points that are visited."""
        return sp.Mul(*(self.extents[label] for label in self.box))

    @property
    def seen(self) -> tuple[Label, ...]:
        """The labels of the box that the value depends on."""
        inside = {s for c in self.value.domain for s in c.expr.free_symbols} | self.value.body.free_symbols
        return tuple(label for label in self.box if label in inside)

    @property
    def numbers(self) -> sp.Expr:
        """How many values there are to keep: none where they are a number."""
        return sp.S.Zero if self.value.body.is_number else sp.Mul(*(self.extents[label] for label in self.seen))

    @property
    def ranges(self) -> Domain:
        return tuple(c for label in self.box for c in in_range(label, self.extents[label]))


def entries(part: Part, layout: Layout) -> Entries:
    """The entries of one part of a structure."""
    solution = _Solution(part, layout)
    solution.solve()
    solution.narrow()
    solution.box_in()
    return solution.entries()


class _Solution:
    def __init__(self, part: Part, layout: Layout) -> None:
        self.layout = layout
        term = Term(sp.Mul(*part.factors), part.bound) if isinstance(part, Product) else part.term
        tied = {column for _, column in part.ties}
        self.tie = {column: row for row, column in part.ties}
        self.body = term.body
        self.extents = {**layout.extents}
        self.columns = [label for label in layout.column_labels if label not in tied]
        self.free: list[Label] = [*layout.row_labels, *self.columns, *term.bound]
        self.bound = list(term.bound)
        self.where: dict[sp.Expr, sp.Expr] = {}
        own = [c for b in term.bound if b in layout.extents for c in in_range(b, layout.extents[b])]
        self.equalities = [c for c in term.domain if c.equality]
        self.conditions = [c for c in term.domain if not c.equality and c not in own]
        self.read: list[tuple[sp.Expr, sp.Expr]] = []

    def solve(self) -> None:
        """Each equality for one label, or for the digits of a number; what has no such label stays a condition."""
        waiting, self.equalities = self.equalities, []
        for constraint in waiting:
            expr = expand(constraint.expr.xreplace(self.where))
            if self._as_digits(expr) or self._for_one(expr):
                continue
            self.equalities.append(Constraint(expr, equality=True))

    def _for_one(self, expr: sp.Expr) -> bool:
        """Solve for an index of a range of its own, or one whose value stays in its range; else for a column first."""
        choices: list[tuple[Label, sp.Expr]] = []
        for label in (*self.columns, *self.bound, *self.layout.row_labels):
            slope = expr.coeff(label)
            rest = expr - slope * label
            if label in self.free and slope in (1, -1) and label not in rest.free_symbols:
                choices.append((label, expand(-slope * rest)))
        if not choices:
            return False
        self._replace(*next((one for one in choices if self._stays(*one)), choices[0]))
        return True

    def _stays(self, label: Label, value: sp.Expr) -> bool:
        if label not in self.extents:
            return True  # its bounds are conditions already
        if accesses(value):
            return False
        ranges = [c for one in self.free if one in self.extents for c in in_range(one, self.extents[one])]
        return all(proves(ranges, c, depth=3) for c in in_range(value, self.extents[label]))

    def _as_digits(self, expr: sp.Expr) -> bool:
        """Columns that are the digits of a number: `h W + w = arg` gives `h = ⌊arg/W⌋ mod H, w = arg mod W`."""
        labels = [label for label in self.columns if label in self.free and expr.coeff(label) != 0]
        if len(labels) < 2:
            return False
        slopes = [expr.coeff(label) for label in labels]
        weights = [sp.Mul(*(self.extents[one] for one in labels[k + 1 :])) for k in range(len(labels))]
        for sign in (1, -1):
            if all(expand(sign * slope - weight) == 0 for slope, weight in zip(slopes, weights, strict=True)):
                number = -sign * (expr - sum(s * label for s, label in zip(slopes, labels, strict=True)))
                number = expand(number)
                if any(label in number.free_symbols for label in labels):
                    return False
                total = sp.Mul(*(self.extents[label] for label in labels))
                self._inside(number, total)
                for label, weight in zip(labels, weights, strict=True):
                    self._put(label, sp.Mod(sp.floor(number / weight), self.extents[label]))
                return True
        return False

    def _replace(self, label: Label, value: sp.Expr) -> None:
        self._put(label, value)
        if label in self.extents:
            self._inside(value, self.extents[label])

    def _inside(self, value: sp.Expr, extent: sp.Expr) -> None:
        """A value of an index must lie in its range: a condition, or of data a demand."""
        if accesses(value):
            self.read.append((value, extent))
        else:
            self.conditions += in_range(value, extent)

    def _put(self, label: Label, value: sp.Expr) -> None:
        one: dict[sp.Expr, sp.Expr] = {label: value}
        self.where = {**{k: v.xreplace(one) for k, v in self.where.items()}, label: value}
        self.free.remove(label)
        self.body = expanded_reads(self.body.xreplace(one)) if not value.has(sp.floor) else self.body.xreplace(one)
        self.conditions = [Constraint(expand(c.expr.xreplace(one)), c.equality) for c in self.conditions]

    def narrow(self) -> None:
        """Visit a window as an offset from its start."""
        for label in [s for s in self.free if s not in self.bound]:
            lows = [expand(label - c.expr) for c in self.conditions if c.expr.coeff(label) == 1]
            highs = [expand(label + c.expr) for c in self.conditions if c.expr.coeff(label) == -1]
            found = next(((lo, expand(hi - lo + 1)) for lo in lows for hi in highs if _in_sizes(hi - lo)), None)
            if found is None or _in_sizes(found[0]) or found[1] == expand(self.extents[label]):
                continue
            offset = index_symbol(f"_{8000 + len(self.where)}")
            self.extents[offset] = found[1]
            self._replace(label, found[0] + offset)
            self.free.append(offset)

    def box_in(self) -> None:
        """A bound index that is visited, over other indices, runs over the smallest box in sizes that holds it."""
        solved = {s for value in self.where.values() for s in value.free_symbols}
        for label in [b for b in self.bound if b in self.free and b not in self.extents and b in solved]:
            ranges = [c for one, extent in self.extents.items() for c in in_range(one, extent)]
            low, high = hull(Term(self.body, tuple(self.bound), tuple(self.conditions)), label, ranges)
            offset = index_symbol(f"_{8000 + len(self.where)}")
            self.extents[offset] = expand(high - low + 1)
            self._put(label, expand(low + offset))
            self.free.append(offset)

    def entries(self) -> Entries:
        solved = {s for value in self.where.values() for s in value.free_symbols if is_index(s)}
        inside = [b for b in self.bound if b in self.free and b not in solved and not self._placed(b)]
        box = tuple(label for label in self.free if label not in inside)
        ranges = [c for label in box for c in in_range(label, self.extents[label])]
        summed = [c for b in inside if b in self.layout.extents for c in in_range(b, self.layout.extents[b])]
        own = [c for c in self.conditions if c.expr.free_symbols & set(inside)]
        open_ = [c for c in self.conditions if c not in own and not proves(ranges, c, depth=3)]
        return Entries(
            box,
            {label: self.extents[label] for label in box},
            self._axes(self.layout.rows),
            self._axes(self.layout.columns),
            tuple(dict.fromkeys((*open_, *self.equalities))),
            Term(self.body, tuple(inside), (*summed, *own)),
            tuple(self.read),
        )

    def _placed(self, bound: Label) -> bool:
        return any(bound in c.expr.free_symbols for c in self.equalities)

    def _axes(self, axes: Sequence[tuple[Label, ...]]) -> tuple[sp.Expr, ...]:
        found = []
        for labels in axes:
            value: sp.Expr = sp.S.Zero
            for label in labels:
                one = self.tie.get(label, label)
                value = value * self.layout.extents[label] + self.where.get(one, one)
            found.append(expand(value) if not value.has(sp.floor, sp.Mod) else value)
        return tuple(found)


def _in_sizes(expr: sp.Expr) -> bool:
    return not any(is_index(s) for s in expr.free_symbols)

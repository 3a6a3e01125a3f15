"""A term as a product of matrices: each bound index summed away between the factors that it joins.

    Σ_k A[i,k] v[k] B[k,j]   ->   A diag(v) B          Σ_k x[k] x[k]   ->   xᵀ x

A factor that sees one axis is a column, one that sees two a matrix; a bound index that more than two others would share
has no such form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import sympy as sp

from jaccomp.domains import is_index
from jaccomp.matrix.addends import Addend, addend, inlined
from jaccomp.matrix.monomials import Monomial, pulled_out
from jaccomp.matrix.nodes import (
    Axis,
    Diag,
    Entries,
    Kron,
    Node,
    OneHot,
    Ones,
    Product,
    Triangle,
    extent,
    hadamard,
    product,
    scaled,
    total,
    transpose,
)  # fmt: skip
from jaccomp.notation import Access
from jaccomp.program import Program, Term, accesses, instantiate

Slot = tuple[Axis, Axis]


class NoForm(Exception):
    """The term has no matrix notation here; caught where forms are chosen, never seen by a user."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A factor over one axis (a column), or over two (a matrix of `rows` by `columns`)."""

    node: Node
    rows: Axis
    columns: Axis = ()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (self.rows, self.columns) if self.columns else (self.rows,)

    def from_(self, axis: Axis) -> Node:
        """The matrix with that axis as its rows."""
        return self.node if axis == self.rows else transpose(self.node)


@dataclass
class Network:
    """Contracts addends over given axes; `names` collects what stands for a node inside expressions.

    `fixed` are the symbols of the axes that the form is stated for each value of.
    """

    program: Program
    fixed: frozenset[sp.Symbol]
    names: dict[sp.Expr, Node] = field(default_factory=dict)
    first_bound: int = 700

    def monomials(self, one: Addend, slots: Sequence[Slot]) -> tuple[Monomial, ...]:
        """An addend as one monomial for each slot, the coefficient with the first. Raises `NoForm`."""
        _check_said(one, slots)
        tied = [_is_tied(one, slot) for slot in slots]
        axes = [axis for slot in slots for axis in slot if axis] + [(b,) for b in one.bound]
        coefficient, pieces = self._pieces(one, axes)
        scale, pieces = self._contracted(pieces, [(b,) for b in one.bound])
        result = []
        for slot, is_tied in zip(slots, tied, strict=True):
            own = [p for p in pieces if set(p.axes) <= set(slot)]
            pieces = [p for p in pieces if p not in own]
            result.append(_monomial(one, slot, own, is_tied))
        if pieces:
            raise NoForm
        first = replace(result[0], coefficient=self.named(coefficient) * scale)
        return (first, *result[1:])

    # ---------------------------------------------------------------------------------------------------- factors

    def _pieces(self, one: Addend, axes: Sequence[Axis]) -> tuple[sp.Expr, list[Piece]]:
        coefficient: sp.Expr = sp.S.One
        pieces: list[Piece] = []
        for factor in (part for whole in one.factors for part in _split_exponential(whole, axes)):
            seen = _seen(factor, axes)
            if not seen:
                coefficient *= factor
                continue
            scale, rest = pulled_out(factor, (s for axis in seen for s, _ in axis))
            coefficient *= scale
            pieces.append(self._array(rest, seen))
        for place in one.places:
            axis = next((a for a in axes if tuple(s for s, _ in a) == place.indices), None)
            seen = _seen(place.position, axes)
            if axis is None or len(seen) > 1 or axis in seen:
                raise NoForm
            row = seen[0] if seen else ()
            self._check_reads(place.position, row)
            pieces.append(Piece(OneHot(place.position, axis, row), *((row, axis) if row else (axis,))))
        return coefficient, pieces

    def _array(self, expr: sp.Expr, seen: Sequence[Axis]) -> Piece:
        if len(seen) > 2:
            raise NoForm
        if len(seen) == 1:
            return Piece(self._column(expr, seen[0]), seen[0])
        for axis in seen:
            self._check_reads(expr, axis)
        return Piece(Entries(self.named(expr), *seen), *seen)

    def _column(self, expr: sp.Expr, axis: Axis) -> Node:
        """A column; of a part of several indices that count as one, with ones along the others: `g ⊗ 1`."""
        held = [k for k, (s, _) in enumerate(axis) if s in expr.free_symbols]
        before, part, after = axis[: held[0]], axis[held[0] : held[-1] + 1], axis[held[-1] + 1 :]
        self._check_reads(expr, part)
        column = Entries(self.named(expr), part)
        ones: list[tuple[Node, ...]] = [(Ones(rest),) if rest else () for rest in (before, after)]
        return Kron((*ones[0], column, *ones[1])) if before or after else column

    def _check_reads(self, expr: sp.Expr, axis: Axis) -> None:
        """Every read sees an axis whole, in its order, each index by itself and shifted by a size at most."""
        symbols = [s for s, _ in axis]
        if any(s in expr.xreplace(dict.fromkeys(accesses(expr), sp.S.Zero)).free_symbols for s in symbols):
            raise NoForm
        for access in accesses(expr):
            positions = [k for k, i in enumerate(access.indices) if i.free_symbols & set(symbols)]
            if not positions:
                continue
            held = [[s for s in symbols if s in access.indices[k].free_symbols] for k in positions]
            shifts = [
                access.indices[k] - own[0] if len(own) == 1 else sp.nan for k, own in zip(positions, held, strict=True)
            ]
            plain = [one for own in held for one in own] == symbols
            if not plain or any(s is sp.nan or s.has(Access) or set(_indices(s)) - self.fixed for s in shifts):
                raise NoForm

    # ----------------------------------------------------------------------------------------------- contractions

    def _contracted(self, pieces: list[Piece], bound: Sequence[Axis]) -> tuple[sp.Expr, list[Piece]]:
        """The pieces with every bound axis summed away, and what came out as a scalar."""
        scale: sp.Expr = sp.S.One
        waiting = list(bound)
        while waiting:
            axis = min(waiting, key=lambda a: len(_neighbours(pieces, a)))
            waiting.remove(axis)
            own = [p for p in pieces if axis in p.axes]
            pieces = [p for p in pieces if p not in own]
            columns = [p.node for p in own if not p.columns]
            around = _neighbours(own, axis)
            matrices = [self._joined([p for p in own if other in p.axes], other, axis) for other in around]
            if not around:
                scale *= self._dot(columns, axis)
            elif len(around) == 1:
                vector = hadamard(columns) if columns else Ones(axis)
                pieces.append(Piece(product([matrices[0], vector]), around[0]))
            elif len(around) == 2:
                middle = [Diag(hadamard(columns))] if columns else []
                node = product([matrices[0], *middle, transpose(matrices[1])])
                pieces.append(Piece(node, *around))
            else:
                raise NoForm
        return scale, pieces

    def _joined(self, pieces: Sequence[Piece], rows: Axis, columns: Axis) -> Node:
        """Several arrays over the same two axes as one; any other product of matrices entry by entry has no name."""
        if len(pieces) == 1:
            return as_matrix(pieces[0].from_(rows))
        turned = [p.from_(rows) for p in pieces]
        if not all(isinstance(one, Entries) for one in turned):
            raise NoForm
        return as_matrix(Entries(sp.Mul(*(one.expr for one in turned if isinstance(one, Entries))), rows, columns))

    def _dot(self, columns: Sequence[Node], axis: Axis) -> sp.Expr:
        """Σ over an axis that nothing else sees: a symbol that stands for `uᵀ v`."""
        if not columns:
            return extent(axis)
        if len(columns) == 1 and isinstance(columns[0], Entries):
            expr = columns[0].expr
            if isinstance(expr, sp.Pow) and expr.exp == 2:
                root = Entries(expr.base, axis)
                return self._symbol(Product((transpose(root), root)))
        u, v = (Ones(axis), columns[0]) if len(columns) == 1 else (columns[0], hadamard(columns[1:]))
        return self._symbol(product([transpose(u), v]))

    def _symbol(self, node: Node) -> sp.Expr:
        """One symbol for one node."""
        for known, value in self.names.items():
            if value == node and isinstance(known, sp.Symbol):
                return known
        symbol = sp.Symbol(f"q{len(self.names)}", real=True)
        self.names[symbol] = node
        return symbol

    # ---------------------------------------------------------------------------------------------- nameless sums

    def named(self, expr: sp.Expr) -> sp.Expr:
        """The expression with each nameless sum that it reads known by what it is."""
        definitions = self.program.definitions()
        for access in accesses(expr):
            definition = definitions.get(access.name)
            is_nameless = definition is not None and access.name not in self.program.labels.names
            if definition is None or not is_nameless or definition.reducer != "sum" or access in self.names:
                continue
            self.first_bound += 20
            terms = instantiate(definition, access.indices, self.first_bound)
            self.names[access] = self._written_out(terms, access)
        return expr

    def _written_out(self, terms: Sequence[Term], access: Access) -> Node:
        """A nameless sum as a node over the one axis that its indices hold, or a scalar."""
        tensor = self.program.tensor(access.name)
        pairs = zip(access.indices, tensor.shape, strict=True)
        free = [(i, e) for i, e in pairs if set(_indices(i)) - self.fixed]
        if len(free) > 1 or not all(isinstance(i, sp.Symbol) for i, _ in free):
            raise NoForm
        axis: Axis = tuple(free)
        found = []
        for term in terms:
            ready = addend(self.program, replace(term, body=inlined(self.program, term.body)), dict(free), {})
            if ready is None or ready.ties or ready.lower:
                raise NoForm
            (one,) = self.monomials(ready, [(axis, ())])
            found.append((one.coefficient, hadamard(one.left) if one.left else Ones(axis)))
        if axis:
            return total(scaled(coefficient, column) for coefficient, column in found)
        value = sp.Add(*(coefficient for coefficient, _ in found))
        return self.names.get(value, Entries(value, ()))


def _split_exponential(factor: sp.Expr, axes: Sequence[Axis]) -> Sequence[sp.Expr]:
    """`exp(x_i + x_j - 2 m)` as `exp(x_i - m) exp(x_j - m)`: a column and a row, where no addend sees both axes."""
    seen = _seen(factor, axes)
    if not isinstance(factor, sp.exp) or len(seen) != 2:
        return (factor,)
    parts: dict[int, list[sp.Expr]] = {0: [], 1: [], 2: []}
    for one in sp.Add.make_args(factor.args[0]):
        own = _seen(one, seen)
        if len(own) == 2:
            return (factor,)
        parts[seen.index(own[0]) if own else 2].append(one)
    half = sp.Add(*parts[2]) / 2
    return tuple(sp.exp(sp.Add(*parts[k], half)) for k in range(2))


def _indices(expr: sp.Expr) -> list[sp.Symbol]:
    return [s for s in expr.free_symbols if is_index(s)]


def _seen(expr: sp.Expr, axes: Sequence[Axis]) -> list[Axis]:
    return [axis for axis in axes if any(s in expr.free_symbols for s, _ in axis)]


def _neighbours(pieces: Sequence[Piece], axis: Axis) -> list[Axis]:
    return list(dict.fromkeys(other for p in pieces if axis in p.axes for other in p.axes if other != axis))


def _check_said(one: Addend, slots: Sequence[Slot]) -> None:
    """Nothing that the domain says goes unsaid: each tie and each triangle lies in one slot."""
    sides = [{s for axis in slot for s, _ in axis} for slot in slots]
    pairs = [{t.row, t.column} for t in one.ties] + [set(pair) for pair in one.lower]
    if one.cells or any(t.shift != 0 for t in one.ties) or not all(any(p <= s for s in sides) for p in pairs):
        raise NoForm


def _is_tied(one: Addend, slot: Slot) -> bool:
    """Do the ties make the slot's rows and columns one? A part of them alone has no form."""
    rows, columns = ([s for s, _ in axis] for axis in slot)
    own = [t for t in one.ties if t.row in rows and t.column in columns]
    if not own:
        return False
    if len(own) != len(rows) or len(rows) != len(columns):
        raise NoForm
    pairs = {(t.row, t.column) for t in own}
    if any(pair not in pairs for pair in zip(rows, columns, strict=True)):
        raise NoForm
    return True


def _monomial(one: Addend, slot: Slot, pieces: Sequence[Piece], tied: bool) -> Monomial:
    rows, columns = slot
    left = tuple(p.node for p in pieces if p.axes == (rows,))
    right = tuple(p.node for p in pieces if p.axes == (columns,) and columns)
    cores = [p for p in pieces if p.columns]
    pairs = [pair for pair in one.lower if set(pair) & {s for axis in slot for s, _ in axis}]
    if tied and (right or cores or pairs):
        raise NoForm
    if len(cores) > 1 and not all(isinstance(p.node, Entries) for p in cores):
        raise NoForm
    core: Node | None = None
    if cores:
        turned = [p.from_(rows) for p in cores]
        if len(turned) > 1:
            turned = [Entries(sp.Mul(*(c.expr for c in turned if isinstance(c, Entries))), rows, columns)]
        core = as_matrix(turned[0])
    for greater, less in pairs:
        ends = [[s for s, _ in axis] for axis in slot]
        if len(rows) != 1 or len(columns) != 1 or {greater, less} != {ends[0][0], ends[1][0]}:
            raise NoForm
        core = Triangle(core or product([Ones(rows), transpose(Ones(columns))]), lower=greater == ends[0][0])
    return Monomial(sp.S.One, rows, columns, left, core, right, tied)


def as_matrix(node: Node) -> Node:
    """An array as a sum of products where its expression is one: `v[j,e] - o[e]` is `v - 1 oᵀ`."""
    if not isinstance(node, Entries) or not node.columns:
        return node
    rows, columns = node.rows, node.columns
    if isinstance(node.expr, sp.Add):
        return total(_part(one, rows, columns) for one in node.expr.args)
    return _part(node.expr, rows, columns) if isinstance(node.expr, sp.Mul) else node


def _part(expr: sp.Expr, rows: Axis, columns: Axis) -> Node:
    sides: dict[tuple[bool, bool], list[sp.Expr]] = {}
    for factor in sp.Mul.make_args(expr):
        seen = tuple(bool({s for s, _ in axis} & factor.free_symbols) for axis in (rows, columns))
        sides.setdefault((seen[0], seen[1]), []).append(factor)
    coefficient, left, right, both = (
        sp.Mul(*sides.get(k, ())) for k in ((False, False), (True, False), (False, True), (True, True))
    )
    if both == 1:
        u = Entries(left, rows) if left != 1 else Ones(rows)
        v = Entries(right, columns) if right != 1 else Ones(columns)
        return scaled(coefficient, product([u, transpose(v)]))
    core = Entries(both, rows, columns)
    inner = as_matrix(core) if isinstance(both, sp.Add) else core
    before = [Diag(Entries(left, rows))] if left != 1 else []
    after = [Diag(Entries(right, columns))] if right != 1 else []
    return scaled(coefficient, product([*before, inner, *after]))


def distributed(one: Addend, axes: Sequence[Axis], *, at_least: int) -> Iterator[Addend]:
    """The addend with sums among its factors that see that many axes multiplied out."""
    for k, factor in enumerate(one.factors):
        if isinstance(factor, sp.Add) and len(_seen(factor, axes)) >= at_least:
            for part in factor.args:
                rest = (*one.factors[:k], *sp.Mul.make_args(part), *one.factors[k + 1 :])
                yield from distributed(replace(one, factors=tuple(f for f in rest if f != 1)), axes, at_least=at_least)
            return
    yield one

"""How the axes of a block may be read as those of a matrix: some it is stated for each value of, the rest in slots.

    ∂y[n,i]/∂x[m,j], n = m          for each n: rows i, columns j
    ∂y[n,o]/∂W[p,k], o = p          for each n: (rows o, columns p) ⊗ (columns k)
    ∂y[n,c,h,w]/∂x[m,d,g,j], c = d  for each c: rows (n,h,w), columns (m,g,j)

A slot is a pair of axes, each of which may be of several indices that count as one, or of none. Slots in a row make a
Kronecker product. Frames are listed from what reads best to what still reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.matrix.nodes import Axis

Pair = tuple[sp.Symbol, sp.Symbol]
Indices = tuple[tuple[sp.Symbol, sp.Expr], ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """`over`: for each value of these, an index of rows, of columns or one of each that are equal; `slots`: the rest.

    `gradient`: the rows are those of a scalar, and the two axes of the columns are laid out as a matrix.
    """

    over: tuple[tuple[sp.Symbol | None, sp.Symbol | None], ...]
    slots: tuple[tuple[Axis, Axis], ...]
    gradient: bool = False
    allows_ones: bool = True
    """May a slot be nothing but ones? It says little that `for each` does not say better."""


def frames(rows: Indices, columns: Indices, ties: Sequence[Pair]) -> Iterator[Frame]:
    """All frames of a block whose every term has these ties, in the order of preference."""
    partners = dict(ties)
    leading = _leading(rows, columns, ties)
    loose = _loose(rows, leading, partners)
    every = _every(rows, columns, ties, leading)
    if not rows and len(columns) == 2:
        yield Frame((), (((columns[0],), (columns[1],)),), gradient=True)
    held = [leading + loose[:count] for count in range(len(loose) + 1)]
    for over in held:
        yield from _single(rows, columns, over)
        yield from _several(rows, columns, over, allows_ones=False)
    for over in dict.fromkeys((every, _in_order(every + loose, rows))):
        yield from _single(rows, columns, over)
        yield from _several(rows, columns, over, allows_ones=False)
    for over in held:
        yield from _several(rows, columns, over, allows_ones=True)


Over = tuple[tuple[sp.Symbol | None, sp.Symbol | None], ...]


def _leading(rows: Indices, columns: Indices, ties: Sequence[Pair]) -> Over:
    """The first axes of both sides as far as they are tied; one pair is left where nothing else would be."""
    found: list[tuple[sp.Symbol | None, sp.Symbol | None]] = []
    for (r, _), (c, _) in zip(rows, columns, strict=False):
        if (r, c) not in ties:
            break
        found.append((r, c))
    return tuple(found[:-1] if len(found) == len(rows) == len(columns) else found)


def _loose(rows: Indices, leading: Over, partners: dict[sp.Symbol, sp.Symbol]) -> Over:
    """The first rows beyond the leading ones, as far as no column is tied to them."""
    found: list[tuple[sp.Symbol | None, sp.Symbol | None]] = []
    for r, _ in rows[len(leading) :]:
        if r in partners:
            break
        found.append((r, None))
    return tuple(found)


def _in_order(over: Over, rows: Indices) -> Over:
    order = [r for r, _ in rows]
    return tuple(sorted(over, key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)))


def _every(rows: Indices, columns: Indices, ties: Sequence[Pair], leading: Over) -> Over:
    """All ties; but where they are all there is, the leading ones."""
    if len(ties) == len(rows) == len(columns):
        return leading
    return tuple((r, c) for r, _ in rows for row, c in ties if row == r)


def _rest(rows: Indices, columns: Indices, over: Over) -> tuple[Axis, Axis]:
    taken = {s for pair in over for s in pair if s is not None}
    return tuple(r for r in rows if r[0] not in taken), tuple(c for c in columns if c[0] not in taken)


def _single(rows: Indices, columns: Indices, over: Over) -> Iterator[Frame]:
    """One slot; a scalar's gradient by more than one index also row by row."""
    own_rows, own_columns = _rest(rows, columns, over)
    extents = [[e for _, e in axis] for axis in (own_rows, own_columns)]
    if not own_rows and len(own_columns) > 1 and not rows:
        more = tuple((None, c) for c, _ in own_columns[:-1])
        yield Frame((*over, *more), (((), own_columns[-1:]),))
    elif not own_rows and len(own_columns) == 2:
        yield Frame(over, (((own_columns[0],), (own_columns[1],)),), gradient=True)
    if min(len(own_rows), len(own_columns)) == 0 or extents[0] == extents[1] or max(map(len, extents)) == 1:
        yield Frame(over, ((own_rows, own_columns),))


def _several(rows: Indices, columns: Indices, over: Over, *, allows_ones: bool) -> Iterator[Frame]:
    """Kronecker products, those of fewer slots first."""
    found = [s for s in _aligned(*_rest(rows, columns, over)) if len(s) > 1]
    for slots in sorted(found, key=len):
        yield Frame(over, slots, allows_ones=allows_ones)


def _aligned(rows: Axis, columns: Axis) -> Iterator[tuple[tuple[Axis, Axis], ...]]:
    """The ways to pair rows with columns in their order, each with at most one of the other side."""
    if not rows and not columns:
        yield ()
    if rows and columns:
        for rest in _aligned(rows[1:], columns[1:]):
            yield ((rows[:1], columns[:1]), *rest)
    if rows:
        for rest in _aligned(rows[1:], columns):
            yield ((rows[:1], ()), *rest)
    if columns:
        for rest in _aligned(rows, columns[1:]):
            yield (((), columns[:1]), *rest)

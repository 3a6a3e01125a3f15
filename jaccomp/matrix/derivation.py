"""From a block to its matrix expression: the first frame in which every term has a form.

A frame of one slot sums monomials; one of several multiplies what each slot holds, where the terms differ in one slot
alone. Ties by a shift, as of the halves of a gated unit, make blocks side by side or one above the other; ties of the
digits of both axes by one radix, as of pairs that are turned, make a diagonal of small blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra.blocks import Block
from jaccomp.matrix.addends import Addend, Tie, addend
from jaccomp.matrix.frames import Frame, Indices, frames
from jaccomp.matrix.monomials import assembled
from jaccomp.matrix.network import Network, NoForm, Slot, distributed
from jaccomp.matrix.nodes import (
    Axis,
    BlockDiagonal,
    Entries,
    Kron,
    Literal,
    Node,
    Ones,
    Product,
    Scaled,
    Stack,
    Sum,
    Transpose,
    Zero,
    burden,
    extent,
    scaled,
)  # fmt: skip
from jaccomp.matrix.splitting import Axes, axes
from jaccomp.notation import Access
from jaccomp.program import Program, expand

LARGEST_LITERAL = 4  # rows or columns that are written cell by cell


@dataclass(frozen=True, slots=True)
class Derived:
    """A node over the slots of a frame, and what its symbols stand for.

    `rows` and `columns` are the indices of the block in the symbols of the frame, with their extents.
    """

    frame: Frame
    node: Node
    names: Mapping[sp.Expr, Node]
    rows: tuple[sp.Expr, ...]
    columns: tuple[sp.Expr, ...]
    row_extents: tuple[sp.Expr, ...]
    column_extents: tuple[sp.Expr, ...]
    over_extents: tuple[sp.Expr, ...]
    extents: Mapping[sp.Symbol, sp.Expr]


def derived(program: Program, block: Block) -> Derived | None:
    """The matrix expression of a block; None where it has none. A block without terms is 0."""
    sides = (
        tuple(zip(block.rows, program.tensor(block.seed).shape, strict=True)),
        tuple(zip(block.columns, program.tensor(block.output).shape, strict=True)),
    )
    own = axes(program, block, *sides)
    rows, columns = own.rows, own.columns
    if not block.terms:
        zero = Zero(extent(rows), extent(columns))
        return _whole(Frame((), ((rows, columns),)), zero, {}, own, sides)
    found = [addend(program, term, dict(rows), dict(columns)) for term in own.terms]
    addends = [one for one in found if one is not None]
    if not addends or len(addends) < len(found):
        return None
    plain = [{(t.row, t.column) for t in one.ties if t.shift == 0} for one in addends]
    shared = [(r, c) for r, _ in rows for c, _ in columns if all((r, c) in own for own in plain)]
    for frame in frames(rows, columns, shared):
        tried = _tried(program, addends, frame)
        if tried is not None:
            return _whole(frame, *tried, own, sides)
    return None


def _whole(
    frame: Frame, node: Node, names: Mapping[sp.Expr, Node], own: Axes, sides: tuple[Indices, Indices]
) -> Derived:
    extents = dict((*own.rows, *own.columns))
    held = [next(s for s in pair if s is not None) for pair in frame.over]
    rows, columns = sides
    return Derived(
        frame,
        node,
        names,
        tuple(own.places[s] for s, _ in rows),
        tuple(own.places[s] for s, _ in columns),
        tuple(e for _, e in rows),
        tuple(e for _, e in columns),
        tuple(extents[s] for s in held),
        extents,
    )


Formed = tuple[Node, Mapping[sp.Expr, Node]]


def _tried(program: Program, addends: Sequence[Addend], frame: Frame) -> Formed | None:
    """The form in this frame, if there is one: multiplied out or not, whichever is shorter."""
    forms: list[Formed] = []
    for is_open in (True, False):
        try:
            forms.append(_form(program, addends, frame, is_open=is_open))
        except NoForm:
            continue
    return min(forms, key=lambda one: burden(one[0])) if forms else None


def _form(program: Program, addends: Sequence[Addend], frame: Frame, *, is_open: bool) -> Formed:
    over = {s for pair in frame.over for s in pair if s is not None}
    network = Network(program, frozenset(over))
    seen = [axis for slot in frame.slots for axis in slot if axis]
    own: list[Addend] = []
    for one in addends:
        inside = replace(one, ties=tuple(t for t in one.ties if not {t.row, t.column} <= over))
        _check_inside(inside, over)
        every = [*seen, *((b,) for b in one.bound)]
        own += distributed(inside, seen, at_least=2) if is_open else distributed(inside, every, at_least=3)
    node = _single(network, own, frame.slots[0]) if len(frame.slots) == 1 else _several(network, own, frame)
    if frame.gradient and not _is_plain(node):
        raise NoForm
    return node, network.names


def _check_inside(one: Addend, over: set[sp.Symbol]) -> None:
    """No index that is held fixed is tied, placed or bounded by another."""
    touched = (
        [{c.index} for c in one.cells]
        + [{t.row, t.column} for t in one.ties]
        + [set(p.indices) for p in one.places]
        + [set(p) for p in one.lower]
    )
    if any(one_ & over for one_ in touched):
        raise NoForm


def _single(network: Network, addends: Sequence[Addend], slot: Slot) -> Node:
    if any(_is_shifted(t, slot) for one in addends for t in one.ties):
        return _stacked(network, addends, slot)
    if any(one.cells for one in addends):
        return _small_blocks(network, addends, slot)
    return assembled([network.monomials(one, [slot])[0] for one in addends])


def _several(network: Network, addends: Sequence[Addend], frame: Frame) -> Node:
    """A Kronecker product; terms that differ in one slot alone are summed there."""
    if any(one.cells for one in addends):
        raise NoForm
    slots = frame.slots
    places = [k for k, slot in enumerate(slots) if any(_is_shifted(t, slot) for one in addends for t in one.ties)]
    if len(places) > 1:
        raise NoForm
    if places:
        return _several_stacked(network, addends, frame, places[0])
    listed = [network.monomials(one, slots) for one in addends]
    coefficients = [many[0].coefficient for many in listed]
    bare = [(replace(many[0], coefficient=sp.S.One), *many[1:]) for many in listed]
    differing = [k for k in range(len(slots)) if any(many[k] != bare[0][k] for many in bare)]
    if len(differing) > 1:
        raise NoForm
    summed = differing[0] if differing else 0
    factors = []
    for k in range(len(slots)):
        scales = coefficients if k == summed else [sp.S.One]
        monomials = [replace(many[k], coefficient=s) for many, s in zip(bare, scales, strict=False)]
        factors.append(assembled(monomials))
    return _kron(factors, frame)


def _several_stacked(network: Network, addends: Sequence[Addend], frame: Frame, place: int) -> Node:
    """A Kronecker product of which one factor is of blocks: the others must be the same in every term."""
    slot = frame.slots[place]
    others = [s for k, s in enumerate(frame.slots) if k != place]
    symbols = {s for other in others for axis in other for s, _ in axis}
    inner: list[Addend] = []
    rest: list[tuple[Node, ...]] = []
    for one in addends:
        outside = tuple(f for f in one.factors if f.free_symbols & symbols)
        ties = tuple(t for t in one.ties if t.row in symbols or t.column in symbols)
        if one.bound or one.places or one.lower:
            raise NoForm
        inner.append(
            Addend(tuple(f for f in one.factors if f not in outside), (), tuple(t for t in one.ties if t not in ties))
        )
        many = network.monomials(Addend(outside, (), ties), others)
        rest.append(tuple(assembled([m]) for m in many))
    if any(one != rest[0] for one in rest):
        raise NoForm
    factors = list(rest[0])
    factors.insert(place, _stacked(network, inner, slot))
    return _kron(factors, frame)


def _kron(factors: Sequence[Node], frame: Frame) -> Node:
    """The product with its scalars in front."""
    scale: sp.Expr = sp.S.One
    bare: list[Node] = []
    for one in factors:
        if isinstance(one, Scaled):
            scale, one = scale * one.factor, one.node
        bare.append(one)
    if not frame.allows_ones and any(_is_ones(one) for one in bare):
        raise NoForm
    return scaled(scale, Kron(tuple(bare)))


def _is_ones(node: Node) -> bool:
    return isinstance(node, Ones) or (isinstance(node, Transpose) and isinstance(node.node, Ones))


def _is_plain(node: Node) -> bool:
    """Is it made of named arrays and outer products alone, as a gradient by a matrix is written?"""
    match node:
        case Entries(expr, columns=columns):
            return not columns or isinstance(expr, Access)
        case Ones() | Transpose():
            return True
        case Product(parts) | Sum(parts):
            return all(_is_plain(one) for one in parts)
        case Scaled(_, inner):
            return _is_plain(inner)
        case _:
            return False


# -------------------------------------------------------------------------------------------------------------- stacks


def _is_shifted(tie: Tie, slot: Slot) -> bool:
    """A tie by a shift, or of axes of which one is longer."""
    rows, columns = (dict(axis) for axis in slot)
    if tie.row not in rows or tie.column not in columns:
        return False
    return bool(tie.shift != 0 or expand(rows[tie.row] - columns[tie.column]) != 0)


def _stacked(network: Network, addends: Sequence[Addend], slot: Slot) -> Node:
    """Blocks side by side where columns are rows shifted by whole lengths, one above another where rows are more."""
    if any(len(axis) != 1 for axis in slot) or any(len(one.ties) != 1 for one in addends):
        raise NoForm
    ((row, height),), ((column, width),) = slot
    shifts = [one.ties[0].shift for one in addends]
    if all(s == 0 or s.could_extract_minus_sign() for s in shifts) and expand(height - width) != 0:
        try:
            return _above(network, addends, slot)
        except NoForm:
            pass
    blocks: dict[int, list[Addend]] = {}
    for one in addends:
        place = _multiple(one.ties[0].shift, height)
        blocks.setdefault(place, []).append(one)
    count = _multiple(width, height)
    if not all(0 <= k < count for k in blocks):
        raise NoForm
    own: Slot = (((row, height),), ((column, height),))
    made = [
        assembled([network.monomials(_unshifted(one), [own])[0] for one in blocks[k]]) if k in blocks
        else Zero(height, height)
        for k in range(count)
    ]  # fmt: skip
    return Stack(tuple(made), sideways=True)


def _above(network: Network, addends: Sequence[Addend], slot: Slot) -> Node:
    """`row = column + start`: a block of the width, between rows of zeros."""
    ((row, height),), ((column, width),) = slot
    starts = {-one.ties[0].shift for one in addends}
    if len(starts) != 1:
        raise NoForm
    start = starts.pop()
    where: dict[sp.Expr, sp.Expr] = {row: column + start}
    own: Slot = (((row, width),), ((column, width),))
    moved = []
    for one in addends:
        factors = tuple(f.xreplace(where).xreplace({column: row}) for f in one.factors)
        moved.append(replace(_unshifted(one), factors=factors))
    block = assembled([network.monomials(one, [own])[0] for one in moved])
    rest = expand(height - width - start)
    if rest.could_extract_minus_sign():
        raise NoForm
    zeros = [Zero(before, width) if before != 0 else None for before in (start, rest)]
    return Stack(tuple(one for one in (zeros[0], block, zeros[1]) if one is not None), sideways=False)


def _small_blocks(network: Network, addends: Sequence[Addend], slot: Slot) -> Node:
    """A matrix given cell by cell, or a diagonal of such for each value of one bound index: a rotation of each pair."""
    if any(len(axis) > 1 for axis in slot):
        raise NoForm
    sides = [s for axis in slot for s, _ in axis]
    lengths = [extent(axis) for axis in slot]
    cells: dict[tuple[int, int], sp.Expr] = {}
    blocks: list[Axis] = []
    radices: set[int] = set()
    for one in addends:
        own = {c.index: c for c in one.cells}
        ends = {c.bound for c in one.cells}
        if set(own) != set(sides) or len(ends) != 1 or len(one.bound) > 1 or one.ties or one.lower or one.places:
            raise NoForm
        first = blocks[0] if blocks else one.bound
        blocks.append(one.bound and first)
        radices |= {c.radix for c in one.cells}
        where: dict[sp.Expr, sp.Expr] = {b: f for (b, _), (f, _) in zip(one.bound, first, strict=True)}
        entry = network.named(sp.Mul(*one.factors)).xreplace(where)
        row, column = (own[axis[0][0]].place if axis else 0 for axis in slot)
        at = row, column
        cells[at] = cells.get(at, sp.S.Zero) + entry
    if len(radices) != 1 or any(bool(axis) == (radices == {0}) for axis in blocks):
        raise NoForm
    (size,) = radices
    sizes = (size, size) if size else tuple(int(e) if e.is_Integer else 0 for e in lengths)
    whole = [expand(e - size * extent(blocks[0])) == 0 for e in lengths] if size else [s > 0 for s in sizes]
    if not all(whole) or max(sizes) > LARGEST_LITERAL:
        raise NoForm
    literal = Literal(tuple(tuple(cells.get((r, c), sp.S.Zero) for c in range(sizes[1])) for r in range(sizes[0])))
    return BlockDiagonal(blocks[0], literal) if size else literal


def _unshifted(one: Addend) -> Addend:
    return replace(one, ties=tuple(replace(t, shift=sp.S.Zero) for t in one.ties))


def _multiple(value: sp.Expr, unit: sp.Expr) -> int:
    """How many times the unit goes into the value. Raises `NoForm` where it does not."""
    for k in range(17):
        if expand(value - k * unit) == 0:
            return k
    raise NoForm

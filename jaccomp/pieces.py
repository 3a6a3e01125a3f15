"""Do the written pieces of a target cover it exactly once? A proof, or a `SpecError`.

A piece is `y[t, c*i + d] = ...` with i over `0..L-1`: per axis an arithmetic progression (c, d, L), also where several
indices are its digits, `y[t, K*g + k]`. Pieces may differ on one axis; there, progressions of stride 1 must be
consecutive intervals, those of stride c the c remainders.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from jaccomp.domains import axis_ranges, hull, proves
from jaccomp.errors import SpecError
from jaccomp.program import AXES, Constraint, Domain, Tensor, Term, expand


@dataclass(frozen=True, slots=True)
class Progression:
    """`stride * q + offset` for q in `0..length-1`."""

    stride: sp.Expr
    offset: sp.Expr
    length: sp.Expr


def check_partition(what: str, target: Tensor, pieces: list[Term], name: str) -> None:
    """Raise `SpecError` unless the left sides provably partition the target, or one writes a triangle of it."""
    images = [_images(what, target, piece, name) for piece in pieces]
    varying = [
        axis
        for axis, extent in enumerate(target.shape)
        if any(image[axis] != Progression(sp.S.One, sp.S.Zero, extent) for image in images if image[axis] is not None)
    ]
    if len(pieces) == 1 and not varying:
        return
    if not varying:
        raise SpecError(
            what,
            f"{name!r} has {len(pieces)} equations that each write all of it.",
            "A tensor is defined once: add the right sides, or name one of the tensors differently.",
        )
    if len(varying) == 1 and _covers([image[varying[0]] for image in images], target.shape[varying[0]]):
        return
    raise SpecError(
        what,
        f"the {'pieces' if len(pieces) > 1 else 'left side'} of {name!r} cannot be proved to cover each element "
        "of it exactly once.",
        "Pieces differ on one axis: consecutive ranges (y[i], y[i + D1]) or all remainders (y[2*i], y[2*i + 1]).",
    )


def _images(what: str, target: Tensor, term: Term, name: str) -> list[Progression | None]:
    """Per axis the progression that a piece writes; None for an axis under a triangular guard."""
    images: list[Progression | None] = []
    plain = axis_ranges(target)
    seen: set[sp.Symbol] = set()
    for axis, extent in zip(AXES, target.shape, strict=False):
        link = next((c for c in term.domain if c.equality and axis in c.expr.free_symbols and not c.is_data), None)
        if link is None:
            images.append(_bare(what, term, axis, extent, name))
            continue
        slope = link.expr.coeff(axis)
        value = expand(-(link.expr - slope * axis) / slope)
        progression = _progression(term, value, plain)
        own = value.free_symbols & set(term.bound)
        if progression is None or own & seen:
            raise SpecError(
                what,
                f"an index of {name!r} on the left is {value}.",
                "Write c*i + d in one index i, or mixed radix, K*g + k with k over 0..K-1.",
            )
        seen |= own
        images.append(progression)
    return images


def _progression(term: Term, value: sp.Expr, given: Domain) -> Progression | None:
    """What an affine expression runs through, each value once: `c*i + d`, one d, or digits `K*g + k` that fill it.

    Each digit must have a range of its own; its stride must be the number of values below it times theirs.
    """
    digits = [b for b in term.bound if b in value.free_symbols]
    ends = {b: hull(term, b, given) for b in digits}
    if len(digits) > 1 and any(_digits_of(c, digits) > 1 for c in term.domain if not c.equality):
        return None
    offset = expand(value.xreplace({b: low for b, (low, _) in ends.items()}))
    lengths = {b: expand(high - low + 1) for b, (low, high) in ends.items()}
    if not digits:
        return Progression(sp.S.One, offset, sp.S.One)
    for lowest in digits:
        stride, length = value.coeff(lowest), lengths[lowest]
        rest = [b for b in digits if b != lowest]
        while following := next((b for b in rest if expand(value.coeff(b) - stride * length) == 0), None):
            length = expand(length * lengths[following])
            rest.remove(following)
        if not rest:
            return Progression(stride, offset, length)
    return None


def _digits_of(constraint: Constraint, digits: list[sp.Symbol]) -> int:
    return sum(b in constraint.expr.free_symbols for b in digits)


def _bare(what: str, term: Term, axis: sp.Symbol, extent: sp.Expr, name: str) -> Progression | None:
    """An axis written through a bare index: the whole axis, an interval of it, or part of a triangle."""
    mine = [c for c in term.domain if not c.equality and axis in c.expr.free_symbols and not _sees(c, term)]
    if any(len([a for a in AXES if a in c.expr.free_symbols]) > 1 for c in mine):
        return None
    lows = [axis - c.expr for c in mine if c.expr.coeff(axis) == 1]
    highs = [axis + c.expr + 1 for c in mine if c.expr.coeff(axis) == -1]
    low, high = (lows or [sp.S.Zero])[0], (highs or [extent])[0]
    if highs and not proves((), Constraint(expand(extent - high))):
        raise SpecError(what, f"an index on the left runs to {high - 1}, beyond {name!r}, of extent {extent}.",
                        "Let it run over the extent of the axis that it writes.")  # fmt: skip
    return Progression(sp.S.One, expand(low), expand(high - low))


def _sees(constraint: Constraint, term: Term) -> bool:
    return any(b in constraint.expr.free_symbols for b in term.bound)


def _covers(images: list[Progression | None], extent: sp.Expr) -> bool:
    pieces = [image for image in images if image is not None]
    if len(pieces) != len(images):
        return False
    strides = {piece.stride for piece in pieces}
    if strides == {sp.S.One}:
        position: sp.Expr = sp.S.Zero
        rest = list(pieces)
        while rest:
            following = next((p for p in rest if expand(p.offset - position) == 0), None)
            if following is None:
                return False
            rest.remove(following)
            position = expand(position + following.length)
        return bool(expand(position - extent) == 0)
    if len(strides) != 1:
        return False
    (stride,) = strides
    offsets = sorted((p.offset for p in pieces), key=sp.default_sort_key)
    if not stride.is_Integer or stride < 2 or offsets != [sp.Integer(k) for k in range(int(stride))]:
        return False
    return all(expand(stride * p.length - extent) == 0 for p in pieces)

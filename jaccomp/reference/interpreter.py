"""The brute-force meaning of a Program: every equation over its whole box of indices, the domain as a mask.

It knows no rule of the calculus, no simplification and no loop: an index is a dimension of an open grid (NumPy's
broadcasting), a bound index's range is the hull of its constraints, and a constraint is evaluated at every point. So it
serves as the reference for whatever transforms programs, and as the backend that needs no compiler. float32, float64,
complex128 (complex step) and object arrays of mpmath numbers are evaluated by the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import sympy as sp

from jaccomp.errors import StageError
from jaccomp.program import Equation, Program, Reducer, index_symbol
from jaccomp.reference import indices, scalars
from jaccomp.reference.box import Box
from jaccomp.reference.frame import IDENTITY, Frame, Range
from jaccomp.reference.scalars import Array

LARGEST_BOX = 1 << 22  # points evaluated at once; larger boxes are cut
SMALLEST_EINSUM = 1 << 12  # below this many points the plain path is faster than planning a contraction


def evaluate(
    program: Program,
    arrays: Mapping[str, Any],
    sizes: Mapping[str, int],
    scalar_values: Mapping[str, Any] | None = None,
    *,
    dtype: Any = np.float64,
    largest_box: int = LARGEST_BOX,
    smallest_einsum: int = SMALLEST_EINSUM,
) -> dict[str, Array]:
    """The value of every equation's target, by canonical name.

    `arrays` has one array for each input, `sizes` an int for each size, `scalar_values` what has no default. Real
    tensors are evaluated in `dtype` (float32, float64, complex128 or object, for mpmath), integer ones in int64.
    Raises `StageError` where a read falls outside its tensor at a point of the domain, or an index has no range.
    """
    kind = np.dtype(dtype)
    given = dict(scalar_values or {})
    constants: dict[str, Any] = {s.name: int(sizes[s.name]) for s in program.sizes}
    for one in program.scalars:
        value = given.get(one.name, one.default)
        if value is None:
            raise StageError(f"program {program.name!r}", f"scalar {one.name!r} has neither a value nor a default.")
        constants[one.name] = int(value) if one.dtype == "int64" else scalars.convert(value, kind)
    declared = program.declarations()
    values = {
        name: scalars.convert(arrays[name], np.dtype(np.int64) if declared[name].dtype == "int64" else kind)
        for name in program.inputs
    }
    computed: dict[str, Array] = {}
    with np.errstate(all="ignore"):
        for equation in program.equations:
            target = declared[equation.target]
            shape = tuple(_extent(e, constants) for e in target.shape)
            # float32 would round integers beyond 2²⁴; an extremum compares the values as they are.
            exact = target.dtype == "int64" and equation.reducer in ("sum", "prod", "max", "min")
            working = np.dtype(np.float64) if exact and kind == np.float32 else kind
            frame = Frame(program.name, equation, constants, values, working, target.shape, shape, smallest_einsum)
            out = _value(frame, largest_box)
            if target.dtype == "int64" and out.dtype != np.int64:
                out = np.asarray(scalars.real(out), dtype=np.float64).astype(np.int64)
            values[equation.target] = computed[equation.target] = out
    return computed


def _extent(expr: sp.Expr, constants: Mapping[str, Any]) -> int:
    return max(0, int(indices.integer(expr, lambda leaf: constants[leaf.name])))


def _value(frame: Frame, largest_box: int) -> Array:
    reducer = frame.equation.reducer
    if reducer in ("argmax", "argmin"):
        out: Array = np.zeros(frame.shape, dtype=np.int64)
    else:
        identity = scalars.number(IDENTITY[reducer], frame.dtype)
        out = np.full(frame.shape, identity[()], dtype=frame.dtype)
    if 0 in frame.shape:
        return out
    for term in frame.equation.terms:
        ranges = frame.hull(term)
        if any(high < low for low, high in ranges.values()):
            continue
        for b in frame.computed(term):
            ranges.pop(index_symbol(b), None)
        for box in _cut(frame.equation, ranges, largest_box):
            where = tuple(slice(box[axis][0], box[axis][1] + 1) for axis in frame.equation.axes)
            _combine(reducer, out, where, Box(frame, term, box).reduced())
    return out


def _combine(reducer: Reducer, out: Array, where: tuple[slice, ...], part: Array) -> None:
    if reducer == "sum":
        out[where] = out[where] + part
    elif reducer == "prod":
        out[where] = out[where] * part
    elif reducer in ("max", "min"):
        old = out[where]
        sign = 1 if reducer == "max" else -1
        a, b = scalars.real(np.asarray(old)), scalars.real(part)
        out[where] = np.where(np.asarray((sign * b > sign * a) | (b != b), dtype=bool), part, old)
    else:
        out[where] = part


def _cut(equation: Equation, ranges: Mapping[sp.Symbol, Range], limit: int) -> Iterator[dict[sp.Symbol, Range]]:
    """Boxes of at most `limit` points: cut along axes first, then along bound indices where a reducer can resume."""
    points = 1
    for low, high in ranges.values():
        points *= high - low + 1
    if points > limit:
        resumable = equation.reducer not in ("argmax", "argmin")
        for group in (equation.axes, tuple(b for b in ranges if b not in equation.axes) if resumable else ()):
            longest = max(group, key=lambda s: ranges[s][1] - ranges[s][0], default=None)
            if longest is not None and ranges[longest][1] > ranges[longest][0]:
                low, high = ranges[longest]
                middle = (low + high) // 2
                yield from _cut(equation, {**ranges, longest: (low, middle)}, limit)
                yield from _cut(equation, {**ranges, longest: (middle + 1, high)}, limit)
                return
    yield dict(ranges)

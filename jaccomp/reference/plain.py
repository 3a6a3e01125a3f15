"""Values of the written interpreter as plain arrays: float64, complex128 (complex step) or objects of mpmath.

A value is an array whose last dimension is the batch of seeds (1 where nothing is seeded) and whose dimensions before
it are the open grid of indices. `bounded.py` has the same operations over values that carry their own error bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp

from jaccomp.reference import scalars
from jaccomp.reference.scalars import Array


def spread(value: Array, lengths: Sequence[int], rank: int) -> Array:
    """`value` with its first `len(lengths)` dimensions of `rank` broadcast to `lengths`."""
    padded = value.reshape((1,) * (rank - value.ndim) + value.shape)
    return np.broadcast_to(padded, (*lengths, *padded.shape[len(lengths) :]))


def first_extremum(keys: Array, mask: Array, count: int, greatest: bool) -> tuple[Array, Array]:
    """(any, position): along the first `count` dimensions, flattened, of real keys; nan wins, then the first best."""
    shape = np.broadcast_shapes(keys.shape, mask.shape)
    keys = np.broadcast_to(keys if greatest else -keys, shape).reshape(math.prod(shape[:count]), *shape[count:])
    mask = np.broadcast_to(mask, shape).reshape(keys.shape)
    if keys.shape[0] == 0:
        return np.zeros(shape[count:], dtype=bool), np.zeros(shape[count:], dtype=np.int64)
    nan = mask & np.asarray(keys != keys, dtype=bool)
    keys = np.where(mask & ~nan, keys, scalars.number(-np.inf, keys.dtype))
    hit = np.where(nan.any(axis=0), nan, mask & np.asarray(keys == keys.max(axis=0), dtype=bool))
    return hit.any(axis=0), np.argmax(hit, axis=0)


def pick(value: Array, position: Array, found: Array, count: int, otherwise: Array) -> Array:
    """The entries of `value` at a flat position along its first `count` dimensions."""
    flat = value.reshape(math.prod(value.shape[:count]), *value.shape[count:])
    if flat.shape[0] == 0:
        return np.broadcast_to(otherwise, found.shape)
    shape = np.broadcast_shapes(flat.shape[1:], position.shape)
    flat = np.broadcast_to(flat, (flat.shape[0], *shape))
    taken = np.take_along_axis(flat, np.broadcast_to(position, shape)[None], axis=0)[0]
    return np.where(found, taken, otherwise)


class Plain:
    """Arithmetic of plain arrays in one dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    def constant(self, value: sp.Expr) -> Array:
        return scalars.constant(value, self.dtype)

    def number(self, value: Any) -> Array:
        return scalars.number(value, self.dtype)

    def integers(self, value: Array) -> Array:
        return scalars.convert(value, self.dtype)

    def real(self, value: Array) -> Array:
        return scalars.real(value)

    def settled(self, value: Array) -> Array:
        """Where the value is a zero that no seed moves: where a convention for `1/‖x‖` may apply."""
        least = scalars.complex_step(self.dtype) ** 1.5  # above the square of a seed's step, below any seed's own
        if scalars.is_object(value):
            return np.asarray(abs(value) < least, dtype=bool)
        return np.asarray((abs(value.real) < least) & (abs(value.imag) < least))

    def empty(self, shape: tuple[int, ...], batch: int) -> Array:
        return np.full((*shape, batch), scalars.number(0, self.dtype)[()], dtype=self.dtype)

    def gather(self, value: Array, where: tuple[Array, ...], shape: tuple[int, ...]) -> Array:
        """The entries at integer positions (without a batch dimension), zeros if there are none to read."""
        if value.size == 0:
            return self.empty(shape, 1)
        return np.asarray(value[where])

    def store(self, target: Array, where: tuple[Array, ...], mask: Array, value: Array) -> None:
        full = np.broadcast_to(value, (*mask.shape, target.shape[-1]))
        target[tuple(w[mask] for w in where)] = full[mask] if where else full

    def add(self, a: Array, b: Array) -> Array:
        return np.asarray(a + b)

    def multiply(self, a: Array, b: Array) -> Array:
        return np.asarray(a * b)

    def negate(self, a: Array) -> Array:
        return np.asarray(-a)

    def whole_power(self, a: Array, exponent: int) -> Array:
        return scalars.whole_power(a, exponent)

    def square_root(self, a: Array) -> Array:
        return scalars.square_root(a)

    def power(self, a: Array, b: Array) -> Array:
        return scalars.power(a, b)

    def arctan2(self, a: Array, b: Array) -> Array:
        return scalars.arctan2(a, b)

    def apply(self, function: type, a: Array) -> Array:
        return np.asarray(scalars.UNARY[function](a))

    def larger(self, a: Array, b: Array, constant_wins: bool) -> Array:
        return scalars.larger(a, b, constant_wins)

    def select(self, where: Array, yes: Array, no: Array) -> Array:
        return np.where(where, yes, no)

    def total(self, value: Array, mask: Array, lengths: Sequence[int], rank: int) -> Array:
        """The sum over the first `len(lengths)` dimensions, where the mask holds."""
        kept = np.where(mask, spread(value, lengths, rank), self.number(0))
        return np.asarray(kept.sum(axis=tuple(range(len(lengths)))))

    def product(self, value: Array, mask: Array, lengths: Sequence[int], rank: int) -> Array:
        kept = np.where(mask, spread(value, lengths, rank), self.number(1))
        return np.asarray(kept.prod(axis=tuple(range(len(lengths)))))

    def extremum(
        self, value: Array, mask: Array, lengths: Sequence[int], rank: int, greatest: bool
    ) -> tuple[Array, Array]:
        """Value and flat position of the first extremum over the first dimensions; of nothing, -oo or oo at 0."""
        full = spread(value, lengths, rank)
        found, position = first_extremum(self.real(full), mask, len(lengths), greatest)
        identity = self.number(-np.inf if greatest else np.inf)
        return pick(full, position, found, len(lengths), identity), position

"""Values that carry what rounding may do to them: first-order running error analysis, with one derivative.

A value is four arrays: `v`, its magnitude `m`, a derivative `d` along each seed of the batch, and its magnitude `dm`.
The magnitude is the Σ|terms| of the published tolerance `c · eps · Σ|terms|`: to first order, evaluating the equations
as they are written, in any order of summation, in arithmetic of unit roundoff eps moves `v` by a small multiple of
`eps · m`. An input has m = |x| (its own rounding) and dm = |d|, a constant m = |c|, and

    a + b    m = m_a + m_b                              dm = dm_a + dm_b
    a · b    m = |a| m_b + m_a |b|                      dm = |a| dm_b + m_a |d_b| + |b| dm_a + m_b |d_a|
    f(a)     m = |f| + |f'| m_a                         dm = |f'| dm_a + |f''| m_a |d_a|

A sum over an index has the sum of the magnitudes, whatever its terms cancel to; a product or a choice follows from
these lines. Where f' is customarily computed from the rounded value of f (tanh' = 1 - f², sigmoid' = f - f²,
exp' = f), its terms times |d_a| join dm, also where they cancel. Where inputs are subnormal, a product and a function
also underflow, which costs as much as an m of the smallest normal number, 2⁻¹⁰²² (Higham, "Accuracy and Stability of
Numerical Algorithms", equation 2.8).

f' is the complex step through `scalars.py`, f'' its central difference: no table of derivatives is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from jaccomp.calculus import functions as fn
from jaccomp.reference import scalars
from jaccomp.reference.plain import first_extremum, pick, spread
from jaccomp.reference.scalars import Array

PIECEWISE_LINEAR = (sp.Abs, sp.sign, sp.floor, sp.ceiling, fn.Step, fn.HalfStep, fn.Finite)
OF_ITS_VALUE: Mapping[type, Callable[[Array], Array]] = {  # the terms of f' as it is customarily computed from f
    sp.exp: abs,
    fn.Expm1: lambda f: 1 + abs(f),
    fn.Sigmoid: lambda f: abs(f) + f * f,
    sp.tanh: lambda f: 1 + f * f,
    sp.tan: lambda f: 1 + f * f,
}
NEAR = 2.0**-12
LEAST = 2.0**-1022


@dataclass(frozen=True, slots=True)
class Value:
    """A value, its magnitude, its derivatives and their magnitudes; all non-negative but `v` and `d`."""

    v: Array
    m: Array
    d: Array
    dm: Array

    def __post_init__(self) -> None:
        # NumPy unwraps objects of rank 0 after arithmetic.
        for name in ("v", "m", "d", "dm"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))

    def map(self, change: Callable[[Array], Array]) -> Value:
        return Value(change(self.v), change(self.m), change(self.d), change(self.dm))


def slope(function: Callable[[Array], Array], v: Array) -> Array:
    """f'(v) by complex step; 0 where it is no number."""
    v = np.asarray(v)
    moved = function(scalars.perturbed(v, np.ones(v.shape, dtype=np.int64)))
    return _clean(scalars.derivative(moved))


def curvature(function: Callable[[Array], Array], v: Array) -> Array:
    """|f''(v)| to a few digits: the difference of the slopes on both sides, near by and further off."""
    size = np.asarray(abs(v))
    near = [_bend(function, v, np.asarray(away)) for away in (size * NEAR, size * NEAR + NEAR * NEAR)]
    return np.where(np.asarray(near[0] > near[1], dtype=bool), *near)


def _bend(function: Callable[[Array], Array], v: Array, away: Array) -> Array:
    moved = np.where(np.asarray(away == 0, dtype=bool), scalars.number(1, away.dtype), away)
    rise = np.where(np.asarray(away == 0, dtype=bool), 0, slope(function, v + away) - slope(function, v - away))
    return _clean(np.asarray(abs(rise) / (2 * moved)))


def _clean(value: Array) -> Array:
    value = np.asarray(value)
    number = np.asarray(value == value, dtype=bool) & np.asarray(abs(value) != np.inf, dtype=bool)
    return np.where(number, value, scalars.number(0, value.dtype))


def _times(a: Array, b: Array) -> Array:
    """`a b` with 0 · inf = 0, for magnitudes."""
    a, b = np.asarray(a), np.asarray(b)
    zero = np.asarray(a == 0, dtype=bool) | np.asarray(b == 0, dtype=bool)
    return np.where(zero, scalars.number(0, np.result_type(a, b)), a * b)


class Bounded:
    """Arithmetic of `Value`s over float64 or objects of mpmath; `underflow` counts that of float64 too."""

    def __init__(self, dtype: Any, underflow: bool = False) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.zero = scalars.number(0, self.dtype)
        self.least = scalars.number(LEAST if underflow else 0.0, self.dtype)

    def lift(self, v: Array) -> Value:
        """A constant: one rounding, no derivative."""
        return Value(v, abs(v), self.zero, self.zero)

    def seeded(self, values: Array, seeds: Array) -> Value:
        """An input, without a batch dimension, and a direction for each seed along one."""
        v = scalars.convert(values, self.dtype)[..., None]
        d = scalars.convert(seeds, self.dtype)
        return Value(v, abs(v), d, abs(d))

    def constant(self, value: sp.Expr) -> Value:
        return self.lift(scalars.constant(value, self.dtype))

    def number(self, value: Any) -> Value:
        return self.lift(scalars.number(value, self.dtype))

    def integers(self, value: Array) -> Value:
        return self.lift(scalars.convert(value, self.dtype))

    def real(self, value: Value) -> Array:
        return value.v

    def settled(self, value: Value) -> Array:
        return np.asarray(value.v == 0, dtype=bool)

    def empty(self, shape: tuple[int, ...], batch: int) -> Value:
        def zeros(width: int) -> Array:
            return np.full((*shape, width), self.zero[()], dtype=self.dtype)

        return Value(zeros(1), zeros(1), zeros(batch), zeros(batch))

    def gather(self, value: Value, where: tuple[Array, ...], shape: tuple[int, ...]) -> Value:
        if value.v.size == 0:
            return self.empty(shape, 1)
        return value.map(lambda part: np.asarray(part[where]))

    def store(self, target: Value, where: tuple[Array, ...], mask: Array, value: Value) -> None:
        at = tuple(w[mask] for w in where)
        for into, part in ((target.v, value.v), (target.m, value.m), (target.d, value.d), (target.dm, value.dm)):
            full = np.broadcast_to(part, (*mask.shape, into.shape[-1]))
            into[at] = full[mask] if where else full

    def add(self, a: Value, b: Value) -> Value:
        return Value(a.v + b.v, a.m + b.m, a.d + b.d, a.dm + b.dm)

    def multiply(self, a: Value, b: Value) -> Value:
        x, y = abs(a.v), abs(b.v)
        dm = _times(x, b.dm) + _times(a.m, abs(b.d)) + _times(y, a.dm) + _times(b.m, abs(a.d))
        return Value(a.v * b.v, _times(x, b.m) + _times(a.m, y) + self.least, a.v * b.d + a.d * b.v, dm)

    def negate(self, a: Value) -> Value:
        return Value(-a.v, a.m, -a.d, a.dm)

    def unary(
        self,
        function: Callable[[Array], Array],
        a: Value,
        linear: bool = False,
        customary: Callable[[Array], Array] | None = None,
    ) -> Value:
        v = np.asarray(function(a.v))
        f1 = slope(function, a.v)
        f2 = self.zero if linear else curvature(function, a.v)
        size = abs(f1)
        dm = _times(size, a.dm) + _times(_times(f2, a.m), abs(a.d))
        if customary is not None:
            dm = dm + _times(np.asarray(customary(v)), abs(a.d))
        return Value(v, abs(v) + _times(size, a.m) + self.least, f1 * a.d, dm)

    def whole_power(self, a: Value, exponent: int) -> Value:
        return self.unary(lambda z: scalars.whole_power(z, exponent), a, exponent in (0, 1))

    def square_root(self, a: Value) -> Value:
        return self.unary(scalars.square_root, a)

    def power(self, a: Value, b: Value) -> Value:
        """a^b: as a function of a where b is a constant, else e^(b log a), which no negative base can be."""
        if np.all(np.asarray(b.d == 0, dtype=bool)):
            return self.unary(lambda z: scalars.power(z, np.asarray(b.v)), a)
        return self.apply(sp.exp, self.multiply(b, self.apply(sp.log, a)))

    def arctan2(self, a: Value, b: Value) -> Value:
        v = scalars.arctan2(a.v, b.v)
        square = a.v * a.v + b.v * b.v
        by_a, by_b = b.v / square, -a.v / square
        d = by_a * a.d + by_b * b.d
        m = abs(v) + abs(by_a) * a.m + abs(by_b) * b.m
        dm = abs(by_a) * a.dm + abs(by_b) * b.dm
        return Value(v, m, d, dm + 2 * (a.m + b.m) / square * (abs(a.d) + abs(b.d)))

    def apply(self, function: type, a: Value) -> Value:
        return self.unary(scalars.UNARY[function], a, function in PIECEWISE_LINEAR, OF_ITS_VALUE.get(function))

    def larger(self, a: Value, b: Value, constant_wins: bool) -> Value:
        """The chosen one; at a tie the mean of the derivatives, unless `b` is a constant and wins."""
        tie = b if constant_wins else Value(b.v, a.m + b.m, (a.d + b.d) / 2, a.dm + b.dm)
        return self.select(a.v > b.v, a, self.select((b.v > a.v) | (b.v != b.v), b, self.select(a.v == b.v, tie, a)))

    def select(self, where: Array, yes: Value, no: Value) -> Value:
        where = np.asarray(where, dtype=bool)
        return Value(*(np.where(where, getattr(yes, p), getattr(no, p)) for p in ("v", "m", "d", "dm")))

    def total(self, value: Value, mask: Array, lengths: Sequence[int], rank: int) -> Value:
        axes = tuple(range(len(lengths)))

        def one(part: Array) -> Array:
            return np.asarray(np.where(mask, spread(part, lengths, rank), self.zero).sum(axis=axes))

        return value.map(one)

    def product(self, value: Value, mask: Array, lengths: Sequence[int], rank: int) -> Value:
        """Factor by factor, in order."""
        full = value.map(lambda part: spread(part, lengths, rank))
        factors = self.select(
            np.broadcast_to(mask, np.broadcast_shapes(mask.shape, full.v.shape)), full, self.number(1)
        )
        points = int(np.prod(lengths, dtype=np.int64))
        flat = factors.map(lambda part: part.reshape(points, *part.shape[len(lengths) :]))
        result = self.number(1)
        for k in range(points):
            result = self.multiply(result, Value(flat.v[k], flat.m[k], flat.d[k], flat.dm[k]))
        return result

    def extremum(
        self, value: Value, mask: Array, lengths: Sequence[int], rank: int, greatest: bool
    ) -> tuple[Value, Array]:
        full = value.map(lambda part: spread(part, lengths, rank))
        found, position = first_extremum(full.v, mask, len(lengths), greatest)
        identity = scalars.number(-np.inf if greatest else np.inf, self.dtype)
        count = len(lengths)
        return Value(
            pick(full.v, position, found, count, identity),
            pick(full.m, position, found, count, self.zero),
            pick(full.d, position, found, count, self.zero),
            pick(full.dm, position, found, count, self.zero),
        ), position

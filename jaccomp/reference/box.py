"""A term over a box of indices: constraints, reads, bodies and reductions by NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp

from jaccomp.domains import axis_ranges, position
from jaccomp.errors import StageError
from jaccomp.notation import Access
from jaccomp.program import Tensor, Term
from jaccomp.reference import indices, scalars
from jaccomp.reference.frame import IDENTITY, Frame, Range
from jaccomp.reference.scalars import Array


class Box:
    """A term over one box: its indices are the dimensions of an open grid, axes first."""

    def __init__(self, frame: Frame, term: Term, ranges: Mapping[sp.Symbol, Range]) -> None:
        self.frame, self.term, self.ranges = frame, term, ranges
        self.computed = frame.computed(term)
        self.order = (*frame.equation.axes, *(b for b in term.bound if b.name not in self.computed))
        self.position = {s.name: k for k, s in enumerate(self.order)}
        self.lengths = tuple(ranges[s][1] - ranges[s][0] + 1 for s in self.order)
        masks = [self.constraint_mask(c.expr, c.equality) for c in term.domain]
        self.constraints = [one for one in masks if not one.all()]
        self.mask: Array = np.ones((1,) * len(self.lengths), dtype=bool)
        for one in self.constraints:
            self.mask = self.mask & one
        self.memo: dict[sp.Expr, Array] = {}

    @property
    def rank(self) -> int:
        return len(self.frame.equation.axes)

    def reduced(self) -> Array:
        """The term's contribution to its target over the box."""
        reducer = self.frame.equation.reducer
        points = int(np.prod(self.lengths, dtype=np.int64))
        if reducer == "sum" and points >= self.frame.smallest_einsum and self.frame.dtype != np.dtype(object):
            contracted = self.contracted()
            if contracted is not None:
                return contracted
        mask = self.mask
        body = np.broadcast_to(self.real(self.term.body, mask), self.lengths)
        over = tuple(range(self.rank, len(self.lengths)))
        if reducer in ("argmax", "argmin"):
            return self.extremum(body, mask, reducer == "argmax")[1]
        if reducer in ("max", "min"):
            return self.extremum(body, mask, reducer == "max")[0]
        filled = np.where(mask, body, scalars.number(IDENTITY[reducer], body.dtype))
        if not over:
            return np.asarray(filled)
        return np.asarray(np.sum(filled, axis=over) if reducer == "sum" else np.prod(filled, axis=over))

    def extremum(self, body: Array, mask: Array, greatest: bool) -> tuple[Array, Array]:
        """Value and position of the first extremum in the lexicographic order of the bound indices; nan wins."""
        flat = (*self.lengths[: self.rank], -1)
        body = body.reshape(flat)
        mask = np.broadcast_to(mask, self.lengths).reshape(flat)
        keys = scalars.real(body) if greatest else -scalars.real(body)
        worst = scalars.number(-np.inf, keys.dtype)
        nan = mask & np.asarray(keys != keys, dtype=bool)
        keys = np.where(mask & ~nan, keys, worst)
        best = np.max(keys, axis=-1, keepdims=True)
        hit = np.where(nan.any(axis=-1, keepdims=True), nan, mask & np.asarray(keys == best, dtype=bool))
        first = np.argmax(hit, axis=-1)
        value = np.take_along_axis(body, first[..., None], axis=-1)[..., 0]
        identity = scalars.number(-np.inf if greatest else np.inf, body.dtype)
        return np.where(hit.any(axis=-1), value, identity), self.linear(first)

    def linear(self, first: Array) -> Array:
        """The published position (`domains.position`) of the extremum at a flat place of the box."""
        equation, bound = self.frame.equation, self.term.bound
        where = np.unravel_index(first, self.lengths[self.rank :]) if bound else ()
        at: dict[str, Any] = {b.name: k + self.ranges[b][0] for k, b in zip(where, bound, strict=True)}
        meaning = position(self.term, axis_ranges(Tensor(equation.target, self.frame.extents)))
        value = indices.integer(meaning, lambda one: at.get(one.name, self.frame.constants.get(one.name)))
        return np.broadcast_to(np.asarray(value, dtype=np.int64), first.shape)

    # Integers

    def grid(self, name: str) -> Array:
        """The values of an index along its own dimension."""
        k = self.position[name]
        low, high = self.ranges[self.order[k]]
        shape = [1] * len(self.order)
        shape[k] = -1
        return np.arange(low, high + 1, dtype=np.int64).reshape(shape)

    def leaf(self, one: sp.Expr, mask: Any) -> Any:
        if isinstance(one, Access):
            return self.read(one, mask)
        if one.name in self.computed:
            return self.integer(self.computed[one.name], mask)
        return self.grid(one.name) if one.name in self.position else self.frame.constants[one.name]

    def integer(self, expr: sp.Expr, mask: Any) -> Any:
        return indices.integer(expr, lambda one: self.leaf(one, mask))

    def constraint_mask(self, expr: sp.Expr, equality: bool) -> Array:
        # A data equality may be read where another constraint does not hold: clipped, and masked by that one.
        value = self.integer(expr, False)
        return np.asarray(value == 0 if equality else value >= 0)

    # Values

    def read(self, access: Access, mask: Any) -> Array:
        """The tensor at the access's indices, over the grid. Outside the mask an index may lie anywhere."""
        array = self.frame.values[access.name]
        plain = self.sliced(access, array)
        if plain is not None:
            return plain
        where = [np.asarray(self.integer(i, mask)) for i in access.indices]
        inside: Any = np.True_
        for one, length in zip(where, array.shape, strict=True):
            inside = inside & (one >= 0) & (one < length)
        if np.any(mask & ~inside):
            raise StageError(
                self.frame.what, f"{access} is read outside its tensor of shape {array.shape} at a point of the domain."
            )
        if array.size == 0:
            return np.zeros(np.broadcast_shapes(*(one.shape for one in where)), dtype=array.dtype)
        return np.asarray(array[tuple(np.clip(o, 0, e - 1) for o, e in zip(where, array.shape, strict=True))])

    def sliced(self, access: Access, array: Array) -> Array | None:
        """A view, where every index is a bare one of its own."""
        names = [i.name if isinstance(i, sp.Symbol) else None for i in access.indices]
        if len(set(names)) < len(names) or any(name not in self.position for name in names):
            return None
        positions = [self.position[str(name)] for name in names]
        cut = []
        for k, length in zip(positions, array.shape, strict=True):
            low, high = self.ranges[self.order[k]]
            if low < 0 or high >= length:
                return None
            cut.append(slice(low, high + 1))
        shape = [1] * len(self.order)
        for k in positions:
            shape[k] = self.lengths[k]
        view = array[tuple(cut)].transpose(np.argsort(positions)) if positions else array
        return view.reshape(shape)

    def real(self, expr: sp.Expr, mask: Any) -> Array:
        """A body's value over the grid, in the dtype of the evaluation. The mask is where the value matters."""
        if mask is not self.mask:
            return np.asarray(self._real(expr, mask))
        if expr not in self.memo:
            self.memo[expr] = np.asarray(self._real(expr, mask))
        return self.memo[expr]

    def _real(self, expr: sp.Expr, mask: Any) -> Array:
        dtype = self.frame.dtype
        if isinstance(expr, Access) and not expr.is_integer:
            return self.read(expr, mask)
        if isinstance(expr, sp.Symbol) and not expr.is_integer:
            return np.asarray(self.frame.constants[expr.name])
        if not expr.args:
            return self.cast(expr, mask) if isinstance(expr, sp.Symbol) else scalars.constant(expr, dtype)
        if expr.is_integer and indices.is_exact(expr):
            return self.cast(expr, mask)
        if not expr.free_symbols:
            return scalars.constant(expr, dtype)
        if isinstance(expr, sp.Piecewise):
            return self.piecewise(expr, mask)
        if isinstance(expr, sp.Pow):
            return self.power(expr, mask)
        if isinstance(expr, sp.Max | sp.Min):
            return self.pairwise(expr, mask)
        parts = [self.real(one, mask) for one in expr.args]
        if isinstance(expr, sp.Add | sp.Mul):
            total = parts[0]
            for one in parts[1:]:
                total = total + one if isinstance(expr, sp.Add) else total * one
            return total
        if isinstance(expr, sp.atan2):
            return scalars.arctan2(*parts)
        function = scalars.UNARY.get(type(expr))
        if function is None:
            raise StageError(self.frame.what, f"the interpreter knows no function {type(expr).__name__}, in {expr}.")
        return np.asarray(function(parts[0]))

    def cast(self, expr: sp.Expr, mask: Any) -> Array:
        return scalars.convert(self.integer(expr, mask), self.frame.dtype)

    def power(self, expr: sp.Pow, mask: Any) -> Array:
        base, exponent = self.real(expr.base, mask), expr.exp
        if isinstance(exponent, sp.Integer):
            return scalars.whole_power(base, int(exponent))
        if exponent.is_Rational and exponent.q == 2:
            return scalars.whole_power(np.asarray(scalars.square_root(base)), int(exponent.p))
        if expr.base is sp.S.Exp1:
            return scalars.APPLY_EXP(self.real(exponent, mask))
        return scalars.power(base, self.real(exponent, mask))

    def pairwise(self, expr: sp.Expr, mask: Any) -> Array:
        """Max and Min two by two: constants first, then the others; what reads no tensor wins a tie."""
        choose = scalars.larger if isinstance(expr, sp.Max) else scalars.smaller
        arguments = sorted(expr.args, key=lambda one: bool(one.has(Access)))
        value = self.real(arguments[0], mask)
        fixed = not arguments[0].has(Access)
        for one in arguments[1:]:
            value = choose(self.real(one, mask), value, constant_wins=fixed)
            fixed = fixed and not one.has(Access)
        return value

    def piecewise(self, expr: sp.Piecewise, mask: Any) -> Array:
        """The first branch whose condition holds; each branch may read only where it is taken. None: nan."""
        value = scalars.number(np.nan, self.frame.dtype)
        open_ = np.asarray(mask)
        chosen: list[tuple[Array, Array]] = []
        for branch, condition in expr.args:
            where = self.condition(condition, open_)
            chosen.append((where, self.real(branch, open_ & where)))
            open_ = open_ & ~where
        for where, one in reversed(chosen):
            value = np.where(where, one, value)
        return np.asarray(value)

    def condition(self, condition: sp.Basic, mask: Any) -> Array:
        if indices.is_exact_condition(condition):
            return np.asarray(indices.holds(condition, lambda one: self.leaf(one, mask)))
        if isinstance(condition, sp.Not):
            return ~self.condition(condition.args[0], mask)
        if isinstance(condition, sp.And | sp.Or):
            join = np.logical_and if isinstance(condition, sp.And) else np.logical_or
            value = self.condition(condition.args[0], mask)
            for one in condition.args[1:]:
                value = join(value, self.condition(one, mask))
            return value
        left, right = (scalars.real(self.real(one, mask)) for one in condition.args)
        return np.asarray(indices.compare(condition, left, right))

    # Contractions

    def contracted(self) -> Array | None:
        """A sum of a product as one einsum over the factors and the constraints' indicators, or None.

        Not where a factor is infinite or nan: its product with an indicator of 0 would be nan.
        """
        factors = [np.asarray(self.real(one, self.mask)) for one in sp.Mul.make_args(self.term.body)]
        if len(factors) == 1 and self.rank == len(self.lengths):
            return None
        if not all(np.isfinite(one).all() for one in factors):
            return None
        factors += [one.astype(self.frame.dtype) for one in self.constraints]
        operands: list[Any] = []
        covered: set[int] = set()
        for one in factors:
            dims = [k for k, length in enumerate(one.shape) if length > 1]
            covered.update(dims)
            operands += [one.reshape([one.shape[k] for k in dims]), dims]
        for k, length in enumerate(self.lengths):
            if k not in covered:
                operands += [np.ones(length, dtype=self.frame.dtype), [k]]
        if len(operands) > 40:
            return None
        return np.asarray(np.einsum(*operands, list(range(self.rank)), optimize=True))

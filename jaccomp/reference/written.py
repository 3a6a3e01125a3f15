"""The meaning of the equations as their author wrote them, read straight from the notation.

Nothing of the compiler stands between: no normal form, no domain of constraints, no derivative. An expression is
evaluated recursively over an open grid whose dimensions are named by the indices in scope; a reduction adds dimensions
in front, so that an inner index of the same name shadows an outer one and NumPy aligns the rest. The last dimension is
a batch of seeds.

A Kronecker delta, and the outside of a pad by zeros, is a condition on a product rather than a factor of it. The
conventions of the published table are carried here too, written apart from the compiler: `1/‖x‖` and `‖x‖'` are 0
at the origin; the normaliser of a fully masked softmax row, a sum of exponentials that are all 0, has reciprocal 0, and
a maximum of such a row that shifts it is taken as 0. (`Max`, `Abs`, extrema over an index: `scalars.py`, `plain.py`.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from jaccomp import notation as jc
from jaccomp.errors import StageError
from jaccomp.reference import indices, scalars
from jaccomp.reference.scalars import Array
from jaccomp.spec import Spec, WrittenEquation

RECIPROCAL = {
    sp.coth: sp.tanh,
    sp.sec: sp.cos,
    sp.csc: sp.sin,
    sp.cot: sp.tan,
    sp.sech: sp.cosh,
    sp.csch: sp.sinh,
}
Scope = Mapping[str, tuple[int, Array]]  # index name -> (its dimension counted from the last, its values there)


def shapes(spec: Spec, sizes: Mapping[str, int], scalar_values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The shape of every declared tensor, by name."""
    constants = _constants(spec, sizes, scalar_values)
    declared = (*spec.inputs, *spec.outputs, *spec.intermediates)
    return {t.name: tuple(_extent(e, constants) for e in t.shape) for t in declared}


def evaluate(
    spec: Spec,
    inputs: Mapping[str, Any],
    sizes: Mapping[str, int],
    scalar_values: Mapping[str, Any] | None = None,
    *,
    arithmetic: Any,
    batch: int = 1,
) -> dict[str, Any]:
    """The value of every output and intermediate by name, in an arithmetic (`plain.Plain` or `bounded.Bounded`).

    `inputs` has a value of that arithmetic for each real tensor, whose last dimension is 1 or `batch`, and an int64
    array for each integer one. Raises `StageError` where an equation reads outside a tensor.
    """
    state = _State(spec, arithmetic, _constants(spec, sizes, scalar_values), dict(inputs), batch)
    extents = shapes(spec, sizes, scalar_values)
    for equation in _ordered(spec):
        tensor = _target(equation)
        if tensor.name not in state.values:
            shape = extents[tensor.name]
            state.values[tensor.name] = (
                np.zeros(shape, dtype=np.int64) if tensor.dtype == "int64" else arithmetic.empty(shape, batch)
            )
    with np.errstate(all="ignore"):
        for equation in _ordered(spec):
            state.assign(equation)
    return {t.name: state.values[t.name] for t in (*spec.outputs, *spec.intermediates)}


def _constants(spec: Spec, sizes: Mapping[str, int], given: Mapping[str, Any] | None) -> dict[str, Any]:
    constants: dict[str, Any] = {s.name: int(sizes[s.name]) for s in spec.sizes}
    for one in spec.scalars:
        value = (given or {}).get(one.name, one.default)
        if value is None:
            raise StageError(f"layer {spec.name!r}", f"scalar {one.name!r} has neither a value nor a default.")
        constants[one.name] = int(value) if one.dtype == "int64" else value
    return constants


def _extent(expr: sp.Expr, constants: Mapping[str, Any]) -> int:
    return max(0, int(indices.integer(expr, lambda leaf: constants[leaf.name])))


def _target(equation: WrittenEquation) -> jc.Tensor:
    left = equation.left
    return left if isinstance(left, jc.Tensor) else left.base


def _ordered(spec: Spec) -> list[WrittenEquation]:
    """Equations after what they read, else as written; the pieces of one tensor count as one definition."""
    waiting = list(spec.equations)
    done: list[WrittenEquation] = []
    while waiting:
        missing = {_target(e).name for e in waiting}
        ready = [e for e in waiting if not (_read(e) - {_target(e).name}) & missing]
        if not ready:
            raise StageError(f"layer {spec.name!r}", f"the equations of {sorted(missing)} read each other.")
        done.append(ready[0])
        waiting.remove(ready[0])
    return done


def _read(equation: WrittenEquation) -> set[str]:
    return {one.name for one in equation.right.atoms(jc.Tensor)}


def _index_atoms(expr: sp.Basic) -> Iterator[jc.Index]:
    """The indices in an expression, those in the ranges of indices left out, in the order of appearance."""
    if isinstance(expr, jc.Index):
        yield expr
    elif not isinstance(expr, jc.Tensor):
        for one in expr.args:
            yield from _index_atoms(one)


@dataclass(frozen=True, slots=True)
class _Bound:
    """An index to be put in scope: its name and its range, the end included, in whatever is in scope before it."""

    name: str
    first: sp.Expr
    last: sp.Expr


def _bound(index: sp.Basic, *ends: sp.Expr) -> _Bound:
    """An index over its own range, or over the ends that a `Sum(body, (k, 0, t))` writes."""
    if isinstance(index, jc.Index):
        return _Bound(str(index.args[0].name), *(ends or index.args[1]))
    return _Bound(str(index), *ends)


def _nested(bound: Sequence[_Bound]) -> list[_Bound]:
    """The indices with those first that the ranges of others need."""
    waiting, done = list(bound), []
    while waiting:
        names = {one.name for one in waiting}
        ready = [one for one in waiting if not (_range_names(one) & (names - {one.name}))] or waiting
        done.append(ready[0])
        waiting.remove(ready[0])
    return done


def _range_names(bound: _Bound) -> set[str]:
    return {str(one.args[0].name) for end in (bound.first, bound.last) for one in _index_atoms(end)}


class _State:
    def __init__(self, spec: Spec, arithmetic: Any, constants: dict[str, Any], values: dict[str, Any], batch: int):
        self.spec, self.arithmetic, self.constants, self.values, self.batch = spec, arithmetic, constants, values, batch
        self.definitions = {_target(e).name: e.right for e in spec.equations}
        self.what = f"layer {spec.name!r}"

    def assign(self, equation: WrittenEquation) -> None:
        """Evaluate one equation, or one piece of a definition, into its target."""
        left, tensor = equation.left, _target(equation)
        self.what = f"layer {self.spec.name!r}, equation of {tensor.name}"
        free = {str(i.args[0].name): _bound(i) for i in _index_atoms(left)} if isinstance(left, jc.Access) else {}
        scope, mask = self.enter({}, np.ones((1,), dtype=bool), list(free.values()))
        lengths = [values.shape[0] for _, values in sorted(scope.values(), key=lambda one: -one[0])]
        mask = np.broadcast_to(mask, (*lengths, 1))
        if mask.size == 0:
            return
        where = tuple(
            np.broadcast_to(np.asarray(self.integer(one, scope, mask)), mask.shape)[..., 0]
            for one in (left.indices if isinstance(left, jc.Access) else ())
        )
        target = self.values[tensor.name]
        if tensor.dtype == "int64":
            value = np.broadcast_to(self.integer(equation.right, scope, mask), mask.shape)[..., 0]
            target[tuple(w[mask[..., 0]] for w in where)] = value[mask[..., 0]]
        else:
            self.arithmetic.store(target, where, mask[..., 0], self.real(equation.right, scope, mask))

    # Scopes

    def enter(self, scope: Scope, mask: Array, bound: Sequence[_Bound]) -> tuple[dict[str, tuple[int, Array]], Array]:
        """The scope with these indices in front of it, the first of them foremost, and the mask with their ranges."""
        inner = dict(scope)
        depth = max((place for place, _ in scope.values()), default=1) + len(bound)
        places = {one: depth - k for k, one in enumerate(bound)}
        for one in _nested(bound):
            first = np.asarray(self.integer(one.first, inner, mask))
            last = np.asarray(self.integer(one.last, inner, mask))
            lowest, highest = (int(first.min()), int(last.max())) if first.size and last.size else (0, -1)
            values = np.arange(lowest, highest + 1, dtype=np.int64).reshape(-1, *(1,) * (places[one] - 1))
            inner[one.name] = (places[one], values)
            mask = mask & (values >= first) & (values <= last)
        return inner, mask

    # Integers

    def integer(self, expr: sp.Expr, scope: Scope, mask: Array) -> Any:
        return indices.integer(expr, lambda leaf: self.leaf(leaf, scope, mask))

    def leaf(self, leaf: sp.Expr, scope: Scope, mask: Array) -> Any:
        if isinstance(leaf, jc.Index):
            return self.in_scope(str(leaf.args[0].name), scope)
        if isinstance(leaf, jc.Access):
            return self.read(leaf, scope, mask)[..., None]
        if isinstance(leaf, jc.Tensor):
            return self.values[leaf.name][None]
        if isinstance(leaf, jc.Reduction):
            return self.extremum(leaf, scope, mask)[1][..., :1]
        return self.constants[leaf.name] if leaf.name in self.constants else self.in_scope(leaf.name, scope)

    def in_scope(self, name: str, scope: Scope) -> Array:
        if name not in scope:
            raise StageError(self.what, f"index {name} is neither on the left nor bound.")
        return scope[name][1]

    # Reads

    def places(self, access: jc.Access, scope: Scope, mask: Array) -> tuple[tuple[Array, ...], Any]:
        """The positions an access reads, without the batch dimension, clipped; and where they lie inside."""
        shape = tuple(_extent(e, self.constants) for e in access.base.shape)
        where = [np.asarray(self.integer(one, scope, mask)) for one in access.indices]
        inside: Any = np.ones((1,), dtype=bool)
        for one, length in zip(where, shape, strict=True):
            inside = inside & (one >= 0) & (one < length)
        clipped = np.broadcast_arrays(*(np.clip(o, 0, max(e - 1, 0)) for o, e in zip(where, shape, strict=True)))
        return tuple(w[..., 0] if w.ndim else w for w in clipped), inside

    def read(self, access: jc.Access, scope: Scope, mask: Array, guarded: bool = False) -> Any:
        where, inside = self.places(access, scope, mask)
        if not guarded and np.any(mask & ~inside):
            raise StageError(self.what, f"{access} reads outside its tensor.")
        shape = np.broadcast_shapes(*(w.shape for w in where))
        value = self.values[access.name]
        if access.base.dtype == "int64":
            return value[where] if value.size else np.zeros(shape, dtype=np.int64)
        return self.arithmetic.gather(value, where, shape)

    # Values

    def real(self, expr: sp.Expr, scope: Scope, mask: Array) -> Any:
        """The value of an expression in the arithmetic; the mask is where it matters."""
        a = self.arithmetic
        if isinstance(expr, jc.Access) and not expr.is_integer:
            return self.read(expr, scope, mask)
        if isinstance(expr, jc.Tensor) and not expr.is_integer:
            return self.values[expr.name]
        if isinstance(expr, jc.Scalar) and not expr.is_integer:
            return a.number(self.constants[expr.name])
        if isinstance(expr, sp.Symbol | jc.Index | jc.Access | jc.Tensor | jc.ArgMaxOver | jc.ArgMinOver):
            return a.integers(np.asarray(self.integer(expr, scope, mask)))
        if not expr.args or expr.is_number:
            return a.constant(expr)
        if (expr.is_integer or isinstance(expr, sp.KroneckerDelta)) and indices.is_exact(expr):
            return a.integers(np.asarray(self.integer(expr, scope, mask)))
        rule = getattr(self, f"on_{type(expr).__name__.lower()}", None)
        if rule is not None:
            return rule(expr, scope, mask)
        if type(expr) not in scalars.UNARY:
            raise StageError(self.what, f"the reference knows no function {type(expr).__name__}, in {expr}.")
        return a.apply(type(expr), self.real(expr.args[0], scope, mask))

    def on_add(self, expr: sp.Add, scope: Scope, mask: Array) -> Any:
        terms = [self.shift(one, self.real(one, scope, mask)) for one in expr.args]
        value = terms[0]
        for one in terms[1:]:
            value = self.arithmetic.add(value, one)
        return value

    def on_mul(self, expr: sp.Mul, scope: Scope, mask: Array) -> Any:
        a = self.arithmetic
        value = self.real(expr.args[0], scope, mask)
        for one in expr.args[1:]:
            value = a.multiply(value, self.real(one, scope, mask))
        for one in expr.args:
            absent = self.absent(one, scope, mask)
            value = value if absent is None else a.select(absent, a.number(0), value)
        return value

    def absent(self, factor: sp.Expr, scope: Scope, mask: Array) -> Array | None:
        """Where an indicator, or the outside of a pad by zeros, takes a product away: there even 0 · inf is 0."""
        if isinstance(factor, sp.KroneckerDelta):
            return np.asarray(self.integer(factor, scope, mask) == 0)
        if isinstance(factor, jc.Pad) and factor.args[1] == 0:
            return ~np.asarray(self.places(factor.args[0], scope, mask)[1])
        return None

    def on_pow(self, expr: sp.Pow, scope: Scope, mask: Array) -> Any:
        a, exponent = self.arithmetic, expr.exp
        if expr.base is sp.S.Exp1:
            return a.apply(sp.exp, self.real(exponent, scope, mask))
        base = self.real(expr.base, scope, mask)
        if exponent.is_Rational and exponent.q <= 2:
            root = a.square_root(base) if exponent.q == 2 else base
            value = a.whole_power(root, int(exponent.p))
            if exponent < 0 and (self.is_norm(expr.base) or self.is_partition(expr.base)):
                value = a.select(a.settled(base), a.number(0), value)
            if exponent.q == 2 and exponent > 0 and self.is_norm(expr.base):
                value = a.select(a.settled(base), a.number(0), value)
            return value
        return a.power(base, self.real(exponent, scope, mask))

    def on_atan2(self, expr: sp.Expr, scope: Scope, mask: Array) -> Any:
        return self.arithmetic.arctan2(*(self.real(one, scope, mask) for one in expr.args))

    def on_heaviside(self, expr: sp.Expr, scope: Scope, mask: Array) -> Any:
        """0, the value at 0 that the author names, or 1."""
        sign = self.arithmetic.apply(sp.sign, self.real(expr.args[0], scope, mask))
        at_zero = self.real(expr.args[1], scope, mask)
        direction, one, zero = self.arithmetic.real(sign), self.arithmetic.number(1), self.arithmetic.number(0)
        below = self.arithmetic.select(np.asarray(direction < 0, dtype=bool), zero, at_zero)
        return self.arithmetic.select(np.asarray(direction > 0, dtype=bool), one, below)

    def on_coth(self, expr: sp.Expr, scope: Scope, mask: Array) -> Any:
        """The functions that are reciprocals of others."""
        value = self.arithmetic.apply(RECIPROCAL[type(expr)], self.real(expr.args[0], scope, mask))
        return self.arithmetic.whole_power(value, -1)

    on_sec = on_csc = on_cot = on_sech = on_csch = on_coth

    def on_max(self, expr: sp.Expr, scope: Scope, mask: Array) -> Any:
        """Two by two, constants first; what reads no tensor wins a tie. The smaller is minus the larger of minuses."""
        a, flip = self.arithmetic, isinstance(expr, sp.Min)
        arguments = sorted(expr.args, key=_is_variable)
        value: Any = None
        fixed = True
        for one in arguments:
            term = self.real(one, scope, mask)
            term = a.negate(term) if flip else term
            value = term if value is None else a.larger(term, value, constant_wins=fixed)
            fixed = fixed and not _is_variable(one)
        return a.negate(value) if flip else value

    on_min = on_max

    def on_piecewise(self, expr: sp.Piecewise, scope: Scope, mask: Array) -> Any:
        """The first branch whose condition holds; a branch may read only where it is taken."""
        branches: list[tuple[Array, Any]] = []
        left = mask
        for value, condition in expr.args:
            where = self.condition(condition, scope, left)
            branches.append((where, self.real(value, scope, left & where)))
            left = left & ~where
        value = self.arithmetic.number(np.nan)
        for where, one in reversed(branches):
            value = self.arithmetic.select(where, one, value)
        return value

    def on_pad(self, expr: jc.Pad, scope: Scope, mask: Array) -> Any:
        access, value = expr.args
        _, inside = self.places(access, scope, mask)
        read = self.read(access, scope, mask, guarded=True)
        return self.arithmetic.select(inside, read, self.real(value, scope, mask))

    def condition(self, condition: sp.Basic, scope: Scope, mask: Array) -> Array:
        if indices.is_exact_condition(condition):
            return np.asarray(indices.holds(condition, lambda leaf: self.leaf(leaf, scope, mask)))
        if isinstance(condition, sp.Not):
            return ~self.condition(condition.args[0], scope, mask)
        if isinstance(condition, sp.And | sp.Or):
            join = np.logical_and if isinstance(condition, sp.And) else np.logical_or
            value = self.condition(condition.args[0], scope, mask)
            for one in condition.args[1:]:
                value = join(value, self.condition(one, scope, mask))
            return value
        left, right = (self.arithmetic.real(self.real(one, scope, mask)) for one in condition.args)
        return np.asarray(indices.compare(condition, left, right))

    # Reductions

    def over(self, bound: Sequence[_Bound], scope: Scope, mask: Array) -> tuple[Scope, Array, tuple[int, ...], int]:
        """The inner scope and mask, the lengths of the new dimensions, outermost first, and the rank inside."""
        inner, within = self.enter(scope, mask, bound)
        rank = max((place for place, _ in scope.values()), default=1) + len(bound)
        lengths = tuple(inner[one.name][1].shape[0] for one in bound)
        return inner, within.reshape((1,) * (rank - within.ndim) + within.shape), lengths, rank

    def on_sum(self, expr: sp.Expr, scope: Scope, mask: Array) -> Any:
        bound = [_bound(*limit) for limit in reversed(expr.limits)]
        inner, within, lengths, rank = self.over(bound, scope, mask)
        reduce = self.arithmetic.product if isinstance(expr, sp.Product) else self.arithmetic.total
        return reduce(self.real(expr.function, inner, within), within, lengths, rank)

    on_product = on_sum

    def extremum(self, expr: jc.Reduction, scope: Scope, mask: Array) -> tuple[Any, Array]:
        """Value, and the index at the first extremum. Of several indices the first is the slowest."""
        greatest = isinstance(expr, jc.MaxOver | jc.ArgMaxOver)
        bound = [_bound(one) for one in expr.args[1]]
        inner, within, lengths, rank = self.over(bound, scope, mask)
        body = self.real(expr.args[0], inner, within)
        value, position = self.arithmetic.extremum(body, within, lengths, rank, greatest)
        start = inner[bound[0].name][1].reshape(-1)
        return value, position + (int(start[0]) if start.size else 0)

    def on_maxover(self, expr: jc.Reduction, scope: Scope, mask: Array) -> Any:
        return self.extremum(expr, scope, mask)[0]

    on_minover = on_maxover

    # Conventions

    def resolved(self, expr: sp.Expr) -> sp.Expr:
        """What an access to a named quantity stands for."""
        return self.definitions.get(expr.name, expr) if isinstance(expr, jc.Access | jc.Tensor) else expr

    def is_norm(self, expr: sp.Expr) -> bool:
        """A sum over an index of even powers, its root, or either times constants: zero only at the origin."""
        expr = self.resolved(expr)
        if isinstance(expr, sp.Mul):
            variable = [one for one in expr.args if _is_variable(one)]
            return len(variable) == 1 and self.is_norm(variable[0])
        if isinstance(expr, sp.Pow):
            return expr.exp == sp.Rational(1, 2) and self.is_norm(expr.base)
        return isinstance(expr, sp.Sum) and _is_even(expr.function)

    def is_partition(self, expr: sp.Expr) -> bool:
        """A sum over an index of exponentials: the normaliser of a softmax."""
        expr = self.resolved(expr)
        return isinstance(expr, sp.Sum) and isinstance(self.resolved(expr.function), sp.exp)

    def shift(self, expr: sp.Expr, value: Any) -> Any:
        """A row's maximum that is subtracted, taken as 0 where it is -oo: every entry of the row is masked."""
        if not expr.could_extract_minus_sign() or not isinstance(self.resolved(-expr), jc.MaxOver):
            return value
        a = self.arithmetic
        return a.select(np.asarray(a.real(value) == np.inf, dtype=bool), a.number(0), value)


def _is_variable(expr: sp.Expr) -> bool:
    return bool(expr.has(jc.Access, jc.Tensor))


def _is_even(body: sp.Expr) -> bool:
    return isinstance(body, sp.Pow) and body.exp.is_Integer and body.exp > 0 and body.exp % 2 == 0

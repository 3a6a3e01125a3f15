"""`J.expr` as a person reads it, in NumPy: every index an axis of a grid, every name an array.

A read outside its tensor is 0: it stands beside a δ or under a condition that is 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp
from scipy import special

from jaccomp.calculus import functions as own
from jaccomp.jacobian import Jacobian
from jaccomp.notation import Access, Index

Array = Any
UNARY: dict[type, Any] = {
    sp.exp: np.exp,
    sp.log: np.log,
    sp.sin: np.sin,
    sp.cos: np.cos,
    sp.tanh: np.tanh,
    sp.erf: special.erf,
    sp.Abs: np.abs,
    sp.sign: np.sign,
    sp.floor: np.floor,
    own.Sigmoid: special.expit,
    own.InverseRoot: lambda z: np.where(z == 0, 0, 1 / np.sqrt(np.where(z == 0, 1, z))),
    own.Softplus: lambda z: np.logaddexp(0, z),
    own.Log1p: np.log1p,
    own.Expm1: np.expm1,
    own.Step: lambda z: (z > 0) * 1.0,
    own.HalfStep: lambda z: np.heaviside(z, 0.5),
}
COMPARE = {sp.Gt: np.greater, sp.Ge: np.greater_equal, sp.Lt: np.less, sp.Le: np.less_equal, sp.Eq: np.equal}


def evaluated(jacobian: Jacobian, constants: Mapping[str, Any], arrays: Mapping[str, Array]) -> Array:
    """All entries: an array over the axes of `of`, then those of `wrt`."""
    extents = [int(_value(e, constants, arrays, {})) for e in jacobian.shape]
    grid = np.ogrid[tuple(slice(0, e) for e in extents)] if extents else []
    with np.errstate(all="ignore"):
        found = _value(jacobian.expr, constants, arrays, dict(zip(jacobian.indices, grid, strict=True)))
    return np.broadcast_to(found, extents)


def _value(expr: Any, constants: Mapping[str, Any], arrays: Mapping[str, Array], at: Mapping[Index, Array]) -> Array:
    def inner(one: Any) -> Array:
        return _value(one, constants, arrays, at)

    if isinstance(expr, Index):
        return at[expr]
    if isinstance(expr, Access):
        return _read(arrays[expr.name], [np.asarray(inner(i)) for i in expr.indices])
    if isinstance(expr, sp.Symbol):
        return constants[expr.name]
    if expr.is_number and not expr.has(Access):
        return int(expr) if expr.is_Integer else float(expr)
    if isinstance(expr, sp.Sum):
        return _sum(expr, constants, arrays, at)
    if isinstance(expr, sp.KroneckerDelta):
        return np.equal(*(inner(one) for one in expr.args[:2])) * 1.0
    if isinstance(expr, sp.Piecewise):
        result: Array = 0.0
        for value, condition in reversed(expr.args):
            result = np.where(inner(condition), inner(value), result)
        return result
    if isinstance(expr, sp.logic.boolalg.BooleanAtom):
        return bool(expr)
    if isinstance(expr, sp.And | sp.Or):
        join = np.logical_and if isinstance(expr, sp.And) else np.logical_or
        return join.reduce(np.broadcast_arrays(*map(inner, expr.args)))
    if isinstance(expr, sp.core.relational.Relational):
        return COMPARE[type(expr)](*map(inner, expr.args))
    if isinstance(expr, sp.Add | sp.Mul):
        return _fold(np.add if isinstance(expr, sp.Add) else np.multiply, map(inner, expr.args))
    if isinstance(expr, sp.Max | sp.Min):
        return _fold(np.maximum if isinstance(expr, sp.Max) else np.minimum, map(inner, expr.args))
    if isinstance(expr, sp.Pow):
        return np.power(np.asarray(inner(expr.base), dtype=float), inner(expr.exp))
    return UNARY[type(expr)](inner(expr.args[0]))


def _fold(operation: Any, values: Any) -> Array:
    result, *rest = values
    for value in rest:
        result = operation(result, value)
    return result


def _read(array: Array, indices: list[Array]) -> Array:
    if not indices:
        return array
    indices = np.broadcast_arrays(*indices)
    inside = np.logical_and.reduce([(i >= 0) & (i < e) for i, e in zip(indices, array.shape, strict=True)])
    where = tuple(np.clip(i, 0, max(e - 1, 0)).astype(int) for i, e in zip(indices, array.shape, strict=True))
    return np.where(inside, array[where], 0) if array.size else np.zeros(indices[0].shape)


def _sum(expr: sp.Sum, constants: Mapping[str, Any], arrays: Mapping[str, Array], at: Mapping[Index, Array]) -> Array:
    """The last limit is the outermost; its ends may see the indices of the grid."""
    *inside, (index, low, high) = [tuple(limit) for limit in expr.limits]
    body = sp.Sum(expr.function, *inside) if inside else expr.function
    first, last = (np.asarray(_value(end, constants, arrays, at)) for end in (low, high))
    total: Array = 0.0
    for value in range(int(first.min()), int(last.max()) + 1):
        part = _value(body, constants, arrays, {**at, index: np.asarray(value)})
        total = total + np.where((first <= value) & (value <= last), part, 0.0)
    return total

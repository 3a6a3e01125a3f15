"""Matrix expressions in NumPy, node by node: what is printed of a block is evaluated, not what it was derived from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import sympy as sp
from points import Point
from written_jacobian import _value

from jaccomp.layer import Layer
from jaccomp.matrix import nodes
from jaccomp.matrix.form import MatrixForm
from jaccomp.notation import Access

Array = Any


@dataclass
class World:
    """What the words of a form are worth: arrays by canonical name, sizes, scalars and the indices that are held."""

    arrays: Mapping[str, Array]
    constants: Mapping[str, Any]
    names: Mapping[sp.Expr, nodes.Node]

    def holding(self, where: Mapping[sp.Symbol, int]) -> World:
        return World(self.arrays, {**self.constants, **{s.name: v for s, v in where.items()}}, self.names)

    def number(self, expr: Any) -> int:
        return int(_value(sp.sympify(expr), self.constants, self.arrays, {}))

    def shape(self, axis: nodes.Axis) -> tuple[int, ...]:
        return tuple(self.number(extent) for _, extent in axis)

    def volume(self, axis: nodes.Axis) -> int:
        return int(np.prod(self.shape(axis), dtype=int))

    def entries(self, expr: sp.Expr, rows: nodes.Axis, columns: nodes.Axis) -> Array:
        """The array of an expression, [rows, columns]; nameless symbols are evaluated by the nodes behind them."""
        axes = (*rows, *columns)
        shape = self.shape(axes)
        grid = np.ogrid[tuple(slice(0, e) for e in shape)] if shape else []
        places = {symbol: place for (symbol, _), place in zip(axes, grid, strict=True)}
        constants = {**self.constants, **{s.name: g for s, g in places.items()}}
        where = {}
        for k, (name, node) in enumerate(self.names.items()):
            if not expr.has(name):
                continue
            column = self.value(node)[:, 0]
            seen = [s for s in name.free_symbols if s in places]
            where[name] = sp.Symbol(f"nameless{k}")
            constants[f"nameless{k}"] = column[places[seen[0]]] if seen else column[0]
        found = _value(expr.xreplace(where), constants, self.arrays, {})
        return np.broadcast_to(found, shape).reshape(self.volume(rows), self.volume(columns)) * 1.0

    def value(self, node: nodes.Node) -> Array:
        """Always two axes; a column has one entry along the second."""
        match node:
            case nodes.Entries(expr, rows, columns):
                return self.entries(expr, rows, columns)
            case nodes.Ones(axis):
                return np.ones((self.volume(axis), 1))
            case nodes.Identity(axis):
                return np.eye(self.volume(axis))
            case nodes.Zero(height, width):
                return np.zeros((self.number(height), self.number(width)))
            case nodes.OneHot(position, axis, rows):
                at = self.entries(position, rows, ()).astype(int)[:, 0]
                hot = np.eye(self.volume(axis))[at]
                return hot if rows else hot.T
            case nodes.Literal(cells):
                return np.array([[self.entries(one, (), ())[0, 0] for one in row] for row in cells])
            case nodes.BlockDiagonal(axis, block):
                ((symbol, _),) = axis
                blocks = [self.holding({symbol: k}).value(block) for k in range(self.volume(axis))]
                size = len(block.entries)
                whole = np.zeros((len(blocks), size, len(blocks), size))
                for k, one in enumerate(blocks):
                    whole[k, :, k, :] = one
                return whole.reshape(len(blocks) * size, len(blocks) * size)
            case nodes.Diag(vector):
                return np.diag(self.value(vector)[:, 0])
            case nodes.Transpose(inner):
                return self.value(inner).T
            case nodes.Triangle(inner, lower):
                return (np.tril if lower else np.triu)(self.value(inner))
            case nodes.Product(factors):
                result = self.value(factors[0])
                for one in factors[1:]:
                    result = result @ self.value(one)
                return result
            case nodes.Sum(addends):
                return sum(self.value(one) for one in addends)
            case nodes.Hadamard(factors):
                return np.prod([self.value(one) for one in factors], axis=0)
            case nodes.Kron(factors):
                result = self.value(factors[0])
                for one in factors[1:]:
                    result = np.kron(result, self.value(one))
                return result
            case nodes.Stack(blocks, sideways):
                return (np.hstack if sideways else np.vstack)([self.value(one) for one in blocks])
            case nodes.Scaled(factor, inner):
                return self.entries(factor, (), ())[0, 0] * self.value(inner)
        raise AssertionError(node)


def world(layer: Layer, point: Point, form: MatrixForm) -> World:
    """All quantities of the layer and of its VJP at a point."""
    backward = layer.derivation.vjp
    zeros = {s: np.zeros(point.shape(s, backward)) for s in layer.derivation.seeds}
    arrays = point.evaluate(layer.prepared, point.inputs) | point.evaluate(backward, point.inputs | zeros)
    arrays |= {name: np.asarray(value) for name, value in point.inputs.items()}
    return World(arrays, point.sizes | point.scalars, form.derived.names)


def dense(form: MatrixForm, at: World) -> Array:
    """The whole block, of the shape of both sides: the form for each value of the indices that it is stated for."""
    found = form.derived
    extents = [at.number(e) for e in (*found.row_extents, *found.column_extents)]
    whole = np.zeros(extents)
    held = found.frame.over
    for values in product(*(range(at.number(found.over_extents[k])) for k in range(len(held)))):
        where = {s: v for pair, v in zip(held, values, strict=True) for s in pair if s is not None}
        here = at.holding(where)
        value = here.value(form.node)
        if form.layout == "denominator" if not found.frame.gradient else form.layout == "numerator":
            value = value.T
        axes = [axis for side in range(2) for slot in found.frame.slots for axis in slot[side]]
        if found.frame.gradient:
            axes = [axis for slot in found.frame.slots for part in slot for axis in part]
        grid = np.ogrid[tuple(slice(0, e) for e in here.shape(tuple(axes)))] if axes else []
        constants = {**here.constants, **{s.name: g for (s, _), g in zip(axes, grid, strict=True)}}
        places = [_value(e, constants, at.arrays, {}) for e in (*found.rows, *found.columns)]
        shape = here.shape(tuple(axes))
        whole[tuple(np.broadcast_to(p, shape) for p in places)] += value.reshape(shape)
    return whole


__all__ = ["Access", "World", "dense", "world"]

"""One loop around several statements: run plainly, or over tiles.

    peel: for n: { s[n] = ..; y[n] = .. }            tile: for n0 in 0 .. N by B up to n1: { for n in n0 .. n1: ... }

Input: statements that may share a loop, and its class. Output: the loop without its body, and the statements inside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.lowering.affine import index_set
from jaccomp.lowering.classes import Classes
from jaccomp.lowering.fusion import Bounds, loop_bounds
from jaccomp.lowering.ir import (
    Block,
    CeilDiv,
    Greatest,
    Loop,
)
from jaccomp.lowering.statements import Statement
from jaccomp.notation import Access
from jaccomp.program import Constraint, Kind, Tensor, index_symbol, value_symbol

Shapes = Mapping[str, tuple[sp.Expr, ...]]
CHAIN_TILE = 64
READ_TILE = 128
PRODUCT_TILE = 256
"""Rows of a tile of products: of those whose rows are read again at once; the same, if there are many rows and no
product of a product; of others."""
VECTOR_TILE = 4096
COLUMN_TILE = 64
OWNERS = 16
OWNED_ELEMENTS = 1 << 19
"""Rows that others are scattered into: so many tiles, as each goes through all the data, and none that holds less."""
PARTS = 16
"""Tiles that threads can share. A sum in register tiles is cut into so many, less those that loops around it make."""
LEAST_TILE = 8
TILE_ELEMENTS = 1 << 20
"""What the rows of one tile may hold where sizes are as the layer says is typical; a tile has at least `LEAST_TILE`."""


class Loops:
    """State of one lowering: the classes, fresh loop names, and which loops run inside which tile."""

    def __init__(self, classes: Classes, shapes: Shapes, typical: Mapping[sp.Expr, sp.Expr]) -> None:
        self.classes = classes
        self.shapes = shapes
        self.typical = typical
        self.fresh = 0
        self.tiles: dict[sp.Symbol, tuple[sp.Symbol, sp.Expr]] = {}
        self.in_tile: dict[sp.Symbol, sp.Symbol] = {}
        self.hints: dict[sp.Symbol, tuple[str, int, str]] = {}
        self.made: dict[str, Tensor] = {}

    def scratch(self, like: Access, suffix: str) -> Access:
        """A tensor of one nest, of the shape of another, read where that one is."""
        name = f"{like.name}_{suffix}{len(self.made)}"
        dtype: Kind = "int64" if like.is_integer else "real"
        self.made[name] = Tensor(name, self.shapes[like.name], dtype)
        return Access(value_symbol(name, dtype), *like.indices)

    def symbol(self, like: sp.Symbol) -> sp.Symbol:
        self.fresh += 1
        return index_symbol(f"l{self.fresh}")

    def hint(self, symbol: sp.Symbol, statements: Sequence[Statement], cls: sp.Symbol, suffix: str) -> None:
        """Remember a tensor's axis that the loop runs over, to name it after."""
        for statement in statements:
            index = self.classes.loop(statement, cls)
            for access in (statement.target, *statement.reads()):
                if index is not None and index in access.indices:
                    self.hints[symbol] = (access.name, access.indices.index(index), suffix)
                    return

    def value(self, expr: sp.Expr) -> float:
        return float(sp.sympify(expr, strict=True).xreplace(dict(self.typical)).evalf())

    def iterations(self, statement: Statement) -> float:
        """How often a statement runs at representative sizes; for ever if its ranges depend on each other."""
        total = 1.0
        for index in statement.loops:
            if statement.chosen is not None and index == statement.chosen[0]:
                continue
            bounds = loop_bounds(statement, index)
            if bounds is None:
                return math.inf
            extent = sp.expand(bounds[1][0] - bounds[0][0]).xreplace(dict(self.typical))
            total *= float(extent) if extent.is_number else math.inf
        return total

    def extent(self, statement: Statement, index: sp.Symbol) -> float:
        """How far a loop of a sum over boxes goes at representative sizes."""
        bounds = loop_bounds(statement, index)
        assert bounds is not None
        extent = sp.expand(bounds[1][0] - bounds[0][0]).xreplace(dict(self.typical))
        return float(extent) if extent.is_number else 1.0

    def largest_side(self, statement: Statement) -> tuple[sp.Symbol, ...]:
        """The loops left of the side of a product that has the most iterations."""
        product = statement.product
        assert product is not None
        sides = [tuple(i for i in s if i in statement.loops) for s in (product.m, product.n, product.k)]
        return max(sides, key=lambda side: math.prod(self.extent(statement, i) for i in side))

    def index(self, statement: Statement, cls: sp.Symbol) -> sp.Symbol:
        index = self.classes.loop(statement, cls)
        assert index is not None
        return index

    def run_over_one_range(self, statements: Sequence[Statement], cls: sp.Symbol) -> bool:
        return len({loop_bounds(s, self.index(s, cls)) for s in statements}) == 1

    def peel(self, statements: Sequence[Statement], cls: sp.Symbol, mode: str) -> tuple[Loop, tuple[Statement, ...]]:
        """A loop over the class without its body, and the statements inside it."""
        first = statements[0]
        bounds = loop_bounds(first, self.index(first, cls))
        assert bounds is not None
        symbol = self.symbol(cls)
        self.hint(symbol, statements, cls, "")
        inner = tuple(self._inside(s, self.index(s, cls), symbol) for s in statements)
        start = self.tile_of(bounds[0])
        if start is not None:
            self.in_tile[symbol] = start
        loop = Loop(symbol, bounds[0], bounds[1], Block(()), "parallel" if mode == "parallel" else "serial")
        return loop, inner

    def tile_of(self, lower: Sequence[sp.Expr]) -> sp.Symbol | None:
        return next((e for e in lower if isinstance(e, sp.Symbol) and e in self.tiles), None)

    def is_cut(self, statement: Statement, index: sp.Symbol) -> bool:
        """Does a loop run over one tile?"""
        bounds = loop_bounds(statement, index)
        return bounds is not None and self.tile_of(bounds[0]) is not None

    def _inside(self, statement: Statement, index: sp.Symbol, symbol: sp.Symbol) -> Statement:
        others = [i for i in statement.loops if i != index]
        kept = tuple(c for c in statement.domain if index not in c.expr.free_symbols or index_set(c.expr, others))
        renamed = replace(statement, domain=kept).over({index: symbol})
        return replace(renamed, loops=tuple(i for i in renamed.loops if i != symbol))

    def tile(
        self,
        statements: Sequence[Statement],
        cls: sp.Symbol,
        size: sp.Expr | None = None,
        around: sp.Expr = sp.S.One,
    ) -> tuple[Loop, tuple[Statement, ...]]:
        """A loop over tiles of the class, and the statements with the class's loop cut to one tile.

        `around` is how often the loop runs.
        """
        bounds = self._range(statements, cls)
        start, stop = self.symbol(cls), self.symbol(cls)
        self.hint(start, statements, cls, "_first")
        self.hint(stop, statements, cls, "_last")
        size = self._tile_size(statements, cls, around) if size is None else size
        self.tiles[start] = (stop, size)
        inner = []
        for statement in statements:
            index = self.index(statement, cls)
            others = [i for i in statement.loops if i != index]
            whole = loop_bounds(statement, index) == bounds
            kept = tuple(
                c
                for c in statement.domain
                if not whole or index not in c.expr.free_symbols or index_set(c.expr, others)
            )
            cut = (Constraint(index - start), Constraint(stop - 1 - index))
            inner.append(replace(statement, domain=(*cut, *kept)))
        loop = Loop(start, bounds[0], bounds[1], Block(()), "tile", size, stop)
        return loop, tuple(inner)

    def grid(
        self, statements: Sequence[Statement], rows: sp.Symbol, columns: sp.Symbol
    ) -> tuple[tuple[Loop, Loop], tuple[Statement, ...]]:
        """Loops over tiles of rows and of columns."""
        fit = min(PRODUCT_TILE, self._rows_that_fit(statements, rows))
        down, statements = self.tile(statements, rows, sp.Integer(fit))
        right, statements = self.tile(statements, columns, sp.Integer(PRODUCT_TILE))
        return (down, right), statements

    def _range(self, statements: Sequence[Statement], cls: sp.Symbol) -> Bounds:
        """The bounds of a loop that holds all the statements: their own, or those of the box that holds their parts."""
        bounds = loop_bounds(statements[0], self.index(statements[0], cls))
        assert bounds is not None
        if self.run_over_one_range(statements, cls):
            return bounds
        return bounds[0][:1], bounds[1][:1]

    def _rows_that_fit(self, statements: Sequence[Statement], cls: sp.Symbol) -> int:
        """How many rows of the largest operand made here, at representative sizes, take no more than a tile may."""
        rows = [
            self.value(extent)
            for s in statements
            if any(other.product is not None and s.target.name in _operands(other) for other in statements)
            for axis, index in enumerate(s.target.indices)
            if index == self.classes.loop(s, cls)
            for extent in [sp.Mul(*(e for k, e in enumerate(self.shapes[s.target.name]) if k != axis))]
        ]
        fit = TILE_ELEMENTS // int(max(rows, default=1))
        return max(LEAST_TILE, 1 << max(fit, 1).bit_length() - 1)

    def _tile_size(self, statements: Sequence[Statement], cls: sp.Symbol, around: sp.Expr) -> sp.Expr:
        if any(s.product is not None and s.product.tiled for s in statements):
            bounds = self._range(statements, cls)
            extent = sp.expand(bounds[1][0] - bounds[0][0])
            parts = sp.Integer(PARTS)
            return CeilDiv(extent, parts if around == 1 else CeilDiv(parts, around))
        for s in statements:
            if s.chosen is not None and self.index(s, cls) == s.chosen[0]:
                shape, axis = self.shapes[s.target.name], s.target.indices.index(s.chosen[0])
                fewest = CeilDiv(sp.Integer(OWNED_ELEMENTS), sp.Mul(*shape[:axis], *shape[axis + 1 :]))
                return Greatest(CeilDiv(shape[axis], sp.Integer(OWNERS)), fewest)
        return sp.Integer(self._tile_rows(statements, cls))

    def _tile_rows(self, statements: Sequence[Statement], cls: sp.Symbol) -> int:
        products = {s.target.name for s in statements if s.product is not None}
        if products:
            return min(self._product_rows(statements, cls, products), self._rows_that_fit(statements, cls))
        return VECTOR_TILE if all(len(s.loops) == 1 for s in statements) else COLUMN_TILE

    def _product_rows(self, statements: Sequence[Statement], cls: sp.Symbol, products: set[str]) -> int:
        if not any(products & {a.name for a in s.reads()} for s in statements):
            return PRODUCT_TILE
        made = {s.target.name for s in statements}
        many = self.extent(statements[0], self.index(statements[0], cls)) >= PARTS * READ_TILE
        return READ_TILE if many and not any(made & set(_operands(s)) for s in statements) else CHAIN_TILE


def _operands(statement: Statement) -> tuple[str, ...]:
    product = statement.product
    return () if product is None else (product.left.name, product.right.name)

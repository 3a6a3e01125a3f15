"""Inside a nest: serial loops that as many statements as can share, tiles around products, and the leaves.

Input: the statements of a nest, its parallel loops taken off. Output: a block of the loop IR over full tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.lowering.affine import bounds_of, index_set, slope
from jaccomp.lowering.fusion import innermost, is_ready, loop_bounds, split
from jaccomp.lowering.ir import (
    Accumulate,
    Assign,
    Block,
    Contract,
    Guard,
    Node,
    Scatter,
    Select,
    Span,
)
from jaccomp.lowering.statements import Statement, over_target
from jaccomp.lowering.tiling import Loops

PART_ROWS = 128
"""So many rows are added up before they are added to the rest: at 16,384 rows both chains are as long."""


class Body:
    """Writes the body of one nest, level by level."""

    def __init__(self, loops: Loops) -> None:
        self.loops = loops

    def block(self, items: Sequence[Statement]) -> Block:
        nodes: list[Node] = []
        waiting = list(items)
        while waiting:
            position = next((k for k, s in enumerate(waiting) if self._is_leaf(s) and is_ready(waiting, k)), None)
            if position is not None and (waiting[position].product is None or not self._may_tile(waiting)):
                nodes.append(self._leaf(waiting.pop(position)))
                continue
            if self._may_tile(waiting):
                made = self._tiled(waiting)
                if made is not None:
                    nodes += made[0]
                    waiting = made[1]
                    continue
                if position is not None:
                    nodes.append(self._leaf(waiting.pop(position)))
                    continue
            made_nodes, waiting = self._serial(waiting)
            nodes += made_nodes
        return Block(tuple(nodes))

    def _is_leaf(self, statement: Statement) -> bool:
        return not self._serial_loops(statement) or self._is_settled(statement)

    def _serial_loops(self, statement: Statement) -> tuple[sp.Symbol, ...]:
        """The loops that run one iteration at a time: all but those of a product's sides."""
        product = statement.product
        return statement.loops if product is None else tuple(i for i in statement.loops if not product.side(i))

    def _is_settled(self, statement: Statement) -> bool:
        """Is it known which row the data chooses?"""
        return statement.chosen is not None and not index_set(statement.chosen[1], statement.loops)

    def _may_tile(self, items: Sequence[Statement]) -> bool:
        return any(self._tile_candidates(s) for s in items)

    def _tile_candidates(self, statement: Statement) -> tuple[sp.Symbol, ...]:
        """The sides of a product that may be tiled: its rows or columns; then, over a map computed again, its sum."""
        product = statement.product
        if product is None or product.tiled:
            return ()
        if not any(self.loops.is_cut(statement, i) for i in statement.loops):
            return tuple(i for i in (*product.m, *product.n) if i in statement.loops)
        again = any("_again" in a.name for a in (product.left, product.right))
        return product.k if again and not any(self.loops.is_cut(statement, i) for i in product.k) else ()

    def _tiled(self, items: list[Statement]) -> tuple[list[Node], list[Statement]] | None:
        """A serial loop over tiles of rows that the most statements, products among them, can share."""
        best: tuple[int, sp.Symbol] | None = None
        head = next(s for s in items if self._tile_candidates(s))
        for index in self._tile_candidates(head):
            cls = self.loops.classes.of(index)
            parts = split(items, cls, self.loops.classes, lambda s, i: True, pieces=True)
            if head in parts.inside and len(parts.inside) > 1 and (best is None or len(parts.inside) > best[0]):
                best = (len(parts.inside), cls)
        if best is None:
            return None
        parts = split(items, best[1], self.loops.classes, lambda s, i: True, pieces=True)
        early, late = self._around(items, parts.after, parts.inside)
        loop, inner = self.loops.tile(parts.inside, best[1])
        nodes = list(self.block([*parts.before, *early, *self._fills(parts.inside, best[1])]).nodes)
        nodes.append(replace(loop, body=self.block(inner)))
        return nodes, late

    def _fills(self, statements: Sequence[Statement], cls: sp.Symbol) -> list[Statement]:
        """Zeros for the products that a tiled loop adds up piece by piece."""
        return [
            replace(over_target(s), action="assign", value=sp.S.Zero)
            for s in statements
            if s.product is not None and self.loops.index(s, cls) in s.product.k
        ]

    def _around(
        self, items: Sequence[Statement], others: Sequence[Statement], inside: Sequence[Statement]
    ) -> tuple[list[Statement], list[Statement]]:
        """Statements outside a loop that must run before it, since a later one inside touches them; and the others."""
        written = {w.name for i in inside for w in i.writes}
        early: list[Statement] = []
        for position, one in enumerate(items):
            if one not in others or any(a.name in written for a in one.reads()):
                continue
            names = {w.name for w in one.writes}
            later = [s for s in items[position + 1 :] if s in inside]
            if any(a.name in names for s in later for a in (*s.reads(), *s.writes)):
                early.append(one)
        return early, [s for s in others if s not in early]

    def _serial(self, items: list[Statement]) -> tuple[list[Node], list[Statement]]:
        position = next(k for k, s in enumerate(items) if not self._is_leaf(s) and is_ready(items, k))
        head = items[position]
        best: tuple[tuple[int, int], sp.Symbol] | None = None

        def joins(statement: Statement, index: sp.Symbol) -> bool:
            if index not in self._serial_loops(statement) or (
                statement.chosen is not None and index == statement.chosen[0]
            ):
                return False
            if statement.product is not None:
                return True
            return len(statement.loops) == 1 or index != innermost(statement)

        for index in self._serial_loops(head):
            if loop_bounds(head, index) is None:
                continue
            parts = split(items, self.loops.classes.of(index), self.loops.classes, joins)
            if head in parts.inside:
                axis = index in head.target_indices()
                score = (len(parts.inside), int(axis))
                if best is None or score > best[0]:
                    best = (score, self.loops.classes.of(index))
        if best is None:
            index = next(i for i in self._serial_loops(head) if loop_bounds(head, i) is not None)
            return [self._loop([head], self.loops.classes.of(index))], [s for s in items if s is not head]
        parts = split(items, best[1], self.loops.classes, joins)
        nodes = list(self.block(parts.before).nodes) if parts.before else []
        nodes.append(self._loop(parts.inside, best[1]))
        return nodes, list(parts.after)

    def _loop(self, statements: Sequence[Statement], cls: sp.Symbol) -> Node:
        if all(self._adds_rows(s, cls) for s in statements):
            return self._in_parts(statements, cls)
        loop, inner = self.loops.peel(statements, cls, "serial")
        return replace(loop, body=self.block(inner))

    def _adds_rows(self, statement: Statement, cls: sp.Symbol) -> bool:
        """Does each iteration add one row to a row of sums, none of which a register can hold?"""
        index = self.loops.index(statement, cls)
        others = tuple(i for i in statement.loops if i != index)
        return (
            statement.product is None
            and statement.action == "accumulate"
            and statement.reducer == "sum"
            and statement.injective
            and not statement.guards
            and not any({index, *others} <= c.expr.free_symbols for c in statement.domain)
            and len(others) == 1
            and others == statement.target_indices()
            and statement.target.name not in self.loops.made
        )

    def _in_parts(self, statements: Sequence[Statement], cls: sp.Symbol) -> Node:
        """Sums of rows in two levels, since one chain of additions loses digits with its length.

        for n: b[o] += y[n,o]   ->   for n0 by 128: { part[o] = 0; for n: part[o] += y[n,o]; b[o] += part[o] }
        """
        loop, inner = self.loops.tile(statements, cls, sp.Integer(PART_ROWS))
        fills, sums, adds = [], [], []
        for s in inner:
            part = self.loops.scratch(s.target, "part")
            fills.append(replace(over_target(s), target=part, action="assign", value=sp.S.Zero))
            sums.append(replace(s, target=part))
            adds.append(replace(over_target(s), value=part))
        return replace(loop, body=self.block([*fills, *sums, *adds]))

    def _in_row(self, statement: Statement) -> Node:
        """What is scattered to one row, where it lies in the tile."""
        assert statement.chosen is not None
        row, place = statement.chosen
        tests = tuple(c for c in statement.domain if row in c.expr.free_symbols)
        inside = replace(
            statement.over({row: place}),
            loops=tuple(i for i in statement.loops if i != row),
            domain=tuple(c for c in statement.domain if c not in tests),
            chosen=None,
        )
        return Guard(self.block([inside]), tuple(c.over({row: place}) for c in tests))

    def _leaf(self, statement: Statement) -> Node:
        if self._is_settled(statement):
            return self._in_row(statement)
        node = self._product(statement) if statement.product is not None else self._plain(statement)
        tests = (*statement.guards, *statement.domain) if statement.product is None else statement.guards
        return Guard(Block((node,)), tests) if tests else node

    def _plain(self, s: Statement) -> Node:
        if s.action == "assign":
            return Assign(s.target, s.value, s.needs, s.equation)
        if s.action == "select":
            best, seen, position = s.extra
            return Select(s.target, best, seen, s.reducer, s.value, position, s.needs, s.equation)
        cls = Accumulate if s.injective else Scatter
        return cls(s.target, s.reducer, s.value, s.needs, s.equation)

    def _product(self, s: Statement) -> Contract:
        product = s.product
        assert product is not None
        where: dict[sp.Expr, sp.Expr] = {}
        spans = []
        for run in (product.m, product.n, product.k):
            lower, upper, names = [], [], []
            for index in run:
                if index not in s.loops:
                    continue
                bounds = loop_bounds(s, index)
                assert bounds is not None
                symbol = self.loops.symbol(index)
                start = self.loops.tile_of(bounds[0])
                if start is not None:
                    self.loops.in_tile[symbol] = start
                where[index] = symbol
                names.append(symbol)
                low, high = self._reach(s, index) if not product.tiled else ((), ())
                lower.append((*bounds[0][:1], *low))
                upper.append((*bounds[1][:1], *high))
            spans.append(Span(tuple(names), tuple(lower), tuple(upper)))
        adds = product.adds or any(i in self.loops.in_tile for i in spans[2].indices)
        return Contract(
            s.target.xreplace(where), product.left.xreplace(where), product.right.xreplace(where),
            spans[0], spans[1], spans[2], product.alpha, adds, s.needs, s.equation, product.tiled,
            product.onto.xreplace(where) if product.onto is not None else None,
        )  # fmt: skip

    def _reach(self, s: Statement, index: sp.Symbol) -> tuple[tuple[sp.Expr, ...], tuple[sp.Expr, ...]]:
        """How far a triangle lets the index reach while the other runs over its tile: m <= t < stop gives m < stop."""
        lowest: list[sp.Expr] = []
        highest: list[sp.Expr] = []
        for constraint in s.domain:
            others = [i for i in index_set(constraint.expr, s.loops) if i != index]
            if index not in constraint.expr.free_symbols or len(others) != 1:
                continue
            (other,) = others
            ends = loop_bounds(s, other)
            start = self.loops.tile_of(ends[0]) if ends is not None else None
            if start is None:
                continue
            stop = self.loops.tiles[start][0]
            for bounds, sign, found in zip(bounds_of(index, [constraint]), (-1, 1), (lowest, highest), strict=True):
                for bound in bounds:
                    step = slope(bound, other)
                    if step in (1, -1):
                        found.append(sp.expand(bound.xreplace({other: stop - 1 if step == sign else start})))
        return tuple(lowest), tuple(highest)

"""Statements to nests: which statements share which loops, which loops run in parallel, which are tiled.

    mean[n] = Σ_k x[n,k];  y[n,i] = x[n,i] - mean[n]
        ->   parallel n: { mean = 0; for k: mean += x; for i: y = x - mean }

A nest takes the class of loops that most statements can share, axes before reductions; a class that would rather be
innermost, or that a matrix product needs as rows, is tiled instead. Inside, the same choice is made again, level by
level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.lowering.affine import bounds_of, index_set, slope
from jaccomp.lowering.classes import Classes
from jaccomp.lowering.fusion import Bounds, innermost, loop_bounds, split
from jaccomp.lowering.ir import (
    Accumulate,
    Assign,
    Block,
    CeilDiv,
    Contract,
    Guard,
    Loop,
    Node,
    Scatter,
    Select,
    Span,
)
from jaccomp.lowering.solve import Statement
from jaccomp.program import Constraint, index_symbol

Shapes = Mapping[str, tuple[sp.Expr, ...]]
CHAIN_TILE = 64
PRODUCT_TILE = 256
VECTOR_TILE = 4096
COLUMN_TILE = 64
LEAST_TILE = 8
TILE_ELEMENTS = 1 << 20
"""What the rows of one tile may hold where sizes are as the layer says is typical; a tile has at least `LEAST_TILE`."""


@dataclass(frozen=True, slots=True)
class Nest:
    """One fused nest before storage: its parallel loops, its body over full tensors, what it reduces across them."""

    parallel: tuple[Loop, ...]
    body: Block
    across: tuple[str, ...]
    statements: tuple[Statement, ...]


class Scheduler:
    """State of one lowering: the classes, fresh loop names, and which loops run inside which tile."""

    def __init__(self, classes: Classes, shapes: Shapes, typical: Mapping[sp.Expr, sp.Expr], capacity: sp.Expr) -> None:
        self.classes = classes
        self.shapes = shapes
        self.typical = typical
        self.capacity = capacity
        self.fresh = 0
        self.tiles: dict[sp.Symbol, tuple[sp.Symbol, int]] = {}
        self.in_tile: dict[sp.Symbol, sp.Symbol] = {}
        self.hints: dict[sp.Symbol, tuple[str, int, str]] = {}

    def symbol(self, like: sp.Symbol) -> sp.Symbol:
        self.fresh += 1
        return index_symbol(f"l{self.fresh}")

    def _hint(self, symbol: sp.Symbol, statements: Sequence[Statement], cls: sp.Symbol, suffix: str) -> None:
        """Remember a tensor's axis that the loop runs over, to name it after."""
        for statement in statements:
            index = self.classes.loop(statement, cls)
            for access in (statement.target, *statement.reads()):
                if index is not None and index in access.indices:
                    self.hints[symbol] = (access.name, access.indices.index(index), suffix)
                    return

    # ---- the outermost level

    def nests(self, items: Sequence[Statement]) -> list[Nest]:
        waiting = list(items)
        result: list[Nest] = []
        while waiting:
            ready = [s for k, s in enumerate(waiting) if not s.loops and self._is_ready(waiting, k)]
            if ready:
                waiting = [s for s in waiting if s not in ready]
                result.append(Nest((), self._block(ready), (), tuple(ready)))
                continue
            head = next(s for s in waiting if s.loops)
            choice = self._outermost(head, waiting)
            if choice is None:
                result.append(Nest((), self._block([head]), (), (head,)))
                waiting.remove(head)
                continue
            cls, before, inside = choice
            for one in before:
                result += self.nests([one])
            result.append(self._nest(cls, inside))
            waiting = [s for s in waiting if s not in inside and s not in before]
        return result

    def _is_ready(self, items: Sequence[Statement], position: int) -> bool:
        mine = items[position]
        touched = {a.name for a in (*mine.reads(), *mine.writes)}
        return not any(touched & {a.name for a in s.writes} for s in items[:position])

    def _outermost(
        self, head: Statement, items: Sequence[Statement]
    ) -> tuple[sp.Symbol, tuple[Statement, ...], tuple[Statement, ...]] | None:
        best: tuple[tuple[bool, int], sp.Symbol, tuple[Statement, ...], tuple[Statement, ...]] | None = None
        for index in head.loops:
            cls = self.classes.of(index)
            parts = split(items, cls, self.classes, self._may_run_in_parallel, pieces=True)
            if not any(s.product is not None for s in parts.inside):
                parts = split(items, cls, self.classes, self._may_run_in_parallel)
            if head not in parts.inside:
                continue
            inside = self._without_strays(parts.inside, items)
            stray = head not in inside
            if stray:
                inside = parts.inside
            before = tuple(f for f in parts.before if any(f.target.name == s.target.name for s in inside))
            score = (not stray, sum(self._weight(s, cls) for s in inside))
            if best is None or score > best[0]:
                best = (score, cls, before, inside)
        return None if best is None else best[1:]

    def _without_strays(self, inside: tuple[Statement, ...], items: Sequence[Statement]) -> tuple[Statement, ...]:
        """Leave what only later nests read to them, so that it need not be kept."""
        kept = list(inside)
        found = True
        while found:
            found = False
            for one in reversed(kept):
                name = one.target.name
                readers = [s for s in items if s.target.name != name and any(a.name == name for a in s.reads())]
                if readers and not any(r in kept for r in readers):
                    kept = [s for s in kept if s.target.name != name]
                    found = True
                    break
        return tuple(kept)

    def _weight(self, statement: Statement, cls: sp.Symbol) -> int:
        index = self.classes.loop(statement, cls)
        if statement.product is not None:
            product = statement.product
            return 2 if index in product.n else 3 if index in product.m else 4
        return 2 if index in statement.target_indices() else 1

    def _may_run_in_parallel(self, statement: Statement, index: sp.Symbol) -> bool:
        if index in statement.target_indices():
            return True
        if statement.action != "accumulate" or statement.product is not None or not statement.injective:
            return False
        if any(a.has(sp.Function) for a in statement.target.indices):
            return False
        size = sp.Mul(*self.shapes[statement.target.name])
        return self._typical(size) * 16 <= self._typical(self.capacity)

    def _typical(self, expr: sp.Expr) -> float:
        return float(sp.sympify(expr, strict=True).xreplace(dict(self.typical)).evalf())

    def _nest(self, cls: sp.Symbol, inside: tuple[Statement, ...]) -> Nest:
        statements = inside
        parallel: list[Loop] = []
        across = tuple(dict.fromkeys(s.target.name for s in inside if self._index(s, cls) not in s.target_indices()))
        current: sp.Symbol | None = cls
        tile: sp.Symbol | None = None
        while current is not None:
            if not self._runs_plain(statements, current):
                tile = current
                break
            loop, statements = self._peel(statements, current, "parallel")
            parallel.append(loop)
            current = self._next_parallel(statements, across)
        if tile is None:
            tile = self._tile_for_products(statements, across)
        if tile is not None:
            loop, statements = self._tile(statements, tile)
            parallel.append(loop)
        body = self._block(statements)
        return Nest(tuple(parallel), body, across, inside)

    def _index(self, statement: Statement, cls: sp.Symbol) -> sp.Symbol:
        index = self.classes.loop(statement, cls)
        assert index is not None
        return index

    def _runs_plain(self, statements: Sequence[Statement], cls: sp.Symbol) -> bool:
        """May the loop run one iteration at a time, without taking rows from a product or vectors from a loop?"""
        if all(len(s.loops) == 1 for s in statements) or not self._runs_over_one_range(statements, cls):
            return False
        for statement in statements:
            index = self._index(statement, cls)
            product = statement.product
            if product is not None:
                run = next((r for r in (product.m, product.n, product.k) if index in r), ())
                if run and (len(run) == 1 or index == run[-1] or index in product.k):
                    return False
            elif len(statement.loops) > 1 and index == innermost(statement):
                return False
        return True

    def _runs_over_one_range(self, statements: Sequence[Statement], cls: sp.Symbol) -> bool:
        return len({loop_bounds(s, self._index(s, cls)) for s in statements}) == 1

    def _next_parallel(self, statements: Sequence[Statement], across: Sequence[str]) -> sp.Symbol | None:
        for index in statements[0].loops:
            cls = self.classes.of(index)
            if self._holds_all(statements, cls, across, pieces=False) and self._runs_plain(statements, cls):
                return cls
        return None

    def _holds_all(self, statements: Sequence[Statement], cls: sp.Symbol, across: Sequence[str], pieces: bool) -> bool:
        if any(self.classes.loop(s, cls) is None for s in statements):
            return False
        parts = split(statements, cls, self.classes, lambda s, i: True, pieces)
        if len(parts.inside) != len(statements):
            return False
        return all(self._index(s, cls) in s.target_indices() for s in statements if s.target.name not in across)

    def _tile_for_products(self, statements: Sequence[Statement], across: Sequence[str]) -> sp.Symbol | None:
        products = [s for s in statements if s.product is not None]
        for statement in products[:1]:
            assert statement.product is not None
            for index in [i for i in (*statement.product.m, *statement.product.n) if i in statement.loops]:
                cls = self.classes.of(index)
                if self._holds_all(statements, cls, across, pieces=True):
                    return cls
        return None

    def _peel(self, statements: Sequence[Statement], cls: sp.Symbol, mode: str) -> tuple[Loop, tuple[Statement, ...]]:
        """A loop over the class without its body, and the statements inside it."""
        first = statements[0]
        bounds = loop_bounds(first, self._index(first, cls))
        assert bounds is not None
        symbol = self.symbol(cls)
        self._hint(symbol, statements, cls, "")
        inner = tuple(self._inside(s, self._index(s, cls), symbol) for s in statements)
        start = self._tile_of(bounds[0])
        if start is not None:
            self.in_tile[symbol] = start
        loop = Loop(symbol, bounds[0], bounds[1], Block(()), "parallel" if mode == "parallel" else "serial")
        return loop, inner

    def _tile_of(self, lower: Sequence[sp.Expr]) -> sp.Symbol | None:
        return next((e for e in lower if isinstance(e, sp.Symbol) and e in self.tiles), None)

    def _inside(self, statement: Statement, index: sp.Symbol, symbol: sp.Symbol) -> Statement:
        others = [i for i in statement.loops if i != index]
        kept = tuple(c for c in statement.domain if index not in c.expr.free_symbols or index_set(c.expr, others))
        renamed = replace(statement, domain=kept).over({index: symbol})
        return replace(renamed, loops=tuple(i for i in renamed.loops if i != symbol))

    def _tile(self, statements: Sequence[Statement], cls: sp.Symbol) -> tuple[Loop, tuple[Statement, ...]]:
        """A loop over tiles of the class, and the statements with the class's loop cut to one tile."""
        bounds = self._range(statements, cls)
        start, stop = self.symbol(cls), self.symbol(cls)
        self._hint(start, statements, cls, "_first")
        self._hint(stop, statements, cls, "_last")
        size = self._tile_size(statements, cls)
        self.tiles[start] = (stop, size)
        inner = []
        for statement in statements:
            index = self._index(statement, cls)
            others = [i for i in statement.loops if i != index]
            whole = loop_bounds(statement, index) == bounds
            kept = tuple(
                c
                for c in statement.domain
                if not whole or index not in c.expr.free_symbols or index_set(c.expr, others)
            )
            cut = (Constraint(index - start), Constraint(stop - 1 - index))
            inner.append(replace(statement, domain=(*cut, *kept)))
        loop = Loop(start, bounds[0], bounds[1], Block(()), "tile", sp.Integer(size), stop)
        return loop, tuple(inner)

    def _range(self, statements: Sequence[Statement], cls: sp.Symbol) -> Bounds:
        """The bounds of a loop that holds all the statements: their own, or those of the box that holds their parts."""
        bounds = loop_bounds(statements[0], self._index(statements[0], cls))
        assert bounds is not None
        if self._runs_over_one_range(statements, cls):
            return bounds
        return bounds[0][:1], bounds[1][:1]

    def _rows_that_fit(self, statements: Sequence[Statement], cls: sp.Symbol) -> int:
        """How many rows of the largest operand made here, at representative sizes, take no more than a tile may."""
        rows = [
            self._typical(extent)
            for s in statements
            if any(other.product is not None and s.target.name in _operands(other) for other in statements)
            for axis, index in enumerate(s.target.indices)
            if index == self.classes.loop(s, cls)
            for extent in [sp.Mul(*(e for k, e in enumerate(self.shapes[s.target.name]) if k != axis))]
        ]
        fit = TILE_ELEMENTS // int(max(rows, default=1))
        return max(LEAST_TILE, 1 << max(fit, 1).bit_length() - 1)

    def _tile_size(self, statements: Sequence[Statement], cls: sp.Symbol) -> int:
        products = {s.target.name for s in statements if s.product is not None}
        if products:
            chained = any(products & {a.name for a in s.reads()} for s in statements)
            return min(CHAIN_TILE if chained else PRODUCT_TILE, self._rows_that_fit(statements, cls))
        return VECTOR_TILE if all(len(s.loops) == 1 for s in statements) else COLUMN_TILE

    # ---- inside a nest

    def _block(self, items: Sequence[Statement]) -> Block:
        nodes: list[Node] = []
        waiting = list(items)
        while waiting:
            position = next((k for k, s in enumerate(waiting) if self._is_leaf(s) and self._is_ready(waiting, k)), None)
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
        return not statement.loops or statement.product is not None

    def _may_tile(self, items: Sequence[Statement]) -> bool:
        return any(self._tile_candidates(s) for s in items)

    def _tile_candidates(self, statement: Statement) -> tuple[sp.Symbol, ...]:
        """The sides of a product that may be tiled: its rows or columns; then, over a map computed again, its sum."""
        product = statement.product
        if product is None:
            return ()
        if not any(self._is_cut(statement, i) for i in statement.loops):
            return tuple(i for i in (*product.m, *product.n) if i in statement.loops)
        again = any("_again" in a.name for a in (product.left, product.right))
        return product.k if again and not any(self._is_cut(statement, i) for i in product.k) else ()

    def _is_cut(self, statement: Statement, index: sp.Symbol) -> bool:
        bounds = loop_bounds(statement, index)
        return bounds is not None and self._tile_of(bounds[0]) is not None

    def _tiled(self, items: list[Statement]) -> tuple[list[Node], list[Statement]] | None:
        """A serial loop over tiles of rows that the most statements, products among them, can share."""
        best: tuple[int, sp.Symbol] | None = None
        head = next(s for s in items if self._tile_candidates(s))
        for index in self._tile_candidates(head):
            cls = self.classes.of(index)
            parts = split(items, cls, self.classes, lambda s, i: True, pieces=True)
            if head in parts.inside and len(parts.inside) > 1 and (best is None or len(parts.inside) > best[0]):
                best = (len(parts.inside), cls)
        if best is None:
            return None
        parts = split(items, best[1], self.classes, lambda s, i: True, pieces=True)
        early, late = self._around(items, parts.after, parts.inside)
        loop, inner = self._tile(parts.inside, best[1])
        nodes = list(self._block([*parts.before, *early, *self._fills(parts.inside, best[1])]).nodes)
        nodes.append(replace(loop, body=self._block(inner)))
        return nodes, late

    def _fills(self, statements: Sequence[Statement], cls: sp.Symbol) -> list[Statement]:
        """Zeros for the products that a tiled loop adds up piece by piece."""
        found = []
        for s in statements:
            if s.product is not None and self._index(s, cls) in s.product.k:
                loops = s.target_indices()
                others = [i for i in s.loops if i not in loops]
                domain = tuple(c for c in s.domain if not index_set(c.expr, others))
                fill = replace(s, action="assign", value=sp.S.Zero, loops=loops, domain=domain, product=None)
                found.append(fill)
        return found

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
        position = next(k for k, s in enumerate(items) if not self._is_leaf(s) and self._is_ready(items, k))
        head = items[position]
        best: tuple[tuple[int, int], sp.Symbol] | None = None

        def joins(statement: Statement, index: sp.Symbol) -> bool:
            if statement.product is not None:
                return False
            return len(statement.loops) == 1 or index != innermost(statement)

        for index in head.loops:
            if loop_bounds(head, index) is None:
                continue
            parts = split(items, self.classes.of(index), self.classes, joins)
            if head in parts.inside:
                axis = index in head.target_indices()
                score = (len(parts.inside), int(axis))
                if best is None or score > best[0]:
                    best = (score, self.classes.of(index))
        if best is None:
            index = next(i for i in head.loops if loop_bounds(head, i) is not None)
            loop, inner = self._peel([head], self.classes.of(index), "serial")
            return [replace(loop, body=self._block(inner))], [s for s in items if s is not head]
        parts = split(items, best[1], self.classes, joins)
        loop, inner = self._peel(parts.inside, best[1], "serial")
        nodes = list(self._block(parts.before).nodes) if parts.before else []
        nodes.append(replace(loop, body=self._block(inner)))
        return nodes, list(parts.after)

    # ---- leaves

    def _leaf(self, statement: Statement) -> Node:
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
                symbol = self.symbol(index)
                start = self._tile_of(bounds[0])
                if start is not None:
                    self.in_tile[symbol] = start
                where[index] = symbol
                names.append(symbol)
                low, high = self._reach(s, index)
                lower.append((*bounds[0][:1], *low))
                upper.append((*bounds[1][:1], *high))
            spans.append(Span(tuple(names), tuple(lower), tuple(upper)))
        return Contract(
            s.target.xreplace(where), product.left.xreplace(where), product.right.xreplace(where),
            spans[0], spans[1], spans[2], product.alpha, any(i in self.in_tile for i in spans[2].indices), s.needs,
            s.equation,
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
            start = self._tile_of(ends[0]) if ends is not None else None
            if start is None:
                continue
            stop = self.tiles[start][0]
            for bounds, sign, found in zip(bounds_of(index, [constraint]), (-1, 1), (lowest, highest), strict=True):
                for bound in bounds:
                    step = slope(bound, other)
                    if step in (1, -1):
                        found.append(sp.expand(bound.xreplace({other: stop - 1 if step == sign else start})))
        return tuple(lowest), tuple(highest)


def _operands(statement: Statement) -> tuple[str, ...]:
    product = statement.product
    return () if product is None else (product.left.name, product.right.name)


def total(loops: Sequence[Loop]) -> sp.Expr:
    """The number of iterations of nested parallel loops, tiles counted as one each."""
    result: sp.Expr = sp.S.One
    for loop in loops:
        extent = sp.expand(loop.upper[0] - loop.lower[0])
        result *= CeilDiv(extent, loop.step) if loop.step != 1 else extent
    return result

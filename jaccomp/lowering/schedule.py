"""Statements to nests: which statements share which loops, which loops run in parallel, which are tiled.

    mean[n] = Σ_k x[n,k];  y[n,i] = x[n,i] - mean[n]
        ->   parallel n: { mean = 0; for k: mean += x; for i: y = x - mean }

A nest takes the class of loops that most statements can share, axes before reductions; a class that would rather be
innermost, or that a matrix product needs as rows, is tiled instead. Inside, the same choice is made again, level by
level (`body`).

Input: statements in dependency order. Output: nests, each with its parallel loops, its body over full tensors, and
what it reduces across them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.lowering.body import Body
from jaccomp.lowering.fusion import innermost, is_fill, is_ready, loop_bounds, split
from jaccomp.lowering.ir import (
    Block,
    CeilDiv,
    Greatest,
    Loop,
)
from jaccomp.lowering.statements import SHARE, Statement
from jaccomp.lowering.tabulate import is_table
from jaccomp.lowering.tiling import Loops

Choice = tuple[sp.Symbol, tuple[Statement, ...], tuple[Statement, ...]]
"""A class of loops for a nest, the fills that must run before it, and the statements inside."""
ENOUGH = 64
"""Parallel iterations at typical sizes that are enough for any machine."""
FEW = 64
"""A statement with this many times fewer iterations than another has no say in which loop is innermost."""
TILES = 32
"""Tiles of rows that are made ready together: enough for the threads of many machines."""
MADE = 1 << 12
"""Numbers that are made ready for the rows of one tile."""


@dataclass(frozen=True, slots=True)
class Nest:
    """One fused nest before storage: its parallel loops, its body over full tensors, what it reduces across them."""

    parallel: tuple[Loop, ...]
    body: Block
    across: tuple[str, ...]
    statements: tuple[Statement, ...]


class Scheduler:
    """Chooses the nests of one lowering. `capacity` is the number of elements of its inputs and outputs."""

    def __init__(self, loops: Loops, capacity: sp.Expr) -> None:
        self.loops = loops
        self.capacity = capacity
        self.body = Body(loops)

    def nests(self, items: Sequence[Statement]) -> list[Nest]:
        waiting = list(items)
        result: list[Nest] = []
        while waiting:
            ready = [s for k, s in enumerate(waiting) if not s.loops and is_ready(waiting, k)]
            if ready:
                waiting = [s for s in waiting if s not in ready]
                result.append(Nest((), self.body.block(ready), (), tuple(ready)))
                continue
            head = next(s for s in waiting if s.loops)
            choice = self._outermost(head, waiting)
            if choice is None:
                result.append(Nest((), self.body.block([head]), (), (head,)))
                waiting.remove(head)
                continue
            cls, before, inside = choice
            for one in before:
                result += self.nests([one])
            result.append(self._nest(cls, inside))
            waiting = [s for s in waiting if s not in inside and s not in before]
        return result

    def _outermost(self, head: Statement, items: Sequence[Statement]) -> Choice | None:
        found: list[tuple[tuple[bool, int], Choice]] = []
        for index in head.loops:
            cls = self.loops.classes.of(index)
            parts = split(items, cls, self.loops.classes, self._may_run_in_parallel, pieces=True)
            if not any(s.product is not None for s in parts.inside):
                parts = split(items, cls, self.loops.classes, self._may_run_in_parallel)
            if head not in parts.inside:
                continue
            if is_table(head) and len(head.loops) == 1:  # one line, which is kept at no cost
                parts = replace(parts, inside=self._beside(head, parts.inside))
            inside = self._without_strays(parts.inside, items)
            stray = head not in inside
            if stray:
                inside = parts.inside
            inside = self._without_sums(head, inside, cls)
            before = tuple(f for f in parts.before if any(f.target.name == s.target.name for s in inside))
            score = (not stray, sum(self._weight(s, cls) for s in inside))
            found.append((score, (cls, before, inside)))
        if not found:
            return None
        highest, best = max(found, key=lambda one: one[0])
        return self._widest(best, [choice for score, choice in found if score[0] == highest[0]])

    def _widest(self, best: Choice, choices: Sequence[Choice]) -> Choice:
        """Of the choices that hold what the best one holds, fills apart, the one with the most parallel iterations.

        Of those with `ENOUGH`, the one that goes through memory from its start to its end. It costs sums over the
        parallel loops. What is tiled stays so.
        """
        work = [s for s in best[2] if not is_fill(s)]
        if not self._runs_plain(best[2], best[0]) or any(s.product is not None for s in work):
            return best
        alike = [c for c in choices if [s for s in c[2] if not is_fill(s)] == work]
        return (
            max([best, *alike], key=lambda c: (min(ENOUGH, self._width(c)), self._leads(c))) if len(alike) > 1 else best
        )

    def _leads(self, choice: Choice) -> float:
        """How many elements, at representative sizes, the accesses have that a choice goes through in order."""
        cls, _, statements = choice
        led = (
            a.name
            for s in statements
            for a in (s.target, *s.reads())
            if a.indices and a.indices[0] == self.loops.classes.loop(s, cls)
        )
        return sum(self.loops.value(sp.Mul(*self.loops.shapes[name])) for name in led)

    def _width(self, choice: Choice) -> float:
        """The parallel iterations of a choice at representative sizes; of one that would be tiled, 1."""
        cls, _, statements = choice
        across = self._across(statements, cls)
        width, current = 1.0, cls
        while current is not None and self._runs_plain(statements, current):
            loop, statements = self.loops.peel(statements, current, "parallel")
            extent = sp.expand(loop.upper[0] - loop.lower[0]).xreplace(dict(self.loops.typical))
            width *= float(extent) if extent.is_number else 1.0
            current = self._next_parallel(statements, across)
        return width

    def _beside(self, head: Statement, inside: Sequence[Statement]) -> tuple[Statement, ...]:
        """The statements that run as seldom as a table, and touch nothing that the others write before them."""
        kept: list[Statement] = []
        left: set[str] = set()
        for statement in inside:
            touched = {a.name for a in (*statement.reads(), *statement.writes)}
            if self._is_seldom(head, statement) or touched & left:
                left |= {w.name for w in statement.writes}
            else:
                kept.append(statement)
        return tuple(kept)

    def _is_seldom(self, head: Statement, other: Statement) -> bool:
        """Does a statement run so much more often that a table before it has no say in its loops?"""
        return self.loops.iterations(other) >= FEW * self.loops.iterations(head)

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

    def _without_sums(self, head: Statement, inside: tuple[Statement, ...], cls: sp.Symbol) -> tuple[Statement, ...]:
        """Part products from sums over their rows that take nothing from them, and may run along the other axes.

        parallel n: { ct_x[n,:] = ct_y W; ct_b += ct_y[n,:] }   ->   parallel n: ct_x = ct_y W;  parallel o: ct_b = ..
        """
        if not any(s.product is not None and not s.product.tiled for s in inside):
            return inside
        made = {w.name for s in inside for w in s.writes}
        apart = {
            s
            for s in inside
            if s.product is None
            and self.loops.index(s, cls) not in s.target_indices()
            and not made & {a.name for a in s.reads() if a.name != s.target.name}
            and not any(a.name == s.target.name for other in inside if other is not s for a in other.reads())
        }
        return tuple(s for s in inside if (s in apart) == (head in apart))

    def _weight(self, statement: Statement, cls: sp.Symbol) -> int:
        index = self.loops.classes.loop(statement, cls)
        if statement.product is not None and statement.product.tiled:
            if not statement.product.side(index) and not (statement.product.m and statement.product.n):
                return 5  # each iteration has a row of its own, which the parts of a sum would share
            return 4 if index in self.loops.largest_side(statement)[:1] else 2
        if statement.product is not None:
            product = statement.product
            return 2 if index in product.n else 3 if index in product.m else 4
        return 2 if index in statement.target_indices() else 1

    def _may_run_in_parallel(self, statement: Statement, index: sp.Symbol) -> bool:
        if index in statement.target_indices():
            return True
        product = statement.product
        adds = product.tiled and product.adds if product is not None else statement.action == "accumulate"
        if not adds or not statement.injective:
            return False
        if any(a.has(sp.Function) for a in statement.target.indices):
            return False
        size = sp.Mul(*self.loops.shapes[statement.target.name])
        return self.loops.value(size) * SHARE <= self.loops.value(self.capacity)

    def _nest(self, cls: sp.Symbol, inside: tuple[Statement, ...]) -> Nest:
        statements = inside
        parallel: list[Loop] = []
        across = self._across(inside, cls)
        current: sp.Symbol | None = cls
        tile: sp.Symbol | None = None
        rows = self._prepared(inside, cls, across)
        if rows is not None:
            loop, statements = self.loops.tile(inside, cls, self._rows_at_once(inside, cls, rows))
            first = [s for s, kept in zip(statements, inside, strict=True) if kept in rows]
            nodes = self.body.block(first).nodes + self.body.block([s for s in statements if s not in first]).nodes
            return Nest((loop,), Block(nodes), across, inside)
        while current is not None:
            if not self._runs_plain(statements, current):
                tile = current
                break
            loop, statements = self.loops.peel(statements, current, "parallel")
            parallel.append(loop)
            current = self._next_parallel(statements, across)
        if tile is None:
            tile = self._tile_for_products(statements, across)
        columns = self._columns(statements, tile, across) if tile is not None else None
        if tile is not None and columns is not None:
            loops, statements = self.loops.grid(statements, tile, columns)
            parallel += loops
        while tile is not None and columns is None:
            loop, statements = self.loops.tile(statements, tile, around=total(parallel))
            parallel.append(loop)
            tiled = any(s.product is not None and s.product.tiled for s in statements)
            tile = self._tile_for_products(statements, across) if tiled else None
        body = self.body.block(statements)
        return Nest(tuple(parallel), body, across, inside)

    def _prepared(
        self, inside: Sequence[Statement], cls: sp.Symbol, across: Sequence[str]
    ) -> tuple[Statement, ...] | None:
        """What seldom runs and is read again and again along a loop that is further apart in memory than the nest's.

        parallel t: { for p: c[p] = cos(..); for n: for p: y[n,t,p] = c[p] x[n,t,p] }
            ->   tile t by B: { for t, p: c[t,p] = cos(..);  for n: for t, p: y[n,t,p] = c[t,p] x[n,t,p] }

        The others then go through B rows at once where they went from row to row, far apart.
        """
        if across or not self.loops.run_over_one_range(inside, cls) or any(s.product is not None for s in inside):
            return None
        often = tuple(s for s in inside if self._is_led(s, cls))
        seldom = tuple(s for s in inside if s not in often)
        made = {w.name for s in often for w in s.writes}
        if not often or not seldom or any(made & {a.name for a in s.reads()} for s in seldom):
            return None
        return seldom if all(self._is_seldom(s, other) for s in seldom for other in often) else None

    def _is_led(self, statement: Statement, cls: sp.Symbol) -> bool:
        """Does a loop along an axis of the target before the one of the class run in any order?"""
        axes = statement.target.indices
        index = self.loops.index(statement, cls)
        return index in axes and any(i in statement.loops for i in axes[: axes.index(index)])

    def _rows_at_once(self, inside: Sequence[Statement], cls: sp.Symbol, rows: Sequence[Statement]) -> sp.Expr:
        """How many rows are a tile: what is made for them stays in the first cache, and many threads have tiles."""
        shape = max((self.loops.shapes[s.target.name] for s in rows), key=len)
        bounds = loop_bounds(inside[0], self.loops.index(inside[0], cls))
        assert bounds is not None
        tiles = Greatest(sp.Integer(TILES), CeilDiv(sp.Mul(*shape), sp.Integer(MADE)))
        return CeilDiv(sp.expand(bounds[1][0] - bounds[0][0]), tiles)

    def _across(self, inside: Sequence[Statement], cls: sp.Symbol) -> tuple[str, ...]:
        """What is reduced over the loops of the class."""
        mine = (s.target.name for s in inside if self.loops.index(s, cls) not in s.target_indices())
        return tuple(dict.fromkeys(mine))

    def _runs_plain(self, statements: Sequence[Statement], cls: sp.Symbol) -> bool:
        """May the loop run one iteration at a time, without taking rows from a product or vectors from a loop?

        One that data chooses may not: each of its tiles goes through all the data.
        """
        if any(s.chosen is not None and self.loops.index(s, cls) == s.chosen[0] for s in statements):
            return False
        if all(len(s.loops) == 1 for s in statements) or not self.loops.run_over_one_range(statements, cls):
            return False
        work = {s: self.loops.iterations(s) for s in statements}
        most = max(work.values())
        for statement in statements:
            index = self.loops.index(statement, cls)
            product = statement.product
            if product is not None and product.tiled:
                if product.side(index):
                    return False
            elif product is not None:
                run = product.side(index)
                if run and (len(run) == 1 or index == run[-1] or index in product.k):
                    return False
            elif len(statement.loops) > 1 and index == innermost(statement) and work[statement] * FEW >= most:
                return False
        return True

    def _next_parallel(self, statements: Sequence[Statement], across: Sequence[str]) -> sp.Symbol | None:
        for index in statements[0].loops:
            cls = self.loops.classes.of(index)
            if self._holds_all(statements, cls, across, pieces=False) and self._runs_plain(statements, cls):
                return cls
        return None

    def _holds_all(self, statements: Sequence[Statement], cls: sp.Symbol, across: Sequence[str], pieces: bool) -> bool:
        if any(self.loops.classes.loop(s, cls) is None for s in statements):
            return False
        parts = split(statements, cls, self.loops.classes, lambda s, i: True, pieces)
        if len(parts.inside) != len(statements):
            return False
        return all(self.loops.index(s, cls) in s.target_indices() for s in statements if s.target.name not in across)

    def _columns(self, statements: Sequence[Statement], rows: sp.Symbol, across: Sequence[str]) -> sp.Symbol | None:
        """Beside rows, the side of a product whose tiles all statements share: few rows then have many tiles, too."""
        products = [s for s in statements if s.product is not None]
        tiled = any(s.product is not None and s.product.tiled for s in products)
        if across or not products or tiled or not self._holds_all(statements, rows, across, pieces=False):
            return None
        assert products[0].product is not None
        for run in (products[0].product.m, products[0].product.n):
            if len(run) > 1 or run[0] not in products[0].loops:
                continue
            cls = self.loops.classes.of(run[0])
            if cls != rows and self._holds_all(statements, cls, across, pieces=False):
                return cls
        return None

    def _tile_for_products(self, statements: Sequence[Statement], across: Sequence[str]) -> sp.Symbol | None:
        products = [s for s in statements if s.product is not None]
        for statement in products[:1]:
            assert statement.product is not None
            candidates = (*statement.product.m, *statement.product.n)
            if statement.product.tiled:
                candidates = self.loops.largest_side(statement)
            for index in [i for i in candidates if i in statement.loops and not self.loops.is_cut(statement, i)]:
                cls = self.loops.classes.of(index)
                if self._holds_all(statements, cls, across, pieces=True):
                    return cls
        return None


def total(loops: Sequence[Loop]) -> sp.Expr:
    """The number of iterations of nested parallel loops, tiles counted as one each."""
    result: sp.Expr = sp.S.One
    for loop in loops:
        extent = sp.expand(loop.upper[0] - loop.lower[0])
        result *= CeilDiv(extent, loop.step) if loop.step != 1 else extent
    return result

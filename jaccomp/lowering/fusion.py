"""Which statements may run inside one loop, and which loop each would rather have innermost.

A reader may share a loop with the writer of what it reads if it reads at the very index that was written: then the
value of one iteration is all it needs. A reduction over the loop may not be read inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.lowering.affine import bounds_of, index_set, slope, step
from jaccomp.lowering.classes import Classes
from jaccomp.lowering.statements import Statement
from jaccomp.notation import Access
from jaccomp.program import Constraint, index_symbol

Bounds = tuple[tuple[sp.Expr, ...], tuple[sp.Expr, ...]]
HERE = index_symbol("_here")


@dataclass(frozen=True, slots=True)
class Split:
    """Statements around one loop: fills that must run before it, those inside, and the rest, which run after."""

    before: tuple[Statement, ...]
    inside: tuple[Statement, ...]
    after: tuple[Statement, ...]


def relevant(statement: Statement, index: sp.Symbol) -> tuple[Constraint, ...]:
    """The inequalities that bound `index` once every other loop they name is outside it."""
    others = [i for i in statement.loops if i != index]
    return tuple(c for c in statement.domain if index in c.expr.free_symbols and not index_set(c.expr, others))


def loop_bounds(statement: Statement, index: sp.Symbol) -> Bounds | None:
    """The bounds of `index` as the next loop of the statement; None if it has none yet."""
    lower, upper = bounds_of(index, relevant(statement, index))
    return (lower, upper) if lower and upper else None


def is_ready(items: Sequence[Statement], position: int) -> bool:
    """May the statement run before those that precede it?"""
    mine = items[position]
    touched = {a.name for a in (*mine.reads(), *mine.writes)}
    return not any(touched & {a.name for a in s.writes} for s in items[:position])


def in_one_box(one: Bounds, other: Bounds) -> bool:
    """Do two loops run over parts of one range? The first bound of each is that of its box."""
    return bool(one[0][0] == other[0][0] and one[1][0] == other[1][0])


def split(
    items: Sequence[Statement],
    cls: sp.Symbol,
    classes: Classes,
    joins: Callable[[Statement, sp.Symbol], bool],
    pieces: bool = False,
) -> Split:
    """The statements that one loop of class `cls` can hold, in order, `joins` permitting.

    With `pieces`, the loop will be cut into tiles, and a statement over a part of its range may join as well.
    """
    before: list[Statement] = []
    inside: list[tuple[Statement, sp.Symbol]] = []
    after: list[Statement] = []
    fills: dict[str, list[Statement]] = {}
    blocked: set[str] = set()
    bounds: Bounds | None = None
    for statement in items:
        index = classes.loop(statement, cls)
        touched = {a.name for a in (*statement.reads(), *statement.writes)}
        mine = loop_bounds(statement, index) if index is not None else None
        if (
            index is not None
            and mine is not None
            and (bounds is None or mine == bounds or (pieces and in_one_box(mine, bounds)))
            and not touched & blocked
            and joins(statement, index)
            and all(_aligned(u, i, statement, index, classes) for u, i in inside)
        ):
            needed = [f for name in sorted(touched) for f in fills.get(name, ())]
            if index not in _settled(statement) or not needed:
                bounds = mine
                before += [f for f in needed if f not in before]
                inside.append((statement, index))
                continue
        if index is None and is_fill(statement):
            fills.setdefault(statement.target.name, []).append(statement)
            after.append(statement)
            continue
        after.append(statement)
        blocked |= {a.name for a in statement.writes}
    return Split(tuple(before), tuple(s for s, _ in inside), tuple(s for s in after if s not in before))


def _settled(statement: Statement) -> tuple[sp.Symbol, ...]:
    return statement.target_indices()


def is_fill(statement: Statement) -> bool:
    return statement.action == "assign" and not statement.value.has(Access) and not statement.guards


def _aligned(writer: Statement, there: sp.Symbol, reader: Statement, here: sp.Symbol, classes: Classes) -> bool:
    """Does each iteration of the shared loop touch, in the reader, only what the writer wrote in it?"""
    if _are_pieces(writer, reader):
        return True
    for written in writer.writes:
        for access in (*reader.reads(), *reader.writes):
            if access.name != written.name:
                continue
            if there not in writer.target_indices():
                both = reader.action == writer.action == "accumulate" and access == reader.target
                if both and reader.target not in _value_reads(reader):
                    continue
                return False
            if not any(
                there in one.free_symbols
                and _as_classes(one, there, writer, classes) == _as_classes(other, here, reader, classes)
                for one, other in zip(written.indices, access.indices, strict=True)
            ):
                return False
    return True


def _are_pieces(one: Statement, other: Statement) -> bool:
    """Are the two assigned parts of one equation, which do not meet?"""
    parts = one.equation is other.equation and one.action == other.action == "assign"
    return parts and not is_fill(one) and not is_fill(other)


def _value_reads(statement: Statement) -> tuple[sp.Expr, ...]:
    return tuple(statement.value.atoms(Access))


def _as_classes(expr: sp.Expr, index: sp.Symbol, statement: Statement, classes: Classes) -> sp.Expr:
    where: dict[sp.Expr, sp.Expr] = {i: classes.of(i) for i in statement.loops if i in classes.parent}
    where[index] = HERE
    return expr.xreplace(where)


def innermost(statement: Statement) -> sp.Symbol | None:
    """The loop that would rather be innermost: the one along which most accesses are contiguous.

    The target counts twice, and an access in more loops more. A bound index that slides along an axis (`S*h + r`) is
    short, so it comes last.
    """
    if not statement.loops:
        return None
    target = statement.target_indices()
    best: tuple[bool, int, bool, int] | None = None
    chosen: sp.Symbol | None = None
    weighted = [(a, 1) for a in statement.reads() if a.name != statement.target.name] + [(statement.target, 2)]
    for position, index in enumerate(statement.loops):
        if statement.chosen is not None and index == statement.chosen[0]:
            continue
        score, slides = 0, False
        for access, weight in weighted:
            if not access.indices:
                continue
            move = step(access.indices, index)
            traffic = 4 ** len(index_set(access, statement.loops))
            score += traffic * (weight if move == 1 else 0 if move == 0 else -2)
            slides = slides or (index not in target and _slides(statement, access, index, target))
        rank = (not slides, score, index in target, position)
        if best is None or rank > best:
            best, chosen = rank, index
    return chosen


def _slides(statement: Statement, access: Access, index: sp.Symbol, axes: Sequence[sp.Symbol]) -> bool:
    """Does the index move a window over an axis? `g*K + k` with k < K is no window, nor is what data choose."""
    bounds = loop_bounds(statement, index)
    extent = sp.expand(bounds[1][0] - bounds[0][0]) if bounds is not None else None
    return any(
        index in e.free_symbols and not e.has(Access) and any(slope(e, axis) != extent for axis in index_set(e, axes))
        for e in access.indices
    )

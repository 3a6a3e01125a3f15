"""Which loops of different statements are the same loop: a class of indices that meet in an access.

Two loops meet where one statement reads, at one dimension, what the other writes there with the same affine form
(`n` and `n`, `g*K + k` and `g*K + k`), or where both read one input so. A class holds at most one loop of a statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sympy as sp

from jaccomp.lowering.affine import index_set, is_affine, slope
from jaccomp.lowering.statements import Statement
from jaccomp.notation import Access


class Classes:
    """A union-find over the loops of statements; the representative is the earliest loop."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.parent: dict[sp.Symbol, sp.Symbol] = {}
        self.members: dict[sp.Symbol, dict[int, sp.Symbol]] = {}
        for number, statement in enumerate(statements):
            for index in statement.loops:
                self.parent[index] = index
                self.members[index] = {number: index}

    def of(self, index: sp.Symbol) -> sp.Symbol:
        while self.parent[index] != index:
            index = self.parent[index]
        return index

    def join(self, one: sp.Symbol, other: sp.Symbol) -> None:
        left, right = self.of(one), self.of(other)
        if left == right or set(self.members[left]) & set(self.members[right]):
            return
        self.parent[right] = left
        self.members[left].update(self.members.pop(right))

    def loop(self, statement: Statement, cls: sp.Symbol) -> sp.Symbol | None:
        """The loop of `statement` that belongs to the class, if any is left."""
        for index in statement.loops:
            if index in self.parent and self.of(index) == cls:
                return index
        return None


def classes(statements: Sequence[Statement], inputs: Iterable[str]) -> Classes:
    result = Classes(statements)
    written: dict[str, list[tuple[Statement, Access]]] = {}
    for statement in statements:
        for access in (*statement.writes, *statement.reads()):
            for other, their in written.get(access.name, ()):
                _meet(result, other, their, statement, access)
        for access in statement.writes:
            written.setdefault(access.name, []).append((statement, access))
    first: dict[str, list[tuple[Statement, Access]]] = {}
    names = set(inputs)
    for statement in statements:
        for access in statement.reads():
            if access.name in names:
                for other, their in first.get(access.name, ()):
                    _meet(result, other, their, statement, access)
                first.setdefault(access.name, []).append((statement, access))
    return result


def _meet(result: Classes, left: Statement, at: Access, right: Statement, there: Access) -> None:
    if left is right:
        return
    for one, other in zip(at.indices, there.indices, strict=True):
        pairs = _paired(one, left.loops, other, right.loops)
        for a, b in pairs:
            result.join(a, b)


def _paired(
    one: sp.Expr, loops: Sequence[sp.Symbol], other: sp.Expr, others: Sequence[sp.Symbol]
) -> list[tuple[sp.Symbol, sp.Symbol]]:
    """Pairs of loops with equal coefficients in two index expressions of the same form."""
    mine, theirs = index_set(one, loops), index_set(other, others)
    if len(mine) != len(theirs) or not mine or not is_affine(one, loops) or not is_affine(other, others):
        return []
    slopes = {slope(one, i): i for i in mine}
    found = {slope(other, i): i for i in theirs}
    if len(slopes) != len(mine) or set(slopes) != set(found):
        return []
    pairs = [(slopes[c], found[c]) for c in slopes]
    return pairs if sp.expand(one.xreplace(dict(pairs)) - other) == 0 else []

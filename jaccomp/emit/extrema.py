"""Extrema over windows of contiguous places, gone through window by window in registers.

for j: y[j] = -oo
for r: for s: for j (cut where the window leaves the array): y[j] = max(y[j], x[S j + r W + s])
    ->   one call for all j whose windows are whole, and one for each of the others, at both ends

A loop over j writes y for each r and s anew; whole vectors of y[j] stay where they are until they are done.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.lowering.affine import bounds_of, slope
from jaccomp.lowering.ir import (
    Accumulate,
    Assign,
    Guard,
    Loop,
    LowerBound,
    Node,
    Select,
    UpperBound,
    wanted_nodes,
)
from jaccomp.notation import Access
from jaccomp.program import Constraint

Ends = dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]


@dataclass(frozen=True, slots=True)
class Windows:
    """A fill and the loops after it: over `rows` (none where a window has one), `taps` and, innermost, the results.

    `value` is what an iteration looks at, in `steps` along results, rows and taps; `values` and `place` are what it
    may set: the extremum, and where it lies, a number that `moves` along the same.
    """

    fill: Loop
    nest: Loop
    rows: Loop | None
    taps: Loop
    results: Loop
    value: Access
    steps: tuple[sp.Expr, ...]
    values: Access
    place: Select | None
    moves: tuple[sp.Expr, ...]
    largest: bool

    @property
    def written(self) -> tuple[Access, ...]:
        """What the call sets: values, and places if they are asked for."""
        return (self.values,) if self.place is None else (self.values, self.place.target)

    @property
    def filled(self) -> tuple[Assign, ...]:
        """What is set before, of what the call sets, at the index of the results."""
        where: dict[sp.Expr, sp.Expr] = {self.fill.index: self.results.index}
        leaves = [leaf for leaf, _ in wanted_nodes(self.fill.body) if isinstance(leaf, Assign)]
        moved = (replace(leaf, target=leaf.target.xreplace(where)) for leaf in leaves)
        return tuple(leaf for leaf in moved if leaf.target in self.written)

    @property
    def around(self) -> tuple[Loop, ...]:
        return (self.taps,) if self.rows is None else (self.rows, self.taps)


def windows(fill: Node, nest: Node, local_names: Collection[str]) -> Windows | None:
    """Two neighbours in a block as extrema over windows; None if they are something else."""
    if not isinstance(fill, Loop) or not isinstance(nest, Loop):
        return None
    loops = _nested(nest)
    if len(loops) not in (2, 3) or any(loop.stop is not None for loop in (fill, *loops)):
        return None
    *around, results = loops
    found = _leaves(results)
    if found is None:
        return None
    extremum, place = found
    node = extremum if extremum is not None else place
    assert node is not None
    values = extremum.target if extremum is not None else place.best if place is not None else node.target
    value = node.value
    written = [leaf.target for leaf in found if leaf is not None] + [values]
    if not _is_plain(value, local_names) or not all(_is_line(t, results.index, local_names) for t in written):
        return None
    indices = (results.index, *(loop.index for loop in around))
    steps = _steps(value.indices[0], indices)
    if steps is None or steps[-1] != 1 or value.name in {t.name for t in written}:
        return None
    moves = _steps(place.position, indices) if place is not None else ()
    if moves is None:
        return None
    if not _run_free(around, results) or not _fills(fill, results, found):
        return None
    return Windows(
        fill, nest, around[0] if len(around) == 2 else None, around[-1], results, value, steps, values, place,
        moves, node.reducer in ("max", "argmax"),
    )  # fmt: skip


def _nested(loop: Loop) -> list[Loop]:
    """The loop and those that it holds alone, one in the other."""
    found = [loop]
    while len(found[-1].body.nodes) == 1 and isinstance(found[-1].body.nodes[0], Loop):
        found.append(found[-1].body.nodes[0])
    return found


def _leaves(loop: Loop) -> tuple[Accumulate | None, Select | None] | None:
    """What an innermost loop takes an extremum of, and what it selects: both of the same, of each at most one."""
    extremum: Accumulate | None = None
    place: Select | None = None
    for leaf, _ in wanted_nodes(loop.body):
        if isinstance(leaf, Accumulate) and leaf.reducer in ("max", "min") and extremum is None:
            extremum = leaf
        elif isinstance(leaf, Select) and place is None:
            place = leaf
        else:
            return None
    if extremum is not None and place is not None:
        alike = extremum.value == place.value and place.reducer == f"arg{extremum.reducer}"
        return (extremum, place) if alike else None
    return (extremum, place) if extremum is not None or place is not None else None


def _is_plain(value: sp.Expr, local_names: Collection[str]) -> bool:
    """Is it one number of an array of reals?"""
    if not isinstance(value, Access) or value.is_integer or not value.indices or value.name in local_names:
        return False
    return not value.indices[0].has(Access)


def _is_line(target: Access, index: sp.Symbol, local_names: Collection[str]) -> bool:
    if not target.indices or target.name in local_names or target.indices[0].has(Access):
        return False
    return slope(target.indices[0], index) == 1


def _steps(expr: sp.Expr, indices: tuple[sp.Symbol, ...]) -> tuple[sp.Expr, ...] | None:
    """How far the expression moves with each index, none of them depending on another one."""
    found = [slope(expr, index) for index in indices]
    if any(step is None or not step.free_symbols.isdisjoint(indices) for step in found):
        return None
    return tuple(step for step in found if step is not None)


def _run_free(around: list[Loop], results: Loop) -> bool:
    """Do the loops of a window depend on nothing inside it, and the results' ends on them in a way that is known?"""
    indices = {loop.index for loop in (*around, results)}
    for loop in around:
        if any(not bound.free_symbols.isdisjoint(indices) for bound in (*loop.lower, *loop.upper)):
            return False
    ends: Ends = {loop.index: (loop.index, loop.index) for loop in around}
    inside = [{loop.index for loop in around} & bound.free_symbols for bound in (*results.lower, *results.upper)]
    return (
        all(len(found) <= 1 for found in inside)
        and all(slope(c.expr, loop.index) in (1, -1) for loop in around for c in _constraints(results, loop.index))
        and any(bound.free_symbols.isdisjoint(indices) for bound in results.lower)
        and any(bound.free_symbols.isdisjoint(indices) for bound in results.upper)
        and all(tightest(bound, ends, greatest=True) is not None for bound in results.lower)
        and all(tightest(bound, ends, greatest=False) is not None for bound in results.upper)
    )


def _fills(fill: Loop, results: Loop, found: tuple[Accumulate | None, Select | None]) -> bool:
    """Does the fill set all that the windows write, over the results' whole range, and nothing else?"""
    extremum, place = found
    written = {extremum.target} if extremum is not None else set()
    written |= {place.target, place.best, place.seen} if place is not None else set()
    leaves = [leaf for leaf, _ in wanted_nodes(fill.body)]
    if len(fill.lower) != 1 or len(fill.upper) != 1:
        return False
    if not all(isinstance(leaf, Assign) and leaf.value.is_number for leaf in leaves):
        return False
    where: dict[sp.Expr, sp.Expr] = {fill.index: results.index}
    filled = {leaf.target.xreplace(where) for leaf in leaves if isinstance(leaf, Assign)}
    own = fill.lower[0] in results.lower and fill.upper[0] in results.upper
    return own and filled == written and len(leaves) == len(written)


def tightest(bound: sp.Expr, ends: Ends, greatest: bool) -> sp.Expr | None:
    """A bound at the ends of loops where it is greatest, or least; None if that is not known.

    of LowerBound(S, s - P) the greatest, 0 <= s   ->   LowerBound(S, -P)
    """
    if bound.free_symbols.isdisjoint(ends):
        return bound
    if isinstance(bound, LowerBound | UpperBound):  # the less there is of e in c j + e >= 0, the less is left
        inner = tightest(bound.args[1], ends, greatest=False)
        known = bound.args[0].free_symbols.isdisjoint(ends)
        return bound.func(bound.args[0], inner) if inner is not None and known else None
    result = bound
    for index, (first, last) in ends.items():
        step = slope(bound, index)
        if step is None or step not in (-1, 0, 1):
            return None
        result = result.xreplace({index: last if (step == 1) == greatest else first})
    return sp.expand(result)


def cuts(results: Loop, index: sp.Symbol) -> tuple[tuple[sp.Expr, ...], tuple[sp.Expr, ...]]:
    """What the results' bounds leave of a window's loop at one result.

    LowerBound(S, s - P) <= j, that is S j + s - P >= 0   ->   s >= P - S j
    """
    return bounds_of(index, _constraints(results, index))


def _constraints(results: Loop, index: sp.Symbol) -> list[Constraint]:
    """The constraints on an index that the results' bounds stand for."""
    found = [
        _constraint(bound, results.index, lower)
        for bounds, lower in ((results.lower, True), (results.upper, False))
        for bound in bounds
        if index in bound.free_symbols
    ]
    return list(dict.fromkeys(found))


def _constraint(bound: sp.Expr, index: sp.Symbol, lower: bool) -> Constraint:
    """The constraint that a bound of an index stands for."""
    if isinstance(bound, LowerBound | UpperBound):
        return Constraint(sp.expand(bound.args[0] * index + bound.args[1]))
    return Constraint(sp.expand(index - bound if lower else bound - 1 - index))


def asks(loop: Loop) -> bool:
    """Does something inside run only where an output is wanted?"""
    return any(isinstance(node, Guard) or (isinstance(node, Loop) and asks(node)) for node in loop.body.nodes)

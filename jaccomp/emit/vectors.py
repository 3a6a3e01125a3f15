"""Loops of arithmetic and exponentials, which are written over whole vectors instead of being left to the C compiler.

for i: s += x[i] y[i]
    ->   for i by 4 vectors: { for lane in 0 .. 4: sums[lane] += x[i..] y[i..] };  s += total of sums

for i: { y[2 i] = x[2 i + 1];  y[2 i + 1] = -x[2 i] }
    ->   for i by a vector: pairs of y <- (the odd ones of pairs of x, minus the even ones)

A sum, or a maximum, then does not wait for itself, and a result can be stored past the cache from a register. What has
other functions, choices or gathers in it stays a loop over numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.emit.cse import Definition
from jaccomp.lowering.affine import divided, slope
from jaccomp.lowering.ir import Accumulate, Assign, Loop, wanted_nodes
from jaccomp.notation import Access
from jaccomp.program import accesses

SUMS = 16
"""Vectors that the sums of a loop may take of the registers."""
AT_ONCE = 4
"""Vectors of one step: enough additions under way to hide how long one takes."""


EACH = (sp.exp,)
"""Functions that the header has for each lane of a vector."""
START = {"sum": "0", "max": "-JC_INF", "min": "JC_INF"}
"""Where a reduction begins."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """How a loop reduces to a local, and for which outputs."""

    reducer: str
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vectors:
    """A loop over vectors: the locals it reduces to, what it assigns, what of that it reads, the vectors of a step.

    `named` are locals of one iteration; `pairs` are the accesses to one of two neighbours, each with the first of the
    two.
    """

    sums: dict[Access, Gathered]
    named: tuple[Access, ...]
    assigned: tuple[Access, ...]
    kept: frozenset[Access]
    pairs: dict[Access, Access]
    steps: int

    def width(self, access: Access) -> int:
        """Places of its array that an iteration goes on."""
        return 2 if access in self.pairs else 1


@dataclass(frozen=True, slots=True)
class Lanes:
    """How the body of a vector loop is spelled: the loop, its index, the names of what it reduces to and of what tells
    whether it streams, and how many lanes of a part there are.
    """

    of: Vectors
    index: sp.Symbol
    sums: dict[Access, str]
    streams: dict[Access, str]
    lane: str
    count: str = ""


def moves(expr: sp.Expr, index: sp.Symbol, moving: Collection[sp.Basic] = ()) -> bool:
    """Does an arithmetic expression change with the index, is it a vector? `moving` are names of vectors."""
    return any(index in a.free_symbols for a in accesses(expr)) or not expr.free_symbols.isdisjoint(moving)


def vectors(loop: Loop, local_names: Collection[str]) -> Vectors | None:
    """An innermost loop over contiguous arrays of sums, differences, products and exponentials; else None."""
    if loop.stop is not None:
        return None
    sums: dict[Access, Gathered] = {}
    named: dict[Access, None] = {}
    assigned: dict[Access, None] = {}
    leaves: list[tuple[Assign | Accumulate, tuple[str, ...]]] = []
    for leaf, outputs in wanted_nodes(loop.body):
        if not isinstance(leaf, Assign | Accumulate):
            return None
        leaves.append((leaf, outputs))
    read = [a for leaf, _ in leaves for a in accesses(leaf.value)]
    pairs = {**_pairs(read, loop.index), **_pairs(_stored(leaves), loop.index)}
    for leaf, outputs in leaves:
        target = leaf.target
        moving = {loop.index, *(a.base for a in named)}
        if not _is_arithmetic(leaf.value, loop.index, moving, pairs) or target.is_integer:
            return None
        if leaf.value.free_symbols.isdisjoint(moving):
            return None
        if isinstance(leaf, Accumulate) and leaf.reducer not in START:
            return None
        if target.name in local_names and isinstance(leaf, Assign):
            named[target] = None
        elif target.name in local_names or not target.indices:
            if not isinstance(leaf, Accumulate) or target.name not in local_names:
                return None
            sums[target] = Gathered(leaf.reducer, outputs)
        elif target in pairs:
            assigned.setdefault(pairs[target])
        elif slope(target.indices[0], loop.index) != 1 or target.indices[0].has(Access):
            return None
        elif isinstance(leaf, Assign):
            assigned[target] = None
        elif leaf.reducer != "sum":
            return None
    kept = _kept([leaf for leaf, _ in leaves], pairs)
    if not leaves or kept is None or named.keys() & sums.keys() or {s.name for s in sums} & {a.name for a in read}:
        return None
    steps = max(1, min(AT_ONCE, SUMS // len(sums))) if sums else 1
    return Vectors(sums, tuple(named), tuple(assigned), kept, pairs, steps)


def _kept(leaves: Sequence[Assign | Accumulate], pairs: Collection[Access]) -> frozenset[Access] | None:
    """What a statement assigns and later ones read at the same place; None where they read or write another place.

    Nothing reads a pair that is written.
    """
    written: dict[str, Assign | Accumulate] = {}
    kept: set[Access] = set()
    names = {leaf.target.name for leaf in leaves if leaf.target.indices}
    for leaf in leaves:
        for access in accesses(leaf.value):
            if access.name not in names:
                continue
            writer = written.get(access.name)
            if not isinstance(writer, Assign) or access != writer.target or access in pairs:
                return None
            kept.add(access)
        before = written.get(leaf.target.name)
        if before is not None and (leaf.target not in pairs or before.target == leaf.target):
            return None
        if leaf.target.indices:
            written[leaf.target.name] = leaf
    return frozenset(kept)


def _stored(leaves: Sequence[tuple[Assign | Accumulate, tuple[str, ...]]]) -> list[Access]:
    """The targets of which a pair could be stored at once: those that are assigned where the same is wanted."""
    wanted = {outputs for _, outputs in leaves}
    return [leaf.target for leaf, _ in leaves if isinstance(leaf, Assign)] if len(wanted) == 1 else []


def _pairs(found: Sequence[Access], index: sp.Symbol) -> dict[Access, Access]:
    """Accesses at two neighbouring places, which go on by two, each with the first of them."""
    placed: dict[tuple[str, sp.Expr], dict[int, Access]] = {}
    for access in found:
        if access.is_integer or not access.indices or slope(access.indices[0], index) != 2:
            continue
        start, place = divided(access.indices[0] - 2 * index, 2)
        placed.setdefault((access.name, start), {})[place] = access
    return {access: both[0] for both in placed.values() if len(both) == 2 for access in both.values()}


def _is_arithmetic(expr: sp.Expr, index: sp.Symbol, moving: Collection[sp.Basic], pairs: Collection[Access]) -> bool:
    if isinstance(expr, Access):
        if expr in pairs:
            return True
        if not expr.indices:
            return not expr.is_integer
        move = slope(expr.indices[0], index)
        return not expr.is_integer and not expr.indices[0].has(Access) and move in (0, 1)
    if expr.free_symbols.isdisjoint(moving):
        return True
    if isinstance(expr, (sp.Add, sp.Mul, *EACH)):
        return all(_is_arithmetic(a, index, moving, pairs) for a in expr.args)
    if isinstance(expr, sp.Pow):
        return bool(expr.exp.is_Integer and 0 < expr.exp <= 4) and _is_arithmetic(expr.base, index, moving, pairs)
    return False


def steady(expr: sp.Expr, moving: Callable[[sp.Expr], bool], first: int) -> tuple[sp.Expr, list[Definition]]:
    """What does not change in a loop, named factor by factor, so that a vector meets one number, and no choice of one.

    2 x[i] c / N   ->   t = 2 c / N;  t x[i]
    """
    made: list[Definition] = []

    def named(one: sp.Expr) -> sp.Expr:
        if isinstance(one, Access) or not one.args or not moving(one):
            return one
        args = [named(a) for a in one.args]
        still = [a for a in args if not moving(a)]
        several = len([a for a in still if not a.is_Number]) > 1 or any(isinstance(a, sp.Pow) for a in still)
        if (isinstance(one, sp.Mul) and several) or any(a.has(sp.Piecewise) for a in still):
            symbol = sp.Symbol(f"t{first + len(made)}", real=True)
            made.append((symbol, one.func(*still)))
            return one.func(symbol, *(a for a in args if moving(a)))
        return one.func(*args)

    return named(expr), made

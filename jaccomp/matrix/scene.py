"""What a matrix expression reads, and what its words mean: held indices, parts of tensors, nodes without a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp

from jaccomp.matrix.nodes import (
    Axis,
    BlockDiagonal,
    Entries,
    Identity,
    Literal,
    Node,
    OneHot,
    Ones,
    Scaled,
    parts,
)
from jaccomp.notation import Access
from jaccomp.program import Program, accesses, expand


@dataclass(frozen=True, slots=True)
class Leaf:
    """A read as it is written: by its name alone where `short`, and what it is a part of."""

    access: Access
    short: bool
    sizes: tuple[sp.Expr | None, ...]
    """Of each index the extent that it runs over; None where it is held."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the words of an expression mean: the program, letters of the indices held, nodes behind nameless symbols."""

    program: Program
    letters: Mapping[sp.Symbol, str]
    names: Mapping[sp.Expr, Node]
    extents: Mapping[sp.Symbol, sp.Expr]
    patterns: Mapping[str, frozenset[Any]] = field(default_factory=dict)

    def leaf(self, access: Access) -> Leaf:
        sizes = tuple(self.size(i) for i in access.indices)
        return Leaf(access, len(self.patterns.get(access.name, frozenset())) <= 1, sizes)

    def size(self, index: sp.Expr) -> sp.Expr | None:
        own = [s for s in index.free_symbols if s in self.extents]
        return self.extents[own[0]] if own else None

    def pattern(self, access: Access) -> tuple[sp.Expr | None, ...]:
        """What a read holds of each axis: an index, or where the part that is read begins."""
        return tuple(self.start(i) if self.is_held(i) else None for i in access.indices)

    def start(self, index: sp.Expr) -> sp.Expr:
        """An index less the axis that it runs over."""
        return expand(sp.Add(*(a for a in sp.Add.make_args(index) if a not in self.extents)))

    def is_held(self, index: sp.Expr) -> bool:
        """Does it depend on an index that is held, or on no axis at all?"""
        return self.size(index) is None or bool(index.free_symbols & set(self.letters))


def scene(program: Program, letters: Mapping[sp.Symbol, str], names: Mapping[sp.Expr, Node], node: Node) -> Scene:
    """The scene of a node: the extents of its axes, and which tensors it reads in more than one way."""
    every = [node, *names.values()]
    extents = {s: e for one in every for axis in axes_of(one) for s, e in axis}
    empty = Scene(program, letters, names, extents)
    patterns: dict[str, set[Any]] = {}
    for access in (a for one in every for a in reads_of(one)):
        patterns.setdefault(access.name, set()).add(empty.pattern(access))
    return replace(empty, patterns={name: frozenset(found) for name, found in patterns.items()})


def expressions(node: Node) -> Iterator[sp.Expr]:
    """Every scalar expression in a node, in the order in which it is written."""
    match node:
        case Entries(expr) | OneHot(expr) | Scaled(expr, _):
            yield expr
        case Literal(entries):
            yield from (one for row in entries for one in row)
    for inner in parts(node):
        yield from expressions(inner)


def reads_of(node: Node) -> Iterator[Access]:
    return (a for expr in expressions(node) for a in accesses(expr))


def blocks_of(node: Node) -> Iterator[tuple[sp.Symbol, sp.Expr]]:
    """The indices of diagonals of blocks, with their extents."""
    if isinstance(node, BlockDiagonal):
        yield from node.axis
    for inner in parts(node):
        yield from blocks_of(inner)


def axes_of(node: Node) -> Iterator[Axis]:
    match node:
        case Entries(_, rows, columns) | OneHot(_, columns, rows):
            yield from (rows, columns)
        case Ones(axis) | Identity(axis):
            yield axis
    for inner in parts(node):
        yield from axes_of(inner)

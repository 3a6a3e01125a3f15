"""The small language of matrix expressions, and the laws by which its constructors keep them short.

    node  = Entries | Ones | Identity | OneHot | Zero | Literal | BlockDiagonal
          | Diag(vector) | Transpose(vector) | Triangle(node)
          | Product(nodes) | Sum(nodes) | Hadamard(vectors) | Kron(nodes) | Stack(nodes) | Scaled(factor, node)

Every node is a matrix; a vector is a column. An axis is a tuple of (symbol, extent), the first the slowest, that counts
as one: `()` has one element. `Entries` is an array given entry by entry, by an expression in reads at these symbols;
what an expression holds that has no name of its own, a dot product say, is a symbol that stands for a node (`Names`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sympy as sp

from jaccomp.notation import Access

Axis = tuple[tuple[sp.Symbol, sp.Expr], ...]
Names = Mapping[sp.Expr, "Node"]


@dataclass(frozen=True, slots=True)
class Entries:
    """The array of `expr` over the symbols of both axes."""

    expr: sp.Expr
    rows: Axis
    columns: Axis = ()


@dataclass(frozen=True, slots=True)
class Ones:
    """The column of ones."""

    rows: Axis


@dataclass(frozen=True, slots=True)
class Identity:
    rows: Axis


@dataclass(frozen=True, slots=True)
class OneHot:
    """1 where the flat index over `axis` is `position`, else 0: a column, or a row for each element of `rows`."""

    position: sp.Expr
    axis: Axis
    rows: Axis = ()


@dataclass(frozen=True, slots=True)
class Zero:
    height: sp.Expr
    width: sp.Expr


@dataclass(frozen=True, slots=True)
class Literal:
    """A small matrix of scalars."""

    entries: tuple[tuple[sp.Expr, ...], ...]


@dataclass(frozen=True, slots=True)
class BlockDiagonal:
    """`block` for each element of `axis`, along the diagonal."""

    axis: Axis
    block: Literal


@dataclass(frozen=True, slots=True)
class Diag:
    vector: Node


@dataclass(frozen=True, slots=True)
class Transpose:
    """A row, from a column; matrices are transposed where they are made."""

    node: Node


@dataclass(frozen=True, slots=True)
class Triangle:
    """A matrix with 0 above its diagonal (`lower`), or below it."""

    node: Node
    lower: bool


@dataclass(frozen=True, slots=True)
class Product:
    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    addends: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Hadamard:
    """The entrywise product of columns."""

    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Kron:
    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """Blocks side by side, or one above the other."""

    blocks: tuple[Node, ...]
    sideways: bool


@dataclass(frozen=True, slots=True)
class Scaled:
    factor: sp.Expr
    node: Node


Node = (
    Entries | Ones | Identity | OneHot | Zero | Literal | BlockDiagonal | Diag | Transpose | Triangle | Product | Sum
    | Hadamard | Kron | Stack | Scaled
)  # fmt: skip


def extent(axis: Axis) -> sp.Expr:
    return sp.Mul(*(e for _, e in axis))


def is_column(node: Node) -> bool:
    """Is it a column by its kind? A product is one if its last factor is."""
    match node:
        case Entries(columns=()) | Ones() | OneHot(rows=()) | Hadamard():
            return True
        case Product(factors):
            return is_column(factors[-1])
        case Kron(addends) | Sum(addends):
            return all(is_column(one) for one in addends)
        case Scaled(node=inner):
            return is_column(inner)
        case _:
            return False


def transpose(node: Node) -> Node:
    """The transpose, pushed down to rows and to the axes of arrays: `(A B)ᵀ = Bᵀ Aᵀ`, `(x - z)ᵀ` as it is."""
    match node:
        case Transpose(inner):
            return inner
        case Identity() | Diag():
            return node
        case Zero(height, width):
            return Zero(width, height)
        case Literal(entries):
            return Literal(tuple(zip(*entries, strict=True)))
        case BlockDiagonal(axis, block):
            turned = transpose(block)
            assert isinstance(turned, Literal)
            return BlockDiagonal(axis, turned)
        case Entries(expr, rows, columns) if columns:
            return Entries(expr, columns, rows)
        case Scaled(factor, inner):
            return Scaled(factor, transpose(inner))
        case Product(factors):
            return product(transpose(one) for one in reversed(factors))
        case Sum(addends) if not is_column(node):
            return total(transpose(one) for one in addends)
        case Triangle(inner, lower):
            return Triangle(transpose(inner), not lower)
        case Kron(factors):
            return Kron(tuple(transpose(one) for one in factors))
        case Stack(blocks, sideways):
            return Stack(tuple(transpose(one) for one in blocks), not sideways)
        case _:
            return Transpose(node)


def product(factors: Iterable[Node]) -> Node:
    """A product without identities, its scalars in front."""
    flat: list[Node] = []
    scale: sp.Expr = sp.S.One
    identity: Node | None = None
    for one in factors:
        while isinstance(one, Scaled):
            scale, one = scale * one.factor, one.node
        if isinstance(one, Identity):
            identity = one
        else:
            flat += one.factors if isinstance(one, Product) else (one,)
    if not flat:
        assert identity is not None
        return scaled(scale, identity)
    return scaled(scale, flat[0] if len(flat) == 1 else Product(tuple(flat)))


def total(addends: Iterable[Node]) -> Node:
    """A sum: what is added before what is subtracted, the diagonal first, then what is shorter."""
    flat: list[Node] = []
    for one in addends:
        flat += one.addends if isinstance(one, Sum) else (one,)
    ordered = sorted(flat, key=lambda one: (is_negative(one), *_rank(one), length(one)))
    return ordered[0] if len(ordered) == 1 else Sum(tuple(ordered))


def scaled(factor: sp.Expr, node: Node) -> Node:
    if isinstance(node, Scaled):
        return scaled(factor * node.factor, node.node)
    return node if factor == 1 else Scaled(factor, node)


def hadamard(factors: Iterable[Node]) -> Node:
    """The entrywise product of columns over one axis; arrays are joined to one."""
    ordered = list(factors)
    arrays = [one for one in ordered if isinstance(one, Entries)]
    others: list[Node] = [one for one in ordered if not isinstance(one, Entries | Ones)]
    if arrays:
        others.insert(0, Entries(sp.Mul(*(one.expr for one in arrays)), arrays[0].rows))
    if not others:
        return ordered[0]
    return others[0] if len(others) == 1 else Hadamard(tuple(others))


def is_negative(node: Node) -> bool:
    return isinstance(node, Scaled) and bool(node.factor.could_extract_minus_sign())


def is_diagonal(node: Node) -> bool:
    return isinstance(node.node if isinstance(node, Scaled) else node, Identity | Diag)


def is_turned(expr: sp.Expr, rows: Axis, columns: Axis) -> bool:
    """Is it one read whose own first axis is the array's second?"""
    if not isinstance(expr, Access) or not rows or not columns:
        return False
    held = [
        [k for k, i in enumerate(expr.indices) if {s for s, _ in axis} & i.free_symbols] for axis in (rows, columns)
    ]
    return bool(held[0] and held[1]) and held[0][0] > held[1][0]


def _rank(node: Node) -> tuple[bool, bool, bool]:
    """What stands first in a sum: a diagonal, then arrays as they are, then transposed ones, then one-hots."""
    inner = node.node if isinstance(node, Scaled) else node
    is_array = isinstance(inner, Entries)
    return (
        not is_diagonal(node),
        isinstance(inner, Entries) and is_turned(inner.expr, inner.rows, inner.columns),
        isinstance(inner, OneHot) or not is_array,
    )


def length(node: Node) -> int:
    """The vectors and matrices that are written, and the signs around them; scalars are free."""
    match node:
        case Entries(expr):
            return _reads(expr)
        case OneHot() | Literal() | BlockDiagonal() | Ones() | Identity() | Zero():
            return 1
        case Diag(inner) | Transpose(inner) | Triangle(inner, _):
            return length(inner) + (not isinstance(node, Transpose))
        case Scaled(_, inner):
            return length(inner)
        case Product(parts) | Sum(parts) | Hadamard(parts) | Kron(parts) | Stack(parts, _):
            return sum(length(one) for one in parts) + (len(parts) - 1 if isinstance(node, Hadamard) else 0)


def parts(node: Node) -> tuple[Node, ...]:
    """The nodes that a node is made of."""
    match node:
        case Diag(inner) | Transpose(inner) | Triangle(inner, _) | Scaled(_, inner):
            return (inner,)
        case Product(found) | Sum(found) | Hadamard(found) | Kron(found) | Stack(found, _):
            return found
        case BlockDiagonal(_, block):
            return (block,)
        case _:
            return ()


def burden(node: Node) -> int:
    """What of two ways to write a matrix the better has less of: its length, ones counted twice, as they say little."""
    return length(node) + _ones(node)


def _ones(node: Node) -> int:
    return isinstance(node, Ones) + sum(_ones(one) for one in parts(node))


def _reads(expr: sp.Expr) -> int:
    """The reads of an expression, each as often as it stands there, and the products between them."""
    if isinstance(expr, Access):
        return 1
    joins = max(sum(1 for a in expr.args if a.has(Access)) - 1, 0) if isinstance(expr, sp.Mul) else 0
    return max(sum(_reads(a) for a in expr.args) + joins, 0)

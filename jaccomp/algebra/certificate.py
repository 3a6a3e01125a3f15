"""What the constraints of a Jacobian block say of its structure; no number is looked at.

Axes of rows and columns that every term identifies make it block diagonal over them; of the rest, a term that
identifies them all is a diagonal, one whose body splits into a factor of the row and one of the column has rank 1.
"""

from __future__ import annotations

import sympy as sp

from jaccomp.algebra.blocks import Block
from jaccomp.program import Constraint, Term


def structure(block: Block) -> str:
    """The structure in words."""
    if not block.terms:
        return "zero"
    pairs = [_pairs(block, term) for term in block.terms]
    shared = [p for p in pairs[0] if all(p in other for other in pairs)]
    rows = [r for r in block.rows if r not in {p[0] for p in shared}]
    columns = [c for c in block.columns if c not in {p[1] for p in shared}]
    parts = [_part(block, term, own, rows, columns) for term, own in zip(block.terms, pairs, strict=True)]
    kinds = list(dict.fromkeys(kind for kind, _ in parts))
    rank = sum(count for kind, count in parts if kind == "rank")
    inner = _named(kinds, rank, parts)
    if not block.rows or not block.columns:
        return "gradient" if not block.rows else "dense"
    if not rows and not columns:
        return "identity" if _is_one(block) else inner if inner in ("selection", "banded") else "diagonal"
    return f"block diagonal: {inner}" if shared else inner


def _named(kinds: list[str], rank: int, parts: list[tuple[str, int]]) -> str:
    if kinds == ["diagonal"]:
        return "diagonal"
    if kinds == ["rank"]:
        return f"rank {rank}"
    if set(kinds) == {"diagonal", "rank"}:
        return f"diagonal + rank {rank}"
    for kind in ("selection", "banded", "triangular"):
        if kind in kinds and all(k in (kind, "diagonal") for k in kinds):
            return kind
    return "dense"


def _is_one(block: Block) -> bool:
    return len(block.terms) == 1 and block.terms[0].body == 1


def _pairs(block: Block, term: Term) -> list[tuple[sp.Symbol, sp.Symbol]]:
    found = []
    for constraint in term.domain:
        if constraint.equality and not constraint.is_data:
            rows = [r for r in block.rows if r in constraint.expr.free_symbols]
            columns = [c for c in block.columns if c in constraint.expr.free_symbols]
            plain = len(rows) == len(columns) == 1 and sp.expand(constraint.expr - (rows[0] - columns[0])) == 0
            if plain or (len(rows) == len(columns) == 1 and sp.expand(constraint.expr + (rows[0] - columns[0])) == 0):
                found.append((rows[0], columns[0]))
    return found


def _part(
    block: Block,
    term: Term,
    pairs: list[tuple[sp.Symbol, sp.Symbol]],
    rows: list[sp.Symbol],
    columns: list[sp.Symbol],
) -> tuple[str, int]:
    """(kind, rank) of one term within a block over the axes that all terms identify."""
    if any(c.equality and c.is_data for c in term.domain):
        return "selection", 0
    if all(r in {p[0] for p in pairs} for r in rows) and all(c in {p[1] for p in pairs} for c in columns):
        return "diagonal", 0
    if any(c.equality and not _is_pair(block, c.expr) for c in term.domain):
        return "banded", 0
    if any(not c.equality for c in term.domain) and not term.bound:
        return ("triangular" if all(_is_triangle(block, c) for c in term.domain if not c.equality) else "dense"), 0
    if term.bound or any(p[0] in rows for p in pairs):
        return "dense", 0
    return (
        ("rank", _split_rank(term.body, set(rows), set(columns)))
        if _splits(term.body, set(rows), set(columns))
        else (
            "dense",
            0,
        )
    )


def _is_triangle(block: Block, constraint: Constraint) -> bool:
    """`row >= column`, shifted or not: an inequality between one index of each side with slopes 1 and -1."""
    sides = [[s for s in group if s in constraint.expr.free_symbols] for group in (block.rows, block.columns)]
    if [len(side) for side in sides] != [1, 1]:
        return False
    return {constraint.expr.coeff(side[0]) for side in sides} == {sp.S.One, sp.S.NegativeOne}


def _is_pair(block: Block, expr: sp.Expr) -> bool:
    symbols = [s for s in expr.free_symbols if s in block.rows or s in block.columns]
    return len(symbols) == 2 and len(expr.args) == 2


def _splits(body: sp.Expr, rows: set[sp.Symbol], columns: set[sp.Symbol]) -> bool:
    return _split_rank(body, rows, columns) > 0


def _split_rank(body: sp.Expr, rows: set[sp.Symbol], columns: set[sp.Symbol]) -> int:
    """The number of products (row factor) x (column factor) that a body is the sum of; 0 if it is none."""
    rank = 1
    for factor in sp.Mul.make_args(body):
        if factor.free_symbols & rows and factor.free_symbols & columns:
            if not isinstance(factor, sp.Add):
                return 0
            inner = [_split_rank(a, rows, columns) for a in factor.args]
            if not all(inner):
                return 0
            rank *= sum(inner)
    return rank

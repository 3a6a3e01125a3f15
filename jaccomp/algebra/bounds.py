"""Bounds of a block's spectral norm that hold for every input, from the ranges of what its coefficients are made of.

    tanh        |1 - y²|                     <= 1      y in [-1, 1]
    sigmoid     |y (1 - y)|                  <= 1/4    y in [0, 1]
    softmax     |y_i - y_i²| + y_i (1 - y_i) <= 1/2    y in [0, 1], Σ_j y_j = 1

A diagonal block has the norm of its largest entry; a symmetric one, diagonal plus rank 1, at most its largest row sum
of absolute values. Nothing is estimated: where the ranges do not give a bound there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra.layout import Product, Structure
from jaccomp.calculus.functions import HalfStep, Sigmoid, Step
from jaccomp.notation import Access
from jaccomp.program import Program, accesses, instantiate

LARGEST_DEGREE = 6
RANGES: dict[type, tuple[int, int]] = {
    sp.tanh: (-1, 1),
    sp.erf: (-1, 1),
    sp.sin: (-1, 1),
    sp.cos: (-1, 1),
    sp.sign: (-1, 1),
    Sigmoid: (0, 1),
    Step: (0, 1),
    HalfStep: (0, 1),
}


@dataclass(frozen=True, slots=True)
class Range:
    """A closed interval; `whole` says that the values over the last axis are at least 0 and sum to 1."""

    low: sp.Rational
    high: sp.Rational
    whole: bool = False


def spectral_bound(structure: Structure, program: Program) -> sp.Expr | None:
    """A number that the spectral norm never exceeds, or None where the ranges prove none."""
    parts = [part for part in structure.parts if isinstance(part, Product)]
    if len(parts) < len(structure.parts):
        return None
    diagonal = [
        p for p in parts if len(p.ties) == len(structure.layout.row_labels) == len(structure.layout.column_labels)
    ]
    others = [p for p in parts if not any(p is one for one in diagonal)]
    d = sp.Add(*(sp.Mul(*p.factors) for p in diagonal))
    if not others:
        return sp.S.Zero if not diagonal else supremum(d, program)
    return _with_rank_one(structure, program, d, others)


def _with_rank_one(structure: Structure, program: Program, d: sp.Expr, others: Sequence[Product]) -> sp.Expr | None:
    """|d_i + c w_i²| + |c w_i| (Σ_j w_j - w_i) where the one other part is c w wᵀ, w >= 0 and Σ w = 1."""
    layout = structure.layout
    if len(others) != 1 or others[0].bound or not d.free_symbols:
        return None
    (part,) = others
    scale = sp.Mul(*(f for f in part.factors if f.is_number))
    inner = [label for label in layout.row_labels if label not in {row for row, _ in part.ties}]
    columns = [label for label in layout.column_labels if label not in {column for _, column in part.ties}]
    reads = [f for f in part.factors if not f.is_number]
    if len(reads) != 2 or len(inner) != 1 or len(columns) != 1 or not all(isinstance(f, Access) for f in reads):
        return None
    row, column = sorted(reads, key=lambda f: columns[0] in f.free_symbols)
    if row.xreplace({inner[0]: columns[0]}) != column or row.indices[-1] != inner[0]:
        return None
    found = _range(row, program)
    if found is None or not found.whole:
        return None
    return supremum(sp.Abs(d + scale * row**2) + sp.Abs(scale) * row * (1 - row), program)


def supremum(expr: sp.Expr, program: Program) -> sp.Expr | None:
    """A number that |expr| never exceeds: the exact one for a polynomial in one bounded value, else of its parts."""
    atoms = _bounded(expr, program)
    if atoms is None:
        return None
    if len(atoms) == 1:
        ((atom, where),) = atoms.items()
        exact = _of_polynomial(expr, atom, where)
        if exact is not None:
            return exact
    return _coarse(expr, atoms)


def _bounded(expr: sp.Expr, program: Program) -> dict[sp.Expr, Range] | None:
    """The values that an expression is made of, with their ranges; None where one has none."""
    if expr.is_number:
        return {}
    found = _range(expr, program)
    if found is not None:
        return {expr: found}
    if isinstance(expr, sp.Piecewise):
        return _joined([value for value, _ in expr.args], program)
    whole = isinstance(expr, sp.Pow) and expr.exp.is_Integer and expr.exp > 0
    if whole:
        return _bounded(expr.base, program)
    if isinstance(expr, sp.Add | sp.Mul | sp.Abs):
        return _joined(expr.args, program)
    return None


def _joined(parts: Sequence[sp.Expr], program: Program) -> dict[sp.Expr, Range] | None:
    atoms: dict[sp.Expr, Range] = {}
    for part in parts:
        inner = _bounded(part, program)
        if inner is None:
            return None
        atoms |= inner
    return atoms


def _range(expr: sp.Expr, program: Program) -> Range | None:
    """The range of a function's value, or of a read, by what its tensor is defined to be."""
    if type(expr) in RANGES:
        low, high = RANGES[type(expr)]
        return Range(sp.Integer(low), sp.Integer(high))
    if not isinstance(expr, Access):
        return None
    definition = program.definition(expr.name)
    if definition is None or not definition.is_map:
        return None
    if _is_share(expr, program):
        return Range(sp.S.Zero, sp.S.One, whole=True)
    inner = _range(definition.body, program)
    return None if inner is None else replace(inner, whole=False)


def _is_share(read: Access, program: Program) -> bool:
    """Is the tensor exp(..) over the sum of the same over its last axis: at least 0, and 1 in sum?"""
    definition = program.definition(read.name)
    if definition is None or not definition.axes:
        return False
    divisors = [f for f in sp.Mul.make_args(definition.body) if f.is_Pow and f.exp == -1 and isinstance(f.base, Access)]
    if len(divisors) != 1:
        return False
    total = divisors[0].base
    above = sp.Mul(*(f for f in sp.Mul.make_args(definition.body) if f != divisors[0]))
    summed = program.definition(total.name)
    if not (isinstance(above, sp.exp) or (above.is_Pow and above.base == sp.E)) or summed is None:
        return False
    terms = instantiate(summed, total.indices, 900)
    if summed.reducer != "sum" or len(terms) != 1 or len(terms[0].bound) != 1:
        return False
    (bound,) = terms[0].bound
    ends = terms[0].upper_bounds(bound), terms[0].lower_bounds(bound), len(terms[0].domain)
    full = ends == ([program.tensor(read.name).shape[-1]], [sp.S.Zero], 2)
    return full and terms[0].body.xreplace({bound: definition.axes[-1]}) == above


def _of_polynomial(expr: sp.Expr, atom: sp.Expr, where: Range) -> sp.Expr | None:
    """The largest |p(t)| over the range of t, at its ends and where p' = 0."""
    t = sp.Symbol("_t", real=True)
    body = expr.xreplace({atom: t})
    if body.free_symbols != {t} or accesses(body):
        return None
    choices = [body]
    for inner in sorted(body.atoms(sp.Abs), key=sp.default_sort_key):
        choices = [one.xreplace({inner: sign * inner.args[0]}) for one in choices for sign in (1, -1)]
    found: list[sp.Expr] = [where.low, where.high]
    for one in choices:
        if not one.is_polynomial(t) or sp.degree(one, t) > LARGEST_DEGREE:
            return None
        slope = sp.Poly(one, t).diff(t)
        if not slope.is_zero:
            found += [root for root in sp.real_roots(slope) if where.low <= root <= where.high]
    return max((abs(body.xreplace({t: point})) for point in found), key=lambda v: v.evalf(30))


def _coarse(expr: sp.Expr, atoms: dict[sp.Expr, Range]) -> sp.Expr | None:
    """|a + b| <= |a| + |b|, |a b| <= |a| |b|, a case by its largest."""
    if expr in atoms:
        return max(abs(atoms[expr].low), abs(atoms[expr].high))
    if expr.is_number:
        return abs(expr)
    if isinstance(expr, sp.Piecewise):
        return _largest(_coarse(value, atoms) for value, _ in expr.args)
    if isinstance(expr, sp.Pow):
        base = _coarse(expr.base, atoms)
        return None if base is None else base**expr.exp
    inner = [_coarse(one, atoms) for one in expr.args]
    known = [one for one in inner if one is not None]
    if len(known) < len(inner):
        return None
    return sp.Add(*known) if isinstance(expr, sp.Add) else sp.Mul(*known)


def _largest(bounds: Iterable[sp.Expr | None]) -> sp.Expr | None:
    found = list(bounds)
    known = [one for one in found if one is not None]
    return max(known, key=lambda v: v.evalf(30)) if len(known) == len(found) else None

"""One equation with all that its evaluation needs, and the ranges of its indices: the hull of its constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sympy as sp
from sympy.functions.elementary.integers import RoundFunction

from jaccomp.errors import StageError
from jaccomp.notation import Access
from jaccomp.program import Equation, Term
from jaccomp.reference import indices
from jaccomp.reference.scalars import Array

IDENTITY: Mapping[str, float] = {"sum": 0.0, "prod": 1.0, "max": -np.inf, "min": np.inf}

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """An equation, the numbers of sizes and scalars, the arrays known so far, and the dtype of the evaluation."""

    program: str
    equation: Equation
    constants: Mapping[str, Any]
    values: Mapping[str, Array]
    dtype: np.dtype[Any]
    extents: tuple[sp.Expr, ...]
    shape: tuple[int, ...]
    smallest_einsum: int

    @property
    def what(self) -> str:
        return f"program {self.program!r}, equation of {self.equation.target!r}"

    def computed(self, term: Term) -> Mapping[str, sp.Expr]:
        """The indices that need no dimension; the position of an extremum needs them all."""
        return _computed(term) if self.equation.reducer in ("sum", "prod") else {}

    def hull(self, term: Term) -> dict[sp.Symbol, Range]:
        """The range of every axis and bound index: intervals, narrowed by each affine constraint until they rest."""
        ranges: dict[sp.Symbol, tuple[float, float]] = {
            axis: (0, length - 1) for axis, length in zip(self.equation.axes, self.shape, strict=True)
        }
        ranges |= dict.fromkeys(term.bound, (-np.inf, np.inf))
        own = {*self.equation.axes, *term.bound}
        rows = [self.affine(c.expr, term, c.equality) for c in term.domain if _is_affine(c.expr, own)]
        for _ in range(4 * len(term.bound) + 4):
            before = dict(ranges)
            for low, high, coefficients, equality in rows:
                for b in term.bound:
                    if coefficients.get(b):
                        ranges[b] = _narrow(b, low, high, coefficients, equality, ranges)
            if ranges == before:
                break
        for b in (b for b in term.bound if b.name not in self.computed(term)):
            if ranges[b][1] >= ranges[b][0] and not np.isfinite(ranges[b]).all():
                raise StageError(self.what, f"bound index {b} has no range in {[str(c.expr) for c in term.domain]}.")
        known = {s: ends for s, ends in ranges.items() if np.isfinite(ends).all()}
        return {s: (int(low), int(high)) if high >= low else (0, -1) for s, (low, high) in known.items()}

    def affine(self, expr: sp.Expr, term: Term, equality: bool) -> tuple[int, int, dict[sp.Symbol, int], bool]:
        """`expr` as [least, greatest constant] + Σ coefficient · index; data make the constant an interval."""
        where: dict[str, int] = {s.name: 0 for s in (*self.equation.axes, *term.bound)}
        used = [s for s in (*self.equation.axes, *term.bound) if s in expr.free_symbols]
        bounds: list[int] = []
        extremes = [np.min, np.max] if expr.has(Access) else [np.min]
        for choose in extremes:

            def leaf(one: sp.Expr, choose: Any = choose) -> Any:
                if isinstance(one, Access):
                    data = self.values[one.name]
                    return int(choose(data)) if data.size else 0
                return where[one.name] if one.name in where else self.constants[one.name]

            bounds.append(int(indices.integer(expr, leaf)))
        coefficients: dict[sp.Symbol, int] = {}
        for index in used:
            where[index.name] = 1
            coefficients[index] = int(indices.integer(expr, leaf)) - bounds[-1]
            where[index.name] = 0
        return min(bounds), max(bounds), coefficients, equality


def _is_affine(expr: sp.Expr, own: set[sp.Symbol]) -> bool:
    """Whether no floor, remainder or extremum of an index stands in it; the mask alone speaks for the others."""
    bent = expr.atoms(RoundFunction, sp.Mod, sp.Max, sp.Min, sp.Pow, sp.Piecewise, sp.Abs)
    return not any(one.free_symbols & own for one in bent)


def _narrow(
    index: sp.Symbol,
    low: int,
    high: int,
    coefficients: Mapping[sp.Symbol, int],
    equality: bool,
    ranges: Mapping[sp.Symbol, tuple[float, float]],
) -> tuple[float, float]:
    """The range of `index` under `constant + Σ c·index >= 0` (or `== 0`), with the constant in [low, high]."""
    own = coefficients[index]
    least: float = low
    most: float = high
    for other, c in coefficients.items():
        if other != index and c:
            ends = (c * ranges[other][0], c * ranges[other][1])
            least, most = least + min(ends), most + max(ends)
    lower, upper = ranges[index]
    # own·index >= -most, and for an equality own·index <= -least as well.
    if own > 0:
        lower = max(lower, np.ceil(-most / own))
        upper = min(upper, np.floor(-least / own)) if equality else upper
    else:
        upper = min(upper, np.floor(-most / own))
        lower = max(lower, np.ceil(-least / own)) if equality else lower
    return lower, upper


@lru_cache(maxsize=4096)
def _computed(term: Term) -> Mapping[str, sp.Expr]:
    """Bound indices that an equality of the domain gives in terms of the others, with a coefficient of 1 or -1.

    They are computed rather than enumerated: a sum over `b` with `2*b0 + b == i0` needs no dimension for `b`. All
    constraints, the equality among them, still mask.
    """
    found: dict[sp.Symbol, sp.Expr] = {}
    for constraint in term.domain:
        if not constraint.equality:
            continue
        expr = sp.expand(constraint.expr.xreplace(found))
        inside = {s for access in expr.atoms(Access) for s in access.free_symbols}
        for b in term.bound:
            slope = expr.coeff(b)
            if b not in found and b not in inside and slope in (1, -1):
                rest = sp.expand(expr - slope * b)
                if b not in rest.free_symbols:
                    found = {k: v.xreplace({b: -slope * rest}) for k, v in found.items()} | {b: -slope * rest}
                    break
    return {b.name: value for b, value in found.items()}

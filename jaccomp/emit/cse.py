"""Common subexpressions of a straight run of statements, computed once each, in order of first use.

y = exp(a*b) + 1;  z = exp(a*b)   ->   t = exp(a*b);  y = t + 1;  z = t
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from jaccomp.notation import Access
from jaccomp.program import accesses

Definition = tuple[sp.Symbol, sp.Expr]


def _is_worth(expr: sp.Expr) -> bool:
    """Arithmetic of reals; loads, index arithmetic and signs are the C compiler's."""
    if isinstance(expr, Access | sp.Symbol | sp.Number | sp.NumberSymbol) or expr.is_integer or not expr.has(Access):
        return False
    if isinstance(expr, sp.Mul) and len(expr.args) == 2 and expr.args[0] == -1:
        return False
    return isinstance(expr, sp.Expr)


def shared(values: Sequence[sp.Expr], written: Sequence[str], first: int) -> list[tuple[list[Definition], sp.Expr]]:
    """For each value the definitions to make before it, and the value in their names.

    `written[k]` is the buffer that statement k writes: what was read from it before is not reused after.
    """
    counts: dict[sp.Expr, int] = {}
    squared: dict[sp.Expr, None] = {}
    for value in values:
        _count(value, counts, squared)
    names: dict[sp.Expr, sp.Symbol] = {}
    result: list[tuple[list[Definition], sp.Expr]] = []
    number = first
    for value, target in zip(values, written, strict=True):
        made: list[Definition] = []

        def named(expr: sp.Expr, made: list[Definition] = made) -> sp.Expr:
            nonlocal number
            if expr in names:
                return names[expr]
            if isinstance(expr, Access) or not expr.args:
                return expr
            if isinstance(expr, sp.Piecewise):
                return expr
            changed = expr.func(*(named(a) for a in expr.args)) if expr.has(Access) else expr
            if _is_worth(expr) and (counts.get(expr, 0) > 1 or expr in squared):
                symbol = sp.Symbol(f"t{number}", real=True)
                number += 1
                names[expr] = symbol
                made.append((symbol, changed))
                return symbol
            return changed

        result.append((made, named(value)))
        for expr in [e for e in names if any(a.name == target for a in accesses(e))]:
            del names[expr]
    return result


def _count(expr: sp.Expr, counts: dict[sp.Expr, int], squared: dict[sp.Expr, None]) -> None:
    if isinstance(expr, Access | sp.Piecewise) or not expr.args:
        return
    counts[expr] = counts.get(expr, 0) + 1
    if counts[expr] > 1:
        return
    if isinstance(expr, sp.Pow) and isinstance(expr.exp, sp.Rational) and abs(expr.exp) > 1 and _is_worth(expr.base):
        squared.setdefault(expr.base)
    for arg in expr.args:
        _count(arg, counts, squared)

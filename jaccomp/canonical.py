"""One spelling for one term, whatever a user's names made of the order of SymPy's arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy as sp

from jaccomp.program import Constraint, Equation, Term, tidy


def canonical(term: Term) -> Term:
    """The term with bound indices `b0, b1, ...` in their order, equalities of one sign, and its domain sorted.

    Each constraint stands with the last bound index that it holds: its lower bounds, its upper bounds, then equalities.
    """
    fresh = tidy(term)
    place = {b: k for k, b in enumerate(fresh.bound)}
    domain = sorted(dict.fromkeys(_one_sign(c) for c in fresh.domain), key=lambda c: _constraint_key(c, place))
    return replace(fresh, domain=tuple(domain))


def _one_sign(constraint: Constraint) -> Constraint:
    if constraint.equality and constraint.expr.could_extract_minus_sign():
        return Constraint(-constraint.expr, equality=True)
    return constraint


def _constraint_key(constraint: Constraint, place: dict[sp.Symbol, int]) -> tuple[Any, ...]:
    held = [(place[s], s) for s in constraint.expr.free_symbols if s in place]
    last, symbol = max(held, default=(-1, None), key=lambda pair: pair[0])
    upper = symbol is not None and constraint.expr.coeff(symbol) != 1
    text = str(constraint.expr)
    return last, constraint.equality, upper, len(text), text


def term_key(term: Term) -> str:
    """What the terms of a sum are sorted by; canonical terms of one meaning have one."""
    return str((term.domain, term.bound, term.body))


def canonical_equation(equation: Equation) -> Equation:
    """Each term canonical; the order of terms is the caller's."""
    return replace(equation, terms=tuple(canonical(term) for term in equation.terms))

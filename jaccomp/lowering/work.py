"""How much work a nest is, as a polynomial in sizes: it tells a call that is worth several threads from others.

The unit is a multiply-add of a matrix product, about a fiftieth of a nanosecond. An element of a map costs a few of
them, as memory and caches feed it; a function what its vector code takes; one that only libm has, a great deal more.
These are estimates, and decide nothing but how many threads run: never a bit of a result.
"""

from __future__ import annotations

import sympy as sp

from jaccomp.calculus.functions import Expm1, Finite, HalfStep, InverseRoot, Log1p, Sigmoid, Softplus, Step
from jaccomp.lowering.fusion import loop_bounds
from jaccomp.lowering.share import CHEAP
from jaccomp.lowering.statements import Statement

PRODUCT = 1
TERM = 4
"""One element of a map or sum, for each access."""
BY_DATA = 32
"""An element at a place that data chooses, or a choice between elements: no vectors."""
DIVISION = 4
VECTOR = 12
LIBM = 500
SMALL = (*CHEAP, Step, HalfStep, InverseRoot, Finite)
INLINE = (sp.exp, sp.log, sp.tanh, sp.erf, Sigmoid, Softplus, Log1p, Expm1)
"""Functions of a few instructions, and those that the header vectorises; any other is libm's."""


def work(statements: tuple[Statement, ...]) -> sp.Expr:
    """What all iterations of some statements come to."""
    return sp.Add(*(sp.expand(_iterations(s) * _weight(s)) for s in statements))


def _iterations(statement: Statement) -> sp.Expr:
    """The box of its loops, without the rows that data chooses."""
    extent: sp.Expr = sp.S.One
    for index in statement.loops:
        if statement.chosen is not None and index == statement.chosen[0]:
            continue
        bounds = loop_bounds(statement, index)
        if bounds is not None:
            extent *= sp.expand(bounds[1][0] - bounds[0][0])
    return extent


def _weight(statement: Statement) -> int:
    if statement.product is not None:
        return PRODUCT
    by_data = statement.action == "select" or not statement.injective
    return (BY_DATA if by_data else TERM * (1 + len(statement.reads()))) + _functions(statement.value)


def _functions(value: sp.Expr) -> int:
    """What the functions of an expression cost, each distinct one once."""
    total = 0
    for one in value.atoms(sp.Function, sp.Pow):
        if isinstance(one, SMALL):
            continue
        if isinstance(one, sp.Pow):
            whole = one.exp.is_Integer or (2 * one.exp).is_Integer
            total += (DIVISION if one.exp.is_negative else 1) if whole else LIBM
        else:
            total += VECTOR if isinstance(one, INLINE) else LIBM
    return total

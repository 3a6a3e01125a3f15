"""Exact evaluation of integer expressions over int64 arrays: indices, extents, ranges and conditions among them.

`i/3` inside a `floor` is no float here: a value is a pair (numerator, denominator) with a positive denominator, so that
`floor`, `Mod` and comparisons of rationals are exact for every index.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import sympy as sp
from sympy.functions.elementary.integers import RoundFunction

from jaccomp.errors import StageError
from jaccomp.notation import Access, Index, Reduction
from jaccomp.notation import Tensor as WrittenTensor

Ints = Any  # an int, or an int64 array
Leaf = Callable[[sp.Expr], Ints]
Pair = tuple[Ints, Ints]

_OPERATIONS = (sp.Add, sp.Mul, sp.Mod, RoundFunction, sp.Max, sp.Min, sp.Abs, sp.KroneckerDelta, sp.sign)
_LEAVES = (sp.Symbol, Index, Access, WrittenTensor, Reduction)


@lru_cache(maxsize=65536)
def is_exact(expr: sp.Basic) -> bool:
    """Whether `expr` is built of integer leaves by rational operations, so that `pair` can evaluate it."""
    if isinstance(expr, _LEAVES):
        return bool(expr.is_integer)
    if isinstance(expr, sp.Rational):
        return True
    if isinstance(expr, sp.Pow):
        return isinstance(expr.exp, sp.Integer) and is_exact(expr.base)
    if isinstance(expr, sp.Piecewise):
        return all(is_exact(value) and is_exact_condition(condition) for value, condition in expr.args)
    return isinstance(expr, _OPERATIONS) and all(is_exact(one) for one in expr.args)


@lru_cache(maxsize=65536)
def is_exact_condition(condition: sp.Basic) -> bool:
    """Whether a condition compares exact expressions only."""
    if isinstance(condition, sp.And | sp.Or | sp.Not):
        return all(is_exact_condition(one) for one in condition.args)
    if isinstance(condition, sp.core.relational.Relational):
        return is_exact(condition.lhs) and is_exact(condition.rhs)
    return condition in (sp.true, sp.false)


def integer(expr: sp.Expr, leaf: Leaf) -> Ints:
    """The value of an integer expression; `leaf` gives those of symbols and accesses. Raises `StageError`."""
    if not is_exact(expr):
        raise StageError("reference", f"{expr} is not an integer expression.")
    over, under = pair(expr, leaf)
    if isinstance(under, int) and under == 1:
        return over
    if np.any(np.asarray(over) % np.asarray(under)):
        raise StageError("reference", f"{expr} is not a whole number where it is evaluated.")
    return over // under


def pair(expr: sp.Basic, leaf: Leaf) -> Pair:
    """`expr` as numerator and positive denominator."""
    if isinstance(expr, sp.Rational):
        return int(expr.p), int(expr.q)
    if isinstance(expr, _LEAVES):
        return leaf(expr), 1
    if isinstance(expr, sp.Add):
        total = (0, 1)
        for one in expr.args:
            total = _plus(total, pair(one, leaf))
        return total
    if isinstance(expr, sp.Mul):
        over, under = 1, 1
        for one in expr.args:
            p, q = pair(one, leaf)
            over, under = over * p, under * q
        return over, under
    if isinstance(expr, sp.Pow):
        p, q = pair(expr.base, leaf)
        k = int(expr.exp)
        return (p**k, q**k) if k >= 0 else _positive(q**-k, p**-k)
    if isinstance(expr, sp.floor):
        p, q = pair(expr.args[0], leaf)
        return _floor(p, q), 1
    if isinstance(expr, sp.ceiling):
        p, q = pair(expr.args[0], leaf)
        return -_floor(-p, q), 1
    if isinstance(expr, sp.Mod):
        (a, b), (c, d) = pair(expr.args[0], leaf), pair(expr.args[1], leaf)
        whole = _floor(*_positive(a * d, b * c))
        return _plus((a, b), (-whole * c, d))
    if isinstance(expr, sp.Abs):
        p, q = pair(expr.args[0], leaf)
        return abs(p), q
    if isinstance(expr, sp.sign):
        return np.sign(pair(expr.args[0], leaf)[0]), 1
    if isinstance(expr, sp.Max | sp.Min):
        return _extremum(expr, leaf)
    if isinstance(expr, sp.KroneckerDelta):
        (a, b), (c, d) = pair(expr.args[0], leaf), pair(expr.args[1], leaf)
        return np.where(np.asarray(a * d == c * b), 1, 0), 1
    if isinstance(expr, sp.Piecewise):
        return _piecewise(expr, leaf)
    raise StageError("reference", f"{expr} is not an integer expression.")


def holds(condition: sp.Basic, leaf: Leaf) -> Any:
    """The truth of an exact condition, as bool or an array of bool."""
    if condition in (sp.true, sp.false):
        return np.asarray(condition == sp.true)
    if isinstance(condition, sp.Not):
        return ~holds(condition.args[0], leaf)
    if isinstance(condition, sp.And | sp.Or):
        join = np.logical_and if isinstance(condition, sp.And) else np.logical_or
        value = holds(condition.args[0], leaf)
        for one in condition.args[1:]:
            value = join(value, holds(one, leaf))
        return value
    (a, b), (c, d) = pair(condition.lhs, leaf), pair(condition.rhs, leaf)
    return compare(condition, a * d, c * b)


def compare(condition: sp.Basic, left: Any, right: Any) -> Any:
    """A relational of SymPy's, of values."""
    relations = {
        sp.Eq: np.equal,
        sp.Ne: np.not_equal,
        sp.StrictLessThan: np.less,
        sp.LessThan: np.less_equal,
        sp.StrictGreaterThan: np.greater,
        sp.GreaterThan: np.greater_equal,
    }
    for kind, relation in relations.items():
        if isinstance(condition, kind):
            return np.asarray(relation(left, right), dtype=bool)
    raise StageError("reference", f"the condition {condition} is not a comparison.")


def _plus(left: Pair, right: Pair) -> Pair:
    (a, b), (c, d) = left, right
    if b is d or (isinstance(b, int) and isinstance(d, int) and b == d):
        return a + c, b
    return a * d + c * b, b * d


def _positive(over: Ints, under: Ints) -> Pair:
    if isinstance(under, int) and isinstance(over, int):
        return (over, under) if under >= 0 else (-over, -under)
    flip = np.where(np.asarray(under) < 0, -1, 1)
    return over * flip, under * flip


def _floor(over: Ints, under: Ints) -> Ints:
    """Floor division; 0 where the denominator is 0, which only points outside every domain can have."""
    if isinstance(under, int) and isinstance(over, int):
        return over // under if under else 0
    zero = np.asarray(under) == 0
    return np.where(zero, 0, np.asarray(over) // np.where(zero, 1, under))


def _extremum(expr: sp.Expr, leaf: Leaf) -> Pair:
    better = np.maximum if isinstance(expr, sp.Max) else np.minimum
    over, under = pair(expr.args[0], leaf)
    for one in expr.args[1:]:
        p, q = pair(one, leaf)
        over, under = better(over * q, p * under), under * q
    return over, under


def _piecewise(expr: sp.Expr, leaf: Leaf) -> Pair:
    branches = [(*pair(value, leaf), holds(condition, leaf)) for value, condition in expr.args]
    over: Ints = 0
    under: Ints = 1
    for p, q, where in reversed(branches):
        over, under = np.where(where, p, over), np.where(where, q, under)
    return over, under

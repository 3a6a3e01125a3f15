"""What values an expression may take: intervals, with whether zero is one of them.

Sizes are at least 1, inputs any real numbers, and scalars what `constants` says. The answer holds every value that can
occur, and perhaps more: two reads of one tensor are taken to be independent, but for a shift by a maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import cosh, exp, inf, isnan, log, log1p, pi, sinh, tanh

import sympy as sp

from jaccomp.algebra.matching import bindings
from jaccomp.calculus.functions import (
    Expm1,
    Finite,
    HalfStep,
    InverseRoot,
    Log1p,
    Sigmoid,
    Softplus,
    Step,
)
from jaccomp.domains import at_most_one, axis_ranges, is_index, proves
from jaccomp.notation import Access
from jaccomp.program import Equation, Program, Tensor, Term, at_least, instantiate, next_bound


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers from `low` to `high`, zero among them only if `zero`; infinite ends stand for no bound."""

    low: float = -inf
    high: float = inf
    zero: bool = True

    @property
    def has_zero(self) -> bool:
        return self.zero and self.low <= 0 <= self.high

    def hull(self, other: Values) -> Values:
        """All of both."""
        zero = self.has_zero or other.has_zero
        return Values(min(self.low, other.low), max(self.high, other.high), zero)

    def within(self, other: Values) -> Values:
        """What both hold."""
        return Values(max(self.low, other.low), min(self.high, other.high), self.zero and other.zero)

    def __neg__(self) -> Values:
        return Values(-self.high, -self.low, self.zero)

    def __add__(self, other: Values) -> Values:
        both_above = self.low >= 0 and other.low >= 0
        both_below = self.high <= 0 and other.high <= 0
        zero = not ((both_above or both_below) and not (self.has_zero and other.has_zero))
        return Values(self.low + other.low, self.high + other.high, zero)

    def __mul__(self, other: Values) -> Values:
        ends = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Values(min(ends), max(ends), self.has_zero or other.has_zero)

    def inverse(self) -> Values:
        """`1/z`, wherever it is defined."""
        if self.low >= 0:
            return Values(_over(self.high), _over(self.low), False)
        if self.high <= 0:
            return -((-self).inverse())
        return Values(zero=False)

    def power(self, exponent: sp.Expr) -> Values:
        """`z**exponent` for a rational exponent, wherever it is defined."""
        if exponent < 0:
            return self.power(-exponent).inverse()
        size = max(abs(self.low), abs(self.high))
        if exponent.is_Integer and exponent % 2 == 0:
            least = 0.0 if self.low <= 0 <= self.high else min(abs(self.low), abs(self.high))
            return Values(least ** int(exponent), _grown(size, exponent), self.has_zero)
        if exponent.is_Integer:
            ends = [-_grown(-e, exponent) if e < 0 else _grown(e, exponent) for e in (self.low, self.high)]
            return Values(ends[0], ends[1], self.has_zero)
        return Values(_grown(max(self.low, 0.0), exponent), _grown(max(self.high, 0.0), exponent), self.has_zero)

    def through(self, function: Callable[[float], float], zero: bool) -> Values:
        """The image under a rising function."""
        return Values(_at(function, self.low), _at(function, self.high), zero)


REAL = Values()
POSITIVE = Values(0, inf, False)
NONNEGATIVE = Values(0, inf)
SIZE = Values(1, inf, False)


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _over(value: float) -> float:
    return inf if value == 0 else 0.0 if value == inf else 1 / value


def _grown(value: float, exponent: sp.Expr) -> float:
    try:
        return float(value ** float(exponent))
    except OverflowError:
        return inf


def _at(function: Callable[[float], float], value: float) -> float:
    """A rising function at an end of an interval; beyond its domain or range, at an infinity."""
    try:
        result = function(value)
    except OverflowError:
        return inf if value > 0 else -inf
    except ValueError:
        return -inf
    return value if isnan(result) else result


def _sigmoid(value: float) -> float:
    return 0.0 if value < -700 else 1 / (1 + exp(-value))


def _softplus(value: float) -> float:
    return value if value > 700 else log1p(exp(value))


def _log(value: float) -> float:
    return log(value) if value > 0 else -inf


def _even(image: Callable[[float], float]) -> Callable[[Values], Values]:
    def values(z: Values) -> Values:
        least = 0.0 if z.low <= 0 <= z.high else min(abs(z.low), abs(z.high))
        return Values(_at(image, least), _at(image, max(abs(z.low), abs(z.high))), z.has_zero and image(0.0) == 0)

    return values


FUNCTIONS: Mapping[type, Callable[[Values], Values]] = {
    sp.exp: lambda z: z.through(exp, False),
    Expm1: lambda z: z.through(lambda v: exp(v) - 1, z.has_zero),
    sp.log: lambda z: z.through(_log, True),
    Log1p: lambda z: z.through(lambda v: _log(1 + v), z.has_zero),
    Sigmoid: lambda z: z.through(_sigmoid, False),
    Softplus: lambda z: z.through(_softplus, False),
    InverseRoot: lambda z: NONNEGATIVE,
    Finite: lambda z: z.hull(Values(0, 0)),
    Step: lambda z: Values(0, 1),
    HalfStep: lambda z: Values(0, 1),
    sp.sign: lambda z: Values(-1 if z.low < 0 else 0, 1 if z.high > 0 else 0, z.has_zero),
    sp.Abs: _even(abs),
    sp.tanh: lambda z: z.through(tanh, z.has_zero),
    sp.sinh: lambda z: z.through(sinh, z.has_zero),
    sp.cosh: _even(cosh),
    sp.erf: lambda z: Values(0 if z.low >= 0 else -1, 0 if z.high <= 0 else 1, z.has_zero),
    sp.erfc: lambda z: Values(0, 2, False),
    sp.sin: lambda z: Values(-1, 1),
    sp.cos: lambda z: Values(-1, 1),
    sp.atan: lambda z: Values(0 if z.low >= 0 else -pi / 2, 0 if z.high <= 0 else pi / 2, z.has_zero),
}
"""The image of an interval under each function; a function without a row may have any value."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is known where an expression stands: of its tensors, of its constants, and of expressions by a condition."""

    tensors: Mapping[str, Values]
    constants: Mapping[sp.Symbol, Values]
    definitions: Mapping[str, Equation]
    given: Mapping[sp.Expr, Values] = field(default_factory=dict)

    def of(self, expr: sp.Expr) -> Values:
        """The values of an expression."""
        own = self._of(expr)
        return own.within(self.given[expr]) if expr in self.given else own

    def _of(self, expr: sp.Expr) -> Values:
        if isinstance(expr, Access):
            return self.tensors.get(expr.name, REAL)
        if isinstance(expr, sp.Symbol):
            return NONNEGATIVE if is_index(expr) else self.constants.get(expr, REAL)
        if expr.is_number and expr.is_extended_real:
            return Values(float(expr), float(expr), expr == 0)
        if isinstance(expr, sp.Add):
            return Values(high=0.0) if self._is_below_maximum(expr) else _sum([self.of(a) for a in expr.args])
        if isinstance(expr, sp.Mul):
            return _product([self.of(a) for a in expr.args])
        if isinstance(expr, sp.Pow):
            if expr.exp.is_Rational:
                return self.of(expr.base).power(expr.exp)
            return POSITIVE if self.of(expr.base).low >= 0 else REAL
        if isinstance(expr, sp.Max):
            parts = [self.of(a) for a in expr.args]
            low, high = max(p.low for p in parts), max(p.high for p in parts)
            return Values(low, high, any(p.has_zero for p in parts))
        if isinstance(expr, sp.Min):
            parts = [self.of(a) for a in expr.args]
            return Values(min(p.low for p in parts), min(p.high for p in parts), any(p.has_zero for p in parts))
        if isinstance(expr, sp.Piecewise):
            found = [scope.of(value) for value, scope in self.cases(expr)]
            result = found[0]
            for one in found[1:]:
                result = result.hull(one)
            return result
        row = FUNCTIONS.get(type(expr))
        return row(self.of(expr.args[0])) if row is not None else REAL

    def cases(self, expr: sp.Piecewise) -> list[tuple[sp.Expr, Scope]]:
        """Each value with what its condition, and the failure of those before it, say."""
        result, here = [], self
        for value, condition in expr.args:
            result.append((value, here.where(condition)))
            here = here.where(sp.Not(condition)) if condition != sp.true else here
        return result

    def where(self, condition: sp.Basic) -> Scope:
        """The scope in which a condition holds; of a conjunction all parts, of another one nothing is learnt."""
        given = dict(self.given)
        for one in condition.args if isinstance(condition, sp.And) else (condition,):
            if isinstance(one, sp.core.relational.Relational):
                for side, other, relation in ((one.lhs, one.rhs, one), (one.rhs, one.lhs, one.reversed)):
                    learnt = _learnt(relation, self.of(other))
                    if not side.is_number and learnt is not None:
                        given[side] = given.get(side, REAL).within(learnt)
        return Scope(self.tensors, self.constants, self.definitions, given)

    def _is_below_maximum(self, expr: sp.Expr) -> bool:
        """Is it `a - max a`, at an element that the maximum is taken over?"""
        for addend in expr.args:
            inner = -addend
            largest = inner.args[0] if isinstance(inner, Finite) else inner
            if isinstance(largest, Access) and self._bounds(largest, expr - addend):
                return True
        return False

    def _bounds(self, largest: Access, element: sp.Expr) -> bool:
        definition = self.definitions.get(largest.name)
        if definition is None:
            return False
        if definition.is_map:
            inner = definition.body.args[0] if isinstance(definition.body, Finite) else definition.body
            if isinstance(inner, Access):
                at = dict(zip(definition.axes, largest.indices, strict=True))
                return self._bounds(inner.xreplace(at), element)
            return False
        if definition.reducer != "max":
            return False
        (term,) = instantiate(definition, largest.indices, next_bound(Term(element)))
        return next(bindings(term.body, term.bound, element), None) is not None


def _sum(parts: Sequence[Values]) -> Values:
    total = parts[0]
    for one in parts[1:]:
        total = total + one
    return total


def _product(parts: Sequence[Values]) -> Values:
    total = parts[0]
    for one in parts[1:]:
        total = total * one
    return total


def _learnt(relation: sp.Basic, other: Values) -> Values | None:
    """What `side relation other` says of the side."""
    match relation:
        case sp.Gt():
            return Values(other.low, inf, other.low < 0)
        case sp.Ge():
            return Values(low=other.low, zero=other.has_zero or other.low < 0)
        case sp.Lt():
            return Values(-inf, other.high, other.high > 0)
        case sp.Le():
            return Values(high=other.high, zero=other.has_zero or other.high > 0)
        case sp.Eq():
            return other
        case sp.Ne():
            return Values(zero=False) if other == Values(0.0, 0.0) else None
    return None


# Programs


def constants(program: Program, *, signs: bool) -> dict[sp.Symbol, Values]:
    """Sizes, and scalars: any number, or, with `signs`, any of the sign of its default."""
    found: dict[sp.Symbol, Values] = dict.fromkeys(program.sizes, SIZE)
    for scalar in program.scalars:
        if signs and scalar.default is not None and scalar.default > 0:
            found[scalar.symbol] = POSITIVE
        elif signs and scalar.default is not None and scalar.default < 0:
            found[scalar.symbol] = -POSITIVE
    return found


def scope_of(program: Program, *, signs: bool = False) -> Scope:
    """What is known of every tensor of a program. With `signs`, each scalar is taken to have its default's sign."""
    tensors: dict[str, Values] = {}
    scope = Scope(tensors, constants(program, signs=signs), program.definitions())
    for equation in program.equations:
        tensors[equation.target] = _of_equation(program, scope, equation)
    return scope


def _of_equation(program: Program, scope: Scope, equation: Equation) -> Values:
    target = program.tensor(equation.target)
    if equation.reducer in ("argmax", "argmin"):
        return NONNEGATIVE
    parts = [_of_term(program, scope, target, equation, term) for term in equation.terms]
    return _sum(parts) if parts else Values(0, 0)


def _of_term(program: Program, scope: Scope, target: Tensor, equation: Equation, term: Term) -> Values:
    body = scope.of(term.body)
    if equation.reducer in ("max", "min"):
        return body
    is_full = _is_never_empty(program, target, term)
    if equation.reducer == "prod":
        return Values(0, inf, body.has_zero) if body.low >= 0 else REAL
    if not term.bound:
        return body if not term.domain else body.hull(Values(0, 0))
    if all(at_most_one(term, b) for b in term.bound):
        return body if is_full else body.hull(Values(0, 0))
    low, high = (-inf if body.low < 0 else 0.0), (inf if body.high > 0 else 0.0)
    if is_full and body.low > 0:
        low = body.low
    signed = body.low >= 0 or body.high <= 0
    return Values(low, high, not (is_full and signed and not body.has_zero))


def _is_never_empty(program: Program, target: Tensor, term: Term) -> bool:
    """Does every element have a point to sum over? A sufficient test."""
    if any(c.equality or c.is_data for c in term.domain):
        return False
    facts = [*axis_ranges(target), *(at_least(size, sp.S.One) for size in program.sizes)]
    return all(
        proves(facts, at_least(high - 1, low))
        for b in term.bound
        for low in term.lower_bounds(b)
        for high in term.upper_bounds(b)
    ) and all(c.expr.free_symbols & set(term.bound) for c in term.domain)

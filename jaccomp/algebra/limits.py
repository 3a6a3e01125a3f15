"""Where a program is not differentiable, not defined, or overflows: read off its expressions and their values.

    not differentiable   a kink or jump of |z|, Max, Min, floor or a case, a root at 0, two extrema over an index
    undefined            a division by what may be 0, a root or logarithm of what may be negative
    overflow             an exponential of what has no upper bound, in the program as it is computed
    stabilised           one that has none as written, but has one as it is computed

`Limit.where` is a condition in the program's own names, and what is certain not to occur is left out: `1/(1 + x²)` is
always defined. Sizes are at least 1; where only the sign of a scalar decides, `unless` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import sympy as sp

from jaccomp.algebra.values import Scope, scope_of
from jaccomp.calculus.functions import Expm1, HalfStep, InverseRoot, Log1p, Step
from jaccomp.calculus.scalar import partials
from jaccomp.notation import Access, is_integral
from jaccomp.program import Equation, Program, Term, accesses

Kind = Literal["not differentiable", "undefined", "overflow", "stabilised"]
LARGEST = {"float32": "88.7", "float64": "709.7"}
"""Beyond these, exp is larger than the largest number of a dtype."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`where` is a relation in canonical names, None for ties of the equation's own reduction."""

    kind: Kind
    equation: Equation
    term: Term
    where: sp.Expr | None
    why: str
    unless: tuple[str, ...] = field(default=())


def limits(program: Program, *computed: Program) -> tuple[Limit, ...]:
    """Where a program as it is differentiated has no value, or no derivative.

    Of what the programs as `computed` guard, the limit says that the result is 0 by convention.
    """
    guarded = {side for one in computed for side in _guarded(one)}
    by_sign = {(one.equation.target, one.kind, one.where) for one in _limits(program, scope_of(program, signs=True))}
    found = []
    for one in _limits(program, scope_of(program)):
        if (one.equation.target, one.kind, one.where) not in by_sign:
            one = replace(one, unless=_signs(program, one))
        if isinstance(one.where, sp.Eq) and getattr(one.where.lhs, "name", None) in guarded:
            one = replace(one, why=f"{one.why}; the result is 0 there, by convention")
        found.append(one)
    return tuple(found)


def _guarded(program: Program) -> Iterator[str]:
    """The tensors of which a program says what the result is where they are 0."""
    bodies = (term.body for equation in program.equations for term in equation.terms)
    for case in (case for body in bodies for case in body.atoms(sp.Piecewise)):
        for value, condition in case.args:
            if value == 0 and isinstance(condition, sp.Eq) and isinstance(condition.lhs, Access) and condition.rhs == 0:
                yield condition.lhs.name


def overflows(written: Program, computed: Program) -> tuple[Limit, ...]:
    """The exponentials without an upper bound: those of the program as computed, then those of it as written alone."""
    left = list(_exponentials(computed, "overflow"))
    kept = {_shape(one.where) for one in left}
    tamed = [one for one in _exponentials(written, "stabilised") if _shape(one.where) not in kept]
    return (*left, *tamed)


def _signs(program: Program, limit: Limit) -> tuple[str, ...]:
    """The scalars whose defaults' signs rule a limit out, as `c0 > 0`."""
    known = {s.symbol: s for s in program.scalars if s.default}
    read = [s for s in known.values() if limit.where is not None and limit.where.has(s.symbol)]
    chosen = read or list(known.values())
    return tuple(f"{s.name} {'>' if (s.default or 0) > 0 else '<'} 0" for s in chosen)


def _limits(program: Program, scope: Scope) -> list[Limit]:
    found: dict[tuple[str, Kind, sp.Expr | None], Limit] = {}
    for equation in program.equations:
        if program.tensor(equation.target).dtype != "real":
            continue
        for term in equation.terms:
            for one in (*_of_reducer(equation, term), *_of_body(scope, term.body)):
                if one.node is None or not _is_smoothed(term.body, one):
                    limit = Limit(one.kind, equation, term, one.where, one.why)
                    found.setdefault((equation.target, one.kind, one.where), limit)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Found:
    """A limit of an expression; of a kink, its `node` and what that is worth at it."""

    kind: Kind
    where: sp.Expr | None
    why: str
    node: sp.Expr | None = None
    value: sp.Expr | None = None


def _is_smoothed(body: sp.Expr, kink: Found) -> bool:
    """Does the body not change with the node at its kink, as `max(x, 0)²` does not? A sufficient test."""
    inner = Access(sp.Symbol("_node", real=True))
    slope = partials(body.xreplace({kink.node: inner})).get(inner, sp.S.Zero)
    where = {inner: kink.value}
    if isinstance(kink.where, sp.Eq) and isinstance(kink.where.lhs, Access):
        where[kink.where.lhs] = kink.where.rhs
    return _is_zero(slope.xreplace(where))


def _is_zero(expr: sp.Expr) -> bool:
    """Is it 0, once functions of numbers are what they are defined to be? A sufficient test."""
    named = [n for n in expr.atoms(sp.Function) if hasattr(n, "definition") and n.args[0].is_number]
    return bool(sp.expand(expr.xreplace({n: n.definition() for n in named})) == 0)


def _of_reducer(equation: Equation, term: Term) -> Iterator[Found]:
    if equation.reducer in ("max", "min") and any(not a.is_integer for a in accesses(term.body)):
        yield Found("not differentiable", None, "two elements share the extremum; its first is taken")


def _of_body(scope: Scope, expr: sp.Expr) -> Iterator[Found]:
    if isinstance(expr, Access) or not expr.args or (not expr.has(Access) and not expr.free_symbols):
        return
    if isinstance(expr, sp.Piecewise):
        for value, inside in scope.cases(expr):
            yield from _of_body(inside, value)
        yield from _of_cases(scope, expr)
        return
    for one in expr.args:
        yield from _of_body(scope, one)
    if isinstance(expr, sp.Pow):
        yield from _of_power(scope, expr)
    elif type(expr) in POINTS:
        yield from POINTS[type(expr)](scope, expr)


def _of_power(scope: Scope, expr: sp.Pow) -> Iterator[Found]:
    base, exponent = expr.args
    values = scope.of(base)
    if exponent.is_Integer:
        if exponent < 0 and values.has_zero:
            yield Found("undefined", _equal(base, 0), "a division by it")
        return
    root = "a square root of it" if exponent in (sp.S.Half, -sp.S.Half) else "a power of it"
    if not exponent.is_Rational or exponent.q % 2 == 0 or values.low < 0:
        if values.low < 0:
            yield Found("undefined", _below(base, values.has_zero and exponent.is_negative), root)
        elif values.has_zero and exponent.is_negative:
            yield Found("undefined", _equal(base, 0), root)
    if values.has_zero and exponent.is_Rational and 0 < exponent < 1 and base.has(Access):
        yield Found("not differentiable", _equal(base, 0), "the slope of a root is infinite there")


def _of_cases(scope: Scope, expr: sp.Piecewise) -> Iterator[Found]:
    """The boundaries between cases at which values or derivatives are not known to be the same."""
    for (value, condition), (other, _) in zip(expr.args, expr.args[1:], strict=False):
        for one in condition.args if isinstance(condition, sp.And | sp.Or) else (condition,):
            if (
                not isinstance(one, sp.Gt | sp.Ge | sp.Lt | sp.Le)
                or not one.has(Access)
                or is_integral(one.lhs - one.rhs)
            ):
                continue
            if not _meet_smoothly(value, other, one) and scope.of(one.lhs - one.rhs).has_zero:
                yield Found("not differentiable", _equal(one.lhs, one.rhs), "two cases meet there")


def _meet_smoothly(value: sp.Expr, other: sp.Expr, condition: sp.Expr) -> bool:
    """Are values and derivatives of two cases the same on the boundary `u = c` or `|u| = c`? A sufficient test."""
    sides = sorted((condition.lhs, condition.rhs), key=lambda side: not side.has(Access))
    read, level = sides
    if level.has(Access):
        return False
    inner = read.args[0] if isinstance(read, sp.Abs) else read
    if not isinstance(inner, Access):
        return False
    above = sp.Symbol("_level", positive=True) if isinstance(read, sp.Abs) and level.is_Symbol else level
    points = (above, -above) if isinstance(read, sp.Abs) else (above,)
    slopes, other_slopes = partials(value), partials(other)
    pairs = [(value, other)]
    pairs += [(slopes.get(a, sp.S.Zero), other_slopes.get(a, sp.S.Zero)) for a in {**slopes, **other_slopes}]
    where = {level: above} if above != level else {}
    return all(_is_zero((a - b).xreplace(where).xreplace({inner: point})) for a, b in pairs for point in points)


def _of_extremum(scope: Scope, expr: sp.Expr) -> Iterator[Found]:
    arguments = sorted(expr.args, key=lambda one: (not one.has(Access), sp.default_sort_key(one)))
    for k, one in enumerate(arguments):
        for other in arguments[k + 1 :]:
            if (one.has(Access) or other.has(Access)) and scope.of(one - other).has_zero:
                name = type(expr).__name__.lower()
                yield Found(
                    "not differentiable", _equal(one, other), f"the arguments of a {name} are equal", expr, other
                )


def _kink(why: str, *, is_kink: bool = False) -> Callable[[Scope, sp.Expr], Iterator[Found]]:
    """A point at `z = 0` without a derivative; a kink where the function itself has a value there, 0."""

    def point(scope: Scope, expr: sp.Expr) -> Iterator[Found]:
        could = scope.of(expr.args[0]).has_zero and (not is_kink or scope.of(expr).has_zero)
        if could and expr.args[0].has(Access):
            yield Found("not differentiable", _equal(expr.args[0], 0), why, expr if is_kink else None, sp.S.Zero)

    return point


def _integers(scope: Scope, expr: sp.Expr) -> Iterator[Found]:
    if expr.args[0].has(Access) and not is_integral(expr.args[0]):
        why = "it jumps at whole numbers; its derivative is taken as 0"
        yield Found("not differentiable", _equal(expr.args[0], expr), why)


def _needs_above(least: int, why: str, *, itself: bool) -> Callable[[Scope, sp.Expr], Iterator[Found]]:
    """Defined for `z > least`, or from `least` on where it is defined `itself`."""

    def point(scope: Scope, expr: sp.Expr) -> Iterator[Found]:
        values = scope.of(expr.args[0] - least)
        if values.low < 0 or (values.has_zero and not itself):
            relation = sp.Lt if itself else sp.Le
            at_end = values.low >= 0
            yield Found(
                "undefined",
                _equal(expr.args[0], least) if at_end else relation(expr.args[0], least, evaluate=False),
                why,
            )

    return point


def _needs_within(why: str, *, itself: bool) -> Callable[[Scope, sp.Expr], Iterator[Found]]:
    """Defined for `|z| < 1`, or up to 1 `itself`, where the slope is infinite."""

    def point(scope: Scope, expr: sp.Expr) -> Iterator[Found]:
        z = expr.args[0]
        values = scope.of(z)
        if values.low < -1 or values.high > 1 or (not itself and (values.low <= -1 or values.high >= 1)):
            yield Found("undefined", (sp.Gt if itself else sp.Ge)(sp.Abs(z, evaluate=False), 1, evaluate=False), why)
        if itself and (values.low <= -1 or values.high >= 1):
            yield Found("not differentiable", _equal(sp.Abs(z, evaluate=False), 1), "its slope is infinite there")

    return point


def _tangent(scope: Scope, expr: sp.Expr) -> Iterator[Found]:
    if scope.of(sp.cos(expr.args[0])).has_zero:
        yield Found("undefined", _equal(sp.cos(expr.args[0]), 0), "a tangent has a pole there")


POINTS: dict[type, Callable[[Scope, sp.Expr], Iterator[Found]]] = {
    sp.Abs: _kink("an absolute value has a kink", is_kink=True),
    sp.sign: _kink("a sign jumps; its derivative is taken as 0"),
    Step: _kink("a step jumps; its derivative is taken as 0"),
    HalfStep: _kink("a step jumps; its derivative is taken as 0"),
    sp.floor: _integers,
    sp.ceiling: _integers,
    sp.Max: _of_extremum,
    sp.Min: _of_extremum,
    InverseRoot: _kink("a norm is 0 there; the result is 0 by convention"),
    sp.log: _needs_above(0, "a logarithm of it", itself=False),
    Log1p: _needs_above(-1, "a logarithm of one more than it", itself=False),
    sp.acosh: _needs_above(1, "an inverse hyperbolic cosine of it", itself=True),
    sp.asin: _needs_within("an inverse sine of it", itself=True),
    sp.acos: _needs_within("an inverse cosine of it", itself=True),
    sp.atanh: _needs_within("an inverse hyperbolic tangent of it", itself=False),
    sp.tan: _tangent,
}
"""The functions that have such points, each with what finds them."""


def _equal(left: sp.Expr, right: sp.Expr | int) -> sp.Expr:
    return sp.Eq(left, right, evaluate=False)


def _below(base: sp.Expr, with_zero: bool) -> sp.Expr:
    return (sp.Le if with_zero else sp.Lt)(base, 0, evaluate=False)


# Overflow


def _exponentials(program: Program, kind: Kind) -> Iterator[Limit]:
    scope = scope_of(program, signs=True)
    found: dict[tuple[str, sp.Expr], Limit] = {}
    for equation in program.equations:
        for term in equation.terms:
            for exponent, why in _unbounded(scope, term.body):
                where = sp.Gt(exponent, sp.Symbol("_largest"), evaluate=False)
                found.setdefault((equation.target, where), Limit(kind, equation, term, where, why))
    yield from found.values()


def _unbounded(scope: Scope, expr: sp.Expr) -> Iterator[tuple[sp.Expr, str]]:
    if isinstance(expr, Access) or not expr.args:
        return
    if isinstance(expr, sp.Piecewise):
        for value, inside in scope.cases(expr):
            yield from _unbounded(inside, value)
        return
    for one in expr.args:
        yield from _unbounded(scope, one)
    if isinstance(expr, sp.exp | Expm1) and expr.args[0].has(Access) and scope.of(expr.args[0]).high > 88:
        yield expr.args[0], "exp of it is larger than the largest number"
    if isinstance(expr, sp.sinh | sp.cosh) and expr.args[0].has(Access):
        yield sp.Abs(expr.args[0], evaluate=False), f"{type(expr).__name__} of it is larger than the largest number"


def _shape(where: sp.Expr | None) -> sp.Expr | None:
    """A condition with its indices numbered as they occur, so that the names of bound ones do not matter."""
    if where is None:
        return None
    order: dict[sp.Expr, sp.Expr] = {}
    for access in accesses(where):
        for index in access.indices:
            for symbol in sorted(index.free_symbols, key=str):
                order.setdefault(symbol, sp.Symbol(f"_{900 + len(order)}", integer=True))
    return where.xreplace(order)

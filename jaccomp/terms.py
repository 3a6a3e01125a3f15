"""A right side as terms: nested reductions, padded, divided and guarded reads become equations of their own.

Nothing is read outside its tensor: what a `Piecewise` condition keeps inside is read from a tensor of its own
that is 0 elsewhere. What is outside a pad is a sum over disjoint domains, so that no value
is added and taken away again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp

from jaccomp import notation
from jaccomp.canonical import canonical, term_key
from jaccomp.domains import axis_ranges, extremes, hull, proves
from jaccomp.errors import SpecError
from jaccomp.grammar import limits
from jaccomp.masks import excluded, masked, multiplied_out
from jaccomp.notation import Access, Index, Pad, Reduction
from jaccomp.program import (
    AXES,
    Constraint,
    Domain,
    Equation,
    Reducer,
    Tensor,
    Term,
    at_least,
    equal,
    expand,
    in_range,
    index_symbol,
)

NESTED: Mapping[type, Reducer] = {
    sp.Product: "prod",
    notation.MaxOver: "max",
    notation.MinOver: "min",
    notation.ArgMaxOver: "argmax",
    notation.ArgMinOver: "argmin",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The indices in force: canonical symbols by name, outermost first, with the constraints of their ranges.

    `guards` are the conditions of the `Piecewise` branch that an expression stands in.
    """

    symbols: Mapping[str, sp.Symbol] = field(default_factory=dict)
    order: tuple[sp.Symbol, ...] = ()
    domain: Domain = ()
    guards: Domain = ()

    def enter(self, name: str, symbol: sp.Symbol, ranges: Iterable[Constraint]) -> Scope:
        return replace(
            self,
            symbols={**self.symbols, name: symbol},
            order=(*self.order, symbol),
            domain=(*self.domain, *ranges),
        )

    def guarded(self, facts: Iterable[Constraint]) -> Scope:
        return replace(self, guards=(*self.guards, *facts))


@dataclass(slots=True)
class Builder:
    """The program under construction; the only mutable thing here."""

    what: str
    constants: dict[sp.Expr, sp.Expr]
    tensors: dict[str, Tensor]
    parts: list[tuple[Tensor, Equation]] = field(default_factory=list)
    known: dict[tuple[Any, ...], str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    symbols: int = 0

    def symbol(self) -> sp.Symbol:
        self.symbols += 1
        return index_symbol(f"_{self.symbols}")

    def part(self, terms: Sequence[Term], scope: Scope, reducer: Reducer, dtype: str = "real") -> sp.Expr:
        """A tensor of its own for `terms` over the indices in scope that they depend on, read where it is needed."""
        used = [s for s in scope.order if any(s in _free(term) for term in terms)]
        guards = tuple(c for c in scope.domain if c.expr.free_symbols & set(used) and _inside(c, scope, used))
        box = Term(sp.S.Zero, scope.order, scope.domain)
        ends = [hull(box, s, ()) for s in used]
        starts = [sp.S.Zero if proves((), Constraint(low)) else low for low, _ in ends]
        counts = tuple(expand(high - start + 1) for (_, high), start in zip(ends, starts, strict=True))
        extents = tuple(map(_at_least_0, counts))
        where = {s: axis + start for s, axis, start in zip(used, AXES, starts, strict=False)}
        tensor = Tensor(f"_part{len(self.parts)}", extents, "int64" if dtype == "int64" else "real")
        plain = axis_ranges(replace(tensor, shape=counts))
        moved = [Constraint(expand(c.over(where).expr)) for c in guards if not c.equality]
        guard = tuple(c for c in moved if not proves(plain, c, depth=2))
        rows = tuple(
            sorted((canonical(_expanded(replace(t, domain=(*t.domain, *guard)), where)) for t in terms), key=term_key)
        )
        key = (reducer, rows, extents, dtype)
        if key in self.known:
            tensor = replace(tensor, name=self.known[key])
        else:
            self.known[key] = tensor.name
            self.tensors[tensor.name] = tensor
            self.origins[tensor.name] = self.what
            self.parts.append((tensor, Equation(tensor.name, AXES[: tensor.rank], rows, reducer)))
        return tensor[tuple(s - start for s, start in zip(used, starts, strict=True))]


def _at_least_0(extent: sp.Expr) -> sp.Expr:
    return extent if proves((), Constraint(extent)) else sp.Max(0, extent)


def _expanded(term: Term, where: Mapping[sp.Symbol, sp.Expr]) -> Term:
    """The term over other indices, its domain and the indices of its reads expanded again."""
    moved = term.over(where)
    reads = {
        a: Access(a.base, *(i if i.has(Access) else expand(i) for i in a.indices)) for a in moved.body.atoms(Access)
    }
    domain = tuple(Constraint(expand(c.expr), c.equality) for c in moved.domain)
    return Term(moved.body.xreplace({a: b for a, b in reads.items() if a != b}), moved.bound, domain)


def _free(term: Term) -> set[sp.Symbol]:
    found = set(term.body.free_symbols)
    for constraint in term.domain:
        found |= constraint.expr.free_symbols
    return found - set(term.bound)


def _inside(constraint: Constraint, scope: Scope, used: Sequence[sp.Symbol]) -> bool:
    return all(s in used for s in constraint.expr.free_symbols if s in scope.order)


def right_side(builder: Builder, expr: sp.Expr, scope: Scope, whole: bool) -> tuple[Reducer, list[Term]]:
    """The right side as terms of one reducer; a reduction that does not need every index becomes a part.

    Only an equation that writes its `whole` target has another reducer than a sum: 0 is what the rest of it adds.
    """
    kind = NESTED.get(type(expr))
    if kind is not None and whole:
        term = _reduction(builder, expr, scope)
        if set(scope.order) <= _free(term):
            return kind, [term]
    return "sum", _terms(builder, expr, scope, top=True)


def _terms(builder: Builder, expr: sp.Expr, scope: Scope, top: bool) -> list[Term]:
    """`expr` as a sum of terms: what is linear in sums, zero-padded accesses and indicators is taken apart."""
    found: list[Term] = []
    for addend in sp.Add.make_args(expr):
        factors = sp.Mul.make_args(addend)
        sums = [f for f in factors if isinstance(f, sp.Sum)]
        if len(sums) == 1:
            rest = sp.Mul(*(f for f in factors if f is not sums[0]))
            inner = _sum(builder, sums[0], scope)
            if top and all(set(scope.order) <= _free(t) for t in inner):
                outer = _product(builder, rest, scope)
                found += [Term(outer.body * t.body, t.bound, (*outer.domain, *t.domain)) for t in inner]
                continue
        found.append(_product(builder, addend, scope))
    return _gather_plain(found)


def _gather_plain(terms: list[Term]) -> list[Term]:
    """Terms without bound indices over the same domain as one term."""
    bodies: dict[Domain, list[sp.Expr]] = {}
    for term in terms:
        if not term.bound:
            bodies.setdefault(term.domain, []).append(term.body)
    found: list[Term] = []
    for term in terms:
        if term.bound:
            found.append(term)
        elif term.domain in bodies:
            found.append(Term(sp.Add(*bodies.pop(term.domain)), (), term.domain))
    return found


def _product(builder: Builder, expr: sp.Expr, scope: Scope) -> Term:
    """One addend: zero-padded accesses and deltas among its factors become constraints."""
    body: list[sp.Expr] = []
    domain: list[Constraint] = []
    for factor in sp.Mul.make_args(expr):
        if isinstance(factor, Pad) and factor.args[1] == 0:
            read = _read(builder, factor.args[0], scope)
            if not read.bound:
                body.append(read.access)
                domain += _inside_tensor(builder, read, scope)
                continue
        if isinstance(factor, sp.KroneckerDelta):
            left, right = (expression(builder, a, scope) for a in factor.args[:2])
            domain.append(equal(left, right))
            continue
        body.append(expression(builder, factor, scope))
    return Term(sp.Mul(*body), (), tuple(domain))


def _sum(builder: Builder, expr: sp.Expr, scope: Scope) -> list[Term]:
    inner, bound, domain = _bind(builder, expr, scope)
    body, told = _restricted(builder, sp.Mul.make_args(expr.args[0]), inner, bound, sp.S.Zero)
    inner, domain = replace(inner, domain=(*inner.domain, *told)), (*domain, *told)
    body = multiplied_out(body) if body.has(sp.KroneckerDelta, Pad) else body
    if isinstance(body, sp.Add) and not body.has(sp.KroneckerDelta, Pad):
        return [Term(expression(builder, body, inner), bound, domain)]
    return [Term(t.body, bound, (*domain, *t.domain)) for t in _terms(builder, body, inner, top=False)]


def _restricted(
    builder: Builder, factors: Sequence[sp.Expr], scope: Scope, bound: Sequence[sp.Symbol], neutral: sp.Expr
) -> tuple[sp.Expr, Domain]:
    """The product of the factors of a reduction's body, and the part of its range that they leave.

    Σ_m cases(f if m <= t; 0 otherwise) g   ->   f g,  m <= t: where a condition is about indices alone
    """
    kept: list[sp.Expr] = []
    domain: list[Constraint] = []
    for factor in excluded(factors) if neutral == 0 else factors:
        told = None
        if isinstance(factor, sp.Piecewise) and len(factor.args) == 2 and factor.args[1].cond == sp.true:
            values = [value for value, _ in factor.args]
            if neutral in values:
                holds = values[1] == neutral
                told = _exactly(builder, factor.args[0].cond, scope, holds)
        if told is None or not all(set(bound) & c.expr.free_symbols for c in told):
            kept.append(masked(factor) if neutral == 0 else factor)
            continue
        inside = replace(scope, domain=(*scope.domain, *told))
        body, more = _restricted(builder, sp.Mul.make_args(values[0 if holds else 1]), inside, bound, neutral)
        kept.append(body)
        domain += (*told, *more)
    return sp.Mul(*kept), tuple(domain)


def _bind(builder: Builder, expr: sp.Expr, scope: Scope) -> tuple[Scope, tuple[sp.Symbol, ...], Domain]:
    """The scope inside a reduction, and its indices as they are listed; what a range reads is in scope before it."""
    inner = scope
    listed = list(expr.args[1]) if isinstance(expr, Reduction) else [limit[0] for limit in expr.limits]
    bound: list[tuple[int, sp.Symbol]] = []
    domain: list[Constraint] = []
    for index, start, stop in limits(expr):
        symbol = builder.symbol()
        ranges = ranges_of(builder, symbol, start, stop, inner)
        inner = inner.enter(index.name, symbol, ranges)
        bound.append((listed.index(index), symbol))
        domain += ranges
    return inner, tuple(symbol for _, symbol in sorted(bound, key=lambda pair: pair[0])), tuple(domain)


def _reduction(builder: Builder, expr: sp.Expr, scope: Scope) -> Term:
    """A maximum, minimum, product or argument of one: padding with the neutral infinity becomes a constraint."""
    inner, bound, domain = _bind(builder, expr, scope)
    body = expr.args[0]
    neutral = -sp.oo if isinstance(expr, notation.MaxOver | notation.ArgMaxOver) else sp.oo
    if isinstance(body, Pad) and body.args[1] == neutral and not isinstance(expr, sp.Product):
        read = _read(builder, body.args[0], inner)
        return Term(read.access, (*bound, *read.bound), (*domain, *read.links, *_inside_tensor(builder, read, inner)))
    return Term(expression(builder, body, inner), bound, domain)


# -------------------------------------------------------------------------------------------------------- expressions


def expression(builder: Builder, expr: Any, scope: Scope) -> Any:
    """A user's expression in canonical symbols, with every nested reduction replaced by a read of its part."""
    if isinstance(expr, Index):
        return scope.symbols[expr.name]
    if expr in builder.constants and not isinstance(expr, notation.Tensor):
        return builder.constants[expr]
    if isinstance(expr, notation.Tensor):
        return Access(builder.constants[expr])
    if isinstance(expr, Access):
        return _access(builder, expr, scope)
    if isinstance(expr, sp.Sum):
        return builder.part(_sum(builder, expr, scope), scope, "sum")
    kind = NESTED.get(type(expr))
    if kind is not None:
        dtype = "int64" if kind in ("argmax", "argmin") else "real"
        return builder.part([_reduction(builder, expr, scope)], scope, kind, dtype)
    if isinstance(expr, Pad):
        return _pad(builder, expr, scope)
    if isinstance(expr, sp.KroneckerDelta):
        left, right = (expression(builder, a, scope) for a in expr.args[:2])
        return builder.part([Term(sp.S.One, (), (equal(left, right),))], scope, "sum")
    if not expr.args:
        return expr
    if isinstance(expr, sp.Piecewise):
        return _piecewise(builder, expr, scope)
    if isinstance(expr, sp.Mul) and any(_is_condition(one) for one in expr.args):
        return builder.part([_product(builder, expr, scope)], scope, "sum")
    return expr.func(*(expression(builder, one, scope) for one in expr.args))


def _is_condition(factor: sp.Expr) -> bool:
    """Is the factor 0 under a condition, whatever it is multiplied by?"""
    return isinstance(factor, sp.KroneckerDelta) or (isinstance(factor, Pad) and factor.args[1] == 0)


def _piecewise(builder: Builder, expr: sp.Piecewise, scope: Scope) -> sp.Expr:
    """Branches in canonical symbols, each read under what its own condition and the ones before it say of indices."""
    branches = []
    for value, condition in expr.args:
        facts, told = _facts(builder, condition, scope)
        inside = scope.guarded(facts)
        branches.append((expression(builder, value, inside), expression(builder, condition, inside)))
        scope = scope.guarded(told)
    return sp.Piecewise(*branches)


def _exactly(builder: Builder, condition: Any, scope: Scope, holds: bool) -> Domain | None:
    """The constraints that say no more and no less than that a condition on indices holds, or that it does not."""
    if isinstance(condition, sp.And if holds else sp.Or):
        parts = [_exactly(builder, one, scope, holds) for one in condition.args]
        return None if None in parts else tuple(c for part in parts if part is not None for c in part)
    if isinstance(condition, sp.And | sp.Or):
        return None
    return _facts(builder, condition, scope)[0 if holds else 1] or None


def _facts(builder: Builder, condition: Any, scope: Scope) -> tuple[Domain, Domain]:
    """What an affine condition on indices says where it holds, and where it does not; () where that is nothing."""
    if isinstance(condition, sp.And | sp.Or):
        pairs = [_facts(builder, one, scope) for one in condition.args]
        side = 0 if isinstance(condition, sp.And) else 1
        both = tuple(c for pair in pairs for c in pair[side])
        return (both, ()) if side == 0 else ((), both)
    if not isinstance(condition, sp.core.relational.Relational) or condition.has(Access, notation.Tensor, Reduction):
        return (), ()
    left, right = (expression(builder, one, scope) for one in (condition.lhs, condition.rhs))
    if not (left.is_integer and right.is_integer) or (left - right).has(sp.floor, sp.Mod, sp.Max, sp.Min):
        return (), ()
    below, above = at_least(right, left), at_least(left, right)
    strictly_below, strictly_above = at_least(right - 1, left), at_least(left - 1, right)
    match condition:
        case sp.StrictGreaterThan():
            return (strictly_above,), (below,)
        case sp.GreaterThan():
            return (above,), (strictly_below,)
        case sp.StrictLessThan():
            return (strictly_below,), (above,)
        case sp.LessThan():
            return (below,), (strictly_above,)
        case sp.Eq():
            return (equal(left, right),), ()
        case _:
            return (), (equal(left, right),)


@dataclass(frozen=True, slots=True)
class Read:
    """An access whose floors and remainders are indices of their own, with the links that define those."""

    access: Access
    bound: tuple[sp.Symbol, ...] = ()
    links: Domain = ()


def _read(builder: Builder, expr: Access, scope: Scope) -> Read:
    """`x[floor(e/c)]` as `x[q]` with `c q <= e < c q + c`; `Mod(e, c)` as `e - c q`."""
    indices: list[sp.Expr] = []
    bound: list[sp.Symbol] = []
    links: list[Constraint] = []
    for one in expr.indices:
        index, extra = _without_floor(builder, expression(builder, one, scope), scope)
        indices.append(expand(index) if not index.has(Access) else index)
        bound += [s for s, _ in extra]
        links += [c for _, told in extra for c in told]
    return Read(Access(builder.constants[expr.base], *indices), tuple(bound), tuple(dict.fromkeys(links)))


def _access(builder: Builder, expr: Access, scope: Scope) -> sp.Expr:
    """A read, or where it divides an index or is kept inside its tensor by a guard, that of a part."""
    read = _read(builder, expr, scope)
    dtype = "int64" if read.access.is_integer else "real"
    if read.bound:
        _check_divided(builder, expr, read, scope)
    elif not (scope.guards and _is_guarded(builder, read, scope)):
        return read.access
    term = Term(read.access, read.bound, (*read.links, *_inside_tensor(builder, read, scope)))
    return builder.part([term], scope, "sum", dtype)


def _is_guarded(builder: Builder, read: Read, scope: Scope) -> bool:
    """Do the guards in force keep inside its tensor a read that the ranges in scope do not?"""
    inside = _inside_tensor(builder, read, scope)
    return bool(inside) and all(proves((*scope.domain, *scope.guards), c) for c in inside)


def _check_divided(builder: Builder, expr: Access, read: Read, scope: Scope) -> None:
    """Refuse a divided read that is not proved to lie inside its tensor: no call would check it."""
    facts = (*scope.domain, *scope.guards)
    extents = builder.tensors[read.access.name].shape
    for written, index, extent in zip(expr.indices, read.access.indices, extents, strict=True):
        if not set(read.bound) & index.free_symbols:
            continue
        divided = expression(builder, written, scope)
        floors = in_range(divided, extent) if not divided.has(sp.Mod) else ()
        direct = in_range(index, extent)
        proved = (
            proves((*facts, *read.links), one) or (floors and proves(facts, _affine(floors[k].expr)))
            for k, one in enumerate(direct)
        )
        if not all(proved):
            raise SpecError(
                builder.what,
                f"{expr} divides an index and cannot be proved to lie inside {expr.base.name!r}.",
                "Write jc.pad of it, or declare the index over a range that the division keeps inside.",
            )


def _without_floor(builder: Builder, expr: sp.Expr, scope: Scope) -> tuple[sp.Expr, list[tuple[sp.Symbol, Domain]]]:
    """An index expression with each floor or remainder of indices replaced, and the new indices with their links."""
    extra: list[tuple[sp.Symbol, Domain]] = []
    if isinstance(expr, Access):
        return expr, extra
    while node := next((n for n in sp.postorder_traversal(expr) if _divides(n)), None):
        argument, divisor = node.args if isinstance(node, sp.Mod) else _quotient(node.args[0])
        q = builder.symbol()
        remainder = expand(argument - divisor * q)
        facts = (*scope.domain, *(c for _, told in extra for c in told))
        order = (*scope.order, *(s for s, _ in extra))
        low, high = _quotient_ends(Term(sp.S.Zero, order, facts), expand(argument), divisor)
        extra.append((q, (*in_range(remainder, divisor), *in_range(q, high + 1, low))))
        expr = expr.xreplace({node: q if isinstance(node, sp.floor) else remainder})
    return expr, extra


def _divides(node: sp.Basic) -> bool:
    return (
        isinstance(node, sp.Mod | sp.floor)
        and any(s.name.startswith("_") for s in node.free_symbols)
        and not node.has(Access)
    )


def _quotient_ends(box: Term, argument: sp.Expr, divisor: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """The least and the greatest `floor(argument/divisor)` over a box, without a division where that is proved."""
    low, high = extremes(box, argument)
    least = sp.S.Zero if proves((), Constraint(low)) else sp.floor(low / divisor)
    few = (sp.Integer(k) for k in range(4))
    most = next((k for k in few if proves((), at_least(divisor * (k + 1) - 1, high))), None)
    return least, sp.floor(high / divisor) if most is None else most


def _quotient(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """`e/c` as (e, c) with integer coefficients."""
    numerator, denominator = sp.fraction(sp.together(expr))
    return expand(numerator), denominator


def _inside_tensor(builder: Builder, read: Read, scope: Scope) -> Domain:
    """What must hold for a read to lie in its tensor, less what the ranges of the indices that it holds imply.

    Ranges that see other indices too are not asked: a part over these indices alone would lose them.
    """
    held = {s for i in read.access.indices for s in i.free_symbols}
    facts = [c for c in scope.domain if not (c.expr.free_symbols - held) & set(scope.order)]
    extents = builder.tensors[read.access.name].shape
    ranges = (c for i, extent in zip(read.access.indices, extents, strict=True) for c in in_range(i, extent))
    return tuple(c for c in ranges if not proves((*facts, *read.links), c, depth=3))


def _pad(builder: Builder, expr: Pad, scope: Scope) -> sp.Expr:
    """The read, or a part with a term inside the tensor and one for each way to be outside."""
    read = _read(builder, expr.args[0], scope)
    inside = _inside_tensor(builder, read, scope)
    if not inside and not read.bound:
        return read.access
    here = Term(read.access, read.bound, (*read.links, *inside))
    value = expression(builder, expr.args[1], scope)
    if value in (sp.oo, -sp.oo):
        return builder.part([here], scope, "max" if value == -sp.oo else "min")
    terms = [here]
    if value != 0:
        terms += [
            Term(value, read.bound, (*read.links, *inside[:k], Constraint(expand(-1 - inside[k].expr))))
            for k in range(len(inside))
        ]
    return builder.part(terms, scope, "sum")


def ranges_of(
    builder: Builder, symbol: sp.Symbol, start: sp.Expr, stop: sp.Expr, scope: Scope
) -> tuple[Constraint, ...]:
    """`start <= symbol < stop`, a maximum at the start and a minimum at the stop taken apart."""
    low, high = expression(builder, start, scope), expression(builder, stop, scope)
    if low.has(Access) or high.has(Access):
        raise SpecError(
            builder.what,
            f"the range {start}..{stop - 1} of an index reads a tensor.",
            "Ranges that depend on data are refused for now; mask the body with Piecewise.",
        )
    if low.has(sp.Min) or high.has(sp.Max):
        raise SpecError(
            builder.what,
            f"the range {start}..{stop - 1} starts at a minimum, or stops at a maximum.",
            "A range starts at integer expressions or their Max, and stops at integer expressions or their Min.",
        )
    lows = [_affine(symbol - one) for one in _arguments(low, sp.Max)]
    highs = [_affine(one - 1 - symbol) for one in _arguments(high, sp.Min)]
    return (*lows, *highs)


def _arguments(expr: sp.Expr, kind: type) -> list[sp.Expr]:
    """`Max(a, b) + c` as [a + c, b + c]."""
    nodes = sorted(expr.atoms(kind), key=str)
    if not nodes:
        return [expand(expr)]
    return [expand(expr.xreplace({nodes[0]: one})) for one in nodes[0].args]


def _affine(expr: sp.Expr) -> Constraint:
    """`expr >= 0` without floors of indices: `floor(e/c) + r >= 0` is `e + c r >= 0`."""
    expr = expand(expr)
    for node in sorted(expr.atoms(sp.floor), key=str):
        if not any(s.name.startswith("_") for s in node.free_symbols):
            continue
        numerator, divisor = _quotient(node.args[0])
        rest = expr - expr.coeff(node) * node
        if expr.coeff(node) == 1:
            return Constraint(expand(numerator + divisor * rest))
        if expr.coeff(node) == -1:
            return Constraint(expand(divisor * (rest + 1) - numerator - 1))
    return Constraint(expr)

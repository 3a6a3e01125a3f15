"""Definitions read as relations between quantities: `y = exp(x)/Z` also says `exp(x) = y Z`.

A definition `v[axes] = body` is solved for each atom of its body, an access or a transcendental value that sees every
axis: sums are moved to the other side, products divided by factors that are known not to vanish, roots and reciprocals
inverted. What could divide by zero, or would need a sign that the definition does not give, is no relation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra.matching import bindings
from jaccomp.calculus.functions import InverseRoot
from jaccomp.calculus.scalar import known_functions
from jaccomp.domains import axis_ranges, digits, is_index, proves
from jaccomp.notation import Access
from jaccomp.program import Constraint, Domain, Equation, Program, Term

TRANSCENDENTAL = tuple(f for f in known_functions() if f is not sp.exp)


@dataclass(frozen=True, slots=True)
class Relation:
    """`atom = value` for all axes; with `power`, any power of the base `atom` is that power of `value`."""

    target: str
    axes: tuple[sp.Symbol, ...]
    guard: Domain
    atom: sp.Expr
    value: sp.Expr
    power: sp.Expr | None = None


def is_nonzero(expr: sp.Expr, definitions: Mapping[str, Equation]) -> bool:
    """Is the expression known never to vanish? Sizes are at least 1 where a loop runs; signs are the definitions'."""
    if isinstance(expr, sp.Mul):
        return all(is_nonzero(one, definitions) for one in expr.args)
    if isinstance(expr, sp.Pow):
        return expr.base == sp.E or (
            bool(expr.exp.is_Rational) and (expr.exp < 0 or is_nonzero(expr.base, definitions))
        )
    if isinstance(expr, Access):
        equation = definitions.get(expr.name)
        return equation is not None and is_positive(equation, definitions)
    return bool(expr.is_nonzero) or (isinstance(expr, sp.Symbol) and bool(expr.is_nonnegative))


def is_positive(equation: Equation, definitions: Mapping[str, Equation]) -> bool:
    """Is every value of the equation's target > 0 by its definition: exponentials, inverse roots, sums of them?"""
    if equation.reducer != "sum" or not equation.terms:
        return False
    return all(_positive(term.body, definitions) and _nonempty(term) for term in equation.terms)


def _nonempty(term: Term) -> bool:
    return not any(c.equality for c in term.domain)


def _positive(expr: sp.Expr, definitions: Mapping[str, Equation]) -> bool:
    if isinstance(expr, sp.Mul | sp.Add):
        return all(_positive(one, definitions) for one in expr.args)
    if isinstance(expr, sp.Pow):
        if expr.base == sp.E:
            return True
        return bool(expr.exp.is_Rational) and expr.exp < 0 and int(expr.exp.q) == 2
    if isinstance(expr, Access):
        equation = definitions.get(expr.name)
        return equation is not None and is_positive(equation, definitions)
    return bool(expr.is_positive) or isinstance(expr, sp.exp)


def relations(program: Program, names: Sequence[str]) -> list[Relation]:
    """The relations of the definitions in `names`, the last definition first, in a fixed order."""
    definitions = program.definitions()
    found: list[Relation] = []
    for name in reversed(names):
        term = _pointwise(definitions[name])
        if term is None:
            continue
        axes = definitions[name].axes
        guard = (*axis_ranges(program.tensor(name)), *term.domain)
        for atom, solution, power in _solve(term.body, program.tensor(name)[axes], definitions):
            if set(axes) <= atom.free_symbols:
                found.append(Relation(name, axes, guard, atom, solution, power))
    return found


def _pointwise(equation: Equation) -> Term | None:
    """The one term of a definition without bound indices; `Σ_{a = ⌊c/K⌋} f(a)` is `f(⌊c/K⌋)`. None for other sums."""
    if equation.reducer != "sum" or len(equation.terms) != 1 or any(c.equality for c in equation.terms[0].domain):
        return None
    (term,) = equation.terms
    found = {d.index: d for d in reversed(digits(term, term.bound))}
    if set(found) != set(term.bound):
        return None
    said = {c for d in found.values() for c in d.constraints}
    domain = tuple(c for c in term.domain if c not in said and not c.expr.free_symbols & set(term.bound))
    return Term(term.body.xreplace({b: d.floor for b, d in found.items()}), (), domain)


def _without_floors(term: Term, facts: Domain) -> Term | None:
    """The term with every floor written as the index that it is by a digit of the domain; None where one is none."""
    floors = [f for f in sorted(term.body.atoms(sp.floor), key=str) if any(is_index(s) for s in f.free_symbols)]
    if not floors:
        return term
    known = replace(term, domain=(*facts, *term.domain))
    symbols = sorted({s for c in known.domain for s in c.expr.free_symbols if is_index(s)}, key=str)
    values = {d.floor: d.index for d in reversed(digits(known, symbols))}
    if any(f not in values for f in floors):
        return None
    return replace(term, body=term.body.xreplace({f: values[f] for f in floors}))


def _solve(
    body: sp.Expr, value: sp.Expr, definitions: Mapping[str, Equation]
) -> Iterator[tuple[sp.Expr, sp.Expr, sp.Expr | None]]:
    """Every atom of `body` that `body = value` determines, with what it equals."""
    if isinstance(body, Access):
        if not body.is_integer:
            yield body, value, None
        return
    if isinstance(body, sp.Add | sp.Mul):
        neutral = sp.Add if isinstance(body, sp.Add) else sp.Mul
        for k, part in enumerate(body.args):
            if not part.has(Access):
                continue
            rest = neutral(*(a for j, a in enumerate(body.args) if j != k))
            if isinstance(part, Access) and rest.has(part):
                continue
            if isinstance(body, sp.Add):
                yield from _solve(part, value - rest, definitions)
            elif is_nonzero(rest, definitions) and not _spans(rest, value):
                yield from _solve(part, value / rest, definitions)
        return
    if isinstance(body, sp.exp):
        yield body, value, None  # not its argument: the logarithm of a value that underflowed is lost
        return
    if isinstance(body, sp.Pow):
        base, exponent = body.args
        if exponent.is_Rational and exponent in (sp.S.Half, -sp.S.Half, sp.S.NegativeOne):
            if isinstance(value, Access):
                yield base, value, exponent
            if exponent == -1 or not isinstance(value, Access):
                yield from _solve(base, value ** (1 / exponent), definitions)
        return
    if isinstance(body, sp.log):
        yield body, value, None
        yield from _solve(body.args[0], sp.exp(value), definitions)
        return
    if isinstance(body, TRANSCENDENTAL) and not isinstance(body, InverseRoot):
        yield body, value, None


def _spans(rest: sp.Expr, value: sp.Expr) -> bool:
    """Does the divisor vary over every axis? Only a row's own scale is divided by, which does not lose digits."""
    axes = {s for a in value.atoms(Access) for s in a.free_symbols if is_index(s)}
    return bool(axes <= rest.free_symbols)


def substitute(relation: Relation, term: Term, facts: Domain) -> Term:
    """The term with every instance of the relation's atom, and every power of its base, replaced."""
    where: dict[sp.Expr, sp.Expr] = {}
    known = (*facts, *term.domain)
    for node in sp.preorder_traversal(term.body):
        if node in where:
            continue
        if relation.power is not None:
            if isinstance(node, sp.Pow) and node.base != sp.E and node.exp.is_Rational:
                ratio = node.exp / relation.power
                if ratio.is_Integer:
                    replacement = _instance(relation, node.base, known)
                    if replacement is not None:
                        where[node] = replacement**ratio
            continue
        if type(node) is type(relation.atom) and isinstance(node, sp.Expr) and node.has(Access):
            replacement = _instance(relation, node, known)
            if replacement is not None:
                where[node] = replacement
    if not where:
        return term
    return _without_floors(replace(term, body=term.body.xreplace(where)), facts) or term


def _instance(relation: Relation, node: sp.Expr, facts: Domain) -> sp.Expr | None:
    for binding in bindings(relation.atom, relation.axes, node):
        guards: Iterator[Constraint] = (c.over(binding) for c in relation.guard)
        if all(proves(facts, guard, depth=3) for guard in guards):
            return relation.value.xreplace(binding)
    return None

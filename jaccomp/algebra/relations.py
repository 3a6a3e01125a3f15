"""Definitions read as relations between quantities: `y = exp(x)/Z` also says `exp(x) = y Z`.

A definition `v[axes] = body` is solved for each atom of its body, an access or a transcendental value that sees every
axis: sums are moved to the other side, products divided by factors that are known not to vanish, roots and reciprocals
inverted. What could divide by zero, or would need a sign that the definition does not give, is no relation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.algebra.matching import bindings
from jaccomp.calculus.functions import InverseRoot
from jaccomp.calculus.scalar import known_functions
from jaccomp.domains import axis_ranges, is_index, proves
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
        equation = definitions[name]
        if equation.reducer != "sum" or len(equation.terms) != 1 or equation.terms[0].bound:
            continue
        term = equation.terms[0]
        if any(c.equality for c in term.domain):
            continue
        value: sp.Expr = program.tensor(name)[equation.axes]
        for atom, solution, power in _solve(term.body, value, definitions):
            if set(equation.axes) <= atom.free_symbols:
                guard = (*axis_ranges(program.tensor(name)), *term.domain)
                found.append(Relation(name, equation.axes, guard, atom, solution, power))
    return found


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
        yield body, value, None
        if isinstance(value, Access):
            yield from _solve(body.args[0], sp.log(value), definitions)
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
    return Term(term.body.xreplace(where), term.bound, term.domain) if where else term


def _instance(relation: Relation, node: sp.Expr, facts: Domain) -> sp.Expr | None:
    for binding in bindings(relation.atom, relation.axes, node):
        guards: Iterator[Constraint] = (c.over(binding) for c in relation.guard)
        if all(proves(facts, guard, depth=3) for guard in guards):
            return relation.value.xreplace(binding)
    return None

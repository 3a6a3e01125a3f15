"""Jacobian blocks as sums of terms with constraints, read off the VJP: `∂y[f]/∂x[a]` is `ct_x[a]` for `ct_y = δ_f`.

    Jacobian   ∂T[f]/∂A[a] = Σ {b : C(f, b, a)} coefficient(f, b, a)

The VJP is linear in its cotangents. Reading each cotangent `ct_y[α]` as the constraint `α = f`, and each intermediate
that is linear in them as what it is defined to be, leaves terms in the layer's own quantities; equalities with a unit
coefficient are solved, the others are the Kronecker deltas of the printed formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra.factoring import collected
from jaccomp.domains import axis_ranges, is_index, solve_equalities
from jaccomp.errors import DerivativeError
from jaccomp.program import (
    Constraint,
    Domain,
    Program,
    Term,
    accesses,
    equal,
    expand,
    fresh_bounds,
    in_range,
    index_symbol,
    instantiate,
    next_bound,
    tidy,
)


@dataclass(frozen=True, slots=True)
class Block:
    """∂of[rows]/∂wrt[columns]: the sum of its terms. `rows` and `columns` are symbols of their own kinds."""

    of: str
    wrt: str
    seed: str
    output: str
    rows: tuple[sp.Symbol, ...]
    columns: tuple[sp.Symbol, ...]
    terms: tuple[Term, ...]


def row_symbols(rank: int) -> tuple[sp.Symbol, ...]:
    return tuple(index_symbol(f"_{100 + k}") for k in range(rank))


def block(program: Program, of: str, wrt: str, seed: str, output: str) -> Block:
    """The block ∂of/∂wrt of a simplified VJP program, by canonical names.

    `seed` is the cotangent input of `of`, `output` the cotangent of `wrt`; every other input that starts as the seed
    does is a cotangent too. Raises `DerivativeError` where the program has no such pair.
    """
    if seed not in program.inputs or output not in program.outputs:
        raise DerivativeError(f"{program.name}", f"there is no block of {of!r} by {wrt!r}.", "Both must be real.")
    mark = seed.removesuffix(of)
    seeds = frozenset(name for name in program.inputs if name.startswith(mark))
    equation = next(e for e in program.equations if e.target == output)
    rows = row_symbols(program.tensor(seed).rank)
    ranges = axis_ranges(program.tensor(output))
    outer = tuple(c for r, extent in zip(rows, program.tensor(seed).shape, strict=True) for c in in_range(r, extent))
    given = (*ranges, *outer)
    opened = [t for term in equation.terms for t in _open(program, term, seed, rows, seeds)]
    solved: list[Term] = []
    for term in opened:
        one = _aligned(term, rows, equation.axes, given)
        if one is not None:
            solved.append(one)
    return Block(of, wrt, seed, output, rows, equation.axes, _joined(solved))


def _open(
    program: Program, term: Term, seed: str, rows: tuple[sp.Symbol, ...], seeds: frozenset[str]
) -> Iterator[Term]:
    """The terms of `term` with its one factor that is linear in the cotangents replaced by what it is."""
    linear = _linear_names(program, seeds)
    for addend in _linear_addends(term.body, linear):
        factor = next((a for a in accesses(addend) if a.name in linear), None)
        if factor is None:
            continue
        rest = addend.xreplace({factor: sp.S.One})
        if factor.name == seed:
            here = tuple(equal(i, r) for i, r in zip(factor.indices, rows, strict=True))
            yield Term(rest, term.bound, (*term.domain, *here))
        elif factor.name in seeds:
            continue
        else:
            definition = next(e for e in program.equations if e.target == factor.name)
            for inner in instantiate(definition, factor.indices, next_bound(term)):
                body = replace(term, body=rest * inner.body)
                joined = Term(body.body, (*term.bound, *inner.bound), (*term.domain, *inner.domain))
                yield from _open(program, joined, seed, rows, seeds)


def _linear_names(program: Program, seeds: frozenset[str]) -> frozenset[str]:
    found = set(seeds)
    for equation in program.equations:
        if any(a.name in found for t in equation.terms for a in accesses(t.body)):
            found.add(equation.target)
    return frozenset(found)


def _linear_addends(body: sp.Expr, linear: frozenset[str]) -> Iterator[sp.Expr]:
    """The body as a sum of products, each with one factor that is linear in the cotangents; nothing else is opened."""
    if isinstance(body, sp.Add):
        for one in body.args:
            yield from _linear_addends(one, linear)
        return
    if isinstance(body, sp.Mul):
        for k, factor in enumerate(body.args):
            if isinstance(factor, sp.Add) and any(a.name in linear for a in accesses(factor)):
                rest = sp.Mul(*body.args[:k], *body.args[k + 1 :])
                for one in factor.args:
                    yield from _linear_addends(rest * one, linear)
                return
    if isinstance(body, sp.Piecewise) and any(a.name in linear for a in accesses(body)):
        names = [a for a in accesses(body) if a.name in linear]
        for name in names:
            pieces = ((value.coeff(name), condition) for value, condition in body.args)
            yield name * sp.Piecewise(*pieces)
        return
    yield body


def _aligned(term: Term, rows: tuple[sp.Symbol, ...], columns: tuple[sp.Symbol, ...], given: Domain) -> Term | None:
    """The term without the bound indices that equalities determine; columns written as rows where δ says so."""
    solved = solve_equalities(term, given)
    if solved is None:
        return None
    where: dict[sp.Expr, sp.Expr] = {}
    defining: list[Constraint] = []
    for constraint in solved.domain:
        column = _determined(constraint, rows, columns)
        if column is not None and column not in where:
            where[column] = expand(column - constraint.expr.coeff(column) * constraint.expr)
            defining.append(constraint)
    body = solved.body.xreplace(where)
    domain = tuple(
        c if c in defining else Constraint(expand(c.expr.xreplace(where)), c.equality) for c in solved.domain
    )
    return tidy(fresh_bounds(Term(body, solved.bound, domain), 0))


def _determined(
    constraint: Constraint, rows: tuple[sp.Symbol, ...], columns: tuple[sp.Symbol, ...]
) -> sp.Symbol | None:
    """The column that an equality gives in rows alone, with a unit coefficient."""
    if not constraint.equality or constraint.is_data:
        return None
    indices = [s for s in sorted(constraint.expr.free_symbols, key=str) if is_index(s)]
    own = [s for s in indices if s in columns]
    if len(own) != 1 or len(own) == len(indices) or any(s not in rows for s in indices if s not in own):
        return None
    return own[0] if constraint.expr.coeff(own[0]) in (1, -1) else None


def _joined(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Terms over the same domain as one, each body collected."""
    groups: dict[tuple[tuple[sp.Symbol, ...], Domain], list[sp.Expr]] = {}
    for term in terms:
        domain = tuple(sorted((_signed(c) for c in term.domain), key=lambda c: (not c.equality, str(c.expr))))
        groups.setdefault((term.bound, domain), []).append(term.body)
    result = []
    for (bound, domain), bodies in groups.items():
        body = collected(sp.Add(*bodies))
        if body != 0:
            result.append(Term(body, bound, domain))
    return tuple(result)


def _signed(constraint: Constraint) -> Constraint:
    """An equality with a fixed sign, so that equal ones are the same."""
    if constraint.equality and constraint.expr.could_extract_minus_sign():
        return Constraint(-constraint.expr, equality=True)
    return constraint

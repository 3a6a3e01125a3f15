"""Matching an expression against a pattern in which index symbols are variables. Accesses decide; nothing is solved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import sympy as sp

from jaccomp.domains import is_index
from jaccomp.notation import Access
from jaccomp.program import accesses, expand

Binding = dict[sp.Symbol, sp.Expr]
Rewrite = Callable[[sp.Expr], sp.Expr | None]
"""A node as it is rewritten, or None where the rewrite does not apply."""


def rewritten(expr: sp.Expr, rewrites: Sequence[Rewrite], touched: Sequence[type] = (sp.Basic,)) -> sp.Expr:
    """The expression with every node that a rewrite applies to rewritten, innermost first, until none does.

    What holds none of the types `touched` is left as it is, and so are accesses.
    """
    if isinstance(expr, Access) or not expr.args or not expr.has(*touched):
        return expr
    arguments = [rewritten(one, rewrites, touched) for one in expr.args]
    result = expr.func(*arguments) if any(a is not b for a, b in zip(arguments, expr.args, strict=True)) else expr
    for rewrite in rewrites:
        found = rewrite(result)
        if found is not None:
            return rewritten(found, rewrites, touched)
    return result


def bindings(pattern: sp.Expr, variables: tuple[sp.Symbol, ...], subject: sp.Expr) -> Iterator[Binding]:
    """The values of `variables` at which `pattern` is `subject`; every variable must stand bare in some access."""
    for binding in _candidates(list(accesses(pattern)), variables, accesses(subject), {}):
        if _tidy(pattern.xreplace(binding)) == subject:
            yield binding


def _tidy(expr: sp.Expr) -> sp.Expr:
    """The expression with its affine indices expanded, as those of every program are."""
    where = {a: Access(a.base, *(i if i.has(Access) else expand(i) for i in a.indices)) for a in accesses(expr)}
    return expr.xreplace({a: b for a, b in where.items() if a != b})


def _candidates(
    patterns: list[Access], variables: tuple[sp.Symbol, ...], subjects: tuple[Access, ...], known: Binding
) -> Iterator[Binding]:
    if all(v in known for v in variables):
        yield known
        return
    useful = [p for p in patterns if any(v in p.free_symbols and v not in known for v in variables)]
    if not useful:
        return
    first = useful[0]
    rest = [p for p in patterns if p is not first]
    for subject in subjects:
        if subject.base == first.base:
            extended = _extend(first, subject, variables, known)
            if extended is not None:
                yield from _candidates(rest, variables, subjects, extended)


def _extend(pattern: Access, subject: Access, variables: tuple[sp.Symbol, ...], known: Binding) -> Binding | None:
    result = dict(known)
    for one, other in zip(pattern.indices, subject.indices, strict=True):
        if one in variables:
            if result.setdefault(one, other) != other:
                return None
        elif one.free_symbols & set(variables):
            if not _extend_affine(one, other, variables, result):
                return None
        elif one != other:
            return None
    return result


def _extend_affine(one: sp.Expr, other: sp.Expr, variables: tuple[sp.Symbol, ...], result: Binding) -> bool:
    """`k + g K` against `k2 + g2 K`: addends are paired by their coefficients, which must differ from each other.

    A single variable of coefficient 1, as in `h + H` against `q`, is `q - H`.
    """
    own = [v for v in variables if v in one.free_symbols]
    if len(own) == 1 and one.coeff(own[0]) == 1:
        value = expand(other - one + own[0])
        return bool(result.setdefault(own[0], value) == value)
    slopes = {one.coeff(v): v for v in variables if v in one.free_symbols}
    indices = [s for s in sorted(other.free_symbols, key=str) if is_index(s)]
    theirs = {other.coeff(s): s for s in indices}
    if len(theirs) != len(indices) or set(slopes) != set(theirs) or len(slopes) != len(set(slopes.values())):
        return False
    return all(result.setdefault(variable, theirs[slope]) == theirs[slope] for slope, variable in slopes.items())

"""Stabilisation, after differentiation: no overflow and no NaN where the true value is representable.

Z[n] = Σ_k exp(a[n,k])     ->  m[n] = max_k a[n,k];  Z'[n] = Σ_k exp(a[n,k] - finite(m[n]));  Z = exp(finite(m)) Z'
x / ‖x‖, 1 / ‖x‖           ->  0 where ‖x‖ = 0, the convention
1 - σ(u)                   ->  σ(-u), which keeps its digits for large u
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import sympy as sp

from jaccomp.algebra import naming
from jaccomp.algebra.engine import State, name_invariants, ordered_with, prune
from jaccomp.algebra.factoring import collected, joined
from jaccomp.calculus.functions import Finite, Sigmoid
from jaccomp.calculus.names import fresh
from jaccomp.notation import Access
from jaccomp.program import Equation, Program, Tensor, Term, accesses, live, map_terms, reads, verify


def stabilise(program: Program) -> Program:
    """The program with shifted exponential sums and guarded norms. The result is not to be differentiated."""
    shifted = _shift_sums(program)
    squares = frozenset(e.target for e in shifted.equations if _is_sum_of_squares(e))
    roots = frozenset(e.target for e in shifted.equations if _is_root_of(e, squares))

    def guard(term: Term) -> Term:
        return replace(term, body=_complements(_guarded(term.body, squares, roots)))

    guarded = shifted.with_equations(map_terms(e, guard) for e in shifted.equations)
    return verify(live(name_invariants(State(guarded, frozenset(), 0))))


# ------------------------------------------------------------------------------------------------- exponential sums


def _is_exponential_sum(equation: Equation) -> bool:
    if equation.reducer != "sum" or len(equation.terms) != 1 or not equation.terms[0].bound:
        return False
    return isinstance(equation.terms[0].body, sp.exp)


def _shift_sums(program: Program) -> Program:
    targets = [e.target for e in program.equations if _is_exponential_sum(e)]
    for name in targets:
        program = _shift(program, name)
    return program


def _shift(program: Program, name: str) -> Program:
    equation = next(e for e in program.equations if e.target == name)
    (term,) = equation.terms
    tensor = program.tensor(name)
    largest = Tensor(fresh(program, f"max_{name}"), tensor.shape)
    shift = Finite(largest[equation.axes])
    maximum = Equation(largest.name, equation.axes, (replace(term, body=term.body.args[0]),), "max")
    own = Term(sp.exp(term.body.args[0] - shift), term.bound, term.domain)
    kept = name in program.outputs
    scaled = tensor if not kept else Tensor(fresh(program, f"scaled_{name}"), tensor.shape)
    small = replace(equation, target=scaled.name, terms=(own,))
    program = _open_row_maps(program, name)
    result: list[Equation] = []
    for one in program.equations:
        if one.target != name:
            result.append(map_terms(one, lambda t: _scaled(t, name, scaled, largest)))
            continue
        result += [maximum, small]
        if kept:
            whole = sp.exp(shift) * scaled[equation.axes]
            result.append(Equation(name, equation.axes, (Term(whole),)))
    new = [largest, *([scaled] if kept else [])]
    return program.with_equations(ordered_with(program, result, []), new)


def _open_row_maps(program: Program, name: str) -> Program:
    """Row values derived from the sum are put back where they are read, so that their exponentials can meet."""
    where = {
        e.target: e
        for e in program.equations
        if e.is_map and name in reads(e) and e.target not in program.outputs and e.target[0] == "a"
    }
    if not where:
        return program
    counts = dict.fromkeys(where, 1)
    after = [naming.inline(program, e, where, counts) if e.target not in where else e for e in program.equations]
    return prune(program.with_equations(after), frozenset())


def _scaled(term: Term, name: str, scaled: Tensor, largest: Tensor) -> Term:
    """Reads of the sum as `exp(m) Z'`, exponentials joined; `1/Z'` is 0 where nothing was left of the row."""
    if not any(a.name == name for a in accesses(term.body)):
        return term
    return replace(term, body=_join(term.body, name, scaled, largest))


def _join(expr: sp.Expr, name: str, scaled: Tensor, largest: Tensor) -> sp.Expr:
    if isinstance(expr, Access):
        return sp.exp(Finite(largest[expr.indices])) * scaled[expr.indices] if expr.name == name else expr
    if not expr.args:
        return expr
    if isinstance(expr, sp.log) and isinstance(expr.args[0], Access) and expr.args[0].name == name:
        read = expr.args[0]
        return Finite(largest[read.indices]) + sp.log(scaled[read.indices])
    if isinstance(expr, sp.Pow) and isinstance(expr.base, Access) and expr.base.name == name and expr.base != sp.E:
        read, exponent = expr.args
        own = scaled[read.indices]
        power = own**exponent
        if exponent.is_negative:
            power = sp.Piecewise((power, own > 0), (sp.S.Zero, True))
        return sp.exp(exponent * Finite(largest[read.indices])) * power
    arguments = [_join(one, name, scaled, largest) for one in expr.args]
    if isinstance(expr, sp.Mul):
        return _merge_exponentials(sp.Mul(*arguments))
    return expr.func(*arguments)


def _merge_exponentials(expr: sp.Expr) -> sp.Expr:
    """A product with `exp(c finite(m))` in front of a sum: put into the addends that have an exponential to meet."""
    expr = joined(expr)
    factors = list(sp.Mul.make_args(expr))
    shifts = [f for f in factors if isinstance(f, sp.exp) and f.has(Finite) and not _meets(f)]
    wide = [f for f in factors if isinstance(f, sp.Add) and any(_has_exponential(a) for a in f.args)]
    if not shifts or not wide:
        return expr
    rest = [f for f in factors if f not in (*shifts, wide[0])]
    opened = sp.Add(*(sp.Mul(*shifts, a) for a in wide[0].args))
    return sp.Mul(*rest, collected(opened))


def _meets(factor: sp.exp) -> bool:
    return any(not a.has(Finite) for a in sp.Add.make_args(factor.args[0]))


def _has_exponential(expr: sp.Expr) -> bool:
    return any(isinstance(f, sp.exp) for f in sp.Mul.make_args(expr))


# ------------------------------------------------------------------------------------------------------------- norms


def _is_sum_of_squares(equation: Equation) -> bool:
    """Every term a square: the sum is zero only at the origin."""
    if equation.reducer != "sum" or not any(t.bound for t in equation.terms):
        return False
    return all(_is_square(t.body) for t in equation.terms)


def _is_square(expr: sp.Expr) -> bool:
    return any(
        isinstance(f, sp.Pow) and f.exp.is_Integer and f.exp > 0 and f.exp % 2 == 0 and f.has(Access)
        for f in sp.Mul.make_args(expr)
    ) and all(f.is_nonnegative or not f.has(Access) or isinstance(f, sp.Pow) for f in sp.Mul.make_args(expr))


def _is_root_of(equation: Equation, squares: frozenset[str]) -> bool:
    return equation.is_map and any(
        isinstance(f, sp.Pow) and f.exp == sp.S.Half and isinstance(f.base, Access) and f.base.name in squares
        for f in sp.Mul.make_args(equation.body)
    )


def _guarded(expr: sp.Expr, squares: frozenset[str], roots: frozenset[str]) -> sp.Expr:
    """Negative powers of a norm, 0 where it is 0."""
    if isinstance(expr, Access) or not expr.args or not (squares or roots):
        return expr
    if isinstance(expr, sp.Pow) and expr.exp.is_Rational and expr.exp < 0 and isinstance(expr.base, Access):
        half = expr.base.name in squares
        if half or expr.base.name in roots:
            return sp.Piecewise((expr, expr.base > 0), (sp.S.Zero, True))
    if isinstance(expr, sp.Piecewise):
        return expr
    return expr.func(*(_guarded(one, squares, roots) for one in expr.args))


# ------------------------------------------------------------------------------------------------------- complements


def _complements(expr: sp.Expr) -> sp.Expr:
    """`1 - σ(u)` as `σ(-u)`, everywhere in an expression."""
    if isinstance(expr, Access) or not expr.args or not expr.has(Sigmoid):
        return expr
    where: Mapping[sp.Expr, sp.Expr] = {1 - s: Sigmoid(-s.args[0]) for s in _sigmoids(expr)}
    arguments = [_complements(one) for one in expr.args]
    result = expr.func(*arguments)
    return where.get(result, result)


def _sigmoids(expr: sp.Expr) -> list[sp.Expr]:
    return [n for n in sp.preorder_traversal(expr) if isinstance(n, Sigmoid)]

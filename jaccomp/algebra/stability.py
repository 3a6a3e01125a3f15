"""Stabilisation, after differentiation: no overflow and no NaN where the true value is representable.

Z[n] = Σ_k exp(a[n,k])     ->  m[n] = max_k a[n,k];  Z'[n] = Σ_k exp(a[n,k] - finite(m[n]));  Z = exp(finite(m)) Z'
x / ‖x‖, 1 / ‖x‖           ->  0 where ‖x‖ = 0, the convention
1 - σ(u)                   ->  σ(-u), which keeps its digits for large u
1 + tanh(u)                ->  2 σ(2u), which keeps its digits for large -u
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra import naming
from jaccomp.algebra.engine import State, name_invariants, ordered_with, prune
from jaccomp.algebra.factoring import collected, joined
from jaccomp.algebra.recognition import written_out
from jaccomp.algebra.sums import canonical
from jaccomp.calculus.functions import Finite, Sigmoid
from jaccomp.calculus.names import fresh
from jaccomp.notation import Access
from jaccomp.program import (
    AXES,
    Equation,
    Program,
    Tensor,
    Term,
    accesses,
    hoisted,
    live,
    map_terms,
    reads,
    tidy,
    verify,
)


def stabilise(program: Program) -> Program:
    """The program with shifted exponential sums and guarded norms. The result is not to be differentiated."""
    shifted = _carry(_shift_sums(program))
    squares = frozenset(e.target for e in shifted.equations if _is_sum_of_squares(e))
    roots = frozenset(e.target for e in shifted.equations if _is_root_of(e, squares))

    definitions = shifted.definitions()
    logs = frozenset(e.target for e in shifted.equations if e.is_map and e.body.has(sp.log) and e.body.has(Finite))

    def guard(term: Term) -> Term:
        return replace(term, body=_complements(_guarded(_unmasked(term.body, logs), squares, roots), definitions))

    guarded = shifted.with_equations(map_terms(e, guard) for e in shifted.equations)
    return verify(live(name_invariants(State(guarded, frozenset()))))


# ------------------------------------------------------------------------------------------------- exponential sums


@dataclass(frozen=True, slots=True)
class Shifted:
    """`sum[axes] = exp(finite(largest[axes[where]])) small[axes]`; `pure` if all its addends are exponentials."""

    small: Tensor
    largest: Tensor
    where: tuple[int, ...]
    pure: bool

    def shift(self, indices: Sequence[sp.Expr]) -> sp.Expr:
        return Finite(self.largest[tuple(indices[k] for k in self.where)])


def _exponential(equation: Equation) -> sp.Expr | None:
    """The one exponential over bound indices among the factors of a sum of one term."""
    if equation.reducer != "sum" or len(equation.terms) != 1 or not equation.terms[0].bound:
        return None
    (term,) = equation.terms
    factors = [f for f in sp.Mul.make_args(term.body) if isinstance(f, sp.exp) and f.free_symbols & set(term.bound)]
    return factors[0] if len(factors) == 1 else None


def _shift_sums(program: Program) -> Program:
    """Every sum of exponentials by its largest one; sums over the same exponentials share the shift, so it cancels."""
    program = _open_exponentials(program)
    powers = {e.target: p for e in program.equations if (p := _exponential(e)) is not None}
    if not powers:
        return program
    program = _open_row_maps(_hoist_scales(program, powers), frozenset(powers))
    powers = _worth_shifting(program)
    known: dict[tuple[object, ...], Tensor] = {}
    shifted: dict[str, Shifted] = {}
    result: list[Equation] = []
    new: list[Tensor] = []
    for equation in program.equations:
        if equation.target not in powers:
            result.append(equation)
            continue
        (term,) = equation.terms
        tensor = program.tensor(equation.target)
        row, where = _largest(equation, powers[equation.target].args[0])
        shape = tuple(tensor.shape[k] for k in where)
        if (row, shape) not in known:
            known[row, shape] = Tensor(fresh(program, f"max_{tensor.name}"), shape)
            new.append(known[row, shape])
            result.append(Equation(known[row, shape].name, AXES[: len(shape)], (row,), "max"))
        kept = tensor.name in program.outputs
        small = Tensor(fresh(program, f"scaled_{tensor.name}"), tensor.shape) if kept else tensor
        one = Shifted(small, known[row, shape], where, term.body == powers[equation.target])
        shifted[tensor.name] = one
        power = sp.exp(powers[equation.target].args[0] - one.shift(equation.axes))
        body = term.body.xreplace({powers[equation.target]: power})
        result.append(replace(equation, target=small.name, terms=(replace(term, body=body),)))
        if kept:
            new.append(small)
            result.append(
                Equation(tensor.name, equation.axes, (Term(sp.exp(one.shift(equation.axes)) * small[equation.axes]),))
            )
    whole = {name for name in shifted if name in program.outputs}
    scaled = [e if e.target in whole else map_terms(e, lambda t: _scaled(t, shifted)) for e in result]
    return program.with_equations(ordered_with(program, scaled, []), new)


def _open_exponentials(program: Program) -> Program:
    """`e = exp(a)`, which sums over e have to meet, written out where it is read, unless it is an output itself."""
    summed = {n for e in program.equations if any(t.bound for t in e.terms) for n in reads(e)}
    for equation in program.equations:
        if equation.target in summed and equation.target not in program.outputs and equation.is_map:
            (definition,) = (e for e in program.equations if e.target == equation.target)
            if isinstance(definition.body, sp.exp):
                program = written_out(program, definition)
    return program


def _worth_shifting(program: Program) -> dict[str, sp.Expr]:
    """The sums of exponentials alone, and those of the same exponentials with weights, from which the shift cancels."""
    powers = {e.target: p for e in program.equations if (p := _exponential(e)) is not None}
    keys = {e.target: _largest(e, powers[e.target].args[0])[0] for e in program.equations if e.target in powers}
    pure = {keys[e.target] for e in program.equations if e.target in powers and e.terms[0].body == powers[e.target]}
    return {name: power for name, power in powers.items() if keys[name] in pure}


def _hoist_scales(program: Program, powers: Mapping[str, sp.Expr]) -> Program:
    """`T[n] = Σ_k exp(x) c[k] / Z[n]` as `T = R / Z`, `R[n] = Σ_k exp(x) c[k]`: a scale must not be shifted twice."""
    result: list[Equation] = []
    new: list[Tensor] = []
    for equation in program.equations:
        (term, *_) = equation.terms or (None,)
        if equation.target not in powers or term is None:
            result.append(equation)
            continue
        outside, inside = hoisted(term)
        if not outside.has(Access):
            result.append(equation)
            continue
        tensor = replace(program.tensor(equation.target), name=fresh(program, f"r_{equation.target}"))
        new.append(tensor)
        result.append(replace(equation, target=tensor.name, terms=(replace(term, body=inside),)))
        result.append(replace(equation, terms=(Term(outside * tensor[equation.axes]),)))
    return program.with_equations(result, new)


def _largest(equation: Equation, exponent: sp.Expr) -> tuple[Term, tuple[int, ...]]:
    """The term of the maximum of the exponent, over the axes that it depends on, and which axes those are."""
    (term,) = equation.terms
    bound = tuple(b for b in term.bound if b in exponent.free_symbols)
    linked = [c for c in term.domain if c.expr.free_symbols & set(bound)]
    linked = [c for c in linked if not c.expr.free_symbols & (set(term.bound) - set(bound))]
    needed = set(exponent.free_symbols).union(*(c.expr.free_symbols for c in linked))
    where = tuple(k for k, axis in enumerate(equation.axes) if axis in needed)
    row = Term(exponent, bound, tuple(linked)).over({equation.axes[k]: AXES[j] for j, k in enumerate(where)})
    return canonical(tidy(row)), where


def _open_row_maps(program: Program, names: frozenset[str]) -> Program:
    """Row values derived from the sums are put back where they are read, so that their exponentials can meet."""
    where = {
        e.target: e
        for e in program.equations
        if e.is_map and names & set(reads(e)) and e.target not in program.outputs and e.target[0] == "a"
    }
    if not where:
        return program
    counts = dict.fromkeys(where, 1)
    after = [naming.inline(program, e, where, counts) if e.target not in where else e for e in program.equations]
    return prune(program.with_equations(after), frozenset())


def _scaled(term: Term, shifted: Mapping[str, Shifted]) -> Term:
    """Reads of sums as `exp(m) small`, exponentials joined; `1/small` is 0 where nothing was left of the row."""
    if not any(a.name in shifted for a in accesses(term.body)):
        return term
    return replace(term, body=_join(term.body, shifted))


def _join(expr: sp.Expr, shifted: Mapping[str, Shifted]) -> sp.Expr:
    if isinstance(expr, Access):
        one = shifted.get(expr.name)
        return expr if one is None else sp.exp(one.shift(expr.indices)) * one.small[expr.indices]
    if not expr.args:
        return expr
    if isinstance(expr, sp.log):
        read = next((f for f in sp.Mul.make_args(expr.args[0]) if isinstance(f, Access) and f.name in shifted), None)
        if read is not None and not any(a.name in shifted for a in accesses(expr.args[0] / read)):
            one = shifted[read.name]
            return one.shift(read.indices) + sp.log(expr.args[0].xreplace({read: one.small[read.indices]}))
    read = expr.args[0]
    one = shifted.get(read.name) if isinstance(read, Access) else None
    if isinstance(expr, sp.Pow) and one is not None:
        own = one.small[read.indices]
        power = own**expr.exp
        if expr.exp.is_negative and one.pure:
            power = sp.Piecewise((sp.S.Zero, sp.Eq(own, 0)), (power, True))
        return sp.exp(expr.exp * one.shift(read.indices)) * power
    arguments = [_join(a, shifted) for a in expr.args]
    if isinstance(expr, sp.Mul):
        return _merge_exponentials(sp.Mul(*arguments))
    return expr.func(*arguments)


def _merge_exponentials(expr: sp.Expr) -> sp.Expr:
    """A product with an exponential in front of a sum of exponentials: put into the addends, where it meets them."""
    expr = joined(expr)
    factors = list(sp.Mul.make_args(expr))
    powers = [f for f in factors if isinstance(f, sp.exp)]
    wide = [f for f in factors if isinstance(f, sp.Add) and all(_has_exponential(a) for a in f.args)]
    if not powers or not wide:
        return expr
    rest = [f for f in factors if f not in (*powers, wide[0])]
    opened = sp.Add(*(joined(sp.Mul(*powers, a)) for a in wide[0].args))
    return sp.Mul(*rest, collected(opened))


def _has_exponential(expr: sp.Expr) -> bool:
    return any(isinstance(f, sp.exp) for f in sp.Mul.make_args(expr))


def _merged(expr: sp.Expr) -> sp.Expr:
    """`_merge_exponentials` everywhere in an expression."""
    if isinstance(expr, Access) or not expr.args or not expr.has(sp.exp):
        return expr
    result = expr.func(*(_merged(one) for one in expr.args))
    return _merge_exponentials(result) if isinstance(result, sp.Mul) else result


def _carry(program: Program) -> Program:
    """`T[n] = exp(a) c`, read only where another exponential stands: read as `c`, with `exp(a)` joined to that one.

    Apart, one of the two may overflow where their product does not.
    """
    names = [e.target for e in program.equations if e.reducer == "sum" and len(e.terms) == 1]
    for name in [n for n in names if n not in program.outputs]:
        definition = next(e for e in program.equations if e.target == name)
        (term,) = definition.terms
        front = hoisted(term)[0] if term.bound else term.body
        powers = [f for f in sp.Mul.make_args(front) if isinstance(f, sp.exp)]
        if len(powers) != 1 or (term.domain and not term.bound) or not front.has(Access):
            continue
        rest = sp.Mul(*(f for f in sp.Mul.make_args(term.body) if f != powers[0]))
        after = [_carried(e, definition, powers[0]) if name in reads(e) else e for e in program.equations]
        met = [e for e in after if e is not None]
        if len(met) == len(after):
            small = replace(definition, terms=(replace(term, body=rest),))
            program = program.with_equations(small if e.target == name else e for e in met)
    return program


def _carried(equation: Equation, definition: Equation, power: sp.exp) -> Equation | None:
    """The reader with the exponential that was its operand's; None if it does not join one that is there."""

    def change(term: Term) -> Term:
        where: dict[sp.Expr, sp.Expr] = {}
        for access in accesses(term.body):
            if access.name == definition.target:
                where[access] = access * power.xreplace(dict(zip(definition.axes, access.indices, strict=True)))
        return replace(term, body=_merged(term.body.xreplace(where))) if where else term

    after = map_terms(equation, change)
    grown = any(_exponentials(a.body) > _exponentials(b.body) for a, b in zip(after.terms, equation.terms, strict=True))
    return None if grown else after


def _exponentials(expr: sp.Expr) -> int:
    return sum(1 for node in sp.preorder_traversal(expr) if isinstance(node, sp.exp))


def _unmasked(expr: sp.Expr, logs: frozenset[str]) -> sp.Expr:
    """`exp(a - lse)` as `exp(a - finite(lse))`: zeros, not NaN, where a fully masked row has `a = lse = -∞`."""
    if isinstance(expr, Access) or not expr.args or not logs:
        return expr
    arguments = [_unmasked(one, logs) for one in expr.args]
    if isinstance(expr, sp.exp):
        subtracted = [-one for one in sp.Add.make_args(arguments[0])]
        where = {a: Finite(a) for a in subtracted if isinstance(a, Access) and a.name in logs}
        return sp.exp(arguments[0].xreplace(where))
    return expr.func(*arguments)


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
            return sp.Piecewise((sp.S.Zero, sp.Eq(expr.base, 0)), (expr, True))
    if isinstance(expr, sp.Piecewise):
        return expr
    return expr.func(*(_guarded(one, squares, roots) for one in expr.args))


# ------------------------------------------------------------------------------------------------------- complements


def _complements(expr: sp.Expr, definitions: Mapping[str, Equation]) -> sp.Expr:
    """`1 - σ(u)` as `σ(-u)` and `1 - tanh(u)²` as `4 σ(2u) σ(-2u)`, also of tensors defined so: no digit is lost.

    `1 ± tanh(u)` becomes `2 σ(±2u)`, other addends beside it.
    """
    if isinstance(expr, Access) or not expr.args:
        return expr
    arguments = [_complements(one, definitions) for one in expr.args]
    result = expr.func(*arguments)
    if not isinstance(result, sp.Add) or result.args[0] != 1:
        return result
    if (half := next((a for a in result.args if isinstance(a if a.is_Function else -a, sp.tanh)), None)) is not None:
        u = half.args[0] if half.is_Function else -(-half).args[0]
        return result - 1 - half + 2 * Sigmoid(2 * u)
    if len(result.args) != 2:
        return result
    rest = -result.args[1]
    if isinstance(rest, sp.Pow) and rest.exp == 2:
        value = _meaning(rest.base, definitions)
        if isinstance(value, sp.tanh):
            u = 2 * value.args[0]
            return 4 * Sigmoid(u) * Sigmoid(-u)
        return result
    value = _meaning(rest, definitions)
    return Sigmoid(-value.args[0]) if isinstance(value, Sigmoid) else result


def _meaning(expr: sp.Expr, definitions: Mapping[str, Equation]) -> sp.Expr:
    """What a read of a map is defined to be; anything else as it is."""
    definition = definitions.get(expr.name) if isinstance(expr, Access) else None
    if definition is None or not definition.is_map:
        return expr
    return definition.body.xreplace(dict(zip(definition.axes, expr.indices, strict=True)))

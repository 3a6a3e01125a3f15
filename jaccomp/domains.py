"""Affine reasoning over domains: what follows from constraints, and what an index can be replaced by.

Everything here is a sufficient test: `True` is a proof, `False` only says that none was found. Sizes are >= 0; integer
scalars are unknown. Expressions are handled as linear forms over monomials, so that no symbolic engine is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.errors import StageError
from jaccomp.notation import Access
from jaccomp.program import AXES, Constraint, Domain, Tensor, Term, expand, in_range

Form = dict[sp.Expr, sp.Rational]


def form(expr: sp.Expr) -> Form:
    """An expanded expression as monomial -> coefficient; the constant is the coefficient of 1."""
    return {m: c for m, c in expand(expr).as_coefficients_dict().items() if c != 0}


def _monomial_is_nonnegative(monomial: sp.Expr) -> bool:
    return monomial == 1 or bool(monomial.is_nonnegative)


def _is_nonnegative(candidate: Form) -> bool:
    return all(c > 0 and _monomial_is_nonnegative(m) for m, c in candidate.items())


def _minus(left: Form, right: Form, times: sp.Expr = sp.S.One) -> Form:
    result = dict(left)
    for monomial, coefficient in right.items():
        value = result.get(monomial, sp.S.Zero) - times * coefficient
        if value == 0:
            result.pop(monomial, None)
        else:
            result[monomial] = value
    return result


def _search(goal: Form, facts: Sequence[Form], depth: int) -> bool:
    """Is goal a sum of facts (each >= 0), some of them several times, and a form that is plainly >= 0?

    No fact is taken in part: `2 b <= 2 s - 2` implies `b <= s - 1`, but a loop should run to that.
    """
    if _is_nonnegative(goal):
        return True
    if depth == 0:
        return False
    bad = [m for m, c in goal.items() if c < 0 or not _monomial_is_nonnegative(m)]
    worst = bad[0]
    for fact in facts:
        times = goal[worst] / fact[worst] if worst in fact else sp.S.Zero
        some = {sp.S.One, max(sp.S.One, times)}
        if times > 0 and any(_search(_minus(goal, fact, k), facts, depth - 1) for k in sorted(some)):
            return True
    return any(_search(_minus(goal, grown), facts, depth - 1) for grown in _scaled_to(worst, goal[worst], facts))


def _scaled_to(worst: sp.Expr, slope: sp.Expr, facts: Sequence[Form]) -> Iterator[Form]:
    """Facts times a size, or a product of sizes, that gives them the monomial: `r - 1 - i >= 0` times r."""
    if not isinstance(worst, sp.Mul | sp.Pow):
        return
    for fact in facts:
        for monomial, coefficient in fact.items():
            ratio = worst / monomial
            if monomial != 1 and coefficient * slope > 0 and _is_size_product(ratio):
                yield {expand(m * ratio): c for m, c in fact.items()}


def _is_size_product(expr: sp.Expr) -> bool:
    """Is it a product of sizes with whole exponents?"""
    parts = [f.as_base_exp() for f in sp.Mul.make_args(expr)]
    return expr != 1 and all(b.is_Symbol and b.is_nonnegative and e.is_Integer and e > 0 for b, e in parts)


def proves(facts: Iterable[Constraint], goal: Constraint, depth: int = 5) -> bool:
    """Do the facts imply `goal`? A sufficient test, whichever argument a maximum is."""
    facts = tuple(facts)
    if _follows(facts, goal, depth):
        return True
    greater = {m for c in (*facts, goal) for m in c.expr.atoms(sp.Max)}
    if not greater:
        return False
    one = min(greater, key=str)
    return all(
        proves(
            [c.over({one: is_it}) for c in facts] + [Constraint(expand(is_it - other)) for other in one.args],
            goal.over({one: is_it}),
            depth,
        )
        for is_it in one.args
    )


def _follows(facts: Sequence[Constraint], goal: Constraint, depth: int) -> bool:
    known: list[Form] = []
    for fact in facts:
        known.append(form(fact.expr))
        if fact.equality:
            known.append(form(-fact.expr))
    greater = {m for one in (form(goal.expr), *known) for m in one if isinstance(m, sp.Max)}
    known += [form(m - one) for m in sorted(greater, key=str) for one in m.args]
    if not goal.equality:
        return _search(form(goal.expr), known, depth)
    return _search(form(goal.expr), known, depth) and _search(form(-goal.expr), known, depth)


def axis_ranges(tensor: Tensor) -> Domain:
    """The constraints that the axes of an equation for `tensor` satisfy."""
    return tuple(c for axis, extent in zip(AXES, tensor.shape, strict=False) for c in in_range(axis, extent))


def without_implied(
    domain: Sequence[Constraint], given: Sequence[Constraint], bound: Sequence[sp.Symbol] = ()
) -> Domain:
    """The domain less the inequalities that follow from the rest of it and from `given`.

    An index of `bound` keeps an end on either side that bounds it by itself: `2 b = i < 2` implies b <= 0, but loops,
    hulls and printing read ranges where they are written.
    """
    kept = list(domain)
    for constraint in reversed(domain):
        if constraint.equality:
            continue
        others = [c for c in kept if c is not constraint]
        if any(_is_last_end(constraint, index, others) for index in bound):
            continue
        if proves([*given, *others], constraint, depth=3):
            kept = others
    return tuple(kept)


def _is_last_end(constraint: Constraint, index: sp.Symbol, others: Sequence[Constraint]) -> bool:
    """Is it the one constraint that bounds an index on its side, with a unit coefficient? Data end no loop."""
    slope = constraint.expr.coeff(index)
    ends = (c for c in others if not c.equality and not c.is_data)
    return slope in (1, -1) and not any(c.expr.coeff(index) == slope for c in ends)


def coefficient(expr: sp.Expr, index: sp.Symbol) -> sp.Expr:
    """The coefficient of an index in an affine expression, a polynomial in sizes and scalars."""
    return expand(expr).coeff(index)


def at_most_one(term: Term, index: sp.Symbol) -> bool:
    """Does the domain leave at most one value to the index? A sufficient test.

    index = e;  0 <= c - K index < K
    """
    slopes = [(c, coefficient(c.expr, index)) for c in term.domain if index in c.expr.free_symbols]
    if any(c.equality and slope in (1, -1) for c, slope in slopes):
        return True
    return any(
        slope == -other_slope and _is_nonnegative(form(slope - 1 - one.expr - other.expr))
        for one, slope in slopes
        for other, other_slope in slopes
    )


def solve_equalities(term: Term, given: Sequence[Constraint]) -> Term | None:
    """Substitute every affine equality with a unit coefficient on a bound index; None if the domain is plainly empty.

    Range constraints are carried along, and dropped only where they are implied. An equality that reads a tensor, or
    whose bound indices all have other coefficients, stays.
    """
    bound, domain, body = list(term.bound), list(term.domain), term.body
    progress = True
    while progress:
        progress = False
        for constraint in domain:
            if not constraint.equality:
                continue
            if constraint.expr == 0:
                domain.remove(constraint)
                progress = True
                break
            if constraint.expr.is_number:
                return None
            choice = _unit_index(constraint, bound)
            if choice is None:
                continue
            index, value = choice
            where = {index: value}
            domain.remove(constraint)
            domain = [Constraint(expand(c.expr.xreplace(where)), c.equality) for c in domain]
            body = expanded_reads(body.xreplace(where))
            bound.remove(index)
            progress = True
            break
    kept = list(dict.fromkeys(c for c in domain if not (c.expr.is_number and not c.equality and c.expr >= 0)))
    if any(c.expr.is_number and not c.equality and c.expr < 0 for c in kept):
        return None
    return Term(body, tuple(bound), without_implied(kept, given, bound))


def expanded_reads(body: sp.Expr) -> sp.Expr:
    """The body with the affine indices of its reads expanded, as those of every program are."""
    reads = [a for a in body.atoms(Access) if any(i.is_Add or i.is_Mul for i in a.indices)]
    where = {a: Access(a.base, *(i if i.has(Access) else expand(i) for i in a.indices)) for a in reads}
    return body.xreplace({a: b for a, b in where.items() if a != b})


def select(term: Term, scanned: frozenset[str]) -> Term:
    """Substitute every equality `b = ids[...]`: the sum over b has the one addend that the data name.

    Only for integer inputs, whose values a call scans, and where b is bound by its own range alone.
    """
    for constraint in term.domain:
        if not (constraint.equality and constraint.is_data):
            continue
        for index in term.bound:
            slope = constraint.expr.coeff(index)
            read = -slope * (constraint.expr - slope * index)
            if slope not in (1, -1) or not isinstance(read, Access) or index in read.free_symbols:
                continue
            others = [c for c in term.domain if c != constraint and index in c.expr.free_symbols]
            own = all(not c.equality and [s for s in c.expr.free_symbols if is_index(s)] == [index] for c in others)
            if read.name in scanned and own:
                domain = tuple(c for c in term.domain if c != constraint and c not in others)
                bound = tuple(b for b in term.bound if b != index)
                return select(Term(term.body.xreplace({index: read}), bound, domain), scanned)
    return term


def _unit_index(constraint: Constraint, bound: Sequence[sp.Symbol]) -> tuple[sp.Symbol, sp.Expr] | None:
    """A bound index of coefficient ±1 and what it equals, the last bound first; never out of a data access."""
    if constraint.is_data:
        return None
    for index in reversed(bound):
        slope = constraint.expr.coeff(index)
        if slope in (1, -1):
            rest = constraint.expr - slope * index
            if index not in rest.free_symbols:
                return index, expand(-slope * rest)
    return None


@dataclass(frozen=True, slots=True)
class Digit:
    """A pair of constraints, `0 <= value - radix index < radix`, that leaves an index one value, `⌊value / radix⌋`."""

    index: sp.Symbol
    value: sp.Expr
    radix: sp.Expr
    constraints: tuple[Constraint, Constraint]

    @property
    def floor(self) -> sp.Expr:
        return sp.floor(self.value / self.radix)


def stays_inside(access: Access, shape: Sequence[sp.Expr], facts: Sequence[Constraint]) -> bool:
    """Does a read provably lie in its tensor wherever the facts hold? Indices that data give are scanned by a call."""
    pairs = [(i, extent) for i, extent in zip(access.indices, shape, strict=True) if not i.has(Access)]
    return all(proves(facts, c, depth=3) for i, extent in pairs for c in in_range(i, extent))


def digits(term: Term, indices: Sequence[sp.Symbol]) -> tuple[Digit, ...]:
    """The indices among `indices` that a pair of constraints determines as the higher digit of something."""
    found: list[Digit] = []
    plain = [c for c in term.domain if not c.equality and not c.is_data]
    for index in indices:
        for low in plain:
            radix = expand(-low.expr.coeff(index))
            if radix in (0, 1, -1) or not is_index_free(radix) or radix.could_extract_minus_sign():
                continue
            high = next((c for c in plain if expand(c.expr + low.expr - radix + 1) == 0), None)
            if high is not None:
                found.append(Digit(index, expand(low.expr + radix * index), radix, (low, high)))
    return tuple(found)


def is_index_free(expr: sp.Expr) -> bool:
    return not any(is_index(s) for s in expr.free_symbols)


def position(term: Term, given: Sequence[Constraint]) -> sp.Expr:
    """The value of an argmax or argmin whose first extremum lies at the term's bound indices.

    Of one bound index that index itself; of several their mixed-radix number, the first being the slowest, over the
    smallest box in sizes and scalars that holds them. `given` are the ranges of the axes.
    """
    if len(term.bound) == 1:
        return term.bound[0]
    result: sp.Expr = sp.S.Zero
    for index in term.bound:
        low, high = hull(term, index, given)
        result = expand(result * (high - low + 1) + index - low)
    return result


def hull(term: Term, index: sp.Symbol, given: Sequence[Constraint]) -> tuple[sp.Expr, sp.Expr]:
    """The least and the greatest value of an index, in sizes and scalars alone."""
    everything = Term(term.body, term.bound, (*given, *term.domain))
    low, high = _end(everything, index, -1, ()), _end(everything, index, 1, ())
    if low is None or high is None:
        raise StageError(f"index {index}", "its range has no bound in sizes.")
    return low, high


def _end(term: Term, index: sp.Symbol, sign: int, inside: tuple[sp.Symbol, ...]) -> sp.Expr | None:
    """The greatest (sign 1) or least (-1) value of an index; None where its bounds lead back to `inside`.

    Of several bounds a tighter one, where that is proved; else one in sizes alone before one through other indices.
    """
    bounds = term.lower_bounds(index) if sign < 0 else [u - 1 for u in term.upper_bounds(index)]
    best: sp.Expr | None = None
    for bound in sorted(dict.fromkeys(bounds), key=lambda one: any(is_index(s) for s in one.free_symbols)):
        resolved = _resolve(term, bound, sign, (*inside, index))
        if resolved is not None and (best is None or proves((), Constraint(expand(sign * (best - resolved))))):
            best = resolved
    return best


def _resolve(term: Term, expr: sp.Expr, sign: int, inside: tuple[sp.Symbol, ...]) -> sp.Expr | None:
    """`expr` with each index replaced by the end of its range that makes it largest (sign 1) or smallest (-1)."""
    if expr.has(Access):
        return None
    result = expand(expr)
    while indices := [s for s in sorted(result.free_symbols, key=str) if is_index(s)]:
        other = indices[0]
        if other in inside:
            return None
        falls = result.coeff(other).could_extract_minus_sign()
        end = _end(term, other, -sign if falls else sign, inside)
        if end is None:
            return None
        result = expand(result.xreplace({other: end}))
    return result


def is_index(symbol: sp.Symbol) -> bool:
    """Is it an axis or a bound index, by its canonical name?"""
    return symbol.name[0] in "ib_" and symbol.name[1:].isdigit()


def extremes(box: Term, expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """The least and the greatest value of an affine expression over the term's domain, in sizes and scalars alone."""
    low, high = _resolve(box, expr, -1, ()), _resolve(box, expr, 1, ())
    if low is None or high is None:
        raise StageError(f"expression {expr}", "it has no bound in sizes.")
    return low, high

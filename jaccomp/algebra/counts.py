"""How many operations a program does, as a polynomial in its sizes.

    y[n,m] = Σ_{k : k ≤ n} a[n,k] b[k,m]     ->  2 points: N M (N + 1)

An operation is an addition, subtraction, multiplication, division, comparison or elementary function of real numbers; a
whole power beyond the square is two, a sign none. A body is evaluated at each point of its domain, what no bound index
changes once an element; each point of a reduction adds one operation. Domains are summed over exactly where each range
is proved never to run backwards (Faulhaber's polynomials); else by a box that holds them, and the count is an upper
bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.algebra.cost import operations, typical_number, typical_values
from jaccomp.domains import at_most_one, axis_ranges, coefficient, proves, without_implied
from jaccomp.errors import StageError
from jaccomp.program import AXES, Constraint, Equation, Program, Tensor, Term, at_least, expand, hoisted

Symbols = Sequence[sp.Symbol]


@dataclass(frozen=True, slots=True)
class Count:
    """A number in the sizes; if not `exact`, the most that it can be."""

    value: sp.Expr
    exact: bool = True

    def __add__(self, other: Count) -> Count:
        return Count(expand(self.value + other.value), self.exact and other.exact)

    def times(self, factor: sp.Expr | int) -> Count:
        return Count(expand(self.value * factor), self.exact)


NONE = Count(sp.S.Zero)


def total(counts: Iterable[Count]) -> Count:
    """The sum of counts."""
    found = NONE
    for one in counts:
        found += one
    return found


def flops(program: Program) -> Count:
    """The operations of all equations that a program's results need."""
    count = total(_flops(program, equation) for equation in program.equations)
    return Count(count.value.xreplace({atom: floor + 1 for floor, atom in _extents(program).items()}), count.exact)


def _flops(program: Program, equation: Equation) -> Count:
    """The operations of one equation over all elements of its target."""
    elements = Count(_size(program, equation.target))
    joined = elements.times(max(len(equation.terms) - 1, 0))
    return joined + total(_term_flops(program, equation, term) for term in equation.terms)


def _term_flops(program: Program, equation: Equation, term: Term) -> Count:
    outside, inside = hoisted(term) if equation.reducer == "sum" and term.bound else (sp.S.One, term.body)
    each = operations(inside) + (1 if term.bound else 0)
    found = _points(program, program.tensor(equation.target), term).times(each)
    if outside in (1, -1):
        return found
    scale = operations(outside * sp.Symbol("_sum")) if inside not in (1, -1) else operations(outside)
    return found + Count(_size(program, equation.target)).times(scale)


def _size(program: Program, name: str) -> sp.Expr:
    whole = {floor: atom - 1 for floor, atom in _extents(program).items()}
    return sp.Mul(*(extent.xreplace(whole) for extent in program.tensor(name).shape))


def _extents(program: Program) -> dict[sp.Expr, sp.Symbol]:
    """An atom for each `⌊(H - K)/S⌋ + 1`, by its floor: an extent, which stays one factor of a count."""
    floors = (f for t in program.tensors for e in t.shape for f in sorted(e.atoms(sp.floor), key=sp.default_sort_key))
    return {f: sp.Symbol(f"_extent{k}", integer=True, nonnegative=True) for k, f in enumerate(dict.fromkeys(floors))}


def elements(program: Program, names: Iterable[str]) -> dict[str, sp.Expr]:
    """The numbers of elements of tensors together, by dtype."""
    found: dict[str, sp.Expr] = {}
    for name in names:
        tensor = program.tensor(name)
        found[tensor.dtype] = found.get(tensor.dtype, sp.S.Zero) + sp.Mul(*tensor.shape)
    return found


def _points(program: Program, target: Tensor, term: Term) -> Count:
    """The points (axes and bound indices together) at which a term of the target is evaluated."""
    whole = {floor: atom - 1 for floor, atom in _extents(program).items()}
    domain = [c.over(whole) for c in (*axis_ranges(target), *term.domain)]
    facts = [at_least(e.xreplace(whole), sp.S.Zero) for tensor in program.tensors for e in tensor.shape]
    return _count(
        (*AXES[: target.rank], *term.bound),
        [Constraint(expand(c.expr), c.equality) for c in domain],
        [c for c in dict.fromkeys(facts) if not c.expr.is_number],
        {**typical_values(program), **dict.fromkeys(_extents(program).values(), sp.Integer(64))},
    )


# Summation over domains


def _count(
    bound: Symbols, domain: Sequence[Constraint], facts: Sequence[Constraint], values: Mapping[sp.Expr, sp.Expr]
) -> Count:
    """The integer points of a domain, one index at a time; where none can be summed, a constraint is left out."""
    left, domain, exact = _without_equalities(bound, domain)
    exact = exact and all(proves(facts, c) for c in domain if not c.expr.free_symbols & set(left))
    value: sp.Expr = sp.S.One
    while left:
        domain = [c for c in domain if c.expr.free_symbols & set(left)]
        found = _summed(value, left, without_implied(domain, [*facts, *_scaled(domain, left)]), facts)
        if found is None:
            left, domain = _looser(left, domain, values)
            exact = False
            continue
        index, value, crossing = found
        left = [i for i in left if i != index]
        domain = [*(c for c in domain if index not in c.expr.free_symbols), *crossing]
        exact = exact and all(c.expr.free_symbols & set(left) for c in crossing)
    return Count(expand(value), exact)


def _without_equalities(bound: Symbols, given: Sequence[Constraint]) -> tuple[list[sp.Symbol], list[Constraint], bool]:
    """The domain with each equality solved for an index; exact unless an equality reads data or cannot be solved."""
    left, domain, exact = list(bound), list(given), True
    while equality := next((c for c in domain if c.equality), None):
        domain.remove(equality)
        index = next((b for b in reversed(left) if coefficient(equality.expr, b) in (1, -1)), None)
        exact = exact and not equality.is_data and index is not None
        if index is None:
            continue
        where = {index: expand(index - coefficient(equality.expr, index) * equality.expr)}
        domain = [Constraint(expand(c.expr.xreplace(where)), c.equality) for c in domain]
        left.remove(index)
    for index in list(left):
        mine = [c for c in domain if index in c.expr.free_symbols]
        if any(c.is_data for c in mine) and at_most_one(Term(sp.S.One, tuple(left), tuple(domain)), index):
            left.remove(index)
            domain = [c for c in domain if c not in mine]
    return left, [c for c in dict.fromkeys(domain) if not c.is_data], exact


def _scaled(domain: Sequence[Constraint], left: Symbols) -> list[Constraint]:
    """The bounds of an index times what it is multiplied by elsewhere: `K (G - 1 - g) >= 0` where `K g` occurs."""
    slopes = {(i, abs(c.expr.coeff(i))) for c in domain for i in left if c.expr.coeff(i) not in (0, 1, -1)}
    positive = [(i, slope) for i, slope in sorted(slopes, key=str) if slope.is_nonnegative]
    return [
        Constraint(expand(slope * c.expr))
        for i, slope in positive
        for c in domain
        if c.expr.coeff(i) in (1, -1) and len(c.expr.free_symbols & set(left)) == 1
    ]


def _summed(
    value: sp.Expr, left: Symbols, domain: Sequence[Constraint], facts: Sequence[Constraint]
) -> tuple[sp.Symbol, sp.Expr, list[Constraint]] | None:
    """(index, Σ_index value, what must hold beside) for an index with one bound on each side; None where none has.

    An index whose bounds are proved not to cross comes first; of another, that they do not is what must hold.
    """
    best = None
    for index in reversed(left):
        mine = [c for c in domain if index in c.expr.free_symbols]
        rest = [c for c in domain if index not in c.expr.free_symbols]
        lower = [index - c.expr for c in mine if c.expr.coeff(index) == 1]
        upper = [index + c.expr for c in mine if c.expr.coeff(index) == -1]
        if len(lower) != 1 or len(upper) != 1 or len(mine) != 2:
            continue
        (low,), (high,) = lower, upper
        if proves([*facts, *rest], at_least(high + 1, low)):
            return index, _between(value, index, low, high), []
        best = best or (index, _between(value, index, low, high), [at_least(high, low)])
    return best


def _between(value: sp.Expr, index: sp.Symbol, low: sp.Expr, high: sp.Expr) -> sp.Expr:
    """Σ_{low ≤ index ≤ high} value, by Faulhaber's polynomials."""
    found: sp.Expr = sp.S.Zero
    for (power,), factor in sp.Poly(value, index).terms():
        found += factor * (sp.bernoulli(power + 1, high + 1) - sp.bernoulli(power + 1, low)) / (power + 1)
    return expand(found)


def _looser(
    left: Symbols, domain: Sequence[Constraint], values: Mapping[sp.Expr, sp.Expr]
) -> tuple[list[sp.Symbol], list[Constraint]]:
    """Indices and a domain of no fewer points: less an index of one value, or some constraints.

    Of an index that has several bounds, the two that at typical sizes leave it the fewest values, wherever they move,
    stay; else the last constraint goes that ties indices together or holds a multiple of one.
    """
    for index in left:
        if at_most_one(Term(sp.S.One, tuple(left), tuple(domain)), index):
            return [i for i in left if i != index], [c for c in domain if index not in c.expr.free_symbols]
    for index in left:
        lower = [c for c in domain if c.expr.coeff(index) == 1]
        upper = [c for c in domain if c.expr.coeff(index) == -1]
        widths = {(a, b): expand(a.expr + b.expr) for a in lower for b in upper}
        fixed = {pair: width for pair, width in widths.items() if not width.free_symbols & set(left)}
        if fixed and len(lower) + len(upper) > 2:
            best = min(fixed, key=lambda pair: typical_number(fixed[pair], values))
            return list(left), [c for c in domain if index not in c.expr.free_symbols or c in best]
    tied = [c for c in domain if _ties(c, left)]
    if not tied:
        raise StageError(f"count over {', '.join(map(str, left))}", "an index has no range.")
    return list(left), [c for c in domain if c is not tied[-1]]


def _ties(constraint: Constraint, left: Symbols) -> bool:
    mine = constraint.expr.free_symbols & set(left)
    return len(mine) > 1 or any(constraint.expr.coeff(i) not in (1, -1) for i in mine)

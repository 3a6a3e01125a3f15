"""Rules about sums: invariant factors leave them, equal ones are shared, known ones are recognised.

split       T[f] = Σ_b c[f] B[f,b] + ...      ->  R[g] = Σ_b B[g,b], over the indices g that B needs; T[f] = c[f] R[g]
known       Σ_k (x[n,k] - mean[n])            ->  D mean[n] - D mean[n], because mean[n] is Σ_k x[n,k] / D
exchange    Σ_m (Σ_d a[d] v[m,d]) p[m]        ->  Σ_d a[d] o[d], because o[d] is Σ_m p[m] v[m,d]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import sympy as sp

from jaccomp.algebra.factoring import flattened
from jaccomp.algebra.matching import bindings
from jaccomp.domains import axis_ranges, is_index, proves, stays_inside, without_implied
from jaccomp.notation import Access
from jaccomp.program import (
    AXES,
    Constraint,
    Domain,
    Equation,
    Program,
    Tensor,
    Term,
    accesses,
    fresh_bounds,
    hoisted,
    instantiate,
    next_bound,
    tidy,
)


@dataclass(slots=True)
class Shared:
    """New sums by content, so that equal ones become one."""

    program: Program
    stem: str
    known: dict[tuple[object, ...], Tensor] = field(default_factory=dict)
    new: list[tuple[Tensor, Equation]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken = {t.name for t in self.program.tensors}
        for equation in self.program.equations:
            if len(equation.terms) == 1 and equation.terms[0].bound and equation.reducer == "sum":
                self.known.setdefault(_key(equation), self.program.tensor(equation.target))

    def sum_of(self, term: Term, extents: Mapping[sp.Symbol, sp.Expr]) -> Access:
        """A read of the tensor that holds `term`, over the indices that it needs; defined anew if it is new."""
        used = [a for a in extents if a in _free(term)]
        where = dict(zip(used, AXES, strict=False))
        row = canonical(tidy(term.over(where)))
        shape = tuple(extents[a] for a in used)
        equation = Equation("", AXES[: len(used)], (row,))
        tensor = self.known.get((*_key(equation), shape)) or self.known.get(_key(equation))
        if tensor is None or tensor.shape != shape:
            tensor = Tensor(self._name(), shape)
            self.known[(*_key(equation), shape)] = tensor
            self.new.append((tensor, replace(equation, target=tensor.name)))
        return tensor[tuple(used)]

    def _name(self) -> str:
        name = next(f"{self.stem}{k}" for k in range(len(self.taken) + 1) if f"{self.stem}{k}" not in self.taken)
        self.taken.add(name)
        return name


def canonical(term: Term) -> Term:
    """Bound indices in an order that does not depend on how the term came about."""
    if len(term.bound) < 2:
        return replace(term, domain=_sorted(term.domain))
    orders = sorted(term.bound, key=lambda b: [i for i, s in enumerate(_sightings(term)) if s == b][:3])
    row = tidy(Term(term.body, tuple(orders), term.domain))
    return replace(row, domain=_sorted(row.domain))


def _sightings(term: Term) -> list[sp.Symbol]:
    return [i for a in accesses(term.body) for i in a.indices if i in term.bound]


def _sorted(domain: Domain) -> Domain:
    return tuple(sorted(domain, key=lambda c: (c.equality, str(c.expr))))


def _key(equation: Equation) -> tuple[object, ...]:
    row = canonical(equation.terms[0])
    return (len(equation.axes), row.bound, row.domain, row.body)


def _free(term: Term) -> set[sp.Symbol]:
    found = set(term.body.free_symbols)
    for constraint in term.domain:
        found |= constraint.expr.free_symbols
    return found - set(term.bound)


def split(program: Program, equation: Equation, shared: Shared, keep_whole: bool) -> Equation:
    """Every addend of every sum as an invariant factor times a sum of its own.

    A sum that needs every axis stays a term when `keep_whole` (an output that would otherwise be stored twice).
    """
    if equation.reducer != "sum" or not any(t.bound for t in equation.terms):
        return equation
    target = program.tensor(equation.target)
    extents = dict(zip(equation.axes, target.shape, strict=True))
    declared, plain = program.declarations(), axis_ranges(target)
    rows: list[Term] = []
    for term in equation.terms:
        if not term.bound or is_pinned(term):
            rows.append(term)
            continue
        for addend in sp.Add.make_args(term.body):
            outside, inside = hoisted(replace(term, body=addend))
            inner, outer = _narrow(replace(term, body=inside), outside)
            facts = (*plain, *outer)
            if not all(stays_inside(a, declared[a.name].shape, facts) for a in accesses(outside)):
                outside, (inner, outer) = sp.S.One, _narrow(replace(term, body=addend), sp.S.One)
            whole = set(equation.axes) <= _free(inner)
            if whole and keep_whole:
                rows.append(tidy(replace(term, body=addend)))
                continue
            if len(equation.terms) == 1 and whole and outside == 1 and addend == term.body:
                return equation
            rows.append(Term(outside * shared.sum_of(inner, extents), (), outer))
    return replace(equation, terms=merged(rows))


def _narrow(term: Term, factor: sp.Expr) -> tuple[Term, Domain]:
    """Constraints that see no bound index and no axis of the body stay outside of the sum.

    So do those whose axes the factor before it sees, too: what it is elsewhere, which may be infinite, is not asked.
    """
    bound, needed, before = set(term.bound), set(term.body.free_symbols), set(factor.free_symbols)
    linked = tuple(c for c in term.domain if c.expr.free_symbols & (bound | needed))
    seen = [c for c in linked if {s for s in c.expr.free_symbols if is_index(s)} <= before]
    return replace(term, domain=linked), tuple(c for c in term.domain if c not in linked or c in seen)


def is_pinned(term: Term) -> bool:
    """Does an equality fix every bound index? Then the sum has at most one addend: a gather, or a piece."""
    pinned = {s for c in term.domain if c.equality and not c.is_data for s in c.expr.free_symbols}
    return bool(term.bound) and set(term.bound) <= pinned


def merged(rows: Iterable[Term]) -> tuple[Term, ...]:
    """Terms of at most one addend over one domain as one; terms whose body vanished are dropped."""
    bodies: dict[tuple[tuple[sp.Symbol, ...], Domain], list[sp.Expr]] = {}
    order: list[Term] = []
    for row in rows:
        if row.bound and not is_pinned(row):
            order.append(row)
            continue
        row = replace(row, domain=_sorted(row.domain))
        key = (row.bound, row.domain)
        if key not in bodies:
            bodies[key] = []
            order.append(row)
        bodies[key].append(row.body)
    result = [
        replace(row, body=sp.Add(*bodies[row.bound, row.domain])) if not row.bound or is_pinned(row) else row
        for row in order
    ]
    return tuple(term for term in result if term.body != 0)


# ------------------------------------------------------------------------------------------------------- known sums


@dataclass(frozen=True, slots=True)
class KnownSum:
    """`Σ {bound : domain} inside = read`, for all axes."""

    read: sp.Expr
    axes: tuple[sp.Symbol, ...]
    term: Term
    ranges: Domain


def known_sums(program: Program, names: Iterable[str]) -> list[KnownSum]:
    """What the definitions in `names` say of sums: `mean = Σ x / D` says `Σ x = D mean`."""
    found: list[KnownSum] = []
    for equation in program.equations:
        if equation.target not in names or equation.reducer != "sum" or len(equation.terms) != 1:
            continue
        term = equation.terms[0]
        if not term.bound:
            continue
        outside, inside = hoisted(term)
        if not _only_divides(outside):
            continue
        read = program.tensor(equation.target)[equation.axes] / outside
        ranges = axis_ranges(program.tensor(equation.target))
        found.append(KnownSum(read, equation.axes, replace(term, body=inside), ranges))
    return found


def _only_divides(factor: sp.Expr) -> bool:
    """Is it free of reads but for divisors? What was divided by them is the quotient times them, without a loss."""
    return all(
        not f.has(Access) or (isinstance(f, sp.Pow) and f.base != sp.E and bool(f.exp.is_negative))
        for f in sp.Mul.make_args(factor)
    )


def fold_known(program: Program, equation: Equation, names: frozenset[str], known: list[KnownSum]) -> Equation | None:
    """The equation as a map, if every addend of its one sum is known once definitions are put in; else None."""
    if equation.reducer != "sum" or len(equation.terms) != 1 or not equation.terms[0].bound:
        return None
    (term,) = equation.terms
    facts = axis_ranges(program.tensor(equation.target))
    definitions = program.definitions()
    for depth in range(3):
        opened = _opened(term.body, definitions, names, depth)
        if opened is None:
            return None
        total: sp.Expr | None = sp.S.Zero
        for addend in sp.Add.make_args(flattened(opened)):
            value = _known_value(replace(term, body=addend), known, facts)
            total = None if value is None or total is None else total + value
            if total is None:
                break
        if total is not None:
            folded = sp.expand(total)
            return replace(equation, terms=(Term(folded),) if folded != 0 else ())
    return None


def _opened(body: sp.Expr, definitions: Mapping[str, Equation], names: frozenset[str], depth: int) -> sp.Expr | None:
    """`body` with the reads of maps in `names` replaced by their definitions, `depth` times."""
    for _ in range(depth):
        where: dict[sp.Expr, sp.Expr] = {}
        for access in accesses(body):
            definition = definitions.get(access.name)
            if access.name in names and definition is not None and definition.is_map:
                where[access] = definition.body.xreplace(dict(zip(definition.axes, access.indices, strict=True)))
        if not where:
            return None
        body = body.xreplace(where)
    return body


def _known_value(term: Term, known: list[KnownSum], facts: Domain) -> sp.Expr | None:
    outside, inside = hoisted(term)
    if inside == 1:
        count: sp.Expr = sp.S.One
        for index in term.bound:
            low, high = term.lower_bounds(index), term.upper_bounds(index)
            mine = [c for c in term.domain if index in c.expr.free_symbols]
            if low != [sp.S.Zero] or len(high) != 1 or len(mine) != 2 or high[0].free_symbols & set(term.bound):
                return None
            if not high[0].is_nonnegative:
                return None
            count *= high[0]
        return outside * count
    for one in known:
        read = _match(one, replace(term, body=inside), facts)
        if read is not None:
            return outside * read
    return None


def _match(known: KnownSum, term: Term, facts: Domain) -> sp.Expr | None:
    """The read that equals `term`, if the known sum has its body and its domain at some axes."""
    if len(known.term.bound) != len(term.bound) or _bases(known.term.body) != _bases(term.body):
        return None
    first = next_bound(term)
    pattern = fresh_bounds(known.term, first)
    variables = (*known.axes, *pattern.bound)
    for binding in bindings(pattern.body, variables, term.body):
        if {binding[b] for b in pattern.bound} != set(term.bound):
            continue
        if any(binding[a].free_symbols & set(term.bound) for a in known.axes):
            continue
        if not all(proves(facts, c.over(binding), depth=3) for c in known.ranges):
            continue
        domain = _reduced([c.over(binding) for c in pattern.domain], facts)
        if set(domain) == set(_reduced(term.domain, facts)):
            return known.read.xreplace({a: binding[a] for a in known.axes})
    return None


def _bases(body: sp.Expr) -> set[sp.Expr]:
    return {access.base for access in accesses(body)}


def _reduced(domain: Iterable[Constraint], facts: Domain) -> Domain:
    return without_implied(tuple(Constraint(sp.expand(c.expr), c.equality) for c in domain), facts)


def exchange(program: Program, equation: Equation, known: list[KnownSum]) -> Equation | None:
    """`Σ_m p[m] S[m]`, `S[m] = Σ_d a[d] v[m,d]`, as `Σ_d a[d] o[d]` where `o[d] = Σ_m p[m] v[m,d]` is known."""
    if equation.reducer != "sum" or len(equation.terms) != 1 or len(equation.terms[0].bound) != 1:
        return None
    (term,) = equation.terms
    definitions = program.definitions()
    facts = axis_ranges(program.tensor(equation.target))
    for access in accesses(term.body):
        inner = definitions.get(access.name)
        if inner is None or inner.reducer != "sum" or len(inner.terms) != 1 or len(inner.terms[0].bound) != 1:
            continue
        if access not in sp.Mul.make_args(term.body):
            continue
        (opened,) = instantiate(inner, access.indices, next_bound(term))
        factors = [*(f for f in sp.Mul.make_args(term.body) if f != access), *sp.Mul.make_args(opened.body)]
        outer = set(term.bound)
        moving = sp.Mul(*(f for f in factors if f.free_symbols & outer))
        staying = sp.Mul(*(f for f in factors if not f.free_symbols & outer))
        summed = Term(moving, term.bound, term.domain)
        for one in known:
            read = _match(one, summed, (*facts, *opened.domain))
            if read is not None:
                rest = tuple(c for c in opened.domain if not c.expr.free_symbols & outer)
                return replace(equation, terms=(tidy(Term(staying * read, opened.bound, rest)),))
    return None

"""Rules about names: maps are put where they are read, what a row shares gets a name, scales join their sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import sympy as sp

from jaccomp.algebra.cost import FUNCTION_WEIGHT, operations
from jaccomp.domains import axis_ranges, digits, hull, proves
from jaccomp.notation import Access
from jaccomp.program import (
    AXES,
    Equation,
    Program,
    Tensor,
    Term,
    accesses,
    hoisted,
    map_terms,
)

CHEAP = 2  # operations of a row's value that may be put inside a sum, to meet what it cancels with
LARGEST_COPY = 6  # operations, functions weighed, of a map that may be written out at several reads


def readers(program: Program) -> dict[str, int]:
    """How many reads (distinct accesses per term) each tensor has."""
    counts: dict[str, int] = {}
    for equation in program.equations:
        for term in equation.terms:
            for access in accesses(term.body):
                counts[access.name] = counts.get(access.name, 0) + 1
    return counts


def inline(program: Program, equation: Equation, where: Mapping[str, Equation], counts: Mapping[str, int]) -> Equation:
    """The equation with reads of the maps in `where` replaced by what they are, where that repeats no work.

    A map is put into a term that visits no more points than the map has elements, or outside of the term's sum; a large
    one only where it is read once.
    """
    facts = axis_ranges(program.tensor(equation.target))

    def change(term: Term) -> Term:
        visited = {*equation.axes, *term.bound}
        found: dict[sp.Expr, sp.Expr] = {}
        for access in accesses(term.body):
            definition = where.get(access.name)
            if definition is None or not _fits(definition, access, term, visited, counts):
                continue
            at = dict(zip(definition.axes, access.indices, strict=True))
            (row,) = definition.terms or (Term(sp.S.Zero),)
            known = (*facts, *term.domain)
            if all(proves(known, c.over(at), depth=3) for c in row.domain):
                found[access] = row.body.xreplace(at)
        return replace(term, body=term.body.xreplace(found)) if found else term

    return map_terms(equation, change)


def _fits(definition: Equation, access: Access, term: Term, visited: set[sp.Symbol], counts: Mapping[str, int]) -> bool:
    body = definition.body if definition.terms else sp.S.Zero
    size = operations(body, FUNCTION_WEIGHT)
    if counts.get(access.name, 0) > 1 and size > LARGEST_COPY:
        return False
    seen = access.free_symbols
    if visited <= seen or not term.bound:
        return True
    if not seen & set(term.bound):
        return access in sp.Mul.make_args(term.body)
    return size <= CHEAP and all(is_unnamed(a.name) for a in accesses(body))


def is_unnamed(name: str) -> bool:
    """Is it a part that the compiler named, not the author: a shared sum, a row's value?"""
    return name[0] in "aru" and name[1:].isdigit()


def is_pointwise(equation: Equation) -> bool:
    """One term, or none, without bound indices or equalities."""
    if equation.reducer != "sum" or len(equation.terms) > 1:
        return False
    return all(not t.bound and not any(c.equality for c in t.domain) for t in equation.terms)


@dataclass(slots=True)
class Names:
    """New names for parts of bodies, equal parts under one name."""

    program: Program
    stem: str
    known: dict[tuple[object, ...], Tensor] = field(default_factory=dict)
    new: list[tuple[Tensor, Equation]] = field(default_factory=list)
    shapes: dict[str, tuple[sp.Expr, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes = {t.name: t.shape for t in self.program.tensors}
        for equation in self.program.equations:
            if equation.is_map:
                tensor = self.program.tensor(equation.target)
                self.known.setdefault((equation.body, tensor.shape), tensor)

    def part(self, expr: sp.Expr, extents: Mapping[sp.Symbol, sp.Expr]) -> sp.Expr:
        used = _orientation(expr, extents)
        body = expr.xreplace(dict(zip(used, AXES, strict=False)))
        shape = tuple(extents[a] for a in used)
        key = (body, shape)
        if key not in self.known:
            names = (f"{self.stem}{k}" for k in range(len(self.shapes) + 1))
            name = next(one for one in names if one not in self.shapes)
            self.shapes[name] = shape
            self.known[key] = Tensor(name, shape)
            self.new.append((self.known[key], Equation(name, AXES[: len(used)], (Term(body),))))
        return self.known[key][tuple(used)]


def _orientation(expr: sp.Expr, extents: Mapping[sp.Symbol, sp.Expr]) -> list[sp.Symbol]:
    """The indices of a part, in the order in which its widest read has them."""
    widest = sorted(accesses(expr), key=lambda a: -len(a.indices))
    order = dict.fromkeys(i for a in widest for i in a.indices if i in extents)
    return list(order) + [a for a in extents if a in expr.free_symbols and a not in order]


def name_invariants(program: Program, equation: Equation, names: Names) -> Equation:
    """Parts of a body that do not see every index of it are named, and so computed once per row."""
    target = program.tensor(equation.target)
    extents = dict(zip(equation.axes, target.shape, strict=True))
    if not extents or equation.reducer != "sum":
        return equation

    plain = axis_ranges(target)

    def change(term: Term) -> Term:
        if any(c.equality for c in term.domain):
            return term
        ranges = {**extents, **{b: hull(term, b, plain)[1] + 1 for b in term.bound}}
        fixed = {d.index for d in digits(term, tuple(ranges))}
        outside, inside = hoisted(term)
        return replace(term, body=outside * _name_parts(inside, _Space(frozenset(ranges) - fixed), ranges, names))

    return map_terms(equation, change)


@dataclass(frozen=True, slots=True)
class _Space:
    """The indices that a term runs over, less those that are digits of others and so cost nothing."""

    indices: frozenset[sp.Symbol]

    def of(self, expr: sp.Expr) -> frozenset[sp.Symbol]:
        return frozenset(s for s in expr.free_symbols if s in self.indices)


def _name_parts(expr: sp.Expr, every: _Space, extents: Mapping[sp.Symbol, sp.Expr], names: Names) -> sp.Expr:
    if isinstance(expr, Access) or not expr.args:
        return expr
    if every.of(expr) != every.indices and _worth_a_name(expr, extents, names):
        return _signed_part(expr, extents, names)
    if isinstance(expr, sp.Piecewise):
        return expr
    if not isinstance(expr, sp.Add | sp.Mul):
        return expr.func(*(_name_parts(a, every, extents, names) for a in expr.args))
    rest = list(expr.args)
    found: list[sp.Expr] = []
    for space in sorted({every.of(a) for a in rest}, key=lambda s: (-len(s), sorted(map(str, s)))):
        group = [a for a in rest if every.of(a) <= space]
        joined = expr.func(*group)
        if space != every.indices and len(group) > 1 and _worth_a_name(joined, extents, names):
            found.append(_signed_part(joined, extents, names))
            rest = [a for a in rest if a not in group]
    return expr.func(*found, *(_name_parts(a, every, extents, names) for a in rest))


def _worth_a_name(expr: sp.Expr, extents: Mapping[sp.Symbol, sp.Expr], names: Names) -> bool:
    """Real work on tensors, read at bare indices over whole axes only, so that no guard of the term is left behind."""
    reads_all = accesses(expr)
    if not reads_all or expr.is_integer or operations(expr) == 0:
        return False
    return all(
        extents.get(i) == extent for a in reads_all for i, extent in zip(a.indices, names.shapes[a.name], strict=True)
    )


def _signed_part(expr: sp.Expr, extents: Mapping[sp.Symbol, sp.Expr], names: Names) -> sp.Expr:
    if isinstance(expr, sp.Mul) and expr.could_extract_minus_sign():
        return -names.part(-expr, extents)
    return names.part(expr, extents)


def absorb(program: Program, names: frozenset[str]) -> Program:
    """`a[n] = R[n] / D` with R a sum read only there becomes `a[n] = Σ ... / D`."""
    counts = readers(program)
    definitions = program.definitions()
    gone: set[str] = set()
    result: dict[str, Equation] = {}
    for equation in program.equations:
        if equation.target not in names or not equation.is_map:
            continue
        factors = sp.Mul.make_args(equation.body)
        for factor in factors:
            source = definitions.get(factor.name) if isinstance(factor, Access) else None
            if source is None or factor.name not in names or counts.get(factor.name) != 1:
                continue
            if factor.name in program.outputs or factor.indices != equation.axes or len(source.terms) != 1:
                continue
            if source.reducer != "sum" or not source.terms[0].bound:
                continue
            (row,) = source.terms
            scale = sp.Mul(*(f for f in factors if f is not factor))
            result[equation.target] = replace(equation, terms=(replace(row, body=scale * row.body),))
            gone.add(factor.name)
            break
    kept = [result.get(e.target, e) for e in program.equations if e.target not in gone]
    return program.with_equations(kept)

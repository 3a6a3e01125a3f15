"""Maps that two nests need are computed in each, rather than kept whole between them.

ct_h = f'(h) ct_y;  ct_x = ct_h W;  ct_W = ct_hᵀ x      with ct_h in tiles of rows in one nest, of columns in the other

Input: a program, and the tensors that its kernel would keep. Output: the same program with copies of their definitions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import sympy as sp

from jaccomp.lowering.contraction import sides
from jaccomp.notation import Access
from jaccomp.program import Equation, Program, Tensor, Term, accesses, instantiate, reads, term_accesses

Way = tuple[str, tuple[int, ...]]
"""How a product walks over an operand: its name, and which of its axes the product sums over."""


def compute_again(program: Program, temporaries: Collection[str]) -> Program:
    """The program with a copy of each pointwise temporary for every way but the first in which a product walks over it.

    The first nest has the original. Products that sum over the same axes of an operand can share a nest, so they share
    a copy.
    """
    copies = _Copies(program, {n for n in temporaries if _is_pointwise(program, n) and n not in program.outputs})
    for equation in program.equations:
        copies.add(equation)
    return program.with_equations(copies.equations, copies.new) if copies.new else program


def _is_pointwise(program: Program, name: str) -> bool:
    """A map, or pieces of one; no reduction. Where data puts something, each term is everywhere or at one place."""
    definition = program.definition(name)
    return (
        definition is not None
        and definition.reducer == "sum"
        and not any(t.bound for t in definition.terms)
        and not _puts_elsewhere(definition)
        and len(definition.axes) > 1
    )


def _puts_elsewhere(definition: Equation) -> bool:
    domains = [c for t in definition.terms for c in t.domain]
    return any(c.is_data for c in domains) and not all(c.equality for c in domains)


class _Copies:
    """The equations written so far, and the copies among them."""

    def __init__(self, program: Program, wanted: Collection[str]) -> None:
        self.program = program
        self.wanted = wanted
        self.equations: list[Equation] = []
        self.new: list[Tensor] = []
        self.first: dict[str, Way] = {}
        self.known: dict[Way, Tensor] = {}

    def add(self, equation: Equation) -> None:
        names: dict[str, Tensor] = {}
        if sides(equation) is not None:
            for name in [n for n in reads(equation) if n in self.wanted]:
                way = _way(equation, name)
                if self.first.setdefault(name, way) != way:
                    names[name] = self._copy(name, way)
        self.equations.append(_renamed(equation, names))

    def _copy(self, name: str, way: Way) -> Tensor:
        """The tensor that holds `name` for products of this way; what it reads at the same place is copied with it."""
        if way in self.known:
            return self.known[way]
        definition = self._written_out(name)
        names: dict[str, Tensor] = {}
        for other in reads(definition):
            if _is_pointwise(self.program, other) and other not in self.program.outputs:
                names[other] = self._copy(other, (other, way[1]))
        made = replace(self.program.tensor(name), name=f"{name}_again{len(self.new)}")
        self.new.append(made)
        self.equations.append(replace(_renamed(definition, names), target=made.name))
        self.known[way] = made
        return made

    def _written_out(self, name: str) -> Equation:
        """The definition of `name`, with what it reads beside its own place, thus in another tile, written into it."""
        found = self.program.definition(name)
        assert found is not None
        definition = _as_map(found)
        beside = self._beside(definition)
        while beside:
            where: dict[sp.Expr, sp.Expr] = {a: m for other in beside for a, m in self._meanings(definition, other)}
            terms = tuple(replace(t, body=t.body.xreplace(where)) for t in definition.terms)
            definition = replace(definition, terms=terms)
            beside = self._beside(definition)
        return definition

    def _beside(self, definition: Equation) -> list[str]:
        """The plain maps that a definition reads elsewhere than at its own place."""
        found: dict[str, None] = {}
        for access in [a for t in definition.terms for a in accesses(t.body) if a.indices != definition.axes]:
            inner = self.program.definition(access.name)
            plain = inner is not None and len(inner.terms) == 1 and not inner.terms[0].domain
            if plain and _is_pointwise(self.program, access.name) and access.name not in self.program.outputs:
                found.setdefault(access.name)
        return list(found)

    def _meanings(self, definition: Equation, name: str) -> list[tuple[Access, sp.Expr]]:
        inner = self.program.definition(name)
        assert inner is not None
        read = dict.fromkeys(a for t in definition.terms for a in accesses(t.body) if a.name == name)
        return [(a, instantiate(inner, a.indices, 0)[0].body) for a in read]


def _as_map(definition: Equation) -> Equation:
    """What data puts at places of its own, as a choice at every place: then it can be computed in any tile.

    ct[n,c] = y[n,c];  ct[n,c] += a[n] where c = label[n]   ->   ct[n,c] = y[n,c] + {a[n] if c = label[n], else 0}
    """
    if not any(c.is_data for t in definition.terms for c in t.domain):
        return definition
    return replace(definition, terms=(Term(sp.Add(*(_chosen(t) for t in definition.terms))),))


def _chosen(term: Term) -> sp.Expr:
    if not term.domain:
        return term.body
    return sp.Piecewise((term.body, sp.And(*(sp.Eq(c.expr, 0) for c in term.domain))), (0, True))


def _way(equation: Equation, name: str) -> Way:
    access = next(a for t in equation.terms for a in term_accesses(t) if a.name == name)
    bound = equation.terms[0].bound
    return name, tuple(k for k, e in enumerate(access.indices) if any(b in e.free_symbols for b in bound))


def _renamed(equation: Equation, names: dict[str, Tensor]) -> Equation:
    return replace(equation, terms=tuple(_term(t, names) for t in equation.terms))


def _term(term: Term, names: dict[str, Tensor]) -> Term:
    where: dict[sp.Expr, sp.Expr] = {
        a: Access(names[a.name][a.indices].base, *a.indices) for a in term_accesses(term) if a.name in names
    }
    return term.over(where)

"""The chain rule of a layer: the Jacobian of each equation by what it reads, and how the whole is made of them.

    local    ∂ms[n]/∂x[m,k] = δ(n,m) 2 x[n,k]/D          all else that the equation reads is held fixed
    chain    dy/dx = ∂y/∂x + ∂y/∂ms ∂ms/∂x               one product for each path from y down to x

A product sums over the indices of what lies between. Where there are many paths the chain goes step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from jaccomp import pipeline
from jaccomp.calculus.scalar import partials
from jaccomp.calculus.vjp import real_inputs, real_outputs
from jaccomp.card import Line
from jaccomp.cards.formulas import jacobian_line
from jaccomp.jacobian import Jacobian
from jaccomp.latex_names import latex_name
from jaccomp.program import Equation, Program, reads

MOST_PATHS = 12
"""A sum of more products than this is no line that a person reads."""

TOTAL, LOCAL = r"\mathrm{d}", r"\partial"

Edges = Mapping[str, tuple[str, ...]]


def local_jacobians(program: Program) -> dict[tuple[str, str], Jacobian]:
    """The block of each real equation of a program by each real tensor that it reads, by (target, read)."""
    found = {}
    edges = _edges(program)
    for equation in program.equations:
        names = edges.get(equation.target, ())
        if names:
            derivation = pipeline.derive(_alone(program, equation))
            for name in names:
                found[equation.target, name] = pipeline.jacobian(derivation, equation.target, name)
    return found


def local_lines(program: Program) -> tuple[Line, ...]:
    """The local Jacobians, one a line."""
    return tuple(jacobian_line(one) for one in local_jacobians(program).values())


def _alone(program: Program, equation: Equation) -> Program:
    """The layer of one equation: what it reads in, its target out."""
    names = reads(equation)
    tensors = tuple(program.tensor(name) for name in (*names, equation.target))
    return replace(program, inputs=names, outputs=(equation.target,), equations=(equation,), tensors=tensors)


def _edges(program: Program) -> Edges:
    """For each real tensor that an equation defines, the real ones that its value moves with, in order."""
    found: dict[str, tuple[str, ...]] = {}
    for equation in program.equations:
        if program.tensor(equation.target).dtype == "real":
            reads = [a.name for term in equation.terms for a in partials(term.body)]
            found[equation.target] = tuple(dict.fromkeys(reads))
    return found


def chain_lines(program: Program) -> tuple[Line, ...]:
    """The total derivative of each output by each input, as the sum over paths of products of local Jacobians.

    Where an output has too many paths, one line for each quantity on them, in those of what it reads.
    """
    edges = _edges(program)
    lines: list[Line] = []
    for of in real_outputs(program):
        for wrt in real_inputs(program):
            count = _count(edges, of, wrt, {})
            if count <= MOST_PATHS:
                lines.append(_total(program, of, wrt, [list(pairwise(p)) for p in _paths(edges, of, wrt)]))
            else:
                lines += _stepwise(program, edges, of, wrt)
    return tuple(dict.fromkeys(lines))


def _count(edges: Edges, of: str, wrt: str, known: dict[str, int]) -> int:
    if of == wrt:
        return 1
    if of not in known:
        known[of] = sum(_count(edges, name, wrt, known) for name in edges.get(of, ()))
    return known[of]


def _paths(edges: Edges, of: str, wrt: str) -> list[tuple[str, ...]]:
    """Every path, the direct ones first."""
    if of == wrt:
        return [(wrt,)]
    found = [(of, *rest) for name in edges.get(of, ()) for rest in _paths(edges, name, wrt)]
    return sorted(found, key=len)


def _stepwise(program: Program, edges: Edges, of: str, wrt: str) -> list[Line]:
    """`dy/dx = ∂y/∂x + ∂y/∂a da/dx + ...`, then the same for a, down to x."""
    lines, waiting, done = [], [of], set()
    while waiting:
        name = waiting.pop(0)
        if name in done:
            continue
        done.add(name)
        via = [one for one in edges.get(name, ()) if _count(edges, one, wrt, {})]
        products = [[(name, one)] + ([] if one == wrt else [(one, wrt)]) for one in via]
        totals = frozenset((one, wrt) for one in via if one != wrt)
        lines.append(_total(program, name, wrt, products, totals))
        waiting += [one for one in via if one != wrt]
    return lines


def _total(
    program: Program,
    of: str,
    wrt: str,
    products: list[list[tuple[str, str]]],
    totals: frozenset[tuple[str, str]] = frozenset(),
) -> Line:
    """`d of/d wrt` as a sum of products of derivatives, local but for `totals`."""
    label = program.labels.name

    def quotient(pair: tuple[str, str], sign: str) -> str:
        return f"{sign}{label(pair[0])}/{sign}{label(pair[1])}"

    def fraction(pair: tuple[str, str], sign: str) -> str:
        above, below = (latex_name(label(one)) for one in pair)
        return rf"\frac{{{sign} {above}}}{{{sign} {below}}}"

    texts = [" · ".join(quotient(p, "d" if p in totals else "∂") for p in product) for product in products]
    latexes = [r" \, ".join(fraction(p, TOTAL if p in totals else LOCAL) for p in product) for product in products]
    return Line(
        f"{quotient((of, wrt), 'd')} = {' + '.join(texts) or '0'}",
        f"{fraction((of, wrt), TOTAL)} = {' + '.join(latexes) or '0'}",
    )

"""A Jacobian block as a program of its own, which is evaluated, drawn and emitted like any other.

∂y[f]/∂x[a] = Σ terms over rows f and columns a   ->   x...  ->  J[f..., a...], with the definitions its terms read
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.algebra.blocks import Block
from jaccomp.calculus.names import fresh
from jaccomp.domains import axis_ranges, without_implied
from jaccomp.program import AXES, Equation, Labels, Program, Tensor, Term, live, tidy, verify

NAME = "jacobian"


def explicit(layer: Program, vjp: Program, block: Block, letters: Sequence[str]) -> Program:
    """The program `inputs -> J[rows, columns]` of a block of a layer's simplified VJP; `letters` name its axes.

    The cotangents are no inputs any more: a block's terms read the layer's own quantities only, integer ones such as
    the place of a maximum among them.
    """
    target = Tensor(fresh(vjp, NAME), (*vjp.tensor(block.seed).shape, *vjp.tensor(block.output).shape))
    axes = AXES[: target.rank]
    where: dict[sp.Expr, sp.Expr] = dict(zip((*block.rows, *block.columns), axes, strict=True))
    given = axis_ranges(target)

    def own(term: Term) -> Term:
        moved = tidy(term.over(where))
        return replace(moved, domain=without_implied(moved.domain, given))

    entries = Equation(target.name, axes, tuple(own(term) for term in block.terms))
    seeds = [name for name in vjp.inputs if name not in layer.inputs]
    program = replace(
        vjp,
        name=f"{layer.name}_jacobian",
        inputs=layer.inputs,
        outputs=(target.name,),
        tensors=(*(one for one in vjp.tensors if one.name not in seeds), target),
        equations=(*vjp.equations, entries),
        labels=_named(vjp.labels, target.name, letters),
    )
    return verify(live(program))


def _named(labels: Labels, name: str, letters: Sequence[str]) -> Labels:
    taken = set(labels.names.values())
    shown = next(word for word in ("J", "Jacobian", *(f"J{k}" for k in range(2, len(taken) + 3))) if word not in taken)
    return replace(labels, names={**labels.names, name: shown}, axes={**labels.axes, name: tuple(letters)})

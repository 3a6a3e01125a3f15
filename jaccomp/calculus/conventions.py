"""Which of the published conventions a layer's values or derivatives lean on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sympy as sp

from jaccomp.calculus.functions import Finite, InverseRoot
from jaccomp.calculus.scalar import CONVENTIONS, Convention
from jaccomp.notation import Access
from jaccomp.program import Program


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a layer computes: the bodies of its equations as written and as stabilised, the tensors that are square
    roots, and its reducers.
    """

    written: tuple[sp.Expr, ...]
    stabilised: tuple[sp.Expr, ...]
    roots: frozenset[str]
    reducers: frozenset[str]


def in_force(layer: Program, *stabilised: Program) -> tuple[Convention, ...]:
    """The rows of the table that matter to a layer in normal form and the programs it is compiled from, in order."""
    evidence = Evidence(
        _bodies(layer),
        tuple(body for program in stabilised for body in _bodies(program)),
        frozenset(e.target for p in stabilised for e in p.equations if any(_is_root(t.body) for t in e.terms)),
        frozenset(equation.reducer for equation in layer.equations),
    )
    return tuple(row for row in CONVENTIONS if MATTERS[row.what](evidence))


def _bodies(program: Program) -> tuple[sp.Expr, ...]:
    return tuple(term.body for equation in program.equations for term in equation.terms)


def _extremum_of(tensors: Callable[[int], bool]) -> Callable[[Evidence], bool]:
    """Is there a Max or Min of which so many arguments read a tensor?"""

    def matters(evidence: Evidence) -> bool:
        found = (one for body in evidence.written for one in body.atoms(sp.Max, sp.Min))
        return any(tensors(sum(arg.has(Access) for arg in one.args)) for one in found)

    return matters


def _holds(kind: type) -> Callable[[Evidence], bool]:
    return lambda evidence: any(body.has(kind) for body in (*evidence.written, *evidence.stabilised))


def _divides_by_a_norm(evidence: Evidence) -> bool:
    """Did stabilisation put a guard `0 if norm = 0` on a square root?"""

    def guards_a_root(condition: sp.Expr) -> bool:
        if not isinstance(condition, sp.Eq):
            return False
        return any(_is_root(s) or (isinstance(s, Access) and s.name in evidence.roots) for s in condition.args)

    cases = (case for body in evidence.stabilised for case in body.atoms(sp.Piecewise))
    guarded = any(guards_a_root(condition) for case in cases for _, condition in case.args)
    return guarded or _holds(InverseRoot)(evidence)


def _is_root(body: sp.Expr) -> bool:
    return isinstance(body, sp.Pow) and body.exp == sp.S.Half


MATTERS: Mapping[str, Callable[[Evidence], bool]] = {
    "derivative of Max(x, c), Min(x, c), c constant, at x = c": _extremum_of(lambda count: count == 1),
    "derivative of Max(a, b), Min(a, b) at a = b": _extremum_of(lambda count: count > 1),
    "derivative of |x| at 0": lambda evidence: any(body.has(sp.Abs) for body in evidence.written),
    "derivative of a maximum or minimum over an index": lambda evidence: bool(evidence.reducers & {"max", "min"}),
    "x/‖x‖ and the derivative of ‖x‖ at 0": _divides_by_a_norm,
    "softmax of a fully masked row (every entry -∞)": _holds(Finite),
}

"""Costly functions that several equations take of the same values are computed once, where one nest holds them all.

z[n] = Σ_k exp(x[n,k] - m[n]);  y[n,i] = exp(x[n,i] - m[n]) / z[n]
    ->   e[n,i] = exp(x[n,i] - m[n]);  z[n] = Σ_k e[n,k];  y[n,i] = e[n,i] / z[n]
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from jaccomp.lowering.affine import index_set
from jaccomp.notation import Access
from jaccomp.program import AXES, Equation, Program, Tensor, Term, accesses, ordered

CHEAP = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.floor, sp.ceiling)

Key = tuple[sp.Expr, tuple[sp.Expr, ...]]


def share(program: Program) -> Program:
    """The program with an equation for each function of array elements that at least two equations contain."""
    shapes = {t.name: t.shape for t in program.tensors}
    users: dict[Key, list[str]] = {}
    for equation in program.equations:
        for term in equation.terms:
            for key in dict.fromkeys(key for _, key, _ in _found(equation, term, shapes)):
                users.setdefault(key, []).append(equation.target)
    named = {
        key: Tensor(f"shared{number}", key[1])
        for number, key in enumerate(k for k, found in users.items() if len(set(found)) > 1)
    }
    if not named:
        return program
    equations = [replace(e, terms=tuple(_in_names(e, t, named, shapes) for t in e.terms)) for e in program.equations]
    made = [Equation(t.name, AXES[: t.rank], (Term(body),)) for (body, _), t in named.items()]
    return program.with_equations(ordered([*made, *equations], program.inputs), named.values())


def _found(
    equation: Equation, term: Term, shapes: dict[str, tuple[sp.Expr, ...]]
) -> list[tuple[sp.Expr, Key, tuple[sp.Expr, ...]]]:
    """(function, what it is in canonical axes, the indices it is taken at), the outermost functions of a body."""
    loops = (*equation.axes, *term.bound)
    result: list[tuple[sp.Expr, Key, tuple[sp.Expr, ...]]] = []

    def visit(expr: sp.Expr) -> None:
        if isinstance(expr, Access | sp.Piecewise):
            return
        if isinstance(expr, sp.Function) and not isinstance(expr, CHEAP):
            inside = index_set(expr, loops)
            whole = [a for a in accesses(expr) if set(a.indices) == set(inside) and len(a.indices) == len(inside)]
            if whole and len(inside) == len(loops):
                first = min(whole, key=lambda a: a.name)
                where: dict[sp.Expr, sp.Expr] = dict(zip(first.indices, AXES, strict=False))
                result.append((expr, (expr.xreplace(where), shapes[first.name]), first.indices))
            return
        for arg in expr.args:
            visit(arg)

    visit(term.body)
    return result


def _in_names(equation: Equation, term: Term, named: dict[Key, Tensor], shapes: dict[str, tuple[sp.Expr, ...]]) -> Term:
    where = {f: named[key][indices] for f, key, indices in _found(equation, term, shapes) if key in named}
    return replace(term, body=term.body.xreplace(where))

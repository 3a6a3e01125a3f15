"""Vector-Jacobian and Jacobian-vector products of programs, as programs.

For `T[f] = Σ {b : C} body(A[α(f, b)], ...)`, per access of A (Urban and van der Smagt, 2017, section 3):

    vjp    ct_A[a] += Σ {f, b : C, a = α(f, b)} ct_T[f] · ∂body/∂A[α]
    jvp    t_T[f]   = Σ {b : C} Σ_A ∂body/∂A[α] · t_A[α]

The primal's equations are kept, whether read or not: they are what the result can be simplified in. Nothing is solved
here: a Kronecker delta is a constraint of the domain, whatever the access, so that the result can be
differentiated again by the same two lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.calculus.extrema import linearise
from jaccomp.calculus.names import prefix
from jaccomp.calculus.scalar import partials
from jaccomp.domains import axis_ranges
from jaccomp.errors import DerivativeError
from jaccomp.program import (
    AXES,
    Equation,
    Program,
    Tensor,
    Term,
    bound_symbol,
    equal,
    fresh_bounds,
    next_bound,
    tidy,
)


def real_inputs(program: Program) -> tuple[str, ...]:
    """The inputs that can be differentiated by."""
    return tuple(name for name in program.inputs if program.tensor(name).dtype == "real")


def real_outputs(program: Program) -> tuple[str, ...]:
    return tuple(name for name in program.outputs if program.tensor(name).dtype == "real")


def vjp(program: Program, wrt: Sequence[str] | None = None) -> Program:
    """The program x..., ct_y... -> ct_x..., for the real inputs in `wrt` (canonical names; all by default).

    Raises `DerivativeError` for a name that is no real input, or a function without a derivative.
    """
    mark = prefix(program, "ct")
    chosen = _chosen(program, wrt)
    active = _active(program, chosen)
    sums: dict[str, list[Term]] = {}
    extra: list[tuple[Tensor, Equation]] = []
    backward: list[tuple[Tensor, Equation]] = []
    given = {name for name in real_outputs(program) if name in active}
    for equation in reversed(program.equations):
        name = equation.target
        if name not in active or (name not in given and name not in sums):
            continue
        cotangent = replace(program.tensor(name), name=mark + name)
        if name in given and name in sums:
            cotangent = replace(cotangent, name=f"{mark}total_{name}")
            sums[name].insert(0, Term(replace(cotangent, name=mark + name)[equation.axes]))
        if name in sums:
            backward.append((cotangent, Equation(cotangent.name, equation.axes, tuple(sums[name]))))
        rows, new = linearise(program, equation)
        extra += new
        for row in rows:
            for access, partial in partials(row.term.body).items():
                if access.name in active:
                    body = cotangent[equation.axes] * row.factor * partial
                    term = Term(body, row.term.bound, (*row.term.domain, *row.extra))
                    sums.setdefault(access.name, []).append(_pull(program, equation, term, access.indices))
    for name in chosen:
        cotangent = replace(program.tensor(name), name=mark + name)
        terms = tuple(sums.get(name, ()))
        backward.append((cotangent, Equation(cotangent.name, AXES[: cotangent.rank], terms)))
    seeds = [replace(program.tensor(name), name=mark + name) for name in real_outputs(program)]
    result = replace(
        program,
        name=f"{program.name}_vjp",
        inputs=(*program.inputs, *(s.name for s in seeds)),
        outputs=tuple(mark + name for name in chosen),
        tensors=(
            *(program.tensor(name) for name in program.inputs),
            *seeds,
            *(program.tensor(e.target) for e in program.equations),
            *(t for t, _ in extra),
            *(t for t, _ in backward),
        ),
        equations=(*program.equations, *(e for _, e in extra), *(e for _, e in backward)),
    )
    return result


def _pull(program: Program, equation: Equation, term: Term, indices: tuple[sp.Expr, ...]) -> Term:
    """`term` summed over the equation's own axes too, wherever `indices` are the axes of the target."""
    first = next_bound(term)
    fresh = fresh_bounds(term, first + len(equation.axes))
    renamed = dict(zip(term.bound, fresh.bound, strict=True))
    away = {axis: bound_symbol(first + k) for k, axis in enumerate(equation.axes)}
    ranges = tuple(c.over(away) for c in axis_ranges(program.tensor(equation.target)))
    inside = fresh.over(away)
    at = [i.xreplace(renamed).xreplace(away) for i in indices]
    here = tuple(equal(one, axis) for one, axis in zip(at, AXES, strict=False))
    return tidy(Term(inside.body, (*away.values(), *fresh.bound), (*ranges, *inside.domain, *here)))


def jvp(program: Program, wrt: Sequence[str] | None = None) -> Program:
    """The program x..., t_x... -> y..., t_y..., for the real inputs in `wrt` (canonical names; all by default)."""
    mark = prefix(program, "t")
    chosen = _chosen(program, wrt)
    active = _active(program, chosen)
    seeds = [replace(program.tensor(name), name=mark + name) for name in chosen]
    new: list[tuple[Tensor, Equation]] = []
    for equation in program.equations:
        if equation.target not in active and equation.target not in program.outputs:
            continue
        target = program.tensor(equation.target)
        if target.dtype != "real":
            continue
        rows, extra = linearise(program, equation)
        terms = []
        for row in rows:
            body = sp.Add(
                *(
                    partial * row.factor * replace(program.tensor(access.name), name=mark + access.name)[access.indices]
                    for access, partial in partials(row.term.body).items()
                    if access.name in active
                )
            )
            if body != 0:
                terms.append(Term(body, row.term.bound, (*row.term.domain, *row.extra)))
        if terms:
            new += extra
        tangent = replace(target, name=mark + target.name)
        new.append((tangent, Equation(tangent.name, equation.axes, tuple(terms))))
    outputs = real_outputs(program)
    result = replace(
        program,
        name=f"{program.name}_jvp",
        inputs=(*program.inputs, *(s.name for s in seeds)),
        outputs=(*program.outputs, *(mark + name for name in outputs)),
        tensors=(
            *(program.tensor(name) for name in program.inputs),
            *seeds,
            *(program.tensor(e.target) for e in program.equations),
            *(t for t, _ in new),
        ),
        equations=(*program.equations, *(e for _, e in new)),
    )
    return result


def _chosen(program: Program, wrt: Sequence[str] | None) -> tuple[str, ...]:
    names = real_inputs(program)
    if wrt is None:
        return names
    for name in wrt:
        if name not in names:
            raise DerivativeError(
                f"{program.name}, wrt={program.labels.name(name)!r}",
                "no real input has that name.",
                f"Real inputs: {', '.join(map(program.labels.name, names))}.",
            )
    return tuple(name for name in names if name in wrt)


def _active(program: Program, chosen: Sequence[str]) -> set[str]:
    """The real tensors that depend on a chosen input through real values."""
    active = set(chosen)
    for equation in program.equations:
        if program.tensor(equation.target).dtype != "real":
            continue
        read = {a.name for term in equation.terms for a in partials(term.body)}
        if read & active:
            active.add(equation.target)
    return active

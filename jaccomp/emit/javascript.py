"""Programs as JavaScript that needs nothing else: what a page evaluates, from the program that kernels are made of.

    equation   target[axes] = reducer over terms      ->   // the equation
    term       {bound : domain} body                       for (let i0 = 0; i0 < s0; i0++) { ... }

A loop runs between the ends that constraints of unit coefficient set in indices further out, else over the hull of the
index's range; every other constraint is an `if` as far out as it can be decided. Identifiers are canonical names; what
a user named stands in comments alone, in which nothing can end the comment or the script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.domains import axis_ranges, coefficient, hull, is_index, position, proves
from jaccomp.emit.javascript_scalars import ADD, Spelling
from jaccomp.emit.templates import render, verbatim
from jaccomp.errors import StageError
from jaccomp.printing import equation_text
from jaccomp.program import Constraint, Equation, Program, Tensor, Term, at_least, expand

START = {"sum": "0", "prod": "1", "max": "-Infinity", "min": "Infinity", "argmax": "0", "argmin": "0"}
TEMPLATES = {"sum": "sum", "prod": "prod", "max": "extremum", "min": "extremum", "argmax": "place", "argmin": "place"}
SIGN = re.compile(r"[<>](?! )|(?<! )[<>]")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Step:
    """One index of a nest: between ends, or one value, and the constraints that can be decided once it is known."""

    index: sp.Symbol
    lower: tuple[sp.Expr, ...]
    stop: tuple[sp.Expr, ...]
    value: sp.Expr | None
    conditions: tuple[Constraint, ...]


def module(programs: Mapping[str, Program]) -> str:
    """An expression, a call of a strict function without parameters, whose value has a function for each program.

    `{name: evaluate}`; `evaluate(inputs, sizes, scalars)` takes arrays of numbers by canonical name, row-major, and
    gives `{name: {shape, data}}` of every tensor that the program defines. It reads no global but `Math` and the
    typed arrays.
    """
    for name in programs:
        _checked(name)
    return _render(
        "module",
        functions=verbatim("javascript/functions.js"),
        names=list(programs),
        programs=[program_function(name, program) for name, program in programs.items()],
    )


def program_function(name: str, program: Program) -> str:
    """`function name(inputs, sizes, scalars) {...}`."""
    writer = _Writer(program)
    nests = [writer.nest(equation) for equation in program.equations]
    return _render(
        "program",
        name=_checked(name),
        comment=comment(program.name),
        sizes=[_checked(s.name) for s in program.sizes],
        scalars=[_checked(s.name) for s in program.scalars],
        extents=[{"name": text, "value": writer.spell(expr)} for expr, text in writer.named.items()],
        inputs=[{"name": _checked(i), "elements": writer.elements(i)} for i in program.inputs],
        nests=nests,
    )


class Constants:
    """Whole numbers that sizes and integer scalars give, in terms of the objects `sizes` and `scalars`."""

    def __init__(self, program: Program) -> None:
        names: dict[sp.Basic, str] = {s: f"sizes.{_checked(s.name)}" for s in program.sizes}
        names |= {s.symbol: f"scalars.{_checked(s.name)}" for s in program.scalars}
        self.spell = Spelling(names, lambda name: ())

    def shape(self, shape: Sequence[sp.Expr]) -> str:
        return f"[{', '.join(self.extent(e) for e in shape)}]"

    def product(self, shape: Sequence[sp.Expr]) -> str:
        return " * ".join(self.extent(e) for e in shape) or "1"

    def least(self, exprs: Sequence[sp.Expr], otherwise: str) -> str:
        return _extreme("Math.min", [self.spell(e) for e in exprs] or [otherwise])

    def extent(self, expr: sp.Expr) -> str:
        text = self.spell(expr)
        return text if expr.is_Symbol or expr.is_Integer else f"Math.max(0, {text})"


def comment(text: str) -> str:
    """Text for a line comment: no line ends in it, and nothing that ends a script element; ` < ` stays as it is."""
    marked = SIGN.sub(_escaped, text)
    return "".join(c if c.isprintable() else _escape(c) for c in marked)


def _escaped(found: re.Match[str]) -> str:
    return _escape(found[0])


def _escape(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise StageError("emission", f"{name!r} is no canonical name.")
    return name


class _Writer:
    """The nests of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.declared = program.declarations()
        names: dict[sp.Basic, str] = {s: s.name for s in program.sizes}
        names |= {s.symbol: s.name for s in program.scalars}
        self.spell = Spelling(names, self.extents)
        self.named: dict[sp.Expr, str] = {}
        for extent in (e for tensor in program.tensors for e in tensor.shape):
            if not extent.is_Symbol and not extent.is_Integer:
                self.named.setdefault(extent, f"e{len(self.named)}")

    def extents(self, name: str) -> tuple[str, ...]:
        return tuple(self.named.get(e) or self.spell(e) for e in self.declared[name].shape)

    def elements(self, name: str) -> str:
        return " * ".join(self.extents(name)) or "1"

    def nest(self, equation: Equation) -> dict[str, object]:
        target = self.declared[equation.target]
        return {
            "comment": comment(equation_text(self.program, equation)),
            "target": _checked(target.name),
            "shape": list(self.extents(target.name)),
            "elements": self.elements(target.name),
            "start": START[equation.reducer],
            "parts": [self.part(equation, target, term) for term in equation.terms],
        }

    def part(self, equation: Equation, target: Tensor, term: Term) -> str:
        """The loops of one term: those of the axes around those of the bound indices."""
        given = axis_ranges(target)
        kind = equation.reducer
        bound = term.bound if kind.startswith("arg") else determined_last(term)
        before, outer, inner = steps(term, equation.axes, bound, target)
        spell = Spelling({**self.spell.names, **{s: s.name for s in (*equation.axes, *bound)}}, self.extents)
        values = {
            "target": f"{target.name}[{spell.place(target.name, equation.axes)}]",
            "value": spell(term.body),
            "sign": "<" if kind in ("min", "argmin") else ">",
            "start": START[kind],
            "store": "=" if len(equation.terms) == 1 else "+=",
            "place": spell(position(term, given)) if kind.startswith("arg") else "",
        }
        template = TEMPLATES[kind]
        text = _render(template, part="each" if bound else "only", loops="", **values)
        for step in reversed(inner):
            text = _around(spell, step, text)
        if bound:
            text = _render(template, part="all", loops=text, **values)
        for step in reversed(outer):
            text = _around(spell, step, text)
        text = _guarded([spell.constraint(c) for c in before], text)
        return text if outer and outer[0].value is None else _render("block", body=text)


def _around(spell: Spelling, step: Step, body: str) -> str:
    """The loop or the one value of an index, and what must hold of it, around a body."""
    inside = [spell.constraint(c) for c in step.conditions]
    if step.value is not None:
        return _render("value", index=step.index.name, value=spell(step.value), body=_guarded(inside, body))
    return _render(
        "loop",
        index=step.index.name,
        lower=_extreme("Math.max", [spell(e) for e in step.lower]),
        stop=_extreme("Math.min", [spell(e, ADD) for e in step.stop]),
        body=_guarded(inside, body),
    )


def _guarded(conditions: Sequence[str], body: str) -> str:
    return _render("if", condition=" && ".join(conditions), body=body) if conditions else body


def _render(template: str, **values: object) -> str:
    return render(f"javascript/{template}.js.j2", **values).rstrip("\n")


def _extreme(name: str, texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{name}({', '.join(texts)})"


def determined_last(term: Term) -> tuple[sp.Symbol, ...]:
    """The bound indices; those that an equality gives in terms of the others and of axes come last."""
    given: list[sp.Symbol] = []
    for constraint in term.domain:
        if constraint.equality and not constraint.is_data:
            fits = (b for b in reversed(term.bound) if b not in given and _solved(constraint, b) is not None)
            given += [b for b in [next(fits, None)] if b is not None]
    return (*(b for b in term.bound if b not in given), *reversed(given))


def steps(
    term: Term, axes: Sequence[sp.Symbol], bound: Sequence[sp.Symbol], target: Tensor
) -> tuple[list[Constraint], list[Step], list[Step]]:
    """A term's domain as (what must hold of sizes alone, steps over axes, steps over bound indices).

    Each constraint is taken up at the innermost of its indices: as an end or as the value of it, else as a condition.
    """
    given = axis_ranges(target)
    order = (*axes, *bound)
    extents = dict(zip(axes, target.shape, strict=True))
    before = [c for c in term.domain if not _indices(c)]
    found: list[Step] = []
    for k, index in enumerate(order):
        outer = order[:k]
        own = [c for c in term.domain if index in _indices(c) and _indices(c) <= {*outer, index}]
        # What reads data is asked last: it may be read only where the others hold.
        own.sort(key=lambda c: c.is_data)
        lower, stop, conditions = [], [], []
        value: sp.Expr | None = None
        for constraint in own:
            solved = _solved(constraint, index)
            if solved is None or (constraint.equality and value is not None):
                conditions.append(constraint)
            elif constraint.equality:
                value = solved
            elif constraint.expr.coeff(index) == 1:
                lower.append(solved)
            else:
                stop.append(expand(solved + 1))
        if index in extents:
            lower, stop = [sp.S.Zero, *lower], [extents[index], *stop]
        if value is not None:
            ends = [*(at_least(index, e) for e in lower), *(at_least(e - 1, index) for e in stop)]
            known = [c for c in given if _indices(c) <= set(outer)]
            kept = [c for c in dict.fromkeys(ends) if not proves(known, c.over({index: value}), depth=3)]
            found.append(Step(index, (), (), value, (*kept, *conditions)))
            continue
        if not lower or not stop:
            low, high = hull(term, index, given)
            lower, stop = lower or [low], stop or [expand(high + 1)]
        found.append(Step(index, _tightest(lower, 1), _tightest(stop, -1), None, tuple(conditions)))
    return before, found[: len(axes)], found[len(axes) :]


def _tightest(ends: Sequence[sp.Expr], sign: int) -> tuple[sp.Expr, ...]:
    """Lower ends (sign 1) or stops (-1) without those that another one always exceeds."""
    kept: list[sp.Expr] = []
    for end in ends:
        if not any(expand(sign * (other - end)).is_nonnegative for other in kept):
            kept = [e for e in kept if not expand(sign * (end - e)).is_nonnegative] + [end]
    return tuple(kept)


def _solved(constraint: Constraint, index: sp.Symbol) -> sp.Expr | None:
    """What a constraint of unit coefficient compares the index with, or None."""
    slope = coefficient(constraint.expr, index)
    if slope not in (1, -1):
        return None
    rest = expand(constraint.expr - slope * index)
    return None if index in rest.free_symbols else expand(-slope * rest)


def _indices(constraint: Constraint) -> frozenset[sp.Symbol]:
    return frozenset(s for s in constraint.expr.free_symbols if is_index(s))

"""Programs, equations as written and formulas as LaTeX, for math mode, with amsmath and amssymb alone.

    mean[n] = Σ_k x[n,k] / D   ->   \\mathrm{mean}_{n} = \\frac{\\sum_{k=0}^{D-1} x_{n,k}}{D}

The order of factors, the brackets and the conditions are those of the text (`printing`); a sum shows its range, a
quotient is a fraction, a case a brace. Names go through `latex_name`, so that nothing a user names can be a command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from jaccomp.calculus import functions as own
from jaccomp.domains import digits
from jaccomp.grammar import Limit, limits
from jaccomp.latex_names import latex_access, latex_name, latex_text
from jaccomp.notation import Access, Index, Pad, Reduction, Tensor
from jaccomp.printing import (
    ADD,
    ATOM,
    ENTRYWISE,
    MUL,
    POW,
    UNARY,
    axis_letters,
    decimal,
    is_plain_range,
    quotient,
    reading_order,
    term_names,
)
from jaccomp.program import Constraint, Equation, Labels, Program, Term, hoisted

RELATIONS = {sp.Gt: ">", sp.Ge: r"\ge", sp.Lt: "<", sp.Le: r"\le", sp.Eq: "=", sp.Ne: r"\ne"}
SIGNS = {
    "sum": r"\sum", "prod": r"\prod", "max": r"\max", "min": r"\min", "argmax": r"\operatorname*{arg\,max}",
    "argmin": r"\operatorname*{arg\,min}",
}  # fmt: skip
FUNCTIONS: dict[type, str] = {
    sp.log: r"\log", sp.sin: r"\sin", sp.cos: r"\cos", sp.tan: r"\tan", sp.sinh: r"\sinh", sp.cosh: r"\cosh",
    sp.tanh: r"\tanh", sp.coth: r"\coth", sp.sec: r"\sec", sp.csc: r"\csc", sp.cot: r"\cot", sp.asin: r"\arcsin",
    sp.acos: r"\arccos", sp.atan: r"\arctan", sp.asinh: r"\operatorname{arsinh}", sp.acosh: r"\operatorname{arcosh}",
    sp.atanh: r"\operatorname{artanh}", sp.sign: r"\operatorname{sgn}", sp.Max: r"\max", sp.Min: r"\min",
    own.Sigmoid: r"\sigma", own.HalfStep: r"\theta", sp.Heaviside: r"\theta",
}  # fmt: skip
NEXT_LINE = r" \\ "
BY_DEFINITION = (own.Log1p, own.Expm1, own.InverseRoot)
"""Atoms of computation that a reader knows as what they are defined to be."""


def equation_latex(program: Program, equation: Equation) -> str:
    """One equation of a program: `target = right side`."""
    target = program.tensor(equation.target)
    head = latex_access(
        program.labels.name(target.name), [latex_name(one) for one in axis_letters(program.labels, target)]
    )
    return f"{head} = {_joined(_term(program, equation, term) for term in equation.terms)}"


def program_latex(program: Program) -> str:
    """All equations, aligned at their signs."""
    lines = (equation_latex(program, e).replace(" = ", " &= ", 1) for e in program.equations)
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def written_latex(left: sp.Expr, right: sp.Expr) -> str:
    """An equation in the words of a user: `spec.equations` as they are written."""
    writer = Writer()
    return f"{writer.spelled(left)} = {writer.spelled(right)}"


def formula_latex(expr: sp.Expr, rows: Iterable[str] = ()) -> str:
    """An expression in the words of a user, such as that of a Jacobian; of a delta the side of `rows` stands first."""
    return Writer(rows=frozenset(rows)).spelled(expr)


def expression_latex(labels: Labels, expr: sp.Expr, names: Mapping[sp.Symbol, str], level: int = ADD) -> str:
    """A scalar expression of a program, in brackets where it binds less than `level`."""
    return Writer(labels, names).spelled(expr, level)


# --------------------------------------------------------------------------------------------------------------- terms


def _joined(parts: Iterable[str]) -> str:
    text = ""
    for part in parts:
        text += part if not text else f" - {part[1:]}" if part.startswith("-") else f" + {part}"
    return text or "0"


def _term(program: Program, equation: Equation, term: Term) -> str:
    """The term with a sum sign for each bound index; conditions below the last of them, or as a bracket of Iverson."""
    names = term_names(program, equation, term)
    writer = Writer(program.labels, names)
    if equation.reducer == "sum" and term.body.could_extract_minus_sign():
        return "-" + _term(program, equation, Term(-term.body, term.bound, term.domain))
    signs, conditions = _signs(writer, equation.reducer, term)
    if not term.bound:
        deltas = [_indicator(writer, c) for c in conditions]
        level = MUL if deltas or equation.reducer != "sum" else ADD
        return r" \, ".join([*deltas, writer.spelled(term.body, level)])
    outside, inside = hoisted(term) if equation.reducer == "sum" else (sp.S.One, term.body)
    factor = "" if outside == 1 else writer.spelled(outside, MUL) + r" \, "
    return f"{factor}{signs} {writer.spelled(inside, UNARY if inside.is_Add else MUL)}"


def _indicator(writer: Writer, condition: str | Constraint) -> str:
    """A delta for an equality, a bracket for what else must hold."""
    if isinstance(condition, Constraint) and condition.equality:
        left, right = _sides(condition)
        return rf"\delta_{{{writer.spelled(left)},{writer.spelled(right)}}}"
    return rf"\left[{_condition(writer, condition)}\right]"


def _condition(writer: Writer, condition: str | Constraint) -> str:
    if isinstance(condition, str):
        return condition
    left, right = map(writer.spelled, _sides(condition))
    return f"{left} = {right}" if condition.equality else rf"{right} \le {left}"


def _sides(constraint: Constraint) -> tuple[sp.Expr, sp.Expr]:
    """The positive and the negated negative part."""
    addends = sp.Add.make_args(constraint.expr)
    negative = [a for a in addends if a.could_extract_minus_sign()]
    return sp.Add(*(a for a in addends if a not in negative)), -sp.Add(*negative)


def _signs(writer: Writer, reducer: str, term: Term) -> tuple[str, list[str | Constraint]]:
    """The signs of the reduction with the range of each index, and the conditions if there is no sign to bear them."""
    said: set[Constraint] = set()
    ranges: list[tuple[str, str, str]] = []
    found: list[str | Constraint] = []
    for digit in digits(term, list(dict.fromkeys((*term.bound, *writer.names)))):
        if digit.constraints[0] not in {c for b in term.bound for c in term.domain if is_plain_range(c, b)}:
            said.update(digit.constraints)
            found.append(f"{writer.spelled(digit.index)} = {writer.spelled(digit.floor)}")
    for place, index in enumerate(term.bound):
        later = set(term.bound[place + 1 :])
        low, high = (_end(term, index, slope, later, said) for slope in (1, -1))
        said.update(c for c in (low, high) if c is not None)
        ends = ("" if c is None else writer.spelled(index - c.expr.coeff(index) * c.expr) for c in (low, high))
        ranges.append((writer.spelled(index), next(ends), next(ends)))
    found += [c for c in term.domain if c not in said]
    if not term.bound:
        return "", found
    under = [_condition(writer, c) for c in found]
    if reducer in ("sum", "prod"):
        closed = [bool(low and high) for _, low, high in ranges]
        lower = [f"{one[0]}={one[1]}" if whole else _span(*one) for one, whole in zip(ranges, closed, strict=True)]
        stacked = [_stacked([one]) for one in lower[:-1]] + [_stacked([lower[-1], *under])]
        uppers = [f"^{{{one[2]}}}" if whole else "" for one, whole in zip(ranges, closed, strict=True)]
        return " ".join(f"{SIGNS[reducer]}_{below}{up}" for below, up in zip(stacked, uppers, strict=True)), []
    return SIGNS[reducer] + "_" + _stacked([*(_span(*one) for one in ranges), *under]), []


def _span(index: str, low: str, high: str) -> str:
    """A range that is no pair of limits: `0 \\le k \\le n`."""
    return (rf"{low} \le " if low else "") + index + (rf" \le {high}" if high else "")


def _stacked(lines: Sequence[str]) -> str:
    return f"{{{lines[0]}}}" if len(lines) == 1 else rf"{{\substack{{{NEXT_LINE.join(lines)}}}}}"


def _end(term: Term, index: sp.Symbol, slope: int, later: set[sp.Symbol], said: set[Constraint]) -> Constraint | None:
    """The first constraint that bounds the index from below (slope 1) or above (-1), free of the indices after it."""
    for constraint in term.domain:
        if constraint.equality or constraint in said or constraint.expr.coeff(index) != slope:
            continue
        if not constraint.expr.free_symbols & later:
            return constraint
    return None


# --------------------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Writer:
    """Spells expressions of programs, by labels and names of symbols, and of users, which bear their own names."""

    labels: Labels = field(default_factory=Labels)
    names: Mapping[sp.Symbol, str] = field(default_factory=dict)
    rows: frozenset[str] = frozenset()
    arrays: Mapping[sp.Expr, str] = field(default_factory=dict)
    """What stands for a symbol or a read, as LaTeX already."""

    def spelled(self, expr: Any, level: int = ADD) -> str:
        """The expression, in brackets where it binds less than `level`."""
        text, own_level = self._spell(expr)
        return rf"\left({text}\right)" if own_level < level else text

    def _spell(self, expr: Any) -> tuple[str, int]:
        if expr in self.arrays:
            return self.arrays[expr], ATOM
        if isinstance(expr, Access):
            return latex_access(self.labels.name(expr.name), [self.spelled(i) for i in expr.indices]), ATOM
        if isinstance(expr, Index | Tensor):
            return latex_name(expr.args[0].name), ATOM
        if isinstance(expr, sp.Symbol):
            return latex_name(self.names.get(expr, self.labels.name(expr.name))), ATOM
        if isinstance(expr, sp.Rational):
            return _number(expr)
        if expr in (sp.pi, sp.E, sp.oo, -sp.oo):
            return {sp.pi: r"\pi", sp.E: r"\mathrm{e}", sp.oo: r"\infty", -sp.oo: r"-\infty"}[expr], ATOM
        if isinstance(expr, sp.Add):
            ordered = sorted(expr.args, key=lambda a: bool(a.could_extract_minus_sign()))
            signed = (
                "-" + self.spelled(-a, MUL) if a.could_extract_minus_sign() else self.spelled(a, MUL) for a in ordered
            )
            return _joined(signed), ADD
        if isinstance(expr, sp.Mul):
            return self._product(expr)
        if isinstance(expr, sp.Pow):
            return self._power(expr)
        if isinstance(expr, sp.Sum | sp.Product | Reduction):
            return self._reduction(expr), MUL
        if isinstance(expr, sp.Piecewise):
            return self._cases(expr), ATOM
        if isinstance(expr, sp.core.relational.Relational | sp.logic.boolalg.Boolean):
            return self._relation(expr), ADD
        return self._function(expr)

    def _product(self, expr: sp.Mul) -> tuple[str, int]:
        if expr.could_extract_minus_sign():
            return f"-{self.spelled(-expr, MUL)}", MUL
        above, below = fraction(expr)
        tall = [f for f in sp.Mul.make_args(above) if isinstance(f, sp.Sum | sp.Product | Reduction | sp.Piecewise)]
        if below != 1:
            short = sp.Mul(*(f for f in sp.Mul.make_args(above) if f not in tall), evaluate=False)
            ratio = rf"\frac{{{self.spelled(short)}}}{{{self.spelled(below)}}}"
            return (r" \, ".join([ratio, *(self.spelled(f, MUL) for f in tall)]), MUL if tall else UNARY)
        factors = reading_order(above)
        if len(factors) == 1:
            return self._spell(factors[0])
        spelled = [self.spelled(f, UNARY) for f in factors[:-1]] + [self.spelled(factors[-1], MUL)]
        text = spelled[0]
        for left, factor, right in zip(factors, spelled, spelled[1:], strict=False):
            gap = r" \cdot " if right[:1].isdigit() else " " if left.is_Number and factor else r" \, "
            text += gap + right
        return text, MUL

    def _power(self, expr: sp.Pow) -> tuple[str, int]:
        base, exponent = expr.args
        if base == sp.E:
            return self._exponential(exponent)
        if exponent == sp.S.Half:
            return rf"\sqrt{{{self.spelled(base)}}}", ATOM
        if exponent.is_Rational and exponent < 0:
            return rf"\frac{{1}}{{{self.spelled(base**-exponent)}}}", UNARY
        if type(base) in FUNCTIONS and exponent.is_Integer and base.args:
            return f"{FUNCTIONS[type(base)]}^{{{exponent}}}{self._arguments(base.args)}", POW
        return f"{self.spelled(base, ATOM)}^{{{self.spelled(exponent)}}}", POW

    def _exponential(self, exponent: sp.Expr) -> tuple[str, int]:
        """`e` to what is short; `exp` of what would be small print."""
        inner = self.spelled(exponent)
        if any(one in inner for one in (r"\frac", r"\sum", r"\left", r"\begin")):
            return rf"\exp\left({inner}\right)", ATOM
        return rf"\mathrm{{e}}^{{{inner}}}", POW

    def _reduction(self, expr: Any) -> str:
        """`\\sum_{k=0}^{D-1} body`, the outermost first."""
        signs = []
        kind = "sum" if isinstance(expr, sp.Sum) else "prod" if isinstance(expr, sp.Product) else expr.reducer
        for index, start, stop in _as_listed(expr):
            name, low, high = (self.spelled(one) for one in (index, start, stop - 1))
            signs.append(
                rf"{SIGNS[kind]}_{{{name}={low}}}^{{{high}}}"
                if kind in ("sum", "prod")
                else f"{SIGNS[kind]}_{{{_span(name, low, high)}}}"
            )
        body = expr.args[0]
        return f"{' '.join(signs)} {self.spelled(body, UNARY if body.is_Add else MUL)}"

    def _cases(self, expr: sp.Piecewise) -> str:
        rows = []
        for value, condition in expr.args:
            when = r"\text{otherwise}" if condition == sp.true else rf"\text{{if }} {self._relation(condition)}"
            rows.append(f"{self.spelled(value)} & {when}")
        return rf"\begin{{cases}} {NEXT_LINE.join(rows)} \end{{cases}}"

    def _relation(self, condition: Any) -> str:
        if isinstance(condition, sp.And | sp.Or):
            word = r" \text{ and } " if isinstance(condition, sp.And) else r" \text{ or } "
            ordered = sorted(condition.args, key=sp.default_sort_key)
            return word.join(self._relation(one) for one in ordered)
        if isinstance(condition, sp.Not):
            return rf"\text{{not }} \left({self._relation(condition.args[0])}\right)"
        if condition in (sp.true, sp.false):
            return rf"\text{{{str(condition).lower()}}}"
        return f" {RELATIONS[type(condition)]} ".join(self.spelled(one) for one in condition.args)

    def _function(self, expr: Any) -> tuple[str, int]:
        if isinstance(expr, sp.exp):
            return self._exponential(expr.args[0])
        if isinstance(expr, BY_DEFINITION):
            return self._spell(expr.definition())
        kind = type(expr).__name__
        if kind in ENTRYWISE:
            sign = r" \odot " if kind == "⊙" else r" \oslash "
            first = self.spelled(expr.args[0], MUL if kind == "⊙" else UNARY)
            return sign.join((first, *(self.spelled(one, UNARY) for one in expr.args[1:]))), MUL
        if kind == "outer":
            left, right = (self.spelled(one, level) for one, level in zip(expr.args, (UNARY, ATOM), strict=True))
            return rf"{left} \, {right}^{{\top}}", MUL
        if isinstance(expr, sp.Abs):
            return rf"\left|{self.spelled(expr.args[0])}\right|", ATOM
        if isinstance(expr, sp.floor | sp.ceiling):
            side = "floor" if isinstance(expr, sp.floor) else "ceil"
            above, below = sp.fraction(sp.together(expr.args[0]))
            argument = self.spelled(sp.expand(above))
            if below != 1:
                argument = rf"\frac{{{argument}}}{{{self.spelled(below)}}}"
            return rf"\left\l{side} {argument} \right\r{side}", ATOM
        if isinstance(expr, sp.Mod):
            left, right = (self.spelled(one, POW) for one in expr.args)
            return rf"{left} \bmod {right}", MUL
        if isinstance(expr, own.Step):
            return rf"\left[{self.spelled(expr.args[0])} > 0\right]", ATOM
        if isinstance(expr, sp.KroneckerDelta):
            sides = sorted(expr.args[:2], key=lambda side: not any(str(i) in self.rows for i in side.atoms(Index)))
            return rf"\delta_{{{','.join(self.spelled(side) for side in sides)}}}", ATOM
        if isinstance(expr, Pad):
            return rf"\operatorname{{pad}}_{{{self.spelled(expr.args[1])}}}{self._arguments(expr.args[:1])}", ATOM
        name = FUNCTIONS.get(type(expr)) or r"\operatorname" + latex_text(type(expr).__name__.lower())[7:]
        return f"{name}{self._arguments(expr.args)}", ATOM

    def _arguments(self, arguments: Sequence[Any]) -> str:
        return rf"\left({', '.join(self.spelled(one) for one in arguments)}\right)"


def _as_listed(expr: Any) -> tuple[Limit, ...]:
    """The ranges of a reduction as its author listed them, but each after those that it depends on."""
    inside_out = limits(expr)
    listed = tuple(reversed(inside_out)) if isinstance(expr, sp.Sum | sp.Product) else inside_out
    indices = {one[0] for one in listed}
    dependent = any(end.atoms(Index) & indices for _, start, stop in listed for end in (start, stop))
    return inside_out if dependent else listed


def fraction(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Numerator and denominator, roots in the denominator too."""
    above, below = quotient(expr)
    roots = [f for f in sp.Mul.make_args(above) if isinstance(f, sp.Pow) and f.exp.is_Rational and f.exp < 0]
    if not roots:
        return above, below
    rest = (f for f in sp.Mul.make_args(above) if f not in roots)
    divisors = [f for f in (*sp.Mul.make_args(below), *(f.base**-f.exp for f in roots)) if f != 1]
    return sp.Mul(*rest, evaluate=False), sp.Mul(*divisors, evaluate=False)


def _number(number: sp.Rational) -> tuple[str, int]:
    if isinstance(number, sp.Integer):
        return str(number), ATOM if number >= 0 else MUL
    text = decimal(number)
    if text is not None:
        return text, ATOM if number > 0 else MUL
    sign = "-" if number < 0 else ""
    return rf"{sign}\frac{{{abs(number.p)}}}{{{number.q}}}", MUL if number < 0 else UNARY

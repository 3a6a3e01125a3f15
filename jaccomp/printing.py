"""Programs as text that a person reads: `y[n,i] = g[i] xhat[n,i] + bias[i]`, sums with their indices and conditions.

Products are juxtaposed, quotients written with `/`, squares and cubes with superscripts. The text is for docstrings,
comments and `show`; it holds only names, digits and mathematical signs, never a quote, a backslash or a line break.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import sympy as sp

from jaccomp.domains import digits, is_index
from jaccomp.notation import Access, Index
from jaccomp.program import Constraint, Equation, Labels, Program, Tensor, Term, hoisted

SUPERSCRIPTS = {2: "²", 3: "³", 4: "⁴"}
SIGNS = {"sum": "Σ", "prod": "Π", "max": "max", "min": "min", "argmax": "argmax", "argmin": "argmin"}
LETTERS = ("k", "j", "l", "m", "p", "q", "r", "s", "u", "v", "w", "a", "b", "c", "d", "e", "f", "g", "h")
AXIS_LETTERS = ("i", "j", "k", "l", "m", "n", "p", "q", "r", "s", "u", "v", "w")
RELATIONS = {sp.Gt: ">", sp.Ge: "≥", sp.Lt: "<", sp.Le: "≤", sp.Eq: "=", sp.Ne: "≠"}
ENTRYWISE = ("⊙", "⊘")
"""Undefined functions of arrays, written between their arguments: products and quotients entry by entry."""
ADD, MUL, UNARY, POW, ATOM = range(5)

Names = Mapping[sp.Symbol, str]


def axis_letters(labels: Labels, tensor: Tensor, taken: Iterable[str] = ()) -> tuple[str, ...]:
    """Letters for the axes of a tensor: the user's where there are any, else those seen over the same extent."""
    given = labels.axis_names(tensor.name)
    if given is not None and len(given) == tensor.rank and not set(given) & set(taken):
        return given
    used = list(taken)
    for extent in tensor.shape:
        used.append(_letter(labels, extent, used, AXIS_LETTERS))
    return tuple(used[len(used) - tensor.rank :])


def _letter(labels: Labels, extent: sp.Expr, used: list[str], fallback: tuple[str, ...]) -> str:
    for known, letters in labels.ranges:
        if known == extent:
            for letter in letters:
                if letter not in used:
                    return letter
    names = set(used) | set(labels.names.values())
    for letter in fallback:
        if letter not in names:
            return letter
    return next(f"k{k}" for k in range(1, len(names) + 2) if f"k{k}" not in names)


def term_names(program: Program, equation: Equation, term: Term) -> dict[sp.Symbol, str]:
    """What to print for each symbol of a term: labels of names, letters for axes and bound indices."""
    names: dict[sp.Symbol, str] = dict(
        zip(equation.axes, axis_letters(program.labels, program.tensor(equation.target)), strict=True)
    )
    for index in term.bound:
        stops = term.upper_bounds(index)
        extent = next((s for s in stops if not any(is_index(x) for x in s.free_symbols)), sp.nan)
        names[index] = _letter(program.labels, extent, list(names.values()), LETTERS)
    return names


def equation_text(program: Program, equation: Equation) -> str:
    """One line: `target[axes] = right side`."""
    target = program.tensor(equation.target)
    letters = axis_letters(program.labels, target)
    head = program.labels.name(target.name) + (f"[{','.join(letters)}]" if letters else "")
    parts = [term_text(program, equation, term) for term in equation.terms]
    right = parts[0] if parts else "0"
    for part in parts[1:]:
        right += f" - {part[1:]}" if part.startswith("-") else f" + {part}"
    return f"{head} = {right}"


def term_text(program: Program, equation: Equation, term: Term) -> str:
    """The term with its sum sign, if it has bound indices or a condition."""
    labels = program.labels
    names = term_names(program, equation, term)
    conditions = _conditions(labels, term, names)
    if not term.bound and not conditions:
        return expression_text(labels, term.body, names, ADD)
    if equation.reducer == "sum" and term.body.could_extract_minus_sign():
        return "-" + term_text(program, equation, replace(term, body=-term.body))
    if not term.bound and equation.reducer == "sum":
        return f"[{', '.join(conditions)}] " + expression_text(labels, term.body, names, MUL)
    under = ",".join(names[b] for b in term.bound)
    if conditions:
        under = "{" + under + (" : " if under else "") + ", ".join(conditions) + "}"
    outside, inside = hoisted(term) if equation.reducer == "sum" else (sp.S.One, term.body)
    sign = SIGNS[equation.reducer]
    text = f"{sign}_{under} " + expression_text(labels, inside, names, UNARY if inside.is_Add else MUL)
    numerator, denominator = quotient(outside)
    if numerator != 1:
        text = expression_text(labels, numerator, names, MUL) + " " + text
    if denominator != 1:
        text += " / " + expression_text(labels, denominator, names, POW)
    return text


def _conditions(labels: Labels, term: Term, names: Names) -> list[str]:
    """The constraints that the letters of bound indices do not say; a pair that makes a digit as `a = ⌊c / K⌋`."""
    said = {c for b in term.bound for c in term.domain if is_plain_range(c, b)}
    found: list[str] = []
    for digit in digits(term, [*term.bound, *names]):
        if digit.constraints[0] not in said:
            said.update(digit.constraints)
            value = expression_text(labels, digit.value, names, MUL)
            found.append(f"{names[digit.index]} = ⌊{value}/{expression_text(labels, digit.radix, names, POW)}⌋")
    return found + [constraint_text(labels, c, names) for c in term.domain if c not in said]


def is_plain_range(constraint: Constraint, index: sp.Symbol) -> bool:
    """`0 <= index` or `index < extent in sizes`: said by the letter alone."""
    if constraint.equality:
        return False
    others = constraint.expr.free_symbols - {index}
    return constraint.expr.coeff(index) in (1, -1) and not any(is_index(s) for s in others) and not constraint.is_data


def constraint_text(labels: Labels, constraint: Constraint, names: Names) -> str:
    """`left = right` or `left ≤ right` with positive parts on both sides."""
    positive: list[sp.Expr] = []
    negative: list[sp.Expr] = []
    for addend in sp.Add.make_args(constraint.expr):
        (negative if addend.could_extract_minus_sign() else positive).append(addend)
    left = expression_text(labels, sp.Add(*positive), names, ADD)
    right = expression_text(labels, -sp.Add(*negative), names, ADD)
    return f"{left} = {right}" if constraint.equality else f"{right} ≤ {left}"


def access_text(labels: Labels, access: Access, names: Names) -> str:
    spelled = (expression_text(labels, i, names, ADD) for i in access.indices)
    inside = ",".join(s.replace(" + ", "+").replace(" - ", "-").replace(" ", "·") for s in spelled)
    return labels.name(access.name) + (f"[{inside}]" if inside else "")


def expression_text(labels: Labels, expr: sp.Expr, names: Names, level: int = ADD) -> str:
    """A scalar expression, in brackets where it binds less than `level`."""
    text, own = _spell(labels, expr, names)
    return f"({text})" if own < level else text


def _spell(labels: Labels, expr: sp.Expr, names: Names) -> tuple[str, int]:
    def inner(one: sp.Expr, level: int = ADD) -> str:
        return expression_text(labels, one, names, level)

    if isinstance(expr, Access):
        return access_text(labels, expr, names), ATOM
    if isinstance(expr, sp.Symbol):
        return names.get(expr, labels.name(expr.name)), ATOM
    if isinstance(expr, sp.Integer):
        return str(expr), ATOM if expr >= 0 else MUL
    if isinstance(expr, sp.Rational):
        spelled_out = decimal(expr)
        return (spelled_out, ATOM if expr > 0 else MUL) if spelled_out else (f"{expr.p}/{expr.q}", MUL)
    if expr in (sp.pi, sp.E, sp.oo, -sp.oo):
        return {sp.pi: "π", sp.E: "e", sp.oo: "∞", -sp.oo: "-∞"}[expr], ATOM
    if isinstance(expr, sp.Add):
        ordered = sorted(expr.args, key=lambda a: bool(a.could_extract_minus_sign()))
        text = inner(ordered[0], ADD)
        for one in ordered[1:]:
            text += f" - {inner(-one, MUL)}" if one.could_extract_minus_sign() else f" + {inner(one, MUL)}"
        return text, ADD
    if isinstance(expr, sp.Mul):
        return _product(labels, expr, names)
    if isinstance(expr, sp.Pow):
        return _power(labels, expr, names)
    if isinstance(expr, sp.floor) and sp.fraction(sp.together(expr.args[0]))[1] != 1:
        numerator, denominator = sp.fraction(sp.together(expr.args[0]))
        return f"⌊{inner(sp.expand(numerator), MUL)}/{inner(denominator, POW)}⌋", ATOM
    if isinstance(expr, sp.Abs):
        return f"|{inner(expr.args[0])}|", ATOM
    if isinstance(expr, sp.Piecewise):
        cases = "; ".join(f"{inner(v)} if {_condition(labels, c, names)}" for v, c in expr.args)
        return f"cases({cases})", ATOM
    if isinstance(expr, sp.KroneckerDelta):
        return f"δ({inner(expr.args[0])},{inner(expr.args[1])})", ATOM
    name = type(expr).__name__
    if name in ENTRYWISE:
        first = MUL if name == "⊙" else UNARY
        return f" {name} ".join((inner(expr.args[0], first), *(inner(one, UNARY) for one in expr.args[1:]))), MUL
    if name == "outer":
        return f"{inner(expr.args[0], UNARY)} {inner(expr.args[1], ATOM)}ᵀ", MUL
    if _is_written_sum(expr):
        return f"{name} {inner(expr.args[0], MUL)}", MUL
    if name == "δ":
        return f"δ({','.join(inner(one) for one in expr.args)})", ATOM
    arguments = ", ".join(inner(one) for one in expr.args)
    spelled = {"Step": "step", "HalfStep": "step½", "InverseRoot": "rsqrt", "Log1p": "log1p", "Expm1": "expm1"}
    return f"{spelled.get(name, name.lower())}({arguments})", ATOM


def _condition(labels: Labels, condition: sp.Basic, names: Names) -> str:
    if condition == sp.true:
        return "otherwise"
    if isinstance(condition, sp.And | sp.Or):
        word = " and " if isinstance(condition, sp.And) else " or "
        return word.join(_condition(labels, one, names) for one in condition.args)
    if isinstance(condition, sp.Not):
        return f"not {_condition(labels, condition.args[0], names)}"
    left, right = (expression_text(labels, one, names) for one in condition.args)
    return f"{left} {RELATIONS[type(condition)]} {right}"


def decimal(number: sp.Rational) -> str | None:
    """A constant such as 1.702 as it was written; None for what is better read as a quotient."""
    twos, fives = (sp.multiplicity(prime, number.q) for prime in (2, 5))
    if fives == 0 or number.q < 100 or number.q != 2**twos * 5**fives:
        return None
    places = max(twos, fives)
    digits = str(abs(int(number * 10**places))).rjust(places + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def quotient(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Numerator and denominator: factors with a negative whole exponent, and the rational's own."""
    above, below = [], []
    for factor in sp.Mul.make_args(expr):
        if isinstance(factor, sp.Rational) and not isinstance(factor, sp.Integer):
            if decimal(factor) is not None:
                above.append(factor)
                continue
            above += [sp.Integer(factor.p)] if factor.p != 1 else []
            below.append(sp.Integer(factor.q))
        elif isinstance(factor, sp.Pow) and factor.exp.is_Integer and factor.exp < 0:
            below.append(factor.base ** (-factor.exp))
        else:
            above.append(factor)
    return sp.Mul(*above, evaluate=False), sp.Mul(*below, evaluate=False)


def _product(labels: Labels, expr: sp.Mul, names: Names) -> tuple[str, int]:
    if expr.could_extract_minus_sign():
        text, _ = _spell(labels, -expr, names)
        positive = -expr
        return f"-{text}" if not positive.is_Add else f"-({text})", MUL
    above, below = quotient(expr)
    *first, last = reading_order(above)
    is_open = _is_written_sum(last) and below == 1
    factors = [expression_text(labels, f, names, UNARY) for f in first]
    text = " ".join([*factors, expression_text(labels, last, names, MUL if is_open else UNARY)])
    if below != 1:
        level = ATOM if isinstance(below, sp.Mul) else POW
        text += f"/{expression_text(labels, below, names, level)}"
    return text, MUL


def _is_written_sum(expr: sp.Expr) -> bool:
    return type(expr).__name__.startswith("Σ_")


def reading_order(product: sp.Expr) -> list[sp.Expr]:
    """Numbers, then constants, then reads, then functions, then sums: as products are written by hand."""

    def rank(factor: sp.Expr) -> int:
        base = factor.base if isinstance(factor, sp.Pow) else factor
        if base.is_Number or isinstance(base, sp.NumberSymbol):
            return 0
        if isinstance(base, sp.Symbol | Index):
            return 1
        if isinstance(base, Access):
            return 2
        return 5 if _is_written_sum(base) or isinstance(base, sp.Sum) else 4 if base.is_Add else 3

    return sorted(sp.Mul.make_args(product), key=rank)


def _power(labels: Labels, expr: sp.Pow, names: Names) -> tuple[str, int]:
    base, exponent = expr.args
    if base == sp.E:
        return f"exp({expression_text(labels, exponent, names)})", ATOM
    if exponent == sp.S.Half:
        return f"√({expression_text(labels, base, names)})", ATOM
    if exponent.is_Integer and exponent < 0:
        return f"1/{expression_text(labels, base ** (-exponent), names, POW)}", MUL
    spelled = expression_text(labels, base, names, ATOM)
    if exponent.is_Integer and int(exponent) in SUPERSCRIPTS:
        return f"{spelled}{SUPERSCRIPTS[int(exponent)]}", POW
    return f"{spelled}^{expression_text(labels, exponent, names, ATOM)}", POW


def program_text(program: Program) -> str:
    """The whole program: a line for its signature, one for each equation."""
    label = program.labels.name
    lines = [
        f"{program.name}({', '.join(label(i) for i in program.inputs)}) -> {', '.join(map(label, program.outputs))}"
    ]
    lines += [f"    {equation_text(program, e)}" for e in program.equations]
    return "\n".join(lines)

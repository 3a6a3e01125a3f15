"""SymPy scalars to JavaScript expressions: one kind of number, exact for whole ones below 2⁵³.

A division inside a floor is that of integers; a read whose place the data give is checked by `at`. Names are canonical
and come from the caller; nothing that a user wrote stands in what this module spells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy as sp
from sympy.functions.elementary.piecewise import ExprCondPair

from jaccomp.calculus.functions import Expm1, Finite, HalfStep, InverseRoot, Log1p, Sigmoid, Softplus, Step
from jaccomp.errors import StageError
from jaccomp.notation import Access
from jaccomp.program import Constraint

CALLS: dict[type, str] = {
    sp.exp: "Math.exp", sp.log: "Math.log", sp.sin: "Math.sin", sp.cos: "Math.cos", sp.tan: "Math.tan",
    sp.asin: "Math.asin", sp.acos: "Math.acos", sp.atan: "Math.atan", sp.atan2: "Math.atan2", sp.sinh: "Math.sinh",
    sp.cosh: "Math.cosh", sp.tanh: "Math.tanh", sp.asinh: "Math.asinh", sp.acosh: "Math.acosh", sp.atanh: "Math.atanh",
    sp.Abs: "Math.abs", sp.sign: "Math.sign", sp.floor: "Math.floor", sp.ceiling: "Math.ceil", sp.erf: "erf",
    sp.erfc: "erfc", Sigmoid: "sigmoid", Softplus: "softplus", Log1p: "Math.log1p", Expm1: "Math.expm1", Step: "step",
    HalfStep: "halfStep", InverseRoot: "inverseRoot", Finite: "finite", sp.Mod: "modulo",
}  # fmt: skip
RELATIONS = {sp.Gt: ">", sp.Ge: ">=", sp.Lt: "<", sp.Le: "<=", sp.Eq: "===", sp.Ne: "!=="}
CHOICE, COMPARE, ADD, MUL, UNARY, ATOM = range(6)
LARGEST_PRODUCT = 8
"""The greatest whole power that is written as products."""

Text = tuple[str, int]


class Spelling:
    """What symbols are called, and the extents of the tensors, by name, that reads are placed in."""

    def __init__(self, names: Mapping[sp.Basic, str], extents: Callable[[str], tuple[str, ...]]) -> None:
        self.names = names
        self.extents = extents

    def __call__(self, expr: sp.Expr, level: int = CHOICE) -> str:
        """The expression, in brackets where it binds less than `level`."""
        return _wrapped(self._text(expr), level)

    def _text(self, expr: sp.Expr) -> Text:
        if expr in self.names:
            return self.names[expr], ATOM
        if isinstance(expr, Access):
            return self.read(expr), ATOM
        if expr in (sp.S.Infinity, sp.S.NegativeInfinity):
            return ("Infinity", ATOM) if expr is sp.S.Infinity else ("-Infinity", UNARY)
        if isinstance(expr, sp.Integer) and abs(expr) < 2**53:
            return str(int(expr)), ATOM if expr >= 0 else UNARY
        if expr.is_number and not expr.has(sp.Piecewise):
            return _literal(expr)
        if isinstance(expr, sp.Add):
            return self._sum(expr)
        if isinstance(expr, sp.Mul):
            return self._product(expr)
        if isinstance(expr, sp.Pow):
            return self._power(expr)
        if isinstance(expr, sp.Max | sp.Min):
            name = "Math.max" if isinstance(expr, sp.Max) else "Math.min"
            return f"{name}({', '.join(self(a) for a in sorted(expr.args, key=sp.default_sort_key))})", ATOM
        if isinstance(expr, sp.Piecewise):
            return self._piecewise(expr)
        if isinstance(expr, sp.KroneckerDelta):
            return f"({self(expr.args[0], ADD)} === {self(expr.args[1], ADD)} ? 1 : 0)", ATOM
        if isinstance(expr, sp.floor | sp.ceiling):
            over, under = sp.fraction(sp.together(expr.args[0]))
            if under != 1 and over.is_integer and under.is_integer:
                name = "floorDivide" if isinstance(expr, sp.floor) else "ceilDivide"
                return f"{name}({self(over)}, {self(under)})", ATOM
        call = CALLS.get(type(expr))
        if call is None:
            raise StageError("emission", f"JavaScript has no spelling for the function {type(expr).__name__}.")
        return f"{call}({', '.join(self(a) for a in expr.args)})", ATOM

    # Reads

    def read(self, access: Access) -> str:
        return f"{access.name}[{self.place(access.name, access.indices)}]"

    def place(self, name: str, indices: tuple[sp.Expr, ...]) -> str:
        """Where the element at `indices` lies: row-major, `(i * J + j) * K + k`."""
        text, level = "0", ATOM
        for k, (index, extent) in enumerate(zip(indices, self.extents(name), strict=True)):
            own = f"at({self(index)}, {extent})" if index.has(Access) else self(index, ADD)
            text, level = (f"{_wrapped((text, level), MUL)} * {extent} + {own}", ADD) if k else (own, ADD)
            level = ATOM if not k and _is_atom(own) else level
        return text

    # Arithmetic

    def _sum(self, expr: sp.Add) -> Text:
        ordered = sorted(expr.args, key=lambda a: bool(a.could_extract_minus_sign()))
        text = self(ordered[0], ADD)
        for addend in ordered[1:]:
            minus = addend.could_extract_minus_sign()
            text += f" - {self(-addend, MUL)}" if minus else f" + {self(addend, ADD)}"
        return text, ADD

    def _product(self, expr: sp.Mul) -> Text:
        numbers = [f for f in expr.args if f.is_number]
        factors = [f for f in expr.args if not f.is_number]
        constant = sp.Mul(*numbers)
        negative = bool(constant.is_negative)
        over = [f for f in factors if not _is_reciprocal(f)]
        under = [f.base ** (-f.exp) for f in factors if _is_reciprocal(f)]
        # x / 3 is rounded once; 2 x / 3 could overflow, where 0.666... x does not.
        unit = isinstance(constant, sp.Rational) and abs(constant.p) == 1
        top, bottom = (sp.S.One, sp.Integer(constant.q)) if unit else (abs(constant), sp.S.One)
        above = [self(f, UNARY) for f in ([top] if top != 1 else []) + over] or ["1"]
        below = [self(f, UNARY) for f in ([bottom] if bottom != 1 else []) + under]
        text = " / ".join([" * ".join(above), *below])
        return (f"-{text}" if negative else text), MUL

    def _power(self, expr: sp.Pow) -> Text:
        base, exponent = expr.base, expr.exp
        if exponent.is_Rational and exponent < 0:
            return f"1 / {self(base ** (-exponent), UNARY)}", MUL
        if exponent.is_Rational and exponent.q == 2 and exponent.p <= LARGEST_PRODUCT:
            return self._repeated(f"Math.sqrt({self(base)})", int(exponent.p))
        if exponent.is_Integer and exponent <= LARGEST_PRODUCT:
            inside = self(base, ATOM)
            if isinstance(base, sp.Symbol | Access):
                return self._repeated(inside, int(exponent))
            return f"power({self(base)}, {int(exponent)})", ATOM
        return f"power({self(base)}, {self(exponent)})", ATOM

    @staticmethod
    def _repeated(base: str, count: int) -> Text:
        return (base, ATOM) if count == 1 else (" * ".join([base] * count), MUL)

    # Choices

    def _piecewise(self, expr: sp.Piecewise) -> Text:
        text = "NaN"
        for pair in reversed(expr.args):
            assert isinstance(pair, ExprCondPair)
            value, condition = pair.args
            spelled = self(value, COMPARE)
            text = spelled if condition == sp.true else f"{self.condition(condition, COMPARE + 1)} ? {spelled} : {text}"
        return text, CHOICE

    def condition(self, condition: sp.Basic, level: int = CHOICE) -> str:
        if condition in (sp.true, sp.false):
            return "true" if condition == sp.true else "false"
        if isinstance(condition, sp.And | sp.Or):
            sign = " && " if isinstance(condition, sp.And) else " || "
            parts = sorted(condition.args, key=sp.default_sort_key)
            return _wrapped((sign.join(self.condition(c, ATOM) for c in parts), CHOICE), level)
        if isinstance(condition, sp.Not):
            return f"!{self.condition(condition.args[0], ATOM)}"
        left, right = condition.args
        text = f"{self(left, ADD)} {RELATIONS[type(condition)]} {self(right, ADD)}"
        return _wrapped((text, COMPARE), level)

    def constraint(self, constraint: Constraint) -> str:
        """`left >= right` or `left === right`, with positive parts on both sides."""
        sides: tuple[list[sp.Expr], list[sp.Expr]] = ([], [])
        for addend in sp.Add.make_args(constraint.expr):
            minus = bool(addend.could_extract_minus_sign())
            sides[minus].append(-addend if minus else addend)
        left, right = (self(sp.Add(*one), ADD) for one in sides)
        return f"{left} {'===' if constraint.equality else '>='} {right}"


def _literal(value: sp.Expr) -> Text:
    """A constant in enough digits to round to it exactly."""
    if value in (sp.S.NaN, sp.S.ComplexInfinity):
        return "NaN", ATOM
    text = repr(float(sp.N(value, 30)))
    return text, UNARY if text.startswith("-") else ATOM


def _is_reciprocal(factor: sp.Expr) -> bool:
    return isinstance(factor, sp.Pow) and isinstance(factor.exp, sp.Rational) and bool(factor.exp < 0)


def _is_atom(text: str) -> bool:
    return text.isidentifier() or text.isdigit()


def _wrapped(text: Text, level: int) -> str:
    return text[0] if text[1] >= level else f"({text[0]})"

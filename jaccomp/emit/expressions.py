"""SymPy scalars to Cython expressions: C arithmetic in one dtype, calls of the vector-math header.

Integers stay `Py_ssize_t` in index expressions; in a real expression they are cast. Literals carry the dtype, so that
float32 arithmetic never widens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import sympy as sp
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import BooleanFalse, BooleanTrue

from jaccomp.calculus.functions import Expm1, Finite, HalfStep, InverseRoot, Log1p, Sigmoid, Softplus, Step
from jaccomp.errors import StageError
from jaccomp.lowering.ir import CeilDiv, FloorDiv, Greatest, LowerBound, UpperBound
from jaccomp.notation import Access

DType = Literal["f32", "f64"]
REAL = {"f32": "float", "f64": "double"}
CALLS: dict[type, str] = {
    sp.exp: "exp", sp.log: "log", sp.sin: "sin", sp.cos: "cos", sp.tan: "tan", sp.asin: "asin", sp.acos: "acos",
    sp.atan: "atan", sp.atan2: "atan2", sp.sinh: "sinh", sp.cosh: "cosh", sp.tanh: "tanh", sp.asinh: "asinh",
    sp.acosh: "acosh", sp.atanh: "atanh", sp.erf: "erf", sp.erfc: "erfc", sp.Abs: "abs", sp.sign: "sign",
    sp.floor: "floor", sp.ceiling: "ceil", Sigmoid: "sigmoid", Softplus: "softplus", Log1p: "log1p", Expm1: "expm1",
    Step: "step", HalfStep: "half_step", InverseRoot: "rsqrt0",
}  # fmt: skip
RELATIONS = {sp.Gt: ">", sp.Ge: ">=", sp.Lt: "<", sp.Le: "<=", sp.Eq: "==", sp.Ne: "!="}
COMPARE, ADD, MUL, UNARY, ATOM = range(5)
LARGEST_PRODUCT = 8
"""The greatest whole power that is written as products."""

Text = tuple[str, int]
AccessText = Callable[[Access], str]


class Spelling:
    """Names and accesses of one function, the dtype of its reals, and which of them are vectors of it."""

    def __init__(
        self,
        dtype: DType,
        names: Mapping[sp.Basic, str],
        access: AccessText,
        is_vector: Callable[[sp.Expr], bool] = lambda expr: False,
    ) -> None:
        self.dtype = dtype
        self.names = names
        self.access = access
        self.is_vector = is_vector

    # ---- integers

    def integer(self, expr: sp.Expr, level: int = COMPARE) -> str:
        return _wrapped(self._integer(expr), level)

    def _integer(self, expr: sp.Expr) -> Text:
        if expr in self.names:
            return self.names[expr], ATOM
        if isinstance(expr, Access):
            return self.access(expr), ATOM
        if isinstance(expr, sp.Integer):
            return str(int(expr)), ATOM if expr >= 0 else UNARY
        if isinstance(expr, sp.Add):
            return self._sum(expr, self.integer)
        if isinstance(expr, sp.Mul) and all(_is_whole_factor(f) for f in expr.args):
            coefficient, rest = expr.as_coeff_Mul()
            if coefficient == -1:
                return "-" + self.integer(rest, UNARY), UNARY
            return " * ".join(self.integer(f, UNARY) for f in expr.args), MUL
        if isinstance(expr, sp.Pow) and expr.exp.is_Integer and 0 < expr.exp <= LARGEST_PRODUCT:
            return " * ".join([self.integer(expr.base, ATOM)] * int(expr.exp)), MUL
        if isinstance(expr, FloorDiv | CeilDiv | LowerBound | UpperBound):
            name = {FloorDiv: "jc_floordiv", CeilDiv: "jc_ceildiv", LowerBound: "jc_lower", UpperBound: "jc_upper"}
            inside = ", ".join(self.integer(a) for a in expr.args)
            return f"{name[type(expr)]}({inside})", ATOM
        if isinstance(expr, sp.floor | sp.ceiling):
            over, under = sp.fraction(sp.together(expr.args[0]))
            name_ = "jc_floordiv" if isinstance(expr, sp.floor) else "jc_ceildiv"
            return f"{name_}({self.integer(over)}, {self.integer(under)})", ATOM
        if isinstance(expr, Greatest):
            return self._folded("jc_max", [self.integer(a) for a in expr.args]), ATOM
        if isinstance(expr, sp.Max | sp.Min):
            name_ = "jc_max" if isinstance(expr, sp.Max) else "jc_min"
            return self._folded(name_, [self.integer(a) for a in sorted(expr.args, key=sp.default_sort_key)]), ATOM
        if isinstance(expr, sp.Mod):
            return f"jc_mod({self.integer(expr.args[0])}, {self.integer(expr.args[1])})", ATOM
        if isinstance(expr, sp.Piecewise):
            return self._piecewise(expr, self.integer)
        if isinstance(expr, sp.KroneckerDelta):
            return f"{self.integer(expr.args[0], ADD)} == {self.integer(expr.args[1], ADD)}", COMPARE
        raise StageError("emission", f"no integer spelling for {type(expr).__name__} in {expr}.")

    def bound(self, exprs: tuple[sp.Expr, ...], largest: bool) -> str:
        """The greatest (or least) of several integer expressions, those left out that another one always exceeds.

        What divides is asked last, and only what the others leave.
        """
        sign = 1 if largest else -1
        kept: list[sp.Expr] = []
        for expr in exprs:
            if not any(sp.expand(sign * (other - expr)).is_nonnegative for other in kept):
                kept = [e for e in kept if not sp.expand(sign * (expr - e)).is_nonnegative] + [expr]
        asked = [e for e in kept if isinstance(e, LowerBound | UpperBound)]
        plain = [e for e in kept if e not in asked]
        if not plain:
            return self._folded("jc_max" if largest else "jc_min", [self.integer(e) for e in kept])
        text = self._folded("jc_max" if largest else "jc_min", [self.integer(e) for e in plain])
        for one in asked:
            inside = ", ".join(self.integer(a) for a in one.args)
            text = f"{'jc_from' if largest else 'jc_until'}({text}, {inside})"
        return text

    @staticmethod
    def _folded(name: str, parts: list[str]) -> str:
        text = parts[-1]
        for part in reversed(parts[:-1]):
            text = f"{name}({part}, {text})"
        return text

    # ---- reals

    def literal(self, value: sp.Expr) -> str:
        """A constant in the dtype, in enough digits to round to it exactly."""
        digits = repr(float(sp.N(value, 30)))
        return digits if self.dtype == "f64" else f"<float>{digits}"

    def real(self, expr: sp.Expr, level: int = COMPARE) -> str:
        """The expression as an operand of operators of a level, or whole.

        A whole constant is an operand of the dtype too: in C, Cython writes a bare `1` as a double, which widens all
        of a float32 expression.
        """
        if level > COMPARE and self.dtype == "f32" and isinstance(expr, sp.Integer):
            return _wrapped((self.literal(expr), UNARY), level)
        return _wrapped(self._real(expr), level)

    def _real(self, expr: sp.Expr) -> Text:
        if expr in self.names and not expr.is_integer:
            return self.names[expr], ATOM
        if isinstance(expr, Access) and not expr.is_integer:
            return self.access(expr), ATOM
        if expr is sp.S.Infinity:
            return "JC_INF", ATOM
        if expr is sp.S.NegativeInfinity:
            return "-JC_INF", UNARY
        if isinstance(expr, sp.Integer):
            return (str(int(expr)), ATOM if expr >= 0 else UNARY) if abs(expr) < 2**24 else (self.literal(expr), UNARY)
        if (expr.is_number and not expr.has(sp.Function)) or isinstance(expr, sp.Rational | sp.Float | sp.NumberSymbol):
            return self.literal(expr), UNARY
        if expr.is_integer and not isinstance(expr, sp.floor | sp.ceiling | sp.sign) and self._is_whole(expr):
            return f"<{REAL[self.dtype]}>{self.integer(expr, ATOM)}", UNARY
        if isinstance(expr, sp.Add):
            return self._sum(expr, self.real)
        if isinstance(expr, sp.Mul):
            return self._product(expr)
        if isinstance(expr, sp.Pow):
            return self._power(expr)
        if isinstance(expr, sp.Max | sp.Min):
            name = "max" if isinstance(expr, sp.Max) else "min"
            parts = [self.real(a) for a in sorted(expr.args, key=sp.default_sort_key)]
            return self._folded(f"jc_{name}_{self.dtype}", parts), ATOM
        if isinstance(expr, sp.Piecewise):
            return self._piecewise(expr, self.real)
        if isinstance(expr, Finite):
            return f"jc_finite_{self.dtype}({self.real(expr.args[0])})", ATOM
        if isinstance(expr, sp.Mod):
            return f"<{REAL[self.dtype]}>{self.integer(expr, ATOM)}", UNARY
        name = CALLS.get(type(expr), "")
        if name:
            name = f"each_{name}" if self.is_vector(expr) else name
            return f"jc_{name}_{self.dtype}({', '.join(self.real(a) for a in expr.args)})", ATOM
        raise StageError("emission", f"no spelling for the function {type(expr).__name__} in {expr}.")

    def _is_whole(self, expr: sp.Expr) -> bool:
        """Can the expression be computed in integers, exactly?"""
        if isinstance(expr, sp.Symbol | Access | sp.Integer):
            return True
        if isinstance(expr, sp.Pow):
            return bool(expr.exp.is_Integer and expr.exp > 0) and self._is_whole(expr.base)
        if isinstance(expr, sp.Add | sp.Mul | sp.Max | sp.Min | sp.Mod | sp.KroneckerDelta):
            return all(self._is_whole(a) for a in expr.args)
        return False

    def _sum(self, expr: sp.Expr, spell: Callable[[sp.Expr, int], str]) -> Text:
        positive = [a for a in expr.args if not a.could_extract_minus_sign()]
        negative = [a for a in expr.args if a.could_extract_minus_sign()]
        parts = [spell(a, ADD) for a in positive]
        text = " + ".join(parts)
        for addend in negative:
            text = f"{text} - {spell(-addend, MUL)}" if text else f"-{spell(-addend, UNARY)}"
        return text, ADD

    def _product(self, expr: sp.Mul) -> Text:
        coefficient, factors = _one_constant(expr)
        over = [f for f in factors if not _is_reciprocal(f)]
        under = [
            sp.Pow(f.base, -f.exp, evaluate=False) if f.exp != -1 else f.base for f in factors if _is_reciprocal(f)
        ]
        negative = coefficient < 0
        coefficient = abs(coefficient)
        top = [self.real(f, UNARY) for f in over]
        if coefficient != 1:
            top.insert(0, self.real(coefficient, UNARY))
        if not top:
            top = [self.literal(sp.S.One)]
        text = " * ".join(top)
        if under:
            bottom = " * ".join(self._denominator(f) for f in under)
            text += f" / ({bottom})" if len(under) > 1 else f" / {bottom}"
        return ("-" + text, MUL) if negative else (text, MUL)

    def _denominator(self, factor: sp.Expr) -> str:
        """A size divides as a real; the dtype's quotient is meant even where both sides are whole."""
        return self.real(factor, ATOM) if not factor.is_Integer else self.literal(factor)

    def _power(self, expr: sp.Pow) -> Text:
        base, exponent = expr.base, expr.exp
        if base is sp.E:
            return f"jc_exp_{self.dtype}({self.real(exponent)})", ATOM
        if exponent.is_Integer and 1 < exponent <= LARGEST_PRODUCT:
            return " * ".join([self.real(base, ATOM)] * int(exponent)), MUL
        if exponent.is_Integer and -LARGEST_PRODUCT <= exponent < 0:
            inside = " * ".join([self.real(base, ATOM)] * int(-exponent))
            return f"{self.literal(sp.S.One)} / {inside if exponent == -1 else f'({inside})'}", MUL
        if exponent == sp.S.Half:
            return f"jc_sqrt_{self.dtype}({self.real(base)})", ATOM
        if isinstance(exponent, sp.Rational) and exponent.q == 2 and 1 < exponent < LARGEST_PRODUCT:
            whole = [self.real(base, ATOM)] * int(exponent - sp.S.Half)
            return " * ".join([*whole, f"jc_sqrt_{self.dtype}({self.real(base)})"]), MUL
        if isinstance(exponent, sp.Rational) and exponent.q == 2 and -LARGEST_PRODUCT < exponent < 0:
            root = f"jc_rsqrt_{self.dtype}({self.real(base)})"
            if exponent == -sp.S.Half:
                return root, ATOM
            whole = [self.real(base, ATOM)] * int(-exponent - sp.S.Half)
            inside = " * ".join(whole)
            return f"{root} / {inside if len(whole) == 1 else f'({inside})'}", MUL
        return f"jc_pow_{self.dtype}({self.real(base)}, {self.real(exponent)})", ATOM

    # ---- choices

    def _piecewise(self, expr: sp.Piecewise, spell: Callable[[sp.Expr, int], str]) -> Text:
        text = spell(sp.S.Zero, ADD)
        for pair in reversed(expr.args):
            assert isinstance(pair, ExprCondPair)
            value, condition = pair.args
            spelled = spell(value, ADD)
            text = spelled if condition == sp.true else f"({spelled} if {self.condition(condition)} else {text})"
        return text, ATOM

    def condition(self, condition: sp.Basic) -> str:
        if isinstance(condition, BooleanTrue | BooleanFalse):
            return str(bool(condition))
        if isinstance(condition, sp.And | sp.Or):
            word = " and " if isinstance(condition, sp.And) else " or "
            parts = sorted(condition.args, key=sp.default_sort_key)
            return word.join(f"({self.condition(c)})" for c in parts)
        if isinstance(condition, sp.Not):
            return f"not ({self.condition(condition.args[0])})"
        left, right = condition.args
        assert isinstance(left, sp.Expr) and isinstance(right, sp.Expr)
        whole = self._is_whole(left) and self._is_whole(right) and bool(left.is_integer and right.is_integer)
        spell = self.integer if whole else self._compared
        return f"{spell(left, ADD)} {RELATIONS[type(condition)]} {spell(right, ADD)}"

    def _compared(self, expr: sp.Expr, level: int) -> str:
        """A side of a comparison, which a bare constant does not widen."""
        return self._real(expr)[0] if isinstance(expr, sp.Integer) else self.real(expr, level)


def _one_constant(expr: sp.Mul) -> tuple[sp.Expr, list[sp.Expr]]:
    """The numbers of a product as one number, rounded once where it is spelled, and the other factors.

    2 √2 π^(-1/2) x   ->   (2 √(2/π), [x])
    """
    numbers = [f for f in expr.args if f.is_number and not f.has(sp.Function)]
    return sp.Mul(*numbers), [f for f in expr.args if f not in numbers]


def _is_whole_factor(factor: sp.Expr) -> bool:
    if isinstance(factor, sp.Pow):
        return bool(factor.exp.is_Integer and factor.exp > 0)
    return not isinstance(factor, sp.Rational) or bool(factor.is_Integer)


def _is_reciprocal(factor: sp.Expr) -> bool:
    return isinstance(factor, sp.Pow) and isinstance(factor.exp, sp.Rational) and factor.exp < 0 and factor.exp.q != 2


def _wrapped(text: Text, level: int) -> str:
    return text[0] if text[1] >= level else f"({text[0]})"

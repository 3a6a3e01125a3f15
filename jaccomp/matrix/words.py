"""Entries of arrays as expressions of arrays, for the printers of scalar expressions.

    x[n,i] (1 - y[n,i])  ->  ⊙(x, 1 - y)        exp(x[n,i] - lse[n])  ->  exp(x - lse 1)

Every read becomes a word of its own; a product of arrays gets the entrywise sign, a scalar that is added to an array
is multiplied by ones, and an array over one axis that is added to one over two becomes an outer product with them.
"""

from __future__ import annotations

from typing import Any, Protocol

import sympy as sp

from jaccomp.calculus.functions import InverseRoot
from jaccomp.matrix.nodes import Axis, Node, Product, Transpose, is_turned
from jaccomp.matrix.scene import Leaf, Scene
from jaccomp.notation import Access
from jaccomp.printing import ATOM, quotient


class Spelling(Protocol):
    """What a style says of the words that stand in expressions."""

    scene: Scene
    ones: str

    def norm(self, text: str) -> str: ...
    def transposed(self, text: str) -> str: ...
    def read(self, leaf: Leaf) -> str: ...
    def extremum(self, access: Access) -> str: ...
    def spelled(self, node: Node, level: int = ...) -> str: ...


class Words:
    """An entry's expression with its reads as symbols in writing order, products of arrays by the entrywise sign."""

    ONE = Access(sp.Symbol("zz", real=True))
    """The array of ones: last in a product, as `3 1`."""

    def __init__(self, style: Spelling, rows: Axis, columns: Axis) -> None:
        self.style = style
        self.axes = (rows, columns)
        self.symbols = [{s for s, _ in axis} for axis in self.axes]
        self.texts: dict[sp.Expr, str] = {self.ONE: style.ones}
        self.known: dict[sp.Expr, sp.Expr] = {}
        self.order = {tensor.name: place for place, tensor in enumerate(style.scene.program.tensors)}

    def sides(self, expr: sp.Expr) -> tuple[bool, bool]:
        return bool(expr.free_symbols & self.symbols[0]), bool(expr.free_symbols & self.symbols[1])

    def arrays(self, expr: Any) -> Any:
        if isinstance(expr, Access) or expr in self.style.scene.names:
            return self.read(expr)
        if not expr.args or (not expr.has(Access) and not any(s in self.style.scene.names for s in expr.free_symbols)):
            return expr
        if isinstance(expr, InverseRoot) and self._is_square(expr.args[0]):
            return 1 / sp.sqrt(self.arrays(expr.args[0]))
        if isinstance(expr, sp.Add) and any(self.sides(expr)):
            whole = self.sides(expr)
            addends = [self._spread(one, whole) for one in expr.args]
            return sp.Add(*sorted(addends, key=lambda one: one != self.ONE), evaluate=False)
        if isinstance(expr, sp.Mul):
            return self._product(expr)
        return expr.func(*(self.arrays(one) for one in expr.args))

    def _is_square(self, expr: sp.Expr) -> bool:
        return _root(self.style.scene.names.get(expr)) is not None

    def read(self, expr: sp.Expr) -> sp.Expr:
        """A symbol for a read, or for the node behind a nameless one; a sum of squares is a norm's."""
        if expr in self.known:
            return self.known[expr]
        style, node = self.style, self.style.scene.names.get(expr)
        root = _root(node)
        kind = "a" if not any(self.sides(expr)) else "b"
        order = self.order.get(getattr(expr, "name", ""), len(self.order))
        symbol: sp.Expr = sp.Symbol(f"_{kind}{order:03}_{len(self.known):03}", real=True)
        if root is not None:
            symbol = sp.Symbol(symbol.name, positive=True)
        elif kind == "b":
            symbol = Access(symbol)
        if root is not None:
            text = style.norm(style.spelled(root))
        elif node is not None:
            text = style.spelled(node, ATOM)
        else:
            assert isinstance(expr, Access)
            text = style.extremum(expr) or style.read(style.scene.leaf(expr))
            if is_turned(expr, *self.axes):
                text = style.transposed(text)
        self.texts[symbol] = text
        self.known[expr] = symbol**2 if root is not None else symbol
        return self.known[expr]

    def _spread(self, addend: sp.Expr, whole: tuple[bool, bool]) -> sp.Expr:
        """An addend that sees fewer axes than its sum, times ones along the others."""
        own = self.sides(addend)
        ready = self.arrays(addend)
        if own == whole:
            return ready
        if whole == (True, True):
            sign = -1 if ready.could_extract_minus_sign() else 1
            u, v = (ready * sign if own[0] else self.ONE), (ready * sign if own[1] else self.ONE)
            return sign * (1 if any(own) else ready * sign) * sp.Function("outer")(u, v)
        return ready * self.ONE

    def _product(self, expr: sp.Mul) -> sp.Expr:
        sign = -1 if expr.could_extract_minus_sign() else 1
        scalars: sp.Expr = sp.S.One
        above: list[tuple[tuple[bool, bool], sp.Expr]] = []
        below: list[tuple[tuple[bool, bool], sp.Expr]] = []
        for factor in sp.Mul.make_args(sign * expr):
            own = self.sides(factor)
            if not any(own):
                scalars *= self.arrays(factor)
            elif isinstance(factor, sp.Pow) and factor.exp.is_Integer and factor.exp < 0:
                below.append((own, self.arrays(1 / factor)))
            else:
                above.append((own, self.arrays(factor)))
        whole = self.sides(expr)
        over, under = self._along(above, whole), self._along(below, whole)
        if len(over) < 2 and not under:
            return sign * scalars * sp.Mul(*over)
        numerator, denominator = quotient(scalars)
        first = over[0] if over else self.ONE
        top = [first if numerator == 1 else sp.Mul(*sp.Mul.make_args(numerator), first, evaluate=False), *over[1:]]
        text = _entrywise(top)
        if under:
            text = sp.Function("⊘")(text, _entrywise(under))
        return sign * text / denominator

    def _along(self, factors: list[tuple[tuple[bool, bool], sp.Expr]], whole: tuple[bool, bool]) -> list[sp.Expr]:
        """Factors in writing order, names first; those along one of two axes as an outer product."""
        parts = {
            side: sorted((f for own, f in factors if own == side), key=_writing_order)
            for side in ((True, False), (False, True), (True, True))
        }
        if whole != (True, True):
            return parts.get(whole, [])
        rows, columns, both = parts.values()
        if not rows and not columns:
            return both
        u, v = (_entrywise(one) if one else self.ONE for one in (rows, columns))
        return [*both, sp.Function("outer")(u, v)]


def _entrywise(factors: list[sp.Expr]) -> sp.Expr:
    return factors[0] if len(factors) == 1 else sp.Function("⊙")(*factors)


def _writing_order(factor: sp.Expr) -> tuple[bool, bool, str]:
    """Names in the order of their tensors, then functions, then sums."""
    is_name = isinstance(factor, Access)
    return factor.is_Add, not is_name, factor.name if is_name else ""


def _root(node: Node | None) -> Node | None:
    """The column whose square the node is: `xᵀ x`."""
    if isinstance(node, Product) and len(node.factors) == 2:
        left, right = node.factors
        if left == Transpose(right):
            return right
    return None

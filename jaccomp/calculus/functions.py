"""Scalar functions that SymPy lacks as one atom, each with the expression that defines it.

They are atoms because their definitions overflow or cancel where the function itself does not: `1/(1 + exp(-z))`
differentiates to `inf/inf`, `log(1 + z)` loses a small z.
"""

from __future__ import annotations

from typing import Any

import sympy as sp


class RealFunction(sp.Function):
    """A real function of one real argument that stays as it is written."""

    nargs = 1
    is_commutative = True

    def _eval_is_real(self) -> bool:
        return True


class Sigmoid(RealFunction):
    """`1/(1 + exp(-z))`."""

    def _eval_is_positive(self) -> bool:
        return True

    def definition(self) -> Any:
        return 1 / (1 + sp.exp(-self.args[0]))

    def _sympystr(self, printer: Any) -> str:
        return f"sigmoid({printer.doprint(self.args[0])})"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        power = f"^{{{exp}}}" if exp else ""
        return rf"\sigma{power}\left({printer.doprint(self.args[0])}\right)"


class Softplus(RealFunction):
    """`log(1 + exp(z))`."""

    def definition(self) -> Any:
        return sp.log(1 + sp.exp(self.args[0]))

    def _sympystr(self, printer: Any) -> str:
        return f"softplus({printer.doprint(self.args[0])})"


class Log1p(RealFunction):
    """`log(1 + z)`."""

    def definition(self) -> Any:
        return sp.log(1 + self.args[0])

    def _sympystr(self, printer: Any) -> str:
        return f"log1p({printer.doprint(self.args[0])})"


class Expm1(RealFunction):
    """`exp(z) - 1`."""

    def definition(self) -> Any:
        return sp.exp(self.args[0]) - 1

    def _sympystr(self, printer: Any) -> str:
        return f"expm1({printer.doprint(self.args[0])})"


class Step(RealFunction):
    """1 where z > 0, else 0: the derivative of `Max(z, 0)`, at the kink the constant's."""

    def _sympystr(self, printer: Any) -> str:
        return f"[{printer.doprint(self.args[0])} > 0]"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\left[{printer.doprint(self.args[0])} > 0\right]"


class HalfStep(RealFunction):
    """1 where z > 0, 1/2 at 0, else 0: the derivative of `Max(a, b)` by a, at z = a - b."""

    def _sympystr(self, printer: Any) -> str:
        return f"step({printer.doprint(self.args[0])})"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\theta\left({printer.doprint(self.args[0])}\right)"


class InverseRoot(RealFunction):
    """`z**(-1/2)`, and 0 at z = 0: what makes `x/‖x‖` and the derivative of `‖x‖` zero at the origin."""

    def _eval_is_nonnegative(self) -> bool:
        return True

    def definition(self) -> Any:
        return 1 / sp.sqrt(self.args[0])

    def _sympystr(self, printer: Any) -> str:
        return f"rsqrt({printer.doprint(self.args[0])})"


class Finite(RealFunction):
    """z, but 0 where it is infinite: the shift of a row of exponentials, which a fully masked row must not take."""

    def definition(self) -> Any:
        return self.args[0]

    def _sympystr(self, printer: Any) -> str:
        return f"finite({printer.doprint(self.args[0])})"

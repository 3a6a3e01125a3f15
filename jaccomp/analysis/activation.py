"""An elementwise layer as a function of one number: φ, its derivative φ', and the kinks where either is not smooth.

    relu = activation("relu")                 relu.value(u), relu.slope(u), relu.kinks == (0.0,)
    activation(my_layer)                      any elementwise layer, at the defaults of its scalars

φ and φ' are the layer's own kernels; kinks are read off its equations, where a Max, a Min, an absolute value or the
condition of a Piecewise changes sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from sympy.core.relational import Relational

from jaccomp.compiling import compile
from jaccomp.errors import UsageError
from jaccomp.layer import Layer
from jaccomp.layers import get
from jaccomp.notation import Access, Size

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
INPUT = sp.Symbol("u", real=True)
CHOICES = (sp.Max, sp.Min, sp.Abs, sp.sign, sp.Piecewise)


@dataclass(frozen=True, slots=True)
class Activation:
    """φ and φ' as functions of arrays, and the `kinks` where φ or φ' is not smooth."""

    name: str
    value: Function
    slope: Function
    kinks: tuple[float, ...] = ()


IDENTITY = Activation("linear", lambda u: u, np.ones_like)


def activation(given: str | Layer | Activation) -> Activation:
    """An elementwise layer, or the library's by its name, as φ and φ'; "linear" and "identity" are φ(u) = u.

    Raises `UsageError` for a layer that is not a function of one number at its default scalars.
    """
    if isinstance(given, Activation):
        return given
    if given in {"linear", "identity"}:
        return IDENTITY
    return _of_layer(get(given) if isinstance(given, str) else given)


@cache
def _of_layer(layer: Layer) -> Activation:
    what = f"mean-field theory of layer {layer.name!r}"
    inputs = layer.spec.inputs if layer.is_written else ()
    if len(inputs) != 1 or len(layer.spec.outputs) != 1:
        raise UsageError(
            what,
            f"it reads {', '.join(t.name for t in inputs) or 'what was derived'}, and an activation reads one array.",
            "Bind the others, or pass an Activation with φ and φ'.",
        )
    if not is_elementwise(layer):
        raise UsageError(
            what,
            f"its Jacobian is {layer.jacobian().certificate.words}, and that of an activation is diagonal, with the "
            "same function of one number in each place.",
            "Pass an elementwise layer.",
        )
    missing = [s.name for s in layer.spec.scalars if s.default is None]
    if missing:
        raise UsageError(what, f"its scalar {missing[0]} has no default.", f"Bind it: layer.bind({missing[0]}=...).")
    return of_kernel(layer, compile(layer, backend="numpy"), {})


def of_kernel(layer: Layer, kernel: Any, constants: Mapping[str, Any]) -> Activation:
    """The φ of an elementwise layer by its kernel, with these scalars beside the defaults of others."""
    (tensor,) = layer.spec.inputs
    shape = (-1, *[1] * (len(tensor.shape) - 1))

    def value(u: Array) -> Array:
        return np.asarray(kernel.forward(u.reshape(shape), **constants)).reshape(u.shape)

    def slope(u: Array) -> Array:
        _, pullback = kernel.vjp(u.reshape(shape), **constants)
        return np.asarray(pullback(np.ones_like(u).reshape(shape))[0]).reshape(u.shape)

    scalars = {s.name: constants.get(s.name, s.default) for s in layer.spec.scalars}
    return Activation(layer.name, value, slope, kinks(layer, tuple(scalars.items())))


@cache
def is_elementwise(layer: Layer) -> bool:
    """Does the layer apply one function of one number, and of its scalars, to each entry of one array of any shape?"""
    if not layer.is_written or len(layer.spec.inputs) != 1 or len(layer.spec.outputs) != 1:
        return False
    (tensor,) = layer.spec.inputs
    if not all(isinstance(extent, Size) for extent in tensor.shape) or len({*tensor.shape}) != len(tensor.shape):
        return False
    if tensor.dtype != "real" or layer.jacobian().certificate.words not in ("diagonal", "identity"):
        return False
    found = _formula(layer)
    return found is not None and found.free_symbols <= {INPUT, *layer.spec.scalars}


def _formula(layer: Layer) -> sp.Expr | None:
    """The layer's output in terms of `INPUT`; None where a tensor is written in pieces, by several equations."""
    (tensor,), (output,) = layer.spec.inputs, layer.spec.outputs
    known: dict[str, sp.Expr] = {tensor.name: INPUT}
    for equation in layer.spec.equations:
        if equation.target.name in known:
            return None
        known[equation.target.name] = equation.right.xreplace(
            {access: known[access.name] for access in equation.right.atoms(Access)}
        )
    return known[output.name]


@cache
def kinks(layer: Layer, scalars: tuple[tuple[str, Any], ...]) -> tuple[float, ...]:
    """Where an elementwise layer may not be smooth, in order, at these names and values of its scalars.

    Those are the roots of what its choices compare, as far as that is a polynomial of the input.
    """
    formula = _formula(layer)
    assert formula is not None
    given = dict(scalars)
    fixed = formula.xreplace({s: _number(given[s.name]) for s in layer.spec.scalars})
    compared = [one for node in sp.preorder_traversal(fixed) for one in _compared(node)]
    found = {root for one in compared for branch in _branches(one) for root in _roots(branch)}
    return tuple(sorted(found))


def _number(value: Any) -> sp.Expr:
    return sp.Rational(str(value)) if np.isfinite(value) else sp.Float(value)


def _compared(node: Any) -> Iterator[sp.Expr]:
    """What is 0 where a choice changes sides."""
    if isinstance(node, sp.Max | sp.Min):
        yield from (a - b for a, b in combinations(node.args, 2))
    elif isinstance(node, sp.Abs | sp.sign):
        yield node.args[0]
    elif isinstance(node, Relational):
        yield node.lhs - node.rhs


def _branches(expr: sp.Expr) -> Iterator[sp.Expr]:
    """Every expression that `expr` may be, whichever way its choices go."""
    choice = next((node for node in sp.preorder_traversal(expr) if isinstance(node, CHOICES)), None)
    if choice is None:
        yield expr
        return
    if isinstance(choice, sp.Abs):
        ways = (choice.args[0], -choice.args[0])
    elif isinstance(choice, sp.sign):
        ways = (sp.Integer(-1), sp.Integer(1))
    elif isinstance(choice, sp.Piecewise):
        ways = tuple(value for value, _ in choice.args)
    else:
        ways = choice.args
    for way in ways:
        yield from _branches(expr.xreplace({choice: way}))


def _roots(expr: sp.Expr) -> list[float]:
    """The real roots of a polynomial of the input; none of anything else."""
    if INPUT not in expr.free_symbols or not expr.is_polynomial(INPUT):
        return []
    roots = [complex(root) for root in sp.Poly(expr, INPUT).nroots()]
    return [root.real for root in roots if abs(root.imag) <= 1e-9 * max(1.0, abs(root))]

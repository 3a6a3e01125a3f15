"""A small program for each rule of the table: what the rule makes of it is printed in the table, and tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from jaccomp.program import (
    AXES,
    Equation,
    Labels,
    Program,
    Tensor,
    Term,
    bound_symbol,
    equal,
    in_range,
    scalar_map,
    size_symbol,
    verify,
)

N, D = size_symbol("s0"), size_symbol("s1")
n, i, k = AXES[0], AXES[1], bound_symbol(0)
ALONG = in_range(k, D)
SHAPES: Mapping[str, tuple[sp.Expr, ...]] = {
    **dict.fromkeys(("a", "b", "c", "Z", "mean", "total", "row", "r0"), (N,)),
    **dict.fromkeys(("x", "w", "p", "y", "part"), (N, D)),
}


@dataclass(frozen=True, slots=True)
class Example:
    """A program, which of its equations are given, and how the others read before the rule and after it."""

    program: Callable[[], Program]
    given: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def _at(name: str, *indices: sp.Expr) -> sp.Expr:
    return Tensor(name, SHAPES[name])[indices]


def _written(inputs: str, outputs: str, *equations: Equation) -> Program:
    names = [*inputs.split(), *(e.target for e in equations)]
    labels = Labels({"s0": "N", "s1": "D"}, ranges=((N, ("n", "m")), (D, ("i", "k"))))
    tensors = tuple(Tensor(name, SHAPES[name]) for name in names)
    program = Program("example", (N, D), (), tuple(inputs.split()), tuple(outputs.split()), tensors, equations, labels)
    return verify(program)


def _sum(target: str, body: sp.Expr, domain: Sequence[object] = ALONG) -> Equation:
    return Equation(target, AXES[: len(SHAPES[target])], (Term(body, (k,), tuple(domain)),))  # type: ignore[arg-type]


def _map(target: str, body: sp.Expr) -> Equation:
    return scalar_map(target, len(SHAPES[target]), body)


def _delta() -> Program:
    return _written("x a", "y", _sum("y", _at("x", n, k) * _at("a", n), (*ALONG, equal(k, i))))


def _two_sums() -> Program:
    return _written("x w", "y", _sum("y", _at("x", n, i) * _at("x", n, k) + _at("w", n, k)))


def _map_of_a_map() -> Program:
    part = _map("part", _at("x", n, i) * _at("a", n))
    return _written("x a w", "y", part, _map("y", _at("part", n, i) + _at("w", n, i)))


def _centred() -> Program:
    mean = _sum("mean", _at("x", n, k) / D)
    return _written("x", "total", mean, _sum("total", _at("x", n, k) - _at("mean", n) + 1))


def _softmax() -> Program:
    total = _sum("Z", sp.exp(_at("x", n, k)))
    p = _map("p", sp.exp(_at("x", n, i)) / _at("Z", n))
    return _written("x w", "y", total, p, _map("y", _at("w", n, i) * sp.exp(_at("x", n, i)) / _at("Z", n)))


def _sum_of_products() -> Program:
    c = _at("a", n)
    return _written("x w a", "y", _map("y", c * _at("x", n, i) + c * _at("w", n, i)))


def _row_value() -> Program:
    return _written("x a b", "y", _map("y", _at("x", n, i) - _at("a", n) * sp.exp(_at("b", n))))


def _scaled_sum() -> Program:
    return _written("x a", "row", _sum("r0", _at("x", n, k)), _map("row", _at("a", n) * _at("r0", n) / D))


EXAMPLES: Mapping[str, Example] = {
    "eliminate-delta": Example(_delta, (), ("y[n,i] = a[n] Σ_{k : k = i} x[n,k]",), ("y[n,i] = a[n] x[n,i]",)),
    "split-sum": Example(
        _two_sums,
        (),
        ("y[n,i] = Σ_k (x[n,k] x[n,i] + w[n,k])",),
        ("r0[n] = Σ_i x[n,i]", "r1[n] = Σ_i w[n,i]", "y[n,i] = r0[n] x[n,i] + r1[n]"),
    ),
    "inline-map": Example(
        _map_of_a_map,
        (),
        ("part[n,i] = a[n] x[n,i]", "y[n,i] = part[n,i] + w[n,i]"),
        ("y[n,i] = a[n] x[n,i] + w[n,i]",),
    ),
    "known-sum": Example(_centred, ("mean",), ("total[n] = Σ_i (1 + x[n,i] - mean[n])",), ("total[n] = D",)),
    "named-quantity": Example(_softmax, ("Z", "p"), ("y[n,i] = w[n,i] exp(x[n,i])/Z[n]",), ("y[n,i] = p[n,i] w[n,i]",)),
    "collect": Example(
        _sum_of_products, (), ("y[n,i] = a[n] w[n,i] + a[n] x[n,i]",), ("y[n,i] = a[n] (w[n,i] + x[n,i])",)
    ),
    "name-invariant": Example(
        _row_value, (), ("y[n,i] = x[n,i] - a[n] exp(b[n])",), ("a0[n] = a[n] exp(b[n])", "y[n,i] = x[n,i] - a0[n]")
    ),
    "absorb-scale": Example(
        _scaled_sum, (), ("r0[n] = Σ_i x[n,i]", "row[n] = a[n] r0[n]/D"), ("row[n] = a[n] Σ_i x[n,i] / D",)
    ),
}

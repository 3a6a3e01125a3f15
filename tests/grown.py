"""Small legal layers grown at random from the notation's own features, the same for the same seed everywhere."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import sympy as sp

import jaccomp.notation as jc
from jaccomp.layer import Layer

N, D, K = jc.size("N D K")
n, i = jc.index("n", N), jc.index("i", D)
x, u, g, b = jc.tensor("x", N, D), jc.tensor("u", N, D), jc.tensor("g", D), jc.tensor("b")
ids, table, square = jc.tensor("ids", N, dtype="int64"), jc.tensor("table", K, D), jc.tensor("square", D, D)
w, eps = jc.scalar("w", default=2, dtype="int64"), jc.scalar("eps", default=0.5)
r, h, y, z = jc.tensor("r", N), jc.tensor("h", N, D), jc.tensor("y", N, D), jc.tensor("z", N)

SMOOTH: tuple[Callable[[Any], Any], ...] = (
    sp.sin, sp.tanh, sp.atan, sp.erf, sp.cos,
    lambda e: sp.exp(sp.tanh(e)), lambda e: sp.sqrt(1 + e**2), lambda e: 1 / (1 + e**2), lambda e: sp.log(1 + e**2),
)  # fmt: skip
KINKED: tuple[Callable[[Any], Any], ...] = (lambda e: sp.Max(e, 0), sp.Abs, lambda e: sp.Min(e, eps))


class Grower:
    """Grows expressions over the indices at hand; `row` is over N, `column` over D."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.named: list[Any] = []
        self.fresh = 0

    def bound(self, *ends: Any) -> Any:
        """An index of a name of its own, or now and then of one that shadows the column outside."""
        self.fresh += 1
        plain = all(not isinstance(end, sp.Basic) or not end.has(jc.Index) for end in ends)
        name = "i" if plain and self.rng.random() < 0.3 else f"k{self.fresh}"
        return jc.index(name, *ends)

    def read(self, row: Any, column: Any) -> Any:
        rng = self.rng
        shifted = column + rng.choice((-2, -1, 1, w, -w))
        return rng.choice([
            lambda: x[row, column],
            lambda: x[row, column],
            lambda: u[row, column],
            lambda: x[row, D - 1 - column],
            lambda: jc.pad(x[row, shifted]),
            lambda: jc.pad(x[row, shifted], rng.choice((1, -3, eps))),
            lambda: jc.pad(x[row, 2 * column - 1]),
            lambda: x[row, sp.Mod(column + 1, D)],
            lambda: x[row, column // 2],
            lambda: sp.Piecewise((x[row, column - 1], column > 0), (u[row, column], True)),
            lambda: sp.Piecewise((x[row, column + 1] * x[row, column], column + 1 < D), (1, True)),
            lambda: g[column],
            lambda: square[column, column],
            lambda: square[D - 1 - column, column],
            lambda: table[ids[row], column],
            lambda: b,
            lambda: sp.KroneckerDelta(row, column) * x[row, column],
            lambda: u[row, column] - sp.KroneckerDelta(ids[row], column),
            lambda: x[row, column] * column / D,
            *([lambda: rng.choice(self.named)(row, column)] * 3 if self.named else []),
        ])()  # fmt: skip

    def reduced(self, row: Any, column: Any, depth: int) -> Any:
        """A reduction over an index, or over two, in ranges of every kind."""
        rng = self.rng
        k = self.bound(*rng.choice([(D,), (D,), (column + 1,), (sp.Max(0, column - w), column + 1), (1, D), (D - 3,)]))
        body = self.grow(row, k, depth - 1) * rng.choice((1, g[k], x[row, k]))
        kind = rng.random()
        if kind < 0.55:
            return sp.Sum(body, k) / rng.choice((1, D + 1))
        if kind < 0.7:
            return sp.Product(1 + sp.tanh(body) / 8, k)
        whole = self.bound(D)
        safe = self.grow(row, whole, depth - 1)
        if kind < 0.9:  # bounded, for an empty row has no extremum
            return sp.tanh(jc.MaxOver(safe, whole) if kind < 0.8 else jc.MinOver(safe, whole))
        other = jc.index("j", D)
        return sp.Sum(safe * x[row, other], whole, other)

    def grow(self, row: Any, column: Any, depth: int) -> Any:
        rng = self.rng
        kind = rng.random()
        if depth <= 0 or kind < 0.15:
            return self.read(row, column)
        if kind < 0.4:
            return self.grow(row, column, depth - 1) + rng.choice((1, -1, 2)) * self.grow(row, column, depth - 1)
        if kind < 0.55:
            return self.grow(row, column, depth - 1) * self.grow(row, column, depth - 2)
        if kind < 0.72:
            return rng.choice(SMOOTH)(self.grow(row, column, depth - 1))
        if kind < 0.78:
            return rng.choice(KINKED)(self.grow(row, column, depth - 1))
        return self.reduced(row, column, depth)


def grown(seed: int) -> Layer:
    """A layer with an output [N, D] and, now and then, named steps, an output [N] and outputs that read each other."""
    grower = Grower(seed)
    rng = grower.rng
    equations = []
    if rng.random() < 0.5:
        equations.append(sp.Eq(h[n, i], grower.grow(n, i, 2)))
        grower.named.append(lambda row, column: h[row, column])
    if rng.random() < 0.5:
        equations.append(sp.Eq(r[n], sp.Sum(grower.grow(n, i, 1), i)))
        grower.named.append(lambda row, column: r[row])
    equations.append(sp.Eq(y[n, i], grower.grow(n, i, 3) + x[n, i] / 4))
    outputs = [y]
    defined = [one for one in (h, r) if any(e.lhs.base == one for e in equations)]
    read = {one for e in equations for one in e.rhs.atoms(jc.Tensor)}
    outputs += [one for one in defined if one not in read]
    if rng.random() < 0.3:
        equations.append(sp.Eq(z[n], jc.ArgMinOver(y[n, i], i) * x[n, D - 1] + y[n, 0]))
        outputs.append(z)
    read = {one for e in equations for one in e.rhs.atoms(jc.Tensor)}
    scalars = [s for s in (w, eps) if any(e.has(s) for e in equations)]
    inputs = [one for one in (x, u, g, b, ids, table, square) if one in read]
    return Layer(f"grown{seed}", inputs=inputs, outputs=outputs, equations=equations, scalars=scalars)

"""The Jacobian chain problem: the cheapest order of multiplying the explicit Jacobians of a chain.

    J = J3 J2 J1 of a chain 64 -> 32 -> 32 (elementwise) -> 10

    forward    J3 (J2 J1)     from the input on
    reverse    (J3 J2) J1     from the output back
    cheapest   (J3 J2) J1     by dynamic programming over all bracketings

A bracketing is found as for chains of matrices (Godbole, 1973; Griewank and Naumann, "Accumulating Jacobians as chained
sparse matrix products", 2003), at the cost of blocks rather than of whole matrices: a factor that is block diagonal
keeps its blocks apart, an elementwise layer's is all blocks of 1. Products keep the blocks that both sides share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.result import Result
from jaccomp.composition import Chain, Placed
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation

Array = NDArray[Any]
Tree: TypeAlias = (
    "int | tuple[Tree, Tree]"  # a factor by its place, or (what is nearer the output, what is nearer the input)
)


@dataclass(frozen=True, slots=True)
class Factor:
    """An explicit Jacobian: `blocks` equal blocks along the diagonal of a `rows` by `columns` matrix; 1 is dense."""

    name: str
    rows: int
    columns: int
    blocks: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the array that holds it: (blocks, rows of a block, columns of a block)."""
        return self.blocks, self.rows // self.blocks, self.columns // self.blocks

    def of(self, array: ArrayLike) -> Array:
        """The factor's array from its blocks, from its diagonal where blocks have one row, or from the whole matrix.

        Raises `UsageError` for any other shape.
        """
        given = np.asarray(array)
        count, rows, columns = self.shape
        if given.shape == self.shape:
            return given
        if given.shape == (count,) and (rows, columns) == (1, 1):
            return given.reshape(self.shape)
        if given.shape == (self.rows, self.columns):
            each = np.arange(count)
            return given.reshape(count, rows, count, columns)[each, :, each, :]
        raise UsageError(
            f"factor {self.name}",
            f"an array of shape {given.shape} was given.",
            f"Pass its blocks, {self.shape}, or the matrix, {(self.rows, self.columns)}.",
        )


@dataclass(frozen=True)
class Plan(Result):
    """A bracketing of `factors`, the input's first, and what it costs beside forward and reverse order.

    Costs are multiply-adds.
    """

    factors: tuple[Factor, ...]
    tree: Tree
    cost: int
    forward: int
    reverse: int

    @property
    def bracketing(self) -> str:
        """`((J3 J2) J1)`, the output's factor on the left."""
        return spelled(self.tree, [one.name for one in self.factors])

    @property
    def text(self) -> str:
        return f"{self.bracketing}\n  {self.cost:,} multiply-adds; forward {self.forward:,}, reverse {self.reverse:,}"

    def execute(self, arrays: Sequence[ArrayLike]) -> Array:
        """The product of the factors' arrays (see `Factor.of`), the input's first, by this bracketing: the matrix.

        Raises `UsageError` where arrays and factors do not fit.
        """
        if len(arrays) != len(self.factors):
            raise UsageError(
                f"bracketing {self.bracketing}", f"{len(arrays)} arrays were given.", f"Pass {len(self.factors)}."
            )
        blocks = [factor.of(array) for factor, array in zip(self.factors, arrays, strict=True)]

        def value(tree: Tree) -> Array:
            return blocks[tree] if isinstance(tree, int) else _product(value(tree[0]), value(tree[1]))

        return _whole(value(self.tree))


def plan(factors: Sequence[Factor]) -> Plan:
    """The cheapest bracketing of factors, the input's first. Raises `UsageError` where they do not make a chain."""
    if not factors:
        raise UsageError("bracketing", "there is no factor.", "Pass one at least.")
    for one in factors:
        if one.blocks < 1 or one.rows % one.blocks or one.columns % one.blocks:
            raise UsageError(
                f"factor {one.name}",
                f"{one.rows} by {one.columns} is not {one.blocks} equal blocks.",
                "Blocks must divide rows and columns.",
            )
    for one, after in pairwise(factors):
        if after.columns != one.rows:
            raise UsageError(
                f"bracketing of {after.name} {one.name}",
                f"{after.name} has {after.columns} columns, {one.name} {one.rows} rows.",
                "Pass the factors of a chain, that of the input first.",
            )
    best: dict[tuple[int, int], tuple[int, Tree]] = {(k, k): (0, k) for k in range(len(factors))}
    for length in range(1, len(factors)):
        for first in range(len(factors) - length):
            last = first + length
            best[first, last] = min(
                (
                    (
                        best[first, k][0] + best[k + 1, last][0] + _cost(factors, k + 1, last, first, k),
                        (best[k + 1, last][1], best[first, k][1]),
                    )
                    for k in range(first, last)
                ),
                key=lambda found: found[0],
            )
    cost, tree = best[0, len(factors) - 1]
    return Plan(
        tuple(factors), tree, cost, tree_cost(factors, forward(len(factors))), tree_cost(factors, reverse(len(factors)))
    )


def forward(count: int) -> Tree:
    """J3 (J2 J1)."""
    tree: Tree = 0
    for k in range(1, count):
        tree = (k, tree)
    return tree


def reverse(count: int) -> Tree:
    """(J3 J2) J1."""
    tree: Tree = count - 1
    for k in reversed(range(count - 1)):
        tree = (tree, k)
    return tree


def tree_cost(factors: Sequence[Factor], tree: Tree) -> int:
    """The multiply-adds of any bracketing."""

    def walk(one: Tree) -> tuple[int, int, int]:
        if isinstance(one, int):
            return 0, one, one
        (left, low, last), (right, first, high) = walk(one[0]), walk(one[1])
        return left + right + _cost(factors, low, last, first, high), first, last

    return walk(tree)[0]


def spelled(tree: Tree, names: Sequence[str]) -> str:
    return names[tree] if isinstance(tree, int) else f"({spelled(tree[0], names)} {spelled(tree[1], names)})"


def _cost(factors: Sequence[Factor], low: int, last: int, first: int, high: int) -> int:
    """Multiply-adds of (factors low..last) times (factors first..high): m k n over the blocks of both sides.

    Where neither number of blocks divides the other, the left side is first taken as fewer, larger blocks.
    """
    left = gcd(*(one.blocks for one in factors[low : last + 1]))
    right = gcd(*(one.blocks for one in factors[first : high + 1]))
    if max(left, right) % min(left, right):
        left = gcd(left, right)
    return factors[last].rows * factors[low].columns * factors[first].columns // (left * right)


# Blocks


def _product(left: Array, right: Array) -> Array:
    """The product of two block diagonals, in the blocks that both share."""
    if max(len(left), len(right)) % min(len(left), len(right)):
        left = _merged(left, gcd(len(left), len(right)))
    (a, m, k), (b, _, n) = left.shape, right.shape
    if b % a == 0:
        split = left.reshape(a, m, b // a, -1).transpose(0, 2, 1, 3)
        found = split @ right.reshape(a, b // a, -1, n)
        return found.transpose(0, 2, 1, 3).reshape(a, m, -1)
    split = right.reshape(b, a // b, k, n)
    return np.asarray(left.reshape(b, a // b, m, k) @ split).reshape(b, -1, n)


def _merged(blocks: Array, count: int) -> Array:
    """The same matrix in fewer blocks."""
    inner = len(blocks) // count
    return np.stack([_whole(group) for group in blocks.reshape(count, inner, *blocks.shape[1:])])


def _whole(blocks: Array) -> Array:
    count, rows, columns = blocks.shape
    matrix = np.zeros((count, rows, count, columns), blocks.dtype)
    each = np.arange(count)
    matrix[each, :, each, :] = blocks
    return matrix.reshape(count * rows, count * columns)


# The factors of a model


def explicit(at: Linearisation, of: str | None = None, wrt: str | None = None) -> tuple[Plan, tuple[Array, ...]]:
    """The cheapest bracketing of ∂of/∂wrt at a point, and the blocks of its factors, the input's first.

    Blocks come from certificates: axes that every term of a stage's Jacobian ties are apart. A block's row is one VJP
    for all blocks together. Raises `UsageError` where more than one path leads from `wrt` to `of`, or none.
    """
    model = at.model
    target, source = of or model.outputs[-1], wrt or model.inputs[0]
    paths = model.chain.paths(target, source)
    if len(paths) != 1:
        raise UsageError(
            f"bracketing of ∂{target}/∂{source}",
            f"{len(paths)} paths lead from {source!r} to {target!r}.",
            "A chain of factors needs one: take the tensors at both ends of a branch.",
        )
    found = [_blocks(at, placed, output, own) for placed, output, own in reversed(paths[0])]
    return plan([factor for factor, _ in found]), tuple(array for _, array in found)


def _blocks(at: Linearisation, placed: Placed, output: str, own: str) -> tuple[Factor, Array]:
    y, x = at.values[placed.outputs[output]], at.values[placed.inputs[own]]
    count = _tied(placed, output, own, y.shape, x.shape)
    rows, columns = y.size // count, x.size // count
    jacobian = np.zeros((count, rows, columns), np.result_type(x, y))
    for row in range(rows):
        seed = np.zeros((count, rows), y.dtype)
        seed[:, row] = 1
        (found,) = at.pulled(placed, {output: seed.reshape(y.shape)}, [own])
        jacobian[:, row] = found.reshape(count, columns)
    return Factor(f"J_{placed.name}", y.size, x.size, count), jacobian


def _tied(placed: Placed, output: str, own: str, of: tuple[int, ...], wrt: tuple[int, ...]) -> int:
    """How many blocks the leading axes give that every term ties in order, row axis to column axis."""
    structure = placed.layer.jacobian(output, own).layout
    ties = set(structure.ties)
    axes = list(zip(structure.layout.rows, structure.layout.columns, strict=False))
    tied = 0
    for rows, columns in axes:
        if not all(pair in ties for pair in zip(rows, columns, strict=False)) or len(rows) != len(columns):
            break
        tied += 1
    spread = of[: len(of) - len(structure.layout.rows) + tied], wrt[: len(wrt) - len(structure.layout.columns) + tied]
    return prod(spread[0]) if tied and spread[0] == spread[1] and prod(of) and prod(wrt) else 1


# Print


@dataclass(frozen=True)
class Formula(Result):
    """`J_f = J_L ... J_1` of a chain: the product over each path, and each factor as a formula, as text and LaTeX."""

    product: str
    factors: tuple[tuple[str, str], ...]
    latex: str

    @property
    def text(self) -> str:
        width = max(len(name) for name, _ in self.factors)
        return "\n".join([self.product, *(f"  {name:<{width}} = {body}" for name, body in self.factors)])


def formula(chain: Chain, of: str, wrt: str) -> Formula:
    """∂of/∂wrt factor by factor; a chain with branches is the sum over its paths. Raises `UsageError` for other names.

    >>> print(formula(jc.chain(fc=linear, act=tanh), "y", "x"))              # doctest: +SKIP
    ∂y/∂x = J_act J_fc
      J_act = ∂y[n]/∂x[m] = δ(n,m) (1 - y[n]²)
      J_fc  = ∂y[n,o]/∂x[m,k] = W[o,k] δ(n,m)
    """
    paths = chain.paths(of, wrt)
    if not paths:
        raise UsageError(f"factors of chain {chain.name!r}", f"no path leads from {wrt!r} to {of!r}.", "It is 0.")
    steps = {(placed.name, output, own): placed for path in paths for placed, output, own in path}
    names = _factor_names(list(steps))
    keys = [[(placed.name, output, own) for placed, output, own in path] for path in paths]
    shown = {key: placed.layer.jacobian(key[1], key[2]) for key, placed in steps.items()}
    lines = [rf"J_{{\mathrm{{{_mathrm(names[key])}}}}} &: {sp.latex(block)}" for key, block in shown.items()]
    factors = [" ".join(rf"J_{{\mathrm{{{_mathrm(names[key])}}}}}" for key in path) for path in keys]
    head = rf"\frac{{\partial {sp.latex(sp.Symbol(of))}}}{{\partial {sp.latex(sp.Symbol(wrt))}}} &= " + " + ".join(
        factors
    )
    return Formula(
        f"∂{of}/∂{wrt} = " + " + ".join(" ".join(f"J_{names[key]}" for key in path) for path in keys),
        tuple((f"J_{names[key]}", str(block)) for key, block in shown.items()),
        "\\begin{aligned}\n" + " \\\\\n".join([head, *lines]) + "\n\\end{aligned}",
    )


def _mathrm(name: str) -> str:
    return name.replace("_", r"\_")


def _factor_names(keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """A stage's name; where a stage has several blocks, with the output and the input of each."""
    stages = [stage for stage, _, _ in keys]
    return {key: key[0] if stages.count(key[0]) == 1 else f"{key[0]}.{key[1]}.{key[2]}" for key in keys}

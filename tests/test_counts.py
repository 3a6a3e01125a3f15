"""Operation counts as formulas, against operations that are counted one by one as a program is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
from library_formulas import CASES
from points import Point
from sympy import Eq, Sum

import jaccomp as jc
from jaccomp import pipeline
from jaccomp.algebra.counts import flops
from jaccomp.notation import Access
from jaccomp.program import Constraint, Equation, Program, Term
from jaccomp.reference.indices import integer
from jaccomp.reference.sampling import extents


class Machine:
    """What is done as a program is computed, its points found by trying each constraint at each place of a box."""

    def __init__(self, point: Point, program: Program, arrays: dict[str, Any]) -> None:
        self.program, self.done = program, 0
        self.constants = {**point.sizes, **point.scalars}
        self.values = arrays | point.evaluate(program, arrays)

    def count(self) -> int:
        return sum(self.equation(equation) for equation in self.program.equations)

    def equation(self, equation: Equation) -> int:
        shape = extents(self.program.tensor(equation.target).shape, self.constants)
        elements = math.prod(shape)
        total = elements * max(len(equation.terms) - 1, 0)
        for term in equation.terms:
            inside, outside = term.body, sp.S.One
            if equation.reducer == "sum" and term.bound:
                factors = sp.Mul.make_args(term.body)
                inside = sp.Mul(*(f for f in factors if f.free_symbols & set(term.bound)))
                outside = sp.Mul(*(f for f in factors if not f.free_symbols & set(term.bound)))
            total += self.points(equation, shape, term) * (self.operations(inside) + bool(term.bound))
            if outside not in (1, -1):
                alone = inside in (1, -1)
                total += elements * self.operations(outside if alone else outside * sp.Symbol("total"))
        return total

    def points(self, equation: Equation, shape: tuple[int, ...], term: Term) -> int:
        """The points of axes and bound indices at which all constraints hold."""
        ranges = {axis: np.arange(extent) for axis, extent in zip(equation.axes, shape, strict=True)}
        reach = max([1, *(n for v in self.values.values() for n in v.shape), *map(int, self.constants.values())])
        for index in term.bound:
            ranges[index] = np.arange(reach + 1)
            others = {i for i in (*equation.axes, *term.bound) if i != index}
            for constraint in term.domain:
                if index in constraint.expr.free_symbols and not constraint.expr.free_symbols & others:
                    ranges[index] = ranges[index][self.holds(constraint, ranges)]
        grid = dict(zip(ranges, np.meshgrid(*ranges.values(), indexing="ij", sparse=True), strict=True))
        where = np.ones([len(r) for r in ranges.values()], dtype=bool)
        for constraint in term.domain:
            where = where & self.holds(constraint, grid)
        return int(where.sum())

    def holds(self, constraint: Constraint, at: dict[sp.Symbol, Any]) -> Any:
        value = self.number(constraint.expr, at)
        return value == 0 if constraint.equality else value >= 0

    def number(self, expr: sp.Expr, at: dict[sp.Symbol, Any]) -> Any:
        def leaf(one: sp.Expr) -> Any:
            if isinstance(one, Access):
                return self.values[one.name][tuple(self.number(i, at) for i in one.indices)]
            return at[one] if one in at else self.constants[one.name]

        return integer(expr, leaf)

    def operations(self, expr: sp.Expr) -> int:
        self.done = 0
        self.evaluate(expr)
        return self.done

    def evaluate(self, expr: sp.Expr) -> None:
        """The operations of a body, in the order in which they are done."""
        if isinstance(expr, Access) or not expr.args or not expr.free_symbols:
            return
        if isinstance(expr, sp.Mul):
            above = [f for f in expr.args if not (f.is_Pow and f.exp.is_Integer and f.exp < 0)]
            below = [1 / f for f in expr.args if f not in above]
            for factor in (*above, *below):
                self.evaluate(factor)
            constant = sp.Mul(*(f for f in above if not f.free_symbols))
            varying = [f for f in above if f.free_symbols]
            operands = len(varying) + (constant not in (1, -1))
            self.done += max(operands - 1, 0) + len(below)
            return
        if isinstance(expr, sp.Piecewise):
            for value, condition in expr.args:
                self.evaluate(value)
                for side in condition.args:
                    self.evaluate(side)
            self.done += len(expr.args) - 1
            return
        for one in expr.args:
            self.evaluate(one)
        if isinstance(expr, sp.Add | sp.Max | sp.Min):
            self.done += len(expr.args) - 1
        elif expr.is_Pow and expr.exp.is_Integer:
            self.done += 1 if abs(expr.exp) <= 2 else 2
        else:
            self.done += 1


def programs(layer: jc.Layer) -> dict[str, Program]:
    halves = pipeline.halves(layer.derivation)
    return {"forward": halves.forward, "vjp": halves.bwd, "jvp": pipeline.tangent(layer.prepared)}


def arrays_for(point: Point, program: Program, known: dict[str, Any]) -> dict[str, Any]:
    """The program's inputs: those of the layer, what its forward half gives, ones for cotangents and tangents."""
    return {n: known[n] if n in known else np.ones(point.shape(n, program)) for n in program.inputs}


def value(point: Point, count: sp.Expr, program: Program) -> int:
    constants = {**point.sizes, **point.scalars}
    names = {s.name: s for s in count.free_symbols}
    return int(count.xreplace({names[n]: sp.Integer(v) for n, v in constants.items() if n in names}))


@pytest.mark.parametrize("name", CASES)
def test_a_formula_is_the_number_of_operations_done(name: str) -> None:
    layer = jc.layers.get(name)
    case = CASES[name]
    point = Point(layer, case)
    halves = pipeline.halves(layer.derivation)
    known = point.inputs | point.evaluate(halves.fwd, point.inputs)
    for role, program in programs(layer).items():
        counted = flops(program)
        done = Machine(point, program, arrays_for(point, program, known)).count()
        stated = value(point, counted.value, program)
        assert (done == stated) if counted.exact else (done <= stated), (role, counted)


def test_a_triangle_is_summed_exactly() -> None:
    T = jc.size("T")
    t, s = jc.index("t", T), jc.index("s", jc.index("t", T) + 1)
    x, y = jc.tensor("x", T), jc.tensor("y", T)
    layer = jc.Layer("running", inputs=[x], outputs=[y], equations=[Eq(y[t], Sum(x[s] ** 2, s))])
    counted = flops(layer.program)
    (size,) = layer.program.sizes
    assert counted.exact and sp.expand(counted.value - size * (size + 1)) == 0


def test_what_no_bound_index_changes_is_done_once_an_element() -> None:
    N, D = jc.size("N D")
    n, k = jc.index("n", N), jc.index("k", D)
    x, c, y = jc.tensor("x", N, D), jc.tensor("c", N), jc.tensor("y", N)
    layer = jc.Layer("scaled", inputs=[x, c], outputs=[y], equations=[Eq(y[n], c[n] * Sum(x[n, k], k))])
    counted = flops(layer.program)
    rows, columns = layer.program.sizes
    assert counted.exact and sp.expand(counted.value - rows * columns - rows) == 0


def test_a_window_over_an_edge_is_an_upper_bound() -> None:
    N, K = jc.size("N K")
    n, k = jc.index("n", N), jc.index("k", K)
    x, w, y = jc.tensor("x", N), jc.tensor("w", K), jc.tensor("y", N)
    layer = jc.Layer(
        "window", inputs=[x, w], outputs=[y], equations=[Eq(y[n], Sum(jc.pad(x[n + k - 1], value=0) * w[k], k))]
    )
    counted = flops(layer.program)
    rows, width = layer.program.sizes
    assert not counted.exact and sp.expand(counted.value - 2 * rows * width) == 0

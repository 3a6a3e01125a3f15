"""A layer at a point: its program with numbers for all that it names, against a formula and against complex step."""

from __future__ import annotations

from typing import Any

import numpy as np
from library_formulas import Case

from jaccomp.calculus.vjp import real_inputs, real_outputs, vjp
from jaccomp.layer import Layer
from jaccomp.program import Program, verify
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.sampling import extents

STEP = 1e-30


class Point:
    """A layer's program with sizes, scalars and inputs, by canonical names."""

    def __init__(self, layer: Layer, case: Case, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.program: Program = layer.program
        label = self.program.labels.name
        self.sizes = {s.name: case.sizes[label(s.name)] for s in self.program.sizes}
        by_name = {label(s.name): s.name for s in self.program.scalars}
        self.scalars = {by_name[name]: value for name, value in case.scalars.items()}
        assert sorted(case.scalars) == sorted(by_name), "the case passes every scalar, so that no default hides one"
        self.inputs: dict[str, Any] = {}
        for name in self.program.inputs:
            draw = case.draw.get(label(name), lambda rng, shape: rng.standard_normal(shape))
            self.inputs[name] = draw(rng, self.shape(name))

    def shape(self, name: str, program: Program | None = None) -> tuple[int, ...]:
        return extents((program or self.program).tensor(name).shape, {**self.scalars, **self.sizes})

    def evaluate(self, program: Program, arrays: dict[str, Any], dtype: Any = np.float64) -> dict[str, Any]:
        return evaluate(program, arrays, self.sizes, self.scalars, dtype=dtype)


def check_formula(point: Point, case: Case) -> None:
    """The values of the program are those of the case's formula, of the same shapes."""
    verify(point.program)
    values = point.evaluate(point.program, point.inputs)
    expected = case.formula(*point.inputs.values(), **case.scalars)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(expected) == len(point.program.outputs)
    for output, value in zip(point.program.outputs, expected, strict=True):
        assert values[output].shape == np.shape(value)
        np.testing.assert_allclose(values[output], value, rtol=1e-12, atol=1e-13)


def check_vjp(point: Point) -> None:
    check_transpose(point, point.program, point.inputs, "ct_", seed=1)


def check_vjp_of_vjp(point: Point) -> None:
    rng = np.random.default_rng(2)
    seeds = {f"ct_{y}": rng.standard_normal(point.shape(y)) for y in real_outputs(point.program)}
    check_transpose(point, vjp(point.program), point.inputs | seeds, "ct2_", seed=3)


def check_transpose(point: Point, program: Program, inputs: dict[str, Any], mark: str, seed: int) -> None:
    """`⟨vᵀ J, t⟩ = ⟨v, J t⟩` for each input by itself, in a random direction that no error is orthogonal to."""
    rng = np.random.default_rng(seed)
    outputs = real_outputs(program)
    seeds = {y: rng.standard_normal(point.shape(y, program)) for y in outputs}
    backward = point.evaluate(vjp(program), inputs | {mark + y: v for y, v in seeds.items()})
    for x in real_inputs(program):
        direction = rng.standard_normal(point.shape(x, program))
        moved = inputs | {x: inputs[x] + 1j * STEP * direction}
        values = point.evaluate(program, moved, np.complex128)
        terms = [seeds[y] * values[y].imag / STEP for y in outputs]
        pulled = backward[mark + x] * direction
        scale = sum(np.abs(t).sum() for t in terms) + np.abs(pulled).sum()
        assert abs(pulled.sum() - sum(t.sum() for t in terms)) <= 1e-13 * scale

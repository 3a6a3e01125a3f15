"""The library against formulas of its own (library_formulas.py), and its VJPs against complex step."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from library_formulas import CASES, Case

import jaccomp.layers
from jaccomp.calculus.vjp import real_inputs, real_outputs, vjp
from jaccomp.errors import UsageError
from jaccomp.layer import Layer
from jaccomp.layers import FAMILIES, families, family, get, names
from jaccomp.program import Program, verify
from jaccomp.reference.interpreter import evaluate, extent

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
        return tuple(extent(e, self.sizes, self.scalars) for e in (program or self.program).tensor(name).shape)

    def evaluate(self, program: Program, arrays: dict[str, Any], dtype: Any = np.float64) -> dict[str, Any]:
        return evaluate(program, arrays, self.sizes, self.scalars, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_its_formula(name: str) -> None:
    case = CASES[name]
    point = Point(get(name), case)
    verify(point.program)
    values = point.evaluate(point.program, point.inputs)
    expected = case.formula(*point.inputs.values(), **case.scalars)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(expected) == len(point.program.outputs)
    for output, value in zip(point.program.outputs, expected, strict=True):
        assert values[output].shape == np.shape(value)
        np.testing.assert_allclose(values[output], value, rtol=1e-12, atol=1e-13)


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


@pytest.mark.parametrize("name", CASES)
def test_a_vjp_is_the_transpose_of_complex_step(name: str) -> None:
    point = Point(get(name), CASES[name])
    check_transpose(point, point.program, point.inputs, "ct_", seed=1)


@pytest.mark.parametrize("name", CASES)
def test_the_vjp_of_a_vjp_is_the_transpose_of_complex_step(name: str) -> None:
    point = Point(get(name), CASES[name])
    rng = np.random.default_rng(2)
    seeds = {f"ct_{y}": rng.standard_normal(point.shape(y)) for y in real_outputs(point.program)}
    check_transpose(point, vjp(point.program), point.inputs | seeds, "ct2_", seed=3)


def test_every_layer_has_a_formula() -> None:
    assert sorted(CASES) == list(names())


def test_names_and_families_are_sorted_and_complete() -> None:
    assert list(families()) == sorted(families()) == list(FAMILIES)
    assert not set(names()) & set(families()), "a module would hide the layer of its name"
    for one, members in FAMILIES.items():
        __import__(f"jaccomp.layers.{one}")
        module = sys.modules[f"jaccomp.layers.{one}"]
        written = {key: value for key, value in vars(module).items() if isinstance(value, Layer)}
        assert sorted(written) == list(members), "the table lists what the module writes"
        assert all(key == value.name for key, value in written.items())
        assert all(family(member) == one for member in members)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_names_its_source(name: str) -> None:
    assert re.search(r"\(.*(\d{4}|torch\.nn).*\)", get(name).spec.doc) and get(name).spec.doc.endswith(".")


def test_layers_are_attributes() -> None:
    assert jaccomp.layers.softmax is get("softmax")
    assert jaccomp.layers.linear is get("linear")
    assert {"softmax", "names"} <= set(dir(jaccomp.layers))


@pytest.mark.parametrize(
    ("wrong", "hint"), [("sofmax", "softmax"), ("LayerNorm", "layernorm"), ("max_pool2d", "maxpool2d")]
)
def test_an_unknown_name_is_an_error_with_a_suggestion(wrong: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)layer '{wrong}': the library has no layer.*Did you mean .*{hint}"):
        get(wrong)
    with pytest.raises(AttributeError, match=f"has no attribute '{wrong}'. Did you mean .*{hint}"):
        getattr(jaccomp.layers, wrong)


def test_a_name_like_no_other_is_told_where_to_look() -> None:
    with pytest.raises(UsageError, match="jaccomp list"):
        family("zzzzzz")


def test_naming_layers_imports_no_sympy() -> None:
    code = "import sys, jaccomp.layers as l; l.names(); l.family('relu'); dir(l); sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

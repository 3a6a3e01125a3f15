"""Every block of every library layer as a program: verified, evaluated, equal to the dense Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
from dense import SMALL, assert_close, jacobian
from library_formulas import CASES
from points import Point
from sympy import Eq

import jaccomp as jc
from jaccomp import pipeline
from jaccomp.layers import get
from jaccomp.printing import program_text
from jaccomp.program import verify
from jaccomp.reference.interpreter import evaluate


@pytest.mark.parametrize("name", CASES)
def test_a_block_s_program_is_its_dense_jacobian(name: str) -> None:
    layer = get(name)
    point = Point(layer, SMALL.get(name, CASES[name]))
    for (of, wrt), expected in jacobian(point, point.program, point.inputs).items():
        program = verify(pipeline.jacobian_program(layer.derivation, of, wrt))
        (output,) = program.outputs
        assert program.inputs == point.program.inputs
        found = point.evaluate(program, point.inputs)[output]
        assert found.shape == (*point.shape(of), *point.shape(wrt))
        terms = np.abs(expected).ravel() + np.abs(expected).max(initial=0.0)
        assert_close(found, (expected.ravel(), terms), f"∂{of}/∂{wrt}")


def test_a_block_s_program_reads_as_the_formula_does() -> None:
    program = pipeline.jacobian_program(get("embedding").derivation, "v0", "x1")
    assert program_text(program) == "embedding_jacobian(ids, table) -> J\n    J[n,d,i,m] = [d = m, i = ids[n]] 1"


def test_a_block_s_program_needs_no_quantity_that_its_terms_do_not_read() -> None:
    program = pipeline.jacobian_program(get("layernorm").derivation, "v3", "x2")
    assert [e.target for e in program.equations] == list(program.outputs)


def test_large_logits_overflow_nowhere() -> None:
    program = pipeline.jacobian_program(get("softmax").derivation, "v0", "x0")
    x = np.array([[1000.0, 1000.0, -1000.0]])
    found = evaluate(program, {"x0": x}, {"s0": 1, "s1": 3})[program.outputs[0]]
    np.testing.assert_allclose(found[0, :, 0], [[0.25, -0.25, 0], [-0.25, 0.25, 0], [0, 0, 0]])


def test_a_block_that_is_zero_is_a_program_of_zeros() -> None:
    n = jc.index("n", size := jc.size("N"))
    x, z, y, u = (jc.tensor(name, size) for name in ("x", "z", "y", "u"))
    layer = jc.Layer("apart", inputs=[x, z], outputs=[y, u], equations=[Eq(y[n], 2 * x[n]), Eq(u[n], 3 * z[n])])
    program = pipeline.jacobian_program(layer.derivation, layer.program.outputs[0], "x1")
    found = evaluate(program, {"x0": np.ones(2), "x1": np.ones(2)}, {"s0": 2})[program.outputs[0]]
    assert found.tolist() == [[0, 0], [0, 0]]


def test_the_name_of_a_block_is_its_own() -> None:
    n = jc.index("n", size := jc.size("N"))
    x, y = jc.tensor("J", size), jc.tensor("jacobian", size)
    layer = jc.Layer("named", inputs=[x], outputs=[y], equations=[Eq(y[n], x[n] ** 2)])
    program = pipeline.jacobian_program(layer.derivation, layer.program.outputs[0], "x0")
    taken = layer.program.labels.names.values()
    assert program.labels.name(program.outputs[0]) not in taken

"""Every block of every library layer: the formula as printed, and the kernel's own, against complex step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import sympy as sp
from dense import SMALL, assert_close, jacobian
from library_formulas import CASES
from points import Point
from written_jacobian import evaluated

import jaccomp as jc
from jaccomp.calculus.vjp import real_inputs, real_outputs
from jaccomp.errors import DerivativeError, UsageError
from jaccomp.layers import get
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.sampling import loose_sizes


@cache
def dense(name: str) -> tuple[Point, dict[tuple[str, str], Any]]:
    point = Point(get(name), SMALL.get(name, CASES[name]))
    return point, jacobian(point, point.program, point.inputs)


def within(found: Any, expected: Any) -> None:
    found = np.asarray(found, dtype=float).reshape(expected.shape)
    assert_close(found, (expected.ravel(), np.abs(expected).ravel() + np.abs(expected).max(initial=0.0)))


@pytest.mark.parametrize("name", CASES)
def test_a_formula_is_its_dense_jacobian(name: str) -> None:
    point, blocks = dense(name)
    layer = get(name)
    backward = layer.derivation.vjp
    zeros = {s: np.zeros(point.shape(s, backward)) for s in layer.derivation.seeds}
    values = point.evaluate(layer.program, point.inputs) | point.evaluate(backward, point.inputs | zeros)
    label = layer.program.labels.name
    arrays = {label(key): np.asarray(value) for key, value in (values | point.inputs).items()}
    constants = {label(key): value for key, value in (point.sizes | point.scalars).items()}
    for (of, wrt), one in layer.jacobians().items():
        canonical = {label(n): n for n in (*layer.program.inputs, *layer.program.outputs)}
        within(evaluated(one, constants, arrays), blocks[canonical[of], canonical[wrt]])


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_s_jacobian_is_the_dense_one(name: str) -> None:
    point, blocks = dense(name)
    layer = get(name)
    label = layer.program.labels.name
    kernel = jc.compile(layer, backend="numpy")
    scalars = {label(key): value for key, value in point.scalars.items()}
    canonical = {label(s.name): s.name for s in layer.program.sizes}
    loose = {name: point.sizes[canonical[name]] for name in loose_sizes(layer.spec)}
    arrays = [point.inputs[x] for x in layer.program.inputs]
    for y in real_outputs(layer.program):
        for x in real_inputs(layer.program):
            found = kernel.jacobian(*arrays, of=label(y), wrt=label(x), **scalars, **loose)
            assert found.shape == (*point.shape(y), *point.shape(x))
            within(found, blocks[y, x])


EXPLICIT = (
    ("softmax", {"N": 1, "D": 3}, None),
    ("layernorm", {"N": 2, "D": 2}, "x"),
    ("rmsnorm", {"N": 1, "D": 3}, "g"),
    ("linear", {"N": 1, "D": 2, "O": 2}, "W"),
    ("embedding", {"N": 2, "V": 2, "D": 2}, "table"),
    ("causal_attention", {"B": 1, "N": 3, "D": 1, "E": 1}, "k"),
    ("squared_distance", {"N": 1, "D": 2, "M": 2}, "z"),
)


@pytest.mark.parametrize(("name", "sizes", "wrt"), EXPLICIT, ids=[one[0] for one in EXPLICIT])
def test_the_explicit_array_is_the_blackboard_matrix(name: str, sizes: dict[str, int], wrt: str | None) -> None:
    """Entry by entry, with numbers put in by SymPy."""
    layer = get(name)
    bound = layer.bind(**sizes)
    block = bound.jacobian(wrt=wrt)
    array = block.explicit()
    rng = np.random.default_rng(5)
    scalars = {s.name: 0.01 for s in layer.spec.scalars}
    inputs = {}
    for tensor in bound.spec.inputs:
        shape = tuple(int(e) for e in tensor.shape)
        inputs[tensor.name] = rng.integers(0, 2, shape) if tensor.dtype == "int64" else rng.standard_normal(shape)
    kernel = jc.compile(layer, backend="numpy")
    expected = kernel.jacobian(*inputs.values(), of=block.of, wrt=block.wrt, **scalars)
    program = bound.program
    label = program.labels.name
    canonical = {label(n): n for n in program.inputs}
    values = evaluate(
        program, {canonical[k]: v for k, v in inputs.items()}, {}, {s.name: 0.01 for s in program.scalars}
    )
    known = inputs | {label(key): value for key, value in values.items()}
    if isinstance(array, sp.MatrixBase):
        expected = expected.reshape(array.shape)
    assert array.shape == expected.shape
    for at in np.ndindex(*expected.shape):
        entry = array[at]
        reads = {a: known[a.name][tuple(map(int, a.indices))] for a in entry.atoms(jc.notation.Access)}
        where = {a: sp.Integer(int(v)) if a.is_integer else sp.Float(float(v), 30) for a, v in reads.items()}
        where |= {s: sp.Float(scalars[s.name], 30) for s in entry.free_symbols if s.name in scalars}
        assert float(entry.xreplace(where)) == pytest.approx(expected[at], rel=1e-12, abs=1e-14)


def test_the_explicit_softmax_is_as_it_is_written_on_a_blackboard() -> None:
    matrix = get("softmax").bind(N=1, D=2).jacobian().explicit()
    assert (
        str(matrix) == "Matrix([[(1 - y[0, 0])*y[0, 0], -y[0, 0]*y[0, 1]], [-y[0, 0]*y[0, 1], (1 - y[0, 1])*y[0, 1]]])"
    )
    lines = sp.pretty(matrix, use_unicode=False).splitlines()
    assert len(lines) == 3 and all(line.startswith("[") and line.endswith("]") for line in lines)
    assert sp.latex(matrix).startswith(r"\left[\begin{matrix}") and sp.latex(matrix).count(r"\\") == 1


@pytest.mark.parametrize(
    ("name", "sizes", "wrt", "kind", "shape"),
    [
        ("mse", {"N": 3}, "x", sp.MatrixBase, (1, 3)),  # a scalar by a vector: a row
        ("relu", {"N": 3}, "x", sp.MatrixBase, (3, 3)),
        ("softmax", {"N": 1, "D": 3}, "x", sp.MatrixBase, (3, 3)),
        ("softmax", {"N": 3, "D": 1}, "x", sp.MatrixBase, (3, 3)),
        ("layernorm", {"N": 1, "D": 3}, "g", sp.MatrixBase, (3, 3)),
        ("softmax", {"N": 2, "D": 3}, "x", sp.NDimArray, (2, 3, 2, 3)),
        ("linear", {"N": 1, "D": 2, "O": 3}, "W", sp.NDimArray, (1, 3, 3, 2)),
    ],
)
def test_a_vector_by_a_vector_is_a_matrix_and_more_axes_an_array(
    name: str, sizes: dict[str, int], wrt: str, kind: type, shape: tuple[int, ...]
) -> None:
    found = get(name).bind(**sizes).jacobian(wrt=wrt).explicit()
    assert isinstance(found, kind) and found.shape == shape


def test_a_block_is_indexed_by_the_axes_of_both_sides() -> None:
    block = get("softmax").jacobian()
    n, i, m, j = block.indices
    assert (block.of, block.wrt, block.structure) == ("y", "x", "block diagonal: diagonal + rank 1")
    assert block[n, i, m, j] == block.expr
    same_row = block[0, 1, 0, 2]
    assert not same_row.has(sp.KroneckerDelta) and same_row.could_extract_minus_sign()
    assert block[0, 1, 1, 2] == 0
    assert block.head == "∂y[n,i]/∂x[m,j]"


def test_a_block_of_another_rank_is_refused() -> None:
    with pytest.raises(UsageError, match=r"2 indices were given for 4 axes.\s+Write J\[n, i, m, j\]"):
        get("softmax").jacobian()[0, 1]


def test_symbolic_sizes_cannot_be_explicit() -> None:
    with pytest.raises(UsageError, match=r"its shape \(N, D, N, D\) is symbolic.\s+Bind the sizes first"):
        get("softmax").jacobian().explicit()


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(UsageError, match=r"it has 160000 entries, more than 10000"):
        get("softmax").bind(N=20, D=20).jacobian().explicit()


def test_ambiguous_and_unknown_sides_are_refused() -> None:
    layer = get("lstm_cell")
    with pytest.raises(UsageError, match="of is not given and there are 2"):
        layer.jacobian(wrt="x")
    with pytest.raises(UsageError, match=r"wrt='ids' is none of its real tensors.\s+wrt is one of \['table'\]"):
        get("embedding").jacobian(wrt="ids")


def test_the_calculus_refuses_a_pair_that_is_no_block() -> None:
    from jaccomp.algebra.blocks import block

    with pytest.raises(DerivativeError, match="there is no block of 'v0' by 'x9'"):
        block(get("softmax").derivation.vjp, "v0", "x9", "ct_v9", "ct_x9")


def test_latex_has_both_sides_and_the_deltas() -> None:
    text = sp.latex(get("softmax").jacobian())
    assert text.startswith(r"\frac{\partial y_{n,i}}{\partial x_{m,j}} = ") and r"\delta_{" in text


def test_the_trace_in_symbols() -> None:
    block = get("softmax").jacobian()
    n, i = block.indices[:2]
    y = jc.tensor("y", *block.shape[:2])
    size_n, size_d = block.shape[:2]
    assert block.trace() == sp.Sum(y[n, i] * (1 - y[n, i]), (i, 0, size_d - 1), (n, 0, size_n - 1))
    assert get("sigmoid").jacobian().trace().function == get("sigmoid").jacobian()[block.indices[0], block.indices[0]]
    with pytest.raises(UsageError, match=r"trace of the jacobian of 'y' by 'W': rows have shape \(N, O\), columns"):
        get("linear").jacobian(wrt="W").trace()

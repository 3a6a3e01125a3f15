"""The brute-force evaluator of Programs: every test compares it with a loop or a NumPy formula written by hand."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp

from jaccomp.calculus.functions import Log1p, Sigmoid, Softplus
from jaccomp.errors import StageError
from jaccomp.program import (
    AXES,
    Equation,
    Program,
    Scalar,
    Tensor,
    Term,
    at_least,
    bound_symbol,
    equal,
    in_range,
    scalar_map,
    size_symbol,
    verify,
)
from jaccomp.reference.interpreter import evaluate

N, M, K = (size_symbol(f"s{k}") for k in range(3))
i, j, k = AXES[:3]
b, c, d = (bound_symbol(n) for n in range(3))
DTYPES = (np.float32, np.float64, np.complex128, object)
TINY = {np.float32: 1e-6, np.float64: 1e-14, np.complex128: 1e-14, object: 1e-14}


def program(tensors: tuple[Tensor, ...], *equations: Equation, scalars: tuple[Scalar, ...] = ()) -> Program:
    """A verified program; what no equation defines is an input, the last target the output."""
    targets = [e.target for e in equations]
    inputs = tuple(t.name for t in tensors if t.name not in targets)
    return verify(Program("test", (N, M, K), scalars, inputs, (targets[-1],), tensors, equations))


def run(p: Program, sizes: tuple[int, ...], dtype: Any = np.float64, **arrays: Any) -> np.ndarray:
    scalars = arrays.pop("scalars", {})
    numbers = dict(zip(("s0", "s1", "s2"), (*sizes, 1, 1, 1), strict=False))
    return evaluate(p, arrays, numbers, scalars, dtype=dtype)[p.outputs[0]]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def softmax() -> Program:
    x, total, y = Tensor("x0", (N, M)), Tensor("v0", (N,)), Tensor("v1", (N, M))
    return program(
        (x, total, y),
        Equation("v0", (i,), (Term(sp.exp(x[i, b]), (b,), in_range(b, M)),)),
        scalar_map("v1", 2, sp.exp(x[i, j]) / total[i,]),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 3), (3, 0), (4, 4)])
def test_softmax_in_every_dtype(dtype: Any, shape: tuple[int, int]) -> None:
    x = normal(*shape)
    got = run(softmax(), shape, dtype, x0=x)
    e = np.exp(x)
    assert got.dtype == np.dtype(dtype) and got.shape == shape
    assert np.all(abs(got - e / e.sum(1, keepdims=True)) <= TINY[dtype])


def causal_sum() -> Program:
    x, y = Tensor("x0", (N, M)), Tensor("v0", (N, M))
    domain = (*in_range(b, i + 1), *in_range(c, M), at_least(j, c))
    return program((x, y), Equation("v0", (i, j), (Term(x[b, c], (b, c), domain),)))


@pytest.mark.parametrize("largest_box", [1, 7, 1 << 22])
@pytest.mark.parametrize("smallest_einsum", [0, 1 << 20])
def test_triangular_domains_however_the_box_is_cut(largest_box: int, smallest_einsum: int) -> None:
    x = normal(4, 3)
    got = evaluate(
        causal_sum(),
        {"x0": x},
        {"s0": 4, "s1": 3, "s2": 1},
        largest_box=largest_box,
        smallest_einsum=smallest_einsum,
    )
    assert np.allclose(got["v0"], x.cumsum(0).cumsum(1), rtol=1e-13)


@pytest.mark.parametrize("smallest_einsum", [0, 1 << 20])
def test_what_the_domain_leaves_out_does_not_poison(smallest_einsum: int) -> None:
    x, y = Tensor("x0", (N,)), Tensor("v0", (N,))
    p = program((x, y), Equation("v0", (i,), (Term(sp.log(x[b,]), (b,), (*in_range(b, N), at_least(b, i + 1))),)))
    data = np.array([-1.0, 0.0, 2.0, 3.0])
    got = evaluate(p, {"x0": data}, {"s0": 4, "s1": 1, "s2": 1}, smallest_einsum=smallest_einsum)["v0"]
    assert np.allclose(got[1:], [np.log(6), np.log(3), 0.0]) and got[0] == -np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smallest_einsum", [0, 1 << 20])
def test_strided_padded_convolution(dtype: Any, smallest_einsum: int) -> None:
    stride, padding = Scalar("c0", "int64"), Scalar("c1", "int64", 1)
    out = sp.floor((N + 2 * padding.symbol - K) / stride.symbol) + 1
    x, w, y = Tensor("x0", (N,)), Tensor("x1", (K,)), Tensor("v0", (out,))
    at = stride.symbol * i + b - padding.symbol
    term = Term(x[at,] * w[b,], (b,), (*in_range(b, K), *in_range(at, N)))
    p = program((x, w, y), Equation("v0", (i,), (term,)), scalars=(stride, padding))
    xs, ws = normal(9), normal(4, seed=1)
    sizes = {"s0": 9, "s1": 1, "s2": 4}
    got = evaluate(p, {"x0": xs, "x1": ws}, sizes, {"c0": 2}, dtype=dtype, smallest_einsum=smallest_einsum)["v0"]
    padded = np.pad(xs, 1)
    expected = np.array([padded[2 * t : 2 * t + 4] @ ws for t in range(4)])
    assert np.all(abs(got - expected) <= 4 * TINY[dtype])


@pytest.mark.parametrize("smallest_einsum", [0, 1 << 20])
def test_a_data_equality_scatters_and_an_access_gathers(smallest_einsum: int) -> None:
    table, ids, ct = Tensor("x0", (N, M)), Tensor("x1", (K,), "int64"), Tensor("x2", (K, M))
    gathered, back = Tensor("v0", (K, M)), Tensor("v1", (N, M))
    p = program(
        (table, ids, ct, gathered, back),
        scalar_map("v0", 2, table[ids[i,], j]),
        Equation("v1", (i, j), (Term(ct[b, j] * gathered[b, j], (b,), (*in_range(b, K), equal(ids[b,], i))),)),
    )
    t, v, picks = normal(4, 3), normal(5, 3, seed=1), np.array([3, 0, 3, 1, 0])
    got = evaluate(p, {"x0": t, "x1": picks, "x2": v}, {"s0": 4, "s1": 3, "s2": 5}, smallest_einsum=smallest_einsum)
    expected = np.zeros((4, 3))
    np.add.at(expected, picks, v * t[picks])
    assert np.array_equal(got["v0"], t[picks]) and np.allclose(got["v1"], expected, rtol=1e-14)


def test_a_data_equality_alone_gives_an_index_its_range() -> None:
    x, ids, y = Tensor("x0", (N,)), Tensor("x1", (K,), "int64"), Tensor("v0", (K,))
    p = program((x, ids, y), Equation("v0", (i,), (Term(x[b,], (b,), (equal(ids[i,], b),)),)))
    assert np.array_equal(run(p, (3, 1, 2), x0=[5.0, 6.0, 7.0], x1=[2, 1]), [7.0, 6.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_extrema_take_the_first_and_an_empty_one_is_infinite(dtype: Any) -> None:
    x, at, top, low = Tensor("x0", (N, M)), Tensor("v0", (N,), "int64"), Tensor("v1", (N,)), Tensor("v2", (N,))
    term = Term(x[i, b], (b,), (*in_range(b, M), at_least(i, b)))
    p = program(
        (x, at, top, low),
        Equation("v0", (i,), (term,), "argmax"),
        Equation("v1", (i,), (term,), "max"),
        Equation("v2", (i,), (Term(x[i, b], (b,), (*in_range(b, M), at_least(b, i + 1))),), "min"),
    )
    data = np.array([[9.0, 1, 2], [1.0, 1, 5], [-np.inf, -np.inf, -np.inf]])
    got = evaluate(p, {"x0": data}, {"s0": 3, "s1": 3, "s2": 1}, dtype=dtype)
    assert got["v0"].dtype == np.int64 and got["v0"].tolist() == [0, 0, 0]
    assert [float(np.real(v)) for v in got["v1"]] == [9.0, 1.0, -np.inf]
    assert [float(np.real(v)) for v in got["v2"]] == [1.0, 5.0, np.inf]


def test_the_position_over_two_indices_is_their_mixed_radix() -> None:
    x, at = Tensor("x0", (N, M)), Tensor("v0", (), "int64")
    term = Term(x[b, c], (b, c), (*in_range(b, N), *in_range(c, M)))
    p = program((x, at), Equation("v0", (), (term,), "argmax"))
    data = normal(4, 5)
    assert int(run(p, (4, 5), x0=data)) == int(np.argmax(data))


def test_nan_of_a_row_is_its_maximum() -> None:
    x, top = Tensor("x0", (N, M)), Tensor("v0", (N,))
    p = program((x, top), Equation("v0", (i,), (Term(x[i, b], (b,), in_range(b, M)),), "max"))
    got = run(p, (2, 3), x0=[[1.0, np.nan, 3.0], [1.0, 2.0, 0.0]])
    assert np.isnan(got[0]) and got[1] == 2.0


def test_integer_conditions_are_exact_and_branches_guard_their_reads() -> None:
    x, y = Tensor("x0", (N,)), Tensor("v0", (2 * N,))
    third = sp.floor(i / 3)
    body = sp.Piecewise((x[i - 1,], sp.And(i >= 1, i <= N)), (third + sp.Mod(i, 3), True))
    p = program((x, y), scalar_map("v0", 1, body))
    got = run(p, (50,), x0=np.arange(50.0))
    assert got.tolist() == [0.0, *range(50), *(q // 3 + q % 3 for q in range(51, 100))]


def test_a_read_outside_its_tensor_is_an_error() -> None:
    x, y = Tensor("x0", (N,)), Tensor("v0", (N,))
    p = program((x, y), scalar_map("v0", 1, x[i + 1,]))
    with pytest.raises(StageError, match=r"v0.*read outside its tensor of shape \(3,\)"):
        run(p, (3,), x0=np.ones(3))


def test_a_bound_index_without_a_range_is_an_error() -> None:
    x, y = Tensor("x0", (N,)), Tensor("v0", (N,))
    p = program((x, y), Equation("v0", (i,), (Term(x[i,], (b,), (at_least(b, 0),)),)))
    with pytest.raises(StageError, match="bound index b0 has no range"):
        run(p, (3,), x0=np.ones(3))


def test_a_scalar_without_a_value_is_an_error() -> None:
    eps = Scalar("c0")
    x, y = Tensor("x0", (N,)), Tensor("v0", (N,))
    p = program((x, y), scalar_map("v0", 1, x[i,] + eps.symbol), scalars=(eps,))
    with pytest.raises(StageError, match="'c0' has neither a value nor a default"):
        run(p, (3,), x0=np.ones(3))


def test_an_unknown_function_is_an_error() -> None:
    x, y = Tensor("x0", (N,)), Tensor("v0", (N,))
    p = program((x, y), scalar_map("v0", 1, sp.gamma(x[i,])))
    with pytest.raises(StageError, match="no function gamma"):
        run(p, (1,), x0=np.ones(1))


def test_products_run_over_domains() -> None:
    x, y = Tensor("x0", (N,)), Tensor("v0", (N,))
    p = program((x, y), Equation("v0", (i,), (Term(x[b,], (b,), in_range(b, i)),), "prod"))
    data = normal(5)
    assert np.allclose(run(p, (5,), x0=data), np.concatenate([[1.0], data.cumprod()[:-1]]), rtol=1e-14)


def test_indices_sizes_and_scalars_are_values_too() -> None:
    eps = Scalar("c0", default=0.5)
    x, y = Tensor("x0", (N, M)), Tensor("v0", (N,))
    body = x[i, b] * b / M + eps.symbol
    p = program((x, y), Equation("v0", (i,), (Term(body, (b,), in_range(b, M)),)), scalars=(eps,))
    data = normal(2, 4)
    assert np.allclose(run(p, (2, 4), x0=data), (data * np.arange(4) / 4 + 0.5).sum(1), rtol=1e-14)
    assert run(p, (2, 4), np.float32, x0=data).dtype == np.float32


def test_mpmath_keeps_its_digits() -> None:
    x, y = Tensor("x0", (N,)), Tensor("v0", (N,))
    p = program((x, y), scalar_map("v0", 1, Softplus(x[i,]) + Log1p(x[i,] ** 2) * Sigmoid(x[i,]) / 3))
    with mpmath.workdps(50):
        got = run(p, (3,), object, x0=[-1e4, 0.3, 1e4])
        z = mpmath.mpf(0.3)
        expected = mpmath.log(1 + mpmath.exp(z)) + mpmath.log(1 + z * z) / (1 + mpmath.exp(-z)) / 3
        assert abs(got[1] - expected) < mpmath.mpf(10) ** -48 and mpmath.isfinite(got[0]) and mpmath.isfinite(got[2])


def test_contractions_agree_with_the_plain_path() -> None:
    q, key, o = Tensor("x0", (N, M)), Tensor("x1", (K, M)), Tensor("v0", (N, K))
    term = Term(2 * q[i, b] * key[j, b] / M, (b,), (*in_range(b, M), at_least(i, j)))
    p = program((q, key, o), Equation("v0", (i, j), (term,)))
    a, e = normal(20, 30), normal(25, 30, seed=1)
    got = run(p, (20, 30, 25), x0=a, x1=e)
    assert np.allclose(got, np.tril(a @ e.T) * 2 / 30, rtol=1e-12, atol=1e-14)


def test_integer_tensors_keep_every_digit_in_float32() -> None:
    ids, moved, x, y = Tensor("x0", (N,), "int64"), Tensor("v0", (N,), "int64"), Tensor("x1", (N,)), Tensor("v1", (N,))
    p = program((ids, x, moved, y), scalar_map("v0", 1, 2 * ids[i,] + 1), scalar_map("v1", 1, x[i,] * moved[i,]))
    got = evaluate(p, {"x0": [1 << 30, 5], "x1": [0.5, 2.0]}, {"s0": 2, "s1": 1, "s2": 1}, dtype=np.float32)
    assert got["v0"].dtype == np.int64 and got["v0"].tolist() == [(1 << 31) + 1, 11]
    assert got["v1"].dtype == np.float32 and got["v1"].tolist() == [2.0**30, 22.0]


@pytest.mark.parametrize("smallest_einsum", [0, 1 << 20])
def test_an_index_that_an_equality_gives_needs_no_dimension_and_keeps_its_range(smallest_einsum: int) -> None:
    """The cotangent of a strided slice: v0[i0] = Σ {b : 2 b + 1 == i0, 0 <= b < M} x[b]."""
    x, y = Tensor("x0", (M,)), Tensor("v0", (N,))
    term = Term(x[c,], (b, c), (*in_range(b, M), equal(2 * b + 1, i), equal(c, b)))
    p = program((x, y), Equation("v0", (i,), (term,)))
    got = evaluate(p, {"x0": [1.0, 2.0]}, {"s0": 7, "s1": 2, "s2": 1}, smallest_einsum=smallest_einsum)["v0"]
    assert got.tolist() == [0, 1, 0, 2, 0, 0, 0]

"""`kernel.jacobian(form=...)` through compiled kernels: closed forms, costs, refusals, and bounds for every input."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import sympy as sp
from scipy.sparse.linalg import LinearOperator, svds
from sympy import Eq, Sum

import jaccomp as jc
from jaccomp import layers

N, D, K = jc.size("N"), jc.size("D"), jc.size("K")
n, i, k = jc.index("n", N), jc.index("i", D), jc.index("k", D)
x, y, a = jc.tensor("x y a", N, D)


def shrunk() -> jc.Layer:
    """y = a x + x Σ x: a block that is diagonal plus rank 1, and not singular."""
    return jc.Layer(
        "shrunk", inputs=[x, a], outputs=[y], equations=[Eq(y[n, i], a[n, i] * x[n, i] + x[n, i] * Sum(x[n, k], k))]
    )


def shrunk_at(rng: np.random.Generator, rows: int = 3, columns: int = 5) -> tuple[Any, Any, Any]:
    point = rng.standard_normal((rows, columns))
    weights = rng.uniform(1, 2, (rows, columns))
    blocks = [np.diag(w + p.sum()) + np.outer(p, np.ones(columns)) for p, w in zip(point, weights, strict=True)]
    return point, weights, blocks


def test_woodbury_and_the_determinant_lemma() -> None:
    point, weights, blocks = shrunk_at(np.random.default_rng(0))
    factors = jc.compile(shrunk()).jacobian(point, weights, wrt="x", form="factors")
    dense = factors.toarray()
    for place, block in enumerate(blocks):
        np.testing.assert_allclose(dense[5 * place : 5 * place + 5, 5 * place : 5 * place + 5], block, rtol=1e-13)
    inverse = factors.inverse()
    np.testing.assert_allclose(inverse.toarray(), np.linalg.inv(dense), atol=1e-10)
    assert len(inverse.parts) == 2, "it is diagonal plus rank 1 as well"
    b = np.random.default_rng(1).standard_normal((3, 5))
    np.testing.assert_allclose(dense @ factors.solve(b).ravel(), b.ravel(), atol=1e-10)
    signs, logs = factors.logdet()
    for place, block in enumerate(blocks):
        sign, log = np.linalg.slogdet(block)
        assert signs[place] == sign and logs[place] == pytest.approx(log, abs=1e-10)


def test_the_log_determinant_where_the_diagonal_has_a_zero() -> None:
    point = np.array([[1.0, 2.0, 3.0]])
    weights = np.array([[-6.0, 1.0, 1.0]])
    factors = jc.compile(shrunk()).jacobian(point, weights, wrt="x", form="factors")
    sign, log = np.linalg.slogdet(factors.toarray())
    found = factors.logdet()
    assert found[0][0] == sign and found[1][0] == pytest.approx(log, abs=1e-12)


def test_a_singular_block_has_no_inverse() -> None:
    factors = jc.compile("softmax").jacobian(np.random.default_rng(0).standard_normal((2, 4)), form="factors")
    with pytest.raises(np.linalg.LinAlgError, match="block 0 of 2 is singular to working precision"):
        factors.solve(np.ones((2, 4)))


def test_a_matrix_that_is_not_square_has_no_trace() -> None:
    rng = np.random.default_rng(0)
    factors = jc.compile("linear").jacobian(
        rng.standard_normal((2, 3)), rng.standard_normal((4, 3)), np.zeros(4), wrt="x", form="factors"
    )
    with pytest.raises(ValueError, match="the trace needs a square matrix, but this one is 8 by 6"):
        factors.trace()
    with pytest.raises(ValueError, match="the inverse needs a square matrix"):
        factors.inverse()


def test_a_kronecker_block_keeps_its_factor_alone() -> None:
    rng = np.random.default_rng(0)
    point, W, b = rng.standard_normal((50, 8)), rng.standard_normal((6, 8)), rng.standard_normal(6)
    factors = jc.compile("linear").jacobian(point, W, b, wrt="x", form="factors")
    assert factors.nbytes == W.nbytes
    np.testing.assert_allclose(factors.toarray(), np.kron(np.eye(50), W), atol=1e-14)
    with pytest.raises(ValueError, match=r"needs a square matrix"):
        factors.logdet()


def test_an_operator_multiplies_by_the_jvp_and_the_vjp() -> None:
    rng = np.random.default_rng(0)
    point, W, b = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5)
    kernel = jc.compile("linear")
    J = kernel.jacobian(point, W, b, wrt="W", form="operator")
    dense = kernel.jacobian(point, W, b, wrt="W").reshape(15, 20)
    assert isinstance(J, LinearOperator) and J.shape == (15, 20)
    t, v = rng.standard_normal(20), rng.standard_normal(15)
    np.testing.assert_allclose(J.matvec(t), dense @ t, atol=1e-12)
    np.testing.assert_allclose(J.rmatvec(v), v @ dense, atol=1e-12)
    np.testing.assert_allclose(
        svds(J, k=1, return_singular_vectors=False, rng=rng), np.linalg.norm(dense, 2), rtol=1e-9
    )


def test_an_operator_of_one_of_several_outputs_and_scalars_by_keyword() -> None:
    rng = np.random.default_rng(0)
    kernel = jc.compile("batchnorm")
    point, g, b = rng.standard_normal((3, 2, 2, 2)), rng.standard_normal(2), rng.standard_normal(2)
    call = {"x": point, "g": g, "bias": b, "eps": 0.5}
    J = kernel.jacobian(**call, of="var", wrt="x", form="operator")
    dense = kernel.jacobian(**call, of="var", wrt="x").reshape(2, 24)
    np.testing.assert_allclose(J.rmatmat(np.eye(2)).T, dense, atol=1e-12)
    np.testing.assert_allclose(J.matmat(np.eye(24)), dense, atol=1e-12)


def peak(run: Any) -> int:
    run()
    tracemalloc.start()
    run()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_a_diagonal_of_a_million_takes_memory_for_a_million() -> None:
    kernel, point = jc.compile("gelu"), np.random.default_rng(0).standard_normal(10**6)
    assert peak(lambda: kernel.jacobian(point, form="diagonal")) < 6 * point.nbytes
    diagonal = kernel.jacobian(point, form="diagonal")
    np.testing.assert_allclose(diagonal, kernel.vjp(point)[1](np.ones(10**6))[0], rtol=1e-12, atol=1e-14)


def test_a_sparse_convolution_takes_memory_for_its_entries() -> None:
    kernel, rng = jc.compile("conv2d"), np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 2, 3, 3)), np.zeros(3)
    spent = []
    for side in (24, 48):
        image = rng.standard_normal((1, 2, side, side))
        call = {"x": image, "weight": weight, "b": bias, "padding": 1, "wrt": "x", "form": "sparse"}
        J = kernel.jacobian(**call)
        inside = 3 * side - 2  # taps of one line that read no padding
        assert J.nnz == 2 * 3 * inside**2
        np.testing.assert_allclose(J @ image.ravel(), kernel(image, weight, bias, padding=1).ravel(), atol=1e-12)
        spent.append(peak(lambda call=call: kernel.jacobian(**call)) / J.nnz)
    assert max(spent) < 120 and spent[1] < 1.2 * spent[0], "bytes an entry"


def test_float32_stays_float32() -> None:
    point = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    kernel = jc.compile("softmax")
    assert kernel.jacobian(point, form="sparse").dtype == np.float32
    factors = kernel.jacobian(point, form="factors")
    assert factors.dtype == np.float32 and factors.matvec(point).dtype == np.float32


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (1, 1)])
def test_empty_and_single(shape: tuple[int, int]) -> None:
    kernel, point = jc.compile("softmax"), np.ones(shape)
    rows = int(np.prod(shape))
    dense = kernel.jacobian(point).reshape(rows, rows)
    for form in ("sparse", "factors"):
        np.testing.assert_allclose(kernel.jacobian(point, form=form).toarray(), dense, atol=1e-15)


def test_an_id_outside_the_table_is_refused_in_every_form() -> None:
    kernel, table = jc.compile("embedding"), np.ones((3, 2))
    for form in ("dense", "sparse", "operator"):
        with pytest.raises(IndexError, match="ids"):
            kernel.jacobian(np.array([0, 3]), table, form=form)


def test_forms_that_a_block_does_not_have() -> None:
    kernel, point = jc.compile("softmax"), np.ones((2, 3))
    with pytest.raises(ValueError, match=r"softmax\(x\): form is 'tensor', but it must be one of 'dense', 'diagonal'"):
        kernel.jacobian(point, form="tensor")
    with pytest.raises(ValueError, match=r"it is not diagonal: block diagonal: diagonal \+ rank 1"):
        kernel.jacobian(point, form="diagonal")
    pooling = jc.compile("maxpool2d")
    with pytest.raises(ValueError, match="it is no sum of products of factors"):
        pooling.jacobian(np.ones((1, 4, 4)), form="factors", kernel=2)
    with pytest.raises(ValueError, match="wrt='z' is none of its real tensors"):
        kernel.jacobian(point, wrt="z", form="sparse")
    with pytest.raises(TypeError, match="the argument x is missing"):
        kernel.jacobian(form="sparse")


def test_a_dense_matrix_beyond_the_limit_is_refused() -> None:
    factors = jc.compile("softmax").jacobian(np.ones((4, 10_000)), form="factors")
    with pytest.raises(ValueError, match="a dense matrix of 40000 by 40000 needs more than 1024 MiB"):
        factors.toarray()


BOUNDS = {
    "softmax": "1/2",
    "softmin": "1/2",
    "sigmoid": "1/4",
    "tanh": "1",
    "relu": "1",
    "softplus": "1",
    "hardsigmoid": "1/6",
}


@pytest.mark.parametrize("name", BOUNDS)
def test_the_norm_that_no_input_exceeds(name: str) -> None:
    certificate = layers.get(name).jacobian().certificate
    assert certificate.norm == sp.Rational(BOUNDS[name])
    kernel, rng = jc.compile(name, backend="numpy"), np.random.default_rng(0)
    largest = 0.0
    for scale in (1e-3, 0.1, 1, 3, 10):
        point = scale * rng.standard_normal((4, 3))
        point[:2] = [[0, 0, -800], [0, 0, 800]]  # two equal, the third out of the way: where softmax attains its bound
        largest = max(largest, np.linalg.norm(kernel.jacobian(point).reshape(12, 12), 2))
    assert float(certificate.norm) * 0.9 <= largest <= float(certificate.norm) * (1 + 1e-12)


def test_no_bound_is_claimed_where_there_is_none() -> None:
    unbounded = ("layernorm", "linear", "squared_relu", "multiply", "l2_normalize", "rmsnorm", "elu")
    assert [name for name in unbounded if layers.get(name).jacobians()["y", "x"].certificate.norm is not None] == []


def test_the_certificate_is_the_same_whatever_things_are_called() -> None:
    S, T = jc.size("S"), jc.size("T")
    p, q, r = jc.index("p", S), jc.index("q", T), jc.index("r", T)
    z, w = jc.tensor("z w", S, T)
    renamed = jc.Layer(
        "renamed", inputs=[z], outputs=[w], equations=[Eq(w[p, q], sp.exp(z[p, q]) / Sum(sp.exp(z[p, r]), r))]
    )
    ours, theirs = layers.get("softmax").jacobian().certificate, renamed.jacobian().certificate
    assert (ours.words, ours.form, ours.exact, ours.norm) == (theirs.words, theirs.form, theirs.exact, theirs.norm)
    for mine, other in ((ours.rank, theirs.rank), (ours.storage, theirs.storage), (ours.work, theirs.work)):
        named = {s: jc.size({"N": "S", "D": "T"}[s.name]) for s in mine.free_symbols}
        assert mine.xreplace(named) == other

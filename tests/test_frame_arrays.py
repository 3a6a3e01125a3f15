"""Arrays as they come: strides, byte order, alignment, `out=`; a copy only where layout demands it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from framed import BACKENDS, module

rng = np.random.default_rng(0)
X, G = rng.standard_normal((4, 6)), rng.standard_normal(6)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return BACKENDS[request.param]


def expected(x: Any, g: Any) -> Any:
    return x * g / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def _misaligned(x: Any) -> Any:
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    return raw


def _read_only(x: Any) -> Any:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "misaligned": _misaligned,
    "read-only": _read_only,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "matrix": lambda x: x.view(np.matrix) if x.ndim == 2 else x,
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_works(backend: Any, layout: str, dtype: Any) -> None:
    x, g = LAYOUTS[layout](X.astype(dtype)), LAYOUTS[layout](G.astype(dtype))
    before = np.array(x)
    y, pullback = backend("rmsnorm").vjp(x, g)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y, expected(np.array(x), np.array(g)), rtol=tolerance, atol=tolerance)
    assert y.dtype == dtype and type(y) is np.ndarray and y.flags.c_contiguous
    plain = backend("rmsnorm").vjp(np.ascontiguousarray(x, dtype), np.ascontiguousarray(g, dtype))[1]
    for one, other in zip(pullback(LAYOUTS[layout](y)), plain(np.array(LAYOUTS[layout](y), dtype)), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(np.array(x), before)


@pytest.mark.parametrize("shape", [(0, 6), (4, 0), (0, 0), (1, 1)])
def test_sizes_of_zero_and_one(backend: Any, shape: tuple[int, int]) -> None:
    x, g = np.ones(shape), np.ones(shape[1])
    y, pullback = backend("rmsnorm").vjp(x, g)
    ct_x, ct_g = pullback(np.ones(shape))
    assert y.shape == ct_x.shape == shape and ct_g.shape == g.shape
    assert backend("rmsnorm").jacobian(x, g, wrt="g").shape == shape + g.shape


def test_a_contiguous_array_is_not_copied() -> None:
    x, g = X.copy(), G.copy()
    _, res = module("rmsnorm").fwd(x, g)
    assert res.x is x and res.g is g


def test_subclasses_and_array_likes(backend: Any) -> None:
    class Boxed:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return X

    np.testing.assert_allclose(backend("rmsnorm").forward(Boxed(), G.tolist()), expected(X, G))


# -- out=


def test_out_is_written_and_returned(backend: Any) -> None:
    out = np.full((4, 6), np.nan)
    assert backend("rmsnorm").forward(X, G, out=out) is out
    np.testing.assert_allclose(out, expected(X, G))
    out[...] = np.nan
    y, pullback = backend("rmsnorm").vjp(X, G, out=(out,))
    assert y is out
    ct_x = np.empty((4, 6))
    results = pullback(X, out=(ct_x, None))
    assert results[0] is ct_x
    np.testing.assert_allclose(results[1], pullback(X)[1])


@pytest.mark.parametrize("layout", ["fortran", "every second", "reversed", "byte-swapped", "misaligned"])
def test_out_of_any_layout(backend: Any, layout: str) -> None:
    out = LAYOUTS[layout](np.zeros((4, 6)))
    assert backend("rmsnorm").forward(X, G, out=out) is out
    np.testing.assert_allclose(out, expected(X, G))


def test_out_of_several_results_and_of_rank_zero(backend: Any) -> None:
    y, total = np.empty((4, 6)), np.empty(4)
    result = backend("scaled").forward(X, 2.0, out=(y, total))
    assert result.y is y and result.total is total
    np.testing.assert_allclose(total, X.sum(-1))
    loss = np.empty(())
    assert backend("total").forward(G, out=loss) is loss
    np.testing.assert_allclose(loss, 3 * G.sum())


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((4, 5)), ValueError, "out for y is (4, 5), but y is (4, 6)."),
        (np.empty((4, 6), np.float32), TypeError, "out for y is float32, but y is float64."),
        (_read_only(np.empty((4, 6))), ValueError, "out for y is read-only."),
        ([], ValueError, "out holds 0 arrays for 1 results."),
        ("y", TypeError, "out for y is a str, but it must be a NumPy array."),
    ],
)
def test_an_out_that_does_not_fit_is_refused(backend: Any, out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        backend("rmsnorm").forward(X, G, out=out)
    assert str(caught.value) == f"rmsnorm(x, g): {message}"


def test_out_for_several_results_is_a_tuple(backend: Any) -> None:
    with pytest.raises(TypeError, match="out is a ndarray, but there are 2 results: pass a tuple of arrays"):
        backend("scaled").forward(X, 2.0, out=np.empty((4, 6)))


def test_out_that_overlaps_an_argument_is_refused(backend: Any) -> None:
    big = np.zeros((8, 6))
    x = big[:4]
    for out in (x, big[1:5], x[::-1]):
        with pytest.raises(ValueError, match=r"^rmsnorm\(x, g\): out for y overlaps x in memory\. Pass an array of"):
            backend("rmsnorm").forward(x, G, out=out)
    pairs = np.zeros((4, 12))
    pairs[:, ::2] = X
    backend("rmsnorm").forward(pairs[:, ::2], G, out=pairs[:, 1::2])  # between the elements, not over them
    np.testing.assert_allclose(pairs[:, 1::2], expected(X, G))
    with pytest.raises(ValueError, match="out for total overlaps another array of out"):
        y = np.empty((4, 4))
        backend("scaled").forward(np.ones((4, 4)), 2.0, out=(y, y[:, 0]))
    _, pullback = backend("rmsnorm").vjp(X, G)
    with pytest.raises(ValueError, match="out for ct_x overlaps x in memory"):
        pullback(X.copy(), out=(X, None))

"""Sizes from shapes, scalars, dtypes and ids: what a call accepts, and in which words it refuses the rest.

Every test runs on a compiled module and on the NumPy backend, which bind by separate code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from framed import BACKENDS

F32, F64, I64 = np.float32, np.float64, np.int64


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return BACKENDS[request.param]


def refused(error: type[Exception], message: str, function: Any, *args: Any, **keywords: Any) -> None:
    with pytest.raises(error) as caught:
        function(*args, **keywords)
    assert str(caught.value) == message


def zeros(*shape: int, dtype: Any = F32) -> Any:
    return np.zeros(shape, dtype)


# -- sizes


def test_a_size_that_differs_is_named_with_both_arguments(backend: Any) -> None:
    message = "rmsnorm(x, g): D is 64 in x (8, 64), axis 1, but 32 in g (32,), axis 0."
    for name in ("forward", "vjp", "fwd"):
        refused(ValueError, message, getattr(backend("rmsnorm"), name), zeros(8, 64), zeros(32))
    refused(ValueError, message, backend("rmsnorm").jacobian, zeros(8, 64), zeros(32), wrt="x")
    refused(ValueError, message, backend("rmsnorm").jvp, (zeros(8, 64), zeros(32)), (None, None))
    refused(ValueError, message, backend("rmsnorm").shapes, (8, 64), (32,))


def test_a_size_of_one_is_not_broadcast(backend: Any) -> None:
    message = "rmsnorm(x, g): D is 64 in x (8, 64), axis 1, but 1 in g (1,), axis 0."
    refused(ValueError, message, backend("rmsnorm").forward, zeros(8, 64), zeros(1))


def test_a_wrong_number_of_axes_is_named(backend: Any) -> None:
    message = "rmsnorm(x, g): x is (64,), 1 axis, but its shape is (N, D), 2 axes."
    refused(ValueError, message, backend("rmsnorm").forward, zeros(64), zeros(64))
    message = "rmsnorm(x, g): g is (), 0 axes, but its shape is (D,), 1 axis."
    refused(ValueError, message, backend("rmsnorm").forward, zeros(1, 64), zeros())


def test_an_extent_that_is_linear_in_one_size_is_solved(backend: Any) -> None:
    x = np.arange(14, dtype=F64).reshape(2, 7)
    np.testing.assert_allclose(backend("halves").forward(x), x[:, :3] * x[:, 3:6] + x[:, 6:])


def test_an_extent_without_a_whole_solution_is_refused(backend: Any) -> None:
    message = "halves(x): 2*H + 1 is 6 in x (2, 6), axis 1, but no H >= 0 makes it so: H = 2 gives 5."
    refused(ValueError, message, backend("halves").forward, zeros(2, 6))
    message = "halves(x): 2*H + 1 is 0 in x (2, 0), axis 1, but no H >= 0 makes it so: H = 0 gives 1."
    refused(ValueError, message, backend("halves").forward, zeros(2, 0))


def test_an_extent_that_is_known_is_checked_in_cotangents_too(backend: Any) -> None:
    _, pullback = backend("halves").vjp(zeros(2, 7))
    message = "halves(x): H is 3 in the forward call, but 4 in ct_y (2, 4), axis 1."
    refused(ValueError, message, pullback, zeros(2, 4))


def test_a_size_that_no_input_determines_is_a_required_keyword(backend: Any) -> None:
    repeat = backend("repeat")
    message = "repeat(x): no argument determines the size K. Pass it by keyword: K=..."
    refused(TypeError, message, repeat.forward, 2.0, c=3)
    np.testing.assert_array_equal(repeat.forward(2.0, c=3, K=4), [6.0] * 4)
    assert repeat.forward(2.0, c=3, K=0).shape == (0,)
    message = "repeat(x): K is -1, but it must be an int from 0 to 2147483647."
    refused(ValueError, message, repeat.forward, 2.0, c=3, K=-1)
    message = "repeat(x): K is 2.0 (float), but it must be an int."
    refused(TypeError, message, repeat.forward, 2.0, c=3, K=2.0)
    message = "repeat(x): K is 4 in the forward call, but 5 in ct_y (5,), axis 0."
    refused(ValueError, message, repeat.vjp(2.0, c=3, K=4)[1], zeros(5, dtype=F64))


def test_a_size_by_keyword_is_checked_against_the_arrays(backend: Any) -> None:
    rmsnorm = backend("rmsnorm")
    assert rmsnorm.forward(zeros(2, 3), zeros(3), D=3).shape == (2, 3)
    message = "rmsnorm(x, g): D is 4 by keyword, but 3 in x (2, 3), axis 1."
    refused(ValueError, message, rmsnorm.forward, zeros(2, 3), zeros(3), D=4)


def test_integer_scalars_stand_in_extents_with_the_division_of_python(backend: Any) -> None:
    x, w = np.arange(9, dtype=F64), np.array([1.0, 10.0])
    for stride in (1, 2, 3, 4, 7, 8):
        y = backend("window").forward(x, w, stride=stride, shift=0)
        np.testing.assert_array_equal(y, [x[s] + 10 * x[s + 1] for s in range(0, 8, stride)])


def test_an_extent_below_zero_or_divided_by_zero_is_refused(backend: Any) -> None:
    message = "window(x, w): the extent of y, axis 0, (H - K)//stride + 1, would be -1 "
    message += "(H is 1 in x (1,), axis 0; K is 3 in w (3,), axis 0)."
    refused(ValueError, message, backend("window").forward, zeros(1), zeros(3), shift=0)
    message = "window(x, w): the extent of y, axis 0, (H - K)//stride + 1, divides by zero "
    message += "(H is 5 in x (5,), axis 0; K is 3 in w (3,), axis 0)."
    refused(ValueError, message, backend("window").forward, zeros(5), zeros(3), shift=0, stride=0)


def test_one_size_stands_for_any_number_of_axes(backend: Any) -> None:
    scaled = backend("scaled")
    for lead in ((), (4,), (2, 3), (2, 1, 3), (0, 3), (1,) * 20):
        x = np.random.default_rng(0).standard_normal((*lead, 5))
        y, total = scaled.forward(x, 2.0)
        assert y.shape == x.shape and np.shape(total) == lead
        np.testing.assert_allclose(total, x.sum(-1))
        ct_x, ct_factor = scaled.vjp(x, 2.0)[1]((np.ones_like(y), None))
        assert ct_x.shape == x.shape and np.all(ct_x == 2) and np.isclose(ct_factor, x.sum())
    assert scaled.shapes(x=(2, 3, 5), factor=()) == {"y": (2, 3, 5), "total": (2, 3)}


def test_axes_that_one_size_stands_for_must_agree_axis_by_axis(backend: Any) -> None:
    _, pullback = backend("scaled").vjp(zeros(2, 3, 5), 2.0)
    message = "scaled(x, factor): A is (2, 3) in the forward call, but 6 in ct_y (6, 5), axis 0."
    refused(ValueError, message, pullback, (zeros(6, 5), None))
    message = "scaled(x, factor): A is (2, 3) in the forward call, but (3, 2) in ct_total (3, 2), axes 0 to 1."
    refused(ValueError, message, pullback, (None, zeros(3, 2)))
    message = "scaled(x, factor): x is (), 0 axes, but its shape is (A..., D), at least 1 axis."
    refused(ValueError, message, backend("scaled").forward, zeros(), 2.0)


def test_shapes_computes_nothing_and_needs_no_array(backend: Any) -> None:
    assert backend("rmsnorm").shapes(x=(8, 64), g=(64,)) == {"y": (8, 64), "rstd": (8,)}
    assert backend("rmsnorm").shapes((10**9, 10**9)) == {"y": (10**9, 10**9), "rstd": (10**9,)}
    assert backend("window").shapes(x=(9,), w=(2,), stride=3, shift=0) == {"y": (3,)}
    assert backend("repeat").shapes(x=(), K=3) == {"y": (3,)}
    message = "rmsnorm(x, g): no argument determines the size N. Pass it by keyword: N=..."
    refused(TypeError, message, backend("rmsnorm").shapes, g=(3,))
    message = "rmsnorm(x, g): x is 3, but shapes takes the shape of each input, a tuple."
    refused(TypeError, message, backend("rmsnorm").shapes, x=3)


# -- names and scalars


def test_arguments_are_refused_by_name(backend: Any) -> None:
    forward, x, g = backend("rmsnorm").forward, zeros(2, 3), zeros(3)
    refused(TypeError, "rmsnorm(x, g): the argument g is missing.", forward, x)
    refused(TypeError, "rmsnorm(x, g): there is no argument 'beta'.", forward, x, g, beta=1)
    refused(TypeError, "rmsnorm(x, g): there is no argument 'wrt'.", forward, x, g, wrt="x")
    refused(TypeError, "rmsnorm(x, g): x is given twice.", forward, x, g, x=x)
    message = "rmsnorm(x, g): 3 arguments by position, but at most 2: the others are keywords."
    refused(TypeError, message, forward, x, g, 1e-3)
    np.testing.assert_array_equal(forward(g=g, x=x), forward(x, g))


def test_scalars(backend: Any) -> None:
    forward, x, g = backend("rmsnorm").forward, np.ones((2, 3)), np.ones(3)
    np.testing.assert_allclose(forward(x, g, eps=3), 0.5)
    np.testing.assert_allclose(forward(x, g, eps=np.float32(3)), 0.5)
    assert np.isnan(forward(x, g, eps=float("nan"))).all()
    message = "rmsnorm(x, g): eps is 'a' (str), but it must be a real number."
    refused(TypeError, message, forward, x, g, eps="a")
    message = "rmsnorm(x, g): eps is 1j (complex), but it must be a real number."
    refused(TypeError, message, forward, x, g, eps=1j)
    message = "repeat(x): the scalar c is missing. Pass it by keyword: c=..."
    refused(TypeError, message, backend("repeat").forward, 1.0, K=1)
    message = "window(x, w): stride is 1.0 (float), but it must be an int."
    refused(TypeError, message, backend("window").forward, zeros(5), zeros(2), stride=1.0, shift=0)
    message = f"window(x, w): shift is {2**31}, but it must be an int from -2147483647 to 2147483647."
    refused(ValueError, message, backend("window").forward, zeros(5), zeros(2), shift=2**31)


def test_threads(backend: Any) -> None:
    forward, x, g = backend("rmsnorm").forward, np.ones((2, 3)), np.ones(3)
    for threads in (None, 1, 2, 3, 10**30, np.int64(2)):
        assert forward(x, g, threads=threads).shape == (2, 3)
    refused(ValueError, "rmsnorm(x, g): threads is 0, but it must be an int >= 1, or None.", forward, x, g, threads=0)
    message = "rmsnorm(x, g): threads is 1.5 (float), but it must be an int >= 1, or None."
    refused(TypeError, message, forward, x, g, threads=1.5)
    message = "rmsnorm(x, g): threads is True (bool), but it must be an int >= 1, or None."
    refused(TypeError, message, forward, x, g, threads=True)


def test_names_that_are_words_of_c_or_cython_or_not_ascii(backend: Any) -> None:
    void = backend("void")
    one = np.ones(3)
    np.testing.assert_array_equal(void.forward(double=one, restrict=one, λ=3), 4 * one)
    message = "void(double, restrict): N is 3 in double (3,), axis 0, but 2 in restrict (2,), axis 0."
    refused(ValueError, message, void.forward, one, one[:2])
    assert void.shapes(double=(3,)) == {"bint": (3,)}


# -- dtypes


def test_float_dtypes_of_a_call_must_agree(backend: Any) -> None:
    rmsnorm = backend("rmsnorm")
    message = (
        "rmsnorm(x, g): x is float32 but g is float64. Convert one: g.astype(np.float32), or x.astype(np.float64)."
    )
    refused(TypeError, message, rmsnorm.forward, zeros(2, 3), zeros(3, dtype=F64))
    _, pullback = rmsnorm.vjp(zeros(2, 3), zeros(3))
    message = "rmsnorm(x, g): ct_y is float64 but the forward call was float32. Convert it: ct_y.astype(np.float32)."
    refused(TypeError, message, pullback, zeros(2, 3, dtype=F64))


@pytest.mark.parametrize("dtype", ["float16", "complex128", "bool", "int64", "object", "longdouble"])
def test_other_dtypes_are_refused_by_name(backend: Any, dtype: str) -> None:
    x = np.zeros((2, 3), dtype)
    message = f"rmsnorm(x, g): x is {x.dtype}, but it must be float32 or float64. Convert it: x.astype(np.float32)."
    refused(TypeError, message, backend("rmsnorm").forward, x, zeros(3))


def test_what_is_no_array_is_refused_by_name(backend: Any) -> None:
    forward = backend("rmsnorm").forward
    with pytest.raises(TypeError, match=r"rmsnorm\(x, g\): x cannot be made an array: "):
        forward([[1.0], [1.0, 2.0]], zeros(3))
    with pytest.raises(TypeError, match=r"rmsnorm\(x, g\): x is object, but it must be float32 or float64\."):
        forward(None, zeros(3))
    masked = np.ma.masked_array(zeros(2, 3), mask=False)
    message = "rmsnorm(x, g): x is a masked array, and its mask would be ignored. Fill it: x.filled(0)."
    refused(TypeError, message, forward, masked, zeros(3))


def test_lists_become_float64_and_numbers_take_the_dtype_of_the_call(backend: Any) -> None:
    assert backend("rmsnorm").forward([[1.0, 2]], [1, 1]).dtype == F64
    assert backend("scaled").forward(zeros(2, 3), 2.0).y.dtype == F32
    assert backend("scaled").forward(zeros(2, 3), 2).y.dtype == F32
    assert backend("scaled").forward(zeros(2, 3), F32(2)).y.dtype == F32
    assert backend("scaled").forward(zeros(2, 3), np.array(2, F32)).y.dtype == F32
    with pytest.raises(TypeError, match="factor is float64"):
        backend("scaled").forward(zeros(2, 3), F64(2))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int16, ">i4"])
def test_ids_of_any_integer_dtype_serve(backend: Any, dtype: Any) -> None:
    table, ids = np.arange(12.0).reshape(4, 3), np.array([[0, 3], [2, 2]])
    np.testing.assert_array_equal(backend("embedding").forward(ids.astype(dtype), table), table[ids])
    np.testing.assert_array_equal(backend("embedding").forward(ids.tolist(), table), table[ids])


@pytest.mark.parametrize("dtype", ["float64", "bool", "uint64"])
def test_ids_of_other_dtypes_are_refused(backend: Any, dtype: str) -> None:
    message = f"embedding(ids, table): ids is {dtype}, but it must be an integer array, int64 or int32. "
    message += "Convert it: ids.astype(np.int64)."
    refused(TypeError, message, backend("embedding").forward, np.zeros((1, 1), dtype), zeros(2, 3))


# -- ids and corners


@pytest.mark.parametrize("wrong", [-1, 4, 2**62, -(2**62)])
def test_an_id_outside_its_axis_is_named_with_its_position(backend: Any, wrong: int) -> None:
    ids = np.zeros((300, 3), I64)
    ids[288, 1] = wrong
    ids[299, 2] = -7
    with pytest.raises(IndexError) as caught:
        backend("embedding").forward(ids, zeros(4, 2))
    assert str(caught.value).startswith(f"embedding(ids, table): ids[288, 1] is {wrong}, but table[")
    assert str(caught.value).endswith("needs ids from 0 to 3: axis 0 has extent 4.")


def test_a_label_that_no_column_matches_is_an_id_outside_its_axis(backend: Any) -> None:
    with pytest.raises(IndexError, match=r"^onehot\(x, labels\): labels\[1\] is 3, but .* axis . has extent 3\.$"):
        backend("onehot").forward(zeros(2, 3), np.array([0, 3]))


def test_ids_are_scanned_in_the_backward_function_too(backend: Any) -> None:
    embedding = backend("embedding")
    ids = np.zeros((2, 2), I64)
    _, pullback = embedding.vjp(ids, zeros(4, 3))
    ids[1, 0] = 4
    with pytest.raises(IndexError, match=r"ids\[1, 0\] is 4"):
        pullback(zeros(2, 2, 3))


def test_no_ids_at_all_are_fine_even_for_an_empty_table(backend: Any) -> None:
    assert backend("embedding").forward(np.zeros((0, 2), I64), zeros(0, 3)).shape == (0, 2, 3)
    with pytest.raises(IndexError, match="axis 0 has extent 0"):
        backend("embedding").forward(np.zeros((1, 1), I64), zeros(0, 3))


def test_accesses_are_checked_at_the_corners_of_their_box(backend: Any) -> None:
    window, x, w = backend("window"), np.arange(6.0), np.ones(2)
    for shift, low, high in ((1, 1, 6), (-1, -1, 4)):
        with pytest.raises(IndexError) as caught:
            window.forward(x, w, shift=shift)
        message = str(caught.value)
        assert (
            message.startswith("window(x, w): x[") and f"reads {low} to {high} of axis 0, whose extent is 6" in message
        )
    assert window.forward(x[:1], w[:0], shift=99).tolist() == [0.0, 0.0]  # no w, so nothing is read
    with pytest.raises(IndexError, match="reads"):
        window.vjp(x, w, shift=3)
    with pytest.raises(IndexError, match="reads"):
        window.jvp((x, w), (x, w), shift=3)
    assert window.forward(x, w, stride=3, shift=1).tolist() == [3.0, 9.0]

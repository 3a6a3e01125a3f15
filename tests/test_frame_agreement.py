"""Two binders, in C and in Python, written apart: any call gets the same answer, or the same refusal, from both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from framed import kernel, module
from hypothesis import given, settings
from hypothesis import strategies as st

LAYERS = ("rmsnorm", "scaled", "halves", "window", "embedding", "onehot", "repeat", "rowmax", "void")
INPUTS = {
    "rmsnorm": 2, "scaled": 2, "halves": 1, "window": 2, "embedding": 2, "onehot": 2, "repeat": 1, "rowmax": 1,
    "void": 2,
}  # fmt: skip
KEYWORDS = ("eps", "stride", "shift", "c", "λ", "K", "N", "D", "A", "threads", "wrt", "x", "what")

extents = st.integers(0, 4)
shapes = st.lists(extents, max_size=3).map(tuple)
dtypes = st.sampled_from([np.float64, np.float64, np.float32, np.int64, np.int32, np.float16, bool])


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape, dtype = draw(shapes), draw(dtypes)
    values = (
        draw(st.sampled_from([0, 1, 2, 3, -1])) * np.ones(shape)
        + np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2
    )
    array = values.astype(dtype)
    form = draw(st.sampled_from(["array", "array", "array", "list", "scalar"]))
    if form == "list":
        return array.tolist()
    return 2.0 if form == "scalar" else array


values = st.one_of(st.integers(-2, 4), st.sampled_from([0.5, None, "x", "g", (), ("x",), True, 2**40, (2, 2), [1]]))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[Any], dict[str, Any]]:
    name = draw(st.sampled_from(LAYERS))
    count = draw(st.sampled_from([INPUTS[name]] * 6 + [0, 1, 3]))
    args = [draw(arrays()) for _ in range(count)]
    keywords = draw(st.dictionaries(st.sampled_from(KEYWORDS), values, max_size=2))
    if name == "window":
        keywords.setdefault("shift", draw(st.integers(-1, 1)))
    if name == "repeat":
        keywords.setdefault("c", 1.5)
    return name, args, keywords


def outcome(function: Any, *args: Any, **keywords: Any) -> Any:
    try:
        return function(*args, **keywords)
    except (TypeError, ValueError, IndexError) as error:
        return type(error), str(error)


def refused(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], type)


def agree(one: Any, other: Any) -> None:
    if refused(one) or refused(other):
        assert one == other
        return
    if isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            agree(a, b)
    elif isinstance(one, dict):
        assert one == other
    elif one is None or other is None:
        assert one is other
    else:
        assert type(one) is type(other) and one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@settings(max_examples=600, deadline=None)
@given(calls())
def test_forward_and_backward(call: tuple[str, list[Any], dict[str, Any]]) -> None:
    name, args, keywords = call
    one, other = (outcome(built(name).vjp, *args, **keywords) for built in (module, kernel))
    if refused(one) or refused(other):
        assert one == other
    else:
        agree(one[0], other[0])
        y = one[0]
        cts = (
            tuple(None if t.dtype.kind == "i" else np.ones_like(t) for t in y)
            if isinstance(y, tuple)
            else np.ones_like(y)
        )
        agree(outcome(one[1], cts), outcome(other[1], cts))
    plain = {key: given for key, given in keywords.items() if key != "wrt"}
    agree(*(outcome(built(name).forward, *args, **plain) for built in (module, kernel)))


@settings(max_examples=300, deadline=None)
@given(calls(), st.lists(st.one_of(shapes, st.integers(0, 3)), max_size=3))
def test_shapes_and_jacobians(call: tuple[str, list[Any], dict[str, Any]], given_shapes: list[Any]) -> None:
    name, args, keywords = call
    agree(*(outcome(built(name).shapes, *given_shapes, **keywords) for built in (module, kernel)))
    agree(*(outcome(built(name).jacobian, *args, **keywords) for built in (module, kernel)))


@settings(max_examples=300, deadline=None)
@given(calls(), st.lists(arrays(), max_size=3), st.lists(st.one_of(st.none(), arrays()), max_size=2))
def test_tangents_and_cotangents(
    call: tuple[str, list[Any], dict[str, Any]], more: list[Any], residuals: list[Any]
) -> None:
    name, args, keywords = call
    agree(*(outcome(built(name).jvp, tuple(args), tuple(more), **keywords) for built in (module, kernel)))
    for dy in (*more[:1], tuple(more), None):
        agree(*(outcome(built(name).bwd, tuple(residuals), dy, **keywords) for built in (module, kernel)))


@pytest.mark.parametrize("name", LAYERS)
def test_some_calls_are_served(name: str) -> None:
    """The random calls above are not all refused: a plain one of each layer is answered."""
    shapes_of = {
        "rmsnorm": [(2, 3), (3,)], "scaled": [(2, 3), ()], "halves": [(2, 5)], "window": [(4,), (2,)], "repeat": [()],
        "embedding": [(2, 2), (4, 3)], "onehot": [(2, 3), (2,)], "rowmax": [(2, 3)], "void": [(3,), (3,)],
    }[name]  # fmt: skip
    whole = {"embedding": 0, "onehot": 1}.get(name)
    args = [np.ones(shape, np.int64 if k == whole else np.float64) for k, shape in enumerate(shapes_of)]
    keywords = {"repeat": {"c": 2, "K": 3}, "window": {"shift": 0}}.get(name, {})
    one, other = (outcome(built(name).forward, *args, **keywords) for built in (module, kernel))
    assert not refused(one)
    agree(one, other)

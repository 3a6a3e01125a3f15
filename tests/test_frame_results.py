"""Results: values, named tuples, residuals, pullbacks, wrt, tangents, Jacobians."""

from __future__ import annotations

import pickle
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from framed import BACKENDS, kernel, module

rng = np.random.default_rng(1)
X, G, DY = rng.standard_normal((4, 6)), rng.standard_normal(6), rng.standard_normal((4, 6))
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "rmsnorm": ((X, G), {"eps": 1e-3}),
    "scaled": ((rng.standard_normal((2, 3, 4)), np.array(1.5)), {}),
    "halves": ((rng.standard_normal((3, 7)),), {}),
    "total": ((G,), {}),
    "repeat": ((np.array(2.0),), {"c": 3.0, "K": 4}),
    "window": ((rng.standard_normal(11), rng.standard_normal(3)), {"stride": 2, "shift": 0}),
    "embedding": ((rng.integers(0, 5, (3, 2)), rng.standard_normal((5, 4))), {}),
    "onehot": ((X, np.array([0, 5, 2, 2])), {}),
    "rowmax": ((X,), {}),
    "void": ((G, G + 1), {"λ": 0.5}),
    "linear": ((X, rng.standard_normal((3, 6))), {}),
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return BACKENDS[request.param]


def real(x: Any) -> bool:
    return x is not None and np.asarray(x).dtype.kind == "f"


def like(x: Any) -> Any:
    return rng.standard_normal(np.shape(x)).astype(x.dtype)


def outputs(y: Any) -> tuple[Any, ...]:
    return tuple(y) if isinstance(y, tuple) else (y,)


def same(one: Any, other: Any, rtol: float) -> None:
    if one is None or other is None:
        assert one is None and other is None
    else:
        assert np.shape(one) == np.shape(other) and np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_a_module_computes_what_the_interpreter_does(name: str, dtype: Any) -> None:
    args, keywords = CALLS[name]
    args = tuple(one.astype(dtype) if real(one) else one for one in args)
    rtol = 1e-4 if dtype == np.float32 else 1e-12
    compiled, reference = module(name), kernel(name)
    y, pullback = compiled.vjp(*args, **keywords)
    y_, pullback_ = reference.vjp(*args, **keywords)
    for one, other in zip(outputs(y), outputs(y_), strict=True):
        same(one, other, rtol)
    for one, other in zip(outputs(compiled.forward(*args, **keywords)), outputs(y), strict=True):
        np.testing.assert_array_equal(one, other)
    cts = tuple(like(one) if real(one) else None for one in outputs(y))
    dy = cts if len(cts) > 1 else cts[0]
    for one, other in zip(pullback(dy), pullback_(dy), strict=True):
        same(one, other, rtol)
    tangents = tuple(like(one) if real(one) else None for one in args)
    ty, ty_ = compiled.jvp(args, tangents, **keywords)[1], reference.jvp(args, tangents, **keywords)[1]
    for one, other in zip(outputs(ty), outputs(ty_), strict=True):
        same(one, other, rtol)


@pytest.mark.parametrize("name", CALLS)
def test_the_pullback_is_the_transpose_of_the_tangent_map(backend: Any, name: str) -> None:
    args, keywords = CALLS[name]
    layer = backend(name)
    y, pullback = layer.vjp(*args, **keywords)
    cts = tuple(like(one) if real(one) else None for one in outputs(y))
    tangents = tuple(like(one) if real(one) else None for one in args)
    back = pullback(cts if len(cts) > 1 else cts[0])
    forth = outputs(layer.jvp(args, tangents, **keywords)[1])
    left = sum(np.vdot(c, t) for c, t in zip(cts, forth, strict=True) if c is not None)
    right = sum(np.vdot(c, t) for c, t in zip(back, tangents, strict=True) if t is not None)
    np.testing.assert_allclose(left, right, rtol=1e-9)


# -- shapes of results


def test_several_outputs_are_a_named_tuple(backend: Any) -> None:
    y = backend("scaled").forward(X, 2.0)
    assert type(y).__name__ == "Outputs" and y._fields == ("y", "total")
    assert isinstance(backend("rmsnorm").forward(X, G), np.ndarray)


def test_a_result_of_rank_zero_is_a_numpy_scalar(backend: Any) -> None:
    for dtype in (np.float32, np.float64):
        y, pullback = backend("total").vjp(G.astype(dtype))
        assert type(y) is dtype
        assert type(backend("scaled").vjp(X.astype(dtype), 2.0)[1]((X.astype(dtype), None))[1]) is dtype
        np.testing.assert_array_equal(pullback()[0], np.full(6, 3, dtype))


def test_pullback_without_an_argument_needs_rank_zero(backend: Any) -> None:
    with pytest.raises(TypeError, match=r"pullback\(\) means 1 where the only output has rank 0\. Pass dy\."):
        backend("rmsnorm").vjp(X, G)[1]()


def test_none_as_a_cotangent_means_zero(backend: Any) -> None:
    _, pullback = backend("scaled").vjp(X, 2.0)
    both, first, second = pullback((X, G[:4])), pullback((X, None)), pullback([None, G[:4]])
    for k in range(2):
        np.testing.assert_allclose(both[k], first[k] + second[k])
    assert all(np.all(one == 0) for one in pullback((None, None)))
    assert np.all(backend("rmsnorm").vjp(X, G)[1](None)[0] == 0)
    with pytest.raises(ValueError, match="dy has 1 entries for 2 outputs"):
        pullback((X,))
    with pytest.raises(
        TypeError, match="dy is a ndarray, but the layer has 2 outputs: pass a tuple, with None for zero"
    ):
        pullback(X)


def test_integers_have_neither_cotangents_nor_tangents(backend: Any) -> None:
    (ids, table), _ = CALLS["embedding"]
    y, pullback = backend("embedding").vjp(ids, table)
    assert pullback(y)[0] is None
    top, pullback = backend("rowmax").vjp(X)
    np.testing.assert_array_equal(top.where, X.argmax(1))
    assert top.where.dtype == np.int64
    ct = pullback((np.ones(4), None))[0]
    assert np.array_equal(ct.argmax(1), X.argmax(1)) and ct.sum() == 4
    with pytest.raises(TypeError, match="ct_where is given, but where is integer: pass None"):
        pullback((np.ones(4), np.ones(4)))
    with pytest.raises(TypeError, match="t_ids is given, but ids is integer: pass None"):
        backend("embedding").jvp((ids, table), (ids, table))
    tangent = backend("rowmax").jvp((X,), (X,))[1]
    assert tangent.where is None


# -- wrt


def test_wrt_chooses_cotangents(backend: Any) -> None:
    _, pullback = backend("rmsnorm").vjp(X, G)
    both = pullback(DY)
    for wrt, kept in (("x", (0,)), ("g", (1,)), (("g", "x"), (0, 1)), (["x"], (0,)), ((), ()), (None, (0, 1))):
        some = pullback(DY, wrt=wrt)
        assert [one is not None for one in some] == [k in kept for k in range(2)]
        for k in kept:
            np.testing.assert_array_equal(some[k], both[k])
    assert pullback(DY, "x")[1] is None


def test_wrt_of_the_forward_call_keeps_only_what_is_needed(backend: Any) -> None:
    _, res = backend("linear").fwd(X, np.ones((3, 6)), wrt="x")
    assert res.x is None and res.W is not None
    _, res = backend("rmsnorm").fwd(X, G, wrt=())
    assert res == (None, None, None)
    y, pullback = backend("linear").vjp(X, np.ones((3, 6)), wrt="W")
    assert pullback(y)[0] is None and pullback(y)[1] is not None
    with pytest.raises(ValueError, match="wrt names 'x', which the forward call left out of its wrt"):
        pullback(y, wrt="x")


def test_an_unknown_wrt_names_the_choices(backend: Any) -> None:
    for call in (
        lambda: backend("rmsnorm").fwd(X, G, wrt="h"),
        lambda: backend("rmsnorm").vjp(X, G)[1](DY, wrt=("x", "h")),
        lambda: backend("rmsnorm").bwd(backend("rmsnorm").fwd(X, G)[1], DY, "h"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == "rmsnorm(x, g): wrt names 'h', but the real inputs are x, g."
    (ids, table), _ = CALLS["embedding"]
    with pytest.raises(ValueError, match="wrt names 'ids', but the real inputs are table"):
        backend("embedding").vjp(ids, table, wrt="ids")
    with pytest.raises(TypeError, match="wrt is 3, but it must be a name, a tuple of names or None"):
        backend("rmsnorm").vjp(X, G, wrt=3)


# -- residuals


def test_residuals_are_a_named_tuple_that_shares_the_inputs(backend: Any) -> None:
    y, res = backend("rmsnorm").fwd(X, G)
    assert res._fields == ("x", "g", "rstd") and type(res).__name__ == "Residuals"
    assert res.x is X and res.g is G
    np.testing.assert_allclose(res.rstd, 1 / np.sqrt((X**2).mean(1) + 1e-6))
    both = backend("rmsnorm").bwd(res, DY)
    for one, other in zip(both, backend("rmsnorm").vjp(X, G)[1](DY), strict=True):
        np.testing.assert_array_equal(one, other)
    assert y.shape == X.shape


def test_residuals_remember_the_scalars_and_sizes_of_the_forward_call(backend: Any) -> None:
    repeat = backend("repeat")
    _, res = repeat.fwd(2.0, c=3.0, K=4)
    assert repeat.bwd(res, None)[0] == 0
    assert repeat.bwd(res, np.ones(4))[0] == 12
    assert repeat.bwd(res, np.ones(4), c=3.0)[0] == 12
    with pytest.raises(ValueError, match="c is 4, but the forward call had another value"):
        repeat.bwd(res, np.ones(4), c=4)
    total = backend("total")
    np.testing.assert_array_equal(total.bwd(total.fwd(G)[1], 2.0)[0], np.full(6, 6.0))


def test_a_plain_tuple_of_arrays_serves_as_residuals(backend: Any) -> None:
    rmsnorm = backend("rmsnorm")
    _, res = rmsnorm.fwd(X, G)
    for one, other in zip(rmsnorm.bwd(tuple(res), DY), rmsnorm.bwd(res, DY), strict=True):
        np.testing.assert_array_equal(one, other)
    repeat = backend("repeat")
    _, res = repeat.fwd(2.0, c=3.0, K=4)
    with pytest.raises(TypeError, match=r"the scalar c is missing\. Pass it by keyword: c="):
        repeat.bwd(tuple(res), np.ones(4))
    assert repeat.bwd(tuple(res), np.ones(4), c=3.0)[0] == 12
    with pytest.raises(TypeError, match=r"no argument determines the size K\. Pass it by keyword: K="):
        repeat.bwd(tuple(res), None, c=3.0)
    total = backend("total")
    with pytest.raises(TypeError, match="no argument determines the size N"):
        total.bwd(tuple(total.fwd(G)[1]), 2.0)
    np.testing.assert_array_equal(total.bwd(tuple(total.fwd(G)[1]), 2.0, N=6)[0], np.full(6, 6.0))


def test_residuals_that_do_not_fit_are_refused(backend: Any) -> None:
    rmsnorm = backend("rmsnorm")
    with pytest.raises(TypeError, match="res must be what fwd returns, a tuple of 3 arrays, but it is a ndarray"):
        rmsnorm.bwd(X, DY)
    with pytest.raises(ValueError, match=r"rstd is None, but it is needed: it was not kept for this wrt"):
        rmsnorm.bwd((X, G, None), DY)
    with pytest.raises(ValueError, match=r"N is 4 in x \(4, 6\), axis 0, but 3 in rstd \(3,\), axis 0"):
        rmsnorm.bwd((X, G, np.ones(3)), DY)
    with pytest.raises(TypeError, match="bwd takes res, dy and wrt by position: 1 given"):
        rmsnorm.bwd((X, G, np.ones(4)))


def test_results_can_be_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = module("rmsnorm")
    for one in (compiled, module("scaled")):  # what `import rmsnorm` does, and the loader of kernels does not
        monkeypatch.setitem(sys.modules, one.__name__.partition(".")[0], types.ModuleType("package"))
        monkeypatch.setitem(sys.modules, one.__name__, one)
    _, res = compiled.fwd(X, G)
    again = pickle.loads(pickle.dumps(res))
    np.testing.assert_array_equal(compiled.bwd(again, DY)[0], compiled.bwd(res, DY)[0])
    assert pickle.loads(pickle.dumps(module("scaled").forward(X, 2.0)))._fields == ("y", "total")
    assert pickle.loads(pickle.dumps(compiled.forward)) is compiled.forward


def test_a_pullback_may_be_called_many_times_from_many_threads(backend: Any) -> None:
    x = rng.standard_normal((64, 32))
    g, dy = np.ones(32), rng.standard_normal((64, 32))
    _, pullback = backend("rmsnorm").vjp(x, g)
    first = pullback(dy)
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(lambda _: pullback(dy), range(32)):
            for one, other in zip(first, again, strict=True):
                np.testing.assert_array_equal(one, other)


def test_nothing_leaks() -> None:
    compiled = module("rmsnorm")
    x, g, out = X.copy(), G.copy(), np.empty_like(X)
    strided = np.repeat(X, 2, axis=1)[:, ::2]

    def work() -> None:
        y, res = compiled.fwd(x, g)
        compiled.bwd(res, y)
        compiled.vjp(strided, g, out=out)[1](y, out=(np.empty_like(x), None))
        compiled.jvp((x, g), (x, None))
        compiled.jacobian(x, g, wrt="g")
        compiled.shapes(x=(2, 3), g=(3,))
        for bad in ({"eps": "a"}, {"out": x}, {"threads": 0}, {"D": 3}):
            with pytest.raises((TypeError, ValueError)):
                compiled.forward(x, g, **bad)

    for _ in range(3):
        work()
    counts = [sys.getrefcount(one) for one in (x, g, out, strided, None)]
    for _ in range(50):
        work()
    after = [sys.getrefcount(one) for one in (x, g, out, strided, None)]
    assert after[:4] == counts[:4] and abs(after[4] - counts[4]) < 25


# -- tangents and Jacobians


def test_tangents(backend: Any) -> None:
    rmsnorm = backend("rmsnorm")
    y, ty = rmsnorm.jvp((X, G), (None, G))
    np.testing.assert_allclose(ty, rmsnorm.forward(X, G))
    np.testing.assert_allclose(y, rmsnorm.forward(X, G))
    np.testing.assert_allclose(backend("total").jvp(G, G)[1], 3 * G.sum())
    np.testing.assert_allclose(backend("total").jvp((G,), (G,))[1], 3 * G.sum())
    with pytest.raises(ValueError, match="tangents has 1 entries for 2 inputs"):
        rmsnorm.jvp((X, G), (X,))
    with pytest.raises(TypeError, match="primals is a ndarray, but it must be a tuple with an entry for each input"):
        rmsnorm.jvp(X, (X, G))
    with pytest.raises(ValueError, match=r"D is 6 in x \(4, 6\), axis 1, but 5 in t_g \(5,\), axis 0"):
        rmsnorm.jvp((X, G), (X, G[:5]))


@pytest.mark.parametrize("name", CALLS)
def test_the_jacobian_holds_every_tangent(backend: Any, name: str) -> None:
    args, keywords = CALLS[name]
    layer = backend(name)
    inputs = {"rmsnorm": "xg", "window": "xw", "linear": "xW"}.get(name)
    y = outputs(layer.forward(*args, **keywords))
    fields = getattr(layer.forward(*args, **keywords), "_fields", (None,))
    names = tuple(inputs) if inputs else {"scaled": ("x", "factor"), "void": ("double", "restrict")}.get(name, (None,))
    real_args = [k for k, one in enumerate(args) if real(one)]
    for at, of in enumerate(fields):
        for position, wrt in zip(real_args, names, strict=True):
            if not real(y[at]):
                continue
            J = layer.jacobian(*args, of=of, wrt=wrt, **keywords)
            assert np.shape(J) == np.shape(y[at]) + np.shape(args[position])
            tangent = like(args[position])
            tangents = tuple(tangent if k == position else None for k in range(len(args)))
            ty = outputs(layer.jvp(args, tangents, **keywords)[1])[at]
            np.testing.assert_allclose(np.tensordot(J, tangent, np.ndim(tangent)), ty, rtol=1e-9, atol=1e-12)


def test_the_jacobian_names_its_choices_and_its_limit(backend: Any) -> None:
    jacobian = backend("rmsnorm").jacobian
    with pytest.raises(ValueError, match=r"^rmsnorm\(x, g\): wrt is None, but it must be one of x, g\.$"):
        jacobian(X, G)
    with pytest.raises(ValueError, match="of is 'z', but it must be one of y"):
        jacobian(X, G, of="z", wrt="x")
    with pytest.raises(ValueError, match="form is 'sparse', but it must be 'dense'"):
        jacobian(X, G, wrt="x", form="sparse")
    with pytest.raises(ValueError) as caught:
        jacobian(np.zeros((1000, 100)), np.zeros(100), wrt="x")
    assert str(caught.value) == (
        "rmsnorm(x, g): the dense Jacobian (1000, 100, 1000, 100) of float64 needs more than the limit of "
        "1073741824 bytes (1024 MiB). Use vjp or jvp, or smaller sizes."
    )

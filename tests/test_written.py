"""The interpreter of the equations as written: each construct against a NumPy formula or loop by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp

import jaccomp.notation as jc
from jaccomp.errors import StageError
from jaccomp.reference import scalars, written
from jaccomp.reference.bounded import Bounded
from jaccomp.reference.plain import Plain
from jaccomp.spec import Spec, WrittenEquation

N, D, K = jc.size("N D K")
n, i, k = jc.index("n", N), jc.index("i", D), jc.index("k", D)
before = jc.index("before", n + 1)
x, y, z = jc.tensor("x y z", N, D)
loss = jc.tensor("loss")
X = np.random.default_rng(0).standard_normal((3, 4))
SIZES = {"N": 3, "D": 4, "K": 2}


def spec(
    *equations: tuple[Any, Any],
    inputs: tuple[Any, ...] = (x,),
    scalars: tuple[Any, ...] = (),
    sizes: tuple[Any, ...] = (N, D),
) -> Spec:
    targets = list(dict.fromkeys(left if isinstance(left, jc.Tensor) else left.base for left, _ in equations))
    rows = tuple(WrittenEquation(left, sp.sympify(right, strict=True)) for left, right in equations)
    return Spec("test", inputs, scalars, (targets[-1],), tuple(targets[:-1]), sizes, rows)


def value(written_as: Spec, sizes: Mapping[str, int] = SIZES, scalars: Any = None, **arrays: Any) -> np.ndarray:
    """The only output, in float64."""
    inputs = {
        t.name: np.asarray(arrays[t.name]) if t.dtype == "int64" else np.asarray(arrays[t.name], float)[..., None]
        for t in written_as.inputs
    }
    got = written.evaluate(written_as, inputs, sizes, scalars, arithmetic=Plain(np.float64))
    out = written_as.outputs[0]
    return got[out.name] if out.dtype == "int64" else got[out.name][..., 0]


def close(got: np.ndarray, expected: Any) -> bool:
    return got.shape == np.shape(expected) and bool(np.allclose(got, expected, rtol=1e-13, atol=1e-15))


def test_a_softmax_whose_bound_index_shadows_the_free_one() -> None:
    e = np.exp(X)
    assert close(value(spec((y[n, i], sp.exp(x[n, i]) / sp.Sum(sp.exp(x[n, i]), i))), x=X), e / e.sum(1, keepdims=True))


def test_reductions_to_rank_zero_and_named_steps_in_any_order() -> None:
    layer = spec((loss, sp.Sum(z[n, i] ** 2, n, i)), (z[n, i], x[n, i] - sp.Rational(1, 2)))
    reordered = Spec("test", (x,), (), (loss,), (z,), (N, D), layer.equations)
    assert close(value(reordered, x=X), ((X - 0.5) ** 2).sum())


def test_ranges_that_depend_on_an_index() -> None:
    assert close(value(spec((y[n, i], sp.Sum(x[before, i], before))), x=X), X.cumsum(0))
    assert close(value(spec((y[n, i], jc.MaxOver(x[before, i], before))), x=X), np.maximum.accumulate(X))
    written_ends = spec((y[n, i], sp.Sum(x[n, k], (k, 0, i - 1))))
    assert close(value(written_ends, x=X), np.hstack([np.zeros((3, 1)), X.cumsum(1)[:, :-1]]))


def test_windows() -> None:
    w = jc.scalar("w", dtype="int64")
    m = jc.index("m", sp.Max(0, n - w), n + 1)
    got = value(spec((y[n, i], sp.Sum(x[m, i], m)), scalars=(w,)), scalars={"w": 1}, x=X)
    assert close(got, X + np.vstack([np.zeros(4), X[:-1]]))


def test_a_range_of_an_index_bound_beside_it() -> None:
    """Σ over k and, for each k, over r <= k."""
    r = jc.index("r", k + 1)
    total = jc.tensor("total", N)
    got = value(spec((total[n], sp.Sum(x[n, k] * x[n, r], r, k))), x=X)
    assert close(got, [sum(row[a] * row[c] for a in range(4) for c in range(a + 1)) for row in X])


@pytest.mark.parametrize(
    "reduction, empty", [(jc.MaxOver, -np.inf), (jc.MinOver, np.inf), (sp.Sum, 0.0), (sp.Product, 1.0)]
)
def test_empty_ranges(reduction: Callable[..., Any], empty: float) -> None:
    none = jc.index("nothing", 2, 1)
    out = jc.tensor("picked", N)
    assert close(value(spec((out[n], reduction(x[n, none], none))), x=X), np.full(3, empty))
    nothing = value(spec((out[n], reduction(x[n, k], k))), {"N": 2, "D": 0}, x=np.ones((2, 0)))
    assert close(nothing, np.full(2, empty))


def test_extrema_and_their_positions() -> None:
    at, top = jc.tensor("at", N, dtype="int64"), jc.tensor("top", N)
    data = np.array([[1.0, 5, 5, 0], [2, 2, 2, 2], [-np.inf] * 4])
    assert value(spec((at[n], jc.ArgMaxOver(x[n, k], k))), x=data).tolist() == [1, 0, 0]
    assert value(spec((at[n], jc.ArgMinOver(x[n, k], k))), x=data).tolist() == [3, 0, 0]
    picked = spec((at[n], jc.ArgMaxOver(x[n, k], k)), (top[n], x[n, at[n]]))
    assert close(value(_swap(picked), x=X), X.max(1))


def _swap(layer: Spec) -> Spec:
    """The same layer with its equations in the other order."""
    return Spec(layer.name, layer.inputs, (), layer.outputs, layer.intermediates, layer.sizes, layer.equations[::-1])


def test_an_extremum_over_two_indices() -> None:
    assert close(value(spec((loss, jc.MaxOver(x[n, k], n, k))), x=X), X.max())
    assert close(value(spec((loss, jc.MinOver(x[n, k] * n, n, k))), x=X), (X * np.arange(3)[:, None]).min())


def test_pads_pieces_and_divided_indices() -> None:
    wide = jc.tensor("wide", N, 2 * D)
    pieces = spec((wide[n, 2 * i], jc.pad(x[n - 1, i])), (wide[n, 2 * i + 1], -x[n, i]))
    expected = np.zeros((3, 8))
    expected[1:, ::2], expected[:, 1::2] = X[:-1], -X
    assert close(value(pieces, x=X), expected)
    j = jc.index("j", 2 * D)
    repeated = spec((wide[n, j], x[n, sp.floor(j / 2)] * sp.Mod(j, 2)))
    assert close(value(repeated, x=X), np.repeat(X, 2, axis=1) * (np.arange(8) % 2))
    assert close(
        value(spec((y[n, i], jc.pad(x[n, i + 2], value=-1))), x=X),
        np.pad(X[:, 2:], ((0, 0), (0, 2)), constant_values=-1),
    )


def test_gathers_one_hot_and_labels() -> None:
    ids, out = jc.tensor("ids", N, dtype="int64"), jc.tensor("picked", N, D)
    gathered = spec((out[n, i], x[ids[n], i] * sp.KroneckerDelta(ids[n], i)), inputs=(x, ids))
    picks = np.array([2, 0, 1])
    assert close(value(gathered, x=X, ids=picks), X[picks] * (picks[:, None] == np.arange(4)))
    nested = spec((out[n, i], x[ids[ids[n]], i]), inputs=(x, ids))
    assert close(value(nested, x=X, ids=picks), X[picks[picks]])


def test_piecewise_reads_only_where_it_is_taken() -> None:
    shifted = spec((y[n, i], sp.Piecewise((x[n, i - 1], i > 0), (sp.sqrt(2), True))))
    assert close(value(shifted, x=X), np.hstack([np.full((3, 1), 2**0.5), X[:, :-1]]))
    data_dependent = spec((y[n, i], sp.Piecewise((x[n, i], sp.And(x[n, i] > 0, sp.Ne(i, 2))), (n * i, True))))
    here = (X > 0) & (np.arange(4) != 2)
    assert close(value(data_dependent, x=X), np.where(here, X, np.arange(3)[:, None] * np.arange(4)))


def test_sizes_scalars_and_indices_are_values() -> None:
    eps = jc.scalar("eps", default=0.25)
    assert close(
        value(spec((y[n, i], x[n, i] / D + eps * n), scalars=(eps,)), x=X), X / 4 + 0.25 * np.arange(3)[:, None]
    )


def test_an_expression_of_rank_zero_inputs() -> None:
    temperature = jc.tensor("temperature")
    assert close(value(spec((y[n, i], x[n, i] / temperature), inputs=(x, temperature)), x=X, temperature=0.7), X / 0.7)


def test_a_strided_convolution_with_its_extent() -> None:
    stride = jc.scalar("stride", default=2, dtype="int64")
    signal, w, out = jc.tensor("signal", N), jc.tensor("w", K), jc.tensor("picked", sp.floor((N - K) / stride) + 1)
    t, r = jc.index("t", sp.floor((N - K) / stride) + 1), jc.index("r", K)
    layer = spec(
        (out[t], sp.Sum(signal[stride * t + r] * w[r], r)), inputs=(signal, w), scalars=(stride,), sizes=(N, K)
    )
    s, v = np.arange(7.0) ** 2, np.array([1.0, -3.0])
    assert close(value(layer, {"N": 7, "K": 2}, signal=s, w=v), [s[2 * q] - 3 * s[2 * q + 1] for q in range(3)])


def test_no_read_outside_is_silent() -> None:
    with pytest.raises(StageError, match=r"equation of y: x\[n, i \+ 1\] reads outside"):
        value(spec((y[n, i], x[n, i + 1])), x=X)


def test_a_scalar_without_a_value_is_an_error() -> None:
    eps = jc.scalar("eps")
    with pytest.raises(StageError, match="'eps' has neither"):
        value(spec((y[n, i], x[n, i] + eps), scalars=(eps,)), x=X)


def test_equations_that_read_each_other_are_an_error() -> None:
    with pytest.raises(StageError, match="read each other"):
        value(spec((y[n, i], z[n, i]), (z[n, i], y[n, i] + x[n, i])), x=X)


def test_an_unknown_function_is_an_error() -> None:
    with pytest.raises(StageError, match="no function gamma"):
        value(spec((y[n, i], sp.gamma(x[n, i]))), x=X)


CONVENTIONS = [
    ("x/‖x‖ at 0", x[n, i] / sp.sqrt(sp.Sum(x[n, k] ** 2, k)), 0.0, 0.0),
    ("‖x‖ at 0", sp.sqrt(sp.Sum(x[n, k] ** 2, k)) + 0 * x[n, i], 0.0, 0.0),
    ("relu at 0", sp.Max(x[n, i], 0), 0.0, 0.0),
    ("|x| at 0", sp.Abs(x[n, i]), 0.0, 0.0),
    ("Max(x, -x) at 0", sp.Max(x[n, i], 3 * x[n, i]), 0.0, 2.0),
    ("softmax of a masked row", sp.exp(x[n, i]) / sp.Sum(sp.exp(x[n, k]), k), -np.inf, 0.0),
    ("shifted", sp.exp(x[n, i] - jc.MaxOver(x[n, k], k)) / sp.Sum(sp.exp(x[n, k] - jc.MaxOver(x[n, k], k)), k),
     -np.inf, 0.0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [complex, object])
@pytest.mark.parametrize("what, body, at, slope", CONVENTIONS, ids=[row[0] for row in CONVENTIONS])
def test_conventions(what: str, body: Any, at: float, slope: float, dtype: Any) -> None:
    """Value 0, and the published derivative along x[0, 0], in complex step over NumPy and mpmath."""
    layer = spec((y[n, i], body))
    values = scalars.convert(np.full((1, 2, 1), at), np.dtype(object if dtype is object else float))
    along = np.array([[[1], [0]]]) if np.isfinite(at) else np.zeros((1, 2, 1), dtype=int)
    data = scalars.perturbed(values, along)
    got = written.evaluate(layer, {"x": data}, {"N": 1, "D": 2}, arithmetic=Plain(dtype))["y"]
    assert abs(complex(got[0, 0, 0]).real) < 1e-90
    assert float(scalars.derivative(got)[0, 0, 0]) == pytest.approx(slope, abs=1e-12)


ROUGH = [
    x[n, i] * sp.exp(x[n, i]) / sp.Sum(sp.exp(x[n, k]), k),
    sp.tanh(x[n, i]) * sp.erf(x[n, i]) + sp.log(1 + sp.exp(-sp.Abs(x[n, i]))),
    sp.Product(x[n, k], k) * jc.MaxOver(x[n, k], k) + sp.Min(x[n, i], x[n, 0]),
    sp.atan2(x[n, i], 1 + x[n, 0] ** 2) * sp.sqrt(1 + sp.Sum(x[n, k] ** 2, k)),
    (1 + x[n, i] ** 2) ** x[n, 0] + jc.pad(x[n, i - 1]) ** 3,
    sp.Sum(x[before, i] * sp.KroneckerDelta(before, n), before) / (2 + sp.sin(x[n, i])),
]


@pytest.mark.parametrize("body", ROUGH, ids=str)
def test_the_bounded_arithmetic_has_the_derivatives_of_complex_step_and_bounds_rounding(body: Any) -> None:
    layer = spec((y[n, i], body))
    seeds = np.eye(X.size).reshape(*X.shape, X.size)
    stepped = written.evaluate(
        layer, {"x": scalars.perturbed(X[..., None], seeds)}, SIZES, arithmetic=Plain(complex), batch=X.size
    )["y"]
    start = Bounded(float).seeded(X, seeds)
    bounded = written.evaluate(layer, {"x": start}, SIZES, arithmetic=Bounded(float), batch=X.size)["y"]
    with mpmath.workdps(40):
        start = Bounded(object).seeded(X, seeds)
        truth = written.evaluate(layer, {"x": start}, SIZES, arithmetic=Bounded(object), batch=X.size)["y"]
        eps = 2.0**-53
        assert np.all(abs(stepped.real - truth.v) <= 4 * eps * bounded.m)
        assert np.all(abs(scalars.derivative(stepped) - truth.d) <= 4 * eps * bounded.dm + 1e-300)
        assert np.all(abs(bounded.d - truth.d) <= 4 * eps * bounded.dm + 1e-300)
        assert np.all(abs(bounded.dm - truth.dm) <= 1e-3 * bounded.dm + 1e-9)


def test_a_magnitude_counts_terms_that_cancel() -> None:
    layer = spec((y[n, i], sp.Sum(x[n, k], k) - sp.Sum(x[n, k], k) + 1 - sp.tanh(x[n, i]) ** 2))
    start = Bounded(float).seeded(X, np.zeros((*X.shape, 1)))
    got = written.evaluate(layer, {"x": start}, SIZES, arithmetic=Bounded(float))["y"]
    assert np.all(got.m[..., 0] >= 1 + np.tanh(X) ** 2)


def test_reciprocal_functions_and_steps() -> None:
    for function in (sp.coth, sp.sec, sp.csc, sp.cot, sp.sech, sp.csch):
        expected = [[float(function(sp.Float(v))) for v in row] for row in X]
        assert np.allclose(value(spec((y[n, i], function(x[n, i]))), x=X), expected, rtol=1e-12)
    stepped = value(spec((y[n, i], sp.Heaviside(x[n, i], sp.Rational(1, 3)))), x=np.array([[-1.0, 0, 2, np.inf]] * 3))
    assert close(stepped, [[0, 1 / 3, 1, 1]] * 3)

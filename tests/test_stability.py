"""No NaN and no infinity where the true value is representable, and the error of every layer against mpmath.

`pytest tests/test_stability.py -s -k table` prints, for each layer and scale of its inputs, the largest error of its
outputs and of its Jacobian through the VJP, in units of `eps · Σ|terms|`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from sympy import Eq, Sum, exp, log

import jaccomp as jc
from jaccomp.layers import get, names
from jaccomp.reference import sampling
from jaccomp.reference.ladder import TOLERANCE
from jaccomp.reference.sampling import Sample
from jaccomp.reference.truth import entries, truth

EPS = np.finfo(np.float64).eps
TINY = 1e-300
LARGEST = np.finfo(np.float64).max
SCALES = (1e-3, 1.0, 1e2, 1e4)
UNBOUNDED = {"poisson_nll": 1e2}
"""Layers whose own value overflows beyond a scale: exp(10⁴) is not representable."""
QUADRATIC = {"attention": 30.0, "masked_attention": 30.0, "causal_attention": 30.0}
"""Scores are products of two inputs: beyond these scales rounding a score alone moves a weight by more than it is."""
LAYERS = tuple(
    name
    for name in names()
    if not name.startswith(("conv", "depthwise", "causal_conv", "avgpool", "global", "maxpool", "max_pool", "sum_pool"))
)
"""All but windows over images and sequences, which have nothing to overflow."""


def sample(name: str, scale: float) -> Sample:
    spec = get(name).spec
    rng = np.random.default_rng([names().index(name), 7])
    drawn = sampling.draw(spec, "small", sampling.small(spec, rng), rng)
    assert drawn is not None
    scaled = {
        t.name: drawn.inputs[t.name] * scale
        for t in spec.inputs
        if t.dtype == "real" and drawn.kinds[t.name] == "normal"
    }
    return drawn.replaced(f"scale {scale:g}", scaled)


@cache
def errors(name: str, scale: float) -> tuple[float, float]:
    """(of the outputs, of the Jacobian), in units of `eps · Σ|terms|`; asserts that finite entries are finite."""
    layer, one = get(name), sample(name, scale)
    spec = layer.spec
    exact = truth(spec, one, entries(spec, one, 10_000, np.random.default_rng(0)), exact=True)
    kernel = jc.compile(layer, backend="numpy")
    arrays = [one.inputs[t.name] for t in spec.inputs]
    loose = {key: one.sizes[key] for key in sampling.loose_sizes(spec)}
    found, pullback = kernel.vjp(*arrays, **one.scalars, **loose)
    outputs = [t for t in spec.outputs if t.dtype == "real"]
    values = dict(zip((t.name for t in spec.outputs), found if isinstance(found, tuple) else (found,), strict=True))
    if scale > QUADRATIC.get(name, np.inf):
        everything = [*values.values(), *(p for p in pullback(np.ones_like(found)) if p is not None)]
        assert all(np.isfinite(one).all() for one in everything)
        return 0.0, 0.0
    worst = max(_worst(values[t.name], exact.values[t.name], exact.terms[t.name]) for t in outputs)
    slope = 0.0
    for t in outputs:
        shape = np.shape(values[t.name])
        for at in np.ndindex(*shape):
            cotangents = [np.zeros(np.shape(values[o.name])) for o in outputs]
            cotangents[outputs.index(t)][at] = 1.0
            pulled = pullback(*cotangents) if len(outputs) == 1 else pullback(tuple(cotangents))
            row = np.concatenate([np.ravel(p) for p in pulled if p is not None])
            slope = max(slope, _worst(row, exact.slopes[t.name][at], exact.slope_terms[t.name][at]))
    return worst, slope


def _worst(found: Any, expected: Any, terms: Any) -> float:
    found, expected, terms = (np.asarray(one, dtype=float) for one in (found, expected, terms))
    representable = np.isfinite(expected) & (np.abs(expected) < LARGEST)
    assert np.isfinite(found[representable]).all(), "a representable value came out infinite or as NaN"
    error = np.abs(found - expected)[representable]
    return float(np.max(error / (EPS * terms[representable] + TINY), initial=0.0))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", LAYERS)
def test_finite_and_right_up_to_ten_thousand(name: str, scale: float) -> None:
    if scale > UNBOUNDED.get(name, np.inf):
        pytest.skip("the value itself is not representable")
    forward, backward = errors(name, scale)
    assert forward <= TOLERANCE and backward <= TOLERANCE


def test_the_table_of_errors() -> None:
    """Printed with -s; every number in it is the one that the tests above hold to the tolerance."""
    rows = [f"{'layer':24}" + "".join(f"{f'|x| ~ {scale:g}':>22}" for scale in SCALES)]
    for name in LAYERS:
        cells = []
        for scale in SCALES:
            if scale > UNBOUNDED.get(name, np.inf):
                cells.append(f"{'-':>22}")
            else:
                forward, backward = errors(name, scale)
                cells.append(f"{forward:>12.2g} {backward:>9.2g}")
        rows.append(f"{name:24}" + "".join(cells))
    print("\nlargest error of (outputs, Jacobian) in units of eps Σ|terms|\n" + "\n".join(rows))
    assert len(rows) == len(LAYERS) + 1


# ------------------------------------------------------------------------------------------------------- masked rows

OO = np.inf


def kernel(name: str) -> Any:
    return jc.compile(get(name), backend="numpy")


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_masked_entries_have_no_weight_and_no_cotangent(name: str) -> None:
    x = np.array([[1.0, -OO, 2.0], [-OO, -OO, 0.5]])
    y, pullback = kernel(name).vjp(x)
    kept = np.isfinite(x)
    (dx,) = pullback(np.where(np.isfinite(y), 1.0, 0.0) * np.arange(1.0, 1.0 + y.size).reshape(y.shape))
    assert np.isfinite(dx).all() and (dx[~kept] == 0).all()
    expected = np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True))
    if name == "softmax":
        np.testing.assert_allclose(y, expected, rtol=1e-15)
    elif name == "log_softmax":
        np.testing.assert_allclose(y[kept], np.log(expected[kept]), rtol=1e-14, atol=1e-16)
    else:
        np.testing.assert_allclose(y, np.logaddexp.reduce(x, axis=1), rtol=1e-15)


@pytest.mark.parametrize("name", ["softmax", "softmin"])
def test_a_fully_masked_row_is_zeros(name: str) -> None:
    sign = 1.0 if name == "softmax" else -1.0
    x = sign * np.array([[-OO, -OO], [0.0, 1.0]])
    y, pullback = kernel(name).vjp(x)
    (dx,) = pullback(np.array([[1.0, 2.0], [1.0, 2.0]]))
    np.testing.assert_array_equal(y[0], [0.0, 0.0])
    np.testing.assert_array_equal(dx[0], [0.0, 0.0])
    assert np.isfinite(y).all() and np.isfinite(dx).all()


def test_logsumexp_of_a_fully_masked_row_is_minus_infinity_without_a_cotangent() -> None:
    y, pullback = kernel("logsumexp").vjp(np.array([[-OO, -OO]]))
    assert y[0] == -OO
    np.testing.assert_array_equal(pullback(np.ones(1))[0], [[0.0, 0.0]])


def test_attention_under_a_mask_of_minus_infinities() -> None:
    rng = np.random.default_rng(4)
    q, k, v = (rng.standard_normal((1, 3, 2)) for _ in range(3))
    mask = np.array([[0.0, -OO, 0.0], [-OO, -OO, -OO], [0.0, 0.0, -OO]])
    o, pullback = kernel("masked_attention").vjp(q, k, v, mask)
    dq, dk, dv, dmask = pullback(np.ones_like(o))
    assert all(np.isfinite(one).all() for one in (o, dq, dk, dv, dmask))
    np.testing.assert_array_equal(o[0, 1], 0.0)
    np.testing.assert_array_equal(dq[0, 1], 0.0)
    np.testing.assert_array_equal(dmask[~np.isfinite(mask)], 0.0)


def test_weights_of_the_past_alone_never_see_the_scores_after_it() -> None:
    """exp(s[t,m] - max over the past) overflows for m > t: the derivatives must not multiply it by 0."""
    N, D = jc.size("N D")
    n, d, m, past = jc.index("n", N), jc.index("d", D), jc.index("m", N), jc.index("past", jc.index("n", N) + 1)
    q, k, v, o = (jc.tensor(name, N, D) for name in "qkvo")
    s, z = jc.tensor("s", N, N), jc.tensor("z", N)
    weighed = Sum(exp(s[n, past]) * v[past, d], past) / z[n]
    equations = [Eq(s[n, m], Sum(q[n, d] * k[m, d], d)), Eq(z[n], Sum(exp(s[n, past]), past)), Eq(o[n, d], weighed)]
    written = jc.compile(jc.Layer("past", inputs=[q, k, v], outputs=[o], equations=equations), backend="numpy")
    rng = np.random.default_rng(2)
    given = [rng.standard_normal((5, 4)) * scale for scale in (40.0, 40.0, 1.0)]
    found, pullback = written.vjp(*given)
    wanted, wanted_pullback = kernel("causal_attention").vjp(given[0] * 2, *given[1:])
    ct = rng.standard_normal((5, 4))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-300)
    for one, other, factor in zip(pullback(ct), wanted_pullback(ct), (2.0, 1.0, 1.0), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other * factor, rtol=1e-6, atol=1e-12)


def test_a_logarithm_of_a_mean_of_exponentials_does_not_overflow() -> None:
    N, D = jc.size("N D")
    n, d = jc.index("n", N), jc.index("d", D)
    x, y = jc.tensor("x", N, D), jc.tensor("y", N)
    mean = jc.Layer("lme", inputs=[x], outputs=[y], equations=[Eq(y[n], log(Sum(exp(x[n, d]), d) / D))])
    given = np.array([[1e3, 1e3], [-1e3, -1e3]])
    found, pullback = jc.compile(mean, backend="numpy").vjp(given)
    np.testing.assert_allclose(found, [1e3, -1e3], rtol=1e-15)
    np.testing.assert_allclose(pullback(np.ones(2))[0], 0.5, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("name", ["l2_norm", "l2_normalize"])
def test_a_norm_at_the_origin(name: str) -> None:
    y, pullback = kernel(name).vjp(np.array([[0.0, 0.0], [3.0, 4.0]]))
    (dx,) = pullback(np.ones_like(y))
    assert np.isfinite(y).all() and np.isfinite(dx).all()
    np.testing.assert_array_equal(dx[0], [0.0, 0.0])
    np.testing.assert_array_equal(np.ravel(y[0]), 0.0)


def test_cosine_similarity_of_a_zero_vector() -> None:
    y, pullback = kernel("cosine_similarity").vjp(np.zeros((1, 3)), np.ones((1, 3)))
    assert y[0] == 0 and all(np.isfinite(one).all() for one in pullback(np.ones(1)))


def test_equal_rows_in_a_triplet() -> None:
    rows = np.ones((2, 3))
    loss, pullback = kernel("triplet_margin").vjp(rows, rows, rows)
    assert loss == pytest.approx(1.0) and all((one == 0).all() for one in pullback(1.0))


# ------------------------------------------------------------------------------------------------------------- tails

TAILS = (
    ("sigmoid", lambda mp, x: 1 / (1 + mp.exp(-x))),
    ("softplus", lambda mp, x: mp.log1p(mp.exp(x))),
    ("log_sigmoid", lambda mp, x: -mp.log1p(mp.exp(-x))),
    ("silu", lambda mp, x: x / (1 + mp.exp(-x))),
    ("tanh", lambda mp, x: mp.tanh(x)),
)


def test_one_plus_a_hyperbolic_tangent_keeps_its_digits() -> None:
    """`1 + tanh(u)` is `2 σ(2u)`, and so is the same sum among other addends."""
    import mpmath

    def gelu(x: Any) -> Any:
        return x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))) / 2

    x = np.array([-12.0, -9.0, -6.0, -3.0, -1.0, 0.5, 4.0])
    y, pullback = kernel("gelu_tanh").vjp(x)
    (dx,) = pullback(np.ones_like(x))
    with mpmath.workdps(150):
        for at, value, slope in zip(x, y, dx, strict=True):
            assert value == pytest.approx(float(gelu(mpmath.mpf(at))), rel=1e-13, abs=0)
            assert slope == pytest.approx(float(mpmath.diff(gelu, mpmath.mpf(at), h=mpmath.mpf(10) ** -70)), rel=1e-12)


@pytest.mark.parametrize(("name", "function"), TAILS, ids=[name for name, _ in TAILS])
def test_tails_keep_their_digits(name: str, function: Any) -> None:
    """Relative to the value itself: `1 - σ(x)` and `1 - tanh²(x)` must not round to 0 where they are 10⁻³⁰⁰."""
    import mpmath

    x = np.array([-700.0, -300.0, -40.0, -20.0, -2.0, 2.0, 20.0, 40.0, 300.0, 700.0])
    x = x if name != "tanh" else x / 2.1
    y, pullback = kernel(name).vjp(x)
    (dx,) = pullback(np.ones_like(x))
    with mpmath.workdps(700):
        for at, value, slope in zip(x, y, dx, strict=True):
            expected = function(mpmath, mpmath.mpf(at))
            assert value == pytest.approx(float(expected), rel=1e-13, abs=1e-300)
            assert slope == pytest.approx(
                float(mpmath.diff(lambda z: function(mpmath, z), at, h=mpmath.mpf(10) ** -200)), rel=1e-12, abs=1e-300
            )

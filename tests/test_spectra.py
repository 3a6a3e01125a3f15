"""Spectra of operators against dense decompositions; estimates by random probes within their own errors."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from math import log
from typing import Any

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from scipy.special import digamma

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis import densities
from jaccomp.analysis.architecture import deep, gaussian
from jaccomp.analysis.densities import density, frobenius, log_volume
from jaccomp.analysis.depth import at_depths
from jaccomp.analysis.model import Linearisation, Model, dense
from jaccomp.analysis.products import depth_exponents, lyapunov, product_bound, stage_bound
from jaccomp.analysis.spectra import condition, singular_values, spectrum
from jaccomp.errors import UsageError


@cache
def network(depth: int = 6, width: int = 48, rows: int = 4, residual: bool = False) -> Linearisation:
    rng = np.random.default_rng(0)
    chain = deep(L.tanh, depth, residual=residual)
    model = Model(chain, gaussian(chain, width, rng, sigma_w=1.3))
    return model.at(rng.standard_normal((rows, width)))


@cache
def exact() -> np.ndarray:
    return np.linalg.svd(dense(network().operator()), compute_uv=False)


def operator(values: Any, seed: int = 0, rows: int = 0) -> Any:
    """An operator with these singular values, and random vectors."""
    rng = np.random.default_rng(seed)
    n = len(values)
    left = np.linalg.qr(rng.standard_normal((max(rows, n), n)))[0]
    return aslinearoperator(left @ np.diag(values) @ np.linalg.qr(rng.standard_normal((n, n)))[0])


@pytest.mark.parametrize("method", ["dense", "svds", "lobpcg"])
def test_the_top_ten_agree_with_a_dense_decomposition(method: Any) -> None:
    J = network().operator()
    found = singular_values(J, 10, method=method)
    np.testing.assert_allclose(found.values, exact()[:10], rtol=1e-8)
    assert found.residuals.max() < 1e-5 and found.method == method
    np.testing.assert_allclose(found.left.T @ found.left, np.eye(10), atol=1e-8)
    np.testing.assert_allclose(found.right.T @ found.right, np.eye(10), atol=1e-8)


@pytest.mark.parametrize("method", ["dense", "svds", "lobpcg"])
def test_the_smallest_are_found_where_they_are_well_apart(method: Any) -> None:
    values = np.concatenate([[0.01, 0.02, 0.03], np.linspace(1, 2, 57)])
    found = singular_values(operator(values, rows=70), 3, which="smallest", method=method)
    np.testing.assert_allclose(found.values, [0.03, 0.02, 0.01], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_residual_bounds_the_distance_to_a_singular_value(steps: int) -> None:
    """For a unit pair (u, v) with both residuals at most r, some σ lies within √2 r."""
    found = singular_values(network().operator(), 4, method="lobpcg", steps=steps)
    norms = np.linalg.norm(found.left, axis=0), np.linalg.norm(found.right, axis=0)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)
    apart = np.abs(found.values[:, None] - exact()).min(axis=1)
    assert (apart <= np.sqrt(2) * found.residuals + 1e-12).all()
    assert steps > 2 or found.residuals.max() > 1e-3, "so few steps do not converge"


METHODS = ("auto", "dense", "svds", "lobpcg")


def low_rank(rows: int, columns: int, rank: int) -> np.ndarray:
    rng = np.random.default_rng(rank)
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


DEGENERATE = {
    "zero": np.zeros((90, 60)),
    "zero and wide": np.zeros((60, 90)),
    "rank 2": low_rank(90, 60, 2),
    "rank 2 and wide": low_rank(60, 90, 2),
    "identity": np.eye(60),
    "integers": np.random.default_rng(0).integers(-3, 4, (90, 60)),
    "float32": low_rank(90, 60, 60).astype(np.float32),
    "tiny": 1e-200 * low_rank(90, 60, 60),
    "huge": 1e200 * low_rank(90, 60, 60),
}


@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_operators_have_right_values_and_residuals(name: str, method: Any, which: Any) -> None:
    """Values and orthonormality to rounding, residuals to √ε where a Gram operator gave the vectors."""
    A = DEGENERATE[name]
    truth = np.linalg.svd(A.astype(float), compute_uv=False)
    size, eps = max(float(truth[0]), 1e-300), float(np.finfo(A.dtype if A.dtype.kind == "f" else float).eps)
    expected = truth[:5] if which == "largest" else truth[-5:]
    for given in (A, aslinearoperator(A)):
        found = singular_values(given, 5, method=method, which=which)
        np.testing.assert_allclose(found.values / size, expected / size, atol=100 * eps)
        assert (found.residuals / size <= (10 * np.sqrt(eps) if method in ("svds", "lobpcg") else 100 * eps)).all()
        for vectors in (found.left, found.right):
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=100 * eps)


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (1, 1)])
def test_operators_of_one_row_or_column_have_one_singular_value(shape: tuple[int, int]) -> None:
    A = np.random.default_rng(0).standard_normal(shape)
    for which in ("largest", "smallest"):
        found = singular_values(A, 1, which=which)
        assert found.values[0] == pytest.approx(np.linalg.norm(A)) and found.residuals[0] < 1e-12
        with pytest.raises(UsageError, match="svds finds fewer than 1"):
            singular_values(A, 1, which=which, method="svds")
    assert condition(A).value == pytest.approx(1)
    assert density(A).moment(1).value == pytest.approx(float((A**2).sum()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(wrong: float, method: Any) -> None:
    A = low_rank(90, 60, 60)
    A[3, 4] = wrong
    calls = [lambda J: singular_values(J, 3, method=method), spectrum, density, frobenius, log_volume, condition]
    for call in calls:
        with pytest.raises(UsageError, match=r"(?s)a product with the operator is NaN or infinite\..*the parameters"):
            call(aslinearoperator(A))  # type: ignore[operator]


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_where_arpack_does_not_converge_lobpcg_goes_on_with_honest_residuals(which: Any) -> None:
    """Singular values 1e-9 apart, in 3 iterations: each found is as near to one as its residual."""
    values = 1 + 1e-9 * np.arange(120.0)
    found = singular_values(np.diag(values), 4, method="svds", which=which, steps=3)
    assert found.method == "lobpcg" and found.values.shape == (4,)
    apart = np.abs(found.values[:, None] - values).min(axis=1)
    assert (apart <= np.sqrt(2) * found.residuals + 1e-14).all()
    few = singular_values(np.diag(values[:18]), 4, method="svds", which=which, steps=1)
    assert few.method in ("svds", "dense") and few.residuals.max() < 1e-13


def test_lobpcg_that_breaks_down_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("eigh has failed")

    monkeypatch.setattr("scipy.sparse.linalg.lobpcg", broken)
    with pytest.raises(UsageError, match="LOBPCG broke down: eigh has failed"):
        singular_values(DEGENERATE["integers"], 3, method="lobpcg")


def test_a_volume_in_single_precision_is_finite() -> None:
    """65536 singular values from 0.05 to 1: 65536 eps is 0.008, and more than the least σ²."""
    values = np.linspace(0.05, 1, 1 << 16, dtype=np.float32)
    scaled = values[:, None]
    J = LinearOperator(
        (len(values), len(values)), dtype=np.float32,
        matvec=lambda x: values * x.reshape(-1), rmatvec=lambda x: values * x.reshape(-1),
        matmat=lambda x: scaled * x, rmatmat=lambda x: scaled * x,
    )  # fmt: skip
    truth = float(np.log(values.astype(float)).sum())
    few, more = (log_volume(J, probes=4, steps=steps) for steps in (6, 24))
    assert few.agrees(truth, 1) and more.agrees(truth, 1)  # signs are exact for a diagonal: the rule is all there is
    assert more.error < few.error / 4 and more.error < 5e-3 * abs(truth)


def test_a_spectrum_counts_its_rank() -> None:
    found = spectrum(operator([3.0, 2.0, 1.0, 0.0], rows=6))
    assert (found.rank, found.condition) == (3, float("inf"))
    whole = spectrum(operator([4.0, 2.0]))
    np.testing.assert_allclose(whole.values, [4, 2])
    assert whole.condition == pytest.approx(2) and "rank 2" in str(whole)


# Sums over the spectrum


def test_a_density_of_all_steps_is_exact_for_one_probe() -> None:
    """The Gauss rule of n steps integrates any f against the probe's own measure: zᵀ f(JᵀJ) z."""
    J = operator(np.linspace(0.5, 2, 12))
    A = dense(J)
    found = density(J, probes=3, steps=12, seed=4)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-12)
    z = np.random.default_rng(4).choice([-1.0, 1.0], (12, 3)) / np.sqrt(12)
    w, q = np.linalg.eigh(A.T @ A)
    expected = ((q.T @ z) ** 2 * np.log(w)[:, None]).sum(axis=0).mean()
    assert found.expect(np.log).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_moments_lie_within_their_errors(power: int) -> None:
    """Of 30 means of 10 probes none is off by 4.5 standard errors (1 in 700 each), most are within 2."""
    J, truth = network().operator(), float((exact() ** (2 * power)).mean())
    found = [density(J, probes=10, steps=8, seed=seed).moment(power) for seed in range(30)]
    assert all(one.agrees(truth, 4.5) for one in found)
    assert sum(one.agrees(truth, 2) for one in found) >= 23


def test_the_cumulative_density_is_the_share_below() -> None:
    values = np.concatenate([np.full(40, 0.5), np.full(20, 2.0)])
    found = density(operator(values), probes=20, steps=10)
    shares, errors = found.cumulative([0.1, 1.0, 5.0])
    np.testing.assert_allclose(shares[[0, 2]], [0, 1], atol=1e-9)
    assert abs(shares[1] - 2 / 3) <= 4 * errors[1]
    points = np.linspace(-2, 7, 4001)
    smooth, _ = found.smooth(points, 0.1)
    assert float(np.trapezoid(smooth, points)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("rows", [24, 40])
def test_norm_and_volume_lie_within_their_errors(rows: int) -> None:
    values = np.linspace(0.4, 2.5, 24)
    norm, volume = float(np.sqrt((values**2).sum())), float(np.log(values).sum())
    for J in (operator(values, rows=rows), operator(values, rows=rows).T):
        norms = [frobenius(J, probes=12, seed=seed) for seed in range(20)]
        volumes = [log_volume(J, probes=12, steps=24, seed=seed) for seed in range(20)]
        for found, truth in ((norms, norm), (volumes, volume)):
            assert all(one.agrees(truth, 4.5) for one in found)
            assert sum(one.agrees(truth, 2) for one in found) >= 15
            assert all(one.error > 0 for one in found)
        assert frobenius(J, probes=24).agrees(norm, 1e-9) or abs(frobenius(J, probes=24).value - norm) < 1e-12
    assert log_volume(operator([1.0, 0.5, 0.0]), steps=3).value == -np.inf


def test_probes_beyond_the_kept_basis_run_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    J = network().operator()
    together = density(J, probes=5, steps=6)
    monkeypatch.setattr(densities, "BASIS", 1)
    np.testing.assert_allclose(density(J, probes=5, steps=6).nodes, together.nodes, rtol=1e-9)


@pytest.mark.parametrize("method", ["auto", "svds", "lobpcg"])
def test_condition_numbers(method: Any) -> None:
    values = np.concatenate([[0.05], np.linspace(0.5, 2, 40)])
    found = condition(operator(values), method=method)
    assert found.value == pytest.approx(40, rel=1e-5)
    assert condition(operator([1.0, 2.0, 0.0])).value == float("inf")


# Products


def test_the_product_of_norms_bounds_the_norm_of_the_product() -> None:
    at = network()
    found = product_bound(at)
    assert found.norm == pytest.approx(exact()[0], rel=1e-9)
    assert [one.name for one in found.factors] == [f"{s}{k}" for k in range(6) for s in ("fc", "act")]
    for one in found.factors:
        if one.name.startswith("fc"):
            W = at.model.parameters[f"{one.name}_W"]
            assert one.norm == pytest.approx(np.linalg.norm(W, 2), rel=1e-8)
            assert one.bound is not None and not one.bound.always
        else:
            assert one.bound is not None and (one.bound.value, one.bound.always) == (1.0, True)
        assert one.norm <= one.bound.value * (1 + 1e-9)
    assert found.norm <= found.product and found.looseness > 1
    assert found.bound is not None and found.product <= found.bound
    assert json.loads(found.json())["looseness"] == found.looseness
    whole = product_bound(at, by="layers")
    assert len(whole.factors) == 6 and found.norm <= whole.product <= found.product * (1 + 1e-9)


def test_a_residual_layer_is_bounded_by_the_sum_over_its_paths() -> None:
    at = network(depth=2, width=8, rows=2, residual=True)
    found = product_bound(at)
    assert [one.name for one in found.factors] == ["fc0+act0+sum0", "fc1+act1+sum1"]
    for k, one in enumerate(found.factors):
        fc = stage_bound(at, at.model.chain.stages[3 * k], "y", "x")
        assert fc is not None and one.bound is not None
        assert one.bound.value == pytest.approx(1 + fc.value)
        assert one.norm <= one.bound.value


def test_a_dense_stage_has_no_bound() -> None:
    x = np.random.default_rng(0).standard_normal((2, 1, 6))
    at = Model(L.maxpool1d, backend="numpy", kernel=2).at(x)
    (placed,) = at.model.chain.stages
    assert stage_bound(at, placed, "y", "x") is None


def test_exponents_of_gaussian_products_are_newmans() -> None:
    """½ (log 2 + ψ((n - k + 1)/2)) for entries of variance 1 (Newman, 1986), within 4 standard errors."""
    n, rng = 6, np.random.default_rng(3)
    found = lyapunov((rng.standard_normal((n, n)) for _ in range(4000)), n, skip=20)
    truth = [(log(2) + digamma((n - k) / 2)) / 2 for k in range(n)]
    assert (np.abs(found.exponents - truth) <= 4 * found.errors).all()
    assert (found.errors < 0.03).all() and found.factors == 3980


def test_exponents_of_one_repeated_matrix_are_its_eigenvalues() -> None:
    A = np.diag([2.0, 1.0, 0.5]) + np.triu(np.ones((3, 3)), 1)
    found = lyapunov([A] * 400, 3, skip=60)
    np.testing.assert_allclose(found.exponents, np.log([2, 1, 0.5]), atol=1e-9)


def test_exponents_of_integer_and_of_dead_factors() -> None:
    """Arnold's cat map, whose eigenvalues are the golden ratio's squares; what ends at 0 shrinks without bound."""
    found = lyapunov([[[2, 1], [1, 1]]] * 60, 2, skip=20)
    np.testing.assert_allclose(found.exponents, np.array([1, -1]) * np.log((3 + 5**0.5) / 2), rtol=1e-12)
    dead = lyapunov([np.eye(2), np.zeros((2, 2)), np.eye(2)])
    assert dead.exponents[0] == -np.inf and "grows 0 times" in str(dead)


def test_a_dead_product_is_not_called_loose() -> None:
    at = network()
    dead = at.model.having({"fc2_W": np.zeros((48, 48))}).at(at.values["x"])
    found = product_bound(dead)
    assert (found.norm, found.product, found.looseness) == (0.0, 0.0, 1.0)


def test_exponents_of_a_deep_and_of_a_recurrent_chain() -> None:
    at = network()
    found = depth_exponents(at, count=2)
    frame = np.linalg.qr(np.random.default_rng(0).standard_normal((at.values["x"].size, 2)))[0]
    J = at.operator()
    r = np.linalg.qr(J @ frame)[1]
    np.testing.assert_allclose(np.sort(found.exponents * 6), np.sort(np.log(np.abs(np.diag(r)))), rtol=1e-8)
    steps: dict[str, Any] = {f"step{k}": jc.stage(L.rnn_cell, h=f"step{k - 1}" if k else "input") for k in range(8)}
    chain = jc.chain("rnn", **steps)
    rng = np.random.default_rng(1)
    W, U, b = 1.1 * np.linalg.qr(rng.standard_normal((4, 4)))[0], rng.standard_normal((4, 3)), np.zeros(4)
    parameters = recurrent(chain, W, U, b, rng)
    at = Model(chain, parameters, backend="numpy").at(np.zeros((1, 4)))
    unrolled = depth_exponents(at, count=1)
    v = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 1)))[0]
    expected = log(np.linalg.norm(dense(at.operator()) @ v)) / 8
    assert unrolled.exponents[0] == pytest.approx(expected, rel=1e-9) and unrolled.factors == 8


def recurrent(chain: Any, W: Any, U: Any, b: Any, rng: Any) -> dict[str, Any]:
    """The same weights at every step, and inputs of their own."""
    found: dict[str, Any] = {}
    for placed in chain.stages:
        for tensor in placed.layer.spec.inputs:
            if tensor.name in placed.sources:
                continue
            if tensor.name == "x":
                value: Any = rng.standard_normal((1, 3))
            elif len(tensor.shape) == 1:
                value = b
            else:
                value = U if str(tensor.shape[1]) == "I" else W
            found[placed.inputs[tensor.name]] = value
    return found


LARGE = """
import resource
import numpy as np
from jaccomp import layers as L
from jaccomp.analysis.architecture import deep, gaussian
from jaccomp.analysis.model import Model
from jaccomp.analysis.depth import at_depths
from jaccomp.analysis.densities import density, frobenius
from jaccomp.analysis.spectra import singular_values

rng, width = np.random.default_rng(0), 4096
chain = deep(L.tanh, 8)
weights = {}
for k in range(8):
    W = rng.standard_normal((width, width), dtype=np.float32)
    W /= np.float32(width**0.5)
    weights |= {f"fc{k}_W": W, f"fc{k}_b": np.zeros(width, np.float32)}
at = Model(chain, weights).at(rng.standard_normal((64, width), dtype=np.float32))
J = at.operator()
assert J.shape == (64 * width, 64 * width) and J.dtype == np.float32
top = singular_values(J, 1, method="lobpcg", steps=8, tolerance=1e-3)
assert 1 < top.values[0] < 10 and top.residuals[0] < top.values[0] / 4, top
norm = frobenius(J, probes=2)
assert norm.value / J.shape[0] ** 0.5 < top.values[0] < norm.value
moment = density(J, probes=1, steps=2).moment(1)
assert abs(moment.value * J.shape[0] / norm.value**2 - 1) < 0.05
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_chain_of_eight_layers_of_64_by_4096_needs_less_than_1_gb() -> None:
    """Weights of 537 MB in float32, and what the analysis adds; the explicit Jacobian has 275 GB."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert peak < 1e9


def test_what_is_refused() -> None:
    J = operator(np.ones(30))
    with pytest.raises(UsageError, match="0 of 30 were asked for"):
        singular_values(J, 0)
    with pytest.raises(UsageError, match="svds finds fewer than 30"):
        singular_values(J, 30, method="svds")
    with pytest.raises(UsageError, match="LOBPCG finds fewer than a fifth of 30"):
        singular_values(J, 10, method="lobpcg")
    with pytest.raises(UsageError, match="0 probes of 3 steps"):
        density(J, probes=0, steps=3)
    with pytest.raises(UsageError, match="0 probes were asked for"):
        frobenius(J, probes=0)
    nothing = np.zeros((0, 5))
    for call, said in ((singular_values, "no rows or no columns has none"), (spectrum, "has shape"), (density, "of 0")):
        with pytest.raises(UsageError, match=said):
            call(nothing)  # type: ignore[operator]
    for wrong, said in ((np.ones(3), "has shape"), (1j * np.eye(3), "the operator is complex128")):
        with pytest.raises(UsageError, match=said):
            singular_values(wrong, 1)
    with pytest.raises(UsageError, match=r"3 were asked for, and factor 0 has shape \(2, 2\)"):
        lyapunov([np.eye(2)], 3)
    with pytest.raises(UsageError, match=r"2 were asked for, and factor 1 has shape \(1, 3\)"):
        lyapunov([np.ones((3, 3)), np.ones((1, 3))], 2)
    with pytest.raises(UsageError, match=r"factor 1 has shape \(2, 2\), and the one before it 3 rows"):
        lyapunov([np.ones((3, 3)), np.eye(2)])
    with pytest.raises(UsageError, match="NaN or infinite"):
        lyapunov([np.full((2, 2), np.nan)])
    with pytest.raises(UsageError, match="1 factors, 1 skipped"):
        lyapunov([np.eye(2)], 1, skip=1)


def test_norms_by_depth_need_a_draw() -> None:
    at = network(depth=2, width=8, rows=2)
    found = at_depths(at, "y", "x", draws=2, seed=0)
    assert [len(one) for one in found.singular_values] == [1, 16, 16, 16, 16] and found.singular_values[0] == 1
    assert found.cotangents[-1] == pytest.approx(1)
    with pytest.raises(UsageError, match="0 draws were asked for"):
        at_depths(at, "y", "x", draws=0, seed=0)

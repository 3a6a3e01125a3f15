"""Spectra of a Jacobian that is only an operator: singular values, their density, norm, volume and condition.

    J = model.at(x).operator()
    print(singular_values(J, 10))             σ and ‖J v - σ u‖ of each
    density(J).expect(np.log)                 a mean over all σ², with its standard error
    frobenius(J), log_volume(J), condition(J)

What is extreme comes from Krylov spaces (SciPy's `svds`) or from LOBPCG, each number with the norm of its residual;
what is a sum over the whole spectrum comes from random probes, with a standard error. Seeds are arguments.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.model import dense
from jaccomp.analysis.result import Estimate, Result, mean
from jaccomp.errors import UsageError

Array = NDArray[Any]
Which = Literal["largest", "smallest"]
Method = Literal["auto", "dense", "svds", "lobpcg"]
SMALL = 1 << 25  # bytes of a matrix that is decomposed whole
BASIS = 1 << 28  # bytes of the Lanczos vectors that are kept at once


@dataclass(frozen=True)
class Triplets(Result):
    """Singular values, the largest first, with vectors `left` [rows, k] and `right` [columns, k].

    `residuals` are the larger of ‖J v - σ u‖ and ‖Jᵀ u - σ v‖: some singular value lies that near to each σ.
    """

    LARGE = ("left", "right")

    values: Array
    residuals: Array
    left: Array
    right: Array
    method: str
    seed: int

    @property
    def text(self) -> str:
        lines = [f"  {value:.10g}  residual {r:.1e}" for value, r in zip(self.values, self.residuals, strict=True)]
        return "\n".join([f"{len(self.values)} singular values by {self.method}", *lines])


def singular_values(
    J: Any,
    count: int = 6,
    *,
    which: Which = "largest",
    method: Method = "auto",
    tolerance: float = 0.0,
    steps: int = 1000,
    seed: int = 0,
) -> Triplets:
    """The extreme singular values and vectors of an operator.

    "auto" decomposes a matrix below `SMALL` bytes whole and takes `svds` (ARPACK; Lehoucq, Sorensen and Yang, 1998)
    for larger ones, LOBPCG (Knyazev, 2001) on the Gram operator for their smallest. `tolerance` is the relative
    accuracy that is asked for, 0 for all there is, and `steps` bounds the iterations; what was reached is in
    `residuals`. Raises `UsageError` where `count` is not in 1..min(shape), or the method cannot find so many.
    """
    least = min(J.shape)
    if not 1 <= count <= least:
        raise UsageError("singular values", f"{count} of {least} were asked for.", f"Ask for 1 to {least}.")
    chosen = method
    if method == "auto":
        iterative = "svds" if which == "largest" else "lobpcg"
        chosen = "dense" if _is_small(J) or 5 * count >= least else iterative  # type: ignore[assignment]
    if chosen == "dense":
        u, s, vt = np.linalg.svd(dense(J), full_matrices=False)
        kept = slice(0, count) if which == "largest" else slice(least - count, least)
        return _measured(J, u[:, kept], s[kept], vt[kept].T, "dense", seed)
    found = _svds if chosen == "svds" else _lobpcg
    return _measured(J, *found(J, count, which, tolerance, steps, seed), chosen, seed)


def _is_small(J: Any) -> bool:
    return bool(J.shape[0] * J.shape[1] * np.dtype(J.dtype).itemsize <= SMALL)


def _svds(J: Any, count: int, which: Which, tolerance: float, steps: int, seed: int) -> tuple[Array, Array, Array]:
    from scipy.sparse.linalg import svds

    if count >= min(J.shape):
        raise UsageError("singular values", f"svds finds fewer than {min(J.shape)}.", "Use method='dense'.")
    start = np.random.default_rng(seed).standard_normal(min(J.shape)).astype(J.dtype)
    u, s, vt = svds(J, count, which="LM" if which == "largest" else "SM", v0=start, tol=tolerance, maxiter=steps)
    return u, s, vt.T


def _lobpcg(J: Any, count: int, which: Which, tolerance: float, steps: int, seed: int) -> tuple[Array, Array, Array]:
    from scipy.sparse.linalg import lobpcg

    if 5 * count >= min(J.shape):
        raise UsageError(
            "singular values", f"LOBPCG finds fewer than a fifth of {min(J.shape)}.", "Use method='dense' or 'svds'."
        )
    tall = J.shape[0] >= J.shape[1]
    gram = _gram(J)
    start = np.random.default_rng(seed).standard_normal((gram.shape[0], count)).astype(J.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says how far it came; `residuals` do
        found, vectors = lobpcg(gram, start, largest=which == "largest", tol=tolerance or None, maxiter=steps)
    s = np.sqrt(np.maximum(found, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        others = np.nan_to_num((J.matmat(vectors) if tall else J.rmatmat(vectors)) / s)
    return (others, s, vectors) if tall else (vectors, s, others)


def _measured(J: Any, u: Array, s: Array, v: Array, method: str, seed: int) -> Triplets:
    order = np.argsort(-s, kind="stable")
    u, s, v = u[:, order], s[order], v[:, order]
    ahead = np.linalg.norm(J.matmat(v) - s * u, axis=0)
    back = np.linalg.norm(J.rmatmat(u) - s * v, axis=0)
    return Triplets(s, np.maximum(ahead, back), u, v, method, seed)


def _gram(J: Any) -> Any:
    """JᵀJ or J Jᵀ, whichever is smaller."""
    return J.T @ J if J.shape[0] >= J.shape[1] else J @ J.T


@dataclass(frozen=True)
class Spectrum(Result):
    """All singular values, the largest first, and how many lie above `cutoff` = max(shape) eps σ₁."""

    values: Array
    rank: int
    cutoff: float

    @property
    def condition(self) -> float:
        """σ₁ / σ_min; infinite where the rank is not full."""
        return float(self.values[0] / self.values[-1]) if self.rank == len(self.values) else float("inf")

    @property
    def text(self) -> str:
        low, middle, high = (float(np.quantile(self.values, q)) for q in (0, 0.5, 1))
        return (
            f"{len(self.values)} singular values, rank {self.rank}: largest {high:.6g}, median {middle:.6g}, "
            f"smallest {low:.6g}; condition {self.condition:.4g}"
        )


def spectrum(J: Any) -> Spectrum:
    """All singular values by a dense decomposition. Raises `UsageError` where the matrix is too large to form."""
    values = np.linalg.svd(dense(J), compute_uv=False)
    cutoff = max(J.shape) * float(np.finfo(values.dtype).eps) * float(values[0])
    return Spectrum(values, int((values > cutoff).sum()), cutoff)


# Sums over the whole spectrum


@dataclass(frozen=True)
class Density(Result):
    """The distribution of the squared singular values, by quadrature: `nodes` and `weights` [probes, steps].

    A row's weights sum to 1; its nodes with them give the mean of f over the spectrum, for a polynomial f of degree
    2 steps - 1 as exactly as the probe does (Golub and Meurant, 1994; Ubaru, Chen and Saad, 2017). `count` is how many
    singular values there are, the smaller of the matrix's sides.
    """

    nodes: Array
    weights: Array
    count: int
    seed: int

    def expect(self, function: Callable[[Array], Any]) -> Estimate:
        """The mean of f(σ²) over all singular values, with its standard error over probes."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(self.weights > 0, function(self.nodes), 0.0)
            return mean((self.weights * values).sum(axis=1))

    def moment(self, power: int) -> Estimate:
        """The mean of σ^(2 power)."""
        return self.expect(lambda x: x**power)

    def cumulative(self, points: ArrayLike) -> tuple[Array, Array]:
        """The share of σ² at most at each point, and its standard error over probes."""
        below = self.nodes[:, :, None] <= np.asarray(points, float)
        shares = (self.weights[:, :, None] * below).sum(axis=1)
        errors = (
            shares.std(axis=0, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.full(shares.shape[1], np.nan)
        )
        return shares.mean(axis=0), errors

    def smooth(self, points: ArrayLike, width: float) -> tuple[Array, Array]:
        """The density of σ² seen through a Gaussian of that width (Lin, Saad and Yang, 2016), and its error."""
        z = (np.asarray(points, float) - self.nodes[:, :, None]) / width
        each = (self.weights[:, :, None] * np.exp(-(z**2) / 2)).sum(axis=1) / (width * np.sqrt(2 * np.pi))
        errors = each.std(axis=0, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.full(each.shape[1], np.nan)
        return each.mean(axis=0), errors

    @property
    def text(self) -> str:
        first, second = self.moment(1), self.moment(2)
        return (
            f"σ² of {self.count} singular values by {len(self.nodes)} probes of {self.nodes.shape[1]} steps: "
            f"mean {first}, mean square {second}, from {self.nodes.min():.4g} to {self.nodes.max():.4g}"
        )


def density(J: Any, *, probes: int = 10, steps: int = 60, seed: int = 0) -> Density:
    """The density of JᵀJ, or of J Jᵀ where that is smaller, by stochastic Lanczos quadrature with random signs.

    Each probe z gives the Gauss rule of zᵀ f(JᵀJ) z from `steps` Lanczos steps with full reorthogonalisation; probes
    run beside each other as one batch of columns. Raises `UsageError` where there is no probe or no step.
    """
    if probes < 1 or steps < 1:
        raise UsageError("spectral density", f"{probes} probes of {steps} steps were asked for.", "Ask for 1 or more.")
    n = min(J.shape)
    steps = min(steps, n)
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (n, probes)).astype(J.dtype) / np.sqrt(n)
    together = max(1, BASIS // (n * steps * np.dtype(J.dtype).itemsize))
    gram = _gram(J)
    rules = [_lanczos(gram, signs[:, k : k + together], steps) for k in range(0, probes, together)]
    nodes, weights = (np.concatenate(part) for part in zip(*rules, strict=True))
    return Density(np.maximum(nodes, 0.0), weights, n, seed)


def _lanczos(gram: Any, start: Array, steps: int) -> tuple[Array, Array]:
    """Nodes and weights [probes, steps] of unit columns; one that ends early has weight 0 on what it did not reach."""
    n, probes = start.shape
    basis = np.zeros((steps, n, probes), start.dtype)
    diagonal, beside = np.zeros((probes, steps)), np.zeros((probes, steps))
    alive = np.ones(probes, bool)
    reached = np.zeros(probes, int)
    q = start.astype(start.dtype, copy=True)
    for k in range(steps):
        basis[k] = q
        reached += alive
        w = gram.matmat(q)
        diagonal[:, k] = np.einsum("np,np->p", q, w)
        for _ in range(2):  # twice is enough (Giraud, Langou and Rozložník, 2005)
            w = w - np.einsum("knp,kp->np", basis[: k + 1], np.einsum("knp,np->kp", basis[: k + 1], w))
        length = np.linalg.norm(w, axis=0)
        scale = np.abs(diagonal[:, : k + 1]).max(axis=1)
        alive &= length > 10 * np.finfo(start.dtype).eps * np.maximum(scale, np.finfo(start.dtype).tiny)
        beside[:, k] = np.where(alive, length, 0.0)
        if not alive.any():
            break
        q = np.where(alive, w / np.where(alive, length, 1.0), 0.0)
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    for p in range(probes):
        m = int(reached[p])
        off = beside[p, : m - 1]
        values, vectors = np.linalg.eigh(np.diag(diagonal[p, :m]) + np.diag(off, 1) + np.diag(off, -1))
        nodes[p, :m], weights[p, :m] = values, vectors[0] ** 2
        nodes[p, m:] = values[-1]
    return nodes, weights


def frobenius(J: Any, *, probes: int = 30, seed: int = 0) -> Estimate:
    """‖J‖_F by Hutchinson's estimator of tr JᵀJ (1990), with random signs; exact where there are no more columns.

    The error is that of the mean of ‖J z‖², carried to its square root.
    """
    rows, columns = J.shape
    n = min(rows, columns)
    product = J.matmat if columns <= rows else J.rmatmat
    if n <= probes:
        return Estimate(float(np.linalg.norm(product(np.eye(n, dtype=J.dtype)))), 0.0)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n, probes)).astype(J.dtype)
    squares = mean((np.asarray(product(signs), float) ** 2).sum(axis=0))
    norm = float(np.sqrt(squares.value))
    return Estimate(norm, squares.error / (2 * norm) if norm else 0.0)


def log_volume(J: Any, *, probes: int = 30, steps: int = 60, seed: int = 0) -> Estimate:
    """½ log det JᵀJ, of J Jᵀ where that is smaller: Σ log σ, by stochastic Lanczos quadrature of the logarithm.

    -∞ where a probe meets a σ² below min(shape) eps σ₁². A rule of too few steps for a wide spectrum is biased upwards,
    since -log is convex: compare with more steps.
    """
    found = density(J, probes=probes, steps=steps, seed=seed)
    limit = found.count * float(np.finfo(J.dtype).eps) * float(found.nodes.max())
    each = found.expect(lambda x: np.log(np.where(x > limit, x, 0.0)))
    scale = found.count / 2
    return Estimate(scale * each.value, scale * each.error)


@dataclass(frozen=True)
class Condition(Result):
    """σ₁ / σ_min, the two, and the residual norms of each."""

    value: float
    largest: float
    smallest: float
    residuals: tuple[float, float]

    @property
    def text(self) -> str:
        return (
            f"condition {self.value:.6g}: {self.largest:.6g} (residual {self.residuals[0]:.1e}) over "
            f"{self.smallest:.6g} (residual {self.residuals[1]:.1e})"
        )


def condition(J: Any, *, method: Method = "auto", steps: int = 1000, seed: int = 0) -> Condition:
    """The condition number by both ends of the spectrum; infinite where the least σ is below its own residual."""
    top = singular_values(J, 1, which="largest", method=method, steps=steps, seed=seed)
    low = singular_values(J, 1, which="smallest", method=method, steps=steps, seed=seed)
    largest, smallest = float(top.values[0]), float(low.values[0])
    doubt = max(float(low.residuals[0]), min(J.shape) * float(np.finfo(J.dtype).eps) * largest)
    value = largest / smallest if smallest > doubt else float("inf")
    return Condition(value, largest, smallest, (float(top.residuals[0]), float(low.residuals[0])))

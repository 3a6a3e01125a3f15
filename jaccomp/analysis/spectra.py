"""Singular values of a Jacobian that is only an operator, and its condition.

    J = model.at(x).operator()
    print(singular_values(J, 10))             σ and ‖J v - σ u‖ of each
    condition(J), spectrum(J)

They come from Krylov spaces (ARPACK) or from LOBPCG on the Gram operator, and then from the operator itself between the
vectors found; each number has the norm of its residual. Seeds are arguments. What is a sum over the whole spectrum is
in `densities`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaccomp.analysis.model import dense
from jaccomp.analysis.result import Result
from jaccomp.errors import UsageError

Array = NDArray[Any]
Which = Literal["largest", "smallest"]
Method = Literal["auto", "dense", "svds", "lobpcg"]
SMALL = 1 << 25  # bytes of a matrix that is decomposed whole


@dataclass(frozen=True)
class Triplets(Result):
    """Singular values, the largest first, with vectors `left` [rows, k] and `right` [columns, k].

    Some singular value lies as near to each σ as its residual: the larger of ‖J v - σ u‖ and ‖Jᵀ u - σ v‖, of which
    the one that stands on the shorter side counts for no more than σ. So a σ of 0 is certain by its vector on the
    shorter side alone; the other is then any that is orthogonal to those of larger σ. `method` is the one that found
    them, LOBPCG where ARPACK did not converge.
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
    """The extreme singular values and vectors of an operator or a matrix.

    "auto" decomposes a matrix below `SMALL` bytes whole; for larger ones it takes "svds", which is ARPACK (Lehoucq,
    Sorensen and Yang, 1998) on the Gram operator as in SciPy's function of that name, and for their smallest "lobpcg"
    (Knyazev, 2001). `tolerance` is the relative accuracy that is asked for, 0 for all there is, and `steps` bounds the
    iterations; what was reached is in `residuals`. Where ARPACK does not converge in so many, LOBPCG goes on from what
    it found. Raises `UsageError` where `count` is not in 1..min(shape), the method cannot find so many, or products
    with J are not finite.
    """
    J = as_operator(J)
    least = min(J.shape)
    if not 1 <= count <= least:
        remedy = f"Ask for 1 to {least}." if least else "An operator of no rows or no columns has none."
        raise UsageError("singular values", f"{count} of {least} were asked for.", remedy)
    chosen = method
    if method == "auto":
        iterative = "svds" if which == "largest" else "lobpcg"
        chosen = "dense" if _is_small(J) or 5 * count >= least else iterative  # type: ignore[assignment]
    scale = _size(J, seed)
    if scale == 0:
        return _of_zero(J, count, chosen, seed)
    unit = J * J.dtype.type(1 / scale)
    if chosen == "dense":
        return _measured(unit, scale, *_decomposed(unit, count, which), "dense", seed)
    if chosen == "svds" and count >= least:
        raise UsageError("singular values", f"svds finds fewer than {least}.", "Use method='dense'.")
    if chosen == "lobpcg" and 5 * count >= least:
        raise UsageError(
            "singular values", f"LOBPCG finds fewer than a fifth of {least}.", "Use method='dense' or 'svds'."
        )
    start = np.random.default_rng(seed).standard_normal((least, count)).astype(J.dtype)
    if chosen == "svds":
        found = _arpack(unit, start[:, 0], count, which, tolerance, steps)
        if found.shape[1] == count:
            return _measured(unit, scale, *_between(unit, found), "svds", seed)
        if 5 * count >= least:
            return _measured(unit, scale, *_decomposed(unit, count, which), "dense", seed)
        start[:, : found.shape[1]] = found
    found = _lobpcg(unit, start, which, tolerance, steps)
    return _measured(unit, scale, *_between(unit, found), "lobpcg", seed)


def as_operator(J: Any) -> Any:
    """A matrix or an operator as a real, floating SciPy `LinearOperator`. Raises `UsageError` for anything else."""
    from scipy.sparse import issparse
    from scipy.sparse.linalg import LinearOperator, aslinearoperator

    if not (issparse(J) or isinstance(J, LinearOperator)):
        J = np.asarray(J)
        if J.ndim != 2:
            raise UsageError("spectrum", f"the array has shape {J.shape}.", "Pass a matrix, or an operator.")
    if np.dtype(J.dtype).kind not in "fiub":
        raise UsageError("spectrum", f"the operator is {J.dtype}.", "Pass a real one.")
    found = aslinearoperator(J)
    return found if np.dtype(J.dtype).kind == "f" else found * np.float64(1.0)


def gram(J: Any) -> Any:
    """JᵀJ or J Jᵀ, whichever is smaller."""
    return J.T @ J if J.shape[0] >= J.shape[1] else J @ J.T


def finite(product: Callable[[Array], Any], given: Array) -> Array:
    """The product of an operator with vectors. Raises `UsageError` where it is not finite."""
    with np.errstate(all="ignore"):
        found = np.asarray(product(given))
    if not np.isfinite(found).all():
        raise UsageError(
            "spectrum",
            "a product with the operator is NaN or infinite.",
            "Look for NaN, infinities or overflow in the point, the parameters, or the matrix.",
        )
    return found


def _is_small(J: Any) -> bool:
    return bool(J.shape[0] * J.shape[1] * np.dtype(J.dtype).itemsize <= SMALL)


def _size(J: Any, seed: int) -> float:
    """A power of 2 that is near the largest entry of J z, z a random unit vector; 0 for an operator that is zero.

    Over it, neither JᵀJ nor the square of a norm leaves the range of floats. Raises `UsageError` where J z is not
    finite: every entry of J has a part in it.
    """
    z = np.random.default_rng(seed).standard_normal(J.shape[1]).astype(J.dtype)
    largest = float(np.abs(finite(J.matvec, z / np.linalg.norm(z))).max())
    limit = np.finfo(J.dtype).maxexp - 2
    return 2.0 ** min(max(round(np.log2(largest)), -limit), limit) if largest else 0.0


def _of_zero(J: Any, count: int, method: str, seed: int) -> Triplets:
    """Those of an operator that is zero: any orthonormal vectors."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((side, count)).astype(J.dtype))[0] for side in J.shape)
    return Triplets(np.zeros(count, J.dtype), np.zeros(count, J.dtype), left, right, method, seed)


def _decomposed(J: Any, count: int, which: Which) -> tuple[Array, Array, Array]:
    u, s, vt = np.linalg.svd(dense(J), full_matrices=False)
    kept = slice(0, count) if which == "largest" else slice(len(s) - count, len(s))
    return u[:, kept], s[kept], vt[kept].T


def _arpack(J: Any, start: Array, count: int, which: Which, tolerance: float, steps: int) -> Array:
    """Eigenvectors [min(shape), found] of the Gram operator; fewer than `count` where it did not converge."""
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh

    side = "LA" if which == "largest" else "SA"
    try:
        return np.asarray(eigsh(gram(J), count, which=side, v0=start, tol=tolerance**2, maxiter=steps)[1])
    except ArpackNoConvergence as stopped:
        return np.asarray(stopped.eigenvectors).reshape(len(start), -1)
    except ArpackError:
        return np.empty((len(start), 0), start.dtype)


def _lobpcg(J: Any, start: Array, which: Which, tolerance: float, steps: int) -> Array:
    """Approximate eigenvectors [min(shape), k] of the Gram operator, from `start`.

    Asked for all there is, it stops where residuals are √ε: errors of values are of the order of their squares.
    """
    from scipy.sparse.linalg import lobpcg

    wanted = tolerance or float(np.sqrt(np.finfo(start.dtype).eps))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it says how far it came; `residuals` do
            found = lobpcg(gram(J), start, largest=which == "largest", tol=wanted, maxiter=steps)[1]
    except (ValueError, np.linalg.LinAlgError) as broken:
        raise UsageError("singular values", f"LOBPCG broke down: {broken}.", "Use another method or seed.") from broken
    return np.asarray(found)


def _between(J: Any, vectors: Array) -> tuple[Array, Array, Array]:
    """The singular triplets of J restricted to the span of vectors on its shorter side, by Rayleigh and Ritz."""
    near = np.linalg.qr(vectors)[0]
    if J.shape[0] >= J.shape[1]:
        u, s, wt = np.linalg.svd(J.matmat(near), full_matrices=False)
        return u, s, near @ wt.T
    v, s, wt = np.linalg.svd(J.rmatmat(near), full_matrices=False)
    return near @ wt.T, s, v


def _measured(J: Any, scale: float, u: Array, s: Array, v: Array, method: str, seed: int) -> Triplets:
    """With their residuals, those of `scale` times J."""
    ahead = np.linalg.norm(J.matmat(v) - s * u, axis=0)
    back = np.linalg.norm(J.rmatmat(u) - s * v, axis=0)
    if J.shape[0] >= J.shape[1]:
        residuals = np.maximum(ahead, np.minimum(back, s))
    else:
        residuals = np.maximum(back, np.minimum(ahead, s))
    times = s.dtype.type(scale)
    return Triplets(times * s, times * residuals, u, v, method, seed)


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
    """All singular values of an operator or a matrix, by a dense decomposition.

    Raises `UsageError` where the matrix is too large to form, is empty, or is not finite.
    """
    J = as_operator(J)
    if not min(J.shape):
        raise UsageError("spectrum", f"the operator has shape {J.shape}.", "Pass one that has rows and columns.")
    _size(J, seed=0)
    values = np.linalg.svd(dense(J), compute_uv=False)
    cutoff = max(J.shape) * float(np.finfo(values.dtype).eps) * float(values[0])
    return Spectrum(values, int((values > cutoff).sum()), cutoff)


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
    """The condition number by both ends of the spectrum; infinite where the least σ is below its own residual.

    Where the least did not converge, its residual large, σ_min is at most what was found, and the condition at least.
    """
    J = as_operator(J)
    top = singular_values(J, 1, which="largest", method=method, steps=steps, seed=seed)
    low = singular_values(J, 1, which="smallest", method=method, steps=steps, seed=seed)
    largest, smallest = float(top.values[0]), float(low.values[0])
    doubt = max(float(low.residuals[0]), min(J.shape) * float(np.finfo(J.dtype).eps) * largest)
    value = largest / smallest if smallest > doubt else float("inf")
    return Condition(value, largest, smallest, (float(top.residuals[0]), float(low.residuals[0])))

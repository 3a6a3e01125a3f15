"""What is a sum over a Jacobian's whole spectrum, by random probes: its density, its norm, its volume.

    density(J).expect(np.log)                 a mean over all σ², with its standard error
    frobenius(J), log_volume(J)

Each number has its standard error over probes; seeds are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.result import Estimate, Result, mean
from jaccomp.analysis.spectra import as_operator, finite, gram
from jaccomp.errors import UsageError

Array = NDArray[Any]
BASIS = 1 << 28  # bytes of the Lanczos vectors that are kept at once


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
        return _over_probes((self.weights[:, :, None] * below).sum(axis=1))

    def smooth(self, points: ArrayLike, width: float) -> tuple[Array, Array]:
        """The density of σ² seen through a Gaussian of that width (Lin, Saad and Yang, 2016), and its error."""
        z = (np.asarray(points, float) - self.nodes[:, :, None]) / width
        each = (self.weights[:, :, None] * np.exp(-(z**2) / 2)).sum(axis=1) / (width * np.sqrt(2 * np.pi))
        return _over_probes(each)

    @property
    def text(self) -> str:
        first, second = self.moment(1), self.moment(2)
        return (
            f"σ² of {self.count} singular values by {len(self.nodes)} probes of {self.nodes.shape[1]} steps: "
            f"mean {first}, mean square {second}, from {self.nodes.min():.4g} to {self.nodes.max():.4g}"
        )


def _over_probes(each: Array) -> tuple[Array, Array]:
    """The means of [probes, points] and their standard errors; NaN where there is only one probe."""
    count = len(each)
    errors = each.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(each.shape[1], np.nan)
    return each.mean(axis=0), errors


def density(J: Any, *, probes: int = 10, steps: int = 60, seed: int = 0) -> Density:
    """The density of JᵀJ, or of J Jᵀ where that is smaller, by stochastic Lanczos quadrature with random signs.

    Each probe z gives the Gauss rule of zᵀ f(JᵀJ) z from `steps` Lanczos steps with full reorthogonalisation; probes
    run beside each other as one batch of columns. Raises `UsageError` where there is no probe, no step or no singular
    value, and where products with J are not finite.
    """
    J = as_operator(J)
    n = min(J.shape)
    if probes < 1 or steps < 1 or n < 1:
        facts = f"{probes} probes of {steps} steps were asked for, of {n} singular values."
        raise UsageError("spectral density", facts, "Ask for 1 or more, of an operator that has rows and columns.")
    steps = min(steps, n)
    signs = (np.random.default_rng(seed).choice([-1.0, 1.0], (n, probes)) / np.sqrt(n)).astype(J.dtype)
    together = max(1, BASIS // (n * steps * np.dtype(J.dtype).itemsize))
    rules = [_lanczos(gram(J), signs[:, k : k + together], steps) for k in range(0, probes, together)]
    nodes, weights = (np.concatenate(part) for part in zip(*rules, strict=True))
    return Density(np.maximum(nodes, 0.0), weights, n, seed)


def _lanczos(operator: Any, start: Array, steps: int) -> tuple[Array, Array]:
    """Nodes and weights [probes, steps] of unit columns; one that ends early has weight 0 on what it did not reach."""
    n, probes = start.shape
    basis = np.zeros((steps, n, probes), start.dtype)
    diagonal, beside = np.zeros((probes, steps)), np.zeros((probes, steps))
    alive = np.ones(probes, bool)
    reached = np.zeros(probes, int)
    q = start
    for k in range(steps):
        basis[k] = q
        reached += alive
        w = finite(operator.matmat, q)
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

    The error is that of the mean of ‖J z‖², carried to its square root; NaN of one probe. Raises `UsageError` where
    there is no probe, and where products with J are not finite.
    """
    J = as_operator(J)
    if probes < 1:
        raise UsageError("Frobenius norm", f"{probes} probes were asked for.", "Ask for 1 or more.")
    rows, columns = J.shape
    n = min(rows, columns)
    product = J.matmat if columns <= rows else J.rmatmat
    if n <= probes:
        return Estimate(float(np.linalg.norm(finite(product, np.eye(n, dtype=J.dtype)))), 0.0)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n, probes)).astype(J.dtype)
    squares = mean((finite(product, signs).astype(float) ** 2).sum(axis=0))
    norm = float(np.sqrt(squares.value))
    return Estimate(norm, squares.error / (2 * norm) if norm else 0.0)


def log_volume(J: Any, *, probes: int = 30, steps: int = 60, seed: int = 0) -> Estimate:
    """½ log det JᵀJ, of J Jᵀ where that is smaller: Σ log σ, by stochastic Lanczos quadrature of the logarithm.

    -∞ where a probe meets a σ² that rounding cannot tell from 0, below 10 √n eps σ₁² of n singular values. A rule of
    too few steps for a wide spectrum is biased upwards, since -log is convex: the error holds, beside that of the
    probes, what half the steps would change.
    """
    J = as_operator(J)
    found, half = (density(J, probes=probes, steps=count, seed=seed) for count in (steps, max(1, steps // 2)))
    limit = 10 * found.count**0.5 * float(np.finfo(J.dtype).eps) * float(found.nodes.max())
    whole, part = (one.expect(lambda x: np.log(np.where(x > limit, x, 0.0))) for one in (found, half))
    scale = found.count / 2
    bias = abs(whole.value - part.value) if steps < found.count and np.isfinite(whole.value) else 0.0
    return Estimate(scale * whole.value, scale * float(np.hypot(whole.error, bias)))

"""The singular values of the end-to-end Jacobian of a random network, J = D[L] W[L] ... D[1] W[1], in theory.

D[l] holds φ' of the layer's pre-activations. At infinite width its entries are independent of the weights, and the
squared singular values of J are those of a free product: their S-transform is the product of the layers' (Pennington,
Schoenholz and Ganguli, 2017, 2018). A finite width with independent gates still has exact moments, by a recursion over
layers; linear and ReLU networks are of that kind, the latter because the sign of each row of a symmetric weight matrix
is free (Hanin and Nica, 2020).

    gates = [Gates.of(maps, q) for q in maps.lengths(first, depth)]
    wide_moments("gaussian", sigma_w, gates)              infinite width: χ^L and its spread
    finite_moments("gaussian", sigma_w, gates, width)     the same, expected at a width
    wide_spectrum("orthogonal", sigma_w, law, depth, values)   the density of the singular values
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis.gaussian import Array, gaussian_rule
from jaccomp.analysis.theory import Maps
from jaccomp.errors import UsageError

Ensemble = Literal["gaussian", "orthogonal"]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class Gates:
    """The moments of one layer's slopes: μ_1 = E[φ'²] and μ_2 = E[φ'⁴]."""

    first: float
    second: float

    @classmethod
    def of(cls, maps: Maps, length: float) -> Gates:
        return cls(maps.slope_moment(length, 1), maps.slope_moment(length, 2))


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the squared singular values s² of one network: their mean, tr JJᵀ / N, and their variance about it.

    `scatter` is the standard deviation of that mean from network to network; 0 at infinite width.
    """

    mean: float
    variance: float
    scatter: float = 0.0


def wide_moments(ensemble: Ensemble, sigma_w: float, gates: Sequence[Gates]) -> Moments:
    """At infinite width: mean Π σ_w² μ_1, which is χ^L, and variance mean² Σ (μ_2/μ_1² - 1 - s_1), where s_1 is -1 for
    Gaussian weights and 0 for orthogonal ones (Pennington, Schoenholz and Ganguli, 2018)."""
    own = 1.0 if _checked(ensemble) == "gaussian" else 0.0
    mean = math.prod(sigma_w**2 * one.first for one in gates)
    if mean == 0:
        return Moments(0.0, 0.0)
    return Moments(mean, mean**2 * sum(one.second / one.first**2 - 1 + own for one in gates))


def finite_moments(ensemble: Ensemble, sigma_w: float, gates: Sequence[Gates], width: int) -> Moments:
    """Expected over networks of a width, exactly, where gates are independent of one another and of the weights.

    With A = JJᵀ of the layers below, a = E[tr A²]/N and b = E[(tr A)²]/N², B = W A Wᵀ and c = E[Σ B_ii²]/N:

        Gaussian W       a ↦ (1 + 1/N) a + b,     b ↦ b + 2a/N²,     c = b + 2a/N
        orthogonal W     a ↦ a,                   b ↦ b,             c = (N b + 2a)/(N + 2)
        then D           a ↦ μ_1² a + (μ_2 - μ_1²) c,                b ↦ μ_1² b + (μ_2 - μ_1²) c/N

    by the second moments of Wishart matrices and of vectors that are uniform on the sphere. Raises `UsageError` for a
    width below 1.
    """
    if width < 1:
        raise UsageError("moments at a finite width", f"the width is {width}.", "Pass 1 or more.")
    n = float(width)
    gaussian = _checked(ensemble) == "gaussian"
    a = b = mean = 1.0
    for one in gates:
        diagonal = b + 2 * a / n if gaussian else (n * b + 2 * a) / (n + 2)
        if gaussian:
            a, b = (1 + 1 / n) * a + b, b + 2 * a / n**2
        spread = one.second - one.first**2
        a, b = (sigma_w**4 * (one.first**2 * old + spread * new) for old, new in ((a, diagonal), (b, diagonal / n)))
        mean *= sigma_w**2 * one.first
    return Moments(mean, a - b, math.sqrt(max(0.0, b - mean**2)))


@dataclass(frozen=True, slots=True)
class SlopeLaw:
    """The distribution of φ'² in a layer: `values` with their `weights`, which sum to 1."""

    values: Array
    weights: Array

    @classmethod
    def of(cls, maps: Maps, length: float) -> SlopeLaw:
        """That of the pre-activations of a length; a slope of the same value at many of them becomes one atom."""
        u, weights = gaussian_rule(length, maps.activation.kinks)
        values = maps.activation.slope(u) ** 2
        distinct, place = np.unique(np.round(values, 14), return_inverse=True)
        return cls(distinct, np.asarray(np.bincount(place, weights), dtype=float))

    def transform(self, u: complex) -> tuple[complex, complex]:
        """M(u) = E[d²/(u - d²)] and its derivative."""
        apart = u - self.values
        return complex(self.weights @ (self.values / apart)), -complex(self.weights @ (self.values / apart**2))


@dataclass(frozen=True, slots=True, eq=False)
class WideSpectrum:
    """The density of singular values at `values`; a share `zero` of them are 0, and a share `top` are `largest`."""

    values: Array
    density: Array
    zero: float
    largest: float
    top: float

    def cumulative(self, at: ArrayLike) -> Array:
        """The share of singular values up to each of `at`; what the density leaves lies below the first of `values`."""
        steps = np.diff(self.values) * (self.density[1:] + self.density[:-1]) / 2
        above = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
        x = np.asarray(at, dtype=float)
        low, high = [0.0], [self.values[-1] * (1 + 1e-12)]
        smooth = np.interp(
            x,
            np.concatenate([low, self.values, high]),
            np.concatenate([[self.zero], np.maximum(1 - self.top - above, self.zero), [1 - self.top]]),
        )
        return np.asarray(smooth + self.top * (x >= self.largest * (1 - 1e-12)), dtype=float)


def wide_spectrum(
    ensemble: Ensemble, sigma_w: float, law: SlopeLaw, depth: int, values: ArrayLike, *, blur: float = 1e-4
) -> WideSpectrum:
    """The density of the singular values of J at infinite width, all layers having the same law of slopes.

    Written with u, where m = M(u) is the moment generating function of one layer's d², the S-transforms' product is

        w = s² = σ_w^(2L) u^L m^(L-1) (1 + m)^(1-L+g),    g = L for Gaussian weights, 0 for orthogonal ones

    and the density of w is -Im m / (π w) just above the real line (Pennington, Schoenholz and Ganguli, 2018).
    It is followed by Newton's method from a large imaginary w, where u is known, to each s, largest first; `blur`
    is the phase of w that remains. Where d² = max d² has a weight p, the product has an atom at the top of weight
    1 - L (1 - p) if that is positive and the weights are orthogonal; its blurred peak is taken off the density.
    Raises `UsageError` for values that are not positive and finite, and for a network whose Jacobian is 0, or that has
    no layer.
    """
    grid = np.sort(np.asarray(values, dtype=float).ravel())
    if grid.size == 0 or not np.all((grid > 0) & np.isfinite(grid)):
        raise UsageError(
            "spectrum", "singular values must be positive and finite.", "Leave 0 out: its share is `zero`."
        )
    if depth < 1 or not 0 < sigma_w < math.inf or not law.values[-1] > 0 or not blur > 0:
        raise UsageError(
            "spectrum",
            f"depth is {depth}, σ_w {sigma_w}, blur {blur}, the greatest slope² {law.values[-1]}.",
            "Pass a layer or more, positive σ_w and blur, and slopes that are not all 0.",
        )
    power = 1 - depth + (depth if _checked(ensemble) == "gaussian" else 0)
    zero = float(law.weights[law.values <= 1e-12].sum())
    largest = (sigma_w * math.sqrt(law.values[-1])) ** depth
    top = max(0.0, 1 - depth * (1 - float(law.weights[-1]))) if ensemble == "orthogonal" else 0.0

    def image(u: complex) -> tuple[complex, complex, complex]:
        """m, log w up to 2πi, and d log w / d log u."""
        m, slope = law.transform(u)
        value = depth * (2 * math.log(sigma_w) + np.log(u)) + (depth - 1) * np.log(m) + power * np.log(1 + m)
        return m, value, depth + u * slope * ((depth - 1) / m + power / (1 + m))

    def follow(u: complex, start: complex, end: complex) -> complex:
        """u at log w = `end`, from that at `start`: Newton's method in steps that halve until each converges."""
        done, step = 0.0, 1.0
        while done < 1:
            trial, target, close = u, start + (end - start) * min(1.0, done + step), False
            for _ in range(12):
                _, value, rate = image(trial)
                miss = target - value
                miss = complex(miss.real, math.remainder(miss.imag, 2 * math.pi))
                change = miss / rate
                if not abs(change) < 0.5:
                    break
                trial *= np.exp(change)
                if abs(miss) < 1e-11:
                    close = trial.imag > -1e-9 * abs(trial)
                    break
            if close:
                u, done, step = trial, done + step, step * 2
            elif step < 1e-9:
                raise UsageError(
                    "spectrum", f"the branch is lost at s = {np.exp(target.real / 2):.4g}.", "Use a larger blur."
                )
            else:
                step /= 2
        return u

    mean = (sigma_w**2 * float(law.weights @ law.values)) ** depth
    far = max(2 * math.log(grid[-1]), math.log(mean)) + 12.0
    # Far away every d² is small against u: m = μ_1/u and w = σ_w^(2L) μ_1^(L-1) u.
    place = complex(far, math.pi / 2)
    u = np.exp(place) / mean * float(law.weights @ law.values)
    u = follow(u, place, place)
    found = np.empty(grid.size)
    for k in range(grid.size - 1, -1, -1):
        there = complex(2 * math.log(grid[k]), blur)
        if k == grid.size - 1:
            u, place = follow(u, place, complex(there.real, math.pi / 2)), complex(there.real, math.pi / 2)
        u, place = follow(u, place, there), there
        m = image(u)[0]
        peak = top * largest**2 / (np.exp(there) - largest**2) if top else 0.0
        found[k] = max(0.0, -(m - peak).imag / math.pi) * 2 / grid[k]
    return WideSpectrum(grid, found, zero, largest, top)


def fuss_catalan(depth: int, points: int = 400) -> tuple[Array, Array]:
    """The singular values of a product of `depth` Gaussian matrices of σ_w = 1 and their density, in closed form.

    s² = sin^(L+1)((L+1)φ) / (sin φ sin^L(Lφ)), of density sin²φ sin^(L-1)(Lφ) / (π sin^L((L+1)φ)), 0 < φ < π/(L+1)
    (Haagerup and Möller, 2013; for L = 1, the quarter circle). Both are [points]. Raises `UsageError` for no matrix.
    """
    if depth < 1:
        raise UsageError("Fuss-Catalan law", f"the depth is {depth}.", "Pass 1 or more.")
    phi = np.linspace(0, math.pi / (depth + 1), points + 2)[1:-1][::-1]
    squares = np.sin((depth + 1) * phi) ** (depth + 1) / (np.sin(phi) * np.sin(depth * phi) ** depth)
    density = np.sin(phi) ** 2 * np.sin(depth * phi) ** (depth - 1) / (math.pi * np.sin((depth + 1) * phi) ** depth)
    s = np.sqrt(squares)
    return s, density * 2 * s


def _checked(ensemble: str) -> str:
    if ensemble not in {"gaussian", "orthogonal"}:
        raise UsageError("random weights", f"there is no ensemble {ensemble!r}.", 'There are "gaussian", "orthogonal".')
    return ensemble

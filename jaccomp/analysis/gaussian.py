"""Expectations over Gaussian pre-activations, of one and of two that are correlated.

    u, w = gaussian_rule(q, kinks)            Σ w f(u) = E[f(u)],  u ~ N(0, q)
    expectation(f, q, kinks, mean)            u ~ N(mean, q)
    joint_expectation(f, q, c, kinks)         E[f(u₁) f(u₂)] at correlation c

They are Gauss-Legendre sums over panels that end at the kinks of f, where the usual Gauss-Hermite sums converge slowly,
and at places of the order of 1, whatever q is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

REACH = 12.0  # standard deviations; the Gaussian beyond weighs 4e-33
NODES, JOINT_NODES = 32, 14  # of each panel, in one variable and in each of two


def gaussian_rule(variance: float, kinks: Iterable[float] = (), mean: float = 0.0) -> tuple[Array, Array]:
    """Nodes u and weights, both [n], with Σ w f(u) = E[f(u)], u ~ N(mean, variance), for an f with these kinks."""
    scale = math.sqrt(variance)
    z, w = _panels(_marks(scale, kinks, mean))
    return mean + scale * z, w


def expectation(function: Function, variance: float, kinks: Iterable[float] = (), mean: float = 0.0) -> float:
    """E[f(u)] of u ~ N(mean, variance); f may have kinks where it is told."""
    u, w = gaussian_rule(variance, kinks, mean)
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite or NaN is said by the value
        return float(w @ function(u))


def joint_expectation(function: Function, variance: float, correlation: float, kinks: Iterable[float] = ()) -> float:
    """E[f(u₁) f(u₂)] of two Gaussians of mean 0 and one variance, of a correlation of -1 to 1.

    u₂ is integrated given u₁, with panels that follow its kinks.
    """
    scale, apart = math.sqrt(variance), math.sqrt(max(0.0, 1 - correlation**2))
    kinks = tuple(kinks)
    # Near a kink, u₁ decides on which side of it u₂ lies, the more sharply the less apart they are.
    ratios = [k / scale for k in kinks] if scale > 0 else []
    close = [(k + reach * apart) / (correlation or 1.0) for k in ratios for reach in (-8, -4, -1.5, 1.5, 4, 8)]
    outer = np.concatenate([_marks(scale, kinks), np.clip(close, -REACH, REACH)])
    first, weights = _panels(np.sort(outer), JOINT_NODES)
    with np.errstate(over="ignore", invalid="ignore"):
        here = weights * function(scale * first)
        if apart < 1e-8:
            return float(here @ function(math.copysign(scale, correlation) * first))
    marks = (_marks(scale, kinks)[None, :] - correlation * first[:, None]) / apart
    fixed = np.broadcast_to(np.linspace(-REACH, REACH, 9), (first.size, 9))
    ends = np.sort(np.clip(np.concatenate([marks, fixed], axis=1), -REACH, REACH), axis=1)
    second, inner = _panels(ends, JOINT_NODES)
    u = scale * (correlation * first[:, None] + apart * second)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(here @ np.sum(inner * function(u), axis=1))


@cache
def _legendre(count: int) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes, weights


def _panels(ends: Array, count: int = NODES) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights of N(0, 1) on the panels between `ends` [..., P + 1] -> [..., P * count]."""
    nodes, weights = _legendre(count)
    left, right = ends[..., :-1, None], ends[..., 1:, None]
    z = (left + right) / 2 + (right - left) / 2 * nodes
    w = (right - left) / 2 * weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    flat = (*ends.shape[:-1], -1)
    return z.reshape(flat), w.reshape(flat)


def _marks(scale: float, kinks: Iterable[float], mean: float = 0.0) -> Array:
    """Where f(mean + scale·z) may change its course: its kinks, and where its argument is of the order of 1."""
    steps = 2.0 ** np.array([-9, -7, -5, -3, *range(-1, 7)])
    inner = (np.array([*kinks, 0.0, *steps, *-steps]) - mean) / scale if scale > 0 else np.zeros(1)
    return np.unique(np.clip(np.concatenate([inner, np.linspace(-REACH, REACH, 9)]), -REACH, REACH))

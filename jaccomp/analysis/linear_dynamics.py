"""How a deep linear network learns, in closed form (Saxe, McClelland and Ganguli, 2014).

A network y = W[m] ... W[1] x is trained by gradient flow, dW/dt = -∂loss/∂W, on the mean of ‖y - target‖²/2 over inputs
whose correlations are the identity. Then only Σ = E[target xᵀ] = U diag(s) Vᵀ matters. From weights that are aligned
with U and V and of one strength u^(1/m) in each layer, each mode learns alone:

    du/dt = m u^(2 - 2/m) (s - u)

so that strong modes are learned first, after a plateau that lasts the longer the smaller the start and the deeper the
network. `strength` gives u(t), `reaching_time` gives t(u).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from jaccomp.analysis.gaussian import Array
from jaccomp.errors import UsageError

WHAT = "learning dynamics of a deep linear network"


def strength(times: ArrayLike, target: float, start: float, layers: int) -> Array:
    """The strength u of a mode of strength `target` = s at each of `times`, from u = `start`.

    One layer: s + (u₀ - s) e^(-t). Two: s / (1 + (s/u₀ - 1) e^(-2st)) (Saxe et al., 2014). More: the
    inverse of `reaching_time`, tabulated, to 1e-6 of s. Raises `UsageError` unless 0 < start < target, there is a
    layer, and no time is negative.
    """
    _check(target, start, layers)
    t = np.asarray(times, dtype=float)
    if not np.all(t >= 0):
        raise UsageError(WHAT, "a time is negative or NaN.", "Pass times from 0, when the strength is `start`.")
    if layers == 1:
        return np.asarray(target + (start - target) * np.exp(-t))
    if layers == 2:
        return np.asarray(target / (1 + (target / start - 1) * np.exp(-2 * target * t)))
    # Near s the time goes like log(s - u), near u₀ like u: a grid that is dense at both, in log(u / (s - u)).
    first, last = math.log(start / (target - start)), 36.0
    logit = np.linspace(first, max(last, first + 1), 20001)
    grid = target / (1 + np.exp(-logit))
    reached = _time(grid, target * np.exp(-logit) / (1 + np.exp(-logit)), target, layers)
    return np.asarray(target / (1 + np.exp(-np.interp(t, reached - reached[0], logit))))


def reaching_time(strengths: ArrayLike, target: float, start: float, layers: int) -> Array:
    """When a mode of strength `target` = s has reached each of `strengths`, from u = `start`; all below s.

    t = F(u) - F(u₀), where F is ∫ du / (m u^(2 - 2/m) (s - u)): log[u/(s - u)]/(2s) for two layers. For more, with
    a = u^(1/m) it is ∫ a^(1-m) / (s - a^m) da: a^(2-m) / (s (2-m)) from the pole at 0, and -log(a - r) / (m r^(2m-2))
    from each of the m roots r of s. Raises `UsageError` unless 0 < start < target and strengths lie between 0 and s.
    """
    _check(target, start, layers)
    u = np.asarray(strengths, dtype=float)
    if not np.all((u > 0) & (u < target)):
        raise UsageError(WHAT, f"a strength is not between 0 and {target}.", "None else is reached in finite time.")
    return _time(u, target - u, target, layers) - _time(np.array(start), np.array(target - start), target, layers)


def _time(u: Array, left: Array, target: float, layers: int) -> Array:
    """F(u), where `left` is s - u without cancellation."""
    if layers == 1:
        return np.asarray(-np.log(left))
    if layers == 2:
        return np.asarray(np.log(u / left) / (2 * target))
    a, edge = u ** (1 / layers), target ** (1 / layers)
    roots = edge * np.exp(2j * math.pi * np.arange(1, layers) / layers)  # those that are not `edge` itself
    near = left / np.abs(np.prod(a[..., None] - roots, axis=-1))  # edge - a, from s - a^m without cancellation
    total = a ** (2 - layers) / (target * (2 - layers)) - np.log(near) / (layers * edge ** (2 * layers - 2))
    for root in roots:
        total = total - np.real(np.log(1 - a / root) / (layers * root ** (2 * layers - 2)))
    return np.asarray(total)


def _check(target: float, start: float, layers: int) -> None:
    if not (0 < start < target < math.inf and layers >= 1):
        raise UsageError(
            WHAT,
            f"the mode has strength {target}, starts at {start}, and there are {layers} layers.",
            "The start must lie between 0 and the strength, and a network has 1 layer or more.",
        )

"""How far a first-order prediction holds: the radius where the model leaves its tangent, and what curvature predicts.

Along x + r v, y(r) = y + r J v + ∫ (r - s) y''(s) ds over 0..r, where y''(s) = D²y[v, v] at x + s v is the
Hessian-vector product along v. The relative error of the first-order prediction is

    |y(r) - y - r J v| / |r J v|  <=  1/(r |J v|) ∫ (r - s) |y''(s)| ds                          guaranteed
                                  <=  (r |y''(0)| / 2 + r² |y'''(0)| / 6) / |J v|  + O(r³)       cautious
                                   ≈  r |y''(0)| / (2 |J v|)  + O(r²)                            predicted

and each radius is the first where its line reaches `tolerance`. What they claim differs:

    predicted    by the product at the point alone. Right to leading order: the true radius may be above it or below.
    cautious     by the product and its derivative along v, at the point alone. The triangle inequality has both terms
                 add up, so the true radius is above it but for terms of fourth derivatives.
    guaranteed   by the product all along the way. The true radius is above it, but for the error of quadrature,
                 wherever the model is twice differentiable on the way. A kink, as relu's, has no y''.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.analysis.result import Result
from jaccomp.analysis.rows import ends
from jaccomp.analysis.stages import second_order, values_from
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation

Array = NDArray[Any]
TOLERANCE = 0.05
STEP = 2**0.125  # between the radii that are tried
NODES, GROWTH, FEWEST = 32, 1.06, 8  # of the integral up to the predicted radius, how steps grow, of a spline


@dataclass(frozen=True)
class Validity(Result):
    """How far the first-order change along a unit direction holds within `tolerance`.

    `radius` is measured: the first radius where the relative error passes `tolerance`, infinite if none up to
    `radii[-1]` does. `predicted` and `cautious` are what curvature says at the point, without and with its own
    derivative, `guaranteed` what it says along the way. `slope` is |J v|, `curvature` |D²y[v, v]|; `errors` are the
    relative errors at `radii`.
    """

    of: str
    wrt: str
    tolerance: float
    radius: float
    predicted: float
    cautious: float
    guaranteed: float
    slope: float
    curvature: float
    radii: Array
    errors: Array

    @property
    def text(self) -> str:
        return (
            f"first order in {self.wrt} holds within {self.tolerance:.0%} up to {self.radius:.4g}: "
            f"curvature at the point predicts {self.predicted:.4g} to leading order, {self.cautious:.4g} with its own "
            f"derivative, and along the way it guarantees {self.guaranteed:.4g}"
        )


def validity(
    at: Linearisation,
    direction: Array,
    *,
    of: str | None = None,
    wrt: str | None = None,
    tolerance: float = TOLERANCE,
    furthest: float | None = None,
) -> Validity:
    """How far the first-order change of `of` along `direction`, shaped as `wrt`, holds.

    `furthest` is the largest radius that is tried: by default 16 times the predicted one. Raises `UsageError` where the
    direction does not move `of` to first order, or has another shape.
    """
    target, source = ends(at.model, of, wrt)
    what = f"validity of first order in {source!r}"
    point = at.values[source]
    if np.shape(direction) != point.shape:
        raise UsageError(what, f"the direction has shape {np.shape(direction)}, {source} {point.shape}.")
    size = float(np.linalg.norm(direction))
    v = np.asarray(direction) / size if size else np.asarray(direction)
    first, second = second_order(at, source, v).get(target, (np.zeros(1), np.zeros(1)))
    slope, curvature = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if not slope > 0:
        raise UsageError(what, f"{target} does not move along the direction to first order.", "Name another.")
    predicted = 2 * tolerance * slope / curvature if curvature else inf
    scale = predicted if predicted < inf else max(1.0, float(np.linalg.norm(point)))
    limit = 16 * scale if furthest is None else furthest
    y = at.values[target]

    def error(r: float) -> float:
        moved = values_from(at, {source: (point + r * v).astype(point.dtype)})[target]
        return float(np.linalg.norm(moved - y - r * first)) / (r * slope)

    radii = limit / STEP ** np.arange(int(np.log(limit / scale * 100) / np.log(STEP)), -1, -1.0)
    errors = np.array([error(r) for r in radii])
    cautious = _cautious(at, source, target, v, slope, curvature, tolerance, scale)
    guaranteed = _guaranteed(at, source, target, v, slope, tolerance, scale, limit)
    radius = _crossing(error, radii, errors, tolerance)
    return Validity(target, source, tolerance, radius, predicted, cautious, guaranteed, slope, curvature, radii, errors)


def _crossing(error: Any, radii: Array, errors: Array, tolerance: float) -> float:
    """The first radius where the error passes the tolerance, by bisection of the step in which it does."""
    beyond = np.flatnonzero(~(errors <= tolerance))
    if not beyond.size:
        return inf
    high = float(radii[beyond[0]])
    low = float(radii[beyond[0] - 1]) if beyond[0] else 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) <= tolerance else (low, middle)
    return low


def _cautious(
    at: Linearisation, wrt: str, of: str, v: Array, slope: float, curvature: float, tolerance: float, scale: float
) -> float:
    """The root of `r |y''| / 2 + r² |y'''| / 6 = tolerance slope`, with y''' by central differences of y''."""
    point = at.values[wrt]
    step = scale * float(np.finfo(point.dtype).eps) ** (1 / 3)
    after, before = (_bend(at, wrt, of, v, point + h * v) for h in (step, -step))
    half, sixth = curvature / 2, float(np.linalg.norm(after - before)) / (2 * step) / 6
    both = half + float(np.sqrt(half**2 + 4 * sixth * tolerance * slope))
    return 2 * tolerance * slope / both if both else inf


def _guaranteed(
    at: Linearisation, wrt: str, of: str, v: Array, slope: float, tolerance: float, scale: float, limit: float
) -> float:
    """The first radius where `∫ (r - s) |y''(s)| ds / (r slope)` passes the tolerance; the integral is that of a cubic
    spline through |y''|, integrated twice.
    """
    from scipy.interpolate import CubicSpline

    point, step = at.values[wrt], scale / NODES
    radii, bends = [0.0], [float(np.linalg.norm(_bend(at, wrt, of, v, point)))]
    while radii[-1] < limit:
        radii.append(radii[-1] + step)
        bends.append(float(np.linalg.norm(_bend(at, wrt, of, v, point + radii[-1] * v))))
        step *= GROWTH
        if len(radii) < FEWEST:
            continue
        lost = CubicSpline(radii, bends).antiderivative(2)
        if lost(radii[-1]) > tolerance * slope * radii[-1]:
            return _root(lost, tolerance * slope, 1e-6 * step, radii[-1])
    return inf


def _root(lost: Callable[[float], float], allowed: float, low: float, high: float) -> float:
    """Where what is lost is what is allowed for each unit of radius."""
    from scipy.optimize import brentq

    return float(brentq(lambda r: lost(r) - allowed * r, low, high))


def _bend(at: Linearisation, wrt: str, of: str, v: Array, x: Array) -> Array:
    """D²y[v, v] with `wrt` at x."""
    from jaccomp.analysis.model import Linearisation

    there = Linearisation(at.model, values_from(at, {wrt: x.astype(v.dtype)}))
    return second_order(there, wrt, v)[of][1]

"""The values and Jacobians of the written equations at a sample, with the Σ|terms| of every entry.

Complex step over NumPy's complex128 where the equations evaluate to finite numbers there; else mpmath at 50 digits,
whose exponents do not overflow: `log(1 + exp(x))` at x = 10⁴ is a finite number that float64 cannot reach as it is
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from jaccomp.reference import scalars, written
from jaccomp.reference.bounded import Bounded
from jaccomp.reference.plain import Plain
from jaccomp.reference.sampling import Sample, real_inputs
from jaccomp.reference.scalars import Array
from jaccomp.spec import Spec

DIGITS = 50
OBJECT = np.dtype(object)


@dataclass(frozen=True, slots=True)
class Truth:
    """Of each output, by name: `values` and `terms` (its Σ|terms|), in its shape; and along `seeds` the `slopes` and
    `slope_terms`, with a last dimension for the seed. A seed is an array for each real input.
    """

    method: str
    values: Mapping[str, Array]
    terms: Mapping[str, Array]
    seeds: Mapping[str, Array]
    slopes: Mapping[str, Array]
    slope_terms: Mapping[str, Array]


def entries(spec: Spec, sample: Sample, most: int, rng: np.random.Generator) -> dict[str, Array]:
    """A unit seed for each entry of each real input, or for `most` of them chosen at random; one of zeros if none."""
    names = real_inputs(spec)
    sizes = [sample.inputs[name].size for name in names]
    total = sum(sizes)
    chosen = np.arange(total) if total <= most else np.sort(rng.choice(total, most, replace=False))
    seeds: dict[str, Array] = {}
    offset, columns = 0, np.arange(len(chosen))
    for name, size in zip(names, sizes, strict=True):
        flat = np.zeros((size, max(len(chosen), 1)))
        mine = (chosen >= offset) & (chosen < offset + size)
        flat[chosen[mine] - offset, columns[mine]] = 1.0
        seeds[name] = flat.reshape(*sample.inputs[name].shape, flat.shape[1])
        offset += size
    return seeds


def truth(
    spec: Spec, sample: Sample, seeds: Mapping[str, Array], exact: bool = False, underflow: bool = False
) -> Truth:
    """The truth along `seeds`; by mpmath if `exact`, or where complex128 gives anything that is not finite.

    `underflow` counts the underflow of float64 among the terms.
    """
    with np.errstate(all="ignore"):
        if not exact:
            found = _evaluate(spec, sample, seeds, np.dtype(np.float64), underflow)
            parts = (*found.values.values(), *found.terms.values(), *found.slopes.values(), *found.slope_terms.values())
            if all(np.isfinite(part).all() for part in parts):
                return found
        with mpmath.workdps(DIGITS):
            return _evaluate(spec, sample, seeds, OBJECT, underflow)


def _evaluate(spec: Spec, sample: Sample, seeds: Mapping[str, Array], dtype: np.dtype[Any], underflow: bool) -> Truth:
    batch = max((s.shape[-1] for s in seeds.values()), default=1)
    bounded = Bounded(dtype, underflow)
    plain: dict[str, Any] = {}
    held: dict[str, Any] = {}
    for tensor in spec.inputs:
        name, values = tensor.name, sample.inputs[tensor.name]
        if tensor.dtype == "int64":
            plain[name] = held[name] = values
        else:
            real = scalars.convert(values, dtype)[..., None]
            plain[name] = scalars.perturbed(real, seeds[name])
            held[name] = bounded.seeded(values, seeds[name])
    step = Plain(OBJECT if dtype == OBJECT else np.complex128)
    stepped = written.evaluate(spec, plain, sample.sizes, sample.scalars, arithmetic=step, batch=batch)
    limits = written.evaluate(spec, held, sample.sizes, sample.scalars, arithmetic=bounded, batch=batch)
    outcomes: dict[str, Array] = {}
    terms: dict[str, Array] = {}
    slopes: dict[str, Array] = {}
    slope_terms: dict[str, Array] = {}
    for tensor in spec.outputs:
        name = tensor.name
        if tensor.dtype == "int64":
            outcomes[name] = stepped[name]
            continue
        outcomes[name] = _rounded(limits[name].v[..., 0])
        terms[name] = _rounded(limits[name].m[..., 0])
        slopes[name] = _rounded(scalars.derivative(stepped[name]))
        slope_terms[name] = _rounded(limits[name].dm)
    method = f"mpmath, {DIGITS} digits" if dtype == OBJECT else "complex step"
    return Truth(method, outcomes, terms, seeds, slopes, slope_terms)


def _rounded(values: Array) -> Array:
    """As float64: an object beyond its range is infinite there."""
    if not scalars.is_object(np.asarray(values)):
        return np.asarray(values, dtype=np.float64)
    return np.asarray(np.frompyfunc(float, 1, 1)(values), dtype=np.float64)

"""Data sets: samples along the leading axis, and the Jacobian of each sample by few VJPs of the whole batch.

Where row k of an output depends on row k of an input alone, one VJP gives a row of every sample's Jacobian at once.
Whether it does is read off the equations of the stages (`batching`); no number is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis import batching
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation, Model

Array = NDArray[Any]
CHUNK = 128
"""Samples that are linearised together. It is fixed, so that sums have one order whatever runs them."""
MOST_OUTPUTS = 256


def rows_apart(at: Linearisation, of: str, wrt: str) -> bool:
    """Does row k of `of` depend on row k of `wrt` alone, with samples along the leading axis and any number of them?

    So it is where every stage on the way treats that axis point by point and no parameter has it.
    """
    ranks = {name: value.ndim for name, value in at.values.items()}
    plan = batching.plan(at.model.chain, of, wrt, ranks)
    return plan is not None and plan.rows and plan.tiled.isdisjoint(at.model.parameters)


def row_jacobians(at: Linearisation, of: str, wrt: str, limit: int = MOST_OUTPUTS) -> Array:
    """Each sample's Jacobian, [samples, *row of `of`, *row of `wrt`], where rows are apart: a VJP for each entry of a
    row of `of`. Raises `UsageError` where there are more than `limit`.
    """
    target, source = at.values[of], at.values[wrt]
    each = target[0].size
    if each > limit:
        raise UsageError(
            f"each sample's ∂{of}/∂{wrt}",
            f"a row of {of} has {each} entries, and each takes a VJP.",
            f"Name a tensor with at most {limit}, or estimate with probes: energy(...).",
        )
    found = np.empty((len(target), each, *source.shape[1:]), np.result_type(target, source))
    for k in range(each):
        cotangent = np.zeros_like(target)
        cotangent.reshape(len(target), each)[:, k] = 1
        found[:, k] = at.vjp({of: cotangent}, wrt)
    return found.reshape(len(target), *target.shape[1:], *source.shape[1:])


def chunks(samples: int, apart: bool) -> tuple[slice, ...]:
    """The samples that are linearised together: `CHUNK` of them where rows are apart, else one."""
    step = CHUNK if apart else 1
    return tuple(slice(start, min(start + step, samples)) for start in range(0, samples, step))


def ends(model: Model, of: str | None, wrt: str | None) -> tuple[str, str]:
    """The tensors that are meant: by default the last output, and the first input."""
    return of or model.outputs[-1], wrt or model.inputs[0]


def linearised(model: Model, x: ArrayLike, of: str, wrt: str) -> Iterator[Linearisation]:
    """The model at the samples of `x`, many together where their rows are apart."""
    samples = checked(model, x)
    for part in chunks(len(samples), rows_apart(model.at(samples[:1]), of, wrt)):
        yield model.at(samples[part])


def one_by_one(model: Model, x: ArrayLike) -> Iterator[Linearisation]:
    """The model at each sample of `x`, with a leading axis of 1."""
    samples = checked(model, x)
    for k in range(len(samples)):
        yield model.at(samples[k : k + 1])


def checked(model: Model, x: ArrayLike) -> Array:
    """Samples along the leading axis, at least one. Raises `UsageError`."""
    samples = np.asarray(x)
    if samples.ndim == 0 or len(samples) == 0:
        raise UsageError(
            f"data for model {model.name!r}", f"its shape is {samples.shape}.", "Give samples along axis 0."
        )
    return samples

"""Data sets: samples along the leading axis, and the Jacobian of each sample by few VJPs of the whole batch.

Where row k of an output depends on row k of an input alone, one VJP gives a row of every sample's Jacobian at once.
Whether it does is read off the certificates of the stages' blocks; no number is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation, Model
    from jaccomp.jacobian import Jacobian

Array = NDArray[Any]
CHUNK = 128
"""Samples that are linearised together. It is fixed, so that sums have one order whatever runs them."""
MOST_OUTPUTS = 256


def rows_apart(model: Model, of: str, wrt: str) -> bool:
    """Is every block on the way from `wrt` to `of` block diagonal over the leading axes?"""
    apart, mixed = {wrt}, set[str]()
    for placed in model.chain.stages:
        for output in placed.layer.spec.outputs:
            name = placed.outputs[output.name]
            if name == wrt or output.dtype != "real":
                continue
            reals = [t.name for t in placed.layer.spec.inputs if t.dtype == "real"]
            ways = [own for own in reals if placed.inputs[own] in apart | mixed]
            if any(placed.inputs[own] in mixed for own in ways):
                mixed.add(name)
            elif ways:
                tied = all(_tied(placed.layer.jacobian(output.name, own)) for own in ways)
                (apart if tied else mixed).add(name)
    return of in apart


def _tied(block: Jacobian) -> bool:
    """Does every term of the block tie the first axis of its rows to the first of its columns?"""
    layout, ties = block.layout.layout, block.layout.ties
    if not block.layout.parts:
        return True
    if not layout.rows or not layout.columns or len(layout.rows[0]) != 1 or len(layout.columns[0]) != 1:
        return False
    return (layout.rows[0][0], layout.columns[0][0]) in ties


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
    for part in chunks(len(samples), rows_apart(model, of, wrt)):
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

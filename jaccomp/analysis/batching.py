"""Many directions at once: the columns of a Jacobian's product as one batch, where the batch axis allows it.

Copies of the point are laid one after the other along the leading axis, one for each column; every stage then runs once
for all of them, and what was a product with a vector in BLAS becomes one with a matrix. It is allowed where each stage
on the way treats its leading axis point by point: no equation sums over it, shifts it or reads it anywhere else. That
is read off the equations; where it does not hold, columns go one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from jaccomp.composition import Chain, Placed
from jaccomp.notation import Access, Index, Reduction, Tensor
from jaccomp.spec import Spec

Array = NDArray[Any]
LARGEST_BATCH = 1 << 25  # bytes of the largest tensor in one batch of columns


@dataclass(frozen=True)
class Plan:
    """The stages that a tangent of `wrt` reaches, in order; `tiled` tensors have one copy for each column.

    `fresh` says that copies lie along a new axis: every tiled tensor leads with axes of any number. Otherwise they lie
    one after the other along the leading axis. `rows` says that all tiled tensors have that axis.
    """

    stages: tuple[Placed, ...]
    tiled: frozenset[str]
    fresh: bool
    rows: bool

    def tile(self, array: Array, copies: int) -> Array:
        if self.fresh:
            return np.broadcast_to(array, (copies, *array.shape))
        return np.tile(array, (copies, *(1 for _ in array.shape[1:])))

    def laid(self, columns: Array, shape: tuple[int, ...]) -> Array:
        """Columns [size, k] of a tensor of `shape`, as one tensor of a batch."""
        copies = columns.shape[1]
        stacked = np.ascontiguousarray(columns.T).reshape(copies, *shape)
        return stacked if self.fresh else stacked.reshape(copies * shape[0], *shape[1:])


def plan(chain: Chain, of: str, wrt: str, ranks: Mapping[str, int]) -> Plan | None:
    """How columns of ∂of/∂wrt run as one batch, or None where they cannot; `ranks` are those of the tensors' values."""
    tiled, stages = {wrt}, []
    for placed in chain.stages:
        if of in tiled:
            break
        inputs = {own: name for own, name in placed.inputs.items() if name in tiled}
        if not inputs or wrt in placed.outputs.values():
            continue
        lead = leading(placed.layer.spec)
        if lead is None or not {*inputs} <= lead.tensors or not {*placed.outputs} <= lead.tensors:
            return None
        stages.append((placed, lead))
        tiled |= {*placed.outputs.values()} | {name for own, name in placed.inputs.items() if own in lead.tensors}
    if of not in tiled:
        return None
    for placed, lead in stages:
        if any(name in tiled and own not in lead.tensors for own, name in placed.inputs.items()):
            return None
    fresh = all(lead.any_number for _, lead in stages)
    rows = all(_has_lead(placed, lead, ranks) for placed, lead in stages)
    return Plan(tuple(placed for placed, _ in stages), frozenset(tiled), fresh, rows) if fresh or rows else None


def _has_lead(placed: Placed, lead: Lead, ranks: Mapping[str, int]) -> bool:
    """Have its values the leading axis, or does a size of any number of axes stand for none there?"""
    return all(ranks[placed.inputs[t.name]] >= len(t.shape) for t in placed.layer.spec.inputs if t.name in lead.tensors)


class Tiled(Mapping[str, Array]):
    """The value of every tensor at `copies` of a point: an array is laid out when it is asked for, and not kept."""

    def __init__(self, values: Mapping[str, Array], plan: Plan, copies: int) -> None:
        self._values, self._plan, self._copies = values, plan, copies

    def __getitem__(self, name: str) -> Array:
        value = self._values[name]
        return self._plan.tile(value, self._copies) if name in self._plan.tiled else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def chunks(columns: Array, widest: int) -> Iterator[Array]:
    """Columns [size, k] in batches whose largest tensor, of `widest` bytes for each, keeps to `LARGEST_BATCH`."""
    size = max(1, min(columns.shape[1], LARGEST_BATCH // max(widest, 1)))
    for start in range(0, max(columns.shape[1], 1), size):
        yield columns[:, start : start + size]


# Reading the equations


@dataclass(frozen=True, slots=True)
class Lead:
    """The tensors of a layer that lead with the one size that is treated point by point, and if it is of any axes."""

    tensors: frozenset[str]
    any_number: bool


def leading(spec: Spec) -> Lead | None:
    """The leading axis that a layer treats point by point, or None.

    Every output has it first, and so has every tensor that has it at all; each equation reads it at its own bare index.
    """
    outputs = spec.outputs
    if not outputs or not all(tensor.shape for tensor in outputs):
        return None
    size = outputs[0].shape[0]
    everything = (*spec.inputs, *spec.outputs, *spec.intermediates)
    having = frozenset(t.name for t in everything if t.shape and t.shape[0] == size)
    apart = all(not extent.has(size) for t in everything for extent in t.shape[1 if t.name in having else 0 :])
    if not isinstance(size, sp.Symbol) or not apart or not all(t.name in having for t in outputs):
        return None
    if not all(_is_pointwise(e.left, e.right, size, having) for e in spec.equations):
        return None
    return Lead(having, getattr(size, "axes", 1) == "any")


def _is_pointwise(left: sp.Expr, right: sp.Expr, size: sp.Symbol, having: frozenset[str]) -> bool:
    reads = [a for a in _accesses(right) if a.base.name in having]
    if left.base.name not in having if isinstance(left, Access) else True:
        return not reads and not _outside(right, size)
    index = left.indices[0]
    bare = isinstance(index, Index) and (index.start, index.stop) == (0, size)
    same = all(read.indices[0] == index for read in reads)
    elsewhere = any(one.has(index) for a in (left, *_accesses(right)) for one in _others(a, having))
    return bare and same and not elsewhere and not _binds(right, index, size) and not _outside(right, size, index)


def _others(access: Access, having: frozenset[str]) -> tuple[sp.Expr, ...]:
    return access.indices[1:] if access.base.name in having else access.indices


def _accesses(expr: Any) -> Iterator[Access]:
    for one in sp.preorder_traversal(expr):
        if isinstance(one, Access):
            yield one


def _binds(expr: Any, index: Index, size: sp.Symbol) -> bool:
    """Does a reduction run over that size?"""
    for one in sp.preorder_traversal(expr):
        if isinstance(one, sp.Sum | sp.Product):
            if any(limit[0] == index or any(end.has(size) for end in limit[1:]) for limit in one.limits):
                return True
        elif isinstance(one, Reduction):
            bound = one.args[1] if isinstance(one.args[1], tuple | sp.Tuple) else (one.args[1],)
            if any(b == index or b.has(size) for b in bound):
                return True
    return False


def _outside(expr: Any, *symbols: sp.Basic) -> bool:
    """Does the size, or the index, stand anywhere but inside an access?"""
    if expr in symbols:
        return True
    if isinstance(expr, Access | Index | Tensor):
        return isinstance(expr, Index) and expr in symbols
    return any(_outside(one, *symbols) for one in getattr(expr, "args", ()))

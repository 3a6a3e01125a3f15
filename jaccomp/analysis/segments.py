"""Where a chain can be cut: the tensors that every path passes, and the segments between them.

    fc0 -> act0 -> fc1 -> act1              cut at every stage
    norm -> fc -> add, which reads x too    cut at x and at the sum only: the block is one segment

`∂of/∂wrt` is the product of the Jacobians of the segments, the last one first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from jaccomp.composition import Chain, Placed
from jaccomp.errors import UsageError


@dataclass(frozen=True, slots=True)
class Segment:
    """The stages between two cuts, in order: ∂`end`/∂`start` is the factor of the segment."""

    start: str
    end: str
    stages: tuple[Placed, ...]

    @property
    def name(self) -> str:
        """Its stages' names: `fc3+act3`."""
        return "+".join(one.name for one in self.stages)


def segments(chain: Chain, of: str, wrt: str) -> tuple[Segment, ...]:
    """The segments from `wrt` to `of`, the first of the chain first.

    A tensor is a cut where the paths into it times those out of it are all paths. Raises `UsageError` where no path
    leads from `wrt` to `of`.
    """
    into: dict[str, int] = {wrt: 1}
    for one in chain.stages:
        count = sum(into.get(name, 0) for name in one.inputs.values())
        into |= {name: count for name in one.outputs.values() if name not in into}
    out: dict[str, int] = {of: 1}
    for one in reversed(chain.stages):
        count = sum(out.get(name, 0) for name in one.outputs.values())
        for name in one.inputs.values():
            out[name] = out.get(name, 0) + count
    everything = into.get(of, 0)
    if of == wrt or not everything:
        raise UsageError(
            f"segments of chain {chain.name!r}",
            f"no path leads from {wrt!r} to {of!r}.",
            "Name an output of a stage, and a tensor that it depends on.",
        )
    order = [name for one in chain.stages for name in one.outputs.values()]
    cuts = [wrt, *(n for n in order if n != wrt and into.get(n, 0) * out.get(n, 0) == everything)]
    found: list[Segment] = []
    for start, end in pairwise(cuts):
        found.append(Segment(start, end, _between(chain, start, end)))
    return tuple(found)


def layers(chain: Chain, of: str, wrt: str) -> tuple[Segment, ...]:
    """The segments joined so that each starts where a weight is read: a layer is a weight and what follows it.

    A chain that has no weights has a layer for each segment.
    """
    found = segments(chain, of, wrt)
    weighed = [any(weighs(chain, placed, wrt) for placed in one.stages) for one in found]
    if not any(weighed):
        return found
    # What stands before the first weight belongs to the first layer.
    opening = [k for k in range(len(found)) if weighed[k]][1:]
    joined = [found[start:end] for start, end in pairwise([0, *opening, len(found)])]
    return tuple(
        Segment(group[0].start, group[-1].end, tuple(placed for one in group for placed in one.stages))
        for group in joined
    )


def weighs(chain: Chain, placed: Placed, wrt: str) -> bool:
    """Does the stage read a weight: an input of the chain, but `wrt`, that is real and of rank 2 or more?"""
    own = {tensor.name for tensor in chain.spec.inputs if tensor.dtype == "real" and len(tensor.shape) >= 2} - {wrt}
    return not own.isdisjoint(placed.inputs.values())


def _between(chain: Chain, start: str, end: str) -> tuple[Placed, ...]:
    """The stages on a path from one tensor to another."""
    reached = {start}
    for one in chain.stages:
        if reached & {*one.inputs.values()}:
            reached |= {*one.outputs.values()} - {start}
    needed = {end}
    for one in reversed(chain.stages):
        if needed & {*one.outputs.values()} and start not in one.outputs.values():
            needed |= {*one.inputs.values()}
    return tuple(
        one
        for one in chain.stages
        if reached & {*one.inputs.values()} and needed & {*one.outputs.values()} and start not in one.outputs.values()
    )

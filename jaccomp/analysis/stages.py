"""A linearised model stage by stage: second order along a line, the model from a tensor on, one stage by itself.

second_order(at, "x", t)            every tensor's first and second derivative along the line x + r t, at r = 0
values_from(at, {"x": changed})     every tensor's value where some are changed
local(at, "norm", ("x",))           the Jacobian of one stage by those of its inputs, as an operator
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.analysis.model import each, reals
from jaccomp.errors import UsageError
from jaccomp.structured import operator

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation

Array = NDArray[Any]


def second_order(at: Linearisation, wrt: str, direction: Array) -> dict[str, tuple[Array, Array]]:
    """Of every tensor that moves, its first and second derivative along `wrt + r direction`, at r = 0.

    With x' and x'' those of a stage's inputs, those of its output are J x' and D²f[x', x'] + J x'': the tangent of the
    stage's own pushforward at (x, x') in the direction (x', x''). Griewank and Walther, Evaluating Derivatives (2008),
    section 13.2.
    """
    first: dict[str, Array] = {wrt: direction}
    second: dict[str, Array] = {}  # of what moves along a straight line, as `wrt` does, there is none
    reached = at.model.moving(wrt)
    for placed in at.model.chain.stages:
        if placed.name not in reached:
            continue
        inputs, wanted = [t.name for t in placed.layer.spec.inputs], reached[placed.name]
        slopes = {own: first[placed.inputs[own]] for own in wanted}
        bends = {own: second[placed.inputs[own]] for own in wanted if placed.inputs[own] in second}
        along = tuple(map(inputs.index, wanted))
        twice = at.model.pushforward(placed.layer, along, (*along, *(len(inputs) + wanted.index(own) for own in bends)))
        call = *at.model.call(placed, at.values), *slopes.values()
        made = [placed.outputs[own] for own in reals(placed.layer.spec.outputs)]
        second |= zip(made, each(twice(*call, *slopes.values(), *bends.values(), **at.model.own(placed))), strict=True)
        first |= zip(made, at.pushed(placed, slopes), strict=True)
    zero = np.zeros_like(direction)
    return {name: (one, second.get(name, zero)) for name, one in first.items()}


def values_from(at: Linearisation, changed: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor's value where those of some tensors, inputs or intermediates, are changed."""
    values, fresh = {**at.values, **changed}, set(changed)
    for placed in at.model.chain.stages:
        made = [name for name in placed.outputs.values() if name not in changed]
        if made and not fresh.isdisjoint(placed.inputs.values()):
            result = at.model.kernels[placed.name].forward(*at.model.call(placed, values), **at.model.own(placed))
            found = at.model.named(placed, result)
            values |= {name: found[name] for name in made}
            fresh |= set(made)
    return values


def local(at: Linearisation, stage: str, inputs: tuple[str, ...]) -> Any:
    """The Jacobian of a stage's real outputs by these of its inputs together, as a SciPy `LinearOperator`.

    Rows are the outputs one after the other, columns the inputs. Raises `UsageError` for a stage that there is not.
    """
    placed = next((one for one in at.model.chain.stages if one.name == stage), None)
    if placed is None:
        known = ", ".join(one.name for one in at.model.chain.stages)
        raise UsageError(f"stage {stage!r} of model {at.model.name!r}", "there is none.", f"It has {known}.")
    outputs = reals(placed.layer.spec.outputs)
    sources = [at.values[placed.inputs[own]] for own in inputs]
    targets = [at.values[placed.outputs[own]] for own in outputs]

    def forward(t: Array) -> Array:
        return _joined(at.pushed(placed, dict(zip(inputs, _split(t, sources), strict=True))))

    def backward(v: Array) -> Array:
        return _joined(at.pulled(placed, dict(zip(outputs, _split(v, targets), strict=True)), inputs))

    shapes = (sum(one.size for one in targets),), (sum(one.size for one in sources),)
    return operator(shapes, np.result_type(*sources, *targets), forward, backward)


def _split(flat: Array, like: list[Array]) -> list[Array]:
    ends = np.cumsum([one.size for one in like])[:-1]
    return [part.reshape(one.shape) for part, one in zip(np.split(flat, ends), like, strict=True)]


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.asarray(one).reshape(-1) for one in parts])

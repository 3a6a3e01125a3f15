"""A linearised model stage by stage: every tensor's tangent, second order along a line, the model from a tensor on.

tangents(at, {"x": t})              the tangent of every tensor that moves
second_order(at, "x", t)            their second derivatives along the line x + r t, at r = 0
cotangents(at, {"y": v}, "x")       the cotangent of every tensor between x and y
values_from(at, {"x": changed})     every tensor's value where some are changed
local(at, "norm")                   the Jacobian of one stage by all its inputs that move, as an operator
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.errors import UsageError
from jaccomp.structured import operator

if TYPE_CHECKING:
    from jaccomp.analysis.model import Linearisation, Model
    from jaccomp.composition import Placed

Array = NDArray[Any]


def moving(model: Model, wrt: str) -> dict[str, tuple[str, ...]]:
    """The stages that `wrt` reaches, in order, each with those of its inputs, by its layer's names, that move."""
    reached, found = {wrt}, {}
    for placed in model.chain.stages:
        real = [t.name for t in placed.layer.spec.inputs if t.dtype == "real"]
        names = tuple(own for own in real if placed.inputs[own] in reached)
        made = [placed.outputs[t.name] for t in placed.layer.spec.outputs if t.dtype == "real"]
        if names and wrt not in made:
            found[placed.name] = names
            reached |= set(made)
    return found


def tangents(at: Linearisation, given: Mapping[str, Array]) -> dict[str, Array]:
    """The tangent of every tensor that moves, those given included."""
    known = dict(given)
    for placed in at.model.chain.stages:
        each = tuple(known.get(placed.inputs[t.name]) for t in placed.layer.spec.inputs)
        names = [name for name in placed.outputs.values() if name not in given]
        if names and any(one is not None for one in each):
            out = _stage_jvp(at, placed, each)
            known |= {name: out[name] for name in names if out[name] is not None}
    return known


def cotangents(at: Linearisation, given: Mapping[str, Array], wrt: str) -> dict[str, Array]:
    """The cotangent of every tensor between `wrt` and the given ones, both included."""
    known, stages = dict(given), moving(at.model, wrt)
    for placed in reversed([one for one in at.model.chain.stages if one.name in stages]):
        each = tuple(known.get(name) for name in placed.outputs.values())
        if all(one is None for one in each):
            continue
        pulled = at.pullbacks[placed.name](each if len(each) > 1 else each[0], wrt=stages[placed.name])
        for tensor, found in zip(placed.layer.spec.inputs, pulled, strict=True):
            name = placed.inputs[tensor.name]
            if found is not None:
                known[name] = known[name] + found if name in known else found
    return known


def second_order(at: Linearisation, wrt: str, direction: Array) -> dict[str, tuple[Array, Array]]:
    """Of every tensor that moves, its first and second derivative along `wrt + r direction`, at r = 0.

    With x' and x'' those of a stage's inputs, those of its output are J x' and D²f[x', x'] + J x'': the tangent of the
    stage's own JVP at (x, x') in the direction (x', x''). Griewank and Walther, Evaluating Derivatives (2008),
    section 13.2.
    """
    known: dict[str, tuple[Array, Array]] = {wrt: (direction, np.zeros_like(direction))}
    for placed in at.model.chain.stages:
        inputs = [(t, placed.inputs[t.name]) for t in placed.layer.spec.inputs]
        if not any(name in known for _, name in inputs) or wrt in placed.outputs.values():
            continue
        call = [at.values[name] for _, name in inputs]
        still = {name: np.zeros_like(at.values[name]) for _, name in inputs}
        real = [name for tensor, name in inputs if tensor.dtype == "real"]
        first = [known[name][0] if name in known else still[name] for name in real]
        into = [known[name][0] if name in known else None for _, name in inputs]
        again = [known[name][1] if name in known else None for name in real]
        _, out = at.model.tangent_kernel(placed.name).jvp((*call, *first), (*into, *again), **at.model.own(placed))
        made = [placed.outputs[t.name] for t in placed.layer.spec.outputs if t.dtype == "real"]
        moved = list(out)[: len(made)], list(out)[-len(made) :]
        known |= {name: (np.asarray(a), np.asarray(b)) for name, a, b in zip(made, *moved, strict=True)}
    return known


def values_from(at: Linearisation, changed: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor's value where those of some tensors, inputs or intermediates, are changed."""
    values, fresh = {**at.values, **changed}, set(changed)
    for placed in at.model.chain.stages:
        made = [name for name in placed.outputs.values() if name not in changed]
        if made and not fresh.isdisjoint(placed.inputs.values()):
            result = at.model.kernels[placed.name].forward(*at.model._call(placed, values), **at.model.own(placed))
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
    outputs = [t.name for t in placed.layer.spec.outputs if t.dtype == "real"]
    sources = [at.values[placed.inputs[own]] for own in inputs]
    targets = [at.values[placed.outputs[own]] for own in outputs]

    def forward(t: Array) -> Array:
        given = dict(zip(inputs, _split(t, sources), strict=True))
        each = tuple(given.get(tensor.name) for tensor in placed.layer.spec.inputs)
        out = _stage_jvp(at, placed, each)
        return _joined([out[placed.outputs[own]] for own in outputs])

    def backward(v: Array) -> Array:
        given = dict(zip(outputs, _split(v, targets), strict=True))
        each = tuple(given.get(own) for own in placed.outputs)
        pulled = at.pullbacks[stage](each if len(each) > 1 else each[0], wrt=inputs)
        found = dict(zip((t.name for t in placed.layer.spec.inputs), pulled, strict=True))
        return _joined([found[own] for own in inputs])

    shapes = (sum(one.size for one in targets),), (sum(one.size for one in sources),)
    return operator(shapes, np.result_type(*sources, *targets), forward, backward)


def _stage_jvp(at: Linearisation, placed: Placed, each: tuple[Array | None, ...]) -> dict[str, Array]:
    call = at.model._call(placed, at.values)
    _, out = at.model.kernels[placed.name].jvp(call, each, **at.model.own(placed))
    return at.model.named(placed, out)


def _split(flat: Array, like: list[Array]) -> list[Array]:
    ends = np.cumsum([one.size for one in like])[:-1]
    return [part.reshape(one.shape) for part, one in zip(np.split(flat, ends), like, strict=True)]


def _joined(parts: list[Array]) -> Array:
    return np.concatenate([np.asarray(one).reshape(-1) for one in parts])

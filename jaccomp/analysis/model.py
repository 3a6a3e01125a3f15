"""A chain with its parameters, and its linearisation at a point: Jacobians between any two of its tensors as operators.

    model = Model(jc.chain("mlp", fc1=linear, act=gelu, fc2=linear), {"fc1_W": W1, ...})
    at = model.at(x)                          every tensor's value, and each stage's pullback
    J = at.operator(of="y", wrt="x")          a SciPy LinearOperator: matvec goes forward, rmatvec back
    J.T @ J, at.operator("y", "act_y") @ at.operator("act_y", "x")

Each product runs the stages' own kernels; a whole network never becomes one kernel that would be derived at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaccomp.analysis import batching
from jaccomp.compiling import compile
from jaccomp.composition import Chain, Placed
from jaccomp.errors import UsageError
from jaccomp.structured import operator

if TYPE_CHECKING:
    from jaccomp.layer import Layer
    from jaccomp.notation import Tensor

Array = NDArray[Any]
Pullback = Callable[..., tuple[Array | None, ...]]
Ways = tuple[tuple[int, ...], ...]


class Model:
    """A chain, its parameters by the chain's names, and one kernel for each stage.

    `constants` are scalars, and sizes that no input determines; `threads` is how many each kernel may use. A layer that
    is no chain is a chain of one stage. Raises `UsageError` for a name that there is not.
    """

    def __init__(
        self,
        layer: Layer,
        parameters: Mapping[str, ArrayLike] | None = None,
        *,
        backend: str = "cython",
        threads: int | None = None,
        **constants: Any,
    ) -> None:
        self.chain = layer if isinstance(layer, Chain) else Chain.of_layer(layer)
        self.parameters: dict[str, Array] = {name: np.asarray(value) for name, value in (parameters or {}).items()}
        self.constants = constants
        self.backend = backend
        self.threads = threads
        spec = self.chain.spec
        inputs = [t.name for t in spec.inputs]
        numbers = [*(s.name for s in spec.scalars), *(s.name for s in spec.sizes)]
        for what, given, known in (("input", self.parameters, inputs), ("scalar or size", constants, numbers)):
            for name in given:
                if name not in known:
                    raise UsageError(
                        f"model {self.name!r}",
                        f"the chain has no {what} {name!r}.",
                        f"It has {', '.join(known) or 'none'}.",
                    )
        self.inputs: tuple[str, ...] = tuple(name for name in inputs if name not in self.parameters)
        self._pushforwards: dict[tuple[Layer, Ways], Callable[..., Any]] = {}
        self._building = RLock()

    def __getstate__(self) -> dict[str, Any]:
        """The chain and its parameters; kernels are built, or found in the cache, where the model arrives."""
        return {k: v for k, v in self.__dict__.items() if k not in ("kernels", "_pushforwards", "_building")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pushforwards={}, _building=RLock())

    def having(self, parameters: Mapping[str, ArrayLike]) -> Model:
        """The same model with other values for some parameters: kernels are shared, nothing is compiled again."""
        made = Model(
            self.chain, {**self.parameters, **parameters}, backend=self.backend, threads=self.threads, **self.constants
        )
        made.kernels, made._pushforwards, made._building = self.kernels, self._pushforwards, self._building
        return made

    @property
    def name(self) -> str:
        return self.chain.name

    @cached_property
    def kernels(self) -> dict[str, Any]:
        """Stage -> its kernel."""
        return self.chain.kernels(backend=self.backend)

    def pushforward(self, layer: Layer, *ways: tuple[int, ...]) -> Callable[..., Any]:
        """The function x..., t... -> t_y... of a stage's layer by those of its inputs that move, by their places.

        Further `ways` push its pushforward forward in turn: by places among x..., t... it is of second order. Built
        when it is first asked for, once for all stages that have the layer.
        """
        with self._building:
            if (layer, ways) not in self._pushforwards:
                derived = layer
                for places in ways:
                    names = [derived.program.labels.name(name) for name in derived.program.inputs]
                    derived = derived.pushforward([names[place] for place in places])
                self._pushforwards[layer, ways] = compile(derived, backend=self.backend).forward
            return self._pushforwards[layer, ways]

    def moving(self, wrt: str) -> dict[str, tuple[str, ...]]:
        """The stages that `wrt` reaches, in order, each with those of its inputs, by its layer's names, that move."""
        reached, found = {wrt}, {}
        for placed in self.chain.stages:
            moved = tuple(own for own in reals(placed.layer.spec.inputs) if placed.inputs[own] in reached)
            made = [placed.outputs[own] for own in reals(placed.layer.spec.outputs)]
            if moved and wrt not in made:
                found[placed.name] = moved
                reached |= set(made)
        return found

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.chain.spec.outputs)

    def given(self, *inputs: ArrayLike) -> dict[str, Array]:
        """Parameters and inputs by name. Raises `UsageError` where their number is not that of the open inputs."""
        if len(inputs) != len(self.inputs):
            raise UsageError(
                f"model {self.name!r}",
                f"{len(inputs)} inputs for {len(self.inputs)}: {', '.join(self.inputs)}.",
                "Pass those that are no parameters, in order.",
            )
        return {**self.parameters, **dict(zip(self.inputs, map(np.asarray, inputs), strict=True))}

    def __call__(self, *inputs: ArrayLike) -> Any:
        """The chain's outputs, by its stages' kernels."""
        values = self.given(*inputs)
        for placed in self.chain.stages:
            values |= self.named(
                placed, self.kernels[placed.name].forward(*self.call(placed, values), **self.own(placed))
            )
        found = tuple(values[name] for name in self.outputs)
        return found[0] if len(found) == 1 else found

    def at(self, *inputs: ArrayLike) -> Linearisation:
        """The linearisation at these inputs."""
        values = self.given(*inputs)
        pullbacks: dict[str, Pullback] = {}
        for placed in self.chain.stages:
            result, pullbacks[placed.name] = self.kernels[placed.name].vjp(
                *self.call(placed, values), **self.own(placed)
            )
            values |= self.named(placed, result)
        return Linearisation(self, values, pullbacks)

    def call(self, placed: Placed, values: Mapping[str, Array]) -> tuple[Array, ...]:
        return tuple(values[placed.inputs[t.name]] for t in placed.layer.spec.inputs)

    def own(self, placed: Placed) -> dict[str, Any]:
        """The constants of a stage, by its layer's names."""
        names = {**placed.scalars, **placed.sizes}
        found = {own: self.constants[name] for own, name in names.items() if name in self.constants}
        return found if self.threads is None else {**found, "threads": self.threads}

    def named(self, placed: Placed, result: Any) -> dict[str, Array]:
        """What a stage's kernel returned, by the chain's names."""
        return dict(zip(placed.outputs.values(), each(result), strict=True))


@dataclass(frozen=True, eq=False)
class Linearisation:
    """A model at a point: `values` of every tensor by the chain's names, and the pullbacks of stages.

    A pullback that is not kept is made, and dropped, each time it is asked for.
    """

    model: Model
    values: Mapping[str, Array]
    pullbacks: Mapping[str, Pullback] = field(default_factory=dict)

    def pullback(self, placed: Placed) -> Pullback:
        """The pullback of a stage at the point."""
        if placed.name in self.pullbacks:
            return self.pullbacks[placed.name]
        kernel, call = self.model.kernels[placed.name], self.model.call(placed, self.values)
        made: Pullback = kernel.vjp(*call, **self.model.own(placed))[1]
        return made

    def operator(self, of: str | None = None, wrt: str | None = None) -> Any:
        """The Jacobian ∂of/∂wrt as a SciPy `LinearOperator` on flat vectors.

        By default of the last output by the first input; any two tensors of the chain serve, intermediates too. Its
        `matmat` and `rmatmat` run all columns as one batch where every stage between treats its leading axis point by
        point (`batching`), one after the other elsewhere. Raises
        `UsageError` for a name that the chain does not have.
        """
        target, source = of or self.model.outputs[-1], wrt or self.model.inputs[0]
        for name in (target, source):
            if name not in self.values:
                raise UsageError(
                    f"operator of model {self.model.name!r}",
                    f"there is no tensor {name!r}.",
                    f"There are {sorted(self.values)}.",
                )
        shapes = self.values[target].shape, self.values[source].shape
        dtype = np.result_type(self.values[target], self.values[source])
        ranks = {name: value.ndim for name, value in self.values.items()}
        plan = batching.plan(self.model.chain, target, source, ranks)
        return operator(
            shapes,
            dtype,
            lambda t: self.jvp({source: t}, target),
            lambda v: self.vjp({target: v}, source),
            None if plan is None else partial(self._columns, plan, target, source),
            None if plan is None else partial(self._rows, plan, target, source),
        )

    def blocks(self, of: Sequence[str] | None = None, wrt: Sequence[str] | None = None) -> dict[tuple[str, str], Any]:
        """(output, input) -> the operator of that block; by default of every output by every real input.

        Parameters are inputs too. Raises what `operator` does.
        """
        chain = self.model.chain.spec
        targets = of if of is not None else reals(chain.outputs)
        sources = wrt if wrt is not None else reals(chain.inputs)
        return {(one, other): self.operator(one, other) for one in targets for other in sources}

    def jvp(self, tangents: Mapping[str, Array], of: str) -> Array:
        """The tangent of `of` for tangents of any tensors; those held fixed by none are 0."""
        found = self.tangents(tangents, of)
        return found[of] if of in found else np.zeros_like(self.values[of])

    def vjp(self, cotangents: Mapping[str, Array], wrt: str) -> Array:
        """The cotangent of `wrt` for cotangents of any tensors; only what depends on `wrt` is pulled back."""
        found = self.cotangents(cotangents, wrt)
        return found[wrt] if wrt in found else np.zeros_like(self.values[wrt])

    def tangents(self, given: Mapping[str, Array], of: str | None = None) -> dict[str, Array]:
        """The tangent of every tensor that moves, those given included; up to `of`, where it is named."""
        known = dict(given)
        for placed in self.model.chain.stages:
            if of in known:
                break
            moved = {
                own: known[placed.inputs[own]] for own in reals(placed.layer.spec.inputs) if placed.inputs[own] in known
            }
            made = [placed.outputs[own] for own in reals(placed.layer.spec.outputs)]
            if moved and not given.keys() >= set(made):
                known = {**dict(zip(made, self.pushed(placed, moved), strict=True)), **known}
        return known

    def cotangents(self, given: Mapping[str, Array], wrt: str) -> dict[str, Array]:
        """The cotangent of every tensor between `wrt` and the given ones, both included."""
        known, reached = dict(given), self.model.moving(wrt)
        for placed in reversed([one for one in self.model.chain.stages if one.name in reached]):
            cotangent = {own: known[name] for own, name in placed.outputs.items() if name in known}
            if cotangent:
                found = self.pulled(placed, cotangent, reached[placed.name])
                for own, one in zip(reached[placed.name], found, strict=True):
                    name = placed.inputs[own]
                    known[name] = known[name] + one if name in known else one
        return known

    def pushed(self, placed: Placed, tangent: Mapping[str, Array]) -> tuple[Array, ...]:
        """The tangents of a stage's real outputs, for those of the inputs that move, by the stage's own names."""
        inputs = [t.name for t in placed.layer.spec.inputs]
        moved = [own for own in inputs if own in tangent]
        push = self.model.pushforward(placed.layer, tuple(map(inputs.index, moved)))
        call = self.model.call(placed, self.values)
        return each(push(*call, *(tangent[own] for own in moved), **self.model.own(placed)))

    def pulled(self, placed: Placed, cotangent: Mapping[str, Array], wanted: Sequence[str]) -> tuple[Array, ...]:
        """The cotangents of a stage's `wanted` inputs, for those of some outputs, by the stage's own names."""
        given = tuple(map(cotangent.get, placed.outputs))
        found = self.pullback(placed)(given if len(given) > 1 else given[0], wrt=tuple(wanted))
        by_name = dict(zip((t.name for t in placed.layer.spec.inputs), found, strict=True))
        return tuple(np.asarray(by_name[own]) for own in wanted)

    def _columns(self, plan: batching.Plan, of: str, wrt: str, columns: Array) -> Array:
        """J V, the columns of V [size of wrt, k] as batches."""
        parts = []
        for chunk, tiled in self._tiled(plan, columns):
            found = tiled.jvp({wrt: plan.laid(chunk, self.values[wrt].shape)}, of)
            parts.append(found.reshape(chunk.shape[1], self.values[of].size).T)
        return np.concatenate(parts, axis=1)

    def _rows(self, plan: batching.Plan, of: str, wrt: str, columns: Array) -> Array:
        """Jᵀ V, the columns of V [size of of, k] as batches."""
        parts = []
        for chunk, tiled in self._tiled(plan, columns):
            found = tiled.vjp({of: plan.laid(chunk, self.values[of].shape)}, wrt)
            parts.append(found.reshape(chunk.shape[1], self.values[wrt].size).T)
        return np.concatenate(parts, axis=1)

    def _tiled(self, plan: batching.Plan, columns: Array) -> Iterator[tuple[Array, Linearisation]]:
        """Columns in batches, each with the model at as many copies of the point."""
        for chunk in batching.chunks(columns, max(self.values[name].nbytes for name in plan.tiled)):
            yield chunk, Linearisation(self.model, batching.Tiled(self.values, plan, chunk.shape[1]))


def reals(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """The names of those that are real."""
    return tuple(one.name for one in tensors if one.dtype == "real")


def each(result: Any) -> tuple[Array, ...]:
    """What a kernel returned, one array or several, as a tuple."""
    return tuple(map(np.asarray, result if isinstance(result, tuple) else (result,)))


def dense(linear: Any, limit: int = 1 << 27) -> Array:
    """The matrix of an operator, by columns or rows, whichever are fewer. Raises `UsageError` beyond `limit` bytes."""
    rows, columns = linear.shape
    if prod((rows, columns)) * np.dtype(linear.dtype).itemsize > limit:
        raise UsageError(
            "dense matrix of an operator",
            f"{rows} by {columns} is more than {limit} bytes.",
            "Use the operator itself.",
        )
    if columns <= rows:
        return np.asarray(linear.matmat(np.eye(columns, dtype=linear.dtype)))
    return np.asarray(linear.rmatmat(np.eye(rows, dtype=linear.dtype))).T

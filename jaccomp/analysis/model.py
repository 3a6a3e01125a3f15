"""A chain with its parameters, and its linearisation at a point: Jacobians between any two of its tensors as operators.

    model = Model(jc.chain("mlp", fc1=linear, act=gelu, fc2=linear), {"fc1_W": W1, ...})
    at = model.at(x)                          every tensor's value, and each stage's pullback
    J = at.operator(of="y", wrt="x")          a SciPy LinearOperator: matvec goes forward, rmatvec back
    J.T @ J, at.operator("y", "act_y") @ at.operator("act_y", "x")

Each product runs the stages' own kernels; a whole network never becomes one kernel that would be derived at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
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

Array = NDArray[Any]


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
        inputs = [t.name for t in self.chain.spec.inputs]
        spec = self.chain.spec
        known = {*inputs, *(s.name for s in spec.scalars), *(s.name for s in spec.sizes)}
        for name in (*self.parameters, *constants):
            if name not in known:
                raise UsageError(
                    f"model {self.name!r}", f"the chain has no {name!r}.", f"It has {', '.join(sorted(known))}."
                )
        self.inputs: tuple[str, ...] = tuple(name for name in inputs if name not in self.parameters)
        self._tangent_kernels: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The chain and its parameters; kernels are built, or found in the cache, where the model arrives."""
        return {**{k: v for k, v in self.__dict__.items() if k != "kernels"}, "_tangent_kernels": {}}

    def with_parameters(self, parameters: Mapping[str, ArrayLike]) -> Model:
        """The same chain, by the same kernels, with these parameters: another draw of its weights."""
        other = Model(self.chain, parameters, backend=self.backend, threads=self.threads, **self.constants)
        other.__dict__["kernels"], other._tangent_kernels = self.kernels, self._tangent_kernels
        return other

    @property
    def name(self) -> str:
        return self.chain.name

    @cached_property
    def kernels(self) -> dict[str, Any]:
        """Stage -> its kernel."""
        return self.chain.kernels(backend=self.backend)

    def tangent_kernel(self, stage: str) -> Any:
        """The kernel of a stage's JVP as a layer, whose own JVP is second order; built when it is first asked for."""
        if stage not in self._tangent_kernels:
            layer = next(one.layer for one in self.chain.stages if one.name == stage)
            same = [one.name for one in self.chain.stages if one.layer is layer and one.name in self._tangent_kernels]
            made = self._tangent_kernels[same[0]] if same else compile(layer.jvp(), backend=self.backend)
            self._tangent_kernels[stage] = made
        return self._tangent_kernels[stage]

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.chain.spec.outputs)

    def having(self, parameters: Mapping[str, ArrayLike]) -> Model:
        """The same model with other values for some parameters: kernels are shared, nothing is compiled again."""
        made = Model(
            self.chain, {**self.parameters, **parameters}, backend=self.backend, threads=self.threads, **self.constants
        )
        made.kernels = self.kernels
        return made

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
                placed, self.kernels[placed.name].forward(*self._call(placed, values), **self.own(placed))
            )
        each = tuple(values[name] for name in self.outputs)
        return each[0] if len(each) == 1 else each

    def at(self, *inputs: ArrayLike) -> Linearisation:
        """The linearisation at these inputs."""
        values = self.given(*inputs)
        pullbacks: dict[str, Callable[..., Any]] = {}
        for placed in self.chain.stages:
            result, pullbacks[placed.name] = self.kernels[placed.name].vjp(
                *self._call(placed, values), **self.own(placed)
            )
            values |= self.named(placed, result)
        return Linearisation(self, values, pullbacks)

    def _call(self, placed: Placed, values: Mapping[str, Array]) -> tuple[Array, ...]:
        return tuple(values[placed.inputs[t.name]] for t in placed.layer.spec.inputs)

    def own(self, placed: Placed) -> dict[str, Any]:
        """The constants of a stage, by its layer's names."""
        names = {**placed.scalars, **placed.sizes}
        found = {own: self.constants[name] for own, name in names.items() if name in self.constants}
        return found if self.threads is None else {**found, "threads": self.threads}

    def named(self, placed: Placed, result: Any) -> dict[str, Array]:
        """What a stage's kernel returned, by the chain's names."""
        each = result if len(placed.outputs) > 1 else (result,)
        return dict(zip(placed.outputs.values(), map(np.asarray, each), strict=True))


@dataclass(frozen=True, eq=False)
class Linearisation:
    """A model at a point: `values` of every tensor by the chain's names, and each stage's pullback."""

    model: Model
    values: Mapping[str, Array]
    pullbacks: Mapping[str, Callable[..., Any]]

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
            None if plan is None else partial(batching.matmat, self, plan, target, source),
            None if plan is None else partial(batching.rmatmat, self, plan, target, source),
        )

    def blocks(self, of: Sequence[str] | None = None, wrt: Sequence[str] | None = None) -> dict[tuple[str, str], Any]:
        """(output, input) -> the operator of that block; by default of every output by every real input.

        Parameters are inputs too. Raises what `operator` does.
        """
        chain = self.model.chain.spec
        targets = of if of is not None else [t.name for t in chain.outputs if t.dtype == "real"]
        sources = wrt if wrt is not None else [t.name for t in chain.inputs if t.dtype == "real"]
        return {(one, other): self.operator(one, other) for one in targets for other in sources}

    def jvp(self, tangents: Mapping[str, Array], of: str) -> Array:
        """The tangent of `of` for tangents of any tensors; those held fixed by none are 0."""
        known = dict(tangents)
        for placed in self.model.chain.stages:
            if of in known:
                break
            moving = {own: known[name] for own, name in placed.inputs.items() if name in known}
            names = [name for name in placed.outputs.values() if name not in tangents]
            if not moving or not names:
                continue
            call = self.model._call(placed, self.values)
            each = tuple(moving.get(t.name) for t in placed.layer.spec.inputs)
            _, out = self.model.kernels[placed.name].jvp(call, each, **self.model.own(placed))
            found = self.model.named(placed, out)
            known |= {name: found[name] for name in names}
        return known.get(of, np.zeros_like(self.values[of]))

    def vjp(self, cotangents: Mapping[str, Array], wrt: str) -> Array:
        """The cotangent of `wrt` for cotangents of any tensors; only what depends on `wrt` is pulled back."""
        known: dict[str, Array] = dict(cotangents)
        for placed, wanted in reversed(self._after(wrt)):
            names = tuple(placed.outputs.values())
            if not any(name in known for name in names):
                continue
            each = tuple(known.get(name) for name in names)
            pulled = self.pullbacks[placed.name](each if len(each) > 1 else each[0], wrt=wanted)
            for tensor, found in zip(placed.layer.spec.inputs, pulled, strict=True):
                name = placed.inputs[tensor.name]
                if found is not None:
                    known[name] = known[name] + found if name in known else found
        return known.get(wrt, np.zeros_like(self.values[wrt]))

    def _after(self, wrt: str) -> list[tuple[Placed, tuple[str, ...]]]:
        """The stages that `wrt` reaches, and by which of their real inputs."""
        moving, found = {wrt}, []
        for placed in self.model.chain.stages:
            real = (t.name for t in placed.layer.spec.inputs if t.dtype == "real")
            wanted = tuple(own for own in real if placed.inputs[own] in moving)
            if wanted and wrt not in placed.outputs.values():
                moving |= set(placed.outputs.values())
                found.append((placed, wanted))
        return found


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

"""A Jacobian block in the form that is asked for, at the arguments of a call: what `kernel.jacobian` does beyond dense.

Arguments are bound, and refused, in the words of every other call. The kernels of a form are compiled when it is first
asked for, and found in the cache from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaccomp.arguments import Call
from jaccomp.errors import UsageError
from jaccomp.forms import FORMS, Numbers, Plan, plan
from jaccomp.structured import Array, operator

if TYPE_CHECKING:
    from jaccomp.binding import Signature, TensorForm
    from jaccomp.jacobian import Jacobian
    from jaccomp.layer import Layer

Run = Callable[..., Any]


class Forms:
    """The forms of one layer's blocks. `compiled` gives the function of a derived layer, `kernel` its own functions."""

    def __init__(self, layer: Layer, kernel: Any, compiled: Callable[[Layer], Run]) -> None:
        self.layer = layer
        self.kernel = kernel
        self._compiled = compiled
        self._blocks: dict[tuple[str | None, str | None], Jacobian] = {}
        self._plans: dict[tuple[str, str, str], tuple[Plan, Run | None]] = {}
        self._pushforwards: dict[str, Run] = {}

    def __call__(
        self, args: Sequence[Any], keywords: Mapping[str, Any], *, of: str | None, wrt: str | None, form: Any
    ) -> Any:
        """The block ∂of/∂wrt at these arguments. Raises `ValueError` for a form that the block does not have."""
        call = self._bound(args, keywords)
        if form not in FORMS:
            call.fail(ValueError, f"form is {form!r}, but it must be one of {', '.join(map(repr, FORMS))}.")
        try:
            jacobian = self._block(of, wrt)
            if form == "operator":
                return self._operator(call, jacobian, args, keywords)
            made, run = self._plan(jacobian, form)
        except UsageError as error:
            call.fail(ValueError, str(error))
        results = run(*args, **keywords) if run is not None else ()
        return made.assemble(self._numbers(call, jacobian, results))

    @cached_property
    def _signature(self) -> Signature:
        from jaccomp.bundling import bundle
        from jaccomp.emit.signature import signature

        known = bundle(self.layer, "forward", ())
        return signature(replace(known, kernels={("forward", "f64"): ""}))

    def _bound(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> Call:
        call = Call(self._signature)
        inputs = [one.name for one in self._signature.inputs]
        values = call.parse(inputs, ("threads",), args, keywords)
        call.threads(values.get("threads"))
        call.constants(values, self._signature.programs["forward"].scalars, defaults=True)
        for one in self._signature.inputs:
            if one.name not in values:
                call.fail(TypeError, f"the argument {one.name} is missing.")
            call.take("primal", one.name, values[one.name])
        call.bind()
        call.check_indices(self._signature.programs["forward"])
        return call

    def _block(self, of: str | None, wrt: str | None) -> Jacobian:
        if (of, wrt) not in self._blocks:
            self._blocks[of, wrt] = self.layer.jacobian(of, wrt)
        return self._blocks[of, wrt]

    def _plan(self, jacobian: Jacobian, form: str) -> tuple[Plan, Run | None]:
        key = jacobian.of, jacobian.wrt, form
        if key not in self._plans:
            made = plan(jacobian, form, self.layer.program.inputs)
            run = None if made.program is None else self._compiled(type(self.layer).of_program(made.program))
            self._plans[key] = made, run
        return self._plans[key]

    def _pushforward(self, wrt: str) -> Run:
        if wrt not in self._pushforwards:
            self._pushforwards[wrt] = self._compiled(self.layer.pushforward([wrt]))
        return self._pushforwards[wrt]

    def _numbers(self, call: Call, jacobian: Jacobian, results: Any) -> Numbers:
        labels = jacobian.program.labels
        known = {**call.scalars, **call.sizes}
        integers = [*jacobian.program.sizes, *(s.symbol for s in jacobian.program.scalars if s.dtype == "int64")]
        each = results if isinstance(results, tuple) else (results,)
        return Numbers(
            {one.name: int(known[labels.name(one.name)]) for one in integers if labels.name(one.name) in known},
            {name: call.arrays["primal", labels.name(name)] for name in self.layer.program.inputs},
            tuple(map(np.asarray, each)),
            call.shape(self._tensor(jacobian.of)),
            call.shape(self._tensor(jacobian.wrt)),
            call.dtype(jacobian.of),
        )

    def _tensor(self, name: str) -> TensorForm:
        return next(one for one in (*self._signature.outputs, *self._signature.inputs) if one.name == name)

    def _operator(self, call: Call, jacobian: Jacobian, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        outputs = [one.name for one in self._signature.outputs]
        inputs = [one.name for one in self._signature.inputs]
        reals = [one.name for one in self._signature.outputs if not one.integer]
        at, place = outputs.index(jacobian.of), inputs.index(jacobian.wrt)
        scalars = {name: value for name, value in keywords.items() if name not in inputs}
        primals = tuple(args[k] if k < len(args) else keywords[name] for k, name in enumerate(inputs))
        _, pullback = self.kernel.vjp(*primals, wrt=(jacobian.wrt,), **scalars)
        push = self._pushforward(jacobian.wrt)

        def backward(v: Array) -> Array:
            return np.asarray(
                pullback(v if len(outputs) == 1 else tuple(v if k == at else None for k in range(len(outputs))))[place]
            )

        def forward(t: Array) -> Array:
            ty = push(*primals, t, **scalars)
            return np.asarray(ty if len(reals) == 1 else ty[reals.index(jacobian.of)])

        shapes = call.shape(self._tensor(jacobian.of)), call.shape(self._tensor(jacobian.wrt))
        return operator(shapes, call.dtype(jacobian.of), forward, backward)

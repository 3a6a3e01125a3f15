"""NumpyKernel: a layer's functions without a compiler, evaluated by the reference interpreter.

The surface, the semantics and the refusals are those of a compiled module; the speed is not.
"""

from __future__ import annotations

import threading
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.arguments import MARKS, Call, State
from jaccomp.binding import ProgramForm, TensorForm
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.emit.bundle import Bundle, Role

Array = NDArray[Any]
Evaluate = Callable[..., Mapping[str, Array]]
DENSE_LIMIT = 1 << 30


class NumpyKernel:
    """The functions of a layer through `evaluate(program, arrays, sizes, scalars, dtype=...)`.

    `bundle` has some of the programs forward, fwd, bwd and jvp; `rest` gives one that has all of them, when a function
    is first asked for that needs more.
    """

    def __init__(
        self,
        bundle: Bundle,
        evaluate: Evaluate,
        rest: Callable[[], Bundle] | None = None,
        source: str = "",
        forms: Callable[[NumpyKernel], Callable[..., Any]] | None = None,
        travel: tuple[Callable[..., NumpyKernel], tuple[Any, ...]] | None = None,
    ) -> None:
        self.name = bundle.name
        self._evaluate = evaluate
        self._rest = rest
        self._deriving = threading.RLock()
        self._forms = None if forms is None else forms(self)
        self._travel = travel
        self._load(bundle)
        self.source = source

    def __reduce__(self) -> tuple[Callable[..., NumpyKernel], tuple[Any, ...]]:
        """A kernel travels as its layer and key."""
        if self._travel is None:
            raise UsageError(
                f"kernel {self.name}", "it cannot be pickled: it does not know its layer.", "Use jc.compile."
            )
        function, arguments = self._travel
        return function, (*arguments, self.spec_hash)

    def _load(self, bundle: Bundle) -> None:
        from jaccomp.emit.signature import signature, slot

        self._bundle = replace(bundle, kernels={(role, "f64"): "" for role in bundle.programs})
        self._signature = signature(self._bundle)
        self._programs = self._signature.programs
        names = {n for program in bundle.programs.values() for n in (*program.inputs, *program.outputs)}
        slots = {name: slot(self._bundle, name) for name in names}
        self._canonical = {name: (side, bundle.label(primal)) for name, (side, primal) in slots.items()}
        outputs, kept = [one.name for one in self._signature.outputs], self._signature.kept
        self.Outputs: Any = namedtuple("Outputs", outputs)  # type: ignore[misc]
        self.Residuals: Any = type("Residuals", (namedtuple("Residuals", kept),), {})

    @property
    def formulas(self) -> Mapping[tuple[str, str], tuple[str, str, str]]:
        """(output, input) -> the Jacobian block as text, as LaTeX, and its structure."""
        return {key: (one.text, one.latex, one.structure) for key, one in self._bundle.formulas.items()}

    @property
    def spec_hash(self) -> str:
        return self._bundle.spec_hash

    def __repr__(self) -> str:
        return f"<NumpyKernel {self.name}>"

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.forward(*args, **keywords)

    # -- the functions

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """The outputs; `out` and scalars by keyword."""
        call, values = self._enter("forward", args, keywords, ("out", "threads"))
        out = values.get("out")
        results = self._run(call, "forward", self._outputs(), out)
        return self._layer_results(call, results, "primal", out)

    def fwd(self, *args: Any, **keywords: Any) -> Any:
        """(outputs, residuals)."""
        result, call, wrt = self._keep(args, keywords)
        res = self.Residuals(*(call.arrays.get(("primal", name)) for name in self._signature.kept))
        res._call = call.state(wrt)
        return result, res

    def vjp(self, *args: Any, **keywords: Any) -> Any:
        """(outputs, pullback)."""
        result, call, wrt = self._keep(args, keywords)
        return result, _Pullback(self, call.state(wrt), dict(call.arrays))

    def bwd(self, *args: Any, **keywords: Any) -> tuple[Any, ...]:
        """The cotangents of the inputs, from residuals and the cotangents of the outputs."""
        self._needs("bwd")
        call = Call(self._signature)
        if not 2 <= len(args) <= 3:
            call.fail(TypeError, f"bwd takes res, dy and wrt by position: {len(args)} given.")
        res, dy = args[:2]
        values = call.parse((), ("out", "threads", "wrt"), (), keywords)
        if len(args) == 3 and "wrt" in values:
            call.fail(TypeError, "wrt is given twice.")
        kept = self._signature.kept
        if not isinstance(res, tuple | list) or len(res) != len(kept):
            call.fail(
                TypeError,
                f"res must be what fwd returns, a tuple of {len(kept)} arrays, but it is a {type(res).__name__}.",
            )
        state = getattr(res, "_call", None) if isinstance(res, self.Residuals) else None
        if isinstance(state, State):
            call = Call(self._signature, state)
        given = args[2] if len(args) == 3 else values.get("wrt")
        call.threads(values.get("threads"))
        call.constants(values, self._programs["bwd"].scalars, defaults=False)
        wrt = call.narrow(given, state.wrt if isinstance(state, State) else call.wrt(None))
        for name, array in zip(kept, res, strict=True):
            if array is not None:
                call.take("primal", name, array)
        self._cotangents(call, dy)
        return self._pull(call, wrt, values.get("out"))

    def jvp(self, *args: Any, **keywords: Any) -> Any:
        """(outputs, tangents of the outputs)."""
        self._needs("jvp")
        call = Call(self._signature)
        if len(args) != 2:
            call.fail(TypeError, f"jvp takes primals and tangents by position: {len(args)} given.")
        values = call.parse((), ("threads",), (), keywords)
        primals, tangents = self._each(call, "primals", args[0]), self._each(call, "tangents", args[1])
        self._take(call, "jvp", primals, values)
        for form, tangent in zip(self._signature.inputs, tangents, strict=True):
            if tangent is None:
                continue
            if form.integer:
                call.fail(TypeError, f"t_{form.name} is given, but {form.name} is integer: pass None.")
            call.take("tangent", form.name, tangent)
        call.bind()
        self._zeros(call, "jvp", "tangent")
        wanted = list(self._bundle.programs["jvp"].outputs)
        results = self._run(call, "jvp", wanted, None)
        return self._layer_results(call, results, "primal", None), self._layer_results(call, results, "tangent", None)

    def jacobian(self, *args: Any, **keywords: Any) -> Any:
        """The Jacobian block, dense (axes of `of`, then of `wrt`) or in a form that its structure allows."""
        if keywords.get("form", "dense") != "dense" and self._forms is not None:
            named = {"of": None, "wrt": None, **keywords}
            asked = {key: named.pop(key) for key in ("of", "wrt", "form")}
            return self._forms(args, named, **asked)
        self._needs("bwd")
        call = Call(self._signature)
        inputs = [one.name for one in self._signature.inputs]
        values = call.parse(inputs, ("threads", "of", "wrt", "form"), args, keywords)
        form = values.get("form", "dense")
        if form != "dense":
            call.fail(ValueError, f"form is {form!r}, but it must be 'dense'.")
        of = self._choose(call, "of", values.get("of"), self._signature.outputs)
        wrt = self._choose(call, "wrt", values.get("wrt"), self._signature.inputs)
        self._take(call, "fwd", [values.get(name, _MISSING) for name in inputs], values)
        call.bind()
        shape, shape_wrt = call.shape(of), call.shape(wrt)
        rows, columns = int(np.prod(shape, dtype=object)), int(np.prod(shape_wrt, dtype=object))
        dtype = call.dtype(of.name)
        if rows * columns * dtype.itemsize > DENSE_LIMIT:
            call.fail(
                ValueError,
                f"the dense Jacobian {shape + shape_wrt} of {dtype} needs more than the limit of {DENSE_LIMIT} bytes "
                f"({DENSE_LIMIT >> 20} MiB). Use vjp or jvp, or smaller sizes.",
            )
        J = np.zeros((rows, columns), dtype)
        if J.size:
            plain = {k: v for k, v in keywords.items() if k not in ("of", "wrt", "form")}
            _, res = self.fwd(*args, wrt=wrt.name, **plain)
            at, place = self._signature.outputs.index(of), self._signature.inputs.index(wrt)
            for row in range(rows):
                unit = np.zeros(shape, dtype)
                unit.reshape(-1)[row] = 1
                each = tuple(unit if k == at else None for k in range(len(self._signature.outputs)))
                J[row] = np.ravel(self.bwd(res, each if len(each) > 1 else unit)[place])
        return J.reshape(shape + shape_wrt)[()]

    def shapes(self, *args: Any, **keywords: Any) -> dict[str, tuple[int, ...]]:
        """The shapes of outputs and residuals, from those of the inputs."""
        call = Call(self._signature)
        inputs = [one.name for one in self._signature.inputs]
        values = call.parse(inputs, (), args, keywords)
        call.constants(values, [s.name for s in self._signature.scalars if s.integer], defaults=True)
        for name in inputs:
            if name not in values:
                continue
            if not isinstance(values[name], tuple | list):
                call.fail(TypeError, f"{name} is {values[name]!r}, but shapes takes the shape of each input, a tuple.")
            call.shapes["primal", name] = tuple(map(int, values[name]))
        call.bind()
        return {one.name: call.shape(one) for one in (*self._signature.outputs, *self._signature.residuals)}

    def release_memory(self) -> int:
        """It keeps no memory: 0 bytes are given back."""
        return 0

    # -- the steps

    def _needs(self, role: Role) -> None:
        """Have the program of a role, derived now if it is not there yet."""
        with self._deriving:
            if role not in self._programs and self._rest is not None:
                self._load(self._rest())
        if role not in self._programs:
            raise UsageError(f"kernel {self.name}", f"it was built without {role}.")

    def _enter(
        self, role: Role, args: Sequence[Any], keywords: Mapping[str, Any], options: Sequence[str], bind: bool = True
    ) -> tuple[Call, dict[str, Any]]:
        call = Call(self._signature)
        inputs = [one.name for one in self._signature.inputs]
        values = call.parse(inputs, options, args, keywords)
        self._take(call, role, [values.get(name, _MISSING) for name in inputs], values)
        if bind:
            call.bind()
        return call, values

    def _take(self, call: Call, role: Role, inputs: Sequence[Any], values: Mapping[str, Any]) -> None:
        call.threads(values.get("threads"))
        call.constants(values, self._programs[role].scalars, defaults=True)
        for form, given in zip(self._signature.inputs, inputs, strict=True):
            if given is _MISSING:
                call.fail(TypeError, f"the argument {form.name} is missing.")
            call.take("primal", form.name, given)

    def _outputs(self) -> list[str]:
        return list(self._bundle.base.outputs)

    def _keep(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[Any, Call, tuple[str, ...]]:
        self._needs("bwd")
        call, values = self._enter("fwd", args, keywords, ("out", "threads", "wrt"), bind=False)
        wrt = call.wrt(values.get("wrt"))
        call.bind()
        _, tensors = self._backward(wrt)
        wanted = [
            name
            for name in self._bundle.programs[self._bundle.serving("fwd") or "fwd"].outputs
            if name in self._bundle.base.outputs or self._canonical[name][1] in tensors
        ]
        out = values.get("out")
        results = self._run(call, "fwd", wanted, out)
        for name, array in results.items():
            call.arrays[self._canonical[name]] = array
        for place in list(call.arrays):
            if place[1] not in tensors:
                del call.arrays[place]
        return self._layer_results(call, results, "primal", out), call, wrt

    def _backward(self, wrt: Sequence[str]) -> tuple[list[str], set[str]]:
        """The outputs of the backward program for these inputs, and the tensors they are computed from."""
        form, program = self._programs["bwd"], self._bundle.programs["bwd"]
        wanted = [name for name, one in zip(program.outputs, form.outputs, strict=True) if one.name in wrt]
        reads = {k for one in form.outputs if one.name in wrt for k in one.reads}
        return wanted, {form.inputs[k].name for k in reads if form.inputs[k].side == "primal"}

    def _cotangents(self, call: Call, dy: Any) -> None:
        outputs = self._signature.outputs
        if len(outputs) == 1:
            each: Sequence[Any] = (dy,)
        elif not isinstance(dy, tuple | list):
            call.fail(
                TypeError,
                f"dy is a {type(dy).__name__}, but the layer has {len(outputs)} outputs: "
                "pass a tuple, with None for zero.",
            )
        elif len(dy) != len(outputs):
            call.fail(ValueError, f"dy has {len(dy)} entries for {len(outputs)} outputs.")
        else:
            each = dy
        for form, given in zip(outputs, each, strict=True):
            if given is None:
                continue
            if form.integer:
                call.fail(TypeError, f"ct_{form.name} is given, but {form.name} is integer: pass None.")
            call.take("cotangent", form.name, given)

    def _pull(self, call: Call, wrt: Sequence[str], out: Any) -> tuple[Any, ...]:
        call.bind()
        self._zeros(call, "bwd", "cotangent")
        wanted, _ = self._backward(wrt)
        results = self._run(call, "bwd", wanted, out)
        by_input = {self._canonical[name][1]: array for name, array in results.items()}
        return tuple(
            None if one.name not in by_input else by_input[one.name] if out is not None else by_input[one.name][()]
            for one in self._signature.inputs
        )

    def _zeros(self, call: Call, role: Role, side: str) -> None:
        for one in self._programs[role].inputs:
            if one.side == side and (side, one.name) not in call.arrays:
                form = call.forms[one.name]
                call.arrays[side, one.name] = np.zeros(call.shape(form), call.dtype(one.name))

    def _run(self, call: Call, role: Role, wanted: Sequence[str], out: Any) -> dict[str, Array]:
        """Evaluate a program; its wanted outputs by canonical name, in the arrays of `out` where given."""
        program = self._bundle.programs[self._bundle.serving(role) or role]
        form = self._programs[role]
        targets = self._targets(call, program.outputs, wanted, out)
        call.settle()
        call.check_indices(form)
        needed = self._needed(form, program.outputs, wanted)
        arrays: dict[str, Array] = {}
        for k, name in enumerate(program.inputs):
            side, own = self._canonical[name]
            array = call.arrays.get((side, own))
            if array is None and k in needed:
                call.fail(ValueError, f"{MARKS[side]}{own} is None, but it is needed: it was not kept for this wrt.")
            flat = call.flat(call.forms[own])
            arrays[name] = np.zeros(flat, call.dtype(own)) if array is None else array.reshape(flat)
        label = self._bundle.label
        sizes = {s.name: call.sizes[label(s.name)] for s in program.sizes}
        # A scalar that this program does not read may be unknown; the interpreter wants a number for each.
        scalars = {s.name: call.scalars.get(label(s.name), 0 if s.dtype == "int64" else 0.0) for s in program.scalars}
        values = self._evaluate(program, arrays, sizes, scalars, dtype=np.dtype(call.real or "float64"))
        results: dict[str, Array] = {}
        for name in wanted:
            result = call.forms[self._canonical[name][1]]
            array = np.asarray(values[name]).reshape(call.shape(result)).astype(call.dtype(result.name), copy=False)
            if name in targets:
                np.copyto(targets[name], array)
                array = targets[name]
            results[name] = array
        return results

    def _needed(self, form: ProgramForm, outputs: Sequence[str], wanted: Sequence[str]) -> set[int]:
        return {k for name, one in zip(outputs, form.outputs, strict=True) if name in wanted for k in one.reads}

    def _targets(self, call: Call, outputs: Sequence[str], wanted: Sequence[str], out: Any) -> dict[str, Array]:
        """The arrays of `out` by canonical name. Raises by name where one is not what the result would be."""
        if out is None:
            return {}
        places = [self._place(name, k) for k, name in enumerate(outputs)]
        backward = any(self._canonical[name][0] == "cotangent" for name in outputs)
        count = len(self._signature.inputs) if backward else len(self._signature.outputs)
        listed = isinstance(out, tuple | list)
        if listed and len(out) != count:
            call.fail(ValueError, f"out holds {len(out)} arrays for {count} results.")
        if not listed and count != 1:
            call.fail(
                TypeError, f"out is a {type(out).__name__}, but there are {count} results: pass a tuple of arrays."
            )
        targets: dict[str, Array] = {}
        for name, place in zip(outputs, places, strict=True):
            if name not in wanted or place >= count:
                continue
            given = out[place] if listed else out
            if given is not None:
                targets[name] = self._use(call, name, given, list(targets.values()))
        return targets

    def _place(self, name: str, position: int) -> int:
        side, own = self._canonical[name]
        return [one.name for one in self._signature.inputs].index(own) if side == "cotangent" else position

    def _use(self, call: Call, name: str, given: Any, others: Sequence[Array]) -> Array:
        side, own = self._canonical[name]
        label, shape, dtype = MARKS[side] + own, call.shape(call.forms[own]), call.dtype(own)
        if not isinstance(given, np.ndarray):
            call.fail(TypeError, f"out for {label} is a {type(given).__name__}, but it must be a NumPy array.")
        if given.shape != shape:
            call.fail(ValueError, f"out for {label} is {given.shape}, but {label} is {shape}.")
        if given.dtype.newbyteorder("=") != dtype:
            call.fail(TypeError, f"out for {label} is {given.dtype}, but {label} is {dtype}.")
        if not given.flags.writeable:
            call.fail(ValueError, f"out for {label} is read-only.")
        for (other_side, other), array in call.arrays.items():
            if np.shares_memory(given, array):
                call.fail(
                    ValueError,
                    f"out for {label} overlaps {MARKS[other_side]}{other} in memory. Pass an array of its own.",
                )
        if any(np.shares_memory(given, other) for other in others):
            call.fail(ValueError, f"out for {label} overlaps another array of out. Pass an array for each result.")
        return given

    def _layer_results(self, call: Call, results: Mapping[str, Array], side: str, out: Any) -> Any:
        by_output = {self._canonical[n][1]: a for n, a in results.items() if self._canonical[n][0] == side}
        each = [by_output.get(one.name) for one in self._signature.outputs]
        if out is None:
            each = [None if one is None else one[()] for one in each]
        return each[0] if len(each) == 1 else self.Outputs(*each)

    def _each(self, call: Call, name: str, given: Any) -> Sequence[Any]:
        count = len(self._signature.inputs)
        if count == 1 and not isinstance(given, tuple):
            return (given,)
        if not isinstance(given, tuple | list):
            call.fail(
                TypeError,
                f"{name} is a {type(given).__name__}, but it must be a tuple with an entry for each input.",
            )
        if len(given) != count:
            call.fail(ValueError, f"{name} has {len(given)} entries for {count} inputs.")
        return given

    def _choose(self, call: Call, key: str, name: Any, forms: Sequence[TensorForm]) -> TensorForm:
        real = [one for one in forms if not one.integer]
        found = [one for one in real if name is None or one.name == name]
        if len(found) != 1:
            call.fail(ValueError, f"{key} is {name!r}, but it must be one of {', '.join(one.name for one in real)}.")
        return found[0]


class _Missing:
    """What stands for an argument that was not given."""


_MISSING = _Missing()


class _Pullback:
    """The function v -> vᵀJ that vjp returns."""

    def __init__(self, kernel: NumpyKernel, state: State, kept: Mapping[tuple[str, str], Array]) -> None:
        self._kernel, self._state, self._kept = kernel, state, kept

    def __call__(self, *args: Any, **keywords: Any) -> tuple[Any, ...]:
        kernel = self._kernel
        call = Call(kernel._signature, self._state)
        if len(args) > 2:
            call.fail(TypeError, f"a pullback takes dy and wrt by position: {len(args)} given.")
        values = call.parse((), ("out", "threads", "wrt"), (), keywords)
        if len(args) == 2 and "wrt" in values:
            call.fail(TypeError, "wrt is given twice.")
        call.threads(values.get("threads"))
        wrt = call.narrow(args[1] if len(args) == 2 else values.get("wrt"), self._state.wrt)
        for place, array in self._kept.items():
            call.arrays[place], call.shapes[place] = array, array.shape
        outputs = kernel._signature.outputs
        if args:
            kernel._cotangents(call, args[0])
        elif len(outputs) == 1 and not outputs[0].integer and call.shape(outputs[0]) == ():
            call.take("cotangent", outputs[0].name, 1.0)
        else:
            call.fail(TypeError, "pullback() means 1 where the only output has rank 0. Pass dy.")
        return kernel._pull(call, wrt, values.get("out"))

    def __repr__(self) -> str:
        return f"<pullback of {self._kernel._signature.call}>"

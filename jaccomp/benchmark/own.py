"""jaccomp's own entries: kernels with and without `out=`, and, for chains, their layers one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.benchmark.cases import Mode, Problem, layer_of
from jaccomp.benchmark.peer import Given, Unsupported
from jaccomp.benchmark.timing import Entry, failure

OUT = " out="
"""What the name of an entry ends with whose results lie in the caller's arrays."""
SEPARATE = "separate"


class Own:
    """The kernels of a row's layer, compiled once; each mode's entries begin with what they call."""

    def __init__(self, problem: Problem, threads: int) -> None:
        import jaccomp as jc

        self.problem, self.threads = problem, threads
        self.layer = layer_of(problem.operation)
        self.kernel = jc.compile(self.layer)
        self.refused: dict[str, str] = {}
        self._pulled: tuple[Any, list[str], list[str]] | None = None

    def entries(self, given: Given, mode: Mode) -> list[Entry]:
        """`forward`; `derived` and `pullback`; `bwd`: each plain and with results into arrays of the caller's."""
        if mode == "forward":
            return self._with_out("forward", self._forward(given), self._outputs)
        if mode == "backward":
            return self._with_out("bwd", self._backward(given), self._cotangents)
        entries = self._with_out("pullback", self._pullback(given), self._cotangents)
        try:
            call, arrays = self._derived(given)
        except Exception as error:  # what is derived is a layer again, but if it is not, there is the other way
            self.refused["derived"] = failure(error)
            return entries
        return [*self._with_out("derived", call, arrays), *entries]

    def _with_out(
        self, name: str, call: Callable[..., Any], arrays: Callable[[Any], list[NDArray[Any]]]
    ) -> list[Entry]:
        plain = Entry(name, call, arrays)
        try:
            out = _writable(call())
            arrays(call(out=out))
        except Exception as error:
            self.refused[name + OUT] = failure(error)
            return [plain]
        return [plain, Entry(name + OUT, lambda: call(out=out), arrays)]

    def _forward(self, given: Given) -> Callable[..., Any]:
        forward, inputs = self.kernel.forward, given.inputs
        keywords = {**self.problem.keywords, "threads": self.threads}
        return lambda **out: forward(*inputs, **keywords, **out)

    def _backward(self, given: Given) -> Callable[..., Any]:
        _, kept = self.kernel.fwd(*given.inputs, **self.problem.keywords, threads=self.threads)
        bwd, cotangent, threads = self.kernel.bwd, self._given_to_pullback(given), self.threads
        return lambda **out: bwd(kept, cotangent, threads=threads, **out)

    def _pullback(self, given: Given) -> Callable[..., Any]:
        vjp, inputs, cotangent = self.kernel.vjp, given.inputs, self._given_to_pullback(given)
        threads, keywords = self.threads, {**self.problem.keywords, "threads": self.threads}

        def call(**out: Any) -> Any:
            _, pullback = vjp(*inputs, **keywords)
            return pullback(cotangent, threads=threads, **out)

        return call

    def _derived(self, given: Given) -> tuple[Callable[..., Any], Callable[[Any], list[NDArray[Any]]]]:
        """The VJP as a layer of its own, called with what of inputs and cotangents it reads, in its order."""
        kernel, wanted, made = self._derived_kernel()
        known = {one.name: array for one, array in zip(self.problem.inputs, given.inputs, strict=True)}
        known |= {f"ct_{one.name}": array for one, array in zip(self.problem.outputs, given.cotangents, strict=True)}
        shapes = self.kernel.shapes(
            **{name: array.shape for name, array in known.items() if not name.startswith("ct_")},
            **self.problem.keywords,
        )
        arguments = [known[w] if w in known else np.zeros(shapes[w[3:]], np.float32) for w in wanted]
        forward, keywords = kernel.forward, {**self.problem.keywords, "threads": self.threads}
        order = [made.index(f"ct_{self.problem.inputs[k].name}") for k in self.problem.real]

        def arrays(result: Any) -> list[NDArray[Any]]:
            results = result if isinstance(result, tuple) else (result,)
            return [np.asarray(results[k]) for k in order]

        return lambda **out: forward(*arguments, **keywords, **out), arrays

    def _derived_kernel(self) -> tuple[Any, list[str], list[str]]:
        import jaccomp as jc

        if self._pulled is None:
            layer = self.layer.vjp()
            names, label = layer.program, layer.program.labels.name
            self._pulled = (
                jc.compile(layer),
                [label(name) for name in names.inputs],
                [label(name) for name in names.outputs],
            )
        return self._pulled

    def _given_to_pullback(self, given: Given) -> Any:
        """A cotangent for each output of the layer, None for those that the row has none for."""
        outputs = [self.layer.program.labels.name(name) for name in self.layer.program.outputs]
        known = dict(zip((one.name for one in self.problem.outputs), given.cotangents, strict=True))
        return known[outputs[0]] if len(outputs) == 1 else tuple(known.get(name) for name in outputs)

    def _outputs(self, result: Any) -> list[NDArray[Any]]:
        """Those outputs that the row compares."""
        if not isinstance(result, tuple):
            return [np.asarray(result)]
        return [np.asarray(getattr(result, one.name)) for one in self.problem.outputs]

    def _cotangents(self, result: Any) -> list[NDArray[Any]]:
        return [np.asarray(result[k]) for k in self.problem.real]


class Separate:
    """The layers of a chain as kernels of their own, called one by one."""

    name = SEPARATE

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def version(self) -> str:
        from jaccomp import __version__

        return __version__

    def entries(self, given: Given, mode: Mode) -> list[Entry]:
        problem = given.problem
        if not problem.parts:
            raise Unsupported("the row is no chain")
        if mode == "forward":
            return [Entry(self.name, lambda: self._forward(given), _arrays)]
        if mode == "vjp":
            return [Entry(self.name, lambda: self._pull(given, self._keep(given)), _arrays)]
        kept = self._keep(given)
        return [Entry(self.name, lambda: self._pull(given, kept), _arrays)]

    def _forward(self, given: Given) -> Any:
        values = _by_name(given)
        for part in given.problem.parts:
            values[part.makes] = _kernel(part.layer).forward(*(values[r] for r in part.reads), threads=self.threads)
        return (values[given.problem.outputs[0].name],)

    def _keep(self, given: Given) -> list[Callable[..., Any]]:
        values, pullbacks = _by_name(given), []
        for part in given.problem.parts:
            inputs = (values[name] for name in part.reads)
            values[part.makes], pullback = _kernel(part.layer).vjp(*inputs, threads=self.threads)
            pullbacks.append(pullback)
        return pullbacks

    def _pull(self, given: Given, pullbacks: list[Callable[..., Any]]) -> Any:
        """The cotangents of the real inputs; each array of a chain is read by one part."""
        found: dict[str, Any] = {given.problem.outputs[0].name: given.cotangents[0]}
        for part, pullback in zip(reversed(given.problem.parts), reversed(pullbacks), strict=True):
            made = pullback(found.pop(part.makes), threads=self.threads)
            found |= dict(zip(part.reads, made, strict=True))
        return tuple(found[given.problem.inputs[k].name] for k in given.problem.real)


_KERNELS: dict[str, Any] = {}


def _kernel(name: str) -> Any:
    import jaccomp as jc

    if name not in _KERNELS:
        _KERNELS[name] = jc.compile(name)
    return _KERNELS[name]


def _writable(result: Any) -> Any:
    """A result as what `out=` takes: a result of rank 0 is a number, which nothing can be written into."""
    return np.array(result) if not isinstance(result, tuple) and np.ndim(result) == 0 else result


def _by_name(given: Given) -> dict[str, Any]:
    return {one.name: array for one, array in zip(given.problem.inputs, given.inputs, strict=True)}


def _arrays(result: Any) -> list[NDArray[Any]]:
    return [np.asarray(one) for one in result]


def reference(given: Given, mode: Mode) -> list[NDArray[Any]]:
    """The results of the row's own kernel in float64, where no peer is there to be asked."""
    wide = Given(
        given.problem,
        tuple(one.astype(np.float64) if one.dtype.kind == "f" else one for one in given.inputs),
        tuple(one.astype(np.float64) for one in given.cotangents),
    )
    own = Own(given.problem, 1)
    entry = own.entries(wide, mode)[-1 if mode == "vjp" else 0]
    return list(entry.arrays(entry.call()))

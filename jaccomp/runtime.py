"""Kernel: what `jc.compile` returns and a user calls. It imports neither SymPy nor the compiler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from jaccomp import display
from jaccomp.errors import UsageError

FUNCTIONS = ("forward", "fwd", "vjp", "bwd", "jvp", "shapes", "release_memory")


class Kernel:
    """A layer, compiled: the functions of one loaded module, and of others that are built when first asked for.

    `module` has forward, fwd, vjp, bwd, jacobian and shapes; `on_demand("jvp")` gives a module that has jvp, once,
    whichever thread asks first. `source` gives the Cython text, `forms` what evaluates a Jacobian that is not dense;
    `travel`, a function and its arguments, makes the kernel again where it was pickled to. A call is `forward`:

        y = kernel(x, g, eps=1e-5)
        y, pullback = kernel.vjp(x, g)
        dx, dg = pullback(dy)
    """

    def __init__(
        self,
        module: ModuleType,
        *,
        on_demand: Callable[[str], ModuleType] | None = None,
        source: Callable[[], str] | None = None,
        forms: Callable[[Kernel], Callable[..., Any]] | None = None,
        travel: tuple[Callable[..., Kernel], tuple[Any, ...]] | None = None,
    ) -> None:
        self._modules = [module]
        self._on_demand = on_demand
        self._source = source
        self._forms = forms
        self._travel = travel
        self._evaluate: Callable[..., Any] | None = None
        self._building = threading.RLock()
        self.name: str = module.__name__.rpartition(".")[2]
        for function in FUNCTIONS:
            if hasattr(module, function):
                setattr(self, function, getattr(module, function))

    def __reduce__(self) -> tuple[Callable[..., Kernel], tuple[Any, ...]]:
        """A kernel travels as its layer and key, and is built or found in the cache where it arrives."""
        if self._travel is None:
            raise UsageError(
                f"kernel {self.name}", "it cannot be pickled: it does not know its layer.", "Use jc.compile."
            )
        function, arguments = self._travel
        return function, (*arguments, self.spec_hash)

    forward: Callable[..., Any]
    fwd: Callable[..., Any]
    vjp: Callable[..., Any]
    bwd: Callable[..., Any]
    shapes: Callable[..., dict[str, tuple[int, ...]]]
    jvp: Callable[..., Any]
    release_memory: Callable[[], int]

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.forward(*args, **keywords)

    def jacobian(
        self, *args: Any, of: str | None = None, wrt: str | None = None, form: str = "dense", **keywords: Any
    ) -> Any:
        """The Jacobian block ∂of/∂wrt at these arguments; both names may be left out where there is only one.

        form="dense"      an array, the axes of `of` then those of `wrt`
        form="diagonal"   of a diagonal block, its diagonal, shaped as `of`
        form="sparse"     a scipy.sparse.csr_array, the flat elements of `of` by those of `wrt`
        form="factors"    a structured.Factored: products of small arrays, with trace, norms, solve and inverse
        form="operator"   a scipy.sparse.linalg.LinearOperator: matvec is the JVP, rmatvec the VJP

        The kernels of a form are compiled when it is first asked for. Raises `ValueError` where the block has no such
        form, and whatever any other call raises.
        """
        if form == "dense":
            named = {key: value for key, value in (("of", of), ("wrt", wrt)) if value is not None}
            return self._modules[0].jacobian(*args, **named, **keywords)
        if self._forms is None:
            raise UsageError(f"kernel {self.name}", f"it was built without form={form!r}.", "Use jc.compile.")
        with self._building:
            if self._evaluate is None:
                self._evaluate = self._forms(self)
        return self._evaluate(args, keywords, of=of, wrt=wrt, form=form)

    def __getattr__(self, name: str) -> Any:
        """A function that the first module lacks, built now. Raises `AttributeError` for any other name."""
        if name not in FUNCTIONS:
            raise AttributeError(f"a Kernel has no attribute {name!r}; its functions are {', '.join(FUNCTIONS)}.")
        with self._building:
            if name in self.__dict__:
                return self.__dict__[name]
            if self._on_demand is None:
                raise UsageError(f"kernel {self.name}", f"it was built without {name}.", "Build it with jc.compile.")
            module = self._on_demand(name)
            if not hasattr(module, name):
                raise UsageError(f"kernel {self.name}", f"no {name} can be built for it.")
            self._modules.append(module)
            setattr(self, name, getattr(module, name))
            return self.__dict__[name]

    @property
    def modules(self) -> tuple[ModuleType, ...]:
        """The modules that are loaded so far."""
        return tuple(self._modules)

    @property
    def formulas(self) -> Mapping[tuple[str, str], tuple[str, str, str]]:
        """(output, input) -> the Jacobian block as text, as LaTeX, and its structure."""
        return dict(self._modules[0].FORMULAS)

    @property
    def spec_hash(self) -> str:
        """The hash of the layer's canonical spec."""
        return str(self._modules[0].SPEC_HASH)

    @property
    def source(self) -> str:
        """The Cython text of the first module."""
        if self._source is None:
            raise UsageError(f"kernel {self.name}", "its source was not kept.", "Build it with --source.")
        return self._source()

    def __repr__(self) -> str:
        return f"<Kernel {self.name}>"

    _repr_mimebundle_ = display.mimebundle

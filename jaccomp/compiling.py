"""`compile`: a layer becomes a Kernel. `load`: a library layer by name, without SymPy if its module is cached."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaccomp.errors import BuildError, UsageError

if TYPE_CHECKING:
    from jaccomp.build import Source
    from jaccomp.evaluation import Forms
    from jaccomp.layer import Layer
    from jaccomp.runtime import Kernel

BACKENDS = ("cython", "numpy")
DTYPES = ("f32", "f64")


def compile(layer: Layer | str, *, backend: str = "cython", march: str = "native") -> Any:
    """The kernel of a layer, or of the library layer of that name: float32 and float64, any sizes.

    Forward and VJP are built now, the JVP when it is first asked for; of a layer that was derived, as `layer.vjp()`,
    forward alone, and its own VJP on demand too. `backend="numpy"` needs no compiler. Raises `BuildError` where there
    is no working compiler, `UsageError` for an unknown name, backend or march.
    """
    if backend not in BACKENDS:
        raise UsageError(f"compile with backend={backend!r}", "there is no such backend.", f"Choose from {BACKENDS}.")
    if isinstance(layer, str):
        if backend == "cython":
            return load(layer, march=march)
        from jaccomp import layers

        layer = layers.get(layer)
    if backend == "numpy":
        return interpreted(layer)
    return _kernel(layer, march)


def load(name: str, *, march: str = "native") -> Kernel:
    """The kernel of a library layer; from a warm cache neither SymPy is imported nor the compiler asked.

    Raises `UsageError` for a name that the library does not have.
    """
    from jaccomp.build import default_cache, layer_key, load_module
    from jaccomp.layers import _FAMILY_OF as known
    from jaccomp.runtime import Kernel

    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`jaccomp list` prints all names."
        raise UsageError(f"layer {name!r}", "the library has no layer of that name.", hint)
    hit = default_cache().recall(layer_key(name, options("main")), march=march)
    if hit is not None:
        return Kernel(
            load_module(hit.name, hit.path),
            on_demand=lambda _: _load_tangent(name, march),
            source=lambda: _library_source(name).pyx,
            forms=lambda kernel: _library_forms(name, kernel, march),
            travel=(rebuilt, (name, "cython", march)),
        )
    from jaccomp import layers

    return _kernel(layers.get(name), march, library=name)


def _library_source(name: str) -> Source:
    from jaccomp import layers

    return source(layers.get(name))


def _load_tangent(name: str, march: str) -> ModuleType:
    from jaccomp.build import default_cache, layer_key, load_module

    hit = default_cache().recall(layer_key(name, options("tangent")), march=march)
    if hit is not None:
        return load_module(hit.name, hit.path)
    from jaccomp import layers

    return _module(layers.get(name), "tangent", march, library=name)


def options(part: str, dtypes: Sequence[str] = DTYPES) -> str:
    """The canonical spelling of what a source depends on beside the layer."""
    return json.dumps({"part": part, "dtypes": list(dtypes)}, sort_keys=True)


def _kernel(layer: Layer, march: str, library: str | None = None) -> Kernel:
    from jaccomp.runtime import Kernel

    first = "main" if layer.is_written else "forward"
    return Kernel(
        _module(layer, first, march, library),
        on_demand=lambda name: _module(layer, "tangent" if name == "jvp" else "pullback", march, library),
        source=lambda: source(layer, first).pyx,
        forms=lambda kernel: _forms(layer, kernel, march),
        travel=(rebuilt, (library or layer, "cython", march)),
    )


def rebuilt(layer: Layer | str, backend: str, march: str, key: str) -> Any:
    """The kernel that was pickled as a layer and its key, built or found in this machine's cache.

    Raises `UsageError` where this jaccomp makes another key of the layer.
    """
    kernel = compile(layer, backend=backend, march=march)
    if kernel.spec_hash != key:
        raise UsageError(
            f"kernel {kernel.name}",
            f"its key is {key[:12]} where it comes from, {kernel.spec_hash[:12]} here.",
            "Install the same jaccomp on both.",
        )
    return kernel


def _library_forms(name: str, kernel: Kernel, march: str) -> Forms:
    from jaccomp import layers

    return _forms(layers.get(name), kernel, march)


def _forms(layer: Layer, kernel: Kernel, march: str) -> Forms:
    from jaccomp.evaluation import Forms

    return Forms(layer, kernel, lambda derived: _kernel(derived, march).forward)


def _module(layer: Layer, part: str, march: str, library: str | None = None) -> ModuleType:
    from jaccomp.build import compile_module, default_cache, layer_key, load_module

    text = source(layer, part)
    path: Path = compile_module(text, march=march)
    if library is not None:
        default_cache().remember(layer_key(library, options(part)), path, march=march)
    return load_module(text.name, path)


def source(layer: Layer, part: str = "main", dtypes: Sequence[str] = DTYPES) -> Source:
    """The Cython source of a layer's module: "main" has forward and VJP, "whole" the JVP too; the others a part."""
    from jaccomp.build import default_cache, source_key

    key = source_key(layer.serialise(), options(part, dtypes))
    cache = default_cache()
    known = cache.find_source(key)
    if known is not None:
        return known
    from jaccomp.bundling import module_source

    made = module_source(layer, part, tuple(dtypes))
    try:
        cache.store_source(key, made)
    except OSError as error:  # a cache that cannot be written loses no work
        raise BuildError("cache", str(error), "Set JACCOMP_CACHE_DIR to a writable directory.") from error
    return made


def interpreted(layer: Layer) -> Any:
    """The layer through the reference interpreter: the same calls, no compiler."""
    from jaccomp.bundling import bundle
    from jaccomp.evaluation import Forms
    from jaccomp.numpy_kernel import NumpyKernel
    from jaccomp.reference.interpreter import evaluate

    def forms(kernel: NumpyKernel) -> Forms:
        return Forms(layer, kernel, lambda derived: NumpyKernel(bundle(derived, "forward", ()), evaluate).forward)

    first = bundle(layer, "whole" if layer.is_written else "forward", ())
    travel = (rebuilt, (layer, "numpy", "native"))
    return NumpyKernel(first, evaluate, lambda: bundle(layer, "whole", ()), forms=forms, travel=travel)

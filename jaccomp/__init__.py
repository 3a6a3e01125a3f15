"""jaccomp: neural-network layers written as SymPy equations, compiled to exact, fused, checked VJP kernels.

Names are resolved on first use, so that a kernel can be loaded from a warm cache without importing SymPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "size": "notation", "index": "notation", "tensor": "notation", "scalar": "notation", "pad": "notation",
    "MaxOver": "notation", "MinOver": "notation", "ArgMaxOver": "notation", "ArgMinOver": "notation",
    "Layer": "layer", "compile": "compiling", "load": "compiling", "check": "checking",
    "chain": "composition", "stage": "composition",
    "JaccompError": "errors", "SpecError": "errors", "DerivativeError": "errors", "StageError": "errors",
    "BuildError": "errors", "UsageError": "errors",
}  # fmt: skip
__all__ = [
    "ArgMaxOver", "ArgMinOver", "BuildError", "DerivativeError", "JaccompError", "Layer", "MaxOver", "MinOver",
    "SpecError", "StageError", "UsageError", "__version__", "chain", "check", "compile", "index", "layers", "load",
    "pad", "scalar", "size", "stage", "tensor",
]  # fmt: skip

if TYPE_CHECKING:
    from jaccomp import layers
    from jaccomp.checking import check
    from jaccomp.compiling import compile, load
    from jaccomp.composition import chain, stage
    from jaccomp.errors import BuildError, DerivativeError, JaccompError, SpecError, StageError, UsageError
    from jaccomp.layer import Layer
    from jaccomp.notation import ArgMaxOver, ArgMinOver, MaxOver, MinOver, index, pad, scalar, size, tensor


def __getattr__(name: str) -> Any:
    if name == "layers":
        return import_module("jaccomp.layers")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'jaccomp' has no attribute {name!r}")
    value = getattr(import_module(f"jaccomp.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

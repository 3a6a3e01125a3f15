"""Text to module: the compiler driver, its flags, the cache and the loader.

Names are resolved at their first use, so that a warm load reads only the cache and the loader.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaccomp.build.cache import Cache, default_cache, layer_key, source_key
    from jaccomp.build.compiler import compile_into, compile_module
    from jaccomp.build.diagnosis import Finding, doctor
    from jaccomp.build.environment import package_digest
    from jaccomp.build.flags import BANNED, MARCHES, Flags
    from jaccomp.build.housekeeping import Stats
    from jaccomp.build.loader import load_module
    from jaccomp.build.source import Source, check_module_name
    from jaccomp.build.toolchain import Toolchain, find_toolchain

_HOME = {
    "cache": ("Cache", "default_cache", "layer_key", "source_key"),
    "compiler": ("compile_into", "compile_module"),
    "diagnosis": ("Finding", "doctor"),
    "environment": ("package_digest",),
    "flags": ("BANNED", "MARCHES", "Flags"),
    "housekeeping": ("Stats",),
    "loader": ("load_module",),
    "source": ("Source", "check_module_name"),
    "toolchain": ("Toolchain", "find_toolchain"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BANNED",
    "MARCHES",
    "Cache",
    "Finding",
    "Flags",
    "Source",
    "Stats",
    "Toolchain",
    "check_module_name",
    "compile_into",
    "compile_module",
    "default_cache",
    "doctor",
    "find_toolchain",
    "layer_key",
    "load_module",
    "package_digest",
    "source_key",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value

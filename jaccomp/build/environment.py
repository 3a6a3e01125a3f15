"""Facts about this process and machine that a compiled module depends on, each cheap enough for a warm load.

None of them starts a process, and none imports more than NumPy, which every kernel needs anyway. Where a version
would cost an import, the file that states it is identified by path, size and time of change instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
EXT_SUFFIX = EXTENSION_SUFFIXES[0]


def digest(facts: Any) -> str:
    """SHA-256 of `facts` (strings, numbers, lists, dicts) in one canonical spelling."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def fingerprint(path: str | Path | None) -> str:
    """A file as path, size and time of change; empty where there is none. Two equal ones name the same content."""
    if path is None:
        return ""
    try:
        real = os.path.realpath(path)
        stat = os.stat(real)
    except OSError:
        return ""
    return f"{real}|{stat.st_size}|{stat.st_mtime_ns}"


def python_abi() -> str:
    """What an extension module is tied to; the micro version is not part of it."""
    return f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}{EXT_SUFFIX}"


def libc() -> str:
    """The C library and its version, or the platform's name where it does not say."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or platform.system()
    except (AttributeError, OSError, ValueError):
        return platform.system()


def numpy_version() -> str:
    """NumPy's version; imports it."""
    import numpy

    return numpy.__version__


def cython_fingerprint() -> str:
    """Which Cython is installed, without importing it; empty where there is none."""
    from importlib.util import find_spec

    spec = find_spec("Cython")
    if spec is None or spec.origin is None:
        return ""
    return fingerprint(Path(spec.origin).with_name("Shadow.py"))


@cache
def cpu() -> str:
    """The CPU's maker, model and instruction sets: what `-march=native` looks at."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            head = (
                file.read(16384).decode("ascii", "replace").split("\n\n")[0]
            )  # the first core: the file grows with them
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    rows = (line.partition(":") for line in head.splitlines())
    return platform.machine() + "".join(
        f"; {key.strip()}={value.strip()}" for key, _, value in rows if key.strip() in wanted
    )


def templates() -> Path:
    """The folder of templates: inside the installed package, beside it in a checkout."""
    inside = PACKAGE / "templates"
    return inside if inside.is_dir() else PACKAGE.parent / "templates"


@cache
def package_digest() -> str:
    """SHA-256 over jaccomp's own sources and templates: the version that a cached result was made by."""
    return _tree_digest(PACKAGE, templates())


def _tree_digest(*roots: Path) -> str:
    total = hashlib.sha256()
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
            for name in sorted(files):
                if name.endswith((".pyc", ".pyo", "~")) or name.startswith("."):
                    continue
                path = os.path.join(folder, name)
                try:
                    with open(path, "rb") as file:
                        content = hashlib.sha256(file.read()).digest()
                except OSError:  # an editor's temporary that has gone
                    continue
                total.update(os.path.relpath(path, root).encode() + b"\0" + content)
        total.update(b"\1")
    return total.hexdigest()

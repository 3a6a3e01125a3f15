"""Source to binary: Cython in this process, the C compiler by an argument list, the result in the cache."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from jaccomp.build import environment, store
from jaccomp.build.cache import Cache, default_cache
from jaccomp.build.flags import Flags
from jaccomp.build.source import Source
from jaccomp.build.toolchain import Toolchain, ask_version, find_toolchain
from jaccomp.errors import BuildError

_WITHOUT_OPENMP: set[str] = set()  # fingerprints of compilers that were seen to lack it


def compile_module(source: Source, *, march: str = "native") -> Path:
    """The verified binary of `source` in the cache, compiled if it is not there; a `BuildError` where that fails."""
    cache = default_cache()
    flags = Flags(march)
    what = environment.digest([source.name, source.pyx, source.headers, flags.words()])
    found = cache.recall(what, march=march)
    if found is None:
        path = _build(source, flags, find_toolchain(), cache)
        cache.remember(what, path, march=march)
        return path
    return found.path


def compile_into(source: Source, directory: Path, *, march: str = "baseline") -> Path:
    """Write NAME and the platform's suffix into `directory`, whole or not at all; its path."""
    binary = compile_module(source, march=march).read_bytes()
    target = Path(directory) / (source.name + environment.EXT_SUFFIX)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        store.write_atomically(target, binary, mode=0o755)
    except OSError as error:
        raise BuildError(
            f"module {source.name}", f"{target} cannot be written: {error.strerror}.", "Choose another folder."
        ) from None
    return target


@lru_cache
def _version(fingerprint: str, toolchain: Toolchain) -> str:
    return ask_version(toolchain)


def module_key(source: Source, flags: Flags, toolchain: Toolchain) -> str:
    """The level-2 key. Asks the compiler for its version, once for each compiler in a process."""
    from jaccomp.build import translate

    return environment.digest(
        {
            "source": [source.name, source.pyx, source.headers],
            "flags": flags.words(),
            "compiler": [*toolchain.command, str(toolchain.path), _version(toolchain.fingerprint, toolchain)],
            "libc": environment.libc(),
            "abi": environment.python_abi(),
            "cython": translate.cython_version(),
            "numpy": environment.numpy_version(),
            "cpu": environment.cpu() if flags.march == "native" else "",
        }
    )


def _build(source: Source, flags: Flags, toolchain: Toolchain, cache: Cache) -> Path:
    """The module from the cache under its level-2 key, or compiled; without OpenMP where the compiler has none."""
    from jaccomp.build import attempt  # a warm call ends before this, and needs no subprocess, tempfile or sysconfig

    if toolchain.fingerprint in _WITHOUT_OPENMP:
        flags = replace(flags, openmp=False)
    key = module_key(source, flags, toolchain)
    found = cache.find_module(key)
    if found is not None:
        return found.path
    with cache.lock(key, done=lambda: (cache.root / "modules" / key / store.MANIFEST).exists()):
        found = cache.find_module(key)  # another process may have made it meanwhile
        if found is not None:
            return found.path
        made = attempt.build(source, flags, toolchain)
        if made.binary is not None:
            facts = {
                "flags": list(flags.words()),
                "compiler": _version(toolchain.fingerprint, toolchain).splitlines()[0],
            }
            return cache.store_module(key, source, made.binary, facts).path
    if flags.openmp and attempt.lacks_openmp(made, toolchain):
        _WITHOUT_OPENMP.add(toolchain.fingerprint)
        warnings.warn(
            f"jaccomp: {toolchain.command[0]} has no OpenMP, so kernels run on one thread. "
            "Install its OpenMP library (gcc: libgomp; clang: libomp-dev) and clear the cache.",
            RuntimeWarning,
            stacklevel=3,
        )
        return _build(source, flags, toolchain, cache)
    folder = cache.keep_failure(key, {**dict(source.files()), **made.leavings})
    raise BuildError(f"module {source.name}", made.facts, f"The source and the whole log are in {folder}.")

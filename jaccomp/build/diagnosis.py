"""What a build needs of this machine, looked at one thing at a time: the facts that `jaccomp doctor` prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from jaccomp.build import attempt, environment, store, translate
from jaccomp.build.toolchain import Toolchain, ask_version, find_toolchain
from jaccomp.errors import BuildError

_INSTRUCTION_SETS = ("avx512f", "avx2", "fma", "avx", "sse4_2", "asimd", "sve")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it will do, what was seen, and what to do where it will not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def doctor() -> tuple[Finding, ...]:
    """Every finding, in the order in which a build needs them. Raises nothing and writes only to the cache and to
    temporaries.
    """
    return tuple(_looked_at(name, look) for name, look in _LOOKS.items())


def _looked_at(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except BuildError as error:
        return Finding(name, False, f"{error.what}: {error.facts}", error.remedy)
    except Exception as error:  # a doctor reports what ails a patient, whatever it is
        return Finding(name, False, f"{type(error).__name__}: {error}")


def _compiler() -> str:
    toolchain = find_toolchain()
    return f"{ask_version(toolchain).splitlines()[0]} ({toolchain.path})"


def _headers() -> str:
    return ", ".join(str(directory) for directory in attempt.include_directories())


def _cython() -> str:
    return translate.cython_version()


def _openmp() -> str:
    toolchain: Toolchain = find_toolchain()
    if not attempt.links_openmp(toolchain):
        raise BuildError(
            toolchain.command[0],
            "it cannot link OpenMP, so kernels run on one thread.",
            "Install its OpenMP library (gcc: libgomp; clang: libomp-dev).",
        )
    return "linked"


def _cpu() -> str:
    words = environment.cpu().replace(";", " ").replace("=", " ").split()
    seen = [feature for feature in _INSTRUCTION_SETS if feature in words]
    return f"{words[0]}: {', '.join(seen) or 'the baseline'}"


def _cache_directory() -> str:
    root, why = store.open_store()
    if why:
        raise BuildError(
            "cache", f"{why}; results are kept until the process ends.", "Name another in JACCOMP_CACHE_DIR."
        )
    return str(root)


def _cache_writable() -> str:
    root, _ = store.open_store()
    probe = root / "probe"
    try:
        store.write_atomically(probe, b"jaccomp")
        probe.unlink()
    except OSError as error:
        raise BuildError(
            "cache",
            f"{root} cannot be written: {error.strerror}.",
            "Free some space, or name another in JACCOMP_CACHE_DIR.",
        ) from None
    return "yes"


def _blas() -> str:
    try:
        blas = import_module("scipy.linalg.cython_blas")
        version = import_module("scipy").__version__
    except ImportError as error:
        raise BuildError("BLAS", f"SciPy's is not there: {error}.", "Install it: python -m pip install scipy") from None
    missing = [name for name in ("sgemm", "dgemm") if name not in blas.__pyx_capi__]
    if missing:
        raise BuildError("BLAS", f"SciPy {version} does not export {', '.join(missing)}.", "Install a newer SciPy.")
    return f"SciPy {version}"


_LOOKS: dict[str, Callable[[], str]] = {
    "C compiler": _compiler,
    "headers": _headers,
    "Cython": _cython,
    "OpenMP": _openmp,
    "CPU": _cpu,
    "cache directory": _cache_directory,
    "cache writable": _cache_writable,
    "BLAS": _blas,
}

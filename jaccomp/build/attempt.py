"""One compilation, in a directory of its own that goes when it ends: what came of it, and what it leaves to be read
if nothing did.
"""

from __future__ import annotations

import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from jaccomp.build import translate
from jaccomp.build.flags import Flags
from jaccomp.build.source import Source
from jaccomp.build.toolchain import REMEDY, Toolchain, compiler_environment
from jaccomp.errors import BuildError

_OPENMP_WORDS = ("gomp", "libomp", "-lomp", "omp.h", "openmp")
_OPENMP_PROBE = "#include <omp.h>\nint jc_probe(void) { return omp_get_max_threads(); }\n"


@dataclass(frozen=True, slots=True)
class Attempt:
    """`binary`, or else `facts` in one line, the compiler's `output`, and the files that a person would want to see."""

    binary: bytes | None
    facts: str = ""
    output: str = ""
    leavings: dict[str, bytes] = field(default_factory=dict)


def include_directories() -> tuple[Path, ...]:
    """Where Python.h and NumPy's headers are; a `BuildError` that says how to get those that are missing."""
    python = Path(sysconfig.get_path("include"))
    if not (python / "Python.h").is_file():
        version = f"{sysconfig.get_python_version()}"
        raise BuildError(
            "Python headers",
            f"{python / 'Python.h'} does not exist.",
            f"Install them (Debian, Ubuntu: apt-get install python{version}-dev; Fedora: dnf install python3-devel).",
        )
    import numpy

    array = Path(numpy.get_include())
    if not (array / "numpy" / "arrayobject.h").is_file():
        raise BuildError(
            "NumPy headers",
            f"{array / 'numpy' / 'arrayobject.h'} does not exist.",
            "Install NumPy as its wheel carries it: python -m pip install --force-reinstall numpy",
        )
    platform_specific = Path(sysconfig.get_path("platinclude"))
    return tuple(dict.fromkeys((python, platform_specific, array)))


def command(toolchain: Toolchain, flags: Flags, name: str) -> tuple[str, ...]:
    """The whole command line that makes NAME.so of NAME.c in the current directory."""
    includes = (f"-I{directory}" for directory in include_directories())
    return (*toolchain.command, *flags.words(), "-I.", *includes, f"{name}.c", "-o", f"{name}.so", "-lm")


def build(source: Source, flags: Flags, toolchain: Toolchain) -> Attempt:
    """Translate and compile `source`. Raises `BuildError` where nothing could be tried: no headers, no Cython, no
    space.
    """
    line = command(toolchain, flags, source.name)
    try:
        with tempfile.TemporaryDirectory(prefix="jaccomp-", ignore_cleanup_errors=True) as folder:
            return _build_in(Path(folder), source, line)
    except OSError as error:
        raise BuildError(
            f"module {source.name}",
            f"the compilation's temporary files cannot be written: {error}.",
            "Free some space, or name another directory in TMPDIR.",
        ) from error


def _build_in(folder: Path, source: Source, line: tuple[str, ...]) -> Attempt:
    for name, content in source.files():
        (folder / name).write_bytes(content)
    try:
        c = translate.translate(folder / f"{source.name}.pyx")
    except translate.TranslationError as error:
        return Attempt(None, error.facts, error.log, {"log.txt": error.log.encode()})
    status, output = _run(line, folder)
    binary = folder / f"{source.name}.so"
    if status == 0 and binary.is_file() and binary.stat().st_size:
        return Attempt(binary.read_bytes(), output=output)
    log = f"{' '.join(line)}\n{output}"
    return Attempt(None, _facts(line[0], status, output), output, {"log.txt": log.encode(), c.name: c.read_bytes()})


def _facts(compiler: str, status: int, output: str) -> str:
    if "No space left on device" in output:
        return f"{compiler} had no space left for its temporary files; free some, or name another directory in TMPDIR."
    if status < 0:
        return f"{compiler} was killed by signal {-status}; the machine may be out of memory."
    return f"{compiler} exited with {status}: {translate.last_errors(output)}"


def _run(line: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Exit status and output of a command in `folder`; no shell sees it."""
    try:
        done = subprocess.run(
            line,
            cwd=folder,
            env=compiler_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as error:
        raise BuildError("C compiler", f"{line[0]} does not start: {error.strerror}.", REMEDY) from None
    return done.returncode, done.stdout.decode("utf-8", "replace")


def lacks_openmp(failed: Attempt, toolchain: Toolchain) -> bool:
    """Whether a compilation failed because this compiler cannot build the least OpenMP program."""
    return any(word in failed.output for word in _OPENMP_WORDS) and not links_openmp(toolchain)


def links_openmp(toolchain: Toolchain) -> bool:
    """Whether the compiler makes a shared object that uses OpenMP."""
    with tempfile.TemporaryDirectory(prefix="jaccomp-", ignore_cleanup_errors=True) as folder:
        Path(folder, "probe.c").write_text(_OPENMP_PROBE)
        words = (*toolchain.command, "-fopenmp", "-fPIC", "-shared", "probe.c", "-o", "probe.so")
        return _run(words, Path(folder))[0] == 0

"""Cython text to C, in this process: no build directories, no network, no second interpreter.

Most of a first translation is Cython importing itself (0.5 s of 0.7 s for a module of 120 lines), so later ones cost
a fifth of it.
"""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaccomp.errors import BuildError

# The comments would repeat the .pyx in the .c. What a module needs to be right is said in its own first line instead.
_DIRECTIVES = {"language_level": 3, "emit_code_comments": False}

# Cython keeps the errors, the options and the parser's tables of the translation that is going on in module globals.
_ONE_AT_A_TIME = threading.Lock()


class TranslationError(Exception):
    """Cython could not make C of a text: the facts in one line, and all it said."""

    def __init__(self, facts: str, log: str) -> None:
        super().__init__(facts)
        self.facts = facts
        self.log = log


def cython_version() -> str:
    """The installed Cython's version; a `BuildError` where there is none."""
    try:
        from Cython import __version__
    except ImportError:
        raise BuildError("Cython", "it is not installed.", "Install it: python -m pip install cython") from None
    return str(__version__)


def translate(pyx: Path) -> Path:
    """Write NAME.c beside NAME.pyx and return it; a `TranslationError` with Cython's words where the text is not
    Cython.
    """
    with _ONE_AT_A_TIME, _no_garbage_collection():
        from Cython.Compiler.Main import CompilationOptions, compile

        listing = pyx.with_suffix(".lis")
        try:
            result = compile(
                str(pyx),
                CompilationOptions(
                    output_file=str(pyx.with_suffix(".c")),
                    compiler_directives=_DIRECTIVES,
                    use_listing_file=1,
                    errors_to_stderr=0,
                    annotate=False,
                ),
                full_module_name=pyx.stem,
            )
            failed = result.num_errors > 0
        except Exception as error:  # whatever a compiler in our own process may raise
            facts = f"Cython stopped with {type(error).__name__}: {str(error).strip().splitlines()[-1:]}"
            raise TranslationError(facts, "".join(traceback.format_exception(error))) from error
    if failed:
        words = listing.read_text(errors="replace") if listing.exists() else ""
        words = words.replace(f"{pyx.parent}/", "")
        raise TranslationError(f"Cython refuses it: {last_errors(words)}", words)
    return pyx.with_suffix(".c")


def last_errors(output: str, count: int = 3) -> str:
    """The last lines of a compiler's output that speak of an error, or else its last lines, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" -^\t|~.")]
    errors = [line for line in lines if ".pyx:" in line] or [line for line in lines if "error" in line.lower()] or lines
    return " | ".join(errors[-count:]) or "it printed nothing"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Cython's tables are many small objects that all stay: collecting meanwhile costs a fifth of the time and frees
    nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""The command line: one command a file, each with `HELP`, `arguments(parser)` and `run(arguments) -> exit code`.

Exit codes: 0 done; 1 a check failed, or something is stale or unwell; 2 a command line or a layer that cannot be
served; 3 the compiler or the cache did not do what a build needs; 4 a defect of jaccomp; 130 interrupted; 141 the
reader of the output went away. An error that jaccomp raises on purpose is printed as its message, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from jaccomp import __version__
from jaccomp.errors import BuildError, JaccompError, StageError

COMMANDS = ("list", "show", "build", "check", "bench", "analyze", "gallery", "demo", "doctor", "cache")
FAILED, REFUSED, NOT_BUILT, DEFECT, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 4, 130, 141
EXIT_CODES = (
    "exit codes: 0 done; 1 a check failed, or something is stale or unwell; 2 a command line or a layer that cannot "
    "be served; 3 a build that the compiler or the cache did not let happen; 4 a defect of jaccomp."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` is `sys.argv[1:]` by default."""
    for stream in (sys.stdout, sys.stderr):  # formulas hold Greek letters that not every encoding has
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _command(argv)
        sys.stdout.flush()
        return code
    except JaccompError as error:
        print(f"jaccomp: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("jaccomp: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # the interpreter flushes stdout once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def exit_code(error: JaccompError) -> int:
    """What a command ends with when it ends with `error`."""
    if isinstance(error, BuildError):
        return NOT_BUILT
    return DEFECT if isinstance(error, StageError) else REFUSED


def _command(argv: Sequence[str] | None) -> int:
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed the help, the version or what is wrong
        return stop.code if isinstance(stop.code, int) else REFUSED
    result: int = arguments.run(arguments)
    return result


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    whole = argparse.ArgumentParser(
        prog="jaccomp",
        description="Compile neural-network layers written as SymPy equations into exact, fused, checked VJP kernels.",
        epilog="LAYER is a name of the library (softmax), a spec file (specs.py: every layer in it) or one layer of a "
        f"spec file (specs.py:mylayer). {EXIT_CODES}",
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"jaccomp {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"{__name__}.{name}")
        one = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, epilog=EXIT_CODES, allow_abbrev=False
        )
        module.arguments(one)
        one.set_defaults(run=module.run)
    return whole

"""The C compiler: which one, and whether it is the one that a cached module was built with.

`CC` is honoured, flags and all, unless it holds a banned flag. `CFLAGS` and its like are not read. Asking a compiler
for its version starts a process, so the answer is remembered by the compiler's path, size and time of change.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jaccomp.build.environment import fingerprint
from jaccomp.build.flags import banned_in
from jaccomp.errors import BuildError

CANDIDATES = ("gcc", "cc", "clang")
REMEDY = (
    "Install gcc (Debian, Ubuntu: apt-get install gcc; Fedora: dnf install gcc), or name a compiler in CC; "
    'backend="numpy" needs none.'
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A C compiler that exists: the words that start it, its real path, and what identifies it."""

    command: tuple[str, ...]
    path: Path

    @property
    def fingerprint(self) -> str:
        """Words, path, size and time of change: found without starting the compiler."""
        return "|".join((*self.command, fingerprint(self.path)))


def find_toolchain() -> Toolchain:
    """The compiler that `CC` names, else the first of gcc, cc, clang on PATH; a `BuildError` where there is none."""
    stated = os.environ.get("CC", "").strip()
    if not stated:
        for name in CANDIDATES:
            found = _which(name)
            if found is not None:
                return Toolchain((name,), found)
        raise BuildError("C compiler", f"none of {', '.join(CANDIDATES)} is on PATH.", REMEDY)
    import shlex

    try:
        words = tuple(shlex.split(stated))
    except ValueError as error:
        raise BuildError("C compiler", f"CC is {stated!r}, which does not parse: {error}.", REMEDY) from None
    banned = banned_in(words)
    if banned:
        raise BuildError(
            "C compiler",
            f"CC holds {', '.join(banned)}: it deletes NaN tests or flushes subnormals to zero in the whole process.",
            "Take it out of CC; jaccomp sets its own flags.",
        )
    found = _which(words[0])
    if found is None:
        raise BuildError("C compiler", f"CC is {stated!r}, and no such program is on PATH.", REMEDY)
    return Toolchain(words, found)


def compiler_environment() -> dict[str, str]:
    """The environment that compilers are started in: this one, in the C locale, without the variables that add
    flags.
    """
    dropped = ("CCC_OVERRIDE_OPTIONS", "CFLAGS", "CPPFLAGS", "LDFLAGS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    for name in ("NIX_CFLAGS_COMPILE", "NIX_CFLAGS_LINK"):  # read by a wrapper, before our own flags
        banned = banned_in(kept.get(name, "").split())
        if banned:
            raise BuildError("C compiler", f"{name} holds {', '.join(banned)}.", f"Take it out of {name}.")
    return {**kept, "LC_ALL": "C"}


def ask_version(toolchain: Toolchain) -> str:
    """All that `--version` prints; a `BuildError` where the compiler does not start."""
    import subprocess

    try:
        done = subprocess.run(
            [*toolchain.command, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=compiler_environment(),
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError("C compiler", f"{toolchain.path} does not start: {error}.", REMEDY) from None
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise BuildError(
            "C compiler", f"{toolchain.path} --version exits with {done.returncode}: {text[-200:]}", REMEDY
        )
    return text


def _which(name: str) -> Path | None:
    """The program that a shell would start as `name`."""
    folders = [""] if os.path.dirname(name) else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in folders:
        path = Path(folder, name)
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None

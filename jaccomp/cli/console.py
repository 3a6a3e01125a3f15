"""What commands print: results on stdout, progress on stderr and only on a terminal, colour only where it is wanted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any

BOLD, GREEN, RED, DIM = "1", "32", "31", "2"


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def painted(text: str, code: str, stream: IO[str] | None = None) -> str:
    """`text` in colour where `stream` (stdout) is a terminal that shows it and NO_COLOR is not set."""
    return f"\x1b[{code}m{text}\x1b[0m" if _in_colour(stream or sys.stdout) else text


def _in_colour(stream: IO[str]) -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def heading(text: str) -> str:
    return painted(text, BOLD)


def indented(lines: Sequence[str], by: str = "    ") -> str:
    return "\n".join(by + line for text in lines for line in text.split("\n"))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as left-justified columns."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def page(text: str) -> None:
    """Print a text; on a terminal that it does not fit, through $PAGER, or `less`. No shell reads what $PAGER says."""
    command = _pager() if _is_long(text) else None
    if command is None:
        print(text)
        return
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, env={"LESS": "FRX", **os.environ}) as pager:
            pager.communicate(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace") + b"\n")
    except OSError:
        print(text)


def _is_long(text: str) -> bool:
    return sys.stdout.isatty() and text.count("\n") + 2 > shutil.get_terminal_size().lines


def _pager() -> list[str] | None:
    """The words of the pager's command; None where there is none, or it is empty."""
    try:
        words = shlex.split(os.environ.get("PAGER", "less -R"))
    except ValueError:  # a quotation that is not closed
        return None
    return words if words and shutil.which(words[0]) else None


class Progress:
    """One line on stderr that says how far a command is, and goes when the work is done.

    with Progress(len(layers)) as progress:
        for layer in layers:
            progress.step(layer.name)
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def step(self, what: str) -> None:
        """The work that begins now."""
        self.done += 1
        if self.shown:
            width = shutil.get_terminal_size().columns - 1
            line = f"[{self.done}/{self.total}] {what}"[:width]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

"""The core suite: each configuration of threads and allocator is a process of its own; rows come as they are done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaccomp
from jaccomp.benchmark import process
from jaccomp.benchmark.cases import MODES, Mode, Row
from jaccomp.errors import BuildError, UsageError

PEERS = ("torch", "inductor", "inductor_vjp", "jax", "numpy")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of every configuration; `seconds` is about what the timed calls of a row and mode take together."""

    rows: tuple[Row, ...]
    modes: tuple[Mode, ...] = MODES
    peers: tuple[str, ...] = PEERS
    seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Configuration:
    threads: int
    allocator: process.Allocator

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}, allocator {self.allocator}"


def configurations(threads: Sequence[int], allocators: Sequence[process.Allocator]) -> tuple[Configuration, ...]:
    """Every pair. Raises `UsageError` for more threads than there are processors."""
    most = process.available()
    for count in threads:
        if not 1 <= count <= most:
            raise UsageError(
                f"--threads {count}", f"this process may use {most} processors.", f"Give numbers from 1 to {most}."
            )
    return tuple(Configuration(count, allocator) for allocator in allocators for count in threads)


def measured(
    plan: Plan, configuration: Configuration, progress: Callable[[str], None]
) -> Generator[tuple[str, Record]]:
    """("about", facts) first, then ("row", record) for each row and mode, as they are measured.

    A process that dies takes one row and mode with it, whose record says so; a new one goes on with the next.
    """
    todo = [(row.name, mode) for row in plan.rows for mode in plan.modes]
    told = False
    while todo:
        done = 0
        with _child(configuration) as child:
            try:
                _send(child, plan, configuration, todo)
                for kind, value in _events(child):
                    if kind == "begins":
                        progress(value)
                    elif kind == "row":
                        done += 1
                        yield kind, value
                    elif not told:
                        told = True
                        yield kind, value
            except BaseException:  # interrupted, or nobody wants the rest: do not wait for it
                child.kill()
                raise
            code = child.wait()
        if done < len(todo):
            if not told:
                raise BuildError("bench", f"its process ended with {code} before it measured anything.")
            name, mode = todo[done]
            yield "row", lost(name, mode, configuration, code)
        todo = todo[done + 1 :]


def lost(name: str, mode: Mode, configuration: Configuration, code: int) -> Record:
    """The record of a row whose process died."""
    return {
        "case": name,
        "mode": mode,
        "threads": configuration.threads,
        "allocator": configuration.allocator,
        "refused": {"all": f"the process ended with {code}"},
    }


def _child(configuration: Configuration) -> subprocess.Popen[str]:
    root = str(Path(jaccomp.__file__).resolve().parent.parent)
    environment = process.environment(configuration.threads, os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [sys.executable, "-m", "jaccomp.benchmark.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        encoding="utf-8",
    )


def _send(
    child: subprocess.Popen[str], plan: Plan, configuration: Configuration, todo: Sequence[tuple[str, Mode]]
) -> None:
    request: Mapping[str, Any] = {
        "todo": todo,
        "peers": plan.peers,
        "threads": configuration.threads,
        "allocator": configuration.allocator,
        "seconds": plan.seconds,
    }
    assert child.stdin is not None
    with child.stdin:
        json.dump(request, child.stdin)


def _events(child: subprocess.Popen[str]) -> Iterator[tuple[str, Any]]:
    assert child.stdout is not None
    for line in child.stdout:
        yield from json.loads(line).items()

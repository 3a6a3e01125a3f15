"""Times of several peers in one interleaved run: rounds in rotating order, medians, every result consumed.

In each round each peer is visited once: it settles, makes one call that is not timed, then a few that are. What
disturbs the machine for a while so disturbs all peers, and no peer always follows the same other.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 5
FEWEST = 3
"""Timed calls a visit, at least: with the rounds, medians are of at least 15, but where a call is long."""
MOST = 50
LONG = 1.0
"""Seconds from which on a call is timed once a visit and warms up for none."""
SAMPLED = 64

Results = Sequence[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to time: `call()` does all the work before it returns, `arrays(result)` shows what it made."""

    name: str
    call: Callable[[], Any]
    arrays: Callable[[Any], Results]


@dataclass(slots=True)
class Timed:
    """Milliseconds of each timed call of an entry, what its results summed to, and why it stopped, if it did."""

    milliseconds: list[float] = field(default_factory=list)
    checksum: float = 0.0
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)


def rotations(names: Sequence[str], rounds: int = ROUNDS) -> list[tuple[str, ...]]:
    """The order of visits in each round: each begins one further, and every second goes backwards.

    rotations("abc", 3)   ->   abc, acb, cab
    """
    orders = []
    for turn in range(rounds):
        start = turn % len(names) if names else 0
        order = (*names[start:], *names[:start])
        orders.append(order if turn % 2 == 0 else order[::-1])
    return orders


def calls_a_visit(estimate: float, share: float) -> int:
    """How many timed calls of `estimate` seconds fit into a visit's `share`, within bounds; one more is not timed."""
    if estimate > LONG:
        return 1
    return max(FEWEST, min(MOST, int(share / max(estimate, 1e-9)) - 1))


def consume(arrays: Results) -> float:
    """A sum over elements from all of each array: what makes sure that the work was done."""
    total = 0.0
    for array in arrays:
        flat = array.reshape(-1)
        if flat.size:
            total += float(flat[:: -(-flat.size // SAMPLED)].astype(np.float64).sum())
    return total


def measure(
    entries: Sequence[Entry],
    *,
    seconds: float,
    settle: float = 0.0,
    check: Callable[[str, Results], None] = lambda name, arrays: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Mapping[str, Timed]:
    """The timed calls of every entry, by name; `check` sees each entry's first results and its last.

    `seconds` is what the calls of all entries should take together; each still makes its fewest. An entry that raises
    is kept with its failure and what it had until then.
    """
    timed = {one.name: Timed() for one in entries}
    estimates: dict[str, float] = {}
    for one in entries:
        try:
            result = one.call()
            check(one.name, one.arrays(result))
            del result
            estimates[one.name] = _once(one, timed[one.name], clock) / 1e9
        except Exception as error:
            timed[one.name].failure = failure(error)
    by_name = {one.name: one for one in entries if one.name in estimates}
    share = seconds / (ROUNDS * max(1, len(by_name)))
    for order in rotations(tuple(by_name)):
        for name in order:
            if not timed[name].failure:
                _visit(by_name[name], timed[name], calls_a_visit(estimates[name], share), settle, clock)
    for name, one in by_name.items():
        if not timed[name].failure:
            check(name, one.arrays(one.call()))
    return timed


def _visit(one: Entry, timed: Timed, calls: int, settle: float, clock: Callable[[], int]) -> None:
    if settle:
        time.sleep(settle)
    collecting = gc.isenabled()
    gc.disable()
    try:
        if calls > 1:
            _once(one, timed, clock)
        timed.milliseconds += [_once(one, timed, clock) / 1e6 for _ in range(calls)]
    except Exception as error:
        timed.failure = failure(error)
    finally:
        if collecting:
            gc.enable()


def _once(one: Entry, timed: Timed, clock: Callable[[], int]) -> int:
    """Nanoseconds of one call, whose result is consumed when the clock has stopped, and dropped."""
    start = clock()
    result = one.call()
    taken = clock() - start
    timed.checksum += consume(one.arrays(result))
    return taken


def failure(error: BaseException) -> str:
    """An exception as one short line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]

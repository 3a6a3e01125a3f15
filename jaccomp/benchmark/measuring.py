"""One row in one mode: its entries timed together, their errors against float64, and the limit."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaccomp.benchmark import cases, timing
from jaccomp.benchmark.cases import Mode, Row
from jaccomp.benchmark.limits import Limit, Machine
from jaccomp.benchmark.own import OUT, SEPARATE, Own, Separate
from jaccomp.benchmark.peer import Given, Peer, Unsupported, draw
from jaccomp.benchmark.timing import Entry, Timed, failure

SETTLE = 0.12
"""Seconds that the pools of other peers get to stop spinning, where there is more than one thread."""
WRONG = 1e5
"""Units of float32's eps beyond which a result is no rounding: whoever made it computes something else."""
EPS = float(np.finfo(np.float32).eps)

_HOME = {
    "torch": ("torch_peers", "torch", 0),
    "inductor": ("torch_peers", "torch", 1),
    "inductor_vjp": ("torch_peers", "torch", 2),
    "jax": ("jax_peers", "jax", 0),
    "numpy": ("numpy_peers", "numpy", 0),
}


class Measuring:
    """The peers of a process, loaded once, and what they measured in it."""

    def __init__(self, peers: Sequence[str], threads: int, allocator: str, seconds: float) -> None:
        self.threads, self.allocator, self.seconds = threads, allocator, seconds
        self.peers: list[Peer] = []
        self.missing: dict[str, str] = {}
        for name in peers:
            try:
                self.peers.append(_load(name, threads))
            except Exception as error:
                self.missing[name] = failure(error)
        self.machine = Machine(threads)
        self._own: tuple[str, Own] | None = None

    def about(self) -> dict[str, Any]:
        """Versions, processor, threads and what could not be loaded."""
        from jaccomp import __version__
        from jaccomp.build.environment import libc
        from jaccomp.build.toolchain import ask_version, find_toolchain

        versions = {"jaccomp": __version__, "python": platform.python_version(), "numpy": np.__version__}
        versions |= {one.name: one.version() for one in self.peers if one.name != SEPARATE}
        versions |= {"scipy": import_module("scipy").__version__, "libc": libc()}
        versions["compiler"] = ask_version(find_toolchain()).splitlines()[0]
        return {
            "threads": self.threads,
            "cpu": _cpu(),
            "versions": versions,
            "missing": self.missing,
            "rates": {f"{name} 1e9/s": round(rate / 1e9, 2) for name, rate in self.machine.rates.items()},
            "sgemm GFLOP/s": round(self.machine.product_rate() / 1e9, 1),
        }

    def row(self, name: str, mode: Mode) -> dict[str, Any]:
        (row,) = (one for one in cases.ROWS if one.name == name)
        problem = row.timed()
        given = draw(problem)
        entries, refused = self._entries(given, mode)
        reference = _reference(given, mode)
        errors: dict[str, float] = {}

        def compare(entry: str, arrays: Sequence[NDArray[Any]]) -> None:
            errors[entry] = max(errors.get(entry, 0.0), error_in_eps(arrays, reference))

        before = self._limit(row, mode)
        settle = SETTLE if self.threads > 1 else 0.0
        timed = timing.measure(entries, seconds=self.seconds, settle=settle, check=compare)
        after = self._limit(row, mode)
        limit = min((one for one in (before, after) if one), key=lambda one: one.milliseconds, default=None)
        return {
            **summary(row.name, mode, timed, errors, refused, limit),
            "kind": row.kind,
            "threads": self.threads,
            "allocator": self.allocator,
        }

    def _limit(self, row: Row, mode: Mode) -> Limit | None:
        """A small row has none: it is the call that takes its time."""
        return None if row.kind == "small" else self.machine.limit(row.timed().costs[mode])

    def _entries(self, given: Given, mode: Mode) -> tuple[list[Entry], dict[str, str]]:
        """All that is timed, `peer` or `jaccomp/path`, several ways of one peer numbered; and who has nothing."""
        found: list[Entry] = []
        refused = dict(self.missing)
        try:
            own = self._kernels(given)
            found += [_renamed(one, f"jaccomp/{one.name}") for one in own.entries(given, mode)]
            refused |= {f"jaccomp/{name}": why for name, why in own.refused.items()}
        except Exception as error:
            refused["jaccomp"] = failure(error)
        for peer in [*self.peers, Separate(self.threads)]:
            try:
                ways = peer.entries(given, mode)
            except Unsupported as why:
                if peer.name != SEPARATE:
                    refused[peer.name] = str(why)
                continue
            except Exception as error:
                refused[peer.name] = failure(error)
                continue
            found += [_renamed(one, f"{peer.name}/{k}") for k, one in enumerate(ways)]
        return found, refused

    def _kernels(self, given: Given) -> Own:
        operation = given.problem.operation
        if self._own is None or self._own[0] != operation:
            self._own = operation, Own(given.problem, self.threads)
        self._own[1].refused.clear()
        return self._own[1]


def summary(
    case: str,
    mode: Mode,
    timed: Mapping[str, Timed],
    errors: Mapping[str, float],
    refused: Mapping[str, str],
    limit: Limit | None,
) -> dict[str, Any]:
    """The record of a row: the fastest way of each peer, the best peer, the ratio, the fraction of the limit."""
    refused = dict(refused)
    whole: dict[str, Timed] = {}
    for name, one in timed.items():
        if one.failure:
            refused[_peer(name)] = one.failure
        elif not errors[name] <= WRONG:
            refused[_peer(name)] = f"its result is {errors[name]:.3g} eps from float64's"
        else:
            whole[name] = one
    own = {name: one for name, one in whole.items() if _peer(name) == "jaccomp"}
    plain = {name: one for name, one in own.items() if not name.endswith(OUT)}
    into = {name: one for name, one in own.items() if name.endswith(OUT)}
    fastest = _fastest(plain)
    fastest_out = _fastest(into or plain)
    peers: dict[str, tuple[float, float]] = {}
    for name, one in whole.items():
        peer = _peer(name)
        if peer != "jaccomp" and (peer not in peers or one.median < peers[peer][0]):
            peers[peer] = one.median, errors[name]
    rivals = {name: times for name, times in peers.items() if name != SEPARATE}
    best = min(rivals, key=lambda name: rivals[name][0], default=None)
    own_ms = own[fastest].median if fastest else None
    out_ms = own[fastest_out].median if fastest_out else None
    best_ms = rivals[best][0] if best else None
    return {
        "case": case,
        "mode": mode,
        "jaccomp_ms": _rounded(own_ms),
        "best_peer": best,
        "best_peer_ms": _rounded(best_ms),
        "ratio": _rounded(best_ms / own_ms) if own_ms and best_ms else None,
        "limit_fraction": _rounded(limit.milliseconds / out_ms) if limit and out_ms else None,
        "error": _rounded(errors[fastest]) if fastest else None,
        "best_peer_error": _rounded(min((error for _, error in rivals.values()), default=None)),
        "jaccomp_out_ms": _rounded(out_ms),
        "limit_ms": _rounded(limit.milliseconds) if limit else None,
        "limit_by": limit.by if limit else None,
        "path": fastest.partition("/")[2] if fastest else None,
        "peers": {name: _rounded(times[0]) for name, times in peers.items()},
        "own": {name.partition("/")[2]: _rounded(one.median) for name, one in own.items()},
        "samples": min((len(one.milliseconds) for one in whole.values()), default=0),
        "checksum": sum(one.checksum for one in whole.values()),
        "refused": {name: why for name, why in refused.items() if name not in peers},
    }


def error_in_eps(arrays: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]]) -> float:
    """The largest distance from the reference, relative to the largest value of its array, in eps of float32."""
    if len(arrays) != len(reference):
        return float("inf")
    worst = 0.0
    for array, true in zip(arrays, reference, strict=True):
        if array.shape != true.shape:
            return float("inf")
        if true.size:
            scale = float(np.abs(true).max()) or 1.0
            distance = float(np.abs(array - true).max())
            worst = max(worst, distance / scale / EPS) if distance == distance else float("inf")
    return worst


def _reference(given: Given, mode: Mode) -> Sequence[NDArray[Any]]:
    """Float64 results by whoever is independent and there: PyTorch, else JAX, else the row's own kernel."""
    for module, package in (("torch_peers", "torch"), ("jax_peers", "jax"), ("own", "numpy")):
        if find_spec(package):
            reference: Callable[..., Sequence[NDArray[Any]]] = _module(module).reference
            return reference(given, mode)
    raise AssertionError("NumPy is always there")


def _load(name: str, threads: int) -> Peer:
    module, package, which = _HOME[name]
    if not find_spec(package):
        raise ModuleNotFoundError(f"{package} is not installed")
    loaded = _module(module)
    if package == "torch":
        import_module("torch").set_num_threads(threads)
    peer: Peer = loaded.PEERS[which]()
    return peer


def _module(name: str) -> Any:
    return import_module(f"jaccomp.benchmark.{name}")


def _peer(entry: str) -> str:
    return entry.partition("/")[0]


def _renamed(one: Entry, name: str) -> Entry:
    return Entry(name, one.call, one.arrays)


def _fastest(timed: Mapping[str, Timed]) -> str | None:
    return min(timed, key=lambda name: timed[name].median, default=None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()

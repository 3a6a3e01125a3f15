"""What this machine can do at most, measured beside the peers: bytes moved, products multiplied, functions called.

The limit of a row is the largest of three times: its least bytes through a C loop that reads and writes as many; its
operations at the rate of a 2048³ product by the BLAS that kernels call; its vector functions at the better rate of the
C library's and the module header's.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaccomp.benchmark.cases import Cost
from jaccomp.errors import BuildError

SOURCE = Path(__file__).with_name("limits.c")
FUNCTIONS = ("exp", "tanh", "erf", "log")
PIECES = (512, 4096, 32768, 1 << 20)
"""Bytes that a thread reads or writes before it turns to the other."""
PRODUCT = 2048


@dataclass(frozen=True, slots=True)
class Limit:
    """Milliseconds that a call cannot go below, and which of the three says so."""

    milliseconds: float
    by: str


class Machine:
    """The limits at one number of threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._library = _library()
        self.rates = {name: self._rate(k) for k, name in enumerate(FUNCTIONS)}

    def limit(self, cost: Cost) -> Limit:
        """What `cost` takes at least, as the machine is now."""
        times = {
            "bytes": self.seconds_to_move(cost.read, cost.written),
            "flops": cost.flops / self.product_rate() if cost.flops else 0.0,
            "calls": sum(count / self.rates[name] for name, count in cost.calls.items()),
        }
        by = max(times, key=lambda name: times[name])
        return Limit(1e3 * times[by], by)

    def seconds_to_move(self, read: int, written: int) -> float:
        """The best of plain and streaming stores, and of the sizes of pieces; whole cache lines."""
        read, written = (-(-count // 64) * 64 for count in (read, written))
        source = self._library.jc_limits_array(read, self.threads)
        target = self._library.jc_limits_array(written, self.threads)
        if not source or not target:
            raise BuildError("limits", f"no memory for {read + written} bytes.", "Free some.")
        try:

            def move(piece: int, streaming: int, repeats: int) -> float:
                return float(
                    self._library.jc_limits_move(
                        source, read, target, written, piece, streaming, self.threads, repeats
                    )
                )  # fmt: skip

            ways = [(piece, streaming) for piece in PIECES for streaming in (0, 1)]
            quick = {way: move(*way, 5) for way in ways}
            best = min(quick, key=lambda way: quick[way])
            return move(*best, max(5, min(101, int(0.05 / max(quick[best], 1e-7)))))
        finally:
            self._library.jc_limits_free(source)
            self._library.jc_limits_free(target)

    def product_rate(self) -> float:
        """Operations a second of sgemm at 2048³."""
        from scipy.linalg.blas import sgemm

        a, b, c = (np.full((PRODUCT, PRODUCT), 0.5, np.float32, order="F") for _ in range(3))
        times = []
        for _ in range(6):
            start = time.perf_counter()
            sgemm(1.0, a, b, c=c, overwrite_c=True)
            times.append(time.perf_counter() - start)
        return 2 * PRODUCT**3 / statistics.median(times[1:])

    def _rate(self, which: int) -> float:
        """Elements a second: the better of the header's function and the C library's."""
        return 1 / min(float(self._library.jc_limits_call(which, librarys, self.threads, 15)) for librarys in (0, 1))


def _library() -> Any:
    """The C loops, compiled with the flags of kernels into a folder that goes once they are loaded."""
    from jaccomp.build.environment import templates
    from jaccomp.build.flags import Flags
    from jaccomp.build.toolchain import compiler_environment, find_toolchain

    toolchain = find_toolchain()
    with tempfile.TemporaryDirectory(prefix="jaccomp-limits-", ignore_cleanup_errors=True) as folder:
        target = Path(folder, "limits.so")
        line = [*toolchain.command, *Flags().words(), f"-I{templates()}", str(SOURCE), "-o", str(target)]
        for last in (["-DJC_LIBMVEC", "-lmvec", "-lm"], ["-lm"]):  # not every C library has vector functions
            done = subprocess.run(
                [*line, *last], env=compiler_environment(), capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                break
        else:
            raise BuildError("limits", f"{SOURCE.name} does not compile: {done.stderr.strip()[-400:]}")
        library = ctypes.CDLL(str(target))
    size, integer, pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    library.jc_limits_array.restype, library.jc_limits_array.argtypes = pointer, [size, integer]
    library.jc_limits_free.restype, library.jc_limits_free.argtypes = None, [pointer]
    library.jc_limits_move.restype = library.jc_limits_call.restype = ctypes.c_double
    library.jc_limits_move.argtypes = [pointer, size, pointer, size, size, integer, integer, integer]
    library.jc_limits_call.argtypes = [integer, integer, integer, integer]
    return library

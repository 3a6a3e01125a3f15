"""Threads and allocator of a process, settled before anything that looks at them is imported."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Literal

Allocator = Literal["default", "keep"]
ALLOCATORS: tuple[Allocator, ...] = ("default", "keep")

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND")


def available() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that measures: every pool has `threads`, nothing else tunes one."""
    kept = {name: value for name, value in base.items() if name not in _TUNING}
    return {**kept, **dict.fromkeys(_POOLS, str(threads))}


def settle(threads: int, allocator: Allocator) -> str:
    """Use as many CPUs as there are threads, and the allocator that is asked for; what it is, in words.

    Pools that ask how many CPUs there are then count no more than `threads`.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return "default" if allocator == "default" else _keep_pages()


def _keep_pages() -> str:
    """Make glibc keep what is freed: large blocks come from the heap, and the heap is never given back."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return "default (this C library has no mallopt, so nothing keeps pages)"
    done = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_TOP_PAD, 0)]
    mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)  # an older glibc refuses so much; without maps it does not matter
    return "keep" if all(done) else "default (mallopt refused to keep pages)"

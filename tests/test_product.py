"""The header's own matrix product, compiled with the shipped flags: any sizes and strides, one order of summation."""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaccomp.build import Flags

HEADERS = Path(__file__).resolve().parent.parent / "templates"
Array = np.ndarray[Any, Any]
TYPES = {"f32": (np.float32, ctypes.c_float), "f64": (np.float64, ctypes.c_double)}
SOURCE = """
#include "jaccomp.h"
#include "jaccomp_lanes.h"
#include "jaccomp_process.h"
#include "jaccomp_product.h"
#include "jaccomp_blas.h"
#define ARGUMENTS(T) (int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, T alpha, const T *a, ptrdiff_t lda, \\
        const T *b, ptrdiff_t ldb, int adds, T *c, ptrdiff_t ldc, ptrdiff_t elements)
#define OUT(T, suffix) __attribute__((visibility("default"))) void product_##suffix ARGUMENTS(T); \\
void product_##suffix ARGUMENTS(T) { \\
    jc_gemm_##suffix(ta, tb, m, n, k, alpha, a, lda, b, ldb, adds, c, ldc, elements); }
OUT(float, f32)
OUT(double, f64)
"""
HUGE = 1 << 24
"""An array of so many elements outgrows the caches."""


def _cpu() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


WIDE = platform.machine() in ("x86_64", "AMD64") and "avx2" in _cpu() and "fma" in _cpu()
pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or not WIDE, reason="the product is made by gcc, for CPUs with wide fused multiply-adds"
)
targets = pytest.mark.parametrize("target", ("native", "x86-64-v3"))
kinds = pytest.mark.parametrize("kind", tuple(TYPES))


@functools.cache
def library(target: str) -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp())
    (folder / "product.c").write_text(SOURCE)
    flags = [word for word in Flags(target).words() if word != "-w"]
    warnings = ("-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-unused-variable")
    subprocess.run(
        ["gcc", *flags, *warnings, f"-I{HEADERS}", "-o", "product.so", "product.c", "-lm"], cwd=folder, check=True
    )
    return ctypes.CDLL(str(folder / "product.so"))


@dataclass(frozen=True, slots=True)
class Operand:
    """A matrix in memory with room between its lines, stored by columns if `turned`."""

    values: Array
    turned: bool
    room: int

    def stored(self) -> tuple[Array, int]:
        lines = self.values.T if self.turned else self.values
        memory = np.full((lines.shape[0], lines.shape[1] + self.room), np.nan, self.values.dtype)
        memory[:, : lines.shape[1]] = lines
        return memory, max(1, memory.shape[1])


def product(target: str, left: Operand, right: Operand, c: Array, columns: int, alpha: float = 1, adds: bool = False,
            elements: int = 0) -> None:  # fmt: skip
    """`c[:, :columns] = alpha left right`, added to what is there if `adds`."""
    kind = "f32" if c.dtype == np.float32 else "f64"
    (a, lda), (b, ldb) = left.stored(), right.stored()
    (m, k), n = left.values.shape, columns
    size = ctypes.c_ssize_t
    getattr(library(target), f"product_{kind}")(
        int(left.turned), int(right.turned), size(m), size(n), size(k), TYPES[kind][1](alpha),
        ctypes.c_void_p(a.ctypes.data), size(lda), ctypes.c_void_p(b.ctypes.data), size(ldb),
        int(adds), ctypes.c_void_p(c.ctypes.data), size(c.strides[0] // c.itemsize), size(elements),
    )  # fmt: skip


def sampled(kind: str, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(TYPES[kind][0])


@targets
@kinds
@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(0, 75), n=st.integers(0, 75), k=st.one_of(st.integers(0, 80), st.integers(250, 600)),
    turned=st.tuples(st.booleans(), st.booleans()), room=st.integers(0, 3), adds=st.booleans(),
    alpha=st.sampled_from((1.0, -0.75)), elements=st.sampled_from((0, HUGE)),
)  # fmt: skip
def test_a_product_is_numpys(
    target: str, kind: str, m: int, n: int, k: int, turned: tuple[bool, bool], room: int, adds: bool, alpha: float,
    elements: int,
) -> None:  # fmt: skip
    left, right = sampled(kind, m, k, seed=1), sampled(kind, k, n, seed=2)
    before = sampled(kind, m, n + room, seed=3)
    c = before.copy()
    product(target, Operand(left, turned[0], room), Operand(right, turned[1], room), c, n, alpha, adds, elements)
    wide = np.float64 if kind == "f32" else np.longdouble
    exact = alpha * (left.astype(wide) @ right.astype(wide))
    scale = abs(alpha) * (abs(left).astype(wide) @ abs(right).astype(wide))
    if adds:
        exact, scale = exact + before[:, :n], scale + abs(before[:, :n])
    assert np.all(abs(c[:, :n] - exact) <= 16 * np.finfo(c.dtype).eps * scale)
    np.testing.assert_array_equal(c[:, n:], before[:, n:])


@targets
@kinds
def test_the_bits_do_not_depend_on_where_a_product_is_cut(target: str, kind: str) -> None:
    m, n, k = 150, 170, 700
    left, right = sampled(kind, m, k, seed=1), sampled(kind, k, n, seed=2)
    whole = np.empty((m, n), left.dtype)
    product(target, Operand(left, False, 0), Operand(right, False, 0), whole, n)
    for rows, columns in ((1, n), (m, 1), (7, 33), (64, 48), (m, 5), (130, n)):
        parts = np.empty_like(whole)
        for i in range(0, m, rows):
            for j in range(0, n, columns):
                cut_left, cut_right = left[i : i + rows], right[:, j : j + columns]
                part = np.empty((cut_left.shape[0], cut_right.shape[1]), left.dtype)
                product(target, Operand(cut_left, True, 1), Operand(cut_right, True, 2), part, part.shape[1])
                parts[i : i + rows, j : j + columns] = part
        np.testing.assert_array_equal(parts, whole)


@targets
@kinds
@pytest.mark.parametrize("shift", (0, 4, 60))
def test_a_result_that_outgrows_the_caches_is_the_same_wherever_it_starts(target: str, kind: str, shift: int) -> None:
    m, n, k = 40, 1024, 64
    left, right = sampled(kind, m, k, seed=1), sampled(kind, k, n, seed=2)
    plain = np.empty((m, n), left.dtype)
    product(target, Operand(left, False, 0), Operand(right, False, 0), plain, n)
    memory = np.empty(plain.nbytes + 256, np.uint8)
    start = -memory.ctypes.data % 64 + shift // plain.itemsize * plain.itemsize
    streamed = memory[start : start + plain.nbytes].view(plain.dtype).reshape(plain.shape)
    product(target, Operand(left, False, 0), Operand(right, False, 0), streamed, n, elements=HUGE)
    np.testing.assert_array_equal(streamed, plain)


@targets
@kinds
def test_what_is_not_finite_goes_where_numpy_sends_it(target: str, kind: str) -> None:
    left, right = sampled(kind, 19, 70, seed=1), sampled(kind, 70, 45, seed=2)
    left[3, 5], left[7, 69], right[11, 40] = np.inf, np.nan, -np.inf
    c = np.full((19, 45), np.nan, left.dtype)
    product(target, Operand(left, False, 0), Operand(right, False, 0), c, 45)
    with np.errstate(invalid="ignore"):
        exact = left @ right
    np.testing.assert_array_equal(np.isnan(c), np.isnan(exact))
    np.testing.assert_array_equal(c[np.isinf(exact)], exact[np.isinf(exact)])
    assert np.isfinite(c[np.isfinite(exact)]).all()

"""Extrema over windows: the header's functions with the shipped flags, a kernel's calls, bounds that divide."""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Eq, exp

import jaccomp as jc
from jaccomp.build import Flags
from jaccomp.compiling import source
from jaccomp.emit.templates import render, template_directory
from jaccomp.layers import maxpool1d, maxpool2d

Array = np.ndarray[Any, Any]
TYPES = {"f32": (np.float32, "float"), "f64": (np.float64, "double")}
NAMES = ("greatest", "least")
FAR = np.iinfo(np.intp).max // 4
SIZES = ", ".join(f"ptrdiff_t n{k}" for k in range(7))
PLACES = ", ".join(f"ptrdiff_t p{k}" for k in range(4))
OUT = '__attribute__((visibility("default"))) '


def _exports() -> str:
    """What the header has as functions that a library exports."""
    text = ""
    for kind, (_, real) in TYPES.items():
        for name in NAMES:
            n, p = (", ".join(f"{letter}{k}" for k in range(count)) for letter, count in (("n", 6), ("p", 4)))
            sizes = ", ".join(f"ptrdiff_t n{k}" for k in range(6))
            head = f"{OUT}void {name}_{kind}({real} *y, const {real} *x, {sizes})"
            text += f"{head};\n{head} {{ jc_{name}_{kind}(y, x, {n}); }}\n"
            head = f"{OUT}void {name}_at_{kind}({real} *y, int64_t *at, const {real} *x, {sizes}, {PLACES})"
            text += f"{head};\n{head} {{ jc_{name}_at_{kind}(y, at, x, {n}, {p}); }}\n"
    for name in ("lower", "upper"):
        head = f"{OUT}ptrdiff_t {name}(ptrdiff_t c, ptrdiff_t e)"
        text += f"{head};\n{head} {{ return jc_{name}(c, e); }}\n"
    for name in ("from", "until"):
        head = f"{OUT}ptrdiff_t {name}(ptrdiff_t end, ptrdiff_t c, ptrdiff_t e)"
        text += f"{head};\n{head} {{ return jc_{name}(end, c, e); }}\n"
    return text


WIDE = platform.machine() in ("x86_64", "AMD64")
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the header is compiled by gcc here")
targets = pytest.mark.parametrize("target", ("native", *(("x86-64-v3", "baseline") if WIDE else ())))


@functools.cache
def library(target: str) -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp())
    types = tuple((real, kind) for kind, (_, real) in TYPES.items())
    (folder / "windows.h").write_text(render("jaccomp_windows.h.j2", types=types))
    parts = ("jaccomp.h", "jaccomp_lanes.h", "windows.h", "jaccomp_process.h", "jaccomp_product.h", "jaccomp_blas.h")
    (folder / "windows.c").write_text("".join(f'#include "{part}"\n' for part in parts) + _exports())
    flags = [word for word in Flags(target).words() if word != "-w"]
    warnings = ("-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-unused-variable", "-Wno-unused-function")
    subprocess.run(
        ["gcc", *flags, *warnings, f"-I{template_directory()}", "-o", "windows.so", "windows.c", "-lm"],
        cwd=folder,
        check=True,
    )
    found = ctypes.CDLL(str(folder / "windows.so"))
    for name in ("lower", "upper", "from", "until"):
        getattr(found, name).restype = ctypes.c_ssize_t
    return found


def first_extremum(values: Array, name: str) -> int:
    """The first greatest, or least; a nan is either."""
    return int(np.argmax(values) if name == "greatest" else np.argmin(values))


@targets
@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(tuple(TYPES)), name=st.sampled_from(NAMES), count=st.integers(1, 70), step=st.integers(0, 4),
    rows=st.integers(1, 4), taps=st.integers(1, 4), tap=st.integers(1, 2), seed=st.integers(0, 99),
    nan=st.sampled_from((0, 0.1, 0.6)), far=st.sampled_from((0, 1 << 31)),
)  # fmt: skip
def test_the_extremum_of_each_window_is_the_first(
    target: str, kind: str, name: str, count: int, step: int, rows: int, taps: int, tap: int, seed: int, nan: float,
    far: int,
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)
    row = 1 + step * (count - 1) + tap * (taps - 1)
    x = random.integers(-3, 3, (rows, row)).astype(TYPES[kind][0])
    x[x == -3], x[x == 2] = -np.inf, np.inf
    x[random.random(x.shape) < nan] = np.nan
    x = x.copy()  # exactly as long as what is read
    best, place = np.full(count + 1, 7, x.dtype), np.full(count + 1, 7)
    alone = best.copy()
    sizes = [ctypes.c_ssize_t(n) for n in (count, step, rows, row, taps, tap)]
    places = [ctypes.c_ssize_t(n) for n in (5, step, row + far, tap)]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (best, place, x, alone)]
    getattr(library(target), f"{name}_at_{kind}")(*pointers[:3], *sizes, *places)
    getattr(library(target), f"{name}_{kind}")(pointers[3], pointers[2], *sizes)
    for j in range(count):
        window = x[:, j * step : j * step + tap * (taps - 1) + 1 : tap]
        at = first_extremum(window.reshape(-1), name)
        np.testing.assert_array_equal([best[j], alone[j]], window.reshape(-1)[at])
        assert place[j] == 5 + j * step + at // taps * (row + far) + at % taps * tap
    assert best[count] == alone[count] == place[count] == 7


@settings(max_examples=300, deadline=None)
@given(end=st.one_of(st.integers(-50, 50), st.sampled_from((FAR, -FAR))), c=st.integers(-9, 9), e=st.integers(-99, 99))
def test_a_bound_that_need_not_divide_is_the_one_that_does(end: int, c: int, e: int) -> None:
    """`jc_from` is the greater of `jc_lower` and another bound, `jc_until` the less of `jc_upper` and another."""
    found = library("native")
    size = ctypes.c_ssize_t
    assert getattr(found, "from")(size(end), size(c), size(e)) == max(end, found.lower(size(c), size(e)))
    assert found.until(size(end), size(c), size(e)) == min(end, found.upper(size(c), size(e)))


def pooled(x: Array, ct: Array, kernel: int, stride: int, padding: int) -> tuple[Array, Array]:
    """The maxima of windows, and where their cotangents go, one by one."""
    y, ct_x = np.full(ct.shape, -np.inf, x.dtype), np.zeros_like(x)
    for n, i, j in np.ndindex(*ct.shape):
        rows, columns = (slice(max(0, stride * k - padding), max(0, stride * k - padding + kernel)) for k in (i, j))
        window = x[n, rows, columns]
        if window.size:
            at = np.unravel_index(np.argmax(window), window.shape)
            y[n, i, j] = window[at]
            ct_x[n, rows, columns][at] += ct[n, i, j]
    return y, ct_x


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.integers(0, 5), stride=st.integers(1, 5), padding=st.integers(0, 6),
    beyond=st.tuples(*[st.integers(0, 40)] * 2),
    kind=st.sampled_from((np.float32, np.float64)), seed=st.integers(0, 99), low=st.booleans(),
)  # fmt: skip
def test_windows_are_pooled_wherever_they_are_cut(
    kernel: int, stride: int, padding: int, beyond: tuple[int, int], kind: Any, seed: int, low: bool
) -> None:
    """Windows beside the image, ties, nan and infinities: the first maximum has all the cotangent."""
    random = np.random.default_rng(seed)
    shape = [max(0, kernel - 2 * padding) + more for more in beyond]
    x = random.integers(-3, 4, (2, *shape)).astype(kind)
    x[random.random(x.shape) < (1 if low else 0.2)] = -np.inf
    x[random.random(x.shape) < 0.05] = np.nan
    steps = [(length + 2 * padding - kernel) // stride + 1 for length in shape]
    ct = random.integers(-9, 9, (2, *steps)).astype(kind)
    y, ct_x = pooled(x, ct, kernel, stride, padding)
    given = {"kernel": kernel, "stride": stride, "padding": padding}
    made, derived = jc.compile(maxpool2d), jc.compile(maxpool2d.vjp())
    np.testing.assert_array_equal(made.forward(x, **given), y)
    found, pullback = made.vjp(x, **given)
    np.testing.assert_array_equal(found, y)
    np.testing.assert_array_equal(pullback(ct)[0], ct_x)
    np.testing.assert_array_equal(derived.forward(x, ct, **given), ct_x)


def row_functions(layer: jc.Layer) -> str:
    return source(layer).pyx


@pytest.mark.parametrize("layer", (maxpool1d, maxpool2d), ids=str)
def test_windows_that_are_whole_are_one_call(layer: jc.Layer) -> None:
    text = row_functions(layer)
    heads = {name: f"cdef inline void {name}_nest0_row_f32" for name in ("forward", "fwd")}
    rows = {name: text.split(head)[1].split("cdef inline")[0] for name, head in heads.items()}
    assert "jc_greatest_f32(" in rows["forward"]
    assert "jc_greatest_at_f32(" in rows["fwd"] and "jc_greatest_f32(" not in rows["fwd"]


def test_what_is_no_window_stays_a_loop() -> None:
    """A maximum over rows goes through them in the order of memory; one of computed values has them to compute."""
    N, T, D = jc.size("N T D")
    n, d, t = jc.index("n", N), jc.index("d", D), jc.index("t", T)
    x, y = jc.tensor("x", N, T, D), jc.tensor("y", N, D)
    rows = jc.Layer("rows", inputs=[x], outputs=[y], equations=[Eq(y[n, d], jc.MaxOver(x[n, t, d], t))])
    assert "jc_greatest" not in row_functions(rows)
    K = jc.scalar("K", default=2, dtype="int64")
    i, r = jc.index("i", T - K + 1), jc.index("r", K)
    z, w = jc.tensor("z", N, T), jc.tensor("w", N, T - K + 1)
    equations = [Eq(w[n, i], jc.MaxOver(exp(z[n, i + r]), r))]
    grown = jc.Layer("grown", inputs=[z], scalars=[K], outputs=[w], equations=equations)
    assert "jc_greatest" not in row_functions(grown)

"""Sums of products in register tiles, compiled with the shipped flags, against sums written out element by element."""

from __future__ import annotations

import ctypes
import itertools
import math
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_vecmath import TARGETS, runs_here

from jaccomp.build import Flags
from jaccomp.emit.module import kernel_header

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the header is tested with gcc, which is not here")
Array = np.ndarray[Any, Any]
TYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64}
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}
SOURCE = """
#include <Python.h>
#include "jaccomp.h"
#define OUT __attribute__((visibility("default"))) void
OUT run_f32(float *t, const float *onto, const float *l, const float *r, double a, const ptrdiff_t *plan) {
    jc_contract_f32(t, onto, l, r, (float)a, plan, NULL);
}
OUT run_f64(double *t, const double *onto, const double *l, const double *r, double a, const ptrdiff_t *plan) {
    jc_contract_f64(t, onto, l, r, a, plan, NULL);
}
OUT prepared_f32(float *t, const float *onto, const float *l, const float *r, double a, const ptrdiff_t *plan,
        const ptrdiff_t *side) {
    void *made = jc_prepare_f32(*side ? r : l, side);
    jc_contract_f32(t, onto, l, r, (float)a, plan, made);
    jc_forget_f32(made);
}
OUT prepared_f64(double *t, const double *onto, const double *l, const double *r, double a, const ptrdiff_t *plan,
        const ptrdiff_t *side) {
    void *made = jc_prepare_f64(*side ? r : l, side);
    jc_contract_f64(t, onto, l, r, a, plan, made);
    jc_forget_f64(made);
}
"""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of an operand, read at (start + moves · loops) / step; `cut` if places outside it may be reached."""

    extent: int
    start: int
    moves: tuple[int, ...]
    step: int = 1
    cut: bool = False

    def index(self, at: tuple[int, ...]) -> int | None:
        place = self.start + sum(m * i for m, i in zip(self.moves, at, strict=True))
        if place % self.step != 0 or not 0 <= place // self.step < self.extent:
            assert self.cut
            return None
        return place // self.step


@dataclass(frozen=True, slots=True)
class Sum:
    """Loops of m, n and k, and the two operands' axes; the target has the loops of m and n as its axes, in `order`.

    What the sum is added to has the loops in `onto`: those of the target if it is the target itself.
    """

    extents: tuple[tuple[int, ...], ...]
    operands: tuple[tuple[Axis, ...], ...]
    order: tuple[int, ...]
    onto: tuple[int, ...] = ()

    @property
    def loops(self) -> tuple[int, ...]:
        return tuple(e for part in self.extents for e in part)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(a.extent for a in axes) for axes in self.operands)

    @property
    def target(self) -> tuple[int, ...]:
        return tuple(self.loops[d] for d in self.order)

    @property
    def added(self) -> tuple[int, ...]:
        return tuple(self.loops[d] for d in self.onto)

    def plan(self) -> list[int]:
        steps = dict(zip(self.order, _strides(self.target), strict=True))
        there = dict(zip(self.onto, _strides(self.added), strict=True))
        windows, flat = [], [[0] * len(self.loops), [0] * len(self.loops)]
        for side, axes in enumerate(self.operands):
            for axis, stride in zip(axes, _strides(self.shapes[side]), strict=True):
                if axis.cut:
                    windows.append([side, stride, axis.step, axis.extent, axis.start, *axis.moves])
                    continue
                for d, move in enumerate(axis.moves):
                    flat[side][d] += move * stride
        rows = [[*map(len, self.extents), len(windows)]]
        rows += [[e, steps.get(d, 0), there.get(d, 0), flat[0][d], flat[1][d]] for d, e in enumerate(self.loops)]
        return [number for row in [*rows, *windows] for number in row]

    def side_plan(self, side: int) -> list[int] | None:
        """The plan by which a side is prepared; None if it has windows."""
        axes = self.operands[side]
        if any(a.cut for a in axes):
            return None
        first = [0, len(self.extents[0]), len(self.extents[0]) + len(self.extents[1]), len(self.loops)]
        loops = [*range(first[side], first[side + 1]), *range(first[2], first[3])]
        strides = _strides(self.shapes[side])
        rows = [[self.loops[d], sum(a.moves[d] * s for a, s in zip(axes, strides, strict=True))] for d in loops]
        return [side, len(self.extents[side]), len(self.extents[2]), *(number for row in rows for number in row)]

    def written_out(self, left: Array, right: Array, alpha: float, given: Array | None) -> Array:
        total = np.zeros(self.target, np.float64)
        for at in itertools.product(*map(range, self.target)) if given is not None else ():
            total[at] = given[tuple(at[self.order.index(d)] for d in self.onto)]
        for at in itertools.product(*map(range, self.loops)):
            factors = []
            for axes, array in zip(self.operands, (left, right), strict=True):
                place = [a.index(at) for a in axes]
                if None not in place:
                    factors.append(float(array[tuple(place)]))
            if len(factors) == 2:
                total[tuple(at[d] for d in self.order)] += alpha * factors[0] * factors[1]
        return total


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[d + 1 :]) for d in range(len(shape))]


def bare(extent: int, d: int, loops: int) -> Axis:
    return Axis(extent, 0, tuple(int(e == d) for e in range(loops)))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sum, numbers for its operands, and what it is added to: nothing, the target itself or another array."""

    sum: Sum
    left: Array
    right: Array
    given: Array | None


def drawn(rng: np.random.Generator, dtype: Any, one: Sum | None = None) -> Drawn:
    one = one or drawn_sum(rng)
    kind = rng.integers(3)
    axes = one.order if kind == 1 else tuple(int(d) for d in rng.permutation(one.order)[: rng.integers(len(one.order))])
    one = replace(one, onto=axes if kind else ())
    left, right, given = (rng.standard_normal(shape).astype(dtype) for shape in (*one.shapes, one.added))
    return Drawn(one, left, right, given if kind else None)


def drawn_sum(rng: np.random.Generator) -> Sum:
    """A sum whose operands are read bare, through overlapping windows, backwards, and with steps."""
    empty = rng.integers(6)  # at most one side has no loop of its own
    extents = tuple(tuple(int(e) for e in rng.integers(1, 6, rng.integers(part != empty, 3))) for part in range(3))
    loops = [e for part in extents for e in part]
    firsts = [0, len(extents[0]), len(extents[0]) + len(extents[1])]
    parts = [range(first, first + len(part)) for first, part in zip(firsts, extents, strict=True)]
    operands = []
    for side in range(2):
        waiting = [int(d) for d in rng.permutation([*parts[side], *parts[2]])]
        axes: list[Axis] = []
        while waiting:
            d = waiting.pop()
            if not waiting or rng.random() < 0.4:
                axes.append(bare(loops[d], d, len(loops)))
                continue
            e, moves = waiting.pop(), [0] * len(loops)
            moves[d], moves[e] = (int(m) for m in rng.choice([-2, -1, 1, 2, 3], 2))
            step, start = int(rng.choice([-2, -1, 1, 1, 1, 2, 3])), int(rng.integers(-4, 8))
            axes.append(Axis(int(rng.integers(1, 7)), start, tuple(moves), step, cut=True))
        operands.append(tuple(axes))
    order = tuple(int(d) for d in rng.permutation([*parts[0], *parts[1]]))
    return Sum(extents, tuple(operands), order)


def drawn_lines(rng: np.random.Generator) -> Sum:
    """A side of few rows, and another read through windows along lines of n or of k, longer than a vector."""
    lines, taps = (int(rng.integers(1, 4)), int(rng.integers(1, 75))), tuple(int(e) for e in rng.integers(1, 5, 2))
    own, summed = (lines, taps) if rng.random() < 0.5 else (taps, lines)
    rows = () if rng.random() < 0.5 else (int(rng.integers(1, 8)),)
    few = int(rng.integers(2))
    extents = (own, rows, summed) if few else (rows, own, summed)
    first, loops = [0, len(extents[0]), len(rows) + 2], len(rows) + 4
    step, dilation = (int(e) for e in rng.integers(1, 3, 2))
    read = []
    for d in range(2):
        moves, start = [0] * loops, int(rng.integers(-3, 2))
        along, across = first[1 - few] + d, first[2] + d
        moves[along], moves[across] = (step, dilation) if own == lines else (dilation, step)
        reached = 1 + moves[along] * (own[d] - 1) + moves[across] * (summed[d] - 1)
        read.append(Axis(max(1, reached + start + int(rng.integers(-3, 3))), start, tuple(moves), cut=True))
    row = tuple(bare(e, first[part] + d, loops) for part, of in ((few, rows), (2, summed)) for d, e in enumerate(of))
    order = tuple(int(d) for d in rng.permutation(first[2]))
    return Sum(extents, (tuple(read), row) if few else (row, tuple(read)), order)


@pytest.fixture(scope="module", params=TARGETS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if not runs_here(request.param):
        pytest.skip("this CPU lacks AVX2 or FMA")
    folder: Path = tmp_path_factory.mktemp(f"tiles_{request.param}")
    (folder / "jaccomp.h").write_text(kernel_header())
    (folder / "tiles.c").write_text(SOURCE)
    words = ("-Wall", "-Wextra", "-Wno-unused-variable", "-Wno-unused-function", "-Werror")
    flags = [w for w in Flags(request.param).words() if w != "-w"]
    include = f"-I{sysconfig.get_paths()['include']}"
    line = ("gcc", *flags, *words, include, "tiles.c", "-o", "tiles.so", "-lm")
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "tiles.so"))


def run(
    library: ctypes.CDLL,
    one: Sum,
    left: Array,
    right: Array,
    alpha: float,
    given: Array | None,
    side: int | None = None,
) -> Array:
    """The sum by the header, one side prepared before if it is named; what lies around the target must stay."""
    kind = next(kind for kind, dtype in TYPES.items() if left.dtype == dtype)
    memory = np.full(math.prod(one.target) + 32, -7, left.dtype)
    adds = given is not None and one.onto == one.order
    memory[16:-16] = given.ravel() if given is not None and adds else np.nan
    plan = np.array(one.plan(), np.intp)
    onto = memory[16:] if adds else given
    pointers = [ctypes.c_void_p(None if a is None else a.ctypes.data) for a in (memory[16:], onto, left, right)]
    ready = np.array(one.side_plan(side) if side is not None else [], np.intp)
    plans = [ctypes.c_void_p(p.ctypes.data) for p in (plan, ready) if p.size]
    getattr(library, f"{'run' if side is None else 'prepared'}_{kind}")(*pointers, ctypes.c_double(alpha), *plans)
    assert np.all(memory[:16] == -7) and np.all(memory[-16:] == -7)
    return memory[16:-16].reshape(one.target)


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_a_sum_is_what_is_written_out(library: ctypes.CDLL, dtype: Any) -> None:
    rng = np.random.default_rng(11)
    for number in range(60):
        case = drawn(rng, dtype)
        alpha = 1.0 if number % 2 else 0.75
        wanted = case.sum.written_out(case.left, case.right, alpha, case.given)
        for side in (None, *(s for s in range(2) if case.sum.side_plan(s) is not None)):
            found = run(library, case.sum, case.left, case.right, alpha, case.given, side)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * 10, err_msg=str(case.sum))


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_a_sum_along_lines_is_what_is_written_out(library: ctypes.CDLL, dtype: Any) -> None:
    rng = np.random.default_rng(23)
    for number in range(60):
        case = drawn(rng, dtype, drawn_lines(rng))
        alpha = 1.0 if number % 2 else 0.75
        wanted = case.sum.written_out(case.left, case.right, alpha, case.given)
        found = run(library, case.sum, case.left, case.right, alpha, case.given)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * 10, err_msg=str(case.sum))


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_nothing_beyond_an_array_is_multiplied(library: ctypes.CDLL, dtype: Any) -> None:
    """Infinite and undefined factors reach the sums that hold them, and no others."""
    rng = np.random.default_rng(5)
    for number in range(60):
        case = drawn(rng, dtype, drawn_lines(rng) if number % 3 == 0 else None)
        for array in (case.left, case.right):
            array.flat[rng.integers(array.size)] = rng.choice([np.inf, -np.inf, np.nan])
        with np.errstate(invalid="ignore"):
            wanted = case.sum.written_out(case.left, case.right, 1.0, case.given)
        for side in (None, *(s for s in range(2) if case.sum.side_plan(s) is not None)):
            found = run(library, case.sum, case.left, case.right, 1.0, case.given, side)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * 10, err_msg=str(case.sum))


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 130, 1500), (600, 5, 40), (590, 67, 1030), (7, 17, 193)])
def test_large_sums_agree_with_matrix_products(library: ctypes.CDLL, sizes: tuple[int, int, int], dtype: Any) -> None:
    rng = np.random.default_rng(3)
    m, n, k = sizes
    for transposed in itertools.product((False, True), repeat=3):
        shapes = [(0, m, 2, k), (1, n, 2, k)]
        axes = [(bare(a, d, 3), bare(b, e, 3)) for d, a, e, b in shapes]
        operands = tuple(pair[::-1] if turn else pair for pair, turn in zip(axes, transposed[:2], strict=True))
        one = Sum(((m,), (n,), (k,)), operands, (1, 0) if transposed[2] else (0, 1))
        left, right = (rng.standard_normal(shape).astype(dtype) for shape in one.shapes)
        found = run(library, one, left, right, 1.0, None)
        for side in range(2):
            ready = run(library, one, left, right, 1.0, None, side)
            np.testing.assert_allclose(ready, found, rtol=0, atol=TOLERANCE[dtype] * math.sqrt(k))
        sides = [a.T if turn else a for a, turn in zip((left, right), transposed[:2], strict=True)]
        wanted = sides[0].astype(np.float64) @ sides[1].astype(np.float64).T
        wanted = wanted.T if transposed[2] else wanted
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * math.sqrt(k))


@pytest.mark.parametrize("side", [0, 1])
def test_a_large_operand_is_copied_in_parts(library: ctypes.CDLL, side: int) -> None:
    """A copy between zeros that would outgrow the cache is made for a part of the loops at a time."""
    rng = np.random.default_rng(9)
    channels, length, taps, out = 40, 9000, 3, 4
    signal = (bare(channels, 2, 4), Axis(length, -1, (0, 1, 0, 1) if side else (1, 0, 0, 1), cut=True))
    weight = tuple(bare(e, d, 4) for e, d in ((out, 0 if side else 1), (channels, 2), (taps, 3)))
    extents = ((out,), (length,)) if side else ((length,), (out,))
    one = Sum((*extents, (channels, taps)), (weight, signal) if side else (signal, weight), (0, 1))
    left, right = (rng.standard_normal(shape).astype(np.float32) for shape in one.shapes)
    found = run(library, one, left, right, 1.0, None)
    w, x = (left, right) if side else (right, left)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1)))
    wanted = sum(w[:, :, r].astype(np.float64) @ padded[:, r : r + length] for r in range(taps))
    np.testing.assert_allclose(found, wanted if side else wanted.T, rtol=0, atol=1e-4)

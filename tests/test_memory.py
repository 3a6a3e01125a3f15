"""What a VJP keeps beside its residuals and results: at most a tenth of them, and a tile for each thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sympy as sp

from jaccomp import layers
from jaccomp.lowering import lower
from jaccomp.lowering.ir import Kernel
from jaccomp.lowering.lower import typical
from jaccomp.lowering.tiling import PRODUCT_TILE
from jaccomp.pipeline import derive, halves, prepare
from jaccomp.program import Program

SHARE = 0.1
SIZES = ("typical", "large", "equal", "small")


def extents(program: Program, case: str) -> dict[sp.Expr, sp.Expr]:
    """Representative sizes, sizes of which the first is large, all equal, or small and all different."""
    values = dict(typical(program))
    for number, size in enumerate(program.sizes):
        if case != "typical":
            values[size] = sp.Integer({"large": 512 if number else 4096, "equal": 64, "small": 3 + number}[case])
    return values


def elements(values: dict[sp.Expr, sp.Expr], *expressions: sp.Expr) -> float:
    """Their sum; a window that does not fit leaves nothing."""
    return sum(max(0.0, float(sp.sympify(e, strict=True).xreplace(values).evalf())) for e in expressions)


def arrays(program: Program, *names: str) -> list[sp.Expr]:
    return [sp.Mul(*program.tensor(name).shape) for name in names]


def check(kernel: Kernel, case: str) -> None:
    program = kernel.program
    values = extents(program, case)
    results = elements(values, *arrays(program, *program.outputs))
    kept = elements(values, *(b.elements for b in kernel.temporaries))
    assert kept <= SHARE * results, f"{kernel.name} keeps {[b.name for b in kernel.temporaries]}"
    axes = {e for t in program.tensors for e in t.shape}
    row = max(elements(values, e) for e in (sp.S.One, *axes))
    everything = elements(values, *arrays(program, *program.inputs, *program.outputs))
    for function in kernel.functions:
        for buffer in function.scratch:
            own = elements(values, buffer.elements)
            assert own <= max(PRODUCT_TILE * row, PRODUCT_TILE**2, SHARE * everything), (
                f"{kernel.name}: {buffer.name}[{', '.join(map(str, buffer.shape))}] is no tile"
            )


@pytest.mark.parametrize("name", layers.names())
def test_the_kernels_of_a_vjp_keep_no_more_than_a_tenth_of_their_results_and_tiles(name: str) -> None:
    made = halves(derive(prepare(layers.get(name).spec)))
    for program in (made.fwd, made.bwd):
        kernel = lower(program)
        for case in SIZES:
            check(kernel, case)


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm", "batchnorm", "instancenorm", "groupnorm"])
def test_a_normalisation_keeps_statistics_alone(name: str) -> None:
    made = halves(derive(prepare(layers.get(name).spec)))
    values = extents(made.fwd, "typical")
    (largest, *_) = arrays(made.fwd, *made.fwd.inputs)
    assert elements(values, *arrays(made.fwd, *made.residuals)) <= 0.05 * elements(values, largest)


MEASURE = """
import re
from pathlib import Path
import numpy as np
import jaccomp as jc

def status(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024

kernel = jc.compile(NAME)
rng = np.random.default_rng(0)
inputs = [rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]

def memory(call):
    call()                                            # BLAS and OpenMP have what they keep
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")     # the peak starts anew
    results = call()
    peak = status("VmHWM")
    return peak - before, sum({id(a): a.nbytes for a in results}.values())

held = [id(a) for a in inputs]
def forward():
    outputs, residuals = kernel.fwd(*inputs, threads=2)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [a for a in (*outputs, *residuals) if id(a) not in held]

outputs, residuals = kernel.fwd(*inputs, threads=2)
seeds = tuple(map(np.ones_like, outputs)) if isinstance(outputs, tuple) else np.ones_like(outputs)
backward = lambda: [a for a in kernel.bwd(residuals, seeds, threads=2) if a is not None]
print(*memory(forward), *memory(backward))
"""
CASES = {
    "layernorm": ("[(4096, 1024), (1024,), (1024,)]", 1024),
    "causal_attention": ("[(8, 512, 64)] * 3", 5 * 64 * 512),
    "lstm_cell": ("[(4096, 256), (4096, 256), (4096, 256), (1024, 256), (1024, 256), (1024,), (1024,)]", 256 * 1024),
}
"""Shapes of the inputs, and the elements of the tiles that one thread has."""
SLACK = 1 << 20
"""Pages that the allocator and the interpreter touch between two readings."""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux only")
@pytest.mark.parametrize("name", CASES)
def test_the_measured_peak_of_a_vjp_is_what_it_returns_and_a_tile_per_thread(name: str) -> None:
    shapes, tile = CASES[name]
    code = MEASURE.replace("NAME", repr(name)).replace("SHAPES", shapes)
    large = {"MALLOC_MMAP_THRESHOLD_": "131072", "JACCOMP_IDLE_BYTES": "0"}  # what is freed goes back at once
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **large}, capture_output=True, text=True, check=True
    )
    forward, returned, backward, results = map(int, done.stdout.split())
    for what, peak, due in (("fwd", forward, returned), ("bwd", backward, results)):
        allowed = due * (1 + SHARE) + 2 * tile * 4 + SLACK
        assert peak <= allowed, f"{name}.{what} takes {peak} bytes at its peak; it returns {due}"

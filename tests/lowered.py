"""What the tests of lowering and emission share: programs compiled without the module frame, and run on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaccomp.build.compiler import compile_module
from jaccomp.build.loader import load_module
from jaccomp.build.source import Source
from jaccomp.emit.declarations import declarations
from jaccomp.emit.loops import emit_kernel
from jaccomp.emit.module import kernel_header
from jaccomp.lowering import lower
from jaccomp.program import Program
from jaccomp.reference.interpreter import evaluate
from jaccomp.reference.sampling import extents

RESOLVE = """
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
cdef extern from "jaccomp.h":
    void *jc_sgemm
    void *jc_dgemm
from scipy.linalg.cython_blas import __pyx_capi__ as capsules
jc_sgemm = PyCapsule_GetPointer(capsules["sgemm"], PyCapsule_GetName(capsules["sgemm"]))
jc_dgemm = PyCapsule_GetPointer(capsules["dgemm"], PyCapsule_GetName(capsules["dgemm"]))
"""
TOLERANCE = {np.float32: 3e-5, np.float64: 1e-12}


def source(name: str, programs: Mapping[str, Program], dtypes: tuple[str, ...] = ("f32", "f64")) -> Source:
    """One module of kernels, each behind a function that takes addresses, sizes, scalars and a number of threads."""
    texts: list[str] = []
    for key, program in programs.items():
        kernel = lower(program)
        for dtype in dtypes:
            texts.append(emit_kernel(kernel, key, dtype))  # type: ignore[arg-type]
            texts.append(_wrapper(key, kernel.program, dtype))
    text = "\n".join(texts)
    head = "# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False\n"
    blas = RESOLVE if "jc_gemm" in text else ""
    pyx = head + declarations(text, "jaccomp.h") + "\n\n" + text + blas
    return Source(name, pyx, (("jaccomp.h", kernel_header()),))


def _wrapper(key: str, program: Program, dtype: str) -> str:
    real = {"f32": "float", "f64": "double"}[dtype]
    arguments, passed = [], []
    for number, name in enumerate((*program.inputs, *program.outputs)):
        base = "int64_t" if program.tensor(name).dtype == "int64" else real
        const = "const " if name in program.inputs else ""
        arguments.append(f"Py_ssize_t a{number}")
        passed.append(f"<{const}{base} *>a{number}")
    for number, _ in enumerate(program.sizes):
        arguments.append(f"Py_ssize_t n{number}")
        passed.append(f"n{number}")
    for number, scalar in enumerate(program.scalars):
        arguments.append(f"{'Py_ssize_t' if scalar.dtype == 'int64' else 'double'} c{number}")
        passed.append(f"c{number}" if scalar.dtype == "int64" else f"<{real}>c{number}")
    return (
        f"def run_{key}_{dtype}({', '.join([*arguments, 'int threads'])}):\n    cdef int status\n    with nogil:\n"
        f"        status = {key}_{dtype}({', '.join([*passed, 'threads'])})\n    return status\n\n"
    )


def built(name: str, programs: Mapping[str, Program], dtypes: tuple[str, ...] = ("f32", "f64")) -> Any:
    path: Path = compile_module(source(name, programs, dtypes))
    return load_module(name, path)


def run(
    module: Any,
    key: str,
    program: Program,
    arrays: Mapping[str, Any],
    sizes: Mapping[str, int],
    scalars: Mapping[str, Any] | None = None,
    dtype: Any = np.float64,
    threads: int = 1,
    wanted: tuple[str, ...] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs that are wanted, computed by the kernel; memory around and before is filled with nan."""
    given = {s.name: (scalars or {}).get(s.name, s.default) for s in program.scalars}
    addresses: list[int] = []
    keep: list[Any] = []
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    for name in program.inputs:
        kind = np.int64 if program.tensor(name).dtype == "int64" else dtype
        array = np.ascontiguousarray(arrays[name], dtype=kind)
        keep.append(array)
        addresses.append(array.ctypes.data)
    for name in program.outputs:
        if wanted is not None and name not in wanted:
            addresses.append(0)
            continue
        tensor = program.tensor(name)
        shape = extents(tensor.shape, {**sizes, **given})
        whole = np.full((int(np.prod(shape)) + 32,), -7 if tensor.dtype == "int64" else np.nan,
                        dtype=np.int64 if tensor.dtype == "int64" else dtype)  # fmt: skip
        keep.append(whole)
        outputs[name] = whole[16:-16].reshape(shape)
        addresses.append(outputs[name].ctypes.data if outputs[name].size else whole.ctypes.data)
    suffix = "f32" if dtype == np.float32 else "f64"
    values = [int(given[s.name]) if s.dtype == "int64" else float(given[s.name]) for s in program.scalars]  # type: ignore[arg-type]
    function = getattr(module, f"run_{key}_{suffix}")
    status = function(*addresses, *(sizes[s.name] for s in program.sizes), *values, threads)
    assert status == 0
    for name, array in outputs.items():
        whole = keep[len(program.inputs) + list(outputs).index(name)]
        edge = np.concatenate([whole[:16], whole[-16:]])
        assert np.all(edge == -7) if array.dtype == np.int64 else np.all(np.isnan(edge)), f"{name} is written outside"
    return outputs


def sample(program: Program, sizes: Mapping[str, int], seed: int = 0, ids: int = 1) -> dict[str, Any]:
    """Random inputs; integer tensors hold numbers below `ids`."""
    rng = np.random.default_rng(seed)
    given = {s.name: s.default for s in program.scalars}
    arrays = {}
    for name in program.inputs:
        tensor = program.tensor(name)
        shape = extents(tensor.shape, {**sizes, **given})
        arrays[name] = rng.integers(0, max(ids, 1), shape) if tensor.dtype == "int64" else rng.standard_normal(shape)
    return arrays


def check(
    module: Any, key: str, program: Program, sizes: Mapping[str, int], *, scalars: Mapping[str, Any] | None = None,
    seed: int = 0, ids: int = 1, dtypes: tuple[Any, ...] = (np.float32, np.float64),
    arrays: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """The kernel agrees with the brute-force evaluation in each dtype, with the same bits at 1, 2 and 3 threads."""
    given = dict(arrays) if arrays is not None else sample(program, sizes, seed, ids)
    truth = evaluate(program, given, sizes, scalars)
    for dtype in dtypes:
        results = [run(module, key, program, given, sizes, scalars, dtype, threads) for threads in (1, 2, 3)]
        for name in program.outputs:
            found, wanted = results[0][name], truth[name]
            scale = max(1.0, float(np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0)))
            np.testing.assert_allclose(
                found, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale, err_msg=f"{key}: {name} {dtype}"
            )
            for other in results[1:]:
                assert found.tobytes() == other[name].tobytes(), f"{key}: {name} depends on the number of threads"

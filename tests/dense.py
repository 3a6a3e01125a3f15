"""Dense Jacobians of programs by complex step, entry by entry: what derived programs are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from library_formulas import CASES, Case, ids_below
from points import STEP, Point

from jaccomp.calculus.vjp import real_inputs, real_outputs
from jaccomp.layers import get
from jaccomp.program import Program

TOLERANCE = 1e-12
"""Of a float64 result, relative to Σ|terms| of each entry: what the project promises."""

Arrays = Mapping[str, Any]
Blocks = dict[tuple[str, str], Any]

SMALL: dict[str, Case] = {
    "rmsnorm": CASES["rmsnorm"],
    "embedding": replace(CASES["embedding"], sizes={"N": 5, "V": 3, "D": 2}, draw={"ids": ids_below(3)}),
    "conv2d": replace(CASES["conv2d"], sizes={"N": 1, "C": 2, "O": 2, "H": 5, "W": 4, "KH": 2, "KW": 2}),
    "causal_attention": replace(CASES["causal_attention"], sizes={"B": 1, "N": 4, "D": 3, "E": 2}),
    "lstm_cell": replace(CASES["lstm_cell"], sizes={"N": 2, "I": 3, "H": 2}),
    "maxpool2d": replace(CASES["maxpool2d"], sizes={"N": 1, "H": 5, "W": 4}),
    "groupnorm": replace(CASES["groupnorm"], sizes={"N": 1, "G": 2, "K": 2, "H": 1, "W": 3}),
    "glu": CASES["glu"],
    "rope": replace(CASES["rope"], sizes={"N": 1, "T": 3, "P": 2}),
}
"""The five hard layers, and those whose accesses overlap, divide or shift: small enough for every entry."""


def small_point(name: str) -> Point:
    return Point(get(name), SMALL[name])


def jacobian(point: Point, program: Program, inputs: Arrays) -> Blocks:
    """(output, input) -> matrix [entries of the output, entries of the input], each column one complex step."""
    blocks: Blocks = {}
    for x in real_inputs(program):
        value = np.asarray(inputs[x], dtype=float)
        columns: dict[str, list[Any]] = {y: [] for y in real_outputs(program)}
        for k in range(value.size):
            moved = value.astype(complex).ravel()
            moved[k] += 1j * STEP
            found = point.evaluate(program, {**inputs, x: moved.reshape(value.shape)}, np.complex128)
            for y, column in columns.items():
                column.append(np.asarray(found[y]).imag.ravel() / STEP)
        for y, column in columns.items():
            rows = int(np.prod(point.shape(y, program), dtype=int))
            blocks[y, x] = np.array(column).reshape(len(column), rows).T
    return blocks


def seeds(point: Point, program: Program, names: tuple[str, ...], mark: str, seed: int) -> dict[str, Any]:
    """A random cotangent or tangent for each name."""
    rng = np.random.default_rng(seed)
    return {mark + name: rng.standard_normal(point.shape(name, program)) for name in names}


def pulled(blocks: Blocks, program: Program, cotangents: Arrays, mark: str) -> dict[str, tuple[Any, Any]]:
    """Of each real input the flat (vᵀ J, |v|ᵀ |J|)."""
    result = {}
    for x in real_inputs(program):
        pairs = [(np.ravel(cotangents[mark + y]), blocks[y, x]) for y in real_outputs(program)]
        result[x] = sum(v @ j for v, j in pairs), sum(abs(v) @ abs(j) for v, j in pairs)
    return result


def pushed(blocks: Blocks, program: Program, tangents: Arrays, mark: str) -> dict[str, tuple[Any, Any]]:
    """Of each real output the flat (J t, |J| |t|)."""
    result = {}
    for y in real_outputs(program):
        pairs = [(np.ravel(tangents[mark + x]), blocks[y, x]) for x in real_inputs(program)]
        result[y] = sum(j @ t for t, j in pairs), sum(abs(j) @ abs(t) for t, j in pairs)
    return result


def assert_close(found: Any, expected: tuple[Any, Any], what: str = "") -> None:
    """Every entry within `TOLERANCE` of Σ|terms|; of a whole array's where an entry has no terms at all."""
    value, terms = expected
    error = abs(np.ravel(found) - value)
    limit = TOLERANCE * (terms + 1e-3 * np.max(terms, initial=0.0))
    assert (error <= limit).all(), f"{what}: {error.max()} where Σ|terms| is {terms[np.argmax(error - limit)]}"

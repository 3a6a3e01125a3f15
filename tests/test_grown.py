"""Layers that nobody wrote: grown from the notation's features, each up the first rungs of the ladder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grown import grown
from lowered import built
from lowered import check as check_kernel

import jaccomp as jc
from jaccomp.pipeline import halves
from jaccomp.program import Program
from jaccomp.reference.ladder import check

SEEDS = (*range(26), 41, 98)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_grown_layer_agrees_with_its_equations(seed: int) -> None:
    layer = grown(seed)
    report = check(layer.spec, jc.compile(layer, backend="numpy"), edges=False)
    assert report.rows
    assert report.passed, [row for row in report.rows if not row.passed][:3]


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    found: dict[str, Program] = {}
    for seed in SEEDS:
        both = halves(grown(seed).derivation)
        found |= {f"forward{seed}": both.forward, f"bwd{seed}": both.bwd}
    return found


@pytest.fixture(scope="module")
def module(programs: dict[str, Program]) -> Any:
    return built("grown_under_test", programs, ("f64",))


@pytest.mark.parametrize("half", ["forward", "bwd"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_grown_layer_is_lowered_to_what_its_programs_say(
    programs: dict[str, Program], module: Any, seed: int, half: str
) -> None:
    program = programs[f"{half}{seed}"]
    for extents in ((3, 5, 4), (1, 2, 3), (70, 9, 6)):
        sizes = dict(zip(("s0", "s1", "s2"), extents, strict=True))
        given = {s.name: sizes[s.name] for s in program.sizes}
        check_kernel(module, f"{half}{seed}", program, given, ids=2, dtypes=(np.float64,))

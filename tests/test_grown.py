"""Layers that nobody wrote: grown from the notation's features, each up the first rungs of the ladder."""

from __future__ import annotations

import pytest
from grown import grown

import jaccomp as jc
from jaccomp.reference.ladder import check


@pytest.mark.parametrize("seed", range(25))
def test_a_grown_layer_agrees_with_its_equations(seed: int) -> None:
    layer = grown(seed)
    report = check(layer.spec, jc.compile(layer, backend="numpy"), edges=False)
    assert report.rows
    assert report.passed, [row for row in report.rows if not row.passed][:3]

"""Every layer of the library, compiled: the whole ladder, in float32 and float64, at every case of sizes."""

from __future__ import annotations

import pytest

import jaccomp as jc


@pytest.mark.parametrize("name", jc.layers.names())
def test_the_compiled_layer_climbs_the_ladder(name: str) -> None:
    report = jc.check(name)
    kinds = {row.what for row in report.rows}
    assert {"forward", "vjp", "jvp"} <= kinds or not jc.layers.get(name).jacobians()
    assert {row.dtype for row in report.rows} == {"float32", "float64"}
    assert report.passed, "\n".join(str(row) for row in report.rows if not row.passed)

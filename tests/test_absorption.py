"""Laws of signs, steps and quotients: each row rewrites its forms, and holds at both signs, at 0 and far out."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from written_jacobian import _value

from jaccomp.algebra.absorption import LAWS, Law, absorbed
from jaccomp.algebra.factoring import collected, weight
from jaccomp.calculus.functions import Sigmoid, Step
from jaccomp.notation import Access
from jaccomp.program import value_symbol

u, v = (Access(value_symbol(name, "real")) for name in ("x0", "x1"))
FORMS: dict[str, tuple[tuple[sp.Expr, sp.Expr], ...]] = {
    "step-of-extremum": (
        (2 * v * sp.Max(u, 0) * Step(u), 2 * v * sp.Max(u, 0)),
        (sp.Max(u, 0) ** 2 * Step(u), sp.Max(u, 0) ** 2),
        (sp.Min(u, 0) * Step(-u), sp.Min(u, 0)),
    ),
    "sign-times-odd": (
        (3 * u * sp.sign(u), 3 * sp.Abs(u)),
        (sp.tanh(sp.Abs(u)) * sp.sign(u) * v, sp.tanh(u) * v),
        (sp.sin(sp.Abs(u - v)) * sp.sign(v - u), -sp.sin(u - v)),
    ),
    "centred-logistic": (
        (1 - 2 * Sigmoid(u), -sp.tanh(u / 2)),
        (2 * Sigmoid(u) - 1, sp.tanh(u / 2)),
        (v * (1 - 2 * Sigmoid(-2 * u)), v * sp.tanh(u)),
    ),
    "complement": (
        (1 - sp.Abs(u) / (1 + sp.Abs(u)), 1 / (1 + sp.Abs(u))),
        (2 - 2 * u / (3 + u), 6 / (3 + u)),
    ),
}
LEFT_ALONE = (
    sp.Max(u, 1) * Step(u - 1),
    sp.Max(u, 0) * Step(v),
    v * sp.sign(u),
    sp.cos(sp.Abs(u)) * sp.sign(v),
    1 - 3 * Sigmoid(u),
    1 - 2 * Sigmoid(u) + v,
    1 - v / (1 + u),
    sp.Max(u, 0) / sp.Max(u, 0) ** 2 * Step(u),
)
POINTS = (-700.0, -1.25, 0.0, 0.5, 900.0)


@pytest.mark.parametrize("law", LAWS, ids=lambda one: one.name)
def test_a_law_rewrites_its_forms_to_shorter_ones_of_the_same_value(law: Law) -> None:
    assert law.statement
    for left, right in FORMS[law.name]:
        assert absorbed(left) == right
        assert weight(right) < weight(left)
        for first in POINTS:
            here = {"x0": np.float64(first), "x1": np.float64(0.75)}
            found, expected = (_value(one, {}, here, {}) for one in (right, left))
            assert found == pytest.approx(expected, rel=1e-14, abs=1e-15)


def test_every_law_has_forms() -> None:
    assert list(FORMS) == [law.name for law in LAWS]


@pytest.mark.parametrize("expr", LEFT_ALONE, ids=str)
def test_what_only_looks_like_it_is_left_alone(expr: sp.Expr) -> None:
    assert absorbed(expr) == expr


def test_collecting_absorbs() -> None:
    assert collected(2 * sp.Max(u, 0) * Step(u) * v) == 2 * sp.Max(u, 0) * v

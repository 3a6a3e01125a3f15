"""Affine reasoning: what is proved is true, and what a range is bounded by holds in every point of the domain."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import sympy as sp

import jaccomp as jc
from jaccomp.domains import at_most_one, extremes, form, hull, position, proves, solve_equalities, without_implied
from jaccomp.errors import StageError
from jaccomp.program import AXES, Constraint, Term, at_least, bound_symbol, equal, in_range, size_symbol, value_symbol

s, S = size_symbol("s0"), size_symbol("s1")
c = value_symbol("c0", "int64")
i, j = AXES[:2]
b, d = bound_symbol(0), bound_symbol(1)
ZERO = sp.S.Zero


def test_a_form_is_a_sum_of_monomials() -> None:
    assert form(2 * s * i - 3 + i) == {s * i: 2, i: 1, sp.S.One: -3}


@pytest.mark.parametrize(
    ("facts", "goal", "holds"),
    [
        ((), at_least(s, 0), True),
        ((), at_least(s, 1), False),
        ((), at_least(c, 0), False),
        (in_range(i, s), at_least(s, 1), True),
        ((*in_range(i, s), *in_range(b, i + 1)), at_least(s - 1, b), True),
        ((*in_range(i, s), *in_range(b, i + 1)), at_least(s - 1, b + 1), False),
        ((equal(b, i + 1), *in_range(i, s)), at_least(s, b), True),
        (in_range(b, s), equal(b, i), False),
        ((equal(b, i),), equal(i, b), True),
        ((*in_range(i, s), *in_range(b, S)), at_least(s * S - 1, S * i + b), True),
        ((*in_range(i, s), *in_range(b, S)), at_least(s * S - 2, S * i + b), False),
        ((*in_range(i, s), *in_range(b, 4)), at_least(16 * s - 1, 16 * i + 5 * b), True),
        ((*in_range(i, s), *in_range(b, 4)), at_least(16 * s - 2, 16 * i + 5 * b), False),
        (in_range(b, sp.Max(0, s - 3)), at_least(s - 1, b), True),
        (in_range(b, sp.Max(1, s - 3)), at_least(s - 1, b), False),
        (in_range(b, sp.Max(0, s - 3)), at_least(sp.Max(0, s - 3), s - 3), True),
    ],
)
def test_proofs(facts: tuple[Constraint, ...], goal: Constraint, holds: bool) -> None:
    assert proves(facts, goal) is holds


def test_what_is_proved_is_true_at_every_point() -> None:
    rng = random.Random(0)
    proved = 0
    for _ in range(150):
        symbols = (i, b, s)
        facts = [Constraint(_affine(rng, symbols)) for _ in range(3)]
        goal = Constraint(_affine(rng, symbols))
        if not proves(facts, goal):
            continue
        proved += 1
        for point in itertools.product(range(-3, 4), range(-3, 4), range(4)):
            where = dict(zip(symbols, point, strict=True))
            if all(f.expr.xreplace(where) >= 0 for f in facts):
                assert goal.expr.xreplace(where) >= 0
    assert proved >= 10


def _affine(rng: random.Random, symbols: tuple[sp.Symbol, ...]) -> sp.Expr:
    return sp.Add(*(rng.randint(-1, 1) * symbol for symbol in symbols), rng.randint(-1, 2))


@pytest.mark.parametrize(
    ("domain", "given", "ends"),
    [
        (in_range(b, s), (), (0, s - 1)),
        (in_range(b, i + 1), in_range(i, s), (0, s - 1)),
        ((at_least(b, i - c), *in_range(b, i + 1)), in_range(i, s), (0, s - 1)),  # a window
        ((at_least(i + c, b), *in_range(b, s)), in_range(i, s), (0, s - 1)),  # sizes alone, before other indices
        (in_range(b, s + 2, -2), (), (-2, s + 1)),
        ((*in_range(b, s), *in_range(b, s + 3)), (), (0, s - 1)),  # the tighter one
    ],
)
def test_the_hull_of_an_index(
    domain: tuple[Constraint, ...], given: tuple[Constraint, ...], ends: tuple[sp.Expr, sp.Expr]
) -> None:
    assert hull(Term(ZERO, (b,), domain), b, given) == ends


def test_an_index_without_bounds_has_no_hull() -> None:
    with pytest.raises(StageError) as caught:
        hull(Term(ZERO, (b,), (at_least(b, 0),)), b, ())
    assert str(caught.value) == "index b0: its range has no bound in sizes."


def test_the_extremes_of_an_expression() -> None:
    box = Term(ZERO, (b, d), (*in_range(b, s), *in_range(d, b + 1)))
    assert extremes(box, 2 * b - d + 1) == (2 - s, 2 * s - 1)
    with pytest.raises(StageError) as caught:
        extremes(Term(ZERO, (b,), ()), b + 1)
    assert str(caught.value) == "expression b0 + 1: it has no bound in sizes."


def test_an_equality_is_substituted_and_its_ranges_are_carried() -> None:
    solved = solve_equalities(Term(b**2, (b,), (*in_range(b, s), equal(b, i + 1))), in_range(i, s))
    assert solved == Term((i + 1) ** 2, (), (at_least(s - 2, i),))


def test_an_equality_that_nothing_meets_empties_the_domain() -> None:
    assert solve_equalities(Term(b, (b,), (*in_range(b, s), equal(sp.Integer(2), sp.Integer(1)))), ()) is None


def test_implied_inequalities_go_and_the_rest_stays() -> None:
    domain = (*in_range(b, s), at_least(s, b), at_least(b + 2, 0))
    assert without_implied(domain, ()) == in_range(b, s)
    assert without_implied(in_range(b, s), ()) == in_range(b, s)


def test_the_position_of_an_extremum_counts_its_indices_in_their_order() -> None:
    one = Term(ZERO, (b,), in_range(b, s, 2))
    assert position(one, ()) == b
    two = Term(ZERO, (b, d), (*in_range(b, s), *in_range(d, S, -1)))
    assert sp.expand(position(two, ()) - (b * (S + 1) + d + 1)) == 0


@pytest.mark.parametrize(
    ("domain", "holds"),
    [
        ((at_least(i, b * s), at_least(b * s + s - 1, i)), True),
        ((at_least(i, b * s), at_least(b * s + s, i)), False),
        ((at_least(i, 2 * b), at_least(2 * b + 1, i)), True),
        ((at_least(i, b), at_least(b + 1, i)), False),
        ((*in_range(b, S), equal(b, i - 1)), True),
        (in_range(b, S), False),
    ],
)
def test_an_index_has_at_most_one_value(domain: tuple[Constraint, ...], holds: bool) -> None:
    assert at_most_one(Term(ZERO, (b,), domain), b) is holds


def test_a_range_of_one_keeps_its_ends_where_an_equality_implies_them() -> None:
    N = jc.size("N")
    n, o = jc.index("n", N), jc.index("o", 1)
    x, y = jc.tensor("x y", N, 2)
    steps = [sp.Eq(y[n, 2 * o], sp.sin(x[n, 2 * o])), sp.Eq(y[n, 2 * o + 1], x[n, 2 * o + 1] ** 2)]
    layer = jc.Layer("pair", inputs=[x], outputs=[y], equations=steps)
    point = np.array([[0.5, 2.0], [1.0, -3.0]])
    kernel = jc.compile(layer)
    np.testing.assert_allclose(kernel(point), np.stack([np.sin(point[:, 0]), point[:, 1] ** 2], axis=1), rtol=1e-14)
    slopes = np.stack([np.cos(point[:, 0]), 2 * point[:, 1]], axis=1)
    np.testing.assert_allclose(kernel.vjp(point)[1](np.ones((2, 2)))[0], slopes, rtol=1e-14)
    assert "cos(x[n,2·l])" in layer.jacobian().text

"""Bracketings: the cheapest by comparison with all of them, costs by counting products of entries, values by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.bracketing import Factor, Tree, explicit, formula, forward, plan, reverse, tree_cost
from jaccomp.analysis.model import Linearisation, Model, dense
from jaccomp.errors import UsageError


def all_trees(low: int, high: int) -> list[Tree]:
    if low == high:
        return [low]
    return [(left, right) for k in range(low, high) for left in all_trees(k + 1, high) for right in all_trees(low, k)]


def matrices(factors: list[Factor], rng: np.random.Generator) -> list[np.ndarray]:
    """Dense matrices with the blocks that factors say."""
    found = []
    for one in factors:
        inner = np.ones((one.rows // one.blocks, one.columns // one.blocks))
        found.append(np.kron(np.eye(one.blocks), inner) * rng.standard_normal((one.rows, one.columns)))
    return found


def counted(patterns: list[np.ndarray], tree: Tree) -> tuple[int, np.ndarray]:
    """The products of two entries that may both differ from 0, one by one, and the pattern of the result."""
    if isinstance(tree, int):
        return 0, patterns[tree]
    (left, a), (right, b) = counted(patterns, tree[0]), counted(patterns, tree[1])
    both = a.astype(int) @ b.astype(int)
    return left + right + int(both.sum()), both > 0


def draw(rng: np.random.Generator, length: int, nested: bool = True) -> list[Factor]:
    """A chain of dense, block diagonal and diagonal factors; blocks divide one another where `nested`."""
    widths = [int(rng.choice([1, 2, 4, 8] if nested else [6, 12])) for _ in range(length + 1)]
    factors = []
    for k in range(length):
        if rng.random() < 0.4:
            widths[k + 1] = widths[k]
        columns, rows = widths[k], widths[k + 1]
        blocks = [b for b in ((1, 2, 4, 8) if nested else (1, 2, 3, 6)) if rows % b == columns % b == 0]
        if rows == columns and rng.random() < 0.5:
            blocks = [rows]
        factors.append(Factor(f"J{k + 1}", rows, columns, int(rng.choice(blocks))))
    return factors


@given(st.integers(0, 10_000), st.integers(1, 7), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_plan_is_the_cheapest_of_all_bracketings(seed: int, length: int, nested: bool) -> None:
    factors = draw(np.random.default_rng(seed), length, nested)
    found = plan(factors)
    costs = [tree_cost(factors, tree) for tree in all_trees(0, length - 1)]
    assert found.cost == min(costs) == tree_cost(factors, found.tree)
    assert found.forward == tree_cost(factors, forward(length)) in costs
    assert found.reverse == tree_cost(factors, reverse(length)) in costs


@given(st.integers(0, 10_000), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_costs_are_the_products_of_entries_that_blocks_leave(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    factors = draw(rng, length)
    patterns = [m != 0 for m in matrices(factors, rng)]
    for tree in all_trees(0, length - 1):
        assert tree_cost(factors, tree) == counted(patterns, tree)[0]


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_plan_gives_the_product(seed: int, length: int, nested: bool) -> None:
    rng = np.random.default_rng(seed)
    factors = draw(rng, length, nested)
    arrays = matrices(factors, rng)
    expected = arrays[0]
    for one in arrays[1:]:
        expected = one @ expected
    scale = 1e-12 * max(1.0, float(np.prod([np.linalg.norm(a) for a in arrays])))
    np.testing.assert_allclose(plan(factors).execute(arrays), expected, rtol=1e-11, atol=scale)


def test_a_plan_prints() -> None:
    found = plan([Factor("J1", 32, 64), Factor("J2", 32, 32, 32), Factor("J3", 10, 32)])
    assert str(found) == "((J3 J2) J1)\n  20,800 multiply-adds; forward 22,528, reverse 20,800"
    assert found.plain()["tree"] == [[2, 1], 0]
    mixed = plan([Factor("J1", 2, 50), Factor("J2", 60, 2), Factor("J3", 2, 60), Factor("J4", 70, 2)])
    assert mixed.bracketing == "(J4 ((J3 J2) J1))"
    assert mixed.cost < min(mixed.reverse, mixed.forward)


def mlp(batch: int) -> Linearisation:
    rng = np.random.default_rng(0)
    stages: dict[str, Any] = {"fc1": L.linear, "act": L.tanh, "norm": L.layernorm, "fc2": L.linear}
    shapes = {"fc1_W": (6, 5), "fc1_b": (6,), "norm_g": (6,), "norm_bias": (6,), "fc2_W": (2, 6), "fc2_b": (2,)}
    weights = {name: rng.standard_normal(one) for name, one in shapes.items()}
    return Model(jc.chain("mlp", **stages), weights, backend="numpy").at(rng.standard_normal((batch, 5)))


def test_the_factors_of_a_model_are_blocks_by_certificate() -> None:
    at = mlp(3)
    found, arrays = explicit(at)
    assert [one.shape for one in found.factors] == [(3, 6, 5), (18, 1, 1), (3, 6, 6), (3, 2, 6)]
    assert found.bracketing == "(((J_fc2 J_norm) J_act) J_fc1)"
    np.testing.assert_allclose(found.execute(arrays), dense(at.operator()), rtol=1e-12, atol=1e-13)


def test_a_layer_that_couples_its_batch_has_one_block() -> None:
    rng = np.random.default_rng(0)
    chain = jc.chain("bn", norm=L.batchnorm, act=L.tanh)
    parameters = {"norm_g": rng.standard_normal(2), "norm_bias": rng.standard_normal(2)}
    at = Model(chain, parameters, backend="numpy").at(rng.standard_normal((3, 2, 2, 2)))
    found, arrays = explicit(at, "y", "x")
    assert [one.blocks for one in found.factors] == [1, 24]
    np.testing.assert_allclose(found.execute(arrays), dense(at.operator("y", "x")), rtol=1e-11, atol=1e-12)


def test_a_chain_is_printed_factor_by_factor() -> None:
    shown = formula(jc.chain(fc1=L.linear, act=L.tanh, fc2=L.linear), "y", "x")
    assert shown.text.splitlines() == [
        "∂y/∂x = J_fc2 J_act J_fc1",
        "  J_fc2 = ∂y[n,o]/∂x[m,k] = W[o,k] δ(n,m)",
        "  J_act = ∂y[n]/∂x[m] = δ(n,m) (1 - y[n]²)",
        "  J_fc1 = ∂y[n,o]/∂x[m,k] = W[o,k] δ(n,m)",
    ]
    assert r"= J_{\mathrm{fc2}} J_{\mathrm{act}} J_{\mathrm{fc1}}" in shown.latex
    assert shown.latex.count("&") == 4
    residual = formula(jc.chain("r", fc=L.linear, sum=jc.stage(L.add, x="fc", z="input")), "y", "x")
    assert residual.product == "∂y/∂x = J_sum.y.x J_fc + J_sum.y.z"


def test_what_bracketing_refuses() -> None:
    with pytest.raises(UsageError, match="there is no factor"):
        plan([])
    with pytest.raises(UsageError, match="J2 has 4 columns, J1 3 rows"):
        plan([Factor("J1", 3, 2), Factor("J2", 5, 4)])
    with pytest.raises(UsageError, match="3 by 2 is not 2 equal blocks"):
        plan([Factor("J1", 3, 2, 2)])
    one = plan([Factor("J1", 4, 4, 2)])
    with pytest.raises(UsageError, match=r"factor J1: an array of shape \(2, 3\)"):
        one.execute([np.ones((2, 3))])
    with pytest.raises(UsageError, match="2 arrays were given"):
        one.execute([np.ones((4, 4))] * 2)
    chain = jc.chain("r", fc=L.linear, sum=jc.stage(L.add, x="fc", z="input"))
    at = Model(chain, {"fc_W": np.eye(2), "fc_b": np.ones(2)}, backend="numpy").at(np.ones((1, 2)))
    with pytest.raises(UsageError, match="2 paths lead from 'x' to 'y'"):
        explicit(at)
    with pytest.raises(UsageError, match="no path leads"):
        formula(chain, "fc_y", "fc_y")

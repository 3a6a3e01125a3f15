"""The table of rules, row by row; the trace; the budget; and that no simplification makes a program dearer."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import sympy as sp
from dense import assert_close, jacobian, pulled, seeds
from library_formulas import CASES, Case
from points import Point

import jaccomp as jc
from jaccomp import pipeline
from jaccomp.algebra import engine
from jaccomp.algebra.cost import operations, program_cost
from jaccomp.algebra.engine import ORDER, RULES, Budget, Rule, State, simplify
from jaccomp.algebra.examples import EXAMPLES
from jaccomp.algebra.factoring import collected, expansion, factored, flattened, joined
from jaccomp.algebra.naming import is_unnamed
from jaccomp.calculus.vjp import vjp
from jaccomp.layers import get, names
from jaccomp.notation import Access
from jaccomp.program import Program, reads, value_symbol, verify
from jaccomp.reference.interpreter import evaluate

BY_NAME = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def changed(rule: Rule, program: Program, given: frozenset[str]) -> tuple[Program, tuple[Any, ...]]:
    after = rule.action(State(program, given))
    step = engine._step(rule.name, program, after)
    return after, (step.before, step.after)


@BY_NAME
def test_a_rule_does_what_its_example_says(rule: Rule) -> None:
    example = rule.example
    _, step = changed(rule, example.program(), frozenset(example.given))
    assert step == (example.before, example.after)


@BY_NAME
def test_a_rule_keeps_the_values_of_its_example(rule: Rule) -> None:
    program = rule.example.program()
    after, _ = changed(rule, program, frozenset(rule.example.given))
    rng = np.random.default_rng(3)
    sizes = {"s0": 3, "s1": 4}
    arrays = {x: rng.standard_normal([sizes[e.name] for e in program.tensor(x).shape]) for x in program.inputs}
    (y,) = program.outputs
    expected, found = (evaluate(verify(p), arrays, sizes)[y] for p in (program, after))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@BY_NAME
def test_a_rule_that_fired_has_nothing_left_to_do_there(rule: Rule) -> None:
    """Each row says why it ends: a second application of the rule to its own result changes nothing."""
    example = rule.example
    once, _ = changed(rule, example.program(), frozenset(example.given))
    twice, _ = changed(rule, once, frozenset(example.given))
    assert twice.equations == once.equations


def test_every_row_is_complete_and_used() -> None:
    assert [rule.name for rule in RULES] == list(EXAMPLES)
    assert set(ORDER) == {rule.name for rule in RULES}
    assert all(rule.law and rule.ends and rule.example.after for rule in RULES)


@pytest.mark.parametrize("name", names())
def test_simplification_never_costs(name: str) -> None:
    """Against the VJP as derived, its deltas eliminated and its small maps written out where they are read."""
    program = get(name).prepared
    given = frozenset(e.target for e in program.equations)
    state = State(vjp(program), given)
    for rule in RULES:
        if rule.name in ("eliminate-delta", "inline-map"):
            state.program = rule.action(state)
    after = get(name).derivation.vjp
    least, most = (program_cost(p, only=derived(p, given)) for p in (after, state.program))
    assert least <= most * (1 + 1e-9)
    assert (after.inputs, after.outputs) == (state.program.inputs, state.program.outputs)


def derived(program: Program, given: frozenset[str]) -> frozenset[str]:
    """What is derived, and the nameless sums that have to be kept for it."""
    own = frozenset(e.target for e in program.equations) - given
    read = {name for e in program.equations if e.target in own for name in reads(e)}
    return own | {name for name in read & given if is_unnamed(name)}


@pytest.mark.parametrize("name", ["softmax", "layernorm", "causal_attention", "cross_entropy"])
def test_simplification_is_idempotent(name: str) -> None:
    derivation = get(name).derivation
    given = frozenset(e.target for e in derivation.program.equations)
    again = simplify(derivation.vjp, given)
    assert program_cost(again) == program_cost(derivation.vjp)


def test_the_trace_names_rules_with_equations_before_and_after() -> None:
    steps = pipeline.derive(get("softmax").prepared, traced=True).steps
    fired = [step.rule for step in steps]
    assert fired[0] == "eliminate-delta" and "named-quantity" in fired
    assert set(fired) <= {rule.name for rule in RULES}
    assert all(step.before or step.after for step in steps)
    final = steps[-1].after[-1]
    assert "ct_x[n,i] = y[n,i] (" in "\n".join(line for step in steps for line in step.after), final
    for step in steps:
        assert all(" = " in line for line in (*step.before, *step.after))


def test_the_trace_is_optional_and_changes_nothing() -> None:
    for name in ("layernorm", "lstm_cell"):
        assert pipeline.derive(get(name).prepared).vjp == pipeline.derive(get(name).prepared, traced=True).vjp


# ---------------------------------------------------------------------------------------------------------- the budget

N, K = jc.size("N"), jc.size("K")
n, i, k = jc.index("n", N), jc.index("i", K), jc.index("k", K)
x, y = jc.tensor("x y", N, K)


def nested_softmaxes(depth: int) -> jc.Layer:
    body: Any = x
    equations, h = [], [jc.tensor(f"h{d}", N, K) for d in range(depth)]
    for d in range(depth):
        target = h[d] if d < depth - 1 else y
        equations.append(sp.Eq(target[n, i], sp.exp(body[n, i]) / sp.Sum(sp.exp(body[n, k]), k)))
        body = h[d]
    return jc.Layer("nested", inputs=[x], outputs=[y], equations=equations)


def product_of_sums(factors: int) -> jc.Layer:
    """A body that has 3**factors addends when it is expanded."""
    body = sp.Mul(*(x[n, i] ** (d + 1) + d * x[n, i] + sp.sin(x[n, i] + d) for d in range(factors)))
    return jc.Layer("product", inputs=[x], outputs=[y], equations=[sp.Eq(y[n, i], body)])


def quotients(depth: int) -> jc.Layer:
    body = x[n, i]
    for d in range(depth):
        body = body / (1 + body**2 + sp.exp(-x[n, i]) / (d + 1))
    return jc.Layer("quotients", inputs=[x], outputs=[y], equations=[sp.Eq(y[n, i], body)])


@pytest.mark.parametrize("layer", [nested_softmaxes(12), product_of_sums(12), quotients(4)], ids=lambda one: one.name)
def test_a_pathological_layer_stays_right_and_fast(layer: jc.Layer) -> None:
    start = time.process_time()
    _ = layer.derivation
    assert time.process_time() - start < 2.0
    case = Case({"N": 2, "K": 3}, lambda x: x, draw={"x": lambda rng, shape: 0.5 * rng.standard_normal(shape)})
    point = Point(layer, case)
    ct = seeds(point, point.program, point.program.outputs, "ct_", 1)
    blocks = jacobian(point, point.program, point.inputs)
    found = point.evaluate(layer.derivation.vjp, point.inputs | ct)
    for name, expected in pulled(blocks, point.program, ct, "ct_").items():
        assert_close(found["ct_" + name], expected)


def test_an_empty_budget_leaves_a_right_program() -> None:
    program = get("layernorm").prepared
    given = frozenset(e.target for e in program.equations)
    point = Point(get("layernorm"), CASES["layernorm"])
    state = State(vjp(program), given, Budget(0))
    for rule in RULES:
        state.program = rule.action(state)
    ct = seeds(point, program, program.outputs, "ct_", 1)
    expected = point.evaluate(get("layernorm").derivation.vjp, point.inputs | ct)
    found = point.evaluate(verify(state.program), point.inputs | ct)
    for name in state.program.outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-13)
    assert state.budget.left < 0


def test_the_budget_is_one_for_all_that_a_simplification_tries() -> None:
    program = get("layernorm").prepared
    state = State(vjp(program), frozenset(e.target for e in program.equations))
    left = [state.budget.left]
    for name in ORDER:
        state.program = next(rule for rule in RULES if rule.name == name).action(state)
        left.append(state.budget.left)
    assert left == sorted(left, reverse=True) and left[-1] < left[0]


# ------------------------------------------------------------------------------------------------------------ factoring

a, b, c = (Access(value_symbol(name, "real")) for name in "abc")


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (a * c + b * c, (a + b) * c),
        (a / c - b / c, (a - b) / c),
        (a * c**2 + b * c, c * (a * c + b)),
        (-a * b - a * c, -a * (b + c)),
        (a * (b + c) - a * b, a * c),
        (sp.exp(a) * sp.exp(b) * c, c * sp.exp(a + b)),
        (a * sp.exp(b) + c * sp.exp(b), (a + c) * sp.exp(b)),
    ],
)
def test_collected_forms(expr: sp.Expr, expected: sp.Expr) -> None:
    assert collected(expr) == expected
    assert operations(collected(expr)) <= operations(expr)


def test_expansion_counts_addends_without_expanding() -> None:
    assert expansion((a + b) * (a + c)) == 4
    assert expansion(sp.Mul(*(a + k for k in range(1, 41)))) == 2**40
    assert expansion(a * (b + c * (a + b + 1))) == 4


def test_a_large_product_of_sums_is_not_expanded() -> None:
    large = sp.Mul(*(a + k for k in range(1, 41)))
    assert flattened(large) == large
    assert flattened((a + b) * (a + c)) == a**2 + a * c + a * b + b * c


def test_factored_and_joined_leave_values_alone() -> None:
    expr = a * b * c + a * c / b - 2 * a * c + sp.exp(a) * sp.exp(-b) * c
    at = {a: sp.Rational(3, 7), b: sp.Rational(5, 3), c: sp.Rational(-2, 9)}
    for form in (factored(expr), joined(expr), flattened(expr), collected(expr)):
        assert sp.N(form.xreplace(at) - expr.xreplace(at), 30) == pytest.approx(0, abs=1e-28)

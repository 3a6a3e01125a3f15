"""How programs and formulas read: names, signs, brackets, ranges, constants."""

from __future__ import annotations

import pytest
import sympy as sp

import jaccomp as jc
from jaccomp.calculus import functions as own
from jaccomp.layers import get, names
from jaccomp.notation import Access
from jaccomp.printing import decimal, expression_text, program_text
from jaccomp.program import Labels, value_symbol

a, b, c = (Access(value_symbol(name, "real")) for name in ("x0", "x1", "x2"))
N, K = sp.symbols("N K", integer=True)
LABELS = Labels({"x0": "a", "x1": "b", "x2": "c"})


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (a + b, "a + b"),
        (a - b, "a - b"),
        (-a - b, "-a - b"),
        (a * (b + c), "a (b + c)"),
        (sp.Mul(2, a - b, 1 / c), "2 (a - b)/c"),
        (a / (b * c), "a/(b c)"),
        (1 / a, "1/a"),
        (a**2 / b**3, "a²/b³"),
        (sp.floor((N + 2) / K), "⌊(2 + N)/K⌋"),
        (sp.floor(2 * N / 3), "⌊2 N/3⌋"),
        (sp.sqrt(a), "√(a)"),
        ((a + b) ** sp.Rational(-1, 2), "(a + b)^(-1/2)"),
        (-a * b, "-a b"),
        (sp.Mul(-1, c, a + b), "-c (a + b)"),
        (sp.exp(-(a**2) / 2), "exp(-a²/2)"),
        (sp.Abs(a - b), "|a - b|"),
        (sp.Max(a, 0), "max(0, a)"),
        (own.Sigmoid(-a), "sigmoid(-a)"),
        (own.Step(a), "step(a)"),
        (own.HalfStep(a - b), "step½(a - b)"),
        (sp.Piecewise((a, a > 0), (0, True)), "cases(a if a > 0; 0 if otherwise)"),
        (sp.Rational(1, 3) * a, "a/3"),
        (sp.Rational("1.702") * a, "1.702 a"),
        (1 + sp.Rational("0.134145") * a**2, "1 + 0.134145 a²"),
        (a - sp.Rational("0.001"), "a - 0.001"),
        (sp.pi * a, "π a"),
    ],
)
def test_an_expression_as_it_is_written_by_hand(expr: sp.Expr, text: str) -> None:
    assert expression_text(LABELS, expr, {}) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.044715", "0.044715"),
        ("-1.702", "-1.702"),
        ("1/3", None),
        ("1/64", None),
        ("1/2", None),
        ("12.0625", "12.0625"),
    ],
)
def test_decimals_are_those_that_were_written(number: str, text: str | None) -> None:
    value = sp.Rational(number)
    assert decimal(value) == (text if value.q >= 100 else None)
    assert text is None or value.q < 100 or sp.Rational(text) == value


def test_no_text_holds_what_could_leave_a_comment() -> None:
    for name in names():
        layer = get(name)
        for text in (
            program_text(layer.program),
            program_text(layer.derivation.vjp),
            *map(str, layer.jacobians().values()),
        ):
            assert not set(text) & set("\"'\\\r\t"), name
            assert "*/" not in text and "#" not in text
        assert all("\n" not in str(block) for block in layer.jacobians().values())


def test_canonical_names_do_not_reach_the_reader_where_the_author_gave_one() -> None:
    text = str(get("layernorm").jacobian(wrt="x"))
    assert not any(canonical in text for canonical in ("x0", "v0", "s0", "i0", "b0"))


def test_a_sum_says_the_range_that_other_indices_set() -> None:
    assert "Σ_{j ≤ n}" in str(get("causal_attention").jacobian(wrt="q"))
    assert "Σ_j" in str(get("attention").jacobian(wrt="q"))


def test_a_delta_reads_row_first_and_a_column_is_written_in_rows() -> None:
    text = get("glu").jacobian().text
    assert "δ(i + H,j)" in text and "x[n,i+H]" in text and "j-H" not in text


def test_a_layer_prints_as_its_program() -> None:
    N = jc.size("N")
    n = jc.index("n", N)
    x, y = jc.tensor("x y", N)
    layer = jc.Layer("twice", inputs=[x], outputs=[y], equations=[sp.Eq(y[n], 2 * x[n])])
    assert str(layer) == "twice(x) -> y\n    y[n] = 2 x[n]"
    assert repr(layer) == "<Layer twice(x) -> y>"

"""Names, equations and formulas as LaTeX: what they read as, and that all of it compiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from latex import check_compiles

import jaccomp as jc
from jaccomp.calculus import functions as own
from jaccomp.latex_names import latex_access, latex_name, latex_text
from jaccomp.layers import get, names
from jaccomp.notation import Access
from jaccomp.printing_latex import equation_latex, expression_latex, formula_latex, program_latex, written_latex
from jaccomp.program import Labels, value_symbol

NAMES = (
    ("x", "x"),
    ("W", "W"),
    ("x1", "x_{1}"),
    ("x_1", "x_{1}"),
    ("x_12", "x_{12}"),
    ("xhat", r"\hat{x}"),
    ("x_hat", r"\hat{x}"),
    ("x_hat_i", r"\hat{x}_{i}"),
    ("x2bar", r"\mathrm{x2bar}"),
    ("xbar2", r"\bar{x}_{2}"),
    ("ytilde", r"\tilde{y}"),
    ("that", r"\hat{t}"),
    ("chart", r"\mathrm{chart}"),
    ("scalebar", r"\mathrm{scalebar}"),
    ("sigma", r"\sigma"),
    ("Sigma", r"\Sigma"),
    ("sigma2", r"\sigma_{2}"),
    ("σ", r"\sigma"),
    ("μ_x", r"\mu_{x}"),
    ("muhat", r"\hat{\mu}"),
    ("eps", r"\varepsilon"),
    ("lambda_", r"\lambda"),
    ("x_", r"\mathrm{x\_}"),
    ("w_ih", r"w_{\mathrm{ih}}"),
    ("norm_x", r"\mathrm{norm}_{x}"),
    ("a_b_c", "a_{b,c}"),
    ("log_p", r"\mathrm{log\_p}"),
    ("rstd", r"\mathrm{rstd}"),
    ("conv2d", r"\mathrm{conv2d}"),
    ("ct_x", r"\bar{x}"),
    ("ct_bias", r"\overline{\mathrm{bias}}"),
    ("ct_norm_x", r"\overline{\mathrm{norm}}_{x}"),
    ("t_x", r"\dot{x}"),
    ("ct_xhat", r"\bar{\hat{x}}"),
    ("ct2_ct_x", r"\bar{\bar{x}}"),
    ("ct_x_1", r"\bar{x}_{1}"),
    ("é", r"\acute{e}"),
    ("naïve", r"\mathrm{na\ddot{i}ve}"),
    ("漢", r"\mathrm{U6F22}"),
)


@pytest.mark.parametrize(("name", "text"), NAMES, ids=[name for name, _ in NAMES])
def test_a_name_as_a_mathematician_prints_it(name: str, text: str) -> None:
    assert latex_name(name) == text


def test_a_name_with_a_subscript_is_braced_before_its_indices() -> None:
    assert latex_access("x", ["n", "i"]) == "x_{n,i}"
    assert latex_access("norm_x", ["n"]) == r"{\mathrm{norm}_{x}{}}_{n}"
    assert latex_access("loss", []) == r"\mathrm{loss}"


HOSTILE = (
    r"\input{/etc/passwd}", "x}$\\end{document}", "a%b", "a#1", "a&b", "a^b^c", "a_b_", "__", "~", "$$", "\\\\", "{",
    "}", "ct_", "ct_ct_", "t_", "", " ", "\n", "x\ny", '"', "'", "`", "<img src=x>", "é́", "\u202e", "a\x00b",
    "x" * 100, "_" * 50, "hat", "bar", "x_hat_hat", "1_2", "²", "ﬁ",
)  # fmt: skip


def test_no_text_is_a_command(tmp_path: Path) -> None:
    for text in HOSTILE:
        for spelled in (latex_name(text), latex_text(text)):
            assert not any(word in spelled for word in ("input", "end{document")) or "\\mathrm" in spelled
    check_compiles([one for text in HOSTILE for one in (latex_name(text), latex_text(text), latex_access(text, ["i"]))
                    if one], tmp_path)  # fmt: skip


@given(st.text(max_size=30))
def test_any_text_is_balanced_and_holds_known_commands_alone(text: str) -> None:
    spelled = latex_name(text)
    depth = 0
    position = 0
    while position < len(spelled):
        if spelled[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(spelled[position], 0)
        assert depth >= 0
        assert spelled[position] not in "$%&#~\n"
        position += 1
    assert depth == 0 and spelled.isascii()


IF, ELSE = r"\text{if }", r"\text{otherwise}"
a, b, c = (Access(value_symbol(name, "real")) for name in ("x0", "x1", "x2"))
LABELS = Labels({"x0": "a", "x1": "b", "x2": "c"})


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (a - b, "a - b"),
        (-a - b, "-a - b"),
        (a * (b + c), r"a \, \left(b + c\right)"),
        (sp.Mul(2, a - b, 1 / c), r"\frac{2 \left(a - b\right)}{c}"),
        (a / (b * c), r"\frac{a}{b \, c}"),
        (a**2 / b**3, r"\frac{a^{2}}{b^{3}}"),
        ((a / b) ** 2, r"\frac{a^{2}}{b^{2}}"),
        (sp.sqrt(a), r"\sqrt{a}"),
        (1 / sp.sqrt(a), r"\frac{1}{\sqrt{a}}"),
        (sp.sqrt(2) * a / sp.sqrt(sp.pi), r"\frac{\sqrt{2} \, a}{\sqrt{\pi}}"),
        (sp.Mul(-1, c, a + b), r"-c \, \left(a + b\right)"),
        (sp.exp(-a), r"\mathrm{e}^{-a}"),
        (sp.exp(-(a**2) / 2), r"\exp\left(-\frac{a^{2}}{2}\right)"),
        (sp.exp(a) ** 2, r"\mathrm{e}^{2 a}"),
        (2 * 10**a, r"2 \cdot 10^{a}"),
        (sp.tanh(a) ** 2, r"\tanh^{2}\left(a\right)"),
        (own.Sigmoid(-a), r"\sigma\left(-a\right)"),
        (own.Softplus(a), r"\operatorname{softplus}\left(a\right)"),
        (own.Step(a), r"\left[a > 0\right]"),
        (own.InverseRoot(a), r"\frac{1}{\sqrt{a}}"),
        (own.Log1p(a), r"\log\left(1 + a\right)"),
        (own.Expm1(a) * b, r"b \, \left(\mathrm{e}^{a} - 1\right)"),
        (sp.Abs(a), r"\left|a\right|"),
        (sp.Max(a, 0), r"\max\left(0, a\right)"),
        (sp.Piecewise((a, a > 0), (0, True)), rf"\begin{{cases}} a & {IF} a > 0 \\ 0 & {ELSE} \end{{cases}}"),
        (sp.Rational("1.702") * a, "1.702 a"),
        (sp.Rational(-1, 3) * a, r"-\frac{a}{3}"),
        (a - sp.Rational(1, 2), r"a - \frac{1}{2}"),
    ],
)  # fmt: skip
def test_an_expression_as_it_is_set(expr: sp.Expr, text: str) -> None:
    assert expression_latex(LABELS, expr, {}) == text


def equations(name: str) -> dict[str, str]:
    """Of a library layer and its VJP: target -> equation."""
    program = get(name).derivation.vjp
    return {program.labels.name(e.target): equation_latex(program, e) for e in program.equations}


def test_sums_show_their_ranges_and_cotangents_a_bar() -> None:
    found = equations("layernorm")
    assert found["mean"] == r"\mathrm{mean}_{n} = \frac{1}{D} \, \sum_{k=0}^{D - 1} x_{n,k}"
    assert found["ct_g"] == r"\bar{g}_{i} = \sum_{n=0}^{N - 1} \bar{y}_{n,i} \, \hat{x}_{n,i}"


def test_a_range_that_an_axis_ends_and_a_condition_without_a_sum() -> None:
    found = equations("causal_attention")
    assert found["o"] == r"o_{b,n,e} = \sum_{j=0}^{n} p_{b,n,j} \, v_{b,j,e}"
    assert found["p"].startswith(r"p_{b,n,m} = \left[m \le n\right] \, \frac{\mathrm{e}^{s_{b,n,m}}}{")


def test_an_equality_with_data_stands_below_the_sum_and_is_a_delta_without_one() -> None:
    assert equations("embedding")["ct_table"] == (
        r"\overline{\mathrm{table}}_{i,d} = \sum_{\substack{n=0 \\ \mathrm{ids}_{n} = i}}^{N - 1} \bar{y}_{n,d}"
    )
    assert r"\delta_{\mathrm{labels}_{n},j}" in equations("cross_entropy")["ct_x"]


def test_a_digit_is_a_floor_said_once() -> None:
    assert equations("groupnorm")["xhat"].count(r"a = \left\lfloor \frac{c}{K} \right\rfloor") == 1


def test_a_maximum_has_its_range_below_it() -> None:
    program = get("max_pool").program
    texts = [equation_latex(program, e) for e in program.equations]
    assert texts == [r"y_{n,d} = \max_{0 \le t \le T - 1} x_{n,t,d}"]


def test_an_equation_reads_as_its_author_wrote_it() -> None:
    (equation,) = get("softmax").spec.equations
    assert written_latex(equation.left, equation.right) == (
        r"y_{n,i} = \frac{\mathrm{e}^{x_{n,i}}}{\sum_{k=0}^{D - 1} \mathrm{e}^{x_{n,k}}}"
    )
    N = jc.size("N")
    n, k = jc.index("n", N), jc.index("k", N)
    inside = jc.index("m", n + 1)
    x = jc.tensor("x", N)
    assert written_latex(x[n], sp.Sum(x[inside] * x[k], inside, k)) == (
        r"x_{n} = \sum_{m=0}^{n} \sum_{k=0}^{N - 1} x_{k} \, x_{m}"
    )
    assert written_latex(x[n], jc.MaxOver(jc.pad(x[k - 1], value=-sp.oo), k)) == (
        r"x_{n} = \max_{0 \le k \le N - 1} \operatorname{pad}_{-\infty}\left(x_{k - 1}\right)"
    )


def test_a_delta_has_the_side_of_the_row_first() -> None:
    block = get("softmax").jacobian()
    rows = [str(one) for one in block.indices[:2]]
    assert formula_latex(block.expr, rows) == (
        r"y_{n,i} \, \delta_{n,m} \, \left(\delta_{i,j} - y_{n,j}\right)"
    )  # fmt: skip


def test_everything_in_the_library_compiles(tmp_path: Path) -> None:
    formulas = []
    for name in names():
        layer = get(name)
        formulas += [written_latex(e.left, e.right) for e in layer.spec.equations]
        formulas += [program_latex(layer.derivation.vjp)]
        formulas += [formula_latex(block.expr, map(str, block.indices)) for block in layer.jacobians().values()]
    check_compiles(formulas, tmp_path)

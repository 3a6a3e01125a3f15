"""Formulas as MathML: what the printers write is read, what they do not write is refused, and all of it is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any
from xml.etree import ElementTree

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

import jaccomp as jc
from jaccomp.card import Argument, Line
from jaccomp.gallery import symbols
from jaccomp.gallery.mathml import DEEPEST, UnreadLatex, mathml

# MathML Core's elements and the attributes of it that are used; `href`, `style` and handlers are not among them.
ELEMENTS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder",
    "mover", "munderover", "mmultiscripts", "mtable", "mtr", "mtd", "mstyle",
}  # fmt: skip
ATTRIBUTES = {
    "displaystyle", "stretchy", "fence", "form", "accent", "width", "mathvariant", "lspace", "rspace", "movablelimits",
    "class",
}  # fmt: skip


def fenced(inside: str) -> str:
    """Round brackets that need not grow."""
    marks = (f'<mo fence="true" form="{form}" stretchy="false">' for form in ("prefix", "postfix"))
    return f"<mrow>{next(marks)}(</mo>{inside}{next(marks)})</mo></mrow>"


def inner(latex: str) -> str:
    return mathml(latex).removeprefix('<math displaystyle="true">').removesuffix("</math>")


@pytest.mark.parametrize(
    ("latex", "spelled"),
    [
        ("x", "<mi>x</mi>"),
        ("12.5", "<mn>12.5</mn>"),
        ("x_{n}", "<msub><mi>x</mi><mi>n</mi></msub>"),
        ("x_n^2", "<msubsup><mi>x</mi><mi>n</mi><mn>2</mn></msubsup>"),
        ("x^{2}_{n}", "<msubsup><mi>x</mi><mi>n</mi><mn>2</mn></msubsup>"),
        ("x^23", "<mrow><msup><mi>x</mi><mn>2</mn></msup><mn>3</mn></mrow>"),
        (r"\frac{a}{b}", "<mfrac><mi>a</mi><mi>b</mi></mfrac>"),
        (r"\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
        (r"\sqrt{x}", "<msqrt><mi>x</mi></msqrt>"),
        (r"\sqrt[3]{x}", "<mroot><mi>x</mi><mn>3</mn></mroot>"),
        (r"\hat{x}", '<mover accent="true"><mi>x</mi><mo stretchy="false">ˆ</mo></mover>'),
        (r"\overline{x}", '<mover accent="true"><mi>x</mi><mo stretchy="true">¯</mo></mover>'),
        (r"\alpha \le \Omega", "<mrow><mi>α</mi><mo>≤</mo><mi>Ω</mi></mrow>"),
        (r"\mathrm{rstd}", "<mi>rstd</mi>"),
        (r"\mathrm{e}", '<mi mathvariant="normal">e</mi>'),
        (r"\mathrm{log\_p}", "<mi>log_p</mi>"),
        (r"\mathbf{1}", "<mn>𝟏</mn>"),
        (r"\mathbb{R}", '<mi mathvariant="normal">ℝ</mi>'),
        (r"\text{if } x", "<mrow><mtext>if\u00a0</mtext><mi>x</mi></mrow>"),
        (r"\text{a<b & c\&d}", "<mtext>a&lt;b &amp; c&amp;d</mtext>"),
        (
            r"\sum_{k=0}^{D-1} x_k",
            "<mrow><munderover><mo>∑</mo><mrow><mi>k</mi><mo>=</mo><mn>0</mn></mrow><mrow><mi>D</mi><mo>−</mo><mn>1</mn></mrow>"
            "</munderover><msub><mi>x</mi><mi>k</mi></msub></mrow>",
        ),
        (r"\left(x\right)", fenced("<mi>x</mi>")),
        (
            r"\left\lfloor \frac{a}{b} \right.",
            '<mrow><mo fence="true" form="prefix" stretchy="true">⌊</mo><mfrac><mi>a</mi><mi>b</mi></mfrac></mrow>',
        ),
        (
            r"\begin{cases} x & \text{if } x > 0 \\ 0 & \text{otherwise} \end{cases}",
            '<mrow><mo fence="true" form="prefix" stretchy="true">{</mo><mtable class="left"><mtr><mtd><mi>x</mi></mtd>'
            "<mtd><mrow><mtext>if\u00a0</mtext><mi>x</mi><mo>&gt;</mo><mn>0</mn></mrow></mtd></mtr><mtr><mtd><mn>0</mn>"
            "</mtd><mtd><mtext>otherwise</mtext></mtd></mtr></mtable></mrow>",
        ),
        (
            r"\tanh^{2}\left(x\right)",
            f"<mrow><msup><mi>tanh</mi><mn>2</mn></msup><mo>\u2061</mo>{fenced('<mi>x</mi>')}</mrow>",
        ),
        ("stride i", '<mrow><mi>stride</mi><mspace width="0.167em"></mspace><mi>i</mi></mrow>'),
        (
            r"{w_{\mathrm{ih}}{}}_{q,k}",
            '<mmultiscripts><mi>w</mi><mi>ih</mi><mrow></mrow><mrow><mspace width="0.167em"></mspace><mrow><mi>q</mi>'
            "<mo>,</mo><mi>k</mi></mrow></mrow><mrow></mrow></mmultiscripts>",
        ),
        ("x'", "<msup><mi>x</mi><mo>′</mo></msup>"),
    ],
)  # fmt: skip
def test_a_formula_is_spelled_in_mathml_core(latex: str, spelled: str) -> None:
    assert inner(latex) == spelled


def test_a_line_may_break_where_a_formula_has_wide_spaces_of_its_own() -> None:
    parts = (r"x = y", r"\left(a \quad b\right)", "z")
    whole = mathml(r"x = y,\quad \left(a \quad b\right),\ z \qquad")
    assert whole == " ".join([mathml(f"{parts[0]},"), mathml(f"{parts[1]},"), mathml(parts[2])])


@pytest.mark.parametrize(
    "latex",
    [
        r"\href{javascript:alert(1)}{x}", r"\style{color:red}{x}", r"\unicode{60}", r"\foo", "x_", "x_1_2", "{x", "x}",
        r"\left(x", r"x \right)", r"\left x", r"\begin{cases} x \end{matrix}", r"\begin{foo} x \end{foo}", "a & b",
        r"\frac{a}", r"\text{\input{x}}", r"\text{x", r"\mathrm{x", "$x$", "x # y", "\\",
        "{" * (DEEPEST + 1) + "}" * (DEEPEST + 1),
    ],
)  # fmt: skip
def test_what_the_printers_do_not_write_is_refused(latex: str) -> None:
    with pytest.raises(UnreadLatex):
        mathml(latex)


KNOWN = sorted(
    {*symbols.IDENTIFIERS, *symbols.OPERATORS, *symbols.DELIMITERS, *symbols.BIG, *symbols.LIMITS, *symbols.FUNCTIONS}
)
PIECES = [
    *KNOWN, *symbols.ACCENTS, *symbols.ALPHABETS, *symbols.SPACES, "{", "}", "_", "^", r"\frac", r"\left(", r"\right)",
    r"\text{", r"\mathrm{", r"\begin{cases}", r"\end{cases}", "&", r"\\", "<", ">", '"', "'",
    "<script>", "x", "rstd", "1", " ",
]  # fmt: skip


@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(max_size=30)))
def test_whatever_is_read_is_well_formed_and_holds_known_elements_alone(latex: str) -> None:
    try:
        text = mathml(latex)
    except UnreadLatex:
        return
    # XML cannot hold these characters, whoever escapes them; a page replaces them.
    legal = re.sub("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", "", text)
    root = ElementTree.fromstring(f"<math>{legal}</math>")
    for element in root.iter():
        assert element.tag in ELEMENTS and set(element.attrib) <= ATTRIBUTES


def test_each_row_of_the_tables_is_read() -> None:
    for name in KNOWN:
        ElementTree.fromstring(mathml(f"{name} x"))


def test_what_sympy_prints_for_the_library_is_read() -> None:
    for name in jc.layers.names():
        for equation in jc.layers.get(name).spec.equations:
            mathml(sympy.latex(sympy.Eq(equation.left, equation.right, evaluate=False)))


def lines(value: Any) -> Iterator[Line]:
    """Every formula of a card."""
    if isinstance(value, Line):
        yield value
    elif isinstance(value, Argument):
        yield Line(value.name, value.latex)
    elif is_dataclass(value):
        for one in fields(value):
            yield from lines(getattr(value, one.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from lines(each)


@pytest.mark.parametrize("name", ["softmax", "layernorm", "causal_attention", "conv2d", "maxpool2d", "rope"])
def test_every_formula_of_a_derived_card_is_read(name: str) -> None:
    found = list(lines(jc.layers.get(name).card()))
    assert len(found) > 20 and all(mathml(one.latex) for one in found)

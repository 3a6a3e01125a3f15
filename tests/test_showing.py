"""What a notebook is given to show: text, LaTeX and HTML of each class, complete; nothing of a user is markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from sympy import Eq, Sum, exp
from test_cards import REPORT, balanced, hostile

import jaccomp as jc
from jaccomp import display, layers
from jaccomp.showing import SHOWN

softmax = layers.get("softmax")
THINGS: dict[str, Any] = {
    "Tensor": softmax.spec.inputs[0],
    "Access": softmax.spec.inputs[0][jc.index("n", 3), 0],
    "WrittenEquation": softmax.spec.equations[0],
    "Program": softmax.derivation.vjp,
    "Layer": softmax,
    "Jacobian": softmax.jacobian(),
    "Report": REPORT,
}
HOLDS = {
    "Tensor": ("x[N, D]", r"x \in \mathbb{R}^{N \times D}"),
    "Access": ("x[n, 0]", "x_{n,0}"),
    "WrittenEquation": ("y[n, i] = exp(x[n, i])/Sum(", r"y_{n,i} = \frac{"),
    "Program": ("ct_x[n,i] = y[n,i] (ct_y[n,i] - r1[n])", r"\bar{x}_{n,i} = y_{n,i}"),
    "Layer": ("softmax(x[N, D]) -> y[N, D]\n    Softmax (Bridle, 1990).", r"y_{n,i} = \frac{"),
    "Jacobian": ("∂y[n,:]/∂x[n,:] = diag(y) - y yᵀ", r"= \operatorname{diag}\left(y\right) - y \, y^{\top}"),
    "Kernel": ("Kernel softmax: forward, vjp", r"\frac{\partial y_{n,i}}{\partial x_{m,j}} = "),
    "Report": ("1 of 3 failed", "1 of 3 failed"),
    "Card": ("Local Jacobians", r"\frac{\partial y_{n,i}}{\partial x_{m,j}} = "),
}


def thing(name: str) -> Any:
    if name == "Kernel":
        return jc.compile("softmax")
    return softmax.card() if name == "Card" else THINGS[name]


def shown(one: Any) -> dict[str, str]:
    """What IPython's own formatter makes of it."""
    data, metadata = DisplayFormatter().format(one)
    assert metadata == {}
    return data


class Page(HTMLParser):
    """The elements of a fragment, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        assert {name for name, _ in attributes} <= {"class", "scope"}
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


ELEMENTS = {"div", "p", "pre", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def test_every_class_that_is_shown_is_tested() -> None:
    assert set(HOLDS) == set(SHOWN)


@pytest.mark.parametrize("name", HOLDS)
def test_each_form_is_complete(name: str) -> None:
    data = shown(thing(name))
    text, latex = HOLDS[name]
    assert text in data[display.PLAIN] and latex in data[display.LATEX]
    page = parsed(data[display.HTML])
    assert latex in page.text and page.seen <= ELEMENTS


def test_each_formula_of_a_card_is_in_each_form() -> None:
    card = layers.get("rmsnorm").card()
    data = shown(card)
    page = parsed(data[display.HTML])
    for line in (*card.equations, *card.local, *card.chain, *card.vjp, *card.jvp, *(b.line for b in card.blocks)):
        assert line.text in data[display.PLAIN] and line.latex in data[display.LATEX] and line.latex in page.text
    assert all(part.code.splitlines()[0] in page.text for part in card.source)


def test_names_and_prose_are_no_markup() -> None:
    layer = hostile()
    for one in (layer, layer.program, layer.jacobian(), layer.card(checks=REPORT)):
        data = shown(one)
        page = parsed(data[display.HTML])
        assert page.seen <= ELEMENTS and "<img" not in data[display.HTML]
    latex = shown(layer)[display.LATEX]
    assert balanced(latex) and r"\input" not in latex and r"\textbackslash{}input\{secret\}" in latex
    said = next(line for line in shown(layer)[display.HTML].splitlines() if "secret" in line)
    assert "mathjax_ignore" in said and "tex2jax_ignore" in said, "dollars of a text are no mathematics"


def test_code_cannot_end_its_environment() -> None:
    latex, html = display.code("a\\end{verbatim}\\input{x}<b>")
    assert latex.count(r"\end{verbatim}") == 1 and "&lt;b&gt;" in html


def test_a_table_is_escaped_in_both_forms() -> None:
    latex, html = display.table(("a&b",), [("<i>",)])
    assert r"a\&b" in latex and r"\textless{}i\textgreater{}" in latex and "<td>&lt;i&gt;</td>" in html


def test_an_equation_of_sympy_is_shown_by_sympy_with_ranges() -> None:
    N, D = jc.size("N D")
    n, i, k = jc.index("n", N), jc.index("i", D), jc.index("k", D)
    x, y = jc.tensor("x y", N, D)
    data = shown(Eq(y[n, i], exp(x[n, i]) / Sum(exp(x[n, k]), k)))
    assert r"\sum_{k=0}^{D - 1}" in data[display.LATEX] and "{y}_{n,i}" in data[display.LATEX]


def test_what_is_shown_of_a_kernel_imports_no_sympy(tmp_path: Any) -> None:
    import subprocess
    import sys

    jc.compile("relu")
    code = (
        "import sys, jaccomp as jc; bundle = jc.load('relu')._repr_mimebundle_(); "
        "sys.exit('sympy' in sys.modules or 'text/html' not in bundle)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

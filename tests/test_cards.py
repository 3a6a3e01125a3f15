"""Derivation cards: what they say of every layer of the library, in every format."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import CARDS, compare, path
from library_formulas import CASES
from sympy import Eq, Sum, cos, exp, sin
from test_jacobian import dense, within
from written_jacobian import evaluated

import jaccomp as jc
from jaccomp import layers
from jaccomp.algebra.counts import flops
from jaccomp.card import FORMATS, Card, Line
from jaccomp.cards.document import sections
from jaccomp.cards.json import SCHEMA, record
from jaccomp.cards.latex import document
from jaccomp.cards.paths import _edges, _paths, local_jacobians
from jaccomp.errors import UsageError
from jaccomp.reference.report import Report, Row

SPECIAL = r"100% of \input{secret} & $x$ _a_ *b* <img src=x onerror=alert(1)> `c` [d](e) #f ~g^h | é ß ∑ 漢"


@cache
def card(name: str) -> Card:
    return layers.get(name).card()


def hostile() -> jc.Layer:
    """Names that LaTeX, Markdown and HTML give a meaning to, as far as Python lets them be names."""
    N, D = jc.size("N_", axes="any"), jc.size("Größe")
    n, i, k = jc.index("n_1", N), jc.index("ι", D), jc.index("k__", D)
    x, y = jc.tensor("x_hat_", N, D), jc.tensor("ÿ", N, D)
    return jc.Layer("größte_", inputs=[x], outputs=[y], doc=SPECIAL, equations=[
        Eq(y[n, i], exp(x[n, i]) / Sum(exp(x[n, k]), k))])  # fmt: skip


# What a card says


@pytest.mark.parametrize("name", CASES)
def test_a_card_is_whole(name: str) -> None:
    one = card(name)
    layer = layers.get(name)
    assert one.family == layers.family(name) and one.doc == layer.doc and len(one.spec_hash) == 64
    assert [a.name for a in one.arguments if a.role == "input"] == [t.name for t in layer.spec.inputs]
    assert len(one.equations) == len(layer.spec.equations)
    assert len(one.intermediates) == len(layer.prepared.equations)
    assert [(b.of, b.wrt, b.structure) for b in one.blocks] == [
        (*key, block.structure) for key, block in layer.jacobians().items()
    ]
    assert all(b.rank and b.storage and b.work for b in one.blocks)
    assert [c.function for c in one.costs] == ["forward", "vjp", "jvp"]
    assert one.local and one.chain and one.vjp and one.jvp and one.rules and one.residuals is not None
    assert one.checks is None
    whole = [line for line in _lines(one) if not line.text or not line.latex]
    assert whole == []
    assert "_largest" not in str(one) and "nan" not in one.as_("json")


def _lines(value: Any) -> list[Line]:
    if isinstance(value, Line):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, one.name) for one in dataclasses.fields(value)]
    return [line for one in value for line in _lines(one)] if isinstance(value, tuple | list) else []


@pytest.mark.parametrize("name", CASES)
def test_every_nest_is_tied_to_its_equations(name: str) -> None:
    parts = card(name).source
    assert {part.function for part in parts} >= {"forward", "bwd", "jvp"}
    for part in parts:
        assert re.search(rf"cdef int {part.function}_nest\d+_block_f32\(", part.code)
        comments = re.findall(r"^\s*# (.+)$", part.code, re.MULTILINE)
        assert set(comments) <= set(part.equations), "a comment of the code is one of its equations"
        assert part.equations or "[0] = 0" in part.code


@pytest.mark.parametrize(
    "name", ["softmax", "layernorm", "attention", "lstm_cell", "cross_entropy", "maxpool2d", "conv1d"]
)
def test_local_jacobians_along_the_chain_make_the_whole(name: str) -> None:
    """Each local formula as it is printed, in numbers; products of them along each path; their sum."""
    point, blocks = dense(name)
    program = layers.get(name).prepared
    values = point.inputs | point.evaluate(program, point.inputs)
    label = program.labels.name
    constants = {label(key): value for key, value in (point.sizes | point.scalars).items()}
    local = {}
    for pair, one in local_jacobians(program).items():
        inside = one.program
        zeros = {s: np.zeros(point.shape(s, inside)) for s in inside.inputs if s not in values}
        known = {n: values[n] for n in inside.inputs if n in values} | zeros
        found = known | point.evaluate(inside, known)
        arrays = {label(key): np.asarray(value) for key, value in found.items()}
        entries = evaluated(one, constants, arrays)
        local[pair] = np.reshape(entries, (np.size(values[pair[0]]), np.size(values[pair[1]])))
    for (of, wrt), expected in blocks.items():
        total = np.zeros(expected.reshape(np.size(values[of]), -1).shape)
        for steps in _paths(_edges(program), of, wrt):
            product = np.eye(np.size(values[of]))
            for pair in pairwise(steps):
                product = product @ local[pair]
            total += product
        within(total, expected)


def test_a_long_chain_goes_step_by_step() -> None:
    """Four pairs of quantities, each of which reads both of the pair before: sixteen paths and more."""
    N = jc.size("N")
    n = jc.index("n", N)
    x, y = jc.tensor("x y", N)
    pairs = [jc.tensor(f"a{k} b{k}", N) for k in range(4)]
    equations = [Eq(pairs[0][0][n], sin(x[n])), Eq(pairs[0][1][n], cos(x[n]))]
    for (a, b), (c, d) in pairwise(pairs):
        equations += [Eq(c[n], sin(a[n] * b[n])), Eq(d[n], cos(a[n] * b[n]))]
    equations.append(Eq(y[n], pairs[-1][0][n] * pairs[-1][1][n]))
    lines = [line.text for line in jc.Layer("long", inputs=[x], outputs=[y], equations=equations).card().chain]
    assert lines[0] == "dy/dx = ∂y/∂a3 · da3/dx + ∂y/∂b3 · db3/dx"
    assert lines[-2:] == ["da0/dx = ∂a0/∂x", "db0/dx = ∂b0/∂x"] and len(lines) == 9


def test_costs_are_those_of_the_programs_that_run() -> None:
    from jaccomp import pipeline

    halves = pipeline.halves(layers.get("layernorm").derivation)
    forward, backward, _ = card("layernorm").costs
    assert (forward.flops.text, forward.bytes.text) == ("4 N + 8 N D", "8 D + 8 N D")
    assert flops(halves.forward).exact and backward.flops.latex == r"2 N + 15 N \, D"
    assert card("conv2d").costs[0].flops.text.startswith("≤ ") and card("conv2d").costs[0].flops.latex.startswith(
        r"\le "
    )


def test_residuals_say_why_they_are_kept_or_not() -> None:
    rows = {one.name: one for one in card("rmsnorm").residuals}
    assert rows["x"].kept and rows["x"].why.startswith("an input")
    assert rows["rstd"].kept and rows["rstd"].shape == "[N]" and "quarter" in rows["rstd"].why
    assert not rows["xhat"].kept and rows["xhat"].why.startswith("elementwise")
    assert card("gelu").residuals[0].name == "slope0" and "costly slope" in card("gelu").residuals[0].why
    scores = {one.name: one for one in card("causal_attention").residuals}
    assert not scores["s"].kept and "grows faster" in scores["s"].why
    assert scores["o"].why.startswith("an output")


DOMAIN = {
    "relu": [("not differentiable", "x[n] = 0")],
    "squared_relu": [],
    "softsign": [],
    "celu": [("undefined", "alpha = 0")],
    "elu": [("not differentiable", "x[n] = 0")],
    "huber": [("not differentiable", "d[n] = 0")],
    "log_cosh": [],
    "rmsnorm": [("undefined", "eps + ms[n] ≤ 0")],
    "l2_normalize": [("not differentiable", "u0[n] = 0"), ("undefined", "norm[n] = 0")],
    "softmax": [("stabilised", "x[n,i] > 88.7")],
    "logsumexp": [("stabilised", "x[n,k] > 88.7")],
    "bce_with_logits": [("stabilised", "x[n] > 88.7")],
    "poisson_nll": [("overflow", "x[n] > 88.7")],
    "gaussian_nll": [("undefined", "2 π variance[n] ≤ 0"), ("undefined", "variance[n] = 0")],
    "max_pool": [("not differentiable", "ties in y[n,d] = max_t x[n,t,d]")],
    "linear": [],
}


@pytest.mark.parametrize("name", DOMAIN)
def test_the_domain_is_read_off_the_program(name: str) -> None:
    assert [(note.what, note.where.text) for note in card(name).domain] == DOMAIN[name]


def test_a_limit_says_what_rules_it_out_and_what_stands_in() -> None:
    assert card("rmsnorm").domain[0].why.endswith("; never where eps > 0")
    assert "the result is 0 there, by convention" in card("l2_normalize").domain[1].why
    assert "float64 beyond 709.7" in card("softmax").domain[0].why


def test_blocks_are_written_as_matrices_in_the_layout_that_is_asked_for() -> None:
    linear = layers.get("linear")
    turned = linear.card(layout="denominator")
    (block,) = (b for b in turned.blocks if b.wrt == "x")
    assert block.layout == "denominator" and block.matrix is not None and " = Wᵀ, where" in block.matrix.text
    assert r"W^{\top}" in block.matrix.latex and "; denominator layout." in str(turned)
    (one,) = card("softmax").blocks
    assert one.matrix is not None and " = diag(y) - y yᵀ, where" in one.matrix.text
    (windows, *_) = card("maxpool2d").blocks
    assert windows.matrix is None and " layout." not in str(card("maxpool2d"))
    with pytest.raises(UsageError, match="layout 'row': there is none of that name"):
        linear.card(layout="row")  # type: ignore[arg-type]


def test_a_derived_layer_has_a_card() -> None:
    one = layers.get("rmsnorm").vjp().card()
    assert one.equations == layers_lines(one) and one.family == ""
    assert [b.of for b in one.blocks if b.wrt == "x"] == ["ct_x", "ct_g"]


def layers_lines(one: Card) -> tuple[Line, ...]:
    from jaccomp.cards.formulas import equation_line

    program = layers.get("rmsnorm").vjp().program
    return tuple(equation_line(program, equation) for equation in program.equations)


# Checks


REPORT = Report(
    (
        Row("tiny", "float32", "forward", "written", "N=1", 1e-7, 1e-6, True),
        Row("tiny", "float32", "forward", "written", "N=2", 5e-7, 1e-6, True),
        Row("tiny", "float64", "vjp", "complex step", "N=1", float("nan"), 1e-14, False),
    )
)


def test_checks_are_recorded_with_date_and_versions() -> None:
    east = timezone(timedelta(hours=2))
    one = layers.get("relu").card(checks=REPORT, clock=lambda: datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=east))
    checks = one.checks
    assert checks is not None and checks.date == "2030-01-02T01:04:05+00:00"
    assert dict(checks.versions)["numpy"] == np.__version__ and checks.versions[0][0] == "python"
    assert (checks.cases, checks.passed, checks.worst) == (3, False, float("inf"))
    assert [(row.sizes, row.passed) for row in checks.rows] == [("N=2", True), ("N=1", False)]
    assert "FAILED on 2030-01-02T01:04:05+00:00: 3 cases" in str(one)
    assert json.loads(one.as_("json"))["checks"]["worst"] == "inf"


def test_checks_run_when_a_card_is_asked_to() -> None:
    asked = []

    def check(layer: jc.Layer) -> Report:
        asked.append(layer.name)
        return Report(REPORT.rows[:1])

    checks = layers.get("relu").card(checks=check, clock=lambda: datetime(2030, 1, 2, tzinfo=UTC)).checks
    assert asked == ["relu"] and checks is not None and checks.passed and checks.worst == pytest.approx(0.1)
    assert layers.get("relu").card(checks=False).checks is None


def test_a_way_to_check_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"card of 'relu': checks is True.\s+Pass checks=jc.check, or a report"):
        layers.get("relu").card(checks=True)  # type: ignore[arg-type]


# Formats


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"card of 'relu' as 'pdf': there is no such format.\s+Choose from text, "):
        card("relu").as_("pdf")


@pytest.mark.parametrize("name", CASES)
def test_json_has_the_fields_of_a_card_in_their_order(name: str) -> None:
    one = card(name)
    text = one.as_("json")
    found = json.loads(text)
    assert list(found) == ["schema", *(field.name for field in dataclasses.fields(Card))]
    assert found == record(one) and found["schema"] == SCHEMA == 1
    assert json.dumps(found, indent=1, ensure_ascii=False) + "\n" == text


def test_a_change_of_formula_is_one_line_of_a_diff() -> None:
    one = card("rmsnorm")
    line = dataclasses.replace(one.vjp[0], text=one.vjp[0].text.replace("/ D", "/ D²"))
    other = dataclasses.replace(one, vjp=(line, *one.vjp[1:]))
    pairs = zip(one.as_("json").splitlines(), other.as_("json").splitlines(), strict=True)
    assert sum(a != b for a, b in pairs) == 1


def test_a_card_is_the_same_in_every_process() -> None:
    code = "import sys, jaccomp as jc; sys.stdout.write(jc.layers.attention.card().as_('json'))"
    texts = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env, encoding="utf-8")
        texts.add(done.stdout)
    assert texts == {card("attention").as_("json")}


@pytest.mark.parametrize("name", CASES)
def test_text_and_markdown_hold_every_section(name: str) -> None:
    one = card(name)
    titles = [section.title for section in sections(one)]
    text, markdown = str(one), one.as_("markdown")
    assert text == one.as_("text") and [t for t in titles if f"\n{t}\n" not in text] == []
    assert re.findall(r"^## (.+)$", markdown, re.MULTILINE) == titles
    assert [line.text for line in one.vjp if f"    {line.text}\n" not in text] == []
    assert [line.latex for line in one.vjp if f"```math\n{line.latex}\n```" not in markdown] == []
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("name", CARDS)
def test_a_card_as_it_is_read(name: str, update_goldens: bool) -> None:
    """But for its code, which has tests of its own."""
    one = dataclasses.replace(card(name), source=(), version="", spec_hash="")
    compare(path(name, "card"), str(one), update_goldens)


def test_text_holds_nothing_that_a_terminal_obeys() -> None:
    one = dataclasses.replace(card("relu"), doc="a\x1b]0;title\x07b\n\x9bc")
    assert "\x1b" not in str(one) and "    a\ufffd]0;title\ufffdb\n    \ufffdc\n" in str(one)


def test_markdown_escapes_prose_and_fences_code() -> None:
    one = hostile().card()
    text = one.as_("markdown")
    assert "<img" not in _outside_code(text) and r"\<img src=x onerror=alert\(1\)\>" in text
    assert "[d](e)" not in _outside_code(text) and text.startswith("# größte\\_\n")
    longer = dataclasses.replace(one, signature="a ``` b")
    assert "````text\na ``` b\n````" in longer.as_("markdown")
    bar = dataclasses.replace(one.domain[0], where=Line("|x| = 0", r"\left|x\right| = 0"))
    row = next(r for r in dataclasses.replace(one, domain=(bar,)).as_("markdown").splitlines() if "vert x" in r)
    assert row.count("|") == 4, "a bar of a formula ends no cell"


def _outside_code(markdown: str) -> str:
    return (
        re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.MULTILINE | re.DOTALL).replace("\\<", "").replace("\\[", "")
    )


# LaTeX


ENVIRONMENT = re.compile(r"\\(begin|end)\{(\w+\*?)\}")


def balanced(text: str) -> bool:
    """Do braces and environments close in the order in which they open?"""
    open_: list[str] = []
    for match in re.finditer(r"\\(?:begin|end)\{\w+\*?\}|\\.|[{}]|\\\[|\\\]", text, re.DOTALL):
        token = match[0]
        environment = ENVIRONMENT.fullmatch(token)
        if token == "{":
            open_.append("}")
        elif environment is not None and environment[1] == "begin":
            open_.append(environment[2])
        elif (token == "}" or environment is not None) and (
            not open_ or open_.pop() != (token if environment is None else environment[2])
        ):
            return False
    return not open_


@pytest.mark.parametrize("name", CASES)
def test_latex_is_balanced_and_ascii(name: str) -> None:
    text = card(name).as_("latex")
    assert balanced(text) and text.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("family", layers.families())
def test_latex_compiles(family: str, tmp_path: Path) -> None:
    names = layers.FAMILIES[family]
    check_compiles(document([card(name) for name in names]), tmp_path)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_of_hostile_names_and_prose_compiles(tmp_path: Path) -> None:
    one = hostile().card(checks=REPORT)
    every = "".join(map(chr, range(32, 0x250))) + "Σ∂≤√⌊½²ᵀ漢\N{GRINNING FACE}"
    check_compiles(dataclasses.replace(one, signature=every, doc=SPECIAL + every).as_("latex"), tmp_path)


def check_compiles(text: str, folder: Path) -> None:
    (folder / "card.tex").write_text(text, encoding="ascii")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "card.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, log[-3000:]
    assert "Missing character" not in log, log


def test_latex_prose_can_be_no_command() -> None:
    text = hostile().card().as_("latex")
    assert r"\input" not in text and r"\textbackslash{}input\{secret\}" in text and r"100\% of" in text


def test_every_format_is_there() -> None:
    assert set(FORMATS) >= {"text", "markdown", "latex", "json"}
    assert all(card("relu").as_(one) for one in FORMATS)

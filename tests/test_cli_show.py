"""`jaccomp show`: whole cards in each format, paging, colour; tests/test_cli.py has the short page and stages."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Run

import jaccomp.layers
from jaccomp.card import FORMATS as CARD_FORMATS
from jaccomp.cli import console, main
from jaccomp.cli.show import FORMATS, LAYOUTS
from jaccomp.reference.report import Report, Row


@pytest.mark.parametrize("format", FORMATS)
def test_show_prints_the_whole_card_in_a_format(format: str, run: Run) -> None:
    code, out, err = run("show", "rmsnorm", "--format", format)
    assert (code, err) == (0, "") and out == jaccomp.layers.get("rmsnorm").card().as_(format).rstrip("\n") + "\n"


def test_show_of_a_card_is_text_unless_a_format_is_given(run: Run) -> None:
    card = run("show", "rmsnorm", "--card")[1]
    assert card == run("show", "rmsnorm", "--format", "text")[1] and "\nLocal Jacobians\n" in card
    assert "\nLocal Jacobians\n" not in run("show", "rmsnorm")[1], "the short page is what show prints by itself"


def test_show_of_several_cards(run: Run, specs: Path) -> None:
    found = json.loads(run("show", "relu", f"{specs}:square", "--format", "json")[1])
    assert [card["name"] for card in found] == ["relu", "square"]
    document = run("show", "relu", f"{specs}:square", "--format", "latex")[1]
    assert document.count(r"\begin{document}") == 1 and document.count(r"\section*{") == 2
    assert run("show", "relu", f"{specs}:square", "--format", "markdown")[1].count("\n# ") == 1


def test_show_of_a_card_has_the_chosen_blocks(run: Run) -> None:
    blocks = json.loads(run("show", "layernorm", "--format", "json", "--wrt", "bias")[1])["blocks"]
    assert [(block["of"], block["wrt"]) for block in blocks] == [("y", "bias")]
    assert run("show", "layernorm", "--card", "--wrt", "w")[0] == 2


def test_show_records_checks_where_it_is_asked_to(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("relu", "float32", "forward", "written", "N=1", 1e-7, 1e-6, True)
    monkeypatch.setattr("jaccomp.checking.check", lambda layer: Report((row,)))
    found = json.loads(run("show", "relu", "--format", "json", "--check")[1])["checks"]
    assert found["passed"] is True and found["cases"] == 1 and found["date"].endswith("+00:00")
    assert json.loads(run("show", "relu", "--format", "json")[1])["checks"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--card", "--stage", "vjp"), "--stage is no part of a card, which is printed whole"),
        (("--format", "latex", "--trace"), "--trace is no part of a card"),
        (("--card", "--json"), "Use --format json."),
        (("--open", "--format", "latex"), "--open shows HTML, not latex.\n  Leave out --format."),
        (("relu6", "--format", "html"), "2 layers make 2 pages of HTML.\n  Name one, or use jaccomp gallery."),
        (("--check",), "--check records checks in a card, and none is asked for.\n  Add --card or --format."),
    ],
)
def test_options_of_show_that_do_not_go_together(words: tuple[str, ...], said: str, run: Run) -> None:
    code, out, err = run("show", "relu", *words)
    assert (code, out) == (2, "") and said in err


def test_the_layout_of_matrices_is_chosen(run: Run) -> None:
    shapes = {}
    for layout in LAYOUTS:
        card = json.loads(run("show", "linear", "--format", "json", "--wrt", "x", "--layout", layout)[1])
        (block,) = card["blocks"]
        assert block["layout"] == layout
        shapes[layout] = block["matrix"]["text"]
    assert " = W" in shapes["numerator"] and " = Wᵀ" in shapes["denominator"]
    assert json.loads(run("show", "linear", "--format", "json")[1])["blocks"][0]["layout"] == "numerator"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_card_opens_in_the_browser_from_a_private_file(
    is_there: bool, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []

    def browser(url: str) -> bool:
        opened.append(url)
        return is_there

    monkeypatch.setattr("webbrowser.open", browser)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run("show", "relu", "--open")
    (path,) = tmp_path.glob("jaccomp-*/relu.html")
    assert (code, out) == (0, "") and opened == [path.as_uri()]
    assert err == (f"opened {path}\n" if is_there else f"{path}\n")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.read_text(encoding="utf-8") == jaccomp.layers.get("relu").card().as_("html")


def test_the_formats_are_those_of_a_card() -> None:
    assert set(FORMATS) == set(CARD_FORMATS)


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


MakeTerminal = Callable[[], Terminal]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes stdout a terminal of ten lines, from its call on."""

    def made() -> Terminal:
        found = Terminal()
        monkeypatch.setattr(sys, "stdout", found)
        monkeypatch.setenv("LINES", "10")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return found

    return made


def pager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A $PAGER that writes what it reads to a file."""
    path = tmp_path / "paged"
    monkeypatch.setenv("PAGER", f"tee '{path}'")
    return path


LONG = "\n".join(f"line {k} Σ" for k in range(30))


def test_long_output_is_paged_on_a_terminal(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paged, screen = pager(monkeypatch, tmp_path), terminal()
    console.page(LONG)
    assert paged.read_text(encoding="utf-8") == LONG + "\n" and screen.getvalue() == ""


def test_what_fits_a_terminal_is_not_paged(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paged, screen = pager(monkeypatch, tmp_path), terminal()
    console.page("short")
    assert not paged.exists() and screen.getvalue() == "short\n"


def test_nothing_is_paged_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paged = pager(monkeypatch, tmp_path)
    console.page(LONG)
    assert not paged.exists() and capsys.readouterr().out == LONG + "\n"


@pytest.mark.parametrize("command", ["", "no-such-pager --at-all", "'never closed"])
def test_a_pager_that_cannot_be_run_is_done_without(
    command: str, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", command)
    screen = terminal()
    console.page(LONG)
    assert screen.getvalue() == LONG + "\n"


def test_no_shell_reads_the_pager(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAGER", f"cat; touch {tmp_path}/shell")
    screen = terminal()
    console.page(LONG)
    assert not (tmp_path / "shell").exists() and screen.getvalue() == LONG + "\n"


def test_a_card_is_in_colour_on_a_terminal(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "")
    screen = terminal()
    assert main(["show", "relu", "--card"]) == 0
    coloured = screen.getvalue()
    assert "\x1b[1mLocal Jacobians\x1b[0m" in coloured and "\x1b[31m  - ct_" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    screen.truncate(0)
    assert main(["show", "relu", "--card"]) == 0
    assert "\x1b" not in screen.getvalue()

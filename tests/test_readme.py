"""The README's examples are run, and what it shows is what they print."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from jaccomp.cli import COMMANDS, main
from jaccomp.reference.ladder import TOLERANCE

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str


def blocks() -> list[Block]:
    return [Block(*match.groups()) for match in BLOCK.finditer(README.read_text(encoding="utf-8"))]


def show(old: str, new: str) -> None:
    """Replace one block's text in the README."""
    text = README.read_text(encoding="utf-8")
    assert text.count(old) == 1
    README.write_text(text.replace(old, new), encoding="utf-8")


def compare(shown: str, block: str, printed: str, whole: str, update: bool) -> None:
    if update and shown != printed:
        show(block, whole)
        shown = printed
    assert shown == printed, "pytest tests/test_readme.py --update-goldens writes what is printed now"


def test_commands_print_what_is_shown(update_goldens: bool, capsys: pytest.CaptureFixture[str]) -> None:
    consoles = [block for block in blocks() if block.language == "console"]
    assert consoles
    for block in consoles:
        command, shown = block.text.split("\n", 1)
        program, *words = shlex.split(command.removeprefix("$ "))
        assert program == "jaccomp" and main(words) == 0
        printed = capsys.readouterr().out
        compare(shown, f"```console\n{block.text}```", printed, f"```console\n{command}\n{printed}```", update_goldens)


def test_programs_print_what_is_shown(update_goldens: bool, tmp_path: Path) -> None:
    found = blocks()
    programs = [pair for pair in itertools.pairwise(found) if pair[0].language == "python"]
    assert programs
    for program, after in programs:
        assert after.language == "text", "a program is followed by what it prints"
        script = tmp_path / "program.py"
        script.write_text(program.text, encoding="utf-8")
        run = subprocess.run(
            [sys.executable, "-W", "error", "-X", "utf8", str(script)],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert run.returncode == 0, run.stderr
        before = f"{program.text}```\n\n```text\n"
        compare(after.text, f"{before}{after.text}", run.stdout, f"{before}{run.stdout}", update_goldens)


def test_the_first_example_is_short() -> None:
    program = next(block.text for block in blocks() if block.language == "python")
    assert sum(bool(line.strip()) for line in program.split("\n")) <= 16


def test_every_command_is_told_of() -> None:
    shell = "\n".join(block.text for block in blocks() if block.language == "sh")
    assert [name for name in COMMANDS if not re.search(rf"^jaccomp {name}\b", shell, re.MULTILINE)] == []


def test_the_targets_are_in_the_makefile() -> None:
    shell = "\n".join(block.text for block in blocks() if block.language == "sh")
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", shell, re.MULTILINE)
    assert targets == ["demo", "test"]
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_published_tolerance_is_the_one_in_force() -> None:
    assert f"`c` = {TOLERANCE:g}," in README.read_text(encoding="utf-8")


def test_files_that_are_linked_are_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (README.parent / link).exists()] == []

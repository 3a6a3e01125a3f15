"""Where a layer is named: the library, spec files, and what is said of those that cannot be served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import SPECS, Run

from jaccomp.cli import target
from jaccomp.errors import UsageError


def test_all_of_a_module_says_which_layers_are_its_own(run: Run, specs: Path) -> None:
    specs.write_text(SPECS + "__all__ = ['relu', 'square', 'FACTOR']\n")
    assert [row["name"] for row in json.loads(run("list", specs, "--json")[1])["layers"]] == ["relu", "square"]
    code, out, _ = run("list", f"{specs}:double")
    assert code == 0 and out.split()[0] == "double", "a layer may be named although it is not public"


def test_a_layer_is_named_by_its_variable_or_its_name(specs: Path) -> None:
    assert [one.name for one in target.targets([f"{specs}:again"])] == ["double"]
    assert [one.name for one in target.targets([f"{specs}:square", str(specs), "softmax", "softmax"])] == [
        "square", "double", "softmax",
    ]  # fmt: skip
    assert target.only(f"{specs}:square").name == "square"


def test_an_edited_spec_file_is_read_again_and_leaves_no_bytecode(specs: Path) -> None:
    assert target.only(f"{specs}:square").load().doc == "The square."
    specs.write_text(SPECS.replace("The square.", "The Square!"))
    assert target.only(f"{specs}:square").load().doc == "The Square!"
    assert [path.name for path in specs.parent.iterdir() if "specs" in path.name and path != specs] == []


REFUSED: dict[str, tuple[str, str, str]] = {
    "nothing in it": ("x = 1\n", "", "there is no layer in it.\n  Bind one to a module-level name"),
    "only the library's": ("from jaccomp.layers import relu\n", "", "there is no layer in it"),
    "no such name": (SPECS, ":sqare", "has no layer 'sqare'.\n  Did you mean square?"),
    "no such name at all": (SPECS, ":zzz", "has no layer 'zzz'.\n  It has relu, double, again, square."),
    "an error": (SPECS + "half = 1 / 0\n", "", "line 14: ZeroDivisionError: division by zero\n  half = 1 / 0"),
    "a syntax error": ("x = (\n", "", "line 1: SyntaxError: '(' was never closed.\n  x = ("),
    "an import that is not there": ("import nothing_like_it\n", "", "line 1: ModuleNotFoundError"),
    "an end": ("import sys\nsys.exit()\n", "", "line 2: it ends the program.\n  sys.exit()"),
    "a layer that is none": (
        SPECS + 'jc.Layer("bad", inputs=[x, jc.tensor("z", N)], outputs=[y], equations=[Eq(y[n], x[n])])\n', "",
        "line 14: layer 'bad': input 'z' is never read",
    ),
    "a wrong __all__": ("__all__ = ['mine']\n", "", "__all__ names 'mine', which the file does not define"),
    "an __all__ that is text": ("__all__ = 'mine'\n", "", "__all__ is 'mine'.\n  It should be a list of names"),
    "two of a name": (
        SPECS + 'other = jc.Layer("double", inputs=[x], outputs=[y], equations=[Eq(y[n], 3 * x[n])])\n', "",
        "double and other are both layers named 'double'",
    ),
    "null bytes": ("x = 1\0\n", "", "source code string cannot contain null bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_spec_file_that_cannot_be_served_is_located(case: str, run: Run, specs: Path) -> None:
    text, suffix, said = REFUSED[case]
    specs.write_text(text)
    code, out, err = run("list", f"{specs}{suffix}")
    assert (code, out) == (2, "")
    assert f"jaccomp: {specs}" in err and said in err and "Traceback" not in err


def test_files_that_are_not_there_or_not_files(run: Run, specs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = specs.with_name("spec.py")
    assert f"{missing}: there is no such file.\n  Did you mean {specs}?" in run("show", missing)[2]
    specs.with_name("folder.py").mkdir()
    assert "it is a folder." in run("show", specs.with_name("folder.py"))[2]
    monkeypatch.chdir(specs.parent)
    assert "Did you mean the spec file specs.py?" in run("show", "specs")[2]
    assert run("show", "specs.py:double")[0] == 0


def test_a_file_that_cannot_be_decoded(run: Run, specs: Path) -> None:
    specs.write_bytes(b"x = '\xff'\n")
    code, _, err = run("list", specs)
    assert code == 2 and str(specs) in err and "Traceback" not in err


def test_two_layers_of_one_name_cannot_share_a_command(run: Run, specs: Path) -> None:
    specs.write_text(SPECS.replace('"double"', '"softmax"'))
    code, _, err = run("build", "softmax", specs, "-o", specs.parent / "out", "--source")
    assert code == 2 and "layer 'softmax': library and" in err
    with pytest.raises(UsageError, match="it has 2 layers: softmax, square"):
        target.only(str(specs))


def test_a_name_that_the_library_lacks(run: Run) -> None:
    code, out, err = run("show", "sofmax")
    assert (code, out) == (2, "")
    assert err == (
        "jaccomp: layer 'sofmax': the library has no layer of that name.\n"
        "  Did you mean softmax or log_softmax or softmin?\n"
    )

"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import SPECS, Run
from sympy import latex

import jaccomp.layers
from jaccomp.build import Finding, environment
from jaccomp.calculus.conventions import MATTERS
from jaccomp.calculus.scalar import CONVENTIONS
from jaccomp.cli import COMMANDS, console, exit_code, main
from jaccomp.errors import BuildError, DerivativeError, JaccompError, SpecError, StageError, UsageError
from jaccomp.reference.report import Report, Row


def process(*words: object, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *(("-c", code) if code else ("-m", "jaccomp", *map(str, words)))]
    env = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, env=env)


# list


def test_list_names_each_layer_of_the_library(run: Run) -> None:
    code, out, _ = run("list", "--json")
    rows = json.loads(out)["layers"]
    assert code == 0
    assert [row["name"] for row in rows] == list(jaccomp.layers.names())
    assert all(
        row == {"name": row["name"], "family": jaccomp.layers.family(row["name"]), "source": "library"} for row in rows
    )
    assert [line.split()[0] for line in run("list")[1].splitlines()] == [row["name"] for row in rows]


def test_list_of_a_spec_file(run: Run, specs: Path) -> None:
    code, out, err = run("list", specs, "--json")
    assert code == 0 and "may speak" in err
    assert json.loads(out)["layers"] == [
        {"name": name, "family": "specs", "source": str(specs)} for name in ("double", "square")
    ]


def test_list_imports_no_sympy() -> None:
    code = "import sys; from jaccomp.cli import main; main(['list']); sys.exit('sympy' in sys.modules)"
    assert process(code=code).returncode == 0


# show


def test_show_prints_blocks_and_vjp_as_the_textbook_does(run: Run) -> None:
    code, out, _ = run("show", "layernorm")
    assert code == 0
    for line in (
        "layernorm(x[N, D], g[D], bias[D], *, eps=1e-05) -> y[N, D]",
        "    xhat[n,i] = rstd[n] (x[n,i] - mean[n])",
        "    ∂y[n,i]/∂x[m,j] = g[i] rstd[n] δ(n,m) (δ(i,j) - (1 + xhat[n,i] xhat[n,j])/D)",
        "    a0[n] = Σ_k g[k] ct_y[n,k] / D",
        "    a1[n] = Σ_k g[k] ct_y[n,k] xhat[n,k] / D",
        "    ct_x[n,i] = rstd[n] (g[i] ct_y[n,i] - a0[n] - a1[n] xhat[n,i])",
        "    ct_g[i] = Σ_n ct_y[n,i] xhat[n,i]",
        "    ct_bias[i] = Σ_n ct_y[n,i]",
    ):
        assert line in out


def test_show_of_one_block(run: Run) -> None:
    _, out, _ = run("show", "layernorm", "--stage", "jacobian", "--wrt", "bias")
    block = jaccomp.layers.get("layernorm").jacobian(of="y", wrt="bias")
    assert out == f"{block}    ({block.structure})\n"
    code, _, err = run("show", "layernorm", "--of", "z")
    assert code == 2 and err == "jaccomp: --of z: layernorm has y.\n  Name one of them.\n"
    assert run("show", "layernorm", "--stage", "vjp", "--of", "y")[0] == 2


STAGE_HOLDS = {
    "spec": "y[n, i] = exp(x[n, i])/Sum(exp(x[n, k]), (k, 0, D - 1))",
    "program": "y[n,i] = exp(x[n,i])/u0[n]",
    "jacobian": "∂y[n,i]/∂x[m,j] = y[n,i] ",
    "vjp": "Σ_i ct_y[n,i] y[n,i]",
    "jvp": "t_y[n,",
    "stabilise": "max_",
    "kernel": "parallel",
    "source": "cdef int forward_f32(",
}


@pytest.mark.parametrize("stage", STAGE_HOLDS)
def test_show_of_one_stage(stage: str, run: Run) -> None:
    code, out, _ = run("show", "softmax", "--stage", stage)
    assert code == 0 and STAGE_HOLDS[stage] in out


def test_the_trace_lists_rules_before_and_after(run: Run) -> None:
    _, out, _ = run("show", "softmax", "--stage", "vjp", "--trace")
    assert "\neliminate-delta\n  - ct_" in out and "\n  + ct_" in out
    steps = json.loads(run("show", "softmax", "--trace", "--json")[1])["layers"][0]["trace"]
    assert steps and all(set(step) == {"rule", "before", "after"} for step in steps)


def test_show_as_json(run: Run, specs: Path) -> None:
    softmax, square = json.loads(run("show", "softmax", f"{specs}:square", "--json")[1])["layers"]
    block = jaccomp.layers.get("softmax").jacobian()
    facts = {"of": "y", "wrt": "x", "formula": str(block), "latex": latex(block), "structure": block.structure}
    assert softmax["jacobian"] == [facts]
    assert square["name"] == "square" and square["equations"] == ["y[n] = x[n]²"] and square["conventions"] == []
    assert json.loads(run("show", "relu", "--stage", "program", "--json")[1])["layers"][0]["stage"] == "program"


def test_a_derived_layer_is_shown_and_built(run: Run, specs: Path) -> None:
    specs.write_text(SPECS + "hessian = square.vjp().jvp()\n")
    code, out, _ = run("show", f"{specs}:hessian")
    assert code == 0 and out.startswith("square_vjp_jvp(x[N], ct_y[N], t_x[N], t_ct_y[N]) -> ct_x[N], t_ct_x[N]\n")
    assert "    t_ct_x[n] = 2 " in out
    assert run("build", f"{specs}:hessian", "-o", specs.parent / "out", "--source")[0] == 0
    code, _, err = run("show", f"{specs}:hessian", "--stage", "spec")
    assert code == 2 and "it was derived, not written" in err


IN_FORCE = {
    "relu": "derivative of Max(x, c)", "l1": "derivative of |x|", "maxpool1d": "maximum or minimum over an index",
    "l2_normalize": "x/‖x‖", "l2_norm": "x/‖x‖", "softmax": "fully masked row", "linear": "",
}  # fmt: skip


@pytest.mark.parametrize("name", IN_FORCE)
def test_show_prints_the_conventions_in_force(name: str, run: Run) -> None:
    found = [row["what"] for row in json.loads(run("show", name, "--json")[1])["layers"][0]["conventions"]]
    assert any(IN_FORCE[name] in what for what in found) if IN_FORCE[name] else found == []


def test_every_convention_is_looked_for() -> None:
    assert sorted(MATTERS) == sorted(row.what for row in CONVENTIONS)


# check


def test_check_passes_and_says_what_it_looked_at(run: Run) -> None:
    code, out, _ = run("check", "tanh", "--json", "--backend", "numpy")
    report = json.loads(out)
    assert code == 0 and report["passed"] is True
    keys = {"layer", "dtype", "what", "reference", "sizes", "error", "tolerance", "passed"}
    assert report["rows"] and all(keys <= set(row) for row in report["rows"])
    assert {row["dtype"] for row in report["rows"]} == {"float32", "float64"}
    assert {"forward", "vjp", "jvp"} <= {row["what"] for row in report["rows"]}


def test_a_check_that_fails_exits_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import jaccomp.checking

    row = Row("tanh", "float32", "vjp", "complex step", "N=3", 1.0, 1e-6, False)
    good = replace(row, error=0.0, passed=True)
    monkeypatch.setattr(jaccomp.checking, "check", lambda *_, **__: Report((row, good)))
    code, out, _ = run("check", "tanh")
    assert code == 1 and "FAILED" in out and out.splitlines()[-1] == "2 rows: 1 failed"
    assert run("check", "tanh", "--rows")[1].splitlines()[-1] == "1 of 2 failed"


def test_a_check_of_nothing_is_refused(run: Run) -> None:
    assert run("check")[0] == 2
    assert run("check", "tanh", "--seed", "-1")[0] == 2


# bench, demo


def test_bench_reports_its_five_numbers(run: Run) -> None:
    code, out, _ = run("bench", "relu", "--suite", "latency", "--json")
    record = json.loads(out)
    assert code == 0
    numbers = ["derive_median_ms", "derive_worst_ms", "cold_build_median_s", "cold_build_worst_s", "warm_load_ms"]
    assert [key for key in record if key != "layers"] == numbers and all(record[key] >= 0 for key in numbers)
    assert [row["name"] for row in record["layers"]] == ["relu"] and record["cold_build_worst_s"] > 0.05


def test_the_demonstration_learns_and_leaves_its_modules(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("demo", "--json", "-o", tmp_path / "demo")
    record = json.loads(out)
    assert code == 0 and list(record)[-2:] == ["test_accuracy", "seconds"]
    assert record["test_accuracy"] >= 0.97 and record["seconds"] < 30 and record["check_passed"] is True
    left = {path.name for path in (tmp_path / "demo").iterdir()}
    for name in ("linear", "layernorm", "gelu", "cross_entropy"):
        assert {f"{name}.pyx", f"{name}{environment.EXT_SUFFIX}"} <= left
    assert (tmp_path / "demo" / "training.png").read_bytes().startswith(b"\x89PNG")


def test_the_demonstration_says_what_it_needs(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("jaccomp.cli.demo.find_spec", lambda name: None)
    code, _, err = run("demo", "-o", tmp_path)
    assert code == 2 and err == (
        "jaccomp: demo: it needs scikit-learn and matplotlib.\n  python -m pip install 'jaccomp[demo]'\n"
    )


# doctor, cache


def test_doctor_finds_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    well = Finding("C compiler", True, "gcc")
    monkeypatch.setattr("jaccomp.cli.doctor.doctor", lambda: (well,))
    assert run("doctor")[:2] == (0, "ok       C compiler  gcc\n")
    ill = Finding("headers", False, "Python.h is not there.", "Install python3-dev.")
    monkeypatch.setattr("jaccomp.cli.doctor.doctor", lambda: (well, ill))
    code, out, _ = run("doctor")
    assert code == 1 and "missing  headers     Python.h" in out and "Install python3-dev." in out
    assert json.loads(run("doctor", "--json")[1])["findings"][1]["ok"] is False


def test_the_cache_can_be_looked_at_and_emptied(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JACCOMP_CACHE_DIR", str(tmp_path / "cache"))
    run("build", "relu", "-o", tmp_path / "out", "--source")
    root = run("cache", "path")[1].strip()
    assert root.startswith(str(tmp_path / "cache"))
    stats = json.loads(run("cache", "--json")[1])
    assert stats["directory"] == root and stats["entries"]["sources"] == 1 and stats["total"] > 1000
    assert run("cache")[1].startswith(root)
    assert json.loads(run("cache", "prune", "--max-size", "1G", "--json")[1])["removed"] == 0
    assert run("cache", "prune", "--max-days", "0", "--max-size", "0")[1].startswith("removed 1 entry")
    run("build", "relu", "-o", tmp_path / "out", "--source")
    assert json.loads(run("cache", "clear", "--json")[1])["removed"] == 1
    assert json.loads(run("cache", "--json")[1])["total"] == 0


@pytest.mark.parametrize(
    "words", [["prune"], ["clear", "--max-days", "1"], ["prune", "--max-size", "1X"], ["prune", "--max-days", "-1"]]
)
def test_a_cache_command_that_makes_no_sense(words: list[str], run: Run) -> None:
    code, out, err = run("cache", *words)
    assert (code, out) == (2, "") and "Traceback" not in err


# The frame


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str, run: Run) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0 and "--json" in out and "exit codes:" in " ".join(out.split())


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["show"], ["build", "relu"], ["list", "--js"], ["--frob"]])
def test_a_wrong_command_line_is_refused(words: list[str], run: Run) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "") and err.startswith("usage: jaccomp")


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version")[:2] == (0, f"jaccomp {jaccomp.__version__}\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 2), (SpecError, 2), (DerivativeError, 2), (BuildError, 3), (StageError, 4), (JaccompError, 2)],
)
def test_errors_have_their_exit_codes(
    error: type[JaccompError], code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> int:
        raise error("here", "this.", "Do that.")

    monkeypatch.setattr("jaccomp.cli.list.run", fail)
    assert run("list") == (code, "", "jaccomp: here: this.\n  Do that.\n")
    assert exit_code(error("here", "this.")) == code


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("jaccomp.cli.list.run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_an_interrupt_ends_quietly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaccomp.cli.list.run", stop)
    assert run("list") == (130, "", "jaccomp: interrupted.\n")


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "jaccomp", "show", "layernorm", "--stage", "source"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    assert writer.stderr.read() == b"" and writer.wait() == 141
    writer.stderr.close()


def test_an_encoding_without_greek_is_no_obstacle() -> None:
    done = process("show", "softmax", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and r"\u2202y[n,i]" in done.stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.painted("ok", console.GREEN, Terminal()) == "\x1b[32mok\x1b[0m"
    assert console.painted("ok", console.GREEN, io.StringIO()) == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.painted("ok", console.GREEN, Terminal()) == "ok"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert console.painted("ok", console.GREEN, Terminal()) == "ok"


def test_progress_is_for_terminals_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, wanted in ((Terminal(), "\r\x1b[K[1/2] a\r\x1b[K[2/2] b\r\x1b[K"), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        with console.Progress(2) as progress:
            progress.step("a")
            progress.step("b")
        assert stream.getvalue() == wanted

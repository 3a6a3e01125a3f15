"""Layers as modules in a folder: sources, binaries, what is stale, what is fixed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run

from jaccomp.build import environment


def test_source_needs_no_compiler(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("JACCOMP_CACHE_DIR", str(tmp_path / "cache"))  # where nothing is compiled already
    out = tmp_path / "out"
    code, printed, _ = run("build", "relu", "tanh", "-o", out, "--source")
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == ["jaccomp.h", "relu.pyx", "tanh.pyx"]
    assert printed.split() == [str(out / name) for name in ("relu.pyx", "jaccomp.h", "tanh.pyx")]
    code, _, err = run("build", "relu", "-o", out)
    assert code == 3 and "no-such-compiler" in err and "Traceback" not in err


def test_check_of_a_folder_shows_what_is_stale_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = run("build", "relu", "-o", out, "--source", "--check")
    assert code == 1 and f"{out / 'relu.pyx'}: not there" in printed and not out.exists()
    run("build", "relu", "-o", out, "--source")
    assert run("build", "relu", "-o", out, "--source", "--check")[0] == 0
    text = (out / "relu.pyx").read_text()
    (out / "relu.pyx").write_text(text.replace("relu", "rely", 1))
    code, printed, _ = run("build", "relu", "-o", out, "--source", "--check")
    assert code == 1 and printed.startswith(f"--- {out / 'relu.pyx'}") and "rely" in printed
    assert json.loads(run("build", "relu", "-o", out, "--source", "--check", "--json")[1])["stale"]


def test_modules_are_importable_alone_and_needs_only_numpy(run: Run, specs: Path) -> None:
    out = specs.parent / "out"
    code, printed, _ = run("build", f"{specs}:square", "relu", "-o", out, "--json")
    assert code == 0 and [one["name"] for one in json.loads(printed)["modules"]] == ["square", "relu"]
    alone = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "import numpy as np, square\n"
        "y, pullback = square.vjp(np.arange(3.0))\n"
        "assert y.tolist() == [0, 1, 4] and pullback(np.ones(3))[0].tolist() == [0, 2, 4]\n"
        "assert not {'sympy', 'jaccomp', 'relu'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", alone, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert run("build", f"{specs}:square", "relu", "-o", out, "--check")[0] == 0
    binary = out / f"square{environment.EXT_SUFFIX}"
    binary.write_bytes(binary.read_bytes() + b"\0")
    code, printed, _ = run("build", f"{specs}:square", "relu", "-o", out, "--check")
    assert code == 1 and "is not what this machine compiles for --march baseline" in printed
    binary.unlink()
    assert f"{binary}: not there" in run("build", f"{specs}:square", "-o", out, "--check")[1]


ALONE = """
import sys, time

ROOTS = {"numpy", "scipy", "softmax", "layernorm", "conv2d"} | set(sys.stdlib_module_names)


class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ROOTS:
            raise ImportError(f"{name} is out of bounds")


sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv[1])
import numpy as np

start = time.perf_counter()
import layernorm
print(time.perf_counter() - start)
import conv2d, softmax

rng = np.random.default_rng(0)
x, g, b, dy = rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5), rng.normal(size=(3, 5))
given = [x, g, b]
_, pullback = layernorm.vjp(*given)
for place, cotangent in enumerate(pullback(dy)):
    for at in np.ndindex(cotangent.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = [one.copy() for one in given]
            moved[place][at] += step
            ends.append((layernorm.forward(*moved) * dy).sum())
        assert abs((ends[0] - ends[1]) / 2e-6 - cotangent[at]) < 1e-7
"""


def test_several_layers_in_one_folder_import_alone_and_at_once(run: Run, tmp_path: Path) -> None:
    assert run("build", "softmax", "layernorm", "conv2d", "-o", tmp_path)[0] == 0
    done = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=False
        )
        for _ in range(3)
    ]
    assert [one.stderr for one in done] == [""] * 3
    assert min(float(one.stdout) for one in done) < 0.030, "seconds that import layernorm takes beyond NumPy's own"


def test_sizes_and_dtypes_can_be_fixed(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("build", "layernorm", "-o", out, "--source", "--bind", "eps=0.5", "--dtype", "float64")[0] == 0
    text = (out / "layernorm.pyx").read_text()
    assert "forward_f64(" in text and "forward_f32(" not in text
    assert "eps" not in text.split('"""')[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bind", "zeta=1"], "--bind zeta: no layer of relu has it"),
        (["--bind", "N"], "'N' is not NAME=VALUE"),
        (["--bind", "N=two"], "'two' is not a number"),
        (["--bind", "N=nan"], "'nan' is not a number"),
        (["--bind", "N=-1"], "N=-1 is not a whole number it can be"),
        (["--dtype", "float16"], "'float16' is none of float32, float64"),
        (["--march", "pentium"], "invalid choice: 'pentium'"),
    ],
)
def test_a_build_that_cannot_be_asked_for(words: list[str], said: str, run: Run, tmp_path: Path) -> None:
    code, _, err = run("build", "relu", "-o", tmp_path / "out", "--source", *words)
    assert code == 2 and said in err and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("build", "relu", "-o", tmp_path / "file", "--source")
    assert code == 2 and "it is a file" in err
    code, _, err = run("build", "relu", "-o", tmp_path / "file" / "below", "--source")
    assert code == 3 and "cannot be written: Not a directory" in err

"""Compiling formulas with pdflatex: amsmath and amssymb, nothing else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

HEAD = "\\documentclass{article}\n\\usepackage{amsmath,amssymb}\n\\begin{document}\n"


def check_compiles(formulas: Iterable[str], folder: Path) -> None:
    """Every formula is set in math mode by itself, and none of them leaves it; the test is skipped without pdflatex."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    lines = [f"$\\displaystyle {one}$\n" for one in formulas]
    assert lines
    (folder / "page.tex").write_text(HEAD + "\n".join(lines) + "\n\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "page.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, log[-3000:]
    assert "Missing character" not in log, log

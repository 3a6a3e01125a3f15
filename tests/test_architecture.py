"""The order of the modules, and what none of them does."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each module imports only from entries above its own; inside an entry, from each other, but not in circles. A package
# may stand in several places: the entry with the longest name that fits is a module's own.
ORDER = (
    "errors",
    "display",
    "notation",
    "grammar",
    "spec",
    "program",
    "domains",
    "canonical",
    "masks",
    "terms",
    "pieces",
    "normalise",
    "printing",
    "latex_names",
    "pictures",
    "calculus",
    "printing_latex",
    "algebra",
    "matrix",
    "card",
    "jacobian",
    "reference",
    "lowering",
    "build",
    "binding",
    "arguments",
    "structured",
    "forms",
    "emit",
    "numpy_kernel",
    "runtime",
    "pipeline",
    "gallery",
    "cards",
    "layer",
    "layers",
    "live",
    "bundling",
    "evaluation",
    "compiling",
    "composition",
    "analysis",
    "checking",
    "showing",
    "instances",
    "",                         # jaccomp itself: the public names
    "benchmark",
    "cli",
    "__main__",
)  # fmt: skip

# What a reference must not share with what it judges.
DERIVATION = ("normalise", "terms", "pieces", "algebra", "lowering", "emit", "numpy_kernel", "pipeline")

# SymPy's own are wrong over indices, or read text, or take for ever.
BANNED = {"doit", "nsimplify", "powdenest", "lambdify", "parse_expr", "eval", "exec", "literal_eval"}
SYMPY_ONLY = {"simplify", "diff", "cancel"}


@cache
def modules() -> dict[str, Path]:
    """Dotted name without `jaccomp.` -> file."""
    found = {}
    for path in sorted((ROOT / "jaccomp").rglob("*.py")):
        parts = path.relative_to(ROOT / "jaccomp").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[str]:
    """The modules of jaccomp that a module imports, anywhere in its text."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            if node.module and node.module.split(".")[0] == "jaccomp":
                base = node.module.removeprefix("jaccomp").lstrip(".")
                for alias in node.names:
                    inner = f"{base}.{alias.name}".lstrip(".")
                    yield inner if inner in modules() else base
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("jaccomp").lstrip(".")
                for alias in node.names
                if alias.name.split(".")[0] == "jaccomp"
            )


def place(name: str) -> int:
    fitting = [entry for entry in ORDER if name == entry or (entry and name.startswith(entry + "."))]
    assert fitting, f"jaccomp.{name} has no place in the order"
    return ORDER.index(max(fitting, key=len))


@pytest.mark.parametrize("name", [name for name in modules() if name])
def test_a_module_imports_only_from_those_above_it(name: str) -> None:
    wrong = [one for one in imports(name) if place(one) > place(name)]
    assert wrong == [], f"jaccomp.{name} imports from below it"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: {one for one in imports(name) if one and one != name} for name in modules() if name}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_every_entry_of_the_order_is_there() -> None:
    assert [entry for entry in ORDER if entry not in modules()] == []


def test_the_reference_shares_no_stage_with_the_derivation() -> None:
    shared = {
        (name, one)
        for name in modules()
        if name.startswith("reference")
        for one in imports(name)
        if one.split(".")[0] in DERIVATION
    }
    assert shared == set()


@pytest.mark.parametrize("name", modules())
def test_nothing_evaluates_text_or_leaves_algebra_to_sympy(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in BANNED, f"line {node.lineno}"
            from_sympy = isinstance(node.value, ast.Name) and node.value.id in {"sp", "sympy"}
            assert not (from_sympy and node.attr in SYMPY_ONLY), f"line {node.lineno}"
        elif isinstance(node, ast.Name):
            assert node.id not in BANNED, f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sympy":
            assert not {alias.name for alias in node.names} & (BANNED | SYMPY_ONLY), f"line {node.lineno}"
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "sympify":
            strict = [word for word in node.keywords if word.arg == "strict"]
            assert strict and ast.unparse(strict[0].value) == "True", f"line {node.lineno}: sympify would read text"


def test_modules_are_named_for_what_they_hold() -> None:
    assert [name for name in modules() if name.split(".")[-1] in {"utils", "util", "helpers", "common", "misc"}] == []


@pytest.mark.parametrize("code", ["import jaccomp", "import jaccomp.runtime", "import jaccomp.cli, jaccomp.layers"])
def test_what_a_warm_load_imports_holds_no_sympy(code: str) -> None:
    check = f"import sys; {code}; sys.exit(not {{'sympy', 'Cython', 'jinja2', 'scipy'}}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-W", "error", "-c", check], check=False).returncode == 0

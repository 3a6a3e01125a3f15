"""The library against formulas of its own (library_formulas.py), and its VJPs against complex step."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from library_formulas import CASES
from points import Point, check_formula, check_vjp, check_vjp_of_vjp

import jaccomp.layers
from jaccomp.errors import UsageError
from jaccomp.layer import Layer
from jaccomp.layers import FAMILIES, families, family, get, names


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_its_formula(name: str) -> None:
    check_formula(Point(get(name), CASES[name]), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_a_vjp_is_the_transpose_of_complex_step(name: str) -> None:
    check_vjp(Point(get(name), CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_the_vjp_of_a_vjp_is_the_transpose_of_complex_step(name: str) -> None:
    check_vjp_of_vjp(Point(get(name), CASES[name]))


def test_every_layer_has_a_formula() -> None:
    assert sorted(CASES) == list(names())


def test_names_and_families_are_sorted_and_complete() -> None:
    assert list(families()) == sorted(families()) == list(FAMILIES)
    assert not set(names()) & set(families()), "a module would hide the layer of its name"
    for one, members in FAMILIES.items():
        __import__(f"jaccomp.layers.{one}")
        module = sys.modules[f"jaccomp.layers.{one}"]
        written = {key: value for key, value in vars(module).items() if isinstance(value, Layer)}
        assert sorted(written) == list(members), "the table lists what the module writes"
        assert all(key == value.name for key, value in written.items())
        assert all(family(member) == one for member in members)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_names_its_source(name: str) -> None:
    assert re.search(r"\(.*(\d{4}|torch\.nn).*\)", get(name).spec.doc) and get(name).spec.doc.endswith(".")


def test_layers_are_attributes() -> None:
    assert jaccomp.layers.softmax is get("softmax")
    assert jaccomp.layers.linear is get("linear")
    assert {"softmax", "names"} <= set(dir(jaccomp.layers))


@pytest.mark.parametrize(
    ("wrong", "hint"), [("sofmax", "softmax"), ("LayerNorm", "layernorm"), ("max_pool2d", "maxpool2d")]
)
def test_an_unknown_name_is_an_error_with_a_suggestion(wrong: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)layer '{wrong}': the library has no layer.*Did you mean .*{hint}"):
        get(wrong)
    with pytest.raises(AttributeError, match=f"has no attribute '{wrong}'. Did you mean .*{hint}"):
        getattr(jaccomp.layers, wrong)


def test_a_name_like_no_other_is_told_where_to_look() -> None:
    with pytest.raises(UsageError, match="jaccomp list"):
        family("zzzzzz")


def test_naming_layers_imports_no_sympy() -> None:
    code = "import sys, jaccomp.layers as l; l.names(); l.family('relu'); dir(l); sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

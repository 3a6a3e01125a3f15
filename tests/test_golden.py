"""Programs, Jacobians and VJPs as a person reads them, whole."""

from __future__ import annotations

import pytest
from golden_files import FOLDER, PARTS, TEXTBOOK, WHOLE, compare, expected, path

from jaccomp.layers import get
from jaccomp.printing import program_text


def written(name: str, part: str) -> str:
    layer = get(name)
    if part == "jacobian":
        return "".join(f"{block}\n    {block.structure}\n" for block in layer.jacobians().values())
    return program_text(layer.program if part == "program" else layer.derivation.vjp) + "\n"


@pytest.mark.parametrize("name", TEXTBOOK)
def test_the_jacobian_of_a_textbook_layer(name: str, update_goldens: bool) -> None:
    compare(path(name, "jacobian"), written(name, "jacobian"), update_goldens)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_layer_as_it_is_read(name: str, part: str, update_goldens: bool) -> None:
    compare(path(name, part), written(name, part), update_goldens)


def test_every_golden_is_used() -> None:
    assert {file for file in FOLDER.rglob("*") if file.is_file()} == expected()

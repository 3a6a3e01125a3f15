"""The notebook among the examples: executed again, its outputs are those that it holds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "inspect_a_layer.ipynb"


def executed(notebook: Any, folder: Path) -> Any:
    """A copy of the notebook, run from the top in a kernel of its own."""
    from copy import deepcopy

    from nbclient import NotebookClient

    fresh = deepcopy(notebook)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the client's event loop
        NotebookClient(fresh, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return fresh


def outputs(notebook: Any) -> list[list[dict[str, Any]]]:
    """What each cell of code printed and showed."""
    kept = ("output_type", "name", "text", "data")
    return [
        [{key: one[key] for key in kept if key in one} for one in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_shows_what_it_holds(tmp_path: Path, update_goldens: bool) -> None:
    import nbformat

    held = nbformat.read(NOTEBOOK, as_version=4)
    fresh = executed(held, tmp_path)
    if update_goldens:
        for number, cell in enumerate(cell for cell in fresh.cells if cell.cell_type == "code"):
            cell.metadata.clear()
            cell.execution_count = number + 1
        fresh.metadata = held.metadata
        nbformat.write(fresh, NOTEBOOK)
        held = nbformat.read(NOTEBOOK, as_version=4)
    assert outputs(fresh) == outputs(held), "pytest tests/test_notebook.py --update-goldens writes what is shown now"


@pytest.mark.parametrize("mime", ["text/plain", "text/latex", "text/html"])
def test_rich_outputs_have_each_form(mime: str) -> None:
    import nbformat

    shown = [one for cell in outputs(nbformat.read(NOTEBOOK, as_version=4)) for one in cell if "data" in one]
    rich = [one for one in shown if "text/latex" in one["data"]]
    assert len(rich) >= 6 and sum(mime in one["data"] for one in rich) >= 5

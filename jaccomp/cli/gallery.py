"""Write a static site of layers: an index to search and filter, and a page for each with all that was derived from it.

It needs no network to be read, and opens from the folder. Without SPEC it shows the whole library.
"""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from jaccomp.cli import console
from jaccomp.cli.target import Target, library, targets
from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.gallery.page import Content

HELP = "a static site of layers and their Jacobians"
LIBRARY_TITLE = "Layers and their Jacobians"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", nargs="*", metavar="SPEC", help="these layers, and not the library")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder; made if it is not there")
    parser.add_argument("--open", action="store_true", help="show the index in a browser when it is written")
    parser.add_argument("--json", action="store_true", help='{"directory", "index", "pages": [{"name", "file"}]}')


def run(arguments: argparse.Namespace) -> int:
    from jaccomp.gallery.publish import check, publish
    from jaccomp.gallery.site import INDEX, file_name, site

    directory = Path(arguments.output)
    check(directory)
    chosen = targets(arguments.spec) if arguments.spec else library()
    contents = []
    with console.Progress(len(chosen)) as progress:
        for one in chosen:
            progress.step(f"deriving {one.name}")
            contents.append(content(one))
    publish(site(_title(arguments.spec), contents), directory)
    index = directory / INDEX
    if arguments.json:
        pages = [{"name": one.card.name, "file": str(directory / file_name(one.card))} for one in contents]
        console.print_json({"directory": str(directory), "index": str(index), "pages": pages})
    else:
        print(index)
    if arguments.open:
        webbrowser.open(index.resolve().as_uri())
    return 0


def content(target: Target) -> Content:
    """The layer's card, its graph, and what a page shows of it in numbers."""
    from jaccomp.gallery.page import Content
    from jaccomp.instances import instance
    from jaccomp.live import live
    from jaccomp.pictures import graph, sparsity, spectrum

    layer = target.load()
    card, drawn = layer.card(), graph(layer.prepared)
    try:
        blocks = {key: instance(layer, *key) for key in layer.jacobians()}
        programs = live(layer)
    except UsageError:  # derived, not written, or of no small sizes: a page has no numbers of it
        return Content(card, graph=drawn)
    return Content(card, programs, drawn, {key: (sparsity(one), spectrum(one)) for key, one in blocks.items()})


def _title(words: list[str]) -> str:
    """`Layers of specs.py` for one spec file; the library and a choice of layers have the title of all."""
    files = {Path(word.partition(".py:")[0]).stem for word in words if ".py" in word}
    return f"Layers of {files.pop()}.py" if len(files) == 1 == len(words) else LIBRARY_TITLE

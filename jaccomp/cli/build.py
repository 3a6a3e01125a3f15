"""Write layers as Cython modules into a folder: NAME and the platform's suffix, NAME.pyx, and the one header.

Each module can be imported alone, and needs neither jaccomp nor SymPy. With --source no compiler is needed and no
binary is written. With --check nothing is written; what differs is printed, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaccomp.build.flags import MARCHES
from jaccomp.cli import console
from jaccomp.cli.target import targets
from jaccomp.errors import BuildError, UsageError

if TYPE_CHECKING:
    from jaccomp.build import Source
    from jaccomp.layer import Layer

HELP = "layers as Cython modules in a folder"
SUFFIX_OF = {"float32": "f32", "float64": "f64"}
MOST_LINES = 60
"""Lines of a difference that are printed for one file."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", nargs="+", metavar="SPEC", help="layers: library names, spec files")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder; made if it is not there")
    parser.add_argument("--source", action="store_true", help="write NAME.pyx and the header only")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff where DIR is stale")
    parser.add_argument("--march", choices=MARCHES, default="baseline", help="the CPU to compile for: %(default)s")
    parser.add_argument("--dtype", type=_dtypes, default=("f32", "f64"), metavar="LIST", help="float32,float64")
    parser.add_argument(
        "--bind", action="append", type=_binding, default=[], metavar="NAME=VALUE", help="fix a size, scalar or input"
    )
    parser.add_argument("--json", action="store_true", help='{"directory", "stale", "modules": [{"name", "files"}]}')


def run(arguments: argparse.Namespace) -> int:
    layers = _bound([one.load() for one in targets(arguments.spec)], dict(arguments.bind))
    directory = Path(arguments.output)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"build -o {directory}", "it is a file.", "Name a folder.")
    with console.Progress(len(layers)) as progress:
        sources = [_source(layer, arguments.dtype, progress) for layer in layers]
    if arguments.check:
        return _check(sources, directory, arguments)
    files = {}
    with console.Progress(len(sources)) as progress:
        for source in sources:
            progress.step(f"compiling {source.name}" if not arguments.source else f"writing {source.name}")
            files[source.name] = _write(source, directory, arguments)
    if arguments.json:
        modules = [{"name": name, "files": [str(path) for path in paths]} for name, paths in files.items()]
        console.print_json({"directory": str(directory), "stale": False, "modules": modules})
    else:
        print("\n".join(dict.fromkeys(str(path) for paths in files.values() for path in paths)))
    return 0


def _source(layer: Layer, dtypes: Sequence[str], progress: console.Progress) -> Source:
    from jaccomp.compiling import source

    progress.step(f"deriving {layer.name}")
    return source(layer, "whole", dtypes)


def _write(source: Source, directory: Path, asked: argparse.Namespace) -> list[Path]:
    """The module's files, written whole; the binary first, so that a failed build leaves nothing."""
    from jaccomp.build import compile_into, store

    written = [] if asked.source else [compile_into(source, directory, march=asked.march)]
    for name, content in source.files():
        path = directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            store.write_atomically(path, content, 0o644)
        except OSError as error:
            raise BuildError(
                f"module {source.name}", f"{path} cannot be written: {error.strerror}.", "Choose another folder."
            ) from None
        written.append(path)
    return written


def _check(sources: Sequence[Source], directory: Path, asked: argparse.Namespace) -> int:
    stale: dict[str, list[str]] = {}
    seen: dict[str, list[str]] = {}
    for source in sources:
        for name, content in source.files():
            if name not in seen:
                seen[name] = list(_differences(directory / name, content))
        found = [line for name, _ in source.files() for line in seen[name]]
        if not asked.source:
            found += _binary_differences(source, directory, asked.march)
        if found:
            stale[source.name] = found
    if asked.json:
        modules: list[dict[str, Any]] = [{"name": one.name, "stale": one.name in stale} for one in sources]
        console.print_json({"directory": str(directory), "stale": bool(stale), "modules": modules})
    elif stale:
        print("\n".join(dict.fromkeys(line for lines in stale.values() for line in lines)))
    else:
        print(f"{directory} is up to date")
    return 1 if stale else 0


def _differences(path: Path, wanted: bytes) -> Iterator[str]:
    """A unified diff, from what is there to what would be written."""
    try:
        there = path.read_bytes()
    except OSError:
        yield f"{path}: not there"
        return
    if there == wanted:
        return
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (there, wanted))
    lines = list(difflib.unified_diff(old, new, str(path), f"{path} (now)", lineterm="", n=1))
    yield from lines[:MOST_LINES] or [f"{path}: differs in its line ends"]
    if len(lines) > MOST_LINES:
        yield f"... {len(lines) - MOST_LINES} more lines"


def _binary_differences(source: Source, directory: Path, march: str) -> list[str]:
    """The binary is compared with what this machine's compiler makes of the source, byte for byte."""
    from jaccomp.build import compile_module, environment

    path = directory / (source.name + environment.EXT_SUFFIX)
    if not path.exists():
        return [f"{path}: not there"]
    same = path.read_bytes() == compile_module(source, march=march).read_bytes()
    return [] if same else [f"{path}: is not what this machine compiles for --march {march}"]


def _bound(layers: list[Layer], values: dict[str, float | int]) -> list[Layer]:
    """Each layer with those of the values that it knows by name; a value that none knows is refused."""
    if not values:
        return layers
    bound = []
    left = set(values)
    for layer in layers:
        spec = layer.spec
        known = {str(one) for kind in (spec.sizes, spec.scalars, spec.inputs) for one in kind}
        bound.append(layer.bind(**{name: value for name, value in values.items() if name in known}))
        left -= known
    if left:
        names = ", ".join(layer.name for layer in layers)
        raise UsageError(f"--bind {min(left)}", f"no layer of {names} has it.", "Name a size, a scalar or an input.")
    return bound


def _dtypes(text: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    wrong = next((word for word in words if word not in SUFFIX_OF), None)
    if wrong is not None:
        raise argparse.ArgumentTypeError(f"{wrong!r} is none of {', '.join(SUFFIX_OF)}")
    return tuple(suffix for word, suffix in SUFFIX_OF.items() if word in words)


def _binding(text: str) -> tuple[str, float | int]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{value!r} is not a number")
    return name, number

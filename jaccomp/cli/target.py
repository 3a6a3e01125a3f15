"""What a command line calls a layer: a name of the library, a spec file, or one layer of a spec file.

    softmax                 the library's
    specs.py                every layer of the file: those of `__all__`, else each module-level Layer that is its own
    specs.py:mylayer        the one bound to that variable, or of that name

A spec file is a Python module, and looking into it runs it; what it prints goes to stderr.
"""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from jaccomp.errors import JaccompError, SpecError, UsageError

if TYPE_CHECKING:
    from jaccomp.layer import Layer

LIBRARY = "library"


@dataclass(frozen=True, slots=True)
class Target:
    """A layer that a command acts on. `source` is "library" or the spec file; `load()` gives the layer."""

    name: str
    family: str
    source: str
    load: Callable[[], Layer]

    @property
    def asked(self) -> Layer | str:
        """What `jc.compile` is asked for: a name, which is found without SymPy, or a layer."""
        return self.name if self.source == LIBRARY else self.load()


def library() -> tuple[Target, ...]:
    """Every layer of the library, by name; none of them is built."""
    from jaccomp import layers

    return tuple(_of_library(name) for name in layers.names())


def targets(words: Iterable[str]) -> tuple[Target, ...]:
    """The layers that `words` name, in their order, none twice. Raises `UsageError` or `SpecError` with the place."""
    found: dict[str, Target] = {}
    for word in words:
        for one in _targets(word):
            known = found.setdefault(one.name, one)
            if known.source != one.source:
                raise UsageError(
                    f"layer {one.name!r}",
                    f"{known.source} and {one.source} both have one of that name.",
                    "Name one of them, or rename a layer.",
                )
    return tuple(found.values())


def only(word: str) -> Target:
    """The one layer that `word` names. Raises `UsageError` where it is a file of several."""
    found = targets([word])
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise UsageError(word, f"it has {len(found)} layers: {names}.", f"Name one: {word}:{found[0].name}")
    return found[0]


def _targets(word: str) -> tuple[Target, ...]:
    path, colon, name = word.rpartition(":")
    if not colon or not path.endswith(".py"):
        path, colon, name = word, "", ""
    if not path.endswith(".py"):
        return (_of_library(path),)
    layers = {name: _named(path, name)} if colon else spec_file(path)
    return tuple(Target(one.name, Path(path).stem, path, lambda one=one: one) for one in layers.values())  # type: ignore[misc]


def _of_library(name: str) -> Target:
    from jaccomp import layers

    try:
        family = layers.family(name)
    except UsageError as error:
        beside = Path(f"{name}.py")
        if name and beside.is_file():
            raise UsageError(error.what, error.facts, f"Did you mean the spec file {beside}?") from None
        raise
    return Target(name, family, LIBRARY, lambda: layers.get(name))


def _named(path: str, name: str) -> Layer:
    """The layer bound to that variable of the file, in `__all__` or not, else the one of that name."""
    from jaccomp.layer import Layer

    layers = {variable: one for variable, one in vars(_run(path)).items() if isinstance(one, Layer)}
    for variable, one in layers.items():
        if variable == name:
            return one
    for one in layers.values():
        if one.name == name:
            return one
    known = list(dict.fromkeys([*layers, *(one.name for one in layers.values())]))
    close = difflib.get_close_matches(name, known, n=3)
    remedy = f"Did you mean {' or '.join(close)}?" if close else f"It has {', '.join(known) or 'no layer at all'}."
    raise UsageError(f"{path}:{name}", f"{path} has no layer {name!r}.", remedy)


# Spec files


class _Fresh(SourceFileLoader):
    """Neither reads nor writes bytecode: a file edited twice in a second is read twice, and leaves nothing behind."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def spec_file(path: str) -> dict[str, Layer]:
    """Variable -> layer, of `__all__`, else each module-level `Layer` that the library does not own.

    Raises `UsageError` where the file is missing, holds no layer or fails, with the line; `SpecError` for its layers.
    """
    from jaccomp.layer import Layer

    module = _run(path)
    variables = vars(module)
    if "__all__" in variables:
        names = _all(path, variables["__all__"])
        missing = [name for name in names if name not in variables]
        if missing:
            raise UsageError(
                path, f"__all__ names {missing[0]!r}, which the file does not define.", "Define or drop it."
            )
        found = {name: variables[name] for name in names if isinstance(variables[name], Layer)}
    else:
        theirs = _library_layers(Layer)
        found = {
            name: value
            for name, value in variables.items()
            if isinstance(value, Layer) and not any(value is one for one in theirs)
        }
    if not found:
        raise UsageError(
            path,
            "there is no layer in it.",
            "Bind one to a module-level name, mylayer = jc.Layer(...); where there is an __all__, name it there.",
        )
    return _distinct(path, found)


def _all(path: str, listed: object) -> list[str]:
    if isinstance(listed, str) or not isinstance(listed, list | tuple) or not all(isinstance(n, str) for n in listed):
        raise UsageError(path, f"__all__ is {listed!r:.60}.", 'It should be a list of names: __all__ = ["mylayer"].')
    return list(listed)


def _distinct(path: str, found: dict[str, Layer]) -> dict[str, Layer]:
    """Each layer once, under its first variable; two different ones of one name are refused."""
    first: dict[str, tuple[str, Layer]] = {}
    for variable, one in found.items():
        known = first.setdefault(one.name, (variable, one))
        if known[1] is not one:
            raise UsageError(
                path, f"{known[0]} and {variable} are both layers named {one.name!r}.", "Give each a name of its own."
            )
    return dict(first.values())


def _library_layers(kind: type) -> list[object]:
    """The library's own layers, as far as they have been imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith("jaccomp.layers.")]
    return [value for module in modules for value in vars(module).values() if isinstance(value, kind)]


def _run(path: str) -> ModuleType:
    where = Path(path)
    if where.is_dir():
        raise UsageError(path, "it is a folder.", "A spec file is a Python file.")
    if not where.exists():
        near = difflib.get_close_matches(where.name, sorted(p.name for p in where.parent.glob("*.py")), n=1, cutoff=0.5)
        raise UsageError(path, "there is no such file.", f"Did you mean {where.with_name(near[0])}?" if near else "")
    name = f"_jaccomp_spec_{where.stem}"
    loader = _Fresh(name, str(where))
    spec = spec_from_file_location(name, where, loader=loader)
    if spec is None:
        raise UsageError(path, "it cannot be read as a Python file.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _beside(where), redirect_stdout(sys.stderr):
            loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _located(path, error) from None
    return module


@contextmanager
def _beside(where: Path) -> Iterator[None]:
    """The file may import its neighbours, as a script may."""
    folder = str(where.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _located(path: str, error: BaseException) -> JaccompError:
    """The error of a spec file with the line that raised it."""
    if isinstance(error, OSError) and error.filename is not None and Path(error.filename) == Path(path):
        return UsageError(path, f"it cannot be read: {error.strerror}.")
    if isinstance(error, SyntaxError) and error.filename is not None:
        text = (error.text or "").strip()
        return UsageError(f"{error.filename}, line {error.lineno}", f"{type(error).__name__}: {error.msg}.", text)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename) == Path(path)]
    place = f"{path}, line {frames[-1].lineno}" if frames else path
    line = (frames[-1].line or "") if frames else ""
    if isinstance(error, JaccompError):
        kind = type(error) if isinstance(error, SpecError) else UsageError
        return kind(f"{place}: {error.what}", error.facts, error.remedy)
    if isinstance(error, SystemExit):
        return UsageError(place, "it ends the program.", line)
    reason = " ".join(str(error).split()) or "no reason given"
    return UsageError(place, f"{type(error).__name__}: {reason}", line)

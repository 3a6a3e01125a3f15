"""A site's files into a folder: each appears whole, what an earlier gallery left over goes, nothing else is touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaccomp.build import store
from jaccomp.errors import BuildError, UsageError
from jaccomp.gallery.site import INDEX

MARK = ".jaccomp-gallery.json"
"""The file by which a folder is known to be a gallery; it lists the files that are the gallery's."""
_OWN = re.compile(r"[a-z0-9_-]+\.html")


def check(directory: Path) -> None:
    """Raise `UsageError` where `directory` may not be filled: it is a file, or holds what no gallery put there."""
    what = f"gallery -o {directory}"
    try:
        if not directory.exists():
            return
        if not directory.is_dir():
            raise UsageError(what, "it is a file.", "Name a folder.")
        others = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise UsageError(what, f"it cannot be looked into: {error.strerror}.", "Name another folder.") from None
    if others and MARK not in others:
        raise UsageError(
            what,
            f"it holds {others[0]!r} and is no gallery: a file of the same name would be lost.",
            f"Name a new or an empty folder; to fill this one all the same, put an empty file {MARK} into it.",
        )


def publish(files: Mapping[str, str], directory: Path) -> list[Path]:
    """Write `files`, the index last, then drop the pages that a gallery here had and this one has not.

    A reader finds each file whole at any time. Raises `BuildError` where a file cannot be written.
    """
    check(directory)
    old = _listed(directory / MARK)
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _mark(directory, {*old, *files})
        for name in sorted(files, key=lambda name: (name == INDEX, name)):
            path = directory / name
            store.write_atomically(path, files[name].encode(), 0o644)
        for name in sorted(old - set(files)):
            path = directory / name
            path.unlink(missing_ok=True)
        _mark(directory, files)
    except OSError as error:
        raise BuildError(
            "gallery", f"{path} cannot be written: {error.strerror}.", "Choose another folder with -o."
        ) from None
    return [directory / name for name in sorted(files)]


def _mark(directory: Path, names: Iterable[str]) -> None:
    text = json.dumps({"files": sorted(names)}, indent=1)
    store.write_atomically(directory / MARK, f"{text}\n".encode(), 0o644)


def _listed(mark: Path) -> set[str]:
    """The files that an earlier gallery wrote; only names that are pages of one, whatever the list says."""
    try:
        listed = json.loads(mark.read_text(encoding="utf-8"))["files"]
        return {name for name in listed if isinstance(name, str) and _OWN.fullmatch(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()

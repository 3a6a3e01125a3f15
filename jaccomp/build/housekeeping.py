"""What the cache holds and how it is made smaller: statistics, clearing, pruning. A warm load reads none of this."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jaccomp.build.store import MANIFEST

KINDS = ("sources", "modules", "index", "failed")
_A_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Stats:
    """How much there is: `entries` and `bytes` per kind, in the order of `KINDS`, under `directory`."""

    directory: Path
    private: str
    entries: dict[str, int]
    bytes: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return sum(self.bytes.values())


def stats(root: Path, private: str) -> Stats:
    """Entries and bytes of each kind under `root`."""
    entries = dict.fromkeys(KINDS, 0)
    sizes = dict.fromkeys(KINDS, 0)
    for kind, folder in _folders(root):
        entries[kind] += 1
        sizes[kind] += _size(folder)
    return Stats(root, private, entries, sizes)


def clear(root: Path, private: str) -> Stats:
    """Remove every entry; what was there before."""
    before = stats(root, private)
    for _, folder in _folders(root):
        _remove(folder)
    if (root / "locks").is_dir():
        _remove(root / "locks")
    return before


def prune(root: Path, max_bytes: int | None, max_days: float | None) -> int:
    """Remove entries unused for `max_days`, then the longest unused until `max_bytes` remain; how many went."""
    now = time.time()
    aged = sorted(((_last_use(folder), str(folder), folder) for _, folder in _folders(root)), reverse=True)
    removed = kept = 0
    for used, _, folder in aged:
        size = _size(folder)
        too_old = max_days is not None and now - used > max_days * _A_DAY
        if too_old or (max_bytes is not None and kept + size > max_bytes):
            _remove(folder)
            removed += 1
        else:
            kept += size
    return removed


def _folders(root: Path) -> Iterator[tuple[str, Path]]:
    for kind in KINDS:
        try:
            names = sorted(os.listdir(root / kind))
        except OSError:
            continue
        yield from ((kind, root / kind / name) for name in names)


def _last_use(folder: Path) -> float:
    for path in (folder / MANIFEST, folder):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        for item in os.scandir(folder):
            with suppress(OSError):
                total += item.stat(follow_symlinks=False).st_size
    return total


def _remove(folder: Path) -> None:
    """Remove a folder of files, its manifest first: from then on it is a miss, not a damaged entry."""
    with suppress(OSError):
        (folder / MANIFEST).unlink()
    with suppress(OSError):
        for item in list(os.scandir(folder)):
            with suppress(OSError):
                os.unlink(item.path)
    with suppress(OSError):
        folder.rmdir()

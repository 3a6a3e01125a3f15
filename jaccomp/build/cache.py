"""The cache: verified entries of two levels, and an index that finds a compiled module without making its source.

    sources/KEY   level 1: hash(canonical spec, options, jaccomp) -> the Source that emission wrote
    modules/KEY   level 2: hash(Source, flags, compiler, libc, Python ABI, Cython, NumPy, CPU) -> the compiled module
    index/KEY     hash(what was asked for, Python ABI, libc, NumPy, CPU) -> a key of level 2
    failed/KEY    what a failed compilation leaves for its author to read

An entry is a manifest and the files it names with size and SHA-256. Files carry their digest in their name and the
manifest is renamed into place last, so that two processes that write one entry at once cannot mix their halves.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaccomp.build import environment, store
from jaccomp.build.source import Source
from jaccomp.build.store import MANIFEST
from jaccomp.build.toolchain import find_toolchain
from jaccomp.errors import BuildError

if TYPE_CHECKING:
    from jaccomp.build.housekeeping import Stats

FORMAT = 1
_A_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified entry: its facts, and per label the path and the content of a file."""

    key: str
    facts: dict[str, Any]
    paths: dict[str, Path]
    contents: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Module:
    """A compiled module in the cache: the name it is imported by and its verified file."""

    name: str
    path: Path


def source_key(spec: str, options: str) -> str:
    """The level-1 key: `spec` and `options` in their canonical spelling, and the jaccomp that would read them."""
    return environment.digest(["source", FORMAT, spec, options, environment.package_digest()])


def layer_key(name: str, options: str) -> str:
    """What to `recall` a layer of the library by: its name is enough, and a changed jaccomp makes another."""
    return environment.digest(["layer", name, options, environment.package_digest()])


def _surroundings(march: str) -> list[str]:
    """What a module needs of the machine it runs on; the CPU counts only where the compiler looked at it."""
    cpu = environment.cpu() if march == "native" else ""
    return [environment.python_abi(), environment.libc(), environment.numpy_version(), march, cpu]


class Cache:
    """Entries under `root`. What cannot be written there goes to a directory of this process: no work is lost,
    nothing raises.

    `private` says why `root` itself is private to this process, and is empty where it is not.
    """

    def __init__(self, root: Path, private: str = "") -> None:
        self.root = root
        self.private = private
        self._overflow: Path | None = None

    # Entries of any kind

    def get(self, kind: str, key: str) -> Entry | None:
        """The entry, if it is there and whole; a damaged one is a miss with a warning."""
        for root in self._roots():
            folder = root / kind / key
            try:
                text = (folder / MANIFEST).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                store.warn(f"{kind}/{key[:12]}: {error.strerror}; making it again.")
                continue
            try:
                entry = _verified(folder, kind, key, text)
            except (OSError, ValueError) as damage:
                store.warn(f"{kind}/{key[:12]} in {root}: {damage}; making it again.")
                continue
            _mark_as_used(folder / MANIFEST)
            return entry
        return None

    def put(self, kind: str, key: str, facts: dict[str, Any], files: dict[str, bytes]) -> Entry:
        """Write an entry and return it. `files` maps a label, which is also the file's name but for a digest, to its
        content.
        """
        try:
            return self._write(self.root, kind, key, facts, files)
        except OSError as error:
            failure = error
        first = self._overflow is None
        try:
            self._overflow = self._overflow or store.prepare(store.private_directory())
            entry = self._write(self._overflow, kind, key, facts, files)
        except OSError as error:
            raise BuildError(
                "cache",
                f"neither {self.root} ({failure.strerror}) nor a private directory ({error.strerror}) can be written.",
                "Free some space, or name another directory in JACCOMP_CACHE_DIR.",
            ) from None
        if first:
            why = failure.strerror or failure
            store.warn(f"{self.root} cannot be written ({why}); results are kept until this process ends.")
        return entry

    def _write(self, root: Path, kind: str, key: str, facts: dict[str, Any], files: dict[str, bytes]) -> Entry:
        folder = root / kind / key
        if not root.is_dir():  # removed under a running process
            store.prepare(root.parent)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        rows: dict[str, dict[str, Any]] = {}
        for label, content in files.items():
            sha256 = hashlib.sha256(content).hexdigest()
            stem, dot, suffix = label.partition(".")
            rows[label] = {"file": f"{stem}-{sha256[:12]}{dot}{suffix}", "size": len(content), "sha256": sha256}
            store.write_atomically(folder / rows[label]["file"], content, 0o600)
        manifest = {"format": FORMAT, "kind": kind, "key": key, "facts": facts, "files": rows}
        text = json.dumps({**manifest, "sha256": environment.digest(manifest)}, indent=1, sort_keys=True)
        store.write_atomically(folder / MANIFEST, text.encode())
        return Entry(key, facts, {label: folder / row["file"] for label, row in rows.items()}, dict(files))

    def lock(self, key: str, done: Callable[[], bool]) -> AbstractContextManager[None]:
        """Spare other processes the same work; see `store.lock`."""
        return store.lock(self.root / "locks" / key, done)

    # Level 1

    def find_source(self, key: str) -> Source | None:
        """The source that was stored under a `source_key`."""
        entry = self.get("sources", key)
        if entry is None:
            return None
        name = entry.facts["name"]
        headers = tuple((header, entry.contents[header].decode()) for header in entry.facts["headers"])
        return Source(name, entry.contents[f"{name}.pyx"].decode(), headers)

    def store_source(self, key: str, source: Source) -> None:
        """Keep `source` under a `source_key`."""
        facts = {"name": source.name, "headers": [header for header, _ in source.headers]}
        self.put("sources", key, facts, dict(source.files()))

    # Level 2

    def find_module(self, key: str) -> Module | None:
        """The compiled module of a level-2 key."""
        entry = self.get("modules", key)
        return None if entry is None else _module(entry)

    def store_module(self, key: str, source: Source, binary: bytes, facts: dict[str, Any]) -> Module:
        """Keep a compiled module, with the source it came from beside it for its reader."""
        files = {source.name + environment.EXT_SUFFIX: binary, **dict(source.files())}
        return _module(self.put("modules", key, {**facts, "name": source.name}, files))

    # The index

    def recall(self, what: str, *, march: str = "native") -> Module | None:
        """The module that `remember` was told for `what`, if this machine can run it and the tools have not changed
        since.

        Starts no process, and needs neither compiler nor Cython: where they are not installed, there is nothing to
        compare. `what` is a digest of all that decides the module: for a layer of the library its name, the options
        and `package_digest()`.
        """
        entry = self.get("index", _index_key(what, march))
        if entry is None:
            return None
        for tool, now in _tools().items():
            if now and now != entry.facts[tool]:
                return None
        return self.find_module(entry.facts["module"])

    def remember(self, what: str, module: Path, *, march: str = "native") -> None:
        """Let `recall(what)` find `module`, a path that `compile_module` returned."""
        self.put("index", _index_key(what, march), {"module": module.parent.name, **_tools()}, {})

    # Housekeeping

    def keep_failure(self, key: str, files: dict[str, bytes]) -> Path:
        """Keep what a failed compilation should leave behind, under its own file names; the folder it is in."""
        last: OSError | None = None
        for root in (self.root, store.private_directory()):
            folder = root / "failed" / key
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for name, content in files.items():
                    store.write_atomically(folder / name, content)
                return folder
            except OSError as error:
                last = error
        store.warn(f"the log of a failed compilation could not be kept: {last}.")
        return folder

    def stats(self) -> Stats:
        """Entries and bytes of each kind under `root`."""
        from jaccomp.build import housekeeping

        return housekeeping.stats(self.root, self.private)

    def clear(self) -> Stats:
        """Remove every entry; what was there before. Modules that are loaded stay loaded."""
        from jaccomp.build import housekeeping

        return housekeeping.clear(self.root, self.private)

    def prune(self, *, max_bytes: int | None = None, max_days: float | None = None) -> int:
        """Remove entries unused for `max_days`, then the longest unused until `max_bytes` remain; how many went."""
        from jaccomp.build import housekeeping

        return housekeeping.prune(self.root, max_bytes, max_days)

    def _roots(self) -> tuple[Path, ...]:
        return (self.root,) if self._overflow is None else (self.root, self._overflow)


def _verified(folder: Path, kind: str, key: str, text: bytes) -> Entry:
    """The entry of a manifest; a `ValueError` that says what is damaged."""
    try:
        manifest = json.loads(text)
        stated = manifest.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"the manifest of {len(text)} bytes is not one") from None
    if stated != environment.digest(manifest) or (manifest["format"], manifest["kind"], manifest["key"]) != (
        FORMAT,
        kind,
        key,
    ):
        raise ValueError("the manifest does not match its digest")
    paths, contents = {}, {}
    for label, row in manifest["files"].items():
        path = folder / row["file"]
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{row['file']} is missing") from None
        if len(content) != row["size"]:
            raise ValueError(f"{row['file']} has {len(content)} bytes instead of {row['size']}")
        if hashlib.sha256(content).hexdigest() != row["sha256"]:
            raise ValueError(f"{row['file']} does not match its digest")
        paths[label], contents[label] = path, content
    return Entry(key, manifest["facts"], paths, contents)


def _module(entry: Entry) -> Module:
    name = entry.facts["name"]
    return Module(name, entry.paths[name + environment.EXT_SUFFIX])


def _index_key(what: str, march: str) -> str:
    return environment.digest(["index", FORMAT, what, *_surroundings(march)])


def _tools() -> dict[str, str]:
    """The compiler and Cython as they are installed now; empty where they are not."""
    try:
        compiler = find_toolchain().fingerprint
    except BuildError:
        compiler = ""
    return {"compiler": compiler, "cython": environment.cython_fingerprint()}


def _mark_as_used(manifest: Path) -> None:
    """Let `prune` see that the entry serves, without writing at every load."""
    with suppress(OSError):
        if time.time() - manifest.stat().st_mtime > _A_DAY:
            os.utime(manifest)


_OPEN: dict[tuple[str, str], Cache] = {}


def default_cache() -> Cache:
    """The cache of this process, opened once for each value of the variables that say where it is."""
    places = (os.environ.get("JACCOMP_CACHE_DIR", ""), os.environ.get("XDG_CACHE_HOME", ""))
    if places not in _OPEN:
        root, why = store.open_store()
        if why:
            store.warn(f"{why}; results are kept until this process ends. JACCOMP_CACHE_DIR names another place.")
        _OPEN[places] = Cache(root, why)
    return _OPEN[places]

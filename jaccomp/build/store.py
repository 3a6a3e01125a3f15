"""Where cached files live, and how they get there: owned directories, atomic writes, locks that may be lost.

A file appears whole or not at all: it is written beside its place, synced and renamed over it. Readers therefore need
no lock, and the lock here only spares several processes the same work.
"""

from __future__ import annotations

import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path

LAYOUT = "v1"
MANIFEST = "manifest.json"
_COUNT = count()


def refusal(path: Path) -> str:
    """Why `path` must not hold code that this process will load; empty where it may. A missing path may."""
    if not hasattr(os, "geteuid"):
        return ""
    try:
        link, target = os.lstat(path), os.stat(path)
    except FileNotFoundError:
        return "it is a link to nothing" if path.is_symlink() else ""
    except OSError as error:
        return str(error.strerror or error)
    if not stat.S_ISDIR(target.st_mode):
        return "it is not a directory"
    for found in (link, target):
        if found.st_uid != os.geteuid():
            return f"it belongs to user {found.st_uid}, not to user {os.geteuid()}"
    return ""


def prepare(directory: Path) -> Path:
    """The store inside `directory`, created with mode 0700; an `OSError` that says why where it must not or cannot be
    used.

    `directory` itself is made 0700 where it is new or still empty; what else a user keeps there is left as it is.
    """
    root = directory / LAYOUT
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (directory, root):
        reason = refusal(path)
        if reason:
            raise OSError(f"{path} is not used: {reason}")
    _tighten(directory, only_if_empty=True)
    root.mkdir(mode=0o700, exist_ok=True)
    _tighten(root)
    reason = refusal(root)
    if reason:
        raise OSError(f"{root} is not used: {reason}")
    return root


def _tighten(directory: Path, only_if_empty: bool = False) -> None:
    if stat.S_IMODE(os.stat(directory).st_mode) & 0o077 and not (only_if_empty and os.listdir(directory)):
        os.chmod(directory, 0o700)


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Make `path` hold `content`, all of it or none: temporary, sync, rename. Raises `OSError`, and then leaves
    nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_COUNT)}.{time.time_ns():x}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def private_directory() -> Path:
    """A directory of this process alone, mode 0700, removed when it ends: what is left where nothing else can be
    written.
    """
    import atexit
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="jaccomp-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child must not take its parent's
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    return directory


def open_store() -> tuple[Path, str]:
    """(root, why): the store of `JACCOMP_CACHE_DIR`, else the platform's, else private; `why` says why it is private,
    or is empty.

    A directory that `JACCOMP_CACHE_DIR` names and that cannot be used is not replaced by the platform's: the user
    wanted neither.
    """
    stated = os.environ.get("JACCOMP_CACHE_DIR", "").strip()
    directory = Path(stated).expanduser().absolute() if stated else platform_directory()
    try:
        return prepare(directory), ""
    except OSError as error:
        return prepare(private_directory()), str(error)


def platform_directory() -> Path:
    """Where this platform keeps a user's caches."""
    from platformdirs import user_cache_path

    return user_cache_path("jaccomp", appauthor=False)


def warn(message: str) -> None:
    """A `RuntimeWarning` about the cache; the work goes on."""
    warnings.warn(f"jaccomp cache: {message}", RuntimeWarning, stacklevel=3)


@contextmanager
def lock(path: Path, done: Callable[[], bool], patience: float = 120.0) -> Iterator[None]:
    """Hold `path` while working, so that others wait for the result instead of repeating the work.

    The wait ends when the holder lets go (the system does it for one that dies), when `done()` says that the result
    is there, or after `patience` seconds. Nothing depends on having the lock: where it cannot be had, the work is
    done twice.
    """
    descriptor = _lock_file(path)
    if descriptor is None:
        yield
        return
    try:
        deadline = time.monotonic() + patience
        pause = 0.005
        while not _try_lock(descriptor) and time.monotonic() < deadline and not done():
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
        yield
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> int | None:
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError:
        return None


def _try_lock(descriptor: int) -> bool:
    """Whether the lock is ours, or there are no locks here and waiting would be in vain."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True

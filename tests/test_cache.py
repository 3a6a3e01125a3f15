"""The cache: where it may live, what happens to entries that are damaged, and many processes at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaccomp.build import (
    Source,
    cache,
    compile_module,
    default_cache,
    environment,
    layer_key,
    load_module,
    source_key,
    store,
)
from jaccomp.build.cache import Cache
from jaccomp.errors import BuildError

ROOT = Path(__file__).resolve().parent.parent
TINY = Source("tiny", "# cython: language_level=3, binding=False\ndef answer(): return 42\n")
GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="these tests compile")


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("JACCOMP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def fallback(tmp_path, monkeypatch):
    """Stands for the private directory of a process."""
    place = tmp_path / "private"
    monkeypatch.setattr(store, "private_directory", lambda: place)
    return place


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def started(code: str, **variables: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


# Where it lives


def test_the_directory_is_the_users_own(directory):
    root = default_cache().root
    assert root == directory / store.LAYOUT
    assert (mode(directory), mode(root)) == (0o700, 0o700)


def test_an_empty_directory_is_made_private_and_a_used_one_is_left_alone(directory):
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    default_cache()
    assert mode(directory) == 0o700
    other = directory.parent / "used"
    (other / "work").mkdir(parents=True)
    other.chmod(0o755)
    assert mode(store.prepare(other)) == 0o700
    assert mode(other) == 0o755


def test_a_loose_store_is_tightened(directory):
    (directory / store.LAYOUT).mkdir(parents=True)
    (directory / store.LAYOUT).chmod(0o777)
    assert mode(default_cache().root) == 0o700


def test_without_a_variable_it_is_the_platforms(monkeypatch, tmp_path):
    monkeypatch.delenv("JACCOMP_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path in store.platform_directory().parents or sys.platform != "linux"
    assert default_cache().root == store.platform_directory() / store.LAYOUT


def refused(directory: Path, fallback: Path, reason: str) -> None:
    with pytest.warns(RuntimeWarning, match=reason):
        found = default_cache()
    assert found.root == fallback / store.LAYOUT
    assert found.private
    assert mode(found.root) == 0o700


def test_a_directory_of_another_user_is_never_used(directory, fallback, monkeypatch):
    directory.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="belongs to user"):
        store.prepare(directory)
    assert not (directory / store.LAYOUT).exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["directory", "store", "link", "target"])
def test_nothing_of_another_user_is_followed(which, directory, fallback):
    real = directory.parent / "real"
    real.mkdir()
    if which in ("link", "target"):
        directory.symlink_to(real)
        os.chown(directory if which == "link" else real, 12345, -1, follow_symlinks=False)
    else:
        (directory / store.LAYOUT).mkdir(parents=True)
        os.chown(directory if which == "directory" else directory / store.LAYOUT, 12345, -1)
    refused(directory, fallback, "belongs to user 12345, not to user 0")
    assert list(real.iterdir()) == []


def test_a_link_of_ones_own_is_followed(directory):
    (directory.parent / "real").mkdir()
    directory.symlink_to(directory.parent / "real")
    assert default_cache().root.resolve() == directory.parent / "real" / store.LAYOUT


def test_a_store_that_is_a_link_elsewhere_is_judged_by_its_target(directory, fallback):
    directory.mkdir()
    (directory / store.LAYOUT).symlink_to("/nowhere/at/all")
    refused(directory, fallback, "it is a link to nothing")


def test_a_file_in_the_way(directory, fallback):
    directory.write_text("")
    refused(directory, fallback, "results are kept until this process ends")
    assert directory.read_text() == ""


def test_the_private_directory_goes_with_its_process(tmp_path):
    code = "from jaccomp.build import store; p = store.private_directory(); print(oct(p.stat().st_mode & 0o777), p)"
    permissions, path = said(started(code, TMPDIR=str(tmp_path))).split()
    assert permissions == "0o700"
    assert Path(path).parent == tmp_path
    assert not Path(path).exists()


# Writing


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "file"
    store.write_atomically(target, b"old")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        store.write_atomically(target, b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def failing(code: int):
    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT], ids=errno.errorcode.get)
def unwritable(request, directory, monkeypatch):
    """The cache directory exists, and nothing can be written in it."""
    default_cache()
    write = store.write_atomically

    def refuse(path: Path, content: bytes, mode: int = 0o600) -> None:
        if directory in Path(path).parents:
            raise OSError(request.param, os.strerror(request.param))
        write(path, content, mode)

    monkeypatch.setattr(store, "write_atomically", refuse)
    return os.strerror(request.param)


@needs_gcc
def test_work_is_not_lost_when_the_cache_cannot_be_written(unwritable, fallback):
    with pytest.warns(RuntimeWarning, match=f"cannot be written .*{unwritable}") as warned:
        path = compile_module(TINY)
    assert len(warned) == 1
    assert load_module("tiny", path).answer() == 42
    assert fallback in path.parents
    assert compile_module(TINY) == path


def test_nowhere_to_write_is_an_error_with_a_remedy(directory, fallback, monkeypatch):
    opened = default_cache()
    monkeypatch.setattr(store, "write_atomically", failing(errno.ENOSPC))
    with pytest.raises(BuildError, match=r"No space left on device.*nor a private directory") as raised:
        opened.put("sources", "k", {}, {})
    assert "JACCOMP_CACHE_DIR" in raised.value.remedy


def test_a_directory_removed_under_a_running_process_comes_back(directory):
    opened = default_cache()
    shutil.rmtree(directory)
    opened.put("sources", "k", {"a": 1}, {"x.txt": b"1"})
    found = opened.get("sources", "k")
    assert found is not None
    assert (found.facts, found.contents) == ({"a": 1}, {"x.txt": b"1"})
    assert (mode(directory), mode(opened.root)) == (0o700, 0o700)


# Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def edit_facts(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["facts"]["name"] = "another"
    path.write_text(json.dumps(manifest))


def borrow(path: Path) -> None:
    """The manifest of another entry, whole in itself."""
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    manifest["key"] = "0" * 64
    path.write_text(json.dumps({**manifest, "sha256": environment.digest(manifest)}))


DAMAGE = [
    *((harm, "binary") for harm in (truncate, empty, flip, remove, replace_by_directory)),
    *((harm, "manifest") for harm in (truncate, empty, flip, edit_facts, borrow)),
]


@needs_gcc
@pytest.mark.parametrize(("harm", "victim"), DAMAGE, ids=[f"{harm.__name__}-{victim}" for harm, victim in DAMAGE])
def test_a_damaged_module_is_a_miss_with_a_warning(harm, victim, shared_build, directory):
    shutil.copytree(shared_build, directory)
    path = next((directory / store.LAYOUT / "modules").glob("*/*.so"))
    harm(path if victim == "binary" else path.with_name(store.MANIFEST))
    with pytest.warns(RuntimeWarning) as warned:
        made = compile_module(TINY)
    assert "making it again" in str(warned[0].message)
    assert load_module("tiny", made).answer() == 42


@pytest.fixture(scope="module")
def shared_build(tmp_path_factory):
    """A cache directory that holds TINY."""
    place = tmp_path_factory.mktemp("built")
    said(started(f"from jaccomp.build import *; compile_module({TINY!r})", JACCOMP_CACHE_DIR=str(place)))
    return place


@needs_gcc
def test_a_damaged_index_only_costs_the_search(shared_build, directory):
    shutil.copytree(shared_build, directory)
    empty(next((directory / store.LAYOUT / "index").glob("*/manifest.json")))
    before = {path: path.stat().st_mtime_ns for path in (directory / store.LAYOUT / "modules").rglob("*")}
    with pytest.warns(RuntimeWarning, match="the manifest of 0 bytes is not one"):
        compile_module(TINY)
    assert {path: path.stat().st_mtime_ns for path in (directory / store.LAYOUT / "modules").rglob("*")} == before


# The two levels and the index


def test_a_source_comes_back_as_it_was():
    source = Source("softmax", "# ∂y/∂x\n", (("jaccomp.h", "/* é */\n"),))
    key = source_key("spec", "options")
    assert default_cache().find_source(key) is None
    default_cache().store_source(key, source)
    assert default_cache().find_source(key) == source


def test_keys_depend_on_all_they_should_and_on_nothing_else(monkeypatch):
    key = source_key("spec", "options")
    assert key == source_key("spec", "options")
    assert (
        len({key, source_key("spec2", "options"), source_key("spec", "options2"), source_key("specoptions", "")}) == 4
    )
    layer = layer_key("softmax", "options")
    assert len({key, layer, layer_key("softmin", "options"), layer_key("softmax", "")}) == 4
    monkeypatch.setattr(environment, "package_digest", lambda: "another jaccomp")
    assert source_key("spec", "options") != key
    assert layer_key("softmax", "options") != layer


def test_keys_are_the_same_under_any_hash_seed():
    code = "from jaccomp.build import *; print(source_key('a', 'b'), package_digest())"
    assert len({said(started(code, PYTHONHASHSEED=seed)) for seed in ("0", "1", "random")}) == 1


def test_the_package_digest_sees_every_byte(tmp_path):
    for root in ("a", "b"):
        (tmp_path / root / "sub").mkdir(parents=True)
        (tmp_path / root / "sub" / "x.py").write_text("1")
    digest = environment._tree_digest
    same = digest(tmp_path / "a")
    assert same == digest(tmp_path / "b")
    (tmp_path / "b" / "__pycache__").mkdir()
    (tmp_path / "b" / "__pycache__" / "x.pyc").write_text("2")
    assert same == digest(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.py").write_text("2")
    changed = digest(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.py").rename(tmp_path / "b" / "sub" / "y.py")
    assert len({same, changed, digest(tmp_path / "b")}) == 3


@needs_gcc
@pytest.mark.parametrize(
    ("fact", "value"),
    [("cpu", "another CPU"), ("libc", "another libc"), ("python_abi", "cpython-3.99"), ("numpy_version", "9.9.9")],
)
def test_a_module_is_not_recalled_where_it_may_not_run(fact, value, shared_build, directory, monkeypatch):
    shutil.copytree(shared_build, directory)
    path = compile_module(TINY)
    default_cache().remember("layer", path)
    found = default_cache().recall("layer")
    assert found is not None
    assert (found.name, found.path) == ("tiny", path)
    monkeypatch.setattr(environment, fact, lambda: value)
    assert default_cache().recall("layer") is None


@needs_gcc
def test_a_module_is_recalled_without_tools_but_not_with_others(shared_build, directory, monkeypatch, tmp_path):
    shutil.copytree(shared_build, directory)
    default_cache().remember("layer", compile_module(TINY))
    monkeypatch.setenv("CC", "none-here")
    monkeypatch.setattr(environment, "cython_fingerprint", lambda: "")
    assert default_cache().recall("layer") is not None
    (tmp_path / "cc").write_text("#!/bin/sh\nexec gcc")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    assert default_cache().recall("layer") is None
    monkeypatch.setenv("CC", "none-here")
    monkeypatch.setattr(environment, "cython_fingerprint", lambda: "another Cython")
    assert default_cache().recall("layer") is None


def test_the_cpu_counts_only_where_the_compiler_looks_at_it(monkeypatch):
    keys = {march: cache._index_key("layer", march) for march in ("baseline", "x86-64-v3", "native")}
    monkeypatch.setattr(environment, "cpu", lambda: "another CPU")
    changed = [march for march, key in keys.items() if cache._index_key("layer", march) != key]
    assert changed == ["native"]


# Many processes

BUILD = f"""
from jaccomp.build import *
path = compile_module({TINY!r})
assert load_module("tiny", path).answer() == 42
print(path)
"""


def counting_compiler(folder: Path) -> Path:
    """gcc, with a line in `folder`/log for each compilation it does."""
    path = folder / "cc"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo compiled >> {folder}/log\nexec {GCC} "$@"\n')
    path.chmod(0o755)
    return path


@needs_gcc
@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "locks lost"])
def test_processes_that_build_the_same_thing_at_once_agree(locks, directory, tmp_path):
    if not locks:
        root = store.prepare(directory)
        (root / "locks").write_text("not a directory")
    cc = counting_compiler(tmp_path)
    processes = [started(BUILD, CC=str(cc)) for _ in range(4)]
    assert len({said(process) for process in processes}) == 1
    compiled = len((tmp_path / "log").read_text().splitlines())
    assert compiled == 1 if locks else 1 <= compiled <= 4
    assert [path for path in directory.rglob("*") if path.name.endswith(".tmp")] == []


@needs_gcc
def test_a_process_killed_while_it_builds_costs_nothing(directory, tmp_path):
    slow = tmp_path / "cc"
    slow.write_text(f'#!/bin/sh\n[ "$1" = --version ] || {{ touch {tmp_path}/begun; sleep 30; }}\nexec {GCC} "$@"\n')
    slow.chmod(0o755)
    victim = started(BUILD, CC=str(slow), TMPDIR=str(tmp_path))
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    before = time.monotonic()
    assert said(started(BUILD))
    assert time.monotonic() - before < 20


# Locks


def test_a_lock_waits_no_longer_than_its_patience_and_for_no_more_than_the_result(tmp_path):
    path = tmp_path / "locks" / "k"
    for done, patience in ((lambda: False, 0.05), (lambda: True, 60.0)):
        before = time.monotonic()
        with store.lock(path, lambda: False), store.lock(path, done, patience):
            pass
        assert time.monotonic() - before < 5


def test_a_lock_keeps_a_second_holder_out_while_it_is_held(tmp_path):
    path = tmp_path / "locks" / "k"
    with store.lock(path, lambda: False):
        descriptor = store._lock_file(path)
        assert descriptor is not None
        assert not store._try_lock(descriptor)
    assert store._try_lock(descriptor)
    os.close(descriptor)


def test_a_lock_that_cannot_be_had_stops_nobody(tmp_path, monkeypatch):
    (tmp_path / "locks").write_text("")
    with store.lock(tmp_path / "locks" / "k", lambda: False):
        pass
    monkeypatch.setattr("fcntl.flock", failing(errno.ENOLCK))
    with store.lock(tmp_path / "others" / "k", lambda: False):
        pass


# Housekeeping


def filled(ages: dict[str, float]) -> Cache:
    opened = default_cache()
    for key, days in ages.items():
        entry = opened.put("sources", key, {}, {"x.txt": b"0" * 1000})
        manifest = entry.paths["x.txt"].with_name(store.MANIFEST)
        os.utime(manifest, (time.time() - days * 86400,) * 2)
    return opened


def present(opened: Cache, *keys: str) -> list[str]:
    return [key for key in keys if opened.get("sources", key) is not None]


def test_stats_count_entries_and_bytes_per_kind():
    opened = filled({"a": 0, "b": 0})
    stats = opened.stats()
    assert stats.entries == {"sources": 2, "modules": 0, "index": 0, "failed": 0}
    assert stats.bytes["sources"] == stats.total > 2000
    assert stats.directory == opened.root


def test_clear_removes_everything_and_the_cache_goes_on():
    opened = filled({"a": 0, "b": 0})
    assert opened.clear().entries["sources"] == 2
    assert opened.stats().total == 0
    assert present(filled({"a": 0}), "a", "b") == ["a"]


def test_prune_removes_the_old_and_then_the_longest_unused():
    opened = filled({"a": 0, "b": 2, "c": 5, "d": 40})
    assert opened.prune() == 0
    assert opened.prune(max_days=30) == 1
    assert opened.prune(max_bytes=3000) == 1
    assert present(opened, "a", "b", "c", "d") == ["a", "b"]


def test_prune_spares_what_was_used():
    opened = filled({"a": 40, "b": 40})
    assert present(opened, "a") == ["a"]
    assert opened.prune(max_days=30) == 1
    assert present(opened, "a", "b") == ["a"]


def test_a_failure_is_kept_where_it_can_be(directory, fallback):
    assert default_cache().keep_failure("k", {"log.txt": b"1"}) == directory / store.LAYOUT / "failed" / "k"
    shutil.rmtree(directory)
    directory.write_text("")
    folder = default_cache().keep_failure("k", {"log.txt": b"2"})
    assert fallback in folder.parents
    assert (folder / "log.txt").read_bytes() == b"2"

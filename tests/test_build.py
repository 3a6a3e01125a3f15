"""From Cython text to a loaded module: flags, compilers, headers, failures and the CPU guard."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest

from jaccomp.build import (
    BANNED,
    MARCHES,
    Flags,
    Source,
    attempt,
    check_module_name,
    compile_into,
    compile_module,
    compiler,
    doctor,
    environment,
    find_toolchain,
    flags,
    load_module,
    toolchain,
)
from jaccomp.errors import BuildError

ROOT = Path(__file__).resolve().parent.parent
GUARD = ("jaccomp_cpu.h", (environment.templates() / "jaccomp_cpu.h").read_text())

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="these tests compile")


def tiny(
    name: str = "tiny", body: str = "def answer(): return 42", headers: tuple[tuple[str, str], ...] = ()
) -> Source:
    includes = "".join(f'cdef extern from "{header}":\n    pass\n' for header, _ in headers)
    return Source(name, f"# cython: language_level=3, binding=False\n{includes}{body}\n", headers)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(shared, monkeypatch):
    monkeypatch.setenv("JACCOMP_CACHE_DIR", str(shared))
    monkeypatch.delenv("CC", raising=False)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# Flags


def test_the_flags_are_those_of_the_design():
    math = [
        "-O3",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fno-signed-zeros",
        "-fassociative-math",
        "-freciprocal-math",
    ]
    assert list(Flags("native").words()[:6]) == math
    assert "-fopenmp" in Flags("native").words()
    assert "-fopenmp" not in Flags("native", openmp=False).words()


@pytest.mark.skipif(not flags._is_x86(environment.platform.machine()), reason="names of x86 targets")
@pytest.mark.parametrize(
    ("march", "expected"), [("baseline", []), ("x86-64-v3", ["-march=x86-64-v3"]), ("native", ["-march=native"])]
)
def test_a_target_is_one_flag(march, expected):
    assert [word for word in Flags(march).words() if word.startswith("-m")] == expected


@pytest.mark.parametrize(("march", "openmp"), [*itertools.product(MARCHES, (True, False))])
@needs_gcc
def test_no_banned_flag_is_in_any_command_line(march, openmp, monkeypatch):
    for variable in ("CFLAGS", "CPPFLAGS", "LDFLAGS"):
        monkeypatch.setenv(variable, "-ffast-math")
    line = attempt.command(find_toolchain(), Flags(march, openmp), "softmax")
    assert not any(banned in word for banned in (*BANNED, "fast-math") for word in line)
    assert "CFLAGS" not in toolchain.compiler_environment()


def test_only_the_table_of_banned_flags_spells_them():
    """No source of jaccomp holds a banned flag as a word that could be passed on, but the table that bans them."""
    for path in sorted((ROOT / "jaccomp").rglob("*.py")):
        quoted = [flag for flag in BANNED if f'"{flag}"' in path.read_text() or f"'{flag}'" in path.read_text()]
        assert quoted == (list(BANNED) if path.name == "flags.py" else []), path


@pytest.mark.parametrize("words", ["-ffast-math", "-Ofast", "-Xclang -ffast-math", "-Wp,-ffinite-math-only -O2"])
def test_a_banned_flag_in_cc_is_refused(words, monkeypatch):
    monkeypatch.setenv("CC", f"gcc {words}")
    with pytest.raises(BuildError, match=r"CC holds .*flushes subnormals to zero") as raised:
        find_toolchain()
    assert "Take it out of CC" in str(raised.value)


def test_a_banned_flag_in_a_wrapper_variable_is_refused(monkeypatch):
    monkeypatch.setenv("NIX_CFLAGS_COMPILE", "-O2 -ffast-math")
    with pytest.raises(BuildError, match="NIX_CFLAGS_COMPILE holds -ffast-math"):
        toolchain.compiler_environment()


def test_an_unknown_target_is_refused():
    with pytest.raises(BuildError, match="march 'avx9': no such target"):
        Flags("avx9")


def test_a_target_of_another_architecture_is_refused(monkeypatch):
    monkeypatch.setattr(flags.platform, "machine", lambda: "aarch64")
    with pytest.raises(BuildError, match="this machine is aarch64"):
        Flags("x86-64-v3")
    assert "-mcpu=native" in Flags("native").words()


# Sources


@pytest.mark.parametrize(
    "name", ["", "a b", "class", "é", "a/b", "../x", "x;rm", "numpy", "cython", 'a"b', "a\nb", "1a"]
)
def test_a_name_that_cannot_be_a_module_is_refused(name):
    with pytest.raises(BuildError, match="module"):
        check_module_name(name)


@pytest.mark.parametrize("header", ["../x.h", "a b.h", "x.c", "tiny.h", "", "/etc/x.h"])
def test_a_header_that_is_no_plain_file_is_refused(header):
    with pytest.raises(BuildError, match="is not a plain file name of its own"):
        Source("tiny", "", ((header, ""),))


# Compiling and loading


@needs_gcc
def test_a_source_becomes_a_module():
    path = compile_module(tiny())
    assert path.name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))
    assert load_module("tiny", path).answer() == 42
    assert compile_module(tiny()) == path


@needs_gcc
@pytest.mark.parametrize("name", ["int", "struct", "sum", "double", "restrict"])
def test_names_that_only_c_or_python_reserves_serve(name):
    assert load_module(name, compile_module(tiny(name), march="native")).answer() == 42


@needs_gcc
def test_loading_never_touches_the_names_a_user_imports():
    module = load_module("tiny", compile_module(tiny()))
    assert "tiny" not in sys.modules
    assert sys.modules[module.__name__] is module
    marker = sys.modules["tiny2"] = type(sys)("tiny2")
    try:
        load_module("tiny2", compile_module(tiny("tiny2")))
        assert sys.modules["tiny2"] is marker
    finally:
        del sys.modules["tiny2"]


@needs_gcc
def test_the_same_content_is_loaded_once(tmp_path):
    path = compile_module(tiny())
    assert load_module("tiny", path) is load_module("tiny", shutil.copy(path, tmp_path / "copy.so"))


@needs_gcc
def test_modules_of_one_name_live_side_by_side():
    first = load_module("tiny", compile_module(tiny()))
    second = load_module("tiny", compile_module(tiny(body="def answer(): return 43")))
    assert (first.answer(), second.answer()) == (42, 43)


def test_a_file_that_is_not_there_cannot_be_loaded(tmp_path):
    with pytest.raises(BuildError, match="cannot be read: No such file"):
        load_module("gone", tmp_path / "gone.so")


@needs_gcc
def test_the_binary_holds_no_path_and_is_the_same_from_any_directory(tmp_path, monkeypatch):
    first = compile_module(tiny()).read_bytes()
    monkeypatch.setenv("JACCOMP_CACHE_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    second = compile_module(tiny()).read_bytes()
    assert str(tmp_path).encode() not in second
    assert first == second


@needs_gcc
def test_threads_may_compile_at_once():
    found: dict[int, int] = {}

    def work(number: int) -> None:
        source = tiny(f"thread{number}", f"def answer(): return {number}")
        found[number] = load_module(source.name, compile_module(source)).answer()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: 0, 1: 1, 2: 2}
    assert gc.isenabled()


@needs_gcc
def test_a_module_in_a_folder_is_imported_by_its_name(tmp_path):
    path = compile_into(tiny("plain"), tmp_path / "new")
    assert path == tmp_path / "new" / f"plain{environment.EXT_SUFFIX}"
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    code = "import plain, sys; assert 'jaccomp' not in sys.modules; print(plain.answer())"
    done = subprocess.run([sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


@needs_gcc
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="cannot be written") as raised:
        compile_into(tiny(), tmp_path / "file" / "below")
    assert "Choose another folder" in str(raised.value)


@needs_gcc
def test_a_warm_load_needs_no_compiler_and_starts_no_process(shared):
    compile_module(tiny())
    code = f"""
import os, sys
from jaccomp.build import Source, compile_module, load_module
path = compile_module(Source("tiny", {tiny().pyx!r}))
assert load_module("tiny", path).answer() == 42
heavy = [name for name in ("Cython", "sympy", "subprocess", "setuptools", "distutils") if name in sys.modules]
assert not heavy, heavy
"""
    env = {**os.environ, "PATH": "/nonexistent", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, check=True)


# Failures: what, why, what to do


def test_a_missing_compiler_is_one_line_and_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError) as raised:
        compile_module(tiny("unseen"))
    facts, remedy = str(raised.value).splitlines()
    assert facts == "C compiler: none of gcc, cc, clang is on PATH."
    assert "apt-get install gcc" in remedy
    assert 'backend="numpy"' in remedy


def test_a_compiler_that_cc_names_and_that_is_missing(monkeypatch):
    monkeypatch.setenv("CC", "icc-of-old -m64")
    with pytest.raises(BuildError, match="CC is 'icc-of-old -m64', and no such program is on PATH"):
        find_toolchain()


def test_cc_that_does_not_parse(monkeypatch):
    monkeypatch.setenv("CC", "gcc 'x")
    with pytest.raises(BuildError, match="does not parse"):
        find_toolchain()


def test_a_compiler_that_does_not_start(monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(BuildError, match="does not start"):
        compile_module(tiny("unseen"))


def test_a_compiler_that_does_not_know_its_version(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(script(tmp_path / "cc", "echo no licence; exit 4")))
    with pytest.raises(BuildError, match="--version exits with 4: no licence"):
        compile_module(tiny("unseen"))


def test_missing_python_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(attempt.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(BuildError, match=r"Python headers: .*Python.h does not exist") as raised:
        attempt.include_directories()
    assert f"python{sys.version_info.major}.{sys.version_info.minor}-dev" in str(raised.value)


def test_missing_numpy_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(np, "get_include", lambda: str(tmp_path))
    with pytest.raises(BuildError, match=r"NumPy headers: .*arrayobject.h does not exist") as raised:
        attempt.include_directories()
    assert "pip install" in str(raised.value)


def test_missing_cython(monkeypatch):
    monkeypatch.setitem(sys.modules, "Cython", None)
    with pytest.raises(BuildError, match="Cython: it is not installed") as raised:
        compiler.module_key(tiny(), Flags(), find_toolchain())
    assert "pip install cython" in str(raised.value)


def kept(error: BuildError) -> Path:
    """The folder that the remedy names."""
    return Path(error.remedy.removeprefix("The source and the whole log are in ").removesuffix("."))


@needs_gcc
def test_what_the_c_compiler_refuses_is_kept_with_its_log():
    source = tiny("refused", headers=(("bad.h", "#error this header is broken\n"),))
    with pytest.raises(BuildError, match=r"module refused: gcc exited with 1: bad.h:1:2: error: .*broken") as raised:
        compile_module(source)
    folder = kept(raised.value)
    assert sorted(path.name for path in folder.iterdir()) == ["bad.h", "log.txt", "refused.c", "refused.pyx"]
    assert "-fassociative-math" in (folder / "log.txt").read_text().splitlines()[0]
    assert len(str(raised.value).splitlines()) == 2


@needs_gcc
def test_what_cython_refuses_is_kept_with_its_log(capfd):
    with pytest.raises(BuildError, match=r"Cython refuses it: .*refused.pyx:3:\d+: .*undeclared") as raised:
        compile_module(tiny("refused", body="def f():\n    return undeclared"))
    assert (kept(raised.value) / "refused.pyx").exists()
    assert "undeclared" in (kept(raised.value) / "log.txt").read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("kill -9 $$", "was killed by signal 9; the machine may be out of memory"),
        ("echo 'write: No space left on device'; exit 1", "had no space left for its temporary files"),
        ("exit 7", "exited with 7: it printed nothing"),
        ("exit 0", "exited with 0: it printed nothing"),
    ],
)
def test_a_compiler_that_fails_in_its_own_way(does, says, monkeypatch, tmp_path):
    cc = script(tmp_path / "cc", f'[ "$1" = --version ] && {{ echo fake 1.0; exit 0; }}\n{does}')
    monkeypatch.setenv("CC", str(cc))
    with pytest.raises(BuildError, match=says):
        compile_module(tiny("unseen"))


@needs_gcc
def test_temporary_files_that_cannot_be_written(monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(attempt.tempfile, "TemporaryDirectory", full)
    with pytest.raises(BuildError, match=r"temporary files cannot be written: .*No space left") as raised:
        compile_module(tiny("unseen"))
    assert "TMPDIR" in str(raised.value)


@needs_gcc
def test_a_compiler_without_openmp_builds_for_one_thread_and_says_so(monkeypatch, tmp_path):
    refuse = (
        'case " $* " in *" -fopenmp "*) echo "cc: error: unsupported option -fopenmp"; exit 1;; esac\nexec gcc "$@"'
    )
    monkeypatch.setenv("CC", str(script(tmp_path / "cc", refuse)))
    source = tiny("serial", "from cython.parallel cimport prange\ndef answer():\n    cdef int i, s = 0\n"
                  "    for i in prange(4, nogil=True):\n        s += i\n    return s")  # fmt: skip
    with pytest.warns(RuntimeWarning, match="has no OpenMP, so kernels run on one thread"):
        path = compile_module(source)
    assert load_module("serial", path).answer() == 6


# The CPU guard


@needs_gcc
def test_a_module_for_another_cpu_raises_import_error(tmp_path):
    """No CPU has both FMA4 (AMD, 2011 to 2015) and the instructions of this decade."""
    fake = ("jaccomp.h", "#define __FMA4__ 1\n" + GUARD[1])
    path = compile_module(tiny("foreign", headers=(fake,)), march="native")
    with pytest.raises(
        ImportError, match=r"foreign was built for a CPU with fma4, which this one lacks.*--march baseline"
    ):
        load_module("foreign", path)
    assert not [name for name in sys.modules if name.endswith(".foreign") or name == "foreign"]
    folder = compile_into(tiny("foreign", headers=(fake,)), tmp_path).parent
    done = subprocess.run(
        [sys.executable, "-c", "import foreign"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "ImportError: foreign was built for a CPU with fma4" in done.stderr) == (1, True)


@needs_gcc
@pytest.mark.parametrize("march", MARCHES)
def test_a_module_for_this_cpu_passes_the_guard(march):
    assert load_module("home", compile_module(tiny("home", headers=(GUARD,)), march=march)).answer() == 42


@needs_gcc
@pytest.mark.skipif(shutil.which("objdump") is None, reason="reads machine code")
def test_nothing_before_the_guard_uses_instructions_it_asks_for():
    path = compile_module(tiny("home", headers=(GUARD,)), march="native")
    listing = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    functions = {block.split(">:")[0].split("<")[-1]: block for block in listing.split("\n\n") if ">:" in block}
    guard = [
        text for name, text in functions.items() if name.startswith(("PyInit_", "jc_guarded_init", "jc_cpu_missing"))
    ]
    assert len(guard) >= 2
    assert not [
        line for text in guard for line in text.splitlines() if "%ymm" in line or "%zmm" in line or "\tv" in line
    ]


@needs_gcc
@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
def test_the_guard_refuses_flags_that_delete_nan(flag, tmp_path):
    (tmp_path / "x.c").write_text(f"#include <Python.h>\n{GUARD[1]}")
    includes = [f"-I{directory}" for directory in attempt.include_directories()]
    line = ["gcc", "-fsyntax-only", *includes, str(tmp_path / "x.c")]
    assert subprocess.run(line, check=False, capture_output=True).returncode == 0
    done = subprocess.run([*line, flag], check=False, capture_output=True, text=True)
    assert (done.returncode, "compile without -ffast-math" in done.stderr) == (1, True)


@needs_gcc
def test_the_guard_compiles_without_a_warning(tmp_path):
    (tmp_path / GUARD[0]).write_text(GUARD[1])
    use = "PyObject *f(PyModuleDef *d);\nPyObject *f(PyModuleDef *d) { return PyModuleDef_Init(d); }\n"
    (tmp_path / "x.c").write_text(f'#include <Python.h>\n#include "{GUARD[0]}"\n{use}')
    includes = [f"-isystem{directory}" for directory in attempt.include_directories()]
    flags = ["-Wall", "-Wextra", "-Werror", "-std=gnu11", "-march=native"]
    subprocess.run(["gcc", "-fsyntax-only", *flags, *includes, "x.c"], cwd=tmp_path, check=True)


# Subnormals

SUBNORMALS = """
import ctypes, sys
import numpy as np
from pathlib import Path

def alive():
    tiny = np.full(64, 5e-324)
    small = np.full(64, np.finfo(np.float32).smallest_subnormal)
    results = (tiny > 0, tiny * 1.0 > 0, tiny + tiny == 1e-323, small + small > 0)
    return all(bool(result.all()) for result in results)

assert alive()
{load}
print(alive())
"""


def run_python(code: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


@needs_gcc
@pytest.mark.parametrize("march", MARCHES)
def test_loading_a_module_leaves_subnormals_alive(march):
    body = """
from cython.parallel cimport prange
def halve(double x, int n):
    cdef int i
    cdef double s = 0
    for i in prange(n, nogil=True):
        s += x / 2
    return s"""
    path = compile_module(tiny("halves", body, (GUARD,)), march=march)
    load = f"""
from jaccomp.build import load_module
module = load_module("halves", Path({str(path)!r}))
assert module.halve(1e-320, 1) == 1e-320 / 2 > 0          # in this thread
assert module.halve(1e-320, 64) == 64 * (1e-320 / 2) > 0  # in OpenMP's
"""
    assert run_python(SUBNORMALS.format(load=load)) == "True"


@needs_gcc
def test_the_subnormal_test_sees_what_it_looks_for(tmp_path):
    """The banned flags, where the compiler still acts on them when it links, are what kills subnormals."""
    (tmp_path / "x.c").write_text("int x;\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-ffast-math", "x.c", "-o", "x.so"], cwd=tmp_path, check=True)
    symbols = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True).stdout
    if int(symbols.split(".")[0]) >= 13:
        pytest.skip("gcc 13 and later do not link crtfastmath.o into a shared object")
    assert run_python(SUBNORMALS.format(load=f"ctypes.CDLL({str(tmp_path / 'x.so')!r})")) == "False"


# The doctor


def test_the_doctor_reports_each_fact_with_a_remedy(monkeypatch, tmp_path):
    healthy = {finding.name: finding for finding in doctor()}
    assert list(healthy) == [
        "C compiler", "headers", "Cython", "OpenMP", "CPU", "cache directory", "cache writable", "BLAS"
    ]  # fmt: skip
    assert all(finding.detail for finding in healthy.values())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(np, "get_include", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "scipy.linalg.cython_blas", None)
    monkeypatch.setitem(sys.modules, "Cython", None)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JACCOMP_CACHE_DIR", str(tmp_path / "file"))
    ill = {finding.name: finding for finding in doctor() if not finding.ok}
    assert sorted(ill) == ["BLAS", "C compiler", "Cython", "OpenMP", "cache directory", "headers"]
    assert all(finding.remedy and "\n" not in finding.detail for finding in ill.values())


@needs_gcc
def test_the_doctor_finds_this_machine_healthy():
    assert [finding for finding in doctor() if not finding.ok] == []

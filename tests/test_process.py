"""What modules share in a process: blocks of memory, threads, CPUs; and a child of fork, that has them anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from framed import module
from test_product import WIDE

from jaccomp.build import Flags

ROOT = Path(__file__).resolve().parent.parent
LARGE = 32 << 10
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="the header is tested with gcc, which is not here")


def c_program(folder: Path, text: str, *flags: str) -> Path:
    """An executable of C text that includes the header."""
    source, made = folder / "program.c", folder / "program"
    source.write_text(text)
    words = ["gcc", "-O2", "-g", "-std=gnu11", *WARNINGS, *flags, f"-I{ROOT / 'templates'}", str(source), "-pthread"]
    done = subprocess.run([*words, "-o", str(made)], capture_output=True, text=True, check=False)
    if done.returncode and "sanitize" in " ".join(flags) and "cannot find" in done.stderr:
        pytest.skip("this gcc has no such sanitizer")
    assert done.returncode == 0, done.stderr
    return made


def python(code: str, **variables: str) -> str:
    """What a new process prints, that finds the compiled layers of the tests."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    head = "import os, sys, numpy as np\nfrom framed import module\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "PYTHONPATH": paths, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_gcc
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined", "none"])
def test_blocks_and_threads_hold_under_many_callers(tmp_path: Path, sanitizer: str) -> None:
    flags = () if sanitizer == "none" else (f"-fsanitize={sanitizer}",)
    made = c_program(tmp_path, (ROOT / "tests" / "process_stress.c").read_text(), *flags)
    done = subprocess.run([str(made)], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr[:4000]


@needs_gcc
def test_the_header_compiles_with_the_shipped_flags_and_all_warnings(tmp_path: Path) -> None:
    math = [word for word in Flags().words() if word.startswith(("-O", "-f", "-m")) and word != "-fopenmp"]
    text = '#include "jaccomp_process.h"\nint main(void) { jc_free(jc_alloc(1)); return 0; }\n'
    c_program(tmp_path, text, *(word for word in math if word not in ("-fPIC", "-fvisibility=hidden")))


# -- memory


def pages(*shape: int) -> tuple[Any, Any]:
    return np.ones(shape), np.ones(shape[-1])


def test_a_dropped_result_serves_the_next_one() -> None:
    """What y = forward(x) in a loop costs is then what out= does."""
    x, g = pages(300, 500)
    forward = module("rmsnorm").forward
    y = forward(x, g)
    at = y.ctypes.data
    del y
    assert forward(x, g).ctypes.data == at


def test_a_result_in_use_is_nobody_elses() -> None:
    x, g = pages(300, 500)
    forward = module("rmsnorm").forward
    held = [forward(x * k, g, eps=0.0) for k in (1, 2)]
    view = forward(x, g)[7:9, ::3]
    others = [forward(x * -1, g) for _ in range(4)]
    np.testing.assert_array_equal(view, 1 / np.sqrt(1 + 1e-6))
    for one in held:
        np.testing.assert_array_equal(one, 1)
    starts = sorted(a.ctypes.data for a in (*held, view.base, *others))
    assert all(b - a >= view.base.nbytes for a, b in pairwise(starts))


def test_large_results_begin_on_a_cache_line_and_larger_ones_on_a_huge_page() -> None:
    x, g = pages(64, 64)
    assert module("rmsnorm").forward(x, g).nbytes == LARGE
    for rows, line in ((64, 64), (65, 64), (1000, 64), (4096, 2 << 20), (5000, 2 << 20)):
        assert module("rmsnorm").forward(np.ones((rows, 64)), g).ctypes.data % line == 0


def test_results_are_arrays_like_any_other() -> None:
    x, g = pages(200, 300)
    y = module("rmsnorm").forward(x, g)
    assert y.flags.owndata and y.flags.writeable and y.flags.c_contiguous and y.base is None
    kept = y.copy()
    y.resize((100, 300), refcheck=False)
    np.testing.assert_array_equal(y, kept[:100])
    y.resize((400, 300), refcheck=False)
    np.testing.assert_array_equal(y[:100], kept[:100])
    np.testing.assert_array_equal(y[100:], 0)


def test_idle_memory_is_given_back_when_asked_by_any_module() -> None:
    rmsnorm, void = module("rmsnorm"), module("void")
    rmsnorm.release_memory()
    x, g = pages(1000, 1000)
    rmsnorm.forward(x, g)
    assert void.release_memory() >= x.nbytes
    assert rmsnorm.release_memory() == 0


CODE = """
    rmsnorm = module("rmsnorm")
    x, g = np.ones((1000, 1000)), np.ones(1000)
    for rows in (1000, 900, 500, 200):
        rmsnorm.forward(x[:rows], g, threads=1)
    print(rmsnorm.release_memory())
"""


@pytest.mark.parametrize(("most", "low", "high"), [("0", 0, 0), ("5000000", 1, 5_000_000), ("-1", 16_000_000, 1 << 30)])
def test_at_most_so_many_bytes_lie_idle(most: str, low: int, high: int) -> None:
    assert low <= int(python(CODE, JACCOMP_IDLE_BYTES=most)) <= high


def test_results_of_many_threads_are_each_its_own() -> None:
    forward = module("rmsnorm").forward
    x, g = pages(200, 300)

    def work(k: int) -> bool:
        kept = [forward(x * k, g, eps=float(j)) for j in range(3)]
        return all(np.allclose(y, k / np.sqrt(k * k + j), rtol=1e-12) for j, y in enumerate(kept))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(1, 200)))


# -- threads


def test_calls_of_several_threads_at_once_give_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    x, W, g = rng.standard_normal((400, 300)), rng.standard_normal((200, 300)), rng.standard_normal(300)
    calls = [lambda t: module("linear").forward(x, W, threads=t), lambda t: module("rmsnorm").forward(x, g, threads=t)]
    wanted = [call(1) for call in calls]
    failed: list[int] = []

    def work(k: int) -> None:
        for round_ in range(20):
            one = (k + round_) % 2
            if not np.array_equal(calls[one](1 + (k + round_) % 5), wanted[one]):
                failed.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux tells how many threads there are")
@pytest.mark.skipif(not WIDE, reason="the BLAS computes products here")
def test_the_columns_of_few_rows_are_shared_by_threads() -> None:
    """20 rows, where the nest does not go by columns, are one block: but for this its threads had nothing to do."""
    code = """
    import jaccomp as jc
    cell, rng = jc.compile("lstm_cell"), np.random.default_rng(0)
    x, h, c = (rng.standard_normal((20, 300)) for _ in range(3))
    rest = [rng.standard_normal(s) for s in ((1200, 300), (1200, 300), 1200, 1200)]
    def results(threads):
        found, pullback = cell.vjp(x, h, c, *rest, threads=threads)
        return [*cell.forward(x, h, c, *rest, threads=threads), *pullback((x, h))]
    wanted = results(1)
    before = len(os.listdir("/proc/self/task"))
    cell.forward(x, h, c, *rest, threads=2)
    print(len(os.listdir("/proc/self/task")) - before)
    print(all(np.array_equal(a, b) for t in (2, 3, 4) for a, b in zip(wanted, results(t), strict=True)))
    """
    assert python(code).split() == ["1", "True"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_a_thread_begins_off_the_cpu_of_its_caller() -> None:
    """Behind its caller on one CPU it would wait for milliseconds, and the caller do all the work alone."""
    code = """
        x, n = np.ones((1024, 4096), np.float32), len(os.sched_getaffinity(0))
        before = set(os.listdir("/proc/self/task"))
        module("rmsnorm").forward(x, x[0], threads=2)
        (helper,) = set(os.listdir("/proc/self/task")) - before
        print(n - len(os.sched_getaffinity(int(helper))))
    """
    assert python(code) == "1"


def test_threads_default_to_the_cpus_that_a_process_may_use() -> None:
    code = """
        rmsnorm = module("rmsnorm")
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        before = len(os.listdir("/proc/self/task"))
        for _ in range(3):
            rmsnorm.forward(np.ones((2000, 1000)), np.ones(1000))
        print(len(os.listdir("/proc/self/task")) - before)
    """
    assert python(code, OMP_NUM_THREADS="8") == "0"


QUOTA = """
#include "jaccomp_process.h"
int main(int count, char **words) { (void)count; printf("%d\\n", jc_quota(words[1], words[2])); return 0; }
"""


@needs_gcc
@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("0::/", {}, 0),
        ("0::/", {"cpu.max": "max 100000"}, 0),
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "800000 100000"}, 2),
        ("0::/a/b", {"a/b/cpu.max": "10000 100000"}, 1),
        ("0::/not/here", {"cpu.max": "400000 100000"}, 4),
        ("4:memory:/\n1:cpu,x:/a", {"cpu,x/a/cpu.cfs_quota_us": "-1", "cpu,x/a/cpu.cfs_period_us": "1"}, 0),
        ("1:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "400", "cpu,cpuacct/a/cpu.cfs_period_us": "100"}, 4),
        ("2:cpuset:/\n1:cpu:/", {"cpu/cpu.cfs_quota_us": "120", "cpu/cpu.cfs_period_us": "100"}, 2),
        ("nonsense\n\n:::", {}, 0),
    ],
)  # fmt: skip
def test_the_quota_of_control_groups_is_counted_in_cpus(
    tmp_path: Path, groups: str, files: dict[str, str], cpus: int
) -> None:
    root = tmp_path / "cgroup"
    (tmp_path / "groups").write_text(groups + "\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    made = c_program(tmp_path, QUOTA)
    done = subprocess.run([str(made), str(tmp_path / "groups"), str(root)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == cpus


# -- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_runs_kernels_alone_and_in_threads_and_does_not_hang() -> None:
    """After kernels, matrix products and NumPy have run in several threads, forked while others still run."""
    code = """
        import signal, threading
        rng = np.random.default_rng(0)
        x, W, g = rng.standard_normal((600, 500)), rng.standard_normal((300, 500)), rng.standard_normal(500)
        linear, rmsnorm = module("linear"), module("rmsnorm")

        def results(threads):
            y, pullback = rmsnorm.vjp(x, g, threads=threads)
            return [y, *pullback(x), linear.forward(x, W, threads=threads), *linear.vjp(x, W)[1](x[:, :300])]

        wanted = [results(t) for t in (1, 3)][0]
        x @ W.T
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                results(2)

        others = [threading.Thread(target=busy) for _ in range(2)]
        for other in others:
            other.start()
        children = []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                fine = all(np.array_equal(a, b) for t in (1, 2, None) for a, b in zip(results(t), wanted))
                if fine:
                    grandchild = os.fork()
                    if grandchild == 0:
                        os._exit(not np.array_equal(results(2)[0], wanted[0]))
                    fine = os.waitpid(grandchild, 0)[1] == 0
                os._exit(not fine)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        stop.set()
        for other in others:
            other.join()
        print(codes, all(np.array_equal(a, b) for a, b in zip(results(2), wanted)))
    """
    assert python(code) == f"{[0] * 8} True"

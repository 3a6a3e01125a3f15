"""Work on threads and on a real cluster: the same numbers, in order, whoever is lost on the way."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaccomp as jc
from jaccomp import layers as L
from jaccomp.analysis.model import Model
from jaccomp.analysis.parallel import run
from jaccomp.analysis.study import Plan, study, work
from jaccomp.errors import UsageError
from jaccomp.runtime import Kernel

needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed: jaccomp[analysis]")
PATIENCE = 40  # seconds


def small(backend: str = "numpy") -> Model:
    rng = np.random.default_rng(0)
    parameters = {
        "fc1_W": rng.standard_normal((6, 4)), "fc1_b": rng.standard_normal(6),
        "fc2_W": rng.standard_normal((3, 6)), "fc2_b": np.zeros(3),
    }  # fmt: skip
    return Model(jc.chain("small", fc1=L.linear, act=L.tanh, fc2=L.linear), parameters, backend=backend)


def data(samples: int = 12) -> Any:
    return np.random.default_rng(1).standard_normal((samples, 4))


def divided(shared: int, task: int) -> int:
    return shared // task


def shifted(shared: int, task: int) -> int:
    return shared + task


# Pickles


@pytest.mark.parametrize("backend", ["numpy", "cython"])
def test_a_kernel_travels_as_its_layer_and_key(backend: str) -> None:
    kernel = jc.compile(L.tanh, backend=backend)
    sent = pickle.dumps(kernel)
    assert len(sent) < 10_000
    x = data()
    np.testing.assert_array_equal(pickle.loads(sent)(x), kernel(x))
    function, (*words, key) = kernel.__reduce__()
    with pytest.raises(UsageError, match=r"its key is 0000000 where it comes from, .* here"):
        function(*words, "0" * 7)
    assert key == kernel.spec_hash
    derived = jc.compile(L.tanh.vjp(), backend=backend)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(derived))(x, x), derived(x, x))


def test_a_model_travels_as_its_chain_and_parameters() -> None:
    model = small()
    before = model(data())
    model.chain.program  # noqa: B018 - derived, and not to be sent
    arrived = pickle.loads(pickle.dumps(model))
    assert "kernels" not in arrived.__dict__ and "program" not in arrived.chain.__dict__
    np.testing.assert_array_equal(arrived(data()), before)
    with pytest.raises(UsageError, match="it cannot be pickled: it does not know its layer"):
        pickle.dumps(Kernel(jc.compile("tanh").modules[0]))
    assert arrived.chain.serialise() == model.chain.serialise()


# Threads


def test_results_come_in_the_order_of_the_tasks() -> None:
    counts: list[int] = []
    assert run(shifted, 10, range(50), workers=4, step=counts.append) == list(range(10, 60))
    assert counts[-1] == 50 and counts == sorted(counts)
    assert run(shifted, 0, []) == []


def test_what_a_task_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run(divided, 1, [1, 0, 1], workers=2)


@pytest.mark.parametrize("workers", [3])
def test_numbers_do_not_depend_on_the_number_of_threads(workers: int) -> None:
    model = small()
    one, several = (study(model, data(), chosen=3, draws=2, workers=count).json() for count in (1, workers))
    assert one == several


# A cluster


@needs_dask
def test_a_scheduler_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaccomp.analysis.parallel.PATIENCE", 1)
    with pytest.raises(UsageError, match=r"scheduler 'tcp://127\.0\.0\.1:9': none answers there"):
        run(shifted, 0, [1], scheduler="tcp://127.0.0.1:9")


def test_a_cluster_without_dask_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"Dask is not installed.\n  python -m pip install 'jaccomp\[analysis\]'"):
        run(shifted, 0, [1], scheduler="tcp://127.0.0.1:9")


class Cluster:
    """A scheduler and two workers, each a process of its own, without a nanny that would bring one back."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.file = folder / "scheduler.json"
        self.folder = folder
        self.log = (folder / "log").open("wb")
        here = str(Path(__file__).parent)
        paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
        self.env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **settings}
        place = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.file))
        self.scheduler = self._start("scheduler", "--port", "0", *place)
        self.address = self._address()
        words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0")
        self.workers = [
            self._start("worker", self.address, *words, "--local-directory", str(folder / str(k))) for k in range(2)
        ]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words]
        return subprocess.Popen(command, env=self.env, cwd=self.folder, stdout=self.log, stderr=self.log)

    def _address(self) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                return str(json.loads(self.file.read_text())["address"])
            except (OSError, ValueError):
                time.sleep(0.1)
        pytest.fail(f"no scheduler started: {(self.folder / 'log').read_text()}")

    def close(self) -> None:
        for one in (*self.workers, self.scheduler):
            one.kill()
            one.wait()
        self.log.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def dies(shared: None, task: int) -> int:
    os._exit(task)


def slowly(shared: tuple[Model, Path], task: int) -> tuple[int, Any]:
    """A sample's output, late enough that a worker can be lost on the way, and the process that found it."""
    model, folder = shared
    (folder / f"{task} {os.getpid()}").touch()
    time.sleep(0.2)
    return os.getpid(), model(data()[task : task + 1])


@needs_dask
def test_a_cluster_that_loses_a_worker_has_the_same_numbers(cluster: Cluster, tmp_path: Path) -> None:
    from distributed import Client

    from jaccomp.analysis import parallel

    with Client(cluster.address, timeout=PATIENCE, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
    model, begun = small(), tmp_path / "begun"
    begun.mkdir()
    lost = cluster.workers[0]

    def lose(done: int) -> None:
        """Once both workers have begun some tasks, and most are still to be done, one is killed."""
        at_work = {name.name.split()[1] for name in begun.iterdir()}
        if lost.poll() is None and len(at_work) == 2:
            lost.kill()
            lost.wait()

    # `slowly` stands in a module that workers import by the path they were given.
    found = parallel.run(slowly, (model, begun), [k % 12 for k in range(24)], scheduler=cluster.address, step=lose)
    assert lost.poll() is not None, "no worker was lost"
    tried = [name.name for name in begun.iterdir()]
    assert len({name.split()[1] for name in tried}) == 2, "one worker did everything from the start"
    assert {pid for pid, _ in found[-6:]} == {cluster.workers[1].pid}
    for k, (_, y) in enumerate(found):
        np.testing.assert_array_equal(y, model(data()[k % 12 : k % 12 + 1]))
    # What is left of the cluster serves a whole study.
    ours, theirs = (study(model, data(), chosen=2, draws=2, scheduler=one) for one in (None, cluster.address))
    assert ours.json() == theirs.json()


def mortal(plan: Plan, task: Any) -> Any:
    """A task of a study. The first process that begins its second one is lost there, and what it had found with it."""
    folder, me = Path(os.environ["BEGUN"]), f"{os.getpid()} "
    again = any(one.name.startswith(me) for one in folder.iterdir())
    (folder / f"{me}{len(list(folder.iterdir()))}").touch()
    if again:
        with suppress(FileExistsError):
            (folder / "lost").touch(exist_ok=False)
            os._exit(1)
    return work(plan, task)


@needs_dask
def test_a_study_that_loses_a_worker_reports_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `jaccomp analyze --scheduler` runs: batches, samples by themselves and draws, on two processes and one."""
    (begun := tmp_path / "begun").mkdir()
    monkeypatch.setattr("jaccomp.analysis.study.work", mortal)
    made, model, counts = Cluster(tmp_path, BEGUN=str(begun)), small(), list[int]()
    try:
        found = study(
            model, data(300), chosen=5, draws=2, scheduler=made.address, step=lambda done, total: counts.append(total)
        )
        gone = [one.poll() for one in made.workers]
    finally:
        made.close()
    assert sorted(gone, key=str) == [1, None], "one worker is lost, and the other is there to the end"
    tasks = 3 + 5 + 1
    assert set(counts) == {tasks} and len(list(begun.iterdir())) - 1 >= tasks + 2, "two tasks of the lost one run again"
    monkeypatch.undo()
    assert found.json() == study(model, data(300), chosen=5, draws=2, workers=2).json()


@needs_dask
def test_a_task_that_kills_its_workers_is_refused(tmp_path: Path) -> None:
    made = Cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    try:
        with pytest.raises(
            UsageError, match=r"every worker that was given _one-.* was lost\.\n  See the workers' logs"
        ):
            run(dies, None, [1], scheduler=made.address)
    finally:
        made.close()


@needs_dask
def test_what_a_task_raises_on_a_cluster_is_raised(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError):
        run(divided, 1, [1, 0, 1], scheduler=cluster.address)

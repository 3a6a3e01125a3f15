"""Work over samples, layers and seeds: on threads of this process, or on the workers of a Dask cluster.

    run(gains_of, model, tasks)                                     as many threads as there are cores
    run(gains_of, model, tasks, scheduler="tcp://10.0.0.1:8786")    a cluster, by the address of its scheduler

Results come in the order of the tasks, and each is computed from its task and what they share alone, so the numbers are
those of one thread whatever ran them. A model travels as its chain and its parameters; each worker builds its kernels
or finds them in its own cache. A task whose worker is lost runs again on another one; where none is left, the run waits
for one to join. A task under which workers are lost again and again is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

from jaccomp.errors import UsageError

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Found = TypeVar("Found")
PATIENCE = 10  # seconds that a scheduler may take to answer


def run(
    function: Callable[[Shared, Task], Found],
    shared: Shared,
    tasks: Sequence[Task],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    step: Callable[[int], None] | None = None,
) -> list[Found]:
    """`[function(shared, task) for task in tasks]`; `step` is told, on this thread, how many are done.

    On a cluster `function`, `shared`, tasks and results are pickled, so `function` stands in a module that workers can
    import. What a task raises is raised here. Raises `UsageError` where there is no such scheduler, or no Dask.
    """
    if scheduler is not None:
        return _on_cluster(function, shared, tasks, scheduler, step or _ignore)
    return _on_threads(function, shared, tasks, workers or os.cpu_count() or 1, step or _ignore)


def _ignore(done: int) -> None:
    pass


def _on_threads(
    function: Callable[[Shared, Task], Found],
    shared: Shared,
    tasks: Sequence[Task],
    workers: int,
    step: Callable[[int], None],
) -> list[Found]:
    with ThreadPoolExecutor(max(1, min(workers, len(tasks)))) as pool:
        futures = [pool.submit(function, shared, task) for task in tasks]
        try:
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for one in finished:
                    one.result()
                step(len(futures) - len(pending))
        finally:
            for one in futures:
                one.cancel()
        return [one.result() for one in futures]


def _on_cluster(
    function: Callable[[Shared, Task], Found],
    shared: Shared,
    tasks: Sequence[Task],
    address: str,
    step: Callable[[int], None],
) -> list[Found]:
    what = f"scheduler {address!r}"
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise UsageError(what, "Dask is not installed.", "python -m pip install 'jaccomp[analysis]'") from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(what, f"none answers there: {error or type(error).__name__}", "dask scheduler") from None
    with client:
        # A task of its own, not scattered data: the scheduler can make it again when the worker that holds it is lost.
        held = client.submit(_held, shared, pure=False)
        futures = [client.submit(_one, function, held, task, pure=False) for task in tasks]
        try:
            for done, one in enumerate(as_completed(futures, loop=client.loop), 1):
                if one.status == "error":
                    one.result()
                step(done)
            found: list[Found] = client.gather(futures)
        except KilledWorker as error:
            raise UsageError(
                what, f"every worker that was given {error.task} was lost.", "See the workers' logs."
            ) from None
        return found


def _held(shared: Shared) -> Shared:
    return shared


def _one(function: Callable[[Shared, Task], Found], shared: Shared, task: Task) -> Found:
    return function(shared, task)

"""The local backend: tasks run on threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, Any

from fruits.executor import Executor, Item, Outcome, Result, one_thread, run_with_retries, worker_count

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster

TASKS_PER_THREAD = 3  # submitted at a time: no thread waits for the driver, and memory does not grow with the job


class LocalExecutor(Executor):
    """Threads of this process; the reference for the other engines.

    Parameters
    ----------
    workers : int, default 1
        The number of threads.
    """

    name = "local"

    def __init__(self, *, workers: int = 1) -> None:
        self._workers = worker_count(workers)

    def __repr__(self) -> str:
        return f"LocalExecutor(workers={self._workers})"

    @classmethod
    def from_cluster(cls, cluster: Cluster) -> LocalExecutor:
        """Return an executor with as many threads as the cluster has workers."""
        return cls(workers=cluster.workers or 1)

    @property
    def parallelism(self) -> int:
        """The number of threads."""
        return self._workers

    def outcomes(
        self, task: Callable[[Item, Any], Result], items: Sequence[Item], shared: Any, retries: int
    ) -> Generator[tuple[int, Outcome[Result]], None, None]:
        """Yield positions and outcomes; see :meth:`fruits.executor.Executor.outcomes`."""
        unsubmitted = iter(range(len(items)))
        running: dict[Future[Outcome[Result]], int] = {}
        with one_thread(), ThreadPoolExecutor(self._workers, thread_name_prefix="fruits") as pool:
            try:
                while True:
                    for index in islice(unsubmitted, TASKS_PER_THREAD * self._workers - len(running)):
                        running[pool.submit(run_with_retries, task, items[index], shared, retries)] = index
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

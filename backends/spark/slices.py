"""Slices: the items of one map, in batches that run as Spark jobs.

A slice is about as many items as run at a time, each in a partition of its own job. A few slices run concurrently, so
that no slot waits for the end of a slice, results arrive while the map runs, and Spark's memory does not grow with the
number of items.
"""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import InitVar, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from py4j.protocol import Py4JError
from pyspark.serializers import CloudPickleSerializer

from backends.spark.session import is_lost
from fruits.executor import WORKER_DIED, Outcome, run_with_retries, worker_loss_error

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

CONCURRENT = 3
SCHEMA = "position long, outcome binary"


@dataclass(eq=False)
class Slices:
    """The slices of one map: not started, running, and to be retried.

    The shared value travels with the first slice only, because it may have megabytes. A worker process that lacks it
    returns no outcome, and the item is sent again with the value.

    Parameters
    ----------
    session : pyspark.sql.SparkSession
    pool : concurrent.futures.ThreadPoolExecutor
        Each running slice blocks one thread.
    task : callable
    items : sequence
    shared : object
    retries : int
    """

    session: SparkSession
    pool: ThreadPoolExecutor
    task: Callable[[Any, Any], Any]
    items: Sequence[Any]
    shared: InitVar[Any]
    retries: int

    def __post_init__(self, shared: Any) -> None:
        self._payload = CloudPickleSerializer().dumps(shared)
        self._token = uuid4().hex  # names the shared value, and the group of Spark jobs
        self._delivered = False
        self._deaths: Counter[int] = Counter()
        self._unstarted = deque(range(len(self.items)))
        self._retried: deque[tuple[int, ...]] = deque()  # sent with the shared value
        self._running: dict[Future[list[Outcome[Any] | None]], tuple[int, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._unstarted or self._retried or self._running)

    def start(self, parallelism: int) -> None:
        """Start as many slices as may run concurrently."""
        # The death of a worker fails its whole slice. Without retries, the other items must not fail: one per slice.
        width, limit = (parallelism, CONCURRENT) if self.retries else (1, CONCURRENT * parallelism)
        while (self._unstarted or self._retried) and len(self._running) < limit:
            if self._retried:
                self._start(self._retried.popleft(), deliver=True)
            else:
                indices = tuple(self._unstarted.popleft() for _ in range(min(width, len(self._unstarted))))
                self._start(indices, deliver=not self._delivered)
                self._delivered = True

    def _start(self, indices: tuple[int, ...], *, deliver: bool) -> None:
        function = partial(
            _run_slice,
            task=self.task,
            items=[self.items[index] for index in indices],
            deaths=[self._deaths[index] for index in indices],
            token=self._token,
            payload=self._payload if deliver else None,
            retries=self.retries,
        )
        self._running[self.pool.submit(self._run, function, len(indices))] = indices

    def _run(
        self, function: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]], count: int
    ) -> list[Outcome[Any] | None]:
        """Run a slice on a thread of the pool, and return its outcomes in order."""
        self.session.sparkContext.setJobGroup(self._token, "fruits", interruptOnCancel=True)
        rows = self.session.range(0, count, 1, count).mapInArrow(function, SCHEMA).collect()
        outcomes = {row.position: row.outcome for row in rows}
        return [
            None if outcome is None else pickle.loads(bytes(outcome))  # nosec B301  # of this job
            for outcome in (outcomes[position] for position in range(count))
        ]

    def wait(self) -> Iterator[tuple[int, Outcome[Any]]]:
        """Wait for a slice, and yield the index and outcome of its items; schedule the retries of the others."""
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            indices = self._running.pop(future)
            try:
                outcomes = future.result()
            except Exception as error:  # usually the death of a worker
                if is_lost(self.session):
                    raise
                self._retry(indices, error)
                continue
            completed = dict(zip(indices, outcomes, strict=True))
            for index, outcome in completed.items():
                if outcome is not None:
                    yield index, outcome
            if undelivered := tuple(index for index, outcome in completed.items() if outcome is None):
                self._retried.append(undelivered)

    def _retry(self, indices: Sequence[int], error: Exception) -> None:
        """Retry the items of a failed slice one by one: the failure does not identify the item that caused it."""
        self._deaths.update(indices)
        for index in indices:
            if self._deaths[index] > self.retries:
                raise worker_loss_error(self.items[index], self._deaths[index], _cause(error)) from error
        self._retried.extend((index,) for index in indices)

    def cancel(self) -> None:
        """Return when no slice is running. Repeats the request: Spark ignores it for a job that has not started."""
        for future in self._running:
            future.cancel()
        while any(not future.done() for future in self._running):
            with suppress(Py4JError, OSError):  # Java was killed, and its jobs with it
                self.session.sparkContext.cancelJobGroup(self._token)
            wait(self._running, timeout=0.1)


_shared: tuple[str, Any] | None = None  # in a worker process: the token and shared value of the last map


def _run_slice(
    batches: Iterable[pa.RecordBatch],
    *,
    task: Callable[[Any, Any], Any],
    items: Sequence[Any],
    deaths: Sequence[int],
    token: str,
    payload: bytes | None,
    retries: int,
) -> Iterator[pa.RecordBatch]:
    """Run the items at the given positions, in a worker process; yield nulls if it lacks the shared value."""
    import pyarrow as pa
    from pyspark import TaskContext

    def run(item: Any, _: None) -> Any:
        """Unpickle the shared value at first, so that one that this worker cannot unpickle fails like the task."""
        global _shared
        if _shared is None or _shared[0] != token:
            assert payload is not None
            _shared = token, pickle.loads(payload)  # nosec B301  # of this job
        return task(item, _shared[1])

    is_delivered = payload is not None or (_shared is not None and _shared[0] == token)
    context = TaskContext.get()
    spark_retries = context.attemptNumber() if context is not None else 0  # a cluster may set spark.task.maxFailures
    for batch in batches:
        positions = batch.column(0).to_pylist()
        outcomes = [
            pickle.dumps(run_with_retries(run, items[position], None, retries, deaths[position] + spark_retries))
            if is_delivered
            else None
            for position in positions
        ]
        yield pa.RecordBatch.from_arrays(
            [pa.array(positions, pa.int64()), pa.array(outcomes, pa.binary())], ["position", "outcome"]
        )


def _cause(error: Exception) -> str:
    message = str(error).strip()
    return WORKER_DIED if "Python worker exited unexpectedly" in message else message

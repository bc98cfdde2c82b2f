"""The Spark backend: a session on this machine, on a cluster, or one that is handed in.

It uses DataFrames and ``mapInArrow`` alone. A job of Spark is a *slice*: about as many items as run at a time, each in
a partition of its own. A few slices are in flight, so that no slot waits for the end of a slice, results arrive
while the map runs, and Spark never holds a whole job.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from py4j.protocol import Py4JError
from pyspark.serializers import CloudPickleSerializer

from backends.spark.session import active_session, start_session, stop_session
from fruits.errors import FruitsError, JobError, SettingsError
from fruits.executor import WORKER_DIED, Executor, Outcome, attempt, given_up

if TYPE_CHECKING:
    from typing import Self

    import pyarrow as pa
    from pyspark.sql import SparkSession

    from fruits.clusters.cluster import Cluster
    from fruits.model.scaled_pca import ScaledPCA

__all__ = ["SparkExecutor"]

Item = TypeVar("Item")
Result = TypeVar("Result")

SLICES = 3  # in flight
SCHEMA = "position long, outcome binary"


class SparkExecutor(Executor):
    """Python workers of a Spark session.

    Without `session`, it starts a session and the Java that it runs in, and ends both. A session that is active in this
    process already is used where nothing else is asked for, and left open: there can be only one.

    Parameters
    ----------
    workers : int, optional
        How many tasks run at the same time on this machine; default: the number of cores.
    master : str, optional
        The master of a cluster, such as ``spark://host:7077`` or ``yarn``, to use instead of this machine. Its workers
        need Python and this package.
    session : pyspark.sql.SparkSession, optional
        A session to use instead; it is left open.
    conf : mapping of str to str, optional
        Settings of Spark for the session that is started; they win over those made here.
    dashboard_address : str, optional
        Where a session on this machine shows Spark's own pages, such as ``127.0.0.1:4040``; default: nowhere.

    Raises
    ------
    SettingsError
        Options contradict each other; and at the start: no Java suits this PySpark, or another session is active.
    """

    name = "spark"

    def __init__(
        self,
        *,
        workers: int | None = None,
        master: str | None = None,
        session: SparkSession | None = None,
        conf: Mapping[str, str] | None = None,
        dashboard_address: str | None = None,
    ) -> None:
        self._asked = workers is not None or master is not None or bool(conf)
        if (session is not None and self._asked) or (workers is not None and master is not None):
            raise SettingsError("spark: give workers (on this machine) or master, and perhaps conf; or session alone.")
        self._lent = session
        self._workers = workers or os.cpu_count() or 1
        self._master = master
        self._conf = conf or {}
        self._dashboard_address = dashboard_address
        self._opened = ExitStack()

    @classmethod
    def of(cls, cluster: Cluster) -> Self:
        """Return an executor on the cluster's master, or on this machine."""
        return cls(
            workers=cluster.workers,
            master=cluster.address,
            conf=cluster.conf,
            dashboard_address=cluster.dashboard,
        )

    @cached_property
    def _session(self) -> SparkSession:
        session = self._lent or active_session(configured=self._asked)
        if session is None:
            session = start_session(self._workers, self._master, self._conf, self._dashboard_address)
            self._opened.callback(stop_session, session)
        return session

    @property
    def parallelism(self) -> int:
        """The cores that Spark has now."""
        with self._unless_gone():
            return self._session.sparkContext.defaultParallelism

    @property
    def dashboard(self) -> str | None:
        """The address of Spark's own pages; None where ``spark.ui.enabled`` is off, as in a session started here."""
        with self._unless_gone():
            context = self._session.sparkContext
            return context.uiWebUrl if context.getConf().get("spark.ui.enabled", "true") == "true" else None

    def map(
        self,
        task: Callable[[Item, Any], Result],
        items: Sequence[Item],
        *,
        shared: Any = None,
        retries: int = 2,
        progress: Callable[[int, Outcome[Result]], None] | None = None,
    ) -> list[Result]:
        """Return the results in item order; see :meth:`fruits.executor.Executor.map`."""
        payload = CloudPickleSerializer().dumps(shared)
        token = uuid4().hex
        results: dict[int, Result] = {}
        deaths: Counter[int] = Counter()
        fresh = deque(range(len(items)))
        again: deque[tuple[int, ...]] = deque()  # slices to run once more, with the shared value
        running: dict[Future[list[Outcome[Result] | None]], tuple[int, ...]] = {}
        delivered = False

        def submit(indices: tuple[int, ...], deliver: bool) -> None:
            function = partial(
                _run_slice,
                task=task,
                items=[items[index] for index in indices],
                deaths=[deaths[index] for index in indices],
                token=token,
                payload=payload if deliver else None,
                retries=retries,
            )
            running[pool.submit(self._collect, token, function, len(indices))] = indices

        with self._unless_gone(), ThreadPoolExecutor(SLICES, thread_name_prefix="fruits-spark") as pool:
            try:
                while fresh or again or running:
                    # A slice that loses a worker fails as a whole. Without a second chance, an item runs alone.
                    width = self.parallelism if retries else 1
                    while (fresh or again) and len(running) < SLICES * (1 if retries else self.parallelism):
                        if again:
                            submit(again.popleft(), True)
                        else:
                            submit(tuple(fresh.popleft() for _ in range(min(width, len(fresh)))), not delivered)
                            delivered = True
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        indices = running.pop(future)
                        try:
                            outcomes = future.result()
                        except Exception as error:  # Spark gave it up, mostly because a worker died
                            if self._is_gone():
                                raise
                            deaths.update(indices)
                            for index in indices:
                                if deaths[index] > retries:
                                    raise given_up(items[index], deaths[index], _why(error)) from error
                            again.extend((index,) for index in indices)
                            continue
                        for index, outcome in zip(indices, outcomes, strict=True):
                            if outcome is None:
                                continue
                            results[index] = outcome.result()
                            if progress is not None:
                                progress(index, outcome)
                        missing = tuple(i for i, outcome in zip(indices, outcomes, strict=True) if outcome is None)
                        if missing:
                            again.append(missing)
            finally:
                self._cancel(token, running)
        return [results[index] for index in range(len(items))]

    def fit_native(self, features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
        """Return what Spark ML's StandardScaler and PCA fit; see :meth:`fruits.executor.Executor.fit_native`."""
        from backends.spark.estimators import fit

        with self._unless_gone():
            return fit(self._session, features, rows, components)

    def check_native(self) -> None:
        """Do nothing: Spark brings its estimators; see :meth:`fruits.executor.Executor.check_native`."""

    def start(self) -> None:
        """Bring up the Python workers, with a task for each."""
        self.map(_nothing, range(self.parallelism))

    def close(self) -> None:
        """Stop the session that was started here, and its Java."""
        self._opened.close()

    @contextmanager
    def _unless_gone(self) -> Iterator[None]:
        """Say in our words that Spark is gone, whatever came of it."""
        try:
            yield
        except Exception as error:
            if isinstance(error, FruitsError) or not self._is_gone():
                raise
            raise JobError(
                "Spark is gone: its Java was killed or has crashed, or its cluster has ended the application. "
                "What is finished is kept: start the same command again."
            ) from error

    def _is_gone(self) -> bool:
        """Tell whether the session cannot run anything any more, as when its Java was killed."""
        try:
            return bool(self._session.sparkContext._jsc.sc().isStopped())
        except (Py4JError, OSError):
            return True

    def _collect(
        self, group: str, function: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]], count: int
    ) -> list[Outcome[Any] | None]:
        """Run a slice, in a thread of its own, and return its outcomes in order."""
        self._session.sparkContext.setJobGroup(group, "fruits", interruptOnCancel=True)
        found = self._session.range(0, count, 1, count).mapInArrow(function, SCHEMA).collect()
        outcomes = {row.position: row.outcome for row in found}
        return [
            None if outcome is None else pickle.loads(bytes(outcome))  # nosec B301  # of this job
            for outcome in (outcomes[position] for position in range(count))
        ]

    def _cancel(self, group: str, running: Mapping[Future[Any], object]) -> None:
        """Return when no slice runs any more; a slice that only just starts has to be cancelled again."""
        for future in running:
            future.cancel()
        while running and any(not future.done() for future in running):
            with suppress(Py4JError, OSError):  # Java is gone, and what ran in it too
                self._session.sparkContext.cancelJobGroup(group)
            wait(running, timeout=0.1)


_shared: tuple[str, Any] | None = None  # in a Python worker: the value of the last map, and whose it is


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
    """Run the items at the given positions, in a Python worker.

    The shared value travels with the first slice alone. A process that has not got it says so, with a null, and is
    sent it with the item, so that megabytes do not travel with each slice.
    """
    import pyarrow as pa
    from pyspark import TaskContext

    global _shared
    if payload is not None and (_shared is None or _shared[0] != token):
        _shared = token, pickle.loads(payload)  # nosec B301  # of this job
    context = TaskContext.get()
    again = (
        context.attemptNumber() if context is not None else 0
    )  # of Spark's own, where a cluster's settings ask for it
    for batch in batches:
        positions = batch.column(0).to_pylist()
        outcomes = [
            pickle.dumps(attempt(task, items[position], _shared[1], retries, deaths[position] + again))
            if _shared is not None and _shared[0] == token
            else None
            for position in positions
        ]
        yield pa.RecordBatch.from_arrays(
            [pa.array(positions, pa.int64()), pa.array(outcomes, pa.binary())], ["position", "outcome"]
        )


def _nothing(item: object, shared: object) -> None:
    """Do nothing."""


def _why(error: Exception) -> str:
    """Return why Spark gave a slice up, in our words where a worker died."""
    words = str(error).strip()
    return WORKER_DIED if "Python worker exited unexpectedly" in words else words

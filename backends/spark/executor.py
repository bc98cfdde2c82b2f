"""The Spark backend: a session on this machine, on a cluster, or given by the caller.

It uses DataFrames and ``mapInArrow`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backends.spark.session import active_session, is_lost, start_session, stop_session
from backends.spark.slices import CONCURRENT, Slices
from fruits.errors import FruitsError, JobError, SettingsError
from fruits.executor import Executor, Item, Outcome, Result, worker_count
from fruits.machine.cpus import available_cpus

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from fruits.clusters.cluster import Cluster
    from fruits.model.scaled_pca import ScaledPCA


class SparkExecutor(Executor):
    """Python workers of a Spark session.

    Without `session`, it starts a session with its own Java process, and stops both. If this process already has an
    active session and no argument requires another, it uses that one and leaves it open: Spark allows only one.

    Parameters
    ----------
    workers : int, optional
        The number of concurrent tasks on this machine; default: the number of available CPUs.
    master : str, optional
        The master of a cluster, such as ``spark://host:7077`` or ``yarn``, to use instead of this machine. Its workers
        need Python and this package.
    session : pyspark.sql.SparkSession, optional
        A session to use instead; it is left open.
    conf : mapping of str to str, optional
        Spark settings of a started session; they override the defaults of this class.
    dashboard_address : str, optional
        The address of Spark's UI for a session on this machine, such as ``127.0.0.1:4040``; default: no UI.

    Raises
    ------
    SettingsError
        Arguments contradict each other; at the start, no Java suits this PySpark, or another session is active.
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
        self._configured = workers is not None or master is not None or bool(conf)
        if (session is not None and self._configured) or (workers is not None and master is not None):
            raise SettingsError("spark: give workers (on this machine) or master, and perhaps conf; or session alone.")
        self._given_session = session
        self._workers = worker_count(available_cpus() if workers is None else workers)
        self._master = master
        self._conf = conf or {}
        self._dashboard_address = dashboard_address
        self._opened = ExitStack()

    def __repr__(self) -> str:
        if self._given_session is not None:
            return f"SparkExecutor(session={self._given_session!r})"
        return f"SparkExecutor(master={self._master!r})" if self._master else f"SparkExecutor(workers={self._workers})"

    @classmethod
    def from_cluster(cls, cluster: Cluster) -> SparkExecutor:
        """Return an executor on the cluster's master, or on this machine."""
        return cls(
            workers=cluster.workers,
            master=cluster.address,
            conf=cluster.conf,
            dashboard_address=cluster.dashboard,
        )

    @cached_property
    def _session(self) -> SparkSession:
        session = self._given_session or active_session(configured=self._configured)
        if session is None:
            session = start_session(self._workers, self._master, self._conf, self._dashboard_address)
            self._opened.callback(stop_session, session)
        return session

    @property
    def parallelism(self) -> int:
        """The current number of cores of the Spark application."""
        with self._lost_session_translated():
            return self._session.sparkContext.defaultParallelism

    @property
    def dashboard(self) -> str | None:
        """The address of Spark's UI; None if ``spark.ui.enabled`` is false, the default of a started session."""
        with self._lost_session_translated():
            context = self._session.sparkContext
            return context.uiWebUrl if context.getConf().get("spark.ui.enabled", "true") == "true" else None

    def outcomes(
        self, task: Callable[[Item, Any], Result], items: Sequence[Item], shared: Any, retries: int
    ) -> Generator[tuple[int, Outcome[Result]], None, None]:
        """Yield positions and outcomes; see :meth:`fruits.executor.Executor.outcomes`."""
        with (
            self._lost_session_translated(),
            ThreadPoolExecutor(CONCURRENT, thread_name_prefix="fruits-spark") as pool,
        ):
            slices = Slices(self._session, pool, task, items, shared, retries)
            try:
                while slices:
                    slices.start(self.parallelism)
                    yield from slices.wait()
            finally:
                slices.cancel()

    def check_native(self) -> None:
        """Do nothing: Spark includes its estimators; see :meth:`fruits.executor.NativeSolver.check_native`."""

    def fit_native(self, features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
        """Return the model that Spark ML fits; see :meth:`fruits.executor.NativeSolver.fit_native`."""
        from backends.spark.estimators import fit

        with self._lost_session_translated():
            return fit(self._session, features, rows, components)

    def start(self) -> None:
        """Start the Python workers, with one empty task for each."""
        self.map(_nothing, range(self.parallelism))

    def close(self) -> None:
        """Stop the session that this executor started, and its Java process; if it is used again, it starts another."""
        self._opened.close()
        self.__dict__.pop("_session", None)

    @contextmanager
    def _lost_session_translated(self) -> Iterator[None]:
        """Raise a ``JobError`` in place of any error that follows the loss of the session."""
        try:
            yield
        except Exception as error:
            started = self.__dict__.get("_session")  # not started again
            if isinstance(error, FruitsError) or started is None or not is_lost(started):
                raise
            raise JobError(
                "Spark is gone: its Java process was killed or crashed, or its cluster ended the application. "
                "Completed work is kept: run the same command again to resume."
            ) from error


def _nothing(item: object, shared: object) -> None:
    """Do nothing."""

"""The Dask backend: a cluster of single-threaded processes on this machine, or one that is running already."""

from __future__ import annotations

import importlib.util
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import cloudpickle
from distributed import CancelledError, Client, Future, KilledWorker, WorkerPlugin, as_completed, get_worker

from backends.dask.cluster import SteadyCluster, attach, local_cluster
from fruits.errors import JobError, SettingsError, TaskError
from fruits.executor import RETRY_DELAY_SECONDS, WORKER_DIED, Executor, Outcome, attempt, given_up

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster
    from fruits.model.scaled_pca import ScaledPCA

__all__ = ["DaskExecutor"]

Item = TypeVar("Item")
Result = TypeVar("Result")

TASKS_PER_SLOT = 3  # submitted at a time: enough to hide the way to the scheduler, and it never holds a whole job
START_SECONDS = 120
LOOK_SECONDS = 5  # between two looks whether workers start at all
ANSWER_SECONDS = 30  # in which a scheduler that is asked something has answered
DELIVERIES = 5  # times that a shared value is handed out, where workers die meanwhile
SLOTS_SECONDS = 1.0  # for which their number holds: to ask with each task would take as long as to submit one


class DaskExecutor(Executor):
    """Workers of a Dask cluster.

    Without `address` and `client`, it starts single-threaded worker processes on this machine, reachable from this
    machine only, and closes them at the end.

    Parameters
    ----------
    workers : int, optional
        The number of worker processes to start; default: the number of cores.
    address : str, optional
        The scheduler of a running cluster, such as ``tcp://host:8786``, to use instead. Its workers need this package.
    client : distributed.Client, optional
        A client to use instead; it is left open.
    memory_limit : str, default "auto"
        At which size a started worker is restarted, such as ``"2GiB"``; ``"auto"`` is its share of the memory.
    dashboard_address : str, optional
        Where a started cluster shows Dask's dashboard, such as ``127.0.0.1:8787``; default: nowhere.

    Raises
    ------
    SettingsError
        Options contradict each other; and at the start: no scheduler answers at `address`, or it runs other versions.
    """

    name = "dask"

    def __init__(
        self,
        *,
        workers: int | None = None,
        address: str | None = None,
        client: Client | None = None,
        memory_limit: str = "auto",
        dashboard_address: str | None = None,
    ) -> None:
        if sum(option is not None for option in (workers, address, client)) > 1:
            raise SettingsError("dask: give one of workers (to start), address (to attach to) and client, not several.")
        self._address = address
        self._lent = client
        self._workers = 0 if address or client else workers or os.cpu_count() or 1  # to start, and to wait for
        self._memory_limit = memory_limit
        self._dashboard_address = dashboard_address
        self._opened = ExitStack()
        self._cluster: SteadyCluster | None = None

    @classmethod
    def of(cls, cluster: Cluster) -> Self:
        """Return an executor that attaches to the cluster's address, or starts its workers on this machine."""
        if cluster.dashboard is not None and importlib.util.find_spec("bokeh") is None:
            raise SettingsError(
                f"The cluster {cluster.name} is to have a dashboard, and bokeh, which draws it, is not installed. "
                "Install it with: pip install 'dask[diagnostics]', or leave `dashboard` out."
            )
        return cls(workers=cluster.workers, address=cluster.address, dashboard_address=cluster.dashboard)

    @cached_property
    def _client(self) -> Client:
        if self._lent is not None:
            return self._lent
        if self._address is not None:
            client = attach(self._address)
        else:
            opened = local_cluster(self._workers, self._memory_limit, self._dashboard_address)
            self._cluster = cluster = self._opened.enter_context(opened)
            client = Client(cluster.scheduler_address, loop=cluster.loop, set_as_default=False)
        self._opened.callback(client.close)
        return client

    @property
    def parallelism(self) -> int:
        """The threads of all workers that there are now."""
        try:
            return self._workers or max(1, sum(self._client.nthreads(callback_timeout=ANSWER_SECONDS).values()))
        except TimeoutError as error:
            raise JobError(
                f"The Dask scheduler has not answered for {ANSWER_SECONDS} seconds. What is finished is kept: start "
                "the same command again, once it is well."
            ) from error
        except OSError as error:
            raise _gone(error) from error

    @property
    def dashboard(self) -> str | None:
        """The address of the scheduler's dashboard; None where a cluster was started without one."""
        if self._workers and self._dashboard_address is None:
            return None
        try:
            return str(self._client.dashboard_link)
        except KeyError:  # the scheduler serves none
            return None
        except OSError as error:
            raise _gone(error) from error

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
        results: dict[int, Result] = {}
        deaths: Counter[int] = Counter()
        fresh = iter(range(len(items)))
        running: dict[Future[Outcome[Result]], int] = {}
        completed = as_completed(loop=self._client.loop)
        slots, asked = self.parallelism, time.monotonic()
        with self._delivered(shared) as name:

            def submit(index: int) -> None:
                call = cloudpickle.dumps((task, items[index]))  # bytes: Dask must not look for graphs in an item
                key = f"{name}-{index}-{deaths[index]}"
                future = self._client.submit(_run, call, name, retries, deaths[index], key=key, pure=False)
                running[future] = index
                completed.add(future)

            try:
                while True:
                    if time.monotonic() >= asked + SLOTS_SECONDS:
                        slots, asked = self.parallelism, time.monotonic()
                    for index in islice(fresh, max(0, TASKS_PER_SLOT * slots - len(running))):
                        submit(index)
                    if not running:
                        break
                    future = next(completed)
                    index = running.pop(future)
                    try:
                        outcome = future.result()
                    except KilledWorker as error:
                        deaths[index] += 1
                        if deaths[index] > retries:
                            raise given_up(items[index], deaths[index], WORKER_DIED) from error
                        submit(index)
                        continue
                    except (CancelledError, OSError) as error:
                        raise _gone(error) from error
                    except Exception as error:  # the call or the result could not travel
                        raise TaskError(f"{items[index]} failed. {type(error).__name__}: {error}") from error
                    results[index] = outcome.result()
                    if progress is not None:
                        progress(index, outcome)
            finally:
                if self._client.status == "running":
                    self._client.cancel(list(running))
        return [results[index] for index in range(len(items))]

    def fit_native(self, features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
        """Return what dask-ml's StandardScaler and PCA fit; see :meth:`fruits.executor.Executor.fit_native`."""
        self.check_native()
        from backends.dask.estimators import fit

        self._wait(min(self._workers, 1))
        with self._client.as_current():
            return fit(features, rows, components)

    def check_native(self) -> None:
        """Raise where dask-ml is not installed; see :meth:`fruits.executor.Executor.check_native`."""
        if importlib.util.find_spec("dask_ml") is None:
            raise SettingsError(
                "--solver native: dask-ml is not installed. Install it with: pip install 'fruits[native]', "
                "or choose --solver exact."
            )

    def start(self) -> None:
        """Connect, and wait for all the workers that are started here."""
        self._wait(self._workers)

    def close(self) -> None:
        """Close the client and the cluster that were opened here."""
        self._opened.close()

    def _wait(self, workers: int) -> None:
        client = self._client
        deadline = time.monotonic() + START_SECONDS
        while workers:
            try:
                client.wait_for_workers(workers, timeout=LOOK_SECONDS)
                return
            except TimeoutError as error:
                if self._cluster is not None and self._cluster.cannot_start:
                    raise JobError(
                        f"Dask workers end as they start, {self._cluster.failed_starts} times so far; "
                        "what they said is on stderr."
                    ) from error
                if time.monotonic() > deadline:
                    raise JobError(f"Dask workers did not start within {START_SECONDS} seconds: {error}.") from error

    @contextmanager
    def _delivered(self, shared: Any) -> Iterator[str]:
        """Hold `shared` on every worker, also on those that start later; yield the name that it goes by."""
        name = f"fruits-{uuid4().hex}"
        plugin = _Shared(cloudpickle.dumps(shared))
        self._wait(min(self._workers, 1))  # the others join as they come
        for told in range(DELIVERIES):
            try:
                self._client.register_plugin(plugin, name=name)
                break
            except ModuleNotFoundError as error:
                raise SettingsError(
                    f"The workers of {self._client} lack a package: {error}. "
                    "Install on them what is installed here: pip install 'fruits[dask]'."
                ) from error
            except OSError as error:  # a worker died while it was told, and the scheduler may not know yet
                if told == DELIVERIES - 1 or self._client.status != "running":
                    raise _gone(error) from error
                time.sleep(RETRY_DELAY_SECONDS * 2**told)
        try:
            yield name
        finally:
            if self._client.status == "running":
                with suppress(OSError):  # from a worker that died just now, and has nothing left to forget
                    self._client.unregister_worker_plugin(name)


class _Shared(WorkerPlugin):
    """The shared value on one worker. The scheduler gives it to every worker that joins, so no death can lose it."""

    def __init__(self, payload: bytes) -> None:
        self._payload: bytes | None = payload

    def setup(self, worker: Any) -> None:
        self._lock = threading.Lock()

    def value(self) -> Any:
        """Unpickle on first use, in a task's thread: it may take seconds, and the worker has to answer meanwhile."""
        with self._lock:
            if self._payload is not None:
                self._value, self._payload = pickle.loads(self._payload), None  # nosec B301  # of this job
            return self._value


def _run(call: bytes, name: str, retries: int, deaths: int) -> Outcome[Any]:
    task, item = pickle.loads(call)  # nosec B301  # of this job
    shared: Any = get_worker().plugins[name]
    return attempt(task, item, shared.value(), retries, deaths)


def _gone(error: Exception) -> JobError:
    return JobError(f"The Dask scheduler is gone ({error}). What is finished is kept: start the same command again.")

"""The Dask backend: single-threaded worker processes on this machine, or a running cluster."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import cloudpickle
from distributed import Client

from backends.dask.cluster import ReplacingCluster, attach, local_cluster
from backends.dask.submissions import Submissions, scheduler_lost
from backends.dask.worker import SharedValue
from fruits.errors import JobError, SettingsError
from fruits.executor import RETRY_DELAY_SECONDS, Executor, Outcome

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster
    from fruits.model.scaled_pca import ScaledPCA

__all__ = ["DaskExecutor"]

Item = TypeVar("Item")
Result = TypeVar("Result")

TASKS_PER_SLOT = 3  # submitted at a time: hides the scheduler's latency; its memory does not grow with the job
START_SECONDS = 120  # timeout for the first worker
POLL_SECONDS = 5  # interval between checks for workers that fail to start
ANSWER_SECONDS = 30  # timeout of a request to the scheduler
DELIVERIES = 5  # attempts to send the shared value while workers die
SLOTS_SECONDS = 1.0  # the number of slots is cached this long: a request takes as long as a submission


class DaskExecutor(Executor):
    """Workers of a Dask cluster.

    Without `address` and `client`, it starts single-threaded worker processes that listen on loopback, and closes
    them at the end.

    Parameters
    ----------
    workers : int, optional
        The number of worker processes to start; default: the number of cores.
    address : str, optional
        The scheduler of a running cluster, such as ``tcp://host:8786``, to use instead. Its workers need this package.
    client : distributed.Client, optional
        A client to use instead; it is left open.
    memory_limit : str, default "auto"
        The size at which a started worker is restarted, such as ``"2GiB"``; ``"auto"``: its share of the memory.
    dashboard_address : str, optional
        The address of the dashboard of a started cluster, such as ``127.0.0.1:8787``; default: no dashboard.

    Raises
    ------
    SettingsError
        Arguments contradict each other; at the start, no scheduler answers at `address`, or it runs other versions.
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
        self._given_client = client
        self._workers = 0 if address or client else workers or os.cpu_count() or 1  # to start; 0 if attached
        self._memory_limit = memory_limit
        self._dashboard_address = dashboard_address
        self._opened = ExitStack()
        self._cluster: ReplacingCluster | None = None

    def __repr__(self) -> str:
        if self._given_client is not None:
            return f"DaskExecutor(client={self._given_client!r})"
        return f"DaskExecutor(address={self._address!r})" if self._address else f"DaskExecutor(workers={self._workers})"

    @classmethod
    def from_cluster(cls, cluster: Cluster) -> Self:
        """Return an executor that attaches to the cluster's address, or starts its workers on this machine."""
        if cluster.dashboard is not None and importlib.util.find_spec("bokeh") is None:
            raise SettingsError(
                f"The dashboard of the cluster {cluster.name} needs bokeh, which is not installed. "
                "Install it with: pip install 'dask[diagnostics]', or omit `dashboard`."
            )
        return cls(workers=cluster.workers, address=cluster.address, dashboard_address=cluster.dashboard)

    @cached_property
    def _client(self) -> Client:
        if self._given_client is not None:
            return self._given_client
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
        """The current number of threads of all workers."""
        try:
            return self._workers or max(1, sum(self._client.nthreads(callback_timeout=ANSWER_SECONDS).values()))
        except TimeoutError as error:
            raise JobError(
                f"The Dask scheduler has not answered for {ANSWER_SECONDS} seconds. Completed work is kept: when the "
                "scheduler answers again, run the same command again to resume."
            ) from error
        except OSError as error:
            raise scheduler_lost(error) from error

    @property
    def dashboard(self) -> str | None:
        """The address of the scheduler's dashboard; None if a cluster was started without one."""
        if self._workers and self._dashboard_address is None:
            return None
        try:
            return str(self._client.dashboard_link)
        except KeyError:  # the scheduler serves none
            return None
        except OSError as error:
            raise scheduler_lost(error) from error

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
        unsubmitted = iter(range(len(items)))
        slots, updated = self.parallelism, time.monotonic()
        with self._delivered(shared) as shared_name:
            running = Submissions(self._client, task, items, shared_name, retries)
            try:
                while True:
                    if time.monotonic() >= updated + SLOTS_SECONDS:
                        slots, updated = self.parallelism, time.monotonic()
                    for index in islice(unsubmitted, max(0, TASKS_PER_SLOT * slots - len(running))):
                        running.submit(index)
                    if not running:
                        break
                    if (completed := running.wait()) is not None:
                        index, outcome = completed
                        results[index] = outcome.result()
                        if progress is not None:
                            progress(index, outcome)
            finally:
                running.cancel()
        return [results[index] for index in range(len(items))]

    def check_native(self) -> None:
        """Raise if dask-ml is not installed; see :meth:`fruits.executor.NativeSolver.check_native`."""
        if importlib.util.find_spec("dask_ml") is None:
            raise SettingsError(
                "`solver` = native: dask-ml is not installed. Install it with: pip install 'fruits[native]', "
                "or choose `solver` exact."
            )

    def fit_native(self, features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
        """Return the model that dask-ml fits; see :meth:`fruits.executor.NativeSolver.fit_native`."""
        self.check_native()
        from backends.dask.estimators import fit

        self._wait_for_workers(min(self._workers, 1))
        with self._client.as_current():
            return fit(features, rows, components)

    def start(self) -> None:
        """Connect, and wait for all workers that this executor starts."""
        self._wait_for_workers(self._workers)

    def close(self) -> None:
        """Close the client and the cluster that this executor opened."""
        self._opened.close()

    def _wait_for_workers(self, count: int) -> None:
        client = self._client
        deadline = time.monotonic() + START_SECONDS
        while count:
            try:
                client.wait_for_workers(count, timeout=POLL_SECONDS)
                return
            except TimeoutError as error:
                if self._cluster is not None and self._cluster.cannot_start:
                    raise JobError(
                        f"Dask workers exit as they start, {self._cluster.failed_starts} times so far; "
                        "see their errors on stderr."
                    ) from error
                if time.monotonic() > deadline:
                    raise JobError(f"Dask workers did not start within {START_SECONDS} seconds: {error}.") from error

    @contextmanager
    def _delivered(self, shared: Any) -> Iterator[str]:
        """Register `shared` on every worker, including workers that join later; yield its name."""
        name = f"fruits-{uuid4().hex}"
        plugin = SharedValue(cloudpickle.dumps(shared))
        self._wait_for_workers(min(self._workers, 1))  # the others receive it when they join
        for delivery in range(DELIVERIES):
            try:
                self._client.register_plugin(plugin, name=name)
                break
            except ModuleNotFoundError as error:
                raise SettingsError(
                    f"The workers of {self._client} lack a package: {error}. "
                    "Install the packages of this machine on them: pip install 'fruits[dask]'."
                ) from error
            except OSError as error:  # a worker died during the delivery, before the scheduler noticed
                if delivery == DELIVERIES - 1 or self._client.status != "running":
                    raise scheduler_lost(error) from error
                time.sleep(RETRY_DELAY_SECONDS * 2**delivery)
        try:
            yield name
        finally:
            if self._client.status == "running":
                with suppress(OSError):  # from a worker that has just died
                    self._client.unregister_worker_plugin(name)

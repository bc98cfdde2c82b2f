"""The Dask backend: single-threaded worker processes on this machine, or a running cluster."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import cloudpickle

from backends.dask.launch import Connection, LaunchedCluster
from fruits.errors import FruitsError, JobError, SettingsError
from fruits.executor import RETRY_DELAY_SECONDS, Executor, Item, Outcome, Result, worker_count
from fruits.machine.cpus import available_cpus

if TYPE_CHECKING:
    from distributed import Client

    from fruits.clusters.cluster import Cluster
    from fruits.model.scaled_pca import ScaledPCA

TASKS_PER_SLOT = 3  # submitted at a time: hides the scheduler's latency; its memory does not grow with the job
START_SECONDS = 120  # timeout for the start of workers
POLL_SECONDS = 1  # interval between checks of the workers while nothing completes
ANSWER_SECONDS = 30  # timeout of a request to the scheduler
DELIVERIES = 5  # attempts to send the shared value while workers die
SLOTS_SECONDS = 1.0  # the number of slots is cached this long: a request takes as long as a submission


class DaskExecutor(Executor):
    """Workers of a Dask cluster.

    Without `address` and `client`, it starts single-threaded worker processes on this machine, and closes them at the
    end. They listen on loopback, and accept only connections with a certificate that exists in memory.

    Parameters
    ----------
    workers : int, optional
        The number of worker processes to start; default: the number of available CPUs.
    address : str, optional
        The scheduler of a running cluster, such as ``tcp://host:8786``, to use instead. Its workers need this package.
    client : distributed.Client, optional
        A client to use instead; it is left open.
    memory_limit : str, default "auto"
        The size at which a started worker is restarted, such as ``"2GiB"``; ``"auto"``: its share of the memory.
    dashboard_address : str, optional
        The address of the dashboard of a started cluster, such as ``127.0.0.1:8787``; default: no dashboard. Every
        user who can connect to it can read it.
    worker_timeout : float, default 120
        The seconds without any worker of a running cluster after which a job fails.

    Raises
    ------
    SettingsError
        Arguments contradict each other; at the start, no scheduler answers at `address`, or versions differ.
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
        worker_timeout: float = 120,
    ) -> None:
        if sum(option is not None for option in (workers, address, client)) > 1:
            raise SettingsError("dask: give one of workers (to start), address (to attach to) and client, not several.")
        self._address = address
        self._given_client = client
        to_start = worker_count(available_cpus() if workers is None else workers)
        self._workers = 0 if address or client else to_start  # 0 if attached
        self._memory_limit = memory_limit
        self._dashboard_address = dashboard_address
        self._worker_timeout = worker_timeout
        self._opened = ExitStack()
        self._launched: LaunchedCluster | None = None
        self._connection: Connection | None = None
        self._checked = False
        self._workerless_since: float | None = None

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
        with ExitStack() as opened:
            if self._address is None:
                self._launched = LaunchedCluster(self._workers, self._memory_limit, self._dashboard_address)
                opened.callback(self._launched.close)
            from backends.dask.cluster import attach, connect  # imports `distributed` while the cluster starts

            if self._launched is None:
                client = attach(str(self._address))
            else:
                self._connection = self._launched.connection()
                try:
                    client = connect(self._connection)
                except OSError as error:
                    raise self._launched.failure or _lost(error) from error
            opened.callback(client.close)
            self._opened.push(opened.pop_all())
        return client

    @property
    def parallelism(self) -> int:
        """The current number of threads of all workers."""
        return self._workers or max(1, sum(self._threads().values()))

    @property
    def dashboard(self) -> str | None:
        """The address of the scheduler's dashboard; None if a cluster was started without one."""
        client = self._client
        if self._workers:
            return self._connection.dashboard if self._connection is not None else None
        try:
            return str(client.dashboard_link)
        except KeyError:  # the scheduler serves none
            return None
        except OSError as error:
            raise _lost(error) from error

    def outcomes(
        self, task: Callable[[Item, Any], Result], items: Sequence[Item], shared: Any, retries: int
    ) -> Generator[tuple[int, Outcome[Result]], None, None]:
        """Yield positions and outcomes; see :meth:`fruits.executor.Executor.outcomes`."""
        self._wait_for_workers(min(self._workers, 1))  # the others receive the shared value when they join
        from backends.dask.submissions import Submissions

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
                    if not running.wait(POLL_SECONDS):
                        self._check_workers()
                        continue
                    try:
                        completed = running.take()
                    except (CancelledError, OSError) as error:
                        raise _lost(error) from error
                    if completed is None:
                        self._check_workers()
                    else:
                        yield completed
            finally:
                running.cancel()

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
        """Connect, and wait for all workers that this executor starts, or for one of a running cluster."""
        self._wait_for_workers(self._workers)

    def close(self) -> None:
        """Close the client and the cluster that this executor opened; if it is used again, it opens others."""
        self._opened.close()
        self.__dict__.pop("_client", None)
        self._launched, self._connection, self._checked = None, None, False

    def _threads(self) -> Mapping[str, int]:
        """Return the number of threads of each worker."""
        try:
            threads: Mapping[str, int] = self._client.nthreads(callback_timeout=ANSWER_SECONDS)
        except TimeoutError as error:
            raise JobError(
                f"The Dask scheduler has not answered for {ANSWER_SECONDS} seconds. Completed work is kept: when the "
                "scheduler answers again, run the same command again to resume."
            ) from error
        except OSError as error:
            raise self._failure() or _lost(error) from error
        return threads

    def _failure(self) -> FruitsError | None:
        return self._launched.failure if self._launched is not None else None

    def _wait_for_workers(self, count: int) -> None:
        """Wait for `count` workers that this executor starts, or for one of a running cluster, and check it."""
        if self._checked:
            return
        deadline = time.monotonic() + START_SECONDS
        # A cluster that grows with its load starts workers for a task only; this one needs no package.
        task = None if self._workers else self._client.submit(os.getpid, pure=False)
        while (workers := len(self._threads())) < max(count, 1):
            self._check_workers()
            if self._workers and time.monotonic() > deadline:
                raise JobError(f"{workers} of {count} Dask workers started within {START_SECONDS} seconds.")
            try:
                self._client.wait_for_workers(max(count, 1), timeout=POLL_SECONDS)
            except TimeoutError:
                continue
            except OSError as error:
                raise self._failure() or _lost(error) from error
        if task is not None:
            from backends.dask.cluster import check_workers

            check_workers(self._client)
            task.release()
        self._checked = count == self._workers

    def _check_workers(self) -> None:
        """Raise if the cluster of this executor failed, or if there have been no workers for a while."""
        if (failure := self._failure()) is not None:
            raise failure
        if self._threads():
            self._workerless_since = None
            return
        address = _address(self._client)
        if self._workerless_since is None:
            self._workerless_since = time.monotonic()
            if not self._workers:
                self.notify(f"the Dask scheduler at {address} has no workers; waiting up to {self._worker_timeout:g} s")
        elif time.monotonic() > self._workerless_since + self._worker_timeout:
            self._workerless_since = None
            raise JobError(
                f"The Dask scheduler at {address} has had no workers for {self._worker_timeout:g} seconds. Completed "
                f"work is kept: start workers with `dask worker {address} --nthreads 1`, then run the same command "
                "again to resume."
            )

    @contextmanager
    def _delivered(self, shared: Any) -> Iterator[str]:
        """Register `shared` on every worker, including workers that join later; yield its name."""
        from backends.dask.worker import SharedValue

        name = f"fruits-{uuid4().hex}"
        plugin = SharedValue(cloudpickle.dumps(shared))
        for delivery in range(DELIVERIES):
            try:
                self._client.register_plugin(plugin, name=name)
                break
            except ModuleNotFoundError as error:
                raise SettingsError(
                    f"The workers of the Dask cluster at {_address(self._client)} lack the package "
                    f"{error.name}. Install the packages of this machine on them: pip install 'fruits[dask]'."
                ) from error
            except OSError as error:  # a worker died during the delivery, before the scheduler noticed
                if delivery == DELIVERIES - 1 or self._client.status != "running":
                    raise self._failure() or _lost(error) from error
                time.sleep(RETRY_DELAY_SECONDS * 2**delivery)
        try:
            yield name
        finally:
            if self._client.status == "running":
                with suppress(OSError):  # from a worker that has just died
                    self._client.unregister_worker_plugin(name)


def _address(client: Client) -> str:
    return str(getattr(client.scheduler, "address", None))


def _lost(error: BaseException) -> JobError:
    """Return the error of a scheduler that closed its connection."""
    return JobError(
        f"The Dask scheduler is gone ({error}). Completed work is kept: run the same command again to resume."
    )

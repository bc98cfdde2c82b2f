"""A Dask cluster on this machine.

It runs in a process of its own. Dask starts workers with multiprocessing, which imports the main module of the parent
in each of them: in the driver, that would be the user's script. Dask also changes the environment, the configuration
and the logging of the process, which two executors in one driver would share.

The first line of standard output is a :class:`backends.dask.launch.Connection` as JSON, or an error. The cluster ends
when standard input closes, hence also with its driver.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
from contextlib import suppress
from typing import IO, Any

import dask
from distributed import Nanny, Scheduler, Worker
from distributed.security import Security

from backends.dask.cluster import CONFIG
from fruits.errors import SettingsError

HOST = "127.0.0.1"
CLOSE_SECONDS = 10  # before workers are killed; they normally exit in one second
DEATH_SECONDS = 60  # a worker that has not started by then, such as a stopped one, is abandoned
SEMAPHORES = 16  # more than a worker creates; one takes a page of memory in /dev/shm
STARTS = 3  # failed starts for each worker before an error
LOCAL_CONFIG = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # The pages of the dashboard; without `proxy`, which forwards requests to other ports.
    "distributed.scheduler.http.routes": [
        f"distributed.http.{name}" for name in ("scheduler.info", "scheduler.json", "health", "statics")
    ],
}


class _PrivateWorker(Worker):
    """A worker without pages over HTTP, which any user of this machine could read."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Start nothing."""


class _PrivateScheduler(Scheduler):
    """A scheduler without pages over HTTP, unless a dashboard is requested."""

    def start_http_server(self, routes: Any, dashboard_address: Any, *arguments: Any, **options: Any) -> None:
        """Start the dashboard, if it has an address."""
        if dashboard_address is not None:
            super().start_http_server(routes, dashboard_address, *arguments, **options)  # type: ignore[no-untyped-call]


class LocalCluster:
    """A scheduler and single-threaded workers on loopback, which accept only clients with their certificate.

    A worker that has exited, as from lack of memory, or has not started, is replaced: without replacements, a job whose
    last worker exits waits for ever.

    Parameters
    ----------
    workers : int
    memory_limit : str
    dashboard_address : str or None
    """

    def __init__(self, workers: int, memory_limit: str, dashboard_address: str | None = None) -> None:
        self.workers = workers
        self.failed_starts = 0
        self.failed = asyncio.Event()  # set after so many failed starts that more attempts are useless
        self.reason = ""  # of the last failed start
        self.security = Security.temporary()
        self.scheduler = _PrivateScheduler(
            host=HOST,
            protocol="tls",
            security=self.security,
            dashboard=dashboard_address is not None,
            dashboard_address=dashboard_address,
        )
        self._memory_limit = memory_limit
        self._closing = False
        self._nannies: dict[int, Nanny] = {}
        self._slots: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> LocalCluster:
        await self.scheduler
        self._slots = [asyncio.create_task(self._run_slot(slot)) for slot in range(self.workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        closing = asyncio.ensure_future(self._close())
        while not (await asyncio.wait([closing], timeout=CLOSE_SECONDS))[0]:
            for nanny in self._nannies.values():
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):  # it has just exited
                        os.kill(nanny.pid, signal.SIGKILL)  # Dask waits long for a worker stopped at its start

    async def _close(self) -> None:
        await asyncio.gather(*(nanny.close() for nanny in self._nannies.values()), return_exceptions=True)
        await asyncio.gather(*self._slots)
        await self.scheduler.close()

    async def _run_slot(self, slot: int) -> None:
        """Run one worker after another; a nanny restarts a worker that was killed."""
        while not self._closing:
            self._nannies[slot] = nanny = Nanny(
                self.scheduler.address,
                name=slot,
                nthreads=1,
                host=HOST,
                protocol="tls",
                security=self.security,
                memory_limit=self._memory_limit,
                death_timeout=DEATH_SECONDS,
                silence_logs=logging.CRITICAL,
                worker_class=_PrivateWorker,
            )
            try:
                await nanny
            except Exception as error:  # Dask raises whatever ended the worker
                self.failed_starts += 1
                self.reason = _root_cause(error)
                if self.failed_starts >= STARTS * self.workers:
                    self.failed.set()
            else:
                await nanny.finished()


def _root_cause(error: BaseException) -> str:
    """Return the error from which others were raised, as text."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {error}".rstrip(".")


def check_semaphores() -> None:
    """Raise if this machine has no POSIX semaphores, which multiprocessing needs."""
    try:
        [multiprocessing.Lock() for _ in range(SEMAPHORES)]
    except OSError as error:
        raise SettingsError(
            f"Dask cannot start workers on this machine: no semaphore can be created in /dev/shm ({error.strerror}). "
            "Make /dev/shm writable (in a container: mount a tmpfs there), or choose the backend spark or local."
        ) from error


async def serve(output: IO[str], workers: str, memory_limit: str, dashboard_address: str | None = None) -> None:
    """Run a cluster until standard input closes."""
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, closed.set)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    async with LocalCluster(int(workers), memory_limit, dashboard_address) as cluster:
        security = cluster.security
        dashboard = cluster.scheduler.services.get("dashboard")
        _send(
            output,
            address=cluster.scheduler.address,
            certificate=security.tls_client_cert,
            key=security.tls_client_key,
            dashboard=dashboard and f"http://{dashboard.address}:{dashboard.port}/status",
        )
        closing = asyncio.create_task(closed.wait())
        failing = asyncio.create_task(cluster.failed.wait())
        await asyncio.wait([closing, failing], return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            _send(
                output,
                error=f"Dask workers exit as they start, {cluster.failed_starts} times so far: {cluster.reason}.",
            )
        await closing
        failing.cancel()


def _send(output: IO[str], **values: Any) -> None:
    print(json.dumps(values), file=output, flush=True)


def main(*arguments: str) -> None:
    """Run :func:`serve`, and report errors to the driver."""
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)  # output of workers must not mix with the messages
        try:
            check_semaphores()
            with dask.config.set(CONFIG | LOCAL_CONFIG):
                asyncio.run(serve(output, *arguments))
        except SettingsError as error:
            _send(output, unsuitable=str(error))

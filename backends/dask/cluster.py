"""Clusters of Dask: one that is started on this machine, or one that is running already."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any, cast

import dask
from distributed import Client, LocalCluster, Status
from distributed.security import Security
from distributed.versions import VersionMismatchWarning
from tornado.ioloop import IOLoop, PeriodicCallback

from fruits.errors import SettingsError

__all__ = ["CONFIG", "SteadyCluster", "attach", "local_cluster"]

CONNECT_SECONDS = 5
CLOSE_SECONDS = 10  # for workers to end of themselves, which takes one
DEATH_SECONDS = 60  # a worker that has not started by then, because it was stopped, say, is given up
KEEP_SECONDS = 5  # between two looks whether all workers are there
STARTS = 3  # of a worker that fails to start, before that is an error
UNGUARDED = (
    "A worker of Dask begins by importing the script that starts it, and this script would start workers again. "
    'Put what it does below a line: if __name__ == "__main__":'
)
CERTIFICATE = ("distributed.comm.tls.ca-file", "distributed.comm.tls.client.cert", "distributed.comm.tls.client.key")
CONFIG = {  # of every cluster that is started by Fruits
    # A worker that dies takes one task with it, and that is counted by the executor's `retries`, not by Dask.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    # A worker that is stopped, or hangs, is replaced when it has not been heard of for this long, twice that at most.
    "distributed.scheduler.worker-ttl": "30s",
    # One whose restart takes longer than this, on a machine with much to do, would be given up.
    "distributed.deploy.lost-worker-timeout": "2 minutes",
    # What would interrupt a task two hundred times a second, and cost the network six percent of its time.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


class SteadyCluster(LocalCluster):
    """A cluster of this machine that has as many workers as it is to have at all times.

    Dask itself restarts a worker that died. One that ended itself, as it does where it lacks memory, or that failed to
    start, it gives up, and with the last one the job would wait without end.

    Attributes
    ----------
    failed_starts : int
        How often one has failed to start.
    """

    failed_starts = 0

    def keep(self) -> None:
        """Start what is missing of the workers; to be called on the cluster's loop."""
        for name, nanny in list(self.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                self.failed_starts += nanny.status == Status.failed
                del self.workers[name]
        if self.status == Status.running:
            self.scale(len(self.worker_spec))  # type: ignore[no-untyped-call]

    @property
    def cannot_start(self) -> bool:
        """Whether workers have failed to start so often that they always will."""
        return self.failed_starts >= STARTS * len(self.worker_spec)


@contextmanager
def local_cluster(workers: int, memory_limit: str, dashboard_address: str | None) -> Iterator[SteadyCluster]:
    """Yield a cluster whose workers start in the background: single-threaded, and reachable from this machine only.

    Raises
    ------
    SettingsError
        This is a worker that starts, which imports a script that starts workers.
    """
    one_thread = dask.config.get("distributed.nanny.pre-spawn-environ")  # OMP_NUM_THREADS=1 and the like, as by default
    environ = {name: os.environ.get(name) for name in (*one_thread, "PYTHONHASHSEED")}
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SettingsError(UNGUARDED)
    with dask.config.set(CONFIG):  # for as long as it lives: workers that are started later take it from here too
        cluster = SteadyCluster(  # type: ignore[no-untyped-call]
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=dashboard_address,
            # Without a dashboard the scheduler still serves its health over HTTP: on any port that is free.
            scheduler_kwargs={"dashboard_address": dashboard_address or "127.0.0.1:0"},
            memory_limit=memory_limit,
            death_timeout=DEATH_SECONDS,
            silence_logs=logging.CRITICAL,
        )
        # Ctrl-C reaches every process of the terminal. Workers inherit the mask of the thread that starts them, so that
        # it is the driver alone that answers, and closes them. (Starting the tracker would lift the mask.)
        resource_tracker.ensure_running()
        cast(IOLoop, cluster.loop).add_callback(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT})
        cluster.scale(workers)  # type: ignore[no-untyped-call]
        keeper = PeriodicCallback(cluster.keep, KEEP_SECONDS * 1000)
        cast(IOLoop, cluster.loop).add_callback(keeper.start)
        try:
            yield cluster
        finally:
            cast(IOLoop, cluster.loop).add_callback(keeper.stop)
            closed = threading.Event()
            killer = threading.Thread(target=_kill_workers, args=(cluster, closed), name="fruits-close", daemon=True)
            killer.start()
            cluster.close()
            closed.set()
            for name, value in environ.items():  # Dask sets them here too, to start a worker with them
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _kill_workers(cluster: SteadyCluster, closed: threading.Event) -> None:
    """Kill the workers that have not ended of themselves, and those that Dask has started since, until all is closed.

    Dask waits long for a worker that was stopped while it started.
    """
    while not closed.wait(CLOSE_SECONDS):
        for nanny in list(cluster._created):  # also those that start now
            if nanny.pid is not None:
                with suppress(ProcessLookupError):  # it has ended just now
                    os.kill(nanny.pid, signal.SIGKILL)


def attach(address: str, security: Security | None = None) -> Client:
    """Return a client of the scheduler at `address`, whose Python and Dask must be those of this process.

    Parameters
    ----------
    address : str
    security : distributed.Security, optional
        The certificate that is shown to a scheduler at ``tls://``; default: what Dask's own configuration names.

    Raises
    ------
    SettingsError
        No scheduler answers there, versions differ, or there is no certificate to show.
    """
    unset = [name for name in CERTIFICATE if not dask.config.get(name, None)] if security is None else []
    if address.startswith("tls://") and unset:
        raise SettingsError(
            f"The Dask scheduler at {address} asks for a certificate, and Dask's configuration does not say which: "
            f"not set: {', '.join(unset)}. Set them to files in ~/.config/dask/dask.yaml, "
            "or in the environment, as DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=/path/to/cert.pem and so on."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # what matters of it is an error below
            client = Client(address, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"No Dask scheduler answered at {address} within {CONNECT_SECONDS} seconds ({error}). "
            "Start one with `dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`, "
            "or leave the address out to run on this machine."
        ) from error
    versions: Any = client.get_versions()
    here = versions["client"]["packages"]
    there = {"scheduler": versions["scheduler"], **versions["workers"]}
    wrong = [
        f"{package} {info['packages'].get(package)} on {who} (here: {here[package]})"
        for who, info in there.items()
        for package, parts in (("python", 2), ("dask", 3), ("distributed", 3))
        if info["packages"].get(package, "").split(".")[:parts] != here[package].split(".")[:parts]
    ]
    if wrong:
        client.close()
        raise SettingsError(
            f"The Dask cluster at {address} runs other versions: {'; '.join(wrong)}. Install the same on both sides."
        )
    return client

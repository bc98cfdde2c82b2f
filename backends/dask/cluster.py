"""Dask clusters: started on this machine, or already running."""

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

__all__ = ["CONFIG", "ReplacingCluster", "attach", "local_cluster"]

CONNECT_SECONDS = 5
CLOSE_SECONDS = 10  # before workers are killed; they normally exit in one second
DEATH_SECONDS = 60  # a worker that has not started by then, such as a stopped one, is abandoned
CHECK_SECONDS = 5  # interval between checks for missing workers
STARTS = 3  # failed starts for each worker before an error
UNGUARDED = (
    "Each Dask worker first imports the script that starts it, and this script would start workers again. "
    'Move its statements below a line: if __name__ == "__main__":'
)
CERTIFICATE = ("distributed.comm.tls.ca-file", "distributed.comm.tls.client.cert", "distributed.comm.tls.client.key")
CONFIG = {  # of every cluster that Fruits starts
    # The executor's `retries` count the deaths of workers, not Dask.
    "distributed.scheduler.allowed-failures": 0,
    # A worker holds one task at a time, so that its death loses one.
    "distributed.scheduler.worker-saturation": 1.0,
    # Replace a worker, such as a stopped one, after 30 to 60 s without a heartbeat.
    "distributed.scheduler.worker-ttl": "30s",
    # On a busy machine, a restart can take longer than the default of 15 s.
    "distributed.deploy.lost-worker-timeout": "2 minutes",
    # The defaults interrupt a task 200 times per second, which slows the network by 6 %.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


class ReplacingCluster(LocalCluster):
    """A cluster on this machine that replaces missing workers.

    Dask restarts workers that died, but not those that exited, as from lack of memory, or failed to start. Without
    replacements, a job whose last worker exits waits forever.

    Attributes
    ----------
    failed_starts : int
        The number of workers that failed to start.
    """

    failed_starts = 0

    def replace_workers(self) -> None:
        """Start the missing workers; must be called on the cluster's event loop."""
        for name, nanny in list(self.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                self.failed_starts += nanny.status == Status.failed
                del self.workers[name]
        if self.status == Status.running:
            self.scale(len(self.worker_spec))  # type: ignore[no-untyped-call]

    @property
    def cannot_start(self) -> bool:
        """True after so many failed starts that more attempts are useless."""
        return self.failed_starts >= STARTS * len(self.worker_spec)


@contextmanager
def local_cluster(workers: int, memory_limit: str, dashboard_address: str | None) -> Iterator[ReplacingCluster]:
    """Yield a cluster of single-threaded workers, which start in the background and listen on loopback.

    Raises
    ------
    SettingsError
        This process is a starting worker, which has imported a script that starts workers.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SettingsError(UNGUARDED)
    with _environment_restored(), dask.config.set(CONFIG):  # until the end: replacements use it too
        cluster = ReplacingCluster(  # type: ignore[no-untyped-call]
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=dashboard_address,
            # Without a dashboard, the scheduler still serves health pages over HTTP: use any free port.
            scheduler_kwargs={"dashboard_address": dashboard_address or "127.0.0.1:0"},
            memory_limit=memory_limit,
            death_timeout=DEATH_SECONDS,
            silence_logs=logging.CRITICAL,
        )
        loop = cast(IOLoop, cluster.loop)
        # Ctrl-C reaches every process of the terminal, but only the driver may handle it, and close the workers: they
        # inherit the signal mask of the thread that starts them. Starting the resource tracker later would reset it.
        resource_tracker.ensure_running()
        loop.add_callback(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT})
        cluster.scale(workers)  # type: ignore[no-untyped-call]
        replacing = PeriodicCallback(cluster.replace_workers, CHECK_SECONDS * 1000)
        loop.add_callback(replacing.start)
        try:
            yield cluster
        finally:
            loop.add_callback(replacing.stop)
            _close(cluster)


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Restore the environment variables that Dask sets in this process too, to start a worker with them."""
    one_thread = dask.config.get("distributed.nanny.pre-spawn-environ")  # by default OMP_NUM_THREADS=1 and the like
    before = {name: os.environ.get(name) for name in (*one_thread, "PYTHONHASHSEED")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _close(cluster: ReplacingCluster) -> None:
    """Close a cluster, and kill its workers if they do not exit: Dask waits long for a worker stopped at its start."""
    closed = threading.Event()
    killer = threading.Thread(target=_kill_workers, args=(cluster, closed), name="fruits-close", daemon=True)
    killer.start()
    cluster.close()
    closed.set()


def _kill_workers(cluster: ReplacingCluster, closed: threading.Event) -> None:
    """Kill remaining workers, including those started meanwhile, until `closed` is set."""
    while not closed.wait(CLOSE_SECONDS):
        for nanny in list(cluster._created):  # unlike `workers`, includes starting ones
            if nanny.pid is not None:
                with suppress(ProcessLookupError):  # it has just exited
                    os.kill(nanny.pid, signal.SIGKILL)


def attach(address: str, security: Security | None = None) -> Client:
    """Return a client of the scheduler at `address`, which must run the Python and Dask versions of this process.

    Parameters
    ----------
    address : str
    security : distributed.Security, optional
        The certificate for a scheduler at ``tls://``; default: the one in Dask's configuration.

    Raises
    ------
    SettingsError
        No scheduler answers there, versions differ, or no certificate is configured.
    """
    missing = [name for name in CERTIFICATE if not dask.config.get(name, None)] if security is None else []
    if address.startswith("tls://") and missing:
        raise SettingsError(
            f"The Dask scheduler at {address} requires a certificate. In Dask's configuration these keys are "
            f"not set: {', '.join(missing)}. Set them to files in ~/.config/dask/dask.yaml, "
            "or in the environment, as DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=/path/to/cert.pem and so on."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # checked below
            client = Client(address, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"No Dask scheduler answered at {address} within {CONNECT_SECONDS} seconds ({error}). "
            "Start one with `dask scheduler` and workers with `dask worker ADDRESS --nthreads 1`, "
            "or omit the address to run on this machine."
        ) from error
    differences = _version_differences(client)
    if differences:
        client.close()
        raise SettingsError(
            f"The Dask cluster at {address} runs other versions: {'; '.join(differences)}. "
            "Install the same versions on both sides."
        )
    return client


def _version_differences(client: Client) -> list[str]:
    versions: Any = client.get_versions()
    local = versions["client"]["packages"]
    return [
        f"{package} {info['packages'].get(package)} on {host} (here: {local[package]})"
        for host, info in {"scheduler": versions["scheduler"], **versions["workers"]}.items()
        for package, parts in (("python", 2), ("dask", 3), ("distributed", 3))
        if info["packages"].get(package, "").split(".")[:parts] != local[package].split(".")[:parts]
    ]

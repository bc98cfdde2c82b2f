"""The process of a Dask cluster on this machine, started by the driver.

This module does not import ``distributed``: the driver imports it while the process starts.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from dataclasses import dataclass

from fruits.errors import FruitsError, JobError, SettingsError
from fruits.machine.subprocesses import python_environment

CLOSE_SECONDS = 30  # before the process is killed; it kills its workers after 10


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a cluster's scheduler, and the identity that every connection requires.

    Attributes
    ----------
    address : str
    certificate, key : str
        In PEM format; they exist in memory only.
    dashboard : str or None
    """

    address: str
    certificate: str
    key: str
    dashboard: str | None


class LaunchedCluster:
    """A running :mod:`backends.dask.local_cluster`.

    Parameters
    ----------
    workers : int
    memory_limit : str
    dashboard_address : str or None
    """

    def __init__(self, workers: int, memory_limit: str, dashboard_address: str | None) -> None:
        arguments = [str(workers), memory_limit, *filter(None, [dashboard_address])]
        self._failure: Connection | FruitsError | None = None
        # Ctrl-C reaches every process of the terminal; the child inherits the mask until it ignores the signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backends.dask", *arguments],
                env=python_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def connection(self) -> Connection:
        """Return the connection, once the scheduler runs.

        Raises
        ------
        SettingsError
            This machine cannot run a cluster.
        JobError
            The process exited.
        """
        reply = self._read()
        if isinstance(reply, FruitsError):
            raise reply
        return reply

    @property
    def failure(self) -> FruitsError | None:
        """The error of the cluster; None while it runs."""
        assert self._process.stdout is not None
        if self._failure is None and select.select([self._process.stdout], [], [], 0)[0]:
            self._failure = self._read()
        return self._failure if isinstance(self._failure, FruitsError) else None

    def close(self) -> None:
        """End the cluster, and wait for its process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _read(self) -> Connection | FruitsError:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return JobError(
                f"The process of the Dask cluster exited with code {self._process.wait()}. Completed work is kept: "
                "run the same command again to resume."
            )
        reply = json.loads(line)
        if "unsuitable" in reply:
            return SettingsError(reply["unsuitable"])
        if "error" in reply:
            return JobError(reply["error"])
        return Connection(**reply)

"""The parent of the Python workers of a local session: ``python -m backends.spark.daemon``.

It runs PySpark's own daemon, which forks a worker for each slot, and adds:

- Less work for each task: 75 ms of CPU time instead of 220 ms for an empty task (2 cores, Spark 3.5; medians of nine
  alternating runs). Removing Spark's archives from ``sys.path`` saves 100 ms: while one is on it, Python reads its
  index again for every task (``importlib.invalidate_caches``). PySpark is installed outside of them. Importing the
  workers' packages before the first fork, and freezing them with ``gc.freeze``, saves the rest: PySpark collects
  garbage after every task. The duration of the start is the same.
- The replacement of stopped workers, such as by SIGSTOP. One that is stopped for 10 s is killed, and Spark runs its
  task again: a job of 6 s was completed 13 s after the stop. Under PySpark's daemon, the same job was still waiting
  after 120 s; ``spark.speculation``, which does not apply to ``local``, and ``spark.task.reaper`` did not help.
- A silent exit of workers whose connection Spark closes, as for a cancelled task; PySpark prints a traceback.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

STOPPED_SECONDS = 10  # before a stopped worker is killed
CHECK_SECONDS = 1


def main() -> None:
    """Serve Spark until it closes the standard input."""
    sys.path[:] = [entry for entry in sys.path if not _is_archived(entry)]
    for entry in [entry for entry in sys.path_importer_cache if _is_archived(entry)]:
        del sys.path_importer_cache[entry]
    sys.modules.pop("org", None)  # the standard library looks for Jython's `org`, and imported one from Spark's jar

    import pandas  # noqa: F401
    import pyarrow  # noqa: F401
    from pyspark import worker

    import backends.preload
    import backends.spark.slices  # noqa: F401

    worker.main = _exiting_silently(worker.main)
    from pyspark import daemon  # imports worker.main: Spark 3 at its own import, Spark 4 in each worker

    gc.freeze()
    with _stopped_workers_killed():
        daemon.manager()


def _exiting_silently(work: Callable[[IO[bytes], IO[bytes]], None]) -> Callable[[IO[bytes], IO[bytes]], None]:
    """Return the worker's main function, changed to exit without a traceback when Spark closes the connection."""

    def main(source: IO[bytes], sink: IO[bytes]) -> None:
        try:
            work(source, sink)
        except (EOFError, ConnectionError):  # of the connection: a task's own exceptions are sent to Spark
            sys.exit(1)
        finally:
            try:
                sink.flush()
            except OSError:
                with suppress(OSError):
                    sink.close()  # or Python 3.13 prints the error of its finalizer

    return main


@contextmanager
def _stopped_workers_killed() -> Iterator[None]:
    """Kill, one at a time, each child that stays stopped. Forked workers do not inherit the timer."""
    stopped_pid, since = 0, 0.0

    def check(*_: object) -> None:
        nonlocal stopped_pid, since
        try:  # WNOWAIT: a child that stays stopped is reported again by the next call
            stopped = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # no children
            stopped = None
        if stopped is None or stopped.si_pid != stopped_pid:
            stopped_pid, since = stopped.si_pid if stopped else 0, time.monotonic()
        elif time.monotonic() - since > STOPPED_SECONDS:
            with suppress(ProcessLookupError):  # it has just exited
                os.kill(stopped_pid, signal.SIGKILL)

    if not hasattr(os, "waitid"):  # macOS
        yield
        return
    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, CHECK_SECONDS, CHECK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_archived(entry: str) -> bool:
    return any(part.startswith(("pyspark.zip", "py4j-", "spark-core_")) for part in Path(entry).parts)


if __name__ == "__main__":
    main()

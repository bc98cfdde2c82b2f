"""What a local session starts its Python workers from: ``python -m backends.spark.daemon``.

PySpark's own daemon, which forks a worker for each slot, but without what it costs around each task, 0.1 to 0.2 s.
What every worker needs is imported once, before it forks, and kept out of the garbage collection after each task.
Spark's archives are taken off the path: while one is on it, Python reads its whole index again for every task
(``importlib.invalidate_caches``). PySpark is installed here, outside of them.

And a worker ends without a word when Spark hangs up on it, as it does to a task that is cancelled. One that is stopped,
as by SIGSTOP, is killed after a while, for Spark would wait for it for ever; its task is run again.
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

__all__ = ["main"]

STOPPED_SECONDS = 10  # how long a worker may be stopped
LOOK_SECONDS = 1


def main() -> None:
    """Serve Spark until it closes the standard input."""
    sys.path[:] = [entry for entry in sys.path if not _archived(entry)]
    for entry in [entry for entry in sys.path_importer_cache if _archived(entry)]:
        del sys.path_importer_cache[entry]
    sys.modules.pop("org", None)  # the standard library has looked for Jython's, and met the one of Spark's Java

    import pandas  # noqa: F401
    import pyarrow  # noqa: F401
    from pyspark import worker

    import backends.spark.executor  # noqa: F401

    worker.main = _until_spark_hangs_up(worker.main)
    from pyspark import daemon  # takes that main from there: Spark 3 as it is imported, Spark 4 in each worker

    gc.freeze()
    with _workers_watched():
        daemon.manager()


def _until_spark_hangs_up(work: Callable[[IO[bytes], IO[bytes]], None]) -> Callable[[IO[bytes], IO[bytes]], None]:
    def until_spark_hangs_up(source: IO[bytes], sink: IO[bytes]) -> None:
        try:
            work(source, sink)
        except (EOFError, ConnectionError):  # its own exceptions, a task has sent to Spark
            sys.exit(1)

    return until_spark_hangs_up


@contextmanager
def _workers_watched() -> Iterator[None]:
    """Kill each child that is stopped for long, one after the other; what is forked inherits no timer."""
    seen, since = 0, 0.0

    def look(*_: object) -> None:
        nonlocal seen, since
        try:  # WNOWAIT: it is told again the next time, unless it goes on
            stopped = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # there is none
            stopped = None
        if stopped is None or stopped.si_pid != seen:
            seen, since = stopped.si_pid if stopped else 0, time.monotonic()
        elif time.monotonic() - since > STOPPED_SECONDS:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(seen, signal.SIGKILL)

    if not hasattr(os, "waitid"):  # as on macOS
        yield
        return
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _archived(entry: str) -> bool:
    return any(part.startswith(("pyspark.zip", "py4j-", "spark-core_")) for part in Path(entry).parts)


if __name__ == "__main__":
    main()

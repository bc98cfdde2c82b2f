"""Code that runs on Dask workers: the shared value of a map, and its tasks."""

from __future__ import annotations

import pickle
import threading
from typing import Any

from distributed import WorkerPlugin, get_worker

from fruits.executor import Outcome, run_with_retries


class SharedValue(WorkerPlugin):
    """The shared value on one worker. The scheduler registers it on every worker that joins, also after deaths."""

    def __init__(self, payload: bytes) -> None:
        self._payload: bytes | None = payload

    def setup(self, worker: Any) -> None:
        """Create the lock on the worker, because it cannot be pickled."""
        self._lock = threading.Lock()

    def get(self) -> Any:
        """Unpickle on first use, in a task's thread: it can take seconds, and must not block the event loop."""
        with self._lock:
            if self._payload is not None:
                self._value, self._payload = pickle.loads(self._payload), None  # nosec B301  # of this job
            return self._value


def run_call(call: bytes, shared_name: str, retries: int, deaths: int) -> Outcome[Any]:
    """Run a pickled task and item with the shared value that is registered under a name."""
    task, item = pickle.loads(call)  # nosec B301  # of this job
    shared: Any = get_worker().plugins[shared_name]
    # Within the task, so that a value that this worker cannot unpickle fails like the task.
    return run_with_retries(lambda item, _: task(item, shared.get()), item, None, retries, deaths)

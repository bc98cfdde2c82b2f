"""Items of one map that are submitted to Dask and not yet completed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

import cloudpickle
from distributed import Client, Future, KilledWorker, as_completed

from backends.dask.worker import run_call
from fruits.errors import TaskError
from fruits.executor import WORKER_DIED, Outcome, worker_loss_error

RESULT_SECONDS = 5  # to read a result, which is small


class Submissions:
    """Submitted items. An item whose worker died is resubmitted, up to `retries` times.

    Parameters
    ----------
    client : distributed.Client
    task : callable
    items : sequence
    shared_name : str
        The name under which the shared value is registered on the workers.
    retries : int
    """

    def __init__(self, client: Client, task: Any, items: Sequence[Any], shared_name: str, retries: int) -> None:
        self._client = client
        self._task = task
        self._items = items
        self._shared_name = shared_name
        self._retries = retries
        self._deaths: Counter[int] = Counter()
        self._running: dict[Future[Outcome[Any]], int] = {}
        self._completed = as_completed(loop=client.loop)

    def __len__(self) -> int:
        return len(self._running)

    def submit(self, index: int) -> None:
        """Submit the item at an index."""
        call = cloudpickle.dumps((self._task, self._items[index]))  # bytes, or Dask searches the item for task graphs
        deaths = self._deaths[index]
        key = f"{self._shared_name}-{index}-{deaths}"
        future = self._client.submit(run_call, call, self._shared_name, self._retries, deaths, key=key, pure=False)
        self._running[future] = index
        self._completed.add(future)

    def wait(self, seconds: float) -> bool:
        """Wait for a completed item; return False if there was none for so long."""
        with self._completed.thread_condition:
            if not self._completed.has_ready():
                self._completed.thread_condition.wait(seconds)
        return bool(self._completed.has_ready())

    def take(self) -> tuple[int, Outcome[Any]] | None:
        """Return the next completed item: its index and outcome; None if its worker died, and it runs again."""
        future = next(self._completed)
        index = self._running.pop(future)
        item = self._items[index]
        try:
            return index, future.result(timeout=RESULT_SECONDS)
        except TimeoutError:  # its worker left before the result was read, and another must compute it again
            self._running[future] = index
            self._completed.add(future)
            return None
        except KilledWorker as error:
            self._deaths[index] += 1
            if self._deaths[index] > self._retries:
                raise worker_loss_error(item, self._deaths[index], WORKER_DIED) from error
            self.submit(index)
            return None
        except (CancelledError, OSError):  # the scheduler is gone
            raise
        except Exception as error:  # the call or its result cannot be pickled
            raise TaskError(f"{item} failed. {type(error).__name__}: {error}") from error

    def cancel(self) -> None:
        """Cancel the items that are still running."""
        if self._client.status == "running":
            self._client.cancel(list(self._running))

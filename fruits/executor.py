"""The seam between the core and the engines: one verb, :meth:`Executor.map`.

An executor sends small items to workers and brings small results back; bulk data goes through storage. What runs on
a worker is :func:`attempt`, on every engine: it calls the task, tries again where trying again can help, and returns
an :class:`Outcome`, so that a failure is a value that each engine carries in the same way. The death of a whole
worker is the engine's to notice and to make good.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from threadpoolctl import threadpool_limits

from fruits.errors import FruitsError, InputError, SettingsError, TaskError

if TYPE_CHECKING:
    from typing import Self  # Python 3.11; what a Spark worker imports has to do on 3.10

    from fruits.clusters.cluster import Cluster
    from fruits.model.scaled_pca import ScaledPCA

__all__ = ["RETRY_DELAY_SECONDS", "WORKER_DIED", "Executor", "Outcome", "attempt", "given_up"]

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKER_DIED = "the worker that ran it died (killed, crashed, or out of memory)"
RETRY_DELAY_SECONDS = 0.2  # before the first retry; doubles with each


class Executor(ABC):
    """A place where tasks run. A context manager that closes only what it opened itself.

    Making one is quick and opens nothing: an engine is started by what first needs it, or by :meth:`start`.

    Attributes
    ----------
    name : str
        The backend's name, as in ``--backend``.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def parallelism(self) -> int:
        """How many tasks run at the same time, now: a cluster may grow and shrink."""

    @property
    def dashboard(self) -> str | None:
        """The address at which the engine, once it is started, shows its work; None where it does not."""
        return None

    @classmethod
    @abstractmethod
    def of(cls, cluster: Cluster) -> Self:
        """Return the executor of a cluster of ``cluster.yaml``, as :func:`fruits.clusters.resolve.resolve` gives it."""

    @abstractmethod
    def map(
        self,
        task: Callable[[Item, Any], Result],
        items: Sequence[Item],
        *,
        shared: Any = None,
        retries: int = 2,
        progress: Callable[[int, Outcome[Result]], None] | None = None,
    ) -> list[Result]:
        """Return ``task(item, shared)`` for every item, in the order of the items.

        Parameters
        ----------
        task : callable
            A module-level function of the core (it pickles by reference). It must be harmless to run twice.
        items : sequence
            Small frozen values; ``str(item)`` names the item in errors.
        shared : object, optional
            One read-only value that every task sees; delivered once per worker.
        retries : int, default 2
            How often an item is tried again after it raised an exception, and after its worker died.
        progress : callable, optional
            Called here, on the driver, as each result arrives: with the position of its item, and its outcome, which
            tells where it ran, at which attempt and for how long.

        Raises
        ------
        InputError
            As raised by a task: never retried, because the same input would fail again.
        TaskError
            A task kept failing, or its workers kept dying; names the item and the cause.
        """

    def fit_native(self, features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
        """Return the model that the engine's own estimators fit on stored features; the oracle of ``exact``.

        Parameters
        ----------
        features : sequence of str
            Addresses of the Parquet parts with the column ``features``.
        rows : sequence of int
            The number of rows in each part.
        components : int or float
            As in :class:`fruits.Job`.

        Raises
        ------
        SettingsError
            This backend has no estimators of its own.
        """
        self.check_native()
        raise NotImplementedError

    def check_native(self) -> None:
        """Raise a ``SettingsError`` where this backend has no estimators of its own, or they are not installed."""
        raise SettingsError(
            f"--solver native: the backend {self.name!r} has no estimators of its own. "
            "Allowed: --backend dask or spark with native, or --solver exact on any backend."
        )

    def start(self) -> None:  # noqa: B027 - not every engine has to be started
        """Return when tasks can run at once. A job calls it, so that no stage's time holds the start of the engine."""

    def close(self) -> None:  # noqa: B027 - most executors own nothing
        """Close what this executor opened, and nothing that was handed in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """What became of one item: a value, an input error to raise as it is, or what to say of a failure.

    Attributes
    ----------
    host, pid : str, int
        The name of the machine, and the process on it, that ran the item.
    attempt : int
        The number of this attempt, from 1: what raised an exception before, or died with its worker, is counted.
    seconds : float
        How long this attempt took, on the worker.
    """

    value: Result | None = None
    error: InputError | None = None
    failure: str | None = None
    trace: str = ""
    host: str = ""
    pid: int = 0
    attempt: int = 1
    seconds: float = 0.0

    def result(self) -> Result:
        """Return the value, or raise what happened instead, with the worker's traceback as a note."""
        if self.error is not None:
            raise self.error
        if self.failure is not None:
            failed = TaskError(self.failure)
            failed.__notes__ = [self.trace]  # as add_note does, which Python 3.10 lacks
            raise failed
        return self.value  # type: ignore[return-value]


def attempt(
    task: Callable[[Item, Any], Result], item: Item, shared: Any, retries: int, lost: int = 0
) -> Outcome[Result]:
    """Run one item on a worker, trying again up to `retries` times, and return its outcome.

    `lost` is how often the engine gave the item to a worker before and lost it; it only counts the attempts.
    Linear algebra runs on one thread: with more it would add in another order, and fight over the cores.
    """
    here: Callable[..., Outcome[Result]] = partial(Outcome, host=socket.gethostname(), pid=os.getpid())
    for tried in range(retries + 1):
        started = time.perf_counter()
        try:
            with threadpool_limits(1):
                value = task(item, shared)
            return here(value=value, attempt=lost + tried + 1, seconds=time.perf_counter() - started)
        except InputError as error:
            return here(error=error, attempt=lost + tried + 1)
        except Exception as error:  # anything a task raises is the item's outcome
            cause = error
        if tried < retries:
            time.sleep(RETRY_DELAY_SECONDS * 2**tried)
    words = str(cause) if isinstance(cause, FruitsError) else f"{type(cause).__name__}: {cause}"
    return here(
        attempt=lost + retries + 1,
        failure=f"{item} failed after {retries + 1} attempts. {words}\n"
        "What is finished is kept: mend the cause, then start the same command again.",
        trace="".join(traceback.format_exception(cause)).rstrip(),
    )


def given_up(item: object, times: int, why: str) -> TaskError:
    """Return the error of an item that an engine lost `times` times, each time it was given to a worker."""
    return TaskError(
        f"{item} failed {times} of {times} times: {why}. "
        "What is finished is kept: mend the cause, or give workers more memory, then start the same command again."
    )

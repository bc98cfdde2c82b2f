"""The interface between the core and the engines: one method, :meth:`Executor.map`; engines define its `outcomes`.

An executor sends small items to workers and returns small results; bulk data goes through storage. On every engine,
workers run :func:`run_with_retries`: it calls the task, retries it after an exception, and returns an
:class:`Outcome`, so that failures are values. The engine detects the death of a worker and runs its items again.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Protocol, TypeVar, runtime_checkable

from threadpoolctl import threadpool_limits

from fruits.errors import FruitsError, InputError, SettingsError, TaskError
from fruits.parameters import whole_number
from fruits.text import quoted, without_secrets

if TYPE_CHECKING:
    from typing import Self  # new in Python 3.11; Spark workers may run 3.10

    from fruits.clusters.cluster import Cluster
    from fruits.model.scaled_pca import ScaledPCA

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKER_DIED = "the worker died (killed, crashed, or out of memory)"
RETRY_DELAY_SECONDS = 0.2  # before the first retry; doubles with each


class _ExecutorType(ABCMeta):
    """The type of executor classes, which explains a class in the place of an executor."""

    def __enter__(cls) -> NoReturn:
        check_executor(cls)
        raise AssertionError

    def __exit__(cls, *_: object) -> None: ...


class Executor(metaclass=_ExecutorType):
    """An engine that runs tasks on workers; a context manager that closes only what it opened.

    Creating an executor is quick and opens nothing: :meth:`start`, or the first call that needs it, starts the engine.

    Attributes
    ----------
    name : str
        The backend's name, as in ``--backend``.
    """

    name: ClassVar[str]

    def notify(self, text: str) -> None:
        """Report one line of text about the engine; a job replaces it by the ``note`` of its progress listener."""

    @property
    @abstractmethod
    def parallelism(self) -> int:
        """The number of tasks that can run at the same time. It changes as a cluster grows or shrinks."""

    @property
    def dashboard(self) -> str | None:
        """The address of the engine's dashboard, once it has started; None if it has none."""
        return None

    @classmethod
    @abstractmethod
    def from_cluster(cls, cluster: Cluster) -> Self:
        """Return the executor for a cluster from :func:`fruits.clusters.resolve.resolve`."""

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
            A read-only value for all tasks; delivered once per worker.
        retries : int, default 2
            Retries of an item after it raised an exception, and after its worker died.
        progress : callable, optional
            Called on the driver as each result arrives, with the position of its item and its outcome (host, process,
            attempt and duration).

        Raises
        ------
        InputError
            Raised by a task. It is not retried, because the same input would fail again.
        TaskError
            A task failed at every attempt, or its workers died each time; names the item and the cause.
        """
        results: dict[int, Result] = {}
        with closing(self.outcomes(task, items, shared, retries)) as outcomes:
            for index, outcome in outcomes:
                results[index] = outcome.result()
                if progress is not None:
                    progress(index, outcome)
        return [results[index] for index in range(len(items))]

    @abstractmethod
    def outcomes(
        self, task: Callable[[Item, Any], Result], items: Sequence[Item], shared: Any, retries: int
    ) -> Generator[tuple[int, Outcome[Result]], None, None]:
        """Run the items of one :meth:`map`; yield the position and the outcome of each, in any order.

        No item runs any more after the generator has been closed. A ``TaskError`` is raised for an item whose workers
        died at every attempt.
        """

    def start(self) -> None:
        """Return when tasks can run immediately, so that no stage's duration includes the start of the engine."""

    def close(self) -> None:
        """Close what this executor opened, and nothing that it was given."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def worker_count(workers: object) -> int:
    """Return the number of workers of an executor, or raise a ``SettingsError``."""
    count = whole_number("workers", workers)
    if count < 1:
        raise SettingsError(f"`workers` = {count}: not allowed. Allowed: 1 or more.")
    return count


def check_executor(executor: object) -> None:
    """Raise a ``SettingsError`` unless the value is an executor, such as for the class instead of an instance."""
    if isinstance(executor, Executor):
        return
    if isinstance(executor, type) and issubclass(executor, Executor):
        raise SettingsError(
            f"{executor.__name__} is a class of executors. Create an executor by calling it: "
            f'backends.load("{executor.name}")(workers=2).'
        )
    raise SettingsError(
        f'{quoted(executor)} is not an executor. Create one, such as: backends.load("dask")(workers=2).'
    )


@runtime_checkable
class NativeSolver(Protocol):
    """Optional methods of an executor whose engine has estimators: ``solver="native"``, the oracle of ``"exact"``."""

    def check_native(self) -> None:
        """Raise a ``SettingsError`` if the package with the estimators is not installed."""

    def fit_native(self, features: Sequence[str], rows: Sequence[int], components: int | float) -> ScaledPCA:
        """Return the model that the engine's own estimators fit on stored features.

        Parameters
        ----------
        features : sequence of str
            Addresses of the Parquet parts with the column ``features``.
        rows : sequence of int
            The number of rows in each part.
        components : int or float
            As in :class:`fruits.Job`.
        """


def native_solver(executor: Executor) -> NativeSolver:
    """Return the executor as a native solver.

    Raises
    ------
    SettingsError
        The backend has no estimators.
    """
    if not isinstance(executor, NativeSolver):
        raise SettingsError(
            f"`solver` = native: the backend {executor.name!r} has no estimators of its own. "
            "Allowed: `backend` dask or spark with native, or `solver` exact on any backend."
        )
    return executor


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """The result of one item: a value, an input error to raise unchanged, or the message of a failure.

    Attributes
    ----------
    host, pid : str, int
        The host and process that ran the item.
    attempt : int
        The number of this attempt, from 1; earlier exceptions and deaths of workers count.
    seconds : float
        The duration of this attempt on the worker.
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
        """Return the value, or raise the error, with the worker's traceback as a note."""
        if self.error is not None:
            raise self.error
        if self.failure is not None:
            failed = TaskError(self.failure)
            failed.__notes__ = [self.trace]  # Python 3.10 lacks add_note
            raise failed
        return self.value  # type: ignore[return-value]


_limit_lock = threading.Lock()
_limit: threadpool_limits | None = None
_limit_users = 0


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit linear algebra to one thread; the last of all overlapping users lifts the limit.

    The limit is global to the process: lifted by the first task that ends, it would not hold for the others, and more
    threads change the order of additions, hence the bits of the result. threadpoolctl lets only one living thread of a
    process set it, the first that did: so an executor enters this context on the caller's thread, too.
    """
    global _limit, _limit_users
    with _limit_lock:
        if _limit is None:
            _limit = threadpool_limits(1)
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0:
                _limit.restore_original_limits()
                _limit = None


def run_with_retries(
    task: Callable[[Item, Any], Result], item: Item, shared: Any, retries: int, losses: int = 0
) -> Outcome[Result]:
    """Run one item on a worker, retrying up to `retries` times, and return its outcome.

    `losses`, the number of workers that died with this item, only adds to the number of attempts. Linear algebra runs
    on one thread: more threads would change the order of additions, hence the bits, and compete for cores.
    """
    outcome: Callable[..., Outcome[Result]] = partial(Outcome, host=socket.gethostname(), pid=os.getpid())
    for retry in range(retries + 1):
        started = time.perf_counter()
        try:
            with one_thread():
                value = task(item, shared)
            return outcome(value=value, attempt=losses + retry + 1, seconds=time.perf_counter() - started)
        except InputError as error:
            return outcome(error=error, attempt=losses + retry + 1)
        except Exception as error:  # a task may raise anything
            cause = error
        if retry < retries:
            time.sleep(RETRY_DELAY_SECONDS * 2**retry)
    message = str(cause) if isinstance(cause, FruitsError) else f"{type(cause).__name__}: {cause}"
    return outcome(
        attempt=losses + retries + 1,
        failure=f"{item} failed after {retries + 1} attempts. {message}\n"
        "Completed work is kept: fix the cause, then run the same command again to resume.",
        trace=without_secrets("".join(traceback.format_exception(cause)).rstrip()),
    )


def worker_loss_error(item: object, losses: int, cause: str) -> TaskError:
    """Return the error of an item that was lost at every attempt, such as with its worker."""
    return TaskError(
        f"{item} failed {losses} of {losses} times: {cause}. Completed work is kept: fix the cause, or give workers "
        "more memory, then run the same command again to resume."
    )

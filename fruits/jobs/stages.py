"""Stages: each step of a job is timed, reported to the progress listener and, if it is work for an engine, mapped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter
from typing import Any, Generic, TypeVar

from fruits.executor import Executor, Outcome
from fruits.jobs.reporting.timeline import Timeline
from fruits.jobs.tasks.moments import MergeItem
from fruits.jobs.tasks.reports import PartitionReport
from fruits.progress.heartbeat import UnderWay, Waiting, heartbeat
from fruits.progress.reporter import Progress

SLOWEST = 10  # partitions that the report names

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Stage(Generic[Item, Result]):
    """A stage that maps a task over items.

    Attributes
    ----------
    name : str
        One word, for the progress listener.
    task : callable
        Takes an item and `shared`; see :meth:`fruits.executor.Executor.map`.
    shared : object
        The value that all items share.
    unit : str
        The unit of the progress count, in the plural.
    size : callable
        Returns the number of units of an item.
    """

    name: str
    task: Callable[[Item, Any], Result]
    shared: Any
    unit: str
    size: Callable[[Item], int]


class StageRunner:
    """Runs the stages of one job, one after the other.

    Parameters
    ----------
    executor : Executor
        Started by the first stage that has items.
    progress : Progress
        The listener for stages, finished items and heartbeats.

    Attributes
    ----------
    seconds : dict of str to float
        The total duration of the stages of each name.
    slowest : list of dict
        The slowest partitions: stage, index, host, process, attempt, seconds, and the seconds of each step.
    timeline : Timeline
        The images that the network has processed over time.
    """

    def __init__(self, executor: Executor, progress: Progress) -> None:
        self.executor = executor
        self.executor.notify = progress.note  # type: ignore[method-assign]
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.slowest: list[dict[str, Any]] = []
        self.timeline = Timeline()

    @contextmanager
    def timed(
        self,
        name: str,
        total: int | None = None,
        unit: str = "images",
        waiting: Callable[[], Waiting] | None = None,
    ) -> Iterator[Callable[[int], None]]:
        """Time a stage that lasts as long as the context; yield a function that counts finished units."""
        start = time.perf_counter()
        with (
            self.progress.stage(name, total=total, unit=unit) as counter,
            heartbeat(name, self.progress, waiting) as finished,
        ):

            def advance(n: int) -> None:
                counter.advance(n)
                finished()

            yield advance
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def start(self) -> None:
        """Start the engine if it is not running yet."""
        if "engine" in self.seconds:
            return
        with self.timed("engine"):
            self.executor.start()
        dashboard = self.executor.dashboard
        text = f"dashboard: {dashboard}" if dashboard else None
        workers = self.executor.parallelism
        self.progress.event("engine", text, backend=self.executor.name, workers=workers, dashboard=dashboard)

    def note_idle_workers(self, partitions: int) -> None:
        """Start the engine, and note that it has more workers than a new job has partitions."""
        self.start()
        workers = self.executor.parallelism
        if partitions < workers:
            self.progress.note(
                f"{workers - partitions} of {workers} workers will be idle, because there "
                f"{'is 1 partition' if partitions == 1 else f'are {partitions} partitions'}. "
                "A smaller --partition-size gives every worker a partition"
            )

    def run(self, stage: Stage[Item, Result], items: Sequence[Item], receive: Callable[[Result], object]) -> None:
        """Map a stage over items on the executor; start nothing if there are no items.

        Parameters
        ----------
        stage : Stage
        items : sequence
        receive : callable
            Called with each result as it arrives.
        """
        if not items:
            return
        self.start()
        under_way = UnderWay(items, lambda: self.executor.parallelism)

        def arrived(index: int, outcome: Outcome[Result]) -> None:
            under_way.finish(index)
            result = outcome.result()
            receive(result)
            advance(stage.size(items[index]))
            self._log(stage.name, items[index], result, outcome)
            if isinstance(result, PartitionReport) and "network" in result.seconds:
                now = time.perf_counter()
                self.timeline.add(result.images, started, now - outcome.seconds, now)

        total, started = sum(map(stage.size, items)), time.perf_counter()
        with self.timed(stage.name, total, stage.unit, under_way.waiting) as advance:
            self.executor.map(stage.task, items, shared=stage.shared, progress=arrived)

    def _log(self, stage: str, item: object, result: object, outcome: Outcome[Any]) -> None:
        """Report a finished partition or merge as an event; keep the slowest partitions."""
        origin: dict[str, Any] = {
            "host": outcome.host,
            "pid": outcome.pid,
            "attempt": outcome.attempt,
            "seconds": round(outcome.seconds, 3),
        }
        if isinstance(result, PartitionReport):
            origin["steps"] = {step: round(seconds, 3) for step, seconds in result.seconds.items()}
            identity: dict[str, Any] = {"stage": stage, "index": result.index}
            counts: dict[str, Any] = {"images": result.images, "rows": result.rows, "rejects": dict(result.rejects)}
            self.progress.event("partition", **identity, **counts, **origin)
            self.slowest = nlargest(SLOWEST, [*self.slowest, identity | origin], key=itemgetter("seconds"))
        elif isinstance(item, MergeItem):
            self.progress.event("group", stage=stage, tree_level=item.group.level, index=item.group.index, **origin)

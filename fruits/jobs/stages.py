"""The stages of a job: each is timed, told to those who watch, and, where it is work for an engine, run on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest
from operator import itemgetter
from typing import Any, TypeVar

from fruits.executor import Executor, Outcome
from fruits.jobs.tasks import Checked, PartReport
from fruits.model.moments import Group
from fruits.progress.heartbeat import UnderWay, Waiting, heartbeat
from fruits.progress.reporter import Progress

__all__ = ["StageRunner"]

SLOWEST = 3  # partitions that are named at the end

Item = TypeVar("Item")
Result = TypeVar("Result")


class StageRunner:
    """Runs the stages of one job, one after the other.

    Parameters
    ----------
    executor : Executor
        Is started by the first stage that needs it.
    progress : Progress
        Is told of every stage, of what each item of it came to, and that nothing has finished for a while.

    Attributes
    ----------
    seconds : dict of str to float
        How long the stages of each name took.
    slowest : list of dict
        The partitions that took longest: stage, index, where and at which attempt, seconds, and those of each step.
    """

    def __init__(self, executor: Executor, progress: Progress) -> None:
        self.executor = executor
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.slowest: list[dict[str, Any]] = []

    @contextmanager
    def stage(
        self,
        name: str,
        total: int | None = None,
        unit: str = "images",
        waiting: Callable[[], Waiting] | None = None,
    ) -> Iterator[Callable[[int], None]]:
        """Return a context that lasts as long as the stage; what it yields is called with units that are done."""
        start = time.perf_counter()
        with (
            self.progress.stage(name, total=total, unit=unit) as stage,
            heartbeat(name, self.progress, waiting) as finished,
        ):

            def advance(n: int) -> None:
                stage.advance(n)
                finished()

            yield advance
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def start(self) -> None:
        """Start the engine, unless it is."""
        if "engine" in self.seconds:
            return
        with self.stage("engine"):
            self.executor.start()
        dashboard = self.executor.dashboard
        text = f"dashboard: {dashboard}" if dashboard else None
        workers = self.executor.parallelism
        self.progress.event("engine", text, backend=self.executor.name, workers=workers, dashboard=dashboard)

    def map(
        self,
        name: str,
        task: Callable[[Item, Any], Result],
        items: Sequence[Item],
        *,
        shared: Any,
        total: int,
        unit: str,
        take: Callable[[Result], int],
    ) -> None:
        """Run a stage on the executor; nothing is started where nothing is to be done.

        Parameters
        ----------
        name, total, unit
            As in :meth:`stage`.
        task, items, shared
            As in :meth:`fruits.executor.Executor.map`.
        take : callable
            Is given each result as it arrives, and returns for how many units it counts.
        """
        if not items:
            return
        self.start()
        under_way = UnderWay(items, lambda: self.executor.parallelism)

        def arrived(index: int, outcome: Outcome[Result]) -> None:
            under_way.finish(index)
            found = outcome.result()
            advance(take(found))
            self._tell(name, items[index], found, outcome)

        with self.stage(name, total, unit, under_way.waiting) as advance:
            self.executor.map(task, items, shared=shared, progress=arrived)

    def _tell(self, stage: str, item: object, found: object, outcome: Outcome[Any]) -> None:
        """Log what became of a partition or a group, and where; keep a partition where it is among the slowest."""
        ran: dict[str, Any] = {
            "host": outcome.host,
            "pid": outcome.pid,
            "attempt": outcome.attempt,
            "seconds": round(outcome.seconds, 3),
        }
        if isinstance(found, PartReport):
            ran["steps"] = {step: round(seconds, 3) for step, seconds in found.seconds.items()}
            about: dict[str, Any] = {"stage": stage, "index": found.index}
            counts: dict[str, Any] = {"images": found.images, "rows": found.rows, "rejects": dict(found.rejects)}
            self.progress.event("partition", **about, **counts, **ran)
            self.slowest = nlargest(SLOWEST, [*self.slowest, about | ran], key=itemgetter("seconds"))
        elif isinstance(item, Group) and isinstance(found, Checked) and not found.damages:
            self.progress.event("group", stage=stage, tree_level=item.level, index=item.index, **ran)

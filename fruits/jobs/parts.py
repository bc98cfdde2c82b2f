"""What is known of the parts of a job while it runs: which there are, that they are whole, and what became of them.

A part that is there is verified once in a command, on a worker, before anything is made of it. One that turns out to
be missing or damaged, then or when it is read, is removed, and what says that it is done: the stages, gone over again,
find it missing, and make it alone.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from fruits.errors import DamageError
from fruits.images.plan import Partition
from fruits.jobs import tasks
from fruits.jobs.report import REPORT
from fruits.jobs.stages import StageRunner
from fruits.jobs.tasks import Batch, Checked, PartReport, Parts
from fruits.model.moments import Group
from fruits.storage.checksums import Damage, Manifest
from fruits.storage.folder import Folder, part_name

__all__ = ["DamagedParts", "StoredParts"]

VERIFIED_TOGETHER = 32  # parts that one task verifies: some 200 MB
REPAIRS = 3  # of one part, in one command

Item = TypeVar("Item", Partition, Group)
Result = TypeVar("Result", bound="PartReport | Checked")


class DamagedParts(Exception):
    """A stage found parts that are missing or damaged."""

    def __init__(self, damages: Sequence[Damage]) -> None:
        super().__init__(*map(str, damages))
        self.damages = tuple({damage.name: damage for damage in damages}.values())


class StoredParts:
    """The parts of one job, as one command finds and makes them.

    Parameters
    ----------
    out : Folder
    manifest : Manifest
        What is known of their checksums.
    stages : StageRunner
        Runs what looks at them.
    fresh : bool
        Whether the job begins with this command. Nothing is taken for its own then that it has not made: parts that are
        there nevertheless were written late, by a job that was thrown away.

    Attributes
    ----------
    reports : dict of int to PartReport
        What became of each partition that went through the network, now or before.
    resumed : int
        How many of these were found done.
    features_differ : bool
        Whether features were made that are not what they were before: nothing may stay then that came of those.
    """

    def __init__(self, out: Folder, manifest: Manifest, stages: StageRunner, *, fresh: bool) -> None:
        self.out = out
        self.manifest = manifest
        self.stages = stages
        self.fresh = fresh
        self.reports: dict[int, PartReport] = {}
        self.resumed = 0
        self.features_differ = False
        self._whole: set[str] = set()
        self._repairs: Counter[str] = Counter()

    def done(self, folder: str, suffix: str, *, known: bool = False) -> set[int]:
        """Return the numbers of the parts that are in a folder, and may be this job's; or those alone that it knows."""
        there = (self.out / folder).parts()
        known = known or self.fresh
        return {index for index in there if not known or self.manifest.get(f"{folder}/{part_name(index, suffix)}")}

    def checksums(self, *names: str) -> tuple[bytes | None, ...]:
        """Return the checksums of parts, as far as they are known."""
        return tuple(map(self.manifest.get, names))

    def survey(self, partitions: Sequence[Partition], folder: str, suffix: str) -> list[Partition]:
        """Return the partitions whose parts are not in `folder`; verify the others, and find out what they were."""
        done = self.done(folder, suffix)
        finished = [
            dataclasses.replace(
                partition,
                inputs=self.checksums(
                    f"rejects/{part_name(partition.index, 'parquet')}", f"{folder}/{part_name(partition.index, suffix)}"
                ),
            )
            for partition in partitions
            if partition.index in done and partition.index not in self.reports
        ]
        batches = [Batch(tuple(some), folder, suffix) for some in _some(finished)]
        before, total = len(self.reports), len(finished)
        try:
            self._map("survey", tasks.survey, batches, shared=self.out, total=total, unit="partitions", size=_looked_at)
        finally:
            self.resumed += len(self.reports) - before
        return [partition for partition in partitions if partition.index not in done]

    def missing(self, folder: str, suffix: str, items: Sequence[Item]) -> list[Item]:
        """Return the items whose parts are not in `folder`; verify the others."""
        done = self.done(folder, suffix, known=suffix == "csv")  # which does not tell of itself whether it is whole
        names = [f"{folder}/{part_name(item.index, suffix)}" for item in items if item.index in done]
        unseen = [name for name in names if name not in self._whole]
        batches = [Parts(tuple(some), self.checksums(*some)) for some in _some(unseen)]
        self._map("verify", tasks.check, batches, shared=self.out, total=len(unseen), unit="parts", size=_looked_at)
        return [item for item in items if item.index not in done]

    def make(
        self,
        name: str,
        task: Callable[[Any, Any], Result],
        missing: Sequence[Any],
        *,
        shared: Any,
        total: int,
        unit: str,
        size: Callable[[Result], int],
    ) -> None:
        """Run a stage that makes what is missing, and take in what it says of that.

        Parameters
        ----------
        name, task, missing, shared, total, unit
            As in :meth:`fruits.jobs.stages.StageRunner.map`.
        size : callable
            Returns for how many units a result counts.

        Raises
        ------
        DamagedParts
            After the stage: parts were missing or damaged.
        """
        if missing:
            self.out.remove(REPORT)  # from here on, and until it is written again, the job is not complete
        self._map(name, task, missing, shared=shared, total=total, unit=unit, size=size)

    def _map(
        self,
        name: str,
        task: Callable[[Any, Any], Result],
        items: Sequence[Any],
        *,
        shared: Any,
        total: int,
        unit: str,
        size: Callable[[Result], int],
    ) -> None:
        """Run a stage that makes parts or looks at them, as :meth:`make`."""
        damages: list[Damage] = []

        def take(found: Result) -> int:
            damages.extend(self._take(found))
            return size(found)

        with self._manifest_kept():
            self.stages.map(name, task, items, shared=shared, total=total, unit=unit, take=take)
        if damages:
            raise DamagedParts(damages)

    def repair(self, damages: Sequence[Damage], last: str, suffix: str) -> None:
        """Remove what is damaged, and what says that it, or the job, is done.

        Parameters
        ----------
        damages : sequence of Damage
        last, suffix : str
            The folder, and the end of the names, of the parts that are the last to be written of a partition.

        Raises
        ------
        DamageError
            One of them was made again so often that its disk or the memory has to be at fault.
        """
        self._repairs.update(damage.name for damage in damages)
        for damage in damages:
            if self._repairs[damage.name] > REPAIRS:
                raise DamageError(
                    f"{self.out.address}/{damage} It was made again {REPAIRS} times. Check the disk and the memory, "
                    "then start the same command again."
                )
        self.out.remove(REPORT)
        for damage in damages:
            folder, _, name = damage.name.partition("/")
            self._whole.discard(damage.name)
            self.out.remove(damage.name)
            if folder == "rejects":
                self.out.remove(f"{last}/{name.partition('.')[0]}.{suffix}")

    def drop_what_came_of_features(self) -> None:
        """Remove what was made of features that are not what they were."""
        for name in ("rows", "model", "moments"):
            self.out.remove(name)
        self._whole = {name for name in self._whole if name.startswith(("features/", "rejects/"))}
        self.features_differ = False

    def _take(self, found: PartReport | Checked) -> tuple[Damage, ...]:
        """Take in checksums and the reports of partitions; return the damage."""
        reports = (found,) if isinstance(found, PartReport) else found.reports
        checksums = dict(found.checksums)
        for report in reports:
            checksums |= report.checksums
            if any(name.startswith("rejects/") for name in report.checksums):
                self.reports[report.index] = dataclasses.replace(report, checksums={})
        others = self.manifest.update(checksums)
        self.features_differ |= any(name.startswith("features/") for name in others)
        self._whole.update(checksums)
        return found.damages if isinstance(found, Checked) else ()

    @contextmanager
    def _manifest_kept(self) -> Iterator[None]:
        """Write what the manifest has to say of a stage, however that ends."""
        try:
            yield
        except BaseException:
            with suppress(OSError):  # what ends the stage is to be told; what is not written is found out again
                self.manifest.flush()
            raise
        self.manifest.flush()


def _some(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (things[start : start + VERIFIED_TOGETHER] for start in range(0, len(things), VERIFIED_TOGETHER))


def _looked_at(found: Checked) -> int:
    return len(found.checksums) + len(found.reports) + len(found.damages)

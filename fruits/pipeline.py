"""The three commands, from the listing to the report: :func:`fit`, :func:`run` and :func:`transform`.

::

    list → plan → featurize (map) → features/ + rejects/ → moments (map, per level) → model/ → write (map) → rows/

Each stage finds what is done already and does the rest, so that a command which was killed at any point goes on when
it is started again. ``job.json`` is written first and says what the folder is for; ``report.json`` is written last
and means that everything is there.

With :attr:`fruits.Job.shards` a command does its slice of ``featurize``, and of the first level of ``moments``, whose
groups no slice cuts. Any number of slices may be at work on one folder: what is not a slice's own, ``plan/`` and
``job.json``, is the same bytes whoever writes it.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nlargest
from operator import itemgetter
from typing import Any, TypeVar

from fruits import tasks
from fruits.backbones import backbone
from fruits.dataset import Listing, Partition, Plan, make_plan
from fruits.errors import (
    DamageError,
    DatasetError,
    InputError,
    ModelError,
    OutputError,
    RejectsError,
    SettingsError,
    StorageError,
)
from fruits.executor import Executor, Outcome
from fruits.featurizer import Network, compile_network
from fruits.heartbeat import UnderWay, Waiting, heartbeat
from fruits.job import Job
from fruits.job_file import JOB, check_same, describe, versions
from fruits.moments import Group, Moments, levels
from fruits.progress import Progress, Silent
from fruits.report import Report, SliceReport
from fruits.scaled_pca import ScaledPCA, check_components, solve
from fruits.storage import Folder, is_temporary, part_name
from fruits.tasks import Batch, PartReport, Rows, Source

__all__ = ["fit", "run", "transform"]

REPORT = "report.json"
# All that a job ever writes, in the order in which it is removed: first what says "complete", last whose it is.
STORED = (REPORT, "rows", "model", "moments", "features", "rejects", "plan", JOB)
SLOWEST = 3  # partitions that are named at the end
FEW = 8  # partitions, of which none is named
SURVEYED_TOGETHER = 256  # finished partitions that one task reads the reports of

Item = TypeVar("Item")
Result = TypeVar("Result")


def fit(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Fit the standardisation and the PCA on the features of the images, and store them in ``model/``.

    Parameters
    ----------
    job : Job
    executor : fruits.executor.Executor
        Where the work is done; see :func:`backends.load`.
    progress : fruits.progress.Progress, optional
        Is told what happens; silent where nothing is given.

    Returns
    -------
    Report or SliceReport
        The latter where ``job.shards`` asks for a slice.

    Raises
    ------
    InputError
        Something that was given cannot be used. Nothing was changed.
    JobError
        The job could not be finished. What is done is kept: the same call goes on from there.
    """
    return _Run("fit", job, executor, progress or Silent()).execute()


def run(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Fit, and write the rows of the same images; the network is run once per image. See :func:`fit`."""
    return _Run("run", job, executor, progress or Silent()).execute()


def transform(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Write the rows of the images with the fitted model ``job.model``, in one pass. See :func:`fit`."""
    if job.model is None:
        raise SettingsError("transform needs a fitted model. Give --model, the --out of a fit or a run.")
    return _Run("transform", job, executor, progress or Silent()).execute()


@dataclass(slots=True)
class _Run:
    """One execution of a command: the job, and what becomes known as it goes on."""

    command: str
    job: Job
    executor: Executor
    progress: Progress
    out: Folder = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)
    reports: dict[int, PartReport] = field(default_factory=dict)
    resumed: int = 0
    slowest: list[dict[str, Any]] = field(default_factory=list)

    def execute(self) -> Report | SliceReport:
        job = self.job
        settings = dataclasses.asdict(job)
        there = versions() | {"python": platform.python_version()}
        self.progress.event(
            "job_start", command=self.command, backend=self.executor.name, settings=settings, versions=there
        )
        self.out = Folder.at(job.out)
        model = self._given_model() if self.command == "transform" else None
        listing = Listing(job.images, limit=job.limit, follow_links=job.follow_links)
        self.out.check()
        fresh = self._is_fresh()
        plan = self._plan(listing, self.out / "plan" if fresh else None)
        if listing.links_out:
            self.progress.note(
                f"{listing.links_out:,} links lead out of {job.images} and were passed over; --follow-links takes them"
            )
        with self._stage("network"):
            network = self._network(model)
        with self._driver_storage():
            asked = describe(self.command, job, plan, network, model)
            if not fresh and job.overwrite:
                for name in STORED:
                    self.out.remove(name)
                fresh = self._plan(listing, self.out / "plan") == plan
            if fresh and not self.out.exists(JOB):  # a twin, or another slice, may have been sooner
                self.out.write_json(JOB, asked)
            else:
                check_same(self.out, self.out.read_json(JOB), asked, listing)
            partitions = plan.partitions()
            self.progress.event(
                "plan", partitions=len(partitions), **dataclasses.asdict(plan), fresh=fresh, network=asked["network"]
            )
            groups = _slice(levels(len(partitions))[0], job.shards)
            mine = [partition for group in groups for partition in partitions[group.start : group.stop]]
            source = Source(Folder.at(job.images), self.out, network)
            if model is not None:
                rows = Rows(self.out, model, job.format, job.columns)
                self._featurize(mine, tasks.transform, (source, rows), "transform", self._done("rows"))
            else:
                self._featurize(mine, tasks.featurize, source, "featurize", self._done("features"))
                if job.shards is not None and job.solver == "exact":
                    self._merge(groups)
            report: Report | SliceReport
            if job.shards is not None:
                report = self._slice_report(len(partitions))
            else:
                self._check_rejects()
                if model is None:
                    model = self._model(network)
                    if self.command == "run":
                        self._write_rows(partitions, Rows(self.out, model, job.format, job.columns))
                report = self._report(plan, listing, model)
        self.progress.event(
            "job_end",
            images=report.images,
            rows=report.rows,
            rejects=report.rejects,
            partitions=report.partitions,
            resumed=report.resumed,
            images_per_second=report.images_per_second,
            stage_seconds=report.seconds,
            slowest=report.slowest,
        )
        return report

    def _is_fresh(self) -> bool:
        """Tell whether the output folder is for this job to begin; False where a job is there already."""
        with self._driver_storage():
            if self.out.is_file():
                raise OutputError(f"--out {self.job.out} is a file. Give a folder, or one that does not exist yet.")
            # What a writer that was killed left under a temporary name is nobody's.
            there = [name for name in self.out.names() if not is_temporary(name)]
        strangers = [name for name in there if name not in STORED and not name.startswith(".")]
        if JOB not in there and there not in ([], ["plan"]) and not self.out.exists(JOB):
            raise OutputError(
                f"--out {self.job.out} holds other files ({', '.join((strangers or there)[:3])}) and no job. "
                "Give an empty folder, or one that does not exist yet."
            )
        return JOB not in there

    def _plan(self, listing: Listing, stored: Folder | None) -> Plan:
        """List the images and cut them into partitions; refuse, before anything is started, what cannot end well."""
        with self._stage("listing") as advance, self._driver_storage():
            plan = make_plan(_counted(listing, advance), self.job.partition_size, stored)
        try:
            self._check(plan, listing)
        except InputError:
            if stored is not None:
                self.out.remove("plan")
                self.out.remove_if_empty()
            raise
        return plan

    def _given_model(self) -> ScaledPCA:
        try:
            model = ScaledPCA.load(str(self.job.model))
        except OSError as error:
            raise ModelError(f"--model {self.job.model} cannot be read: {error.strerror or error}.") from error
        theirs = model.network.get("backbone")
        if self.job.backbone not in (None, theirs):
            raise ModelError(
                f"--model {self.job.model} was fitted on features of {theirs}, and --backbone {self.job.backbone} was "
                f"asked. Leave --backbone out, or give a model of {self.job.backbone}."
            )
        return model

    def _check(self, plan: Plan, listing: Listing) -> None:
        """Refuse, before anything is started, what cannot end well."""
        if plan.images == 0:
            others = f"; none of its {listing.ignored:,} files is an image" if listing.ignored else " and is empty"
            if listing.links_out:
                others += f", and {listing.links_out:,} are links that lead out of it, which --follow-links takes"
            raise DatasetError(
                f"{self.job.images}: no image found{others}. Give a folder <label>/<file> of JPEG, PNG, WebP, BMP, "
                "TIFF or GIF images."
            )
        if self.command != "transform":
            features = backbone(self.job.backbone or "MobileNetV2").features
            check_components(self.job.components, plan.images, features)

    def _network(self, model: ScaledPCA | None) -> Network:
        given = dict(model.network) if model is not None else {}
        network = compile_network(
            self.job.backbone or given.get("backbone", "MobileNetV2"),
            self.job.engine or given.get("engine", "openvino"),
            self.job.weights,
        )
        if model is not None and network.weights_digest != given.get("weights"):
            raise ModelError(
                f"--model {self.job.model} was fitted with weights of digest {given.get('weights')}, and those found "
                f"here have {network.weights_digest}. Give the same weights with --weights."
            )
        return network

    def _done(self, folder: str) -> set[int]:
        return set((self.out / folder).parts())

    def _featurize(
        self,
        partitions: Sequence[Partition],
        task: Callable[[Partition, Any], PartReport],
        shared: Any,
        name: str,
        done: set[int],
    ) -> None:
        """Run the network over the partitions that are not done; look up what the others were."""
        finished = [partition for partition in partitions if partition.index in done]
        self.resumed = len(finished)
        missing = [partition for partition in partitions if partition.index not in done]
        if finished:
            batches = [
                Batch(tuple(finished[start : start + SURVEYED_TOGETHER]))
                for start in range(0, len(finished), SURVEYED_TOGETHER)
            ]
            self._start()
            under_way = UnderWay(batches, self.executor)

            def surveyed(index: int, outcome: Outcome[list[PartReport]]) -> None:
                under_way.finish(index)
                advance(len(outcome.result()))

            with self._stage("survey", len(finished), "partitions", under_way.waiting) as advance:
                for reports in self.executor.map(tasks.survey, batches, shared=self.out, progress=surveyed):
                    self.reports |= {report.index: report for report in reports}
        images = sum(partition.images for partition in missing)
        done_now = self._map(name, task, missing, shared, images, lambda report: report.images)
        self.reports |= {report.index: report for report in done_now}

    def _check_rejects(self) -> None:
        images = sum(report.images for report in self.reports.values())
        rejects = self._rejects()
        rejected = sum(rejects.values())
        if rejected > self.job.max_reject_fraction * images:
            by_reason = ", ".join(f"{count:,} {reason}" for reason, count in rejects.items())
            raise RejectsError(
                f"{rejected:,} of {images:,} images could not be used ({by_reason}); allowed is a share of "
                f"{self.job.max_reject_fraction:g}. See {self.out.address}/rejects for each; mend them, or raise "
                "--max-reject-fraction and start the same command again."
            )

    def _rejects(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for report in self.reports.values():
            counts.update(report.rejects)
        return dict(sorted(counts.items()))

    def _model(self, network: Network) -> ScaledPCA:
        """Return the fitted model: the stored one, or one made of the stored features."""
        folder = self.out / "model"
        if folder.exists("model.json"):
            return ScaledPCA.load(folder)
        rows = [self.reports[index].rows for index in range(len(self.reports))]
        check_components(self.job.components, sum(rows), network.features)
        identity = {"backbone": network.backbone, "engine": network.engine, "weights": network.weights_digest}
        if self.job.solver == "native":
            self._start()
            with self._stage("native fit"):
                parts = [f"{self.out.address}/features/{part_name(index, 'parquet')}" for index in range(len(rows))]
                fitted = self.executor.fit_native(parts, rows, self.job.components)
            model = dataclasses.replace(fitted, network=identity)
        else:
            moments = self._moments(len(rows))
            if moments.count != sum(rows):
                raise DamageError(
                    f"{self.out.address}/moments count {moments.count:,} rows, the features {sum(rows):,}. "
                    "Start the command again with --overwrite."
                )
            with self._stage("solve"):
                model = solve(moments, self.job.components, network=identity)
        model.save(folder)
        return model

    def _moments(self, shards: int) -> Moments:
        tree = levels(shards)
        for level in tree:
            self._merge(level)
        return Moments.from_bytes(self.out.read(tasks.moments_name(len(tree), 0)))

    def _merge(self, groups: Sequence[Group]) -> None:
        done = self._done(f"moments/level-{groups[0].level}") if groups else set()
        missing = [group for group in groups if group.index not in done]
        self._map("moments", tasks.merge, missing, self.out, len(missing), lambda _: 1, unit="groups")

    def _write_rows(self, partitions: Sequence[Partition], rows: Rows) -> None:
        done = self._done("rows")
        missing = [partition for partition in partitions if partition.index not in done]
        images = sum(partition.images for partition in missing)
        self._map("rows", tasks.write_rows, missing, rows, images, lambda report: report.images)

    def _map(
        self,
        name: str,
        task: Callable[[Item, Any], Result],
        items: Sequence[Item],
        shared: Any,
        total: int,
        size: Callable[[Result], int],
        unit: str = "images",
    ) -> list[Result]:
        """Run one stage on the executor; nothing is started where nothing is to be done."""
        if not items:
            return []
        self.out.remove(REPORT)  # from here on, and until it is written again, something is missing
        self._start()
        under_way = UnderWay(items, self.executor)

        def done(index: int, outcome: Outcome[Result]) -> None:
            under_way.finish(index)
            advance(size(outcome.result()))
            self._tell(name, items[index], outcome)

        with self._stage(name, total, unit, under_way.waiting) as advance:
            return self.executor.map(task, items, shared=shared, progress=done)

    def _tell(self, stage: str, item: object, outcome: Outcome[Any]) -> None:
        """Log what became of an item, and where; keep it where it is among the slowest."""
        ran: dict[str, Any] = {
            "host": outcome.host,
            "pid": outcome.pid,
            "attempt": outcome.attempt,
            "seconds": round(outcome.seconds, 3),
        }
        if isinstance(item, Group):
            self.progress.event("group", stage=stage, level=item.level, index=item.index, **ran)
            return
        report: PartReport = outcome.result()
        ran["steps"] = {step: round(seconds, 3) for step, seconds in report.seconds.items()}
        about: dict[str, Any] = {"stage": stage, "index": report.index}
        self.progress.event(
            "partition", **about, images=report.images, rows=report.rows, rejects=dict(report.rejects), **ran
        )
        self.slowest = nlargest(SLOWEST, [*self.slowest, about | ran], key=itemgetter("seconds"))

    def _start(self) -> None:
        if "engine" not in self.seconds:
            with self._stage("engine"):
                self.executor.start()
            dashboard = self.executor.dashboard
            text = f"dashboard: {dashboard}" if dashboard else None
            workers = self.executor.parallelism
            self.progress.event("engine", text, backend=self.executor.name, workers=workers, dashboard=dashboard)

    @contextmanager
    def _stage(
        self,
        name: str,
        total: int | None = None,
        unit: str = "images",
        waiting: Callable[[], Waiting] | None = None,
    ) -> Iterator[Callable[[int], None]]:
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

    @contextmanager
    def _driver_storage(self) -> Iterator[None]:
        """Say in our words that the driver itself could not read or write the output folder."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"--out {self.job.out}: {error.strerror or error}. What is stored is kept: mend the cause, then start "
                "the same command again."
            ) from error

    def _report(self, plan: Plan, listing: Listing, model: ScaledPCA) -> Report:
        """Check that every image is accounted for, and write the report, which means that the job is complete."""
        rejects = self._rejects()
        rows = sum(report.rows for report in self.reports.values())
        if rows + sum(rejects.values()) != plan.images:
            raise DamageError(
                f"{self.out.address}: {plan.images:,} images were listed, and {rows:,} rows + "
                f"{sum(rejects.values()):,} rejects are there. Start the command again with --overwrite."
            )
        if self.out.exists(REPORT):
            return Report.of(self.out.read_json(REPORT), f"{self.out.address}/{REPORT}")
        for folder in ("features", "rejects", "rows", "model"):
            (self.out / folder).sweep()
        report = Report(
            **self._account(),
            ignored=listing.ignored,
            components=len(model.components),
            explained_variance_ratio=model.explained_variance_ratio.tolist(),
            components_reaching={f"{share:g}": model.components_reaching(share) for share in (0.8, 0.9, 0.95)},
        )
        self.out.write_json(REPORT, report.to_dict())
        return report

    def _slice_report(self, partitions: int) -> SliceReport:
        done = self._done("rows" if self.command == "transform" else "features")
        return SliceReport(
            **self._account(),
            shards=str(self.job.shards),
            partitions_of_job=partitions,
            partitions_left=partitions - len(done),
        )

    def _account(self) -> dict[str, Any]:
        """Return what the reports of a job and of a slice have in common."""
        taken = self.seconds.get("transform" if self.command == "transform" else "featurize", 0.0)
        steps: Counter[str] = Counter()
        for part in self.reports.values():
            steps.update(part.seconds)
        now = sum(part.images for part in self.reports.values() if part.seconds)
        return {
            "command": self.command,
            "out": self.out.address,
            "images": sum(part.images for part in self.reports.values()),
            "rows": sum(part.rows for part in self.reports.values()),
            "rejects": self._rejects(),
            "partitions": len(self.reports),
            "resumed": self.resumed,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "worker_seconds": {name: round(value, 3) for name, value in sorted(steps.items())},
            "images_per_second": round(now / taken, 1) if taken else 0.0,
            "slowest": self.slowest if len(self.reports) > FEW else [],
        }


def _slice(groups: Sequence[Group], shards: str | None) -> Sequence[Group]:
    """Return those of the first level's groups that are in the slice ``i/n``; all where none is asked for."""
    if shards is None:
        return groups
    number, of = map(int, shards.split("/"))
    return groups[len(groups) * (number - 1) // of : len(groups) * number // of]


def _counted(listing: Listing, advance: Callable[[int], None]) -> Iterator[Any]:
    for entry in listing:
        advance(1)
        yield entry

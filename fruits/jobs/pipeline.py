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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

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
from fruits.executor import Executor
from fruits.images.listing import Listing
from fruits.images.plan import Partition, Plan, make_plan, plan_file
from fruits.jobs import tasks
from fruits.jobs.identity import JOB, check_same, describe, is_same, stored_plan, versions
from fruits.jobs.job import Job
from fruits.jobs.parts import DamagedParts, StoredParts
from fruits.jobs.report import REPORT, Report, SliceReport
from fruits.jobs.stages import StageRunner
from fruits.jobs.tasks import Checked, PartReport, Rows, Source
from fruits.model.components import check_components
from fruits.model.moments import Group, Moments, levels
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.progress.reporter import Progress, Silent
from fruits.storage.checksums import Damage, Manifest, PartError, checksum, read_part
from fruits.storage.folder import Folder, is_temporary, part_name

__all__ = ["fit", "run", "transform"]

# All that a job ever writes, in the order in which it is removed: first what says "complete", last whose it is.
FOLDERS = ("rows", "model", "moments", "features", "rejects", "manifest", "plan")
STORED = (REPORT, *FOLDERS, JOB)
FEW = 8  # partitions, of which none is named
COUNTED_TOGETHER = 1000  # images of the listing: to tell of each of a hundred million takes minutes


def fit(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Fit the standardisation and the PCA on the features of the images, and store them in ``model/``.

    Parameters
    ----------
    job : Job
    executor : fruits.executor.Executor
        Where the work is done; see :func:`backends.load`.
    progress : fruits.progress.reporter.Progress, optional
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
    stages: StageRunner = field(init=False)
    parts: StoredParts = field(init=False)
    planned: dict[str, bytes] = field(default_factory=dict)
    asked: dict[str, object] = field(default_factory=dict)

    def execute(self) -> Report | SliceReport:
        job = self.job
        settings = dataclasses.asdict(job)
        there = versions() | {"python": platform.python_version()}
        self.progress.event(
            "job_start", command=self.command, backend=self.executor.name, settings=settings, versions=there
        )
        self.out = Folder.at(job.out)
        self.stages = StageRunner(self.executor, self.progress)
        model = self._given_model() if self.command == "transform" else None
        if self.command != "transform" and job.solver == "native":
            self.executor.check_native()
        listing = Listing(job.images, limit=job.limit, follow_links=job.follow_links)
        self.out.check()
        fresh = self._is_fresh()
        plan = self._kept_plan(fresh) if job.keep_plan else self._plan(listing, store=fresh)
        if listing.links_out:
            self.progress.note(
                f"{listing.links_out:,} links lead out of {job.images} and were passed over; --follow-links takes them"
            )
        with self.stages.stage("network"):
            try:
                network = self._network(model)
            except InputError:
                if fresh:
                    self._forget_plan()
                raise
        with self._driver_storage():
            asked = describe(self.command, job, plan, network, model)
            if not fresh and job.overwrite and not self._goes_on(asked):
                for name in STORED:
                    self.out.remove(name)
                fresh = True
                plan = self._plan(listing, store=True)
                asked = describe(self.command, job, plan, network, model)
            fresh = fresh and not self.out.exists(JOB)  # a twin, or another slice, may have been sooner
            if fresh:
                self.out.write_json(JOB, asked)
            else:
                check_same(self.out, self.out.read_json(JOB), asked, listing)
            self.asked = asked
            manifest = Manifest(self.out) if fresh else Manifest.load(self.out)
            if not fresh:
                self._check_plan(plan, listing, manifest)
            manifest.update(self.planned)
            manifest.flush()
            self.parts = StoredParts(self.out, manifest, self.stages, fresh=fresh)
            partitions = plan.partitions()
            self.progress.event(
                "plan", partitions=len(partitions), **dataclasses.asdict(plan), fresh=fresh, network=asked["network"]
            )
            groups = _slice(levels(len(partitions))[0], job.shards)
            source = Source(Folder.at(job.images), self.out, network)
            while True:
                try:
                    model = self._do(partitions, groups, source, model)
                    break
                except DamagedParts as found:
                    self._repair(found.damages, plan, listing)
            report: Report | SliceReport
            if job.shards is not None:
                report = self._slice_report(len(partitions))
            else:
                assert model is not None
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

    def _do(
        self, partitions: Sequence[Partition], groups: Sequence[Group], source: Source, model: ScaledPCA | None
    ) -> ScaledPCA | None:
        """Do what is missing of the job, or of a slice of it, and return the model, where there is one."""
        job = self.job
        mine = [partition for group in groups for partition in partitions[group.start : group.stop]]
        if self.command == "transform":
            assert model is not None
            rows = Rows(self.out, model, job.format, job.columns)
            self._featurize(mine, tasks.transform, (source, rows), "transform", "rows", job.format)
            if job.shards is None:
                self._check_rejects()
            return model
        self._featurize(mine, tasks.featurize, source, "featurize", "features", "parquet")
        if self.parts.features_differ:
            self.parts.drop_what_came_of_features()
        self._check_own()
        if job.shards is not None:
            if job.solver == "exact":
                self._merge(groups)
            return None
        self._check_rejects()
        fitted = self._model(source.network)
        if self.command == "run":
            self._check_own()
            self._write_rows(partitions, Rows(self.out, fitted, job.format, job.columns))
        return fitted

    def _repair(self, damages: Sequence[Damage], plan: Plan, listing: Listing) -> None:
        """Remove what is damaged: the stages find it missing, and make it again."""
        text = f"damaged: {damages[0]}{f', and {len(damages) - 1:,} more' * (len(damages) > 1)}; made again"
        self.progress.event("damage", text, parts=[str(damage) for damage in damages])
        last, suffix = ("rows", self.job.format) if self.command == "transform" else ("features", "parquet")
        self.parts.repair(damages, last, suffix)
        if any(damage.name.startswith("plan/") for damage in damages):
            self._plan_again(plan, listing)

    def _kept_plan(self, fresh: bool) -> Plan:
        """Return the plan of the job that is there, cut as it is asked for now."""
        with self._driver_storage():
            if fresh:
                raise SettingsError(
                    f"--keep-plan: {self.job.out} holds no job yet. Leave it out for the first command."
                )
            plan = stored_plan(self.out, self.out.read_json(JOB))
        return dataclasses.replace(plan, partition_size=self.job.partition_size)

    def _check_plan(self, plan: Plan, listing: Listing, manifest: Manifest) -> None:
        """Store the plan again where what is stored is not what the same listing gave just now."""
        if self.job.keep_plan:
            names = sorted({f"plan/{plan_file(partition)}" for partition in plan.partitions()})
            self.planned = {name: known for name in names if (known := manifest.get(name)) is not None}
            if len(self.planned) < len(names):
                raise DamageError(
                    f"{self.out.address}/manifest does not know all of the plan. Start the command again without "
                    "--keep-plan."
                )
            return
        try:
            for name, known in self.planned.items():
                read_part(self.out, name, known)
        except PartError as error:
            self.progress.event("damage", f"damaged: {error}; made again", parts=[str(error)])
            self._plan_again(plan, listing)

    def _plan_again(self, plan: Plan, listing: Listing) -> None:
        if self._plan(listing, store=True) != plan:
            raise DamageError(
                f"{self.job.images} has changed while this command ran, and the stored plan is damaged. "
                "Start the command again with --overwrite."
            )

    def _is_fresh(self) -> bool:
        """Tell whether the output folder is for this job to begin; False where a job is there already."""
        with self._driver_storage():
            if self.out.is_file():
                raise OutputError(f"--out {self.job.out} is a file. Give a folder, or one that does not exist yet.")
            # What a writer that was killed left under a temporary name is nobody's.
            there = [name for name in self.out.names() if not is_temporary(name)]
        strangers = [name for name in there if name not in STORED and not name.startswith(".")]
        if JOB in there or there in ([], ["plan"]) or self.out.exists(JOB):
            return JOB not in there
        if strangers or "manifest" not in there:
            raise OutputError(
                f"--out {self.job.out} holds other files ({', '.join((strangers or there)[:3])}) and no job. "
                "Give an empty folder, or one that does not exist yet."
            )
        if not self.job.overwrite:
            raise OutputError(
                f"--out {self.job.out} holds parts of a job, whose {JOB} is gone. Use --overwrite to begin anew, "
                "or give another folder."
            )
        return False

    def _plan(self, listing: Listing, *, store: bool) -> Plan:
        """List the images and cut them into partitions; refuse, before anything is started, what cannot end well."""
        files = _PlanFiles(self.out, store)
        with self.stages.stage("listing") as advance, self._driver_storage():
            plan = make_plan(_counted(listing, advance), self.job.partition_size, files)
        self.planned = files.checksums
        try:
            self._check(plan, listing)
        except InputError:
            if store:
                self._forget_plan()
            raise
        if store:
            files.remove_others()
        return plan

    def _forget_plan(self) -> None:
        """Leave the output as it was before a job that was not begun."""
        self.out.remove("plan")
        self.out.remove_if_empty()

    def _goes_on(self, asked: dict[str, object]) -> bool:
        """Tell whether the output holds the very job that is asked, and not all of it."""
        try:
            return is_same(self.out.read_json(JOB), asked) and not self.out.exists(REPORT)
        except (FileNotFoundError, OutputError):  # it is gone, or damaged
            return False

    def _check_own(self) -> None:
        """Raise where another command has thrown this job away, to begin another one, while it was under way."""
        try:
            own = is_same(self.out.read_json(JOB), self.asked)
        except FileNotFoundError:
            own = False
        if not own:
            raise OutputError(
                f"{self.out.address} holds another job since this one began: another command has --overwrite. Give "
                "each an --out of its own."
            )

    def _given_model(self) -> ScaledPCA:
        model_address = Folder.at(str(self.job.model)).address
        if f"{model_address}/".startswith(f"{self.out.address}/"):
            raise SettingsError(
                f"--out {self.job.out} holds the model of --model {self.job.model}. "
                "Give the rows an --out of their own."
            )
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

    def _network(self, model: ScaledPCA | None) -> NeuralNetwork:
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

    def _featurize(
        self,
        partitions: Sequence[Partition],
        task: Callable[[Partition, Any], PartReport | Checked],
        shared: Any,
        name: str,
        folder: str,
        suffix: str,
    ) -> None:
        """Run the network over the partitions that are not done."""
        missing = [
            dataclasses.replace(partition, inputs=(self.planned[f"plan/{plan_file(partition)}"],))
            for partition in self.parts.survey(partitions, folder, suffix)
        ]
        self._make(name, task, missing, shared)

    def _make(
        self,
        name: str,
        task: Callable[[Partition, Any], PartReport | Checked],
        missing: Sequence[Partition],
        shared: Any,
    ) -> None:
        """Run a stage that makes what is missing of partitions."""
        total = sum(partition.images for partition in missing)
        self.parts.make(name, task, missing, shared=shared, total=total, unit="images", size=_images)

    def _check_rejects(self) -> None:
        images = sum(report.images for report in self.parts.reports.values())
        rejects = self._rejects()
        rejected = sum(rejects.values())
        if rejected > self.job.max_reject_fraction * images:
            by_reason = ", ".join(f"{count:,} {reason}" for reason, count in rejects.items())
            raise RejectsError(
                f"{rejected:,} of {images:,} images could not be used ({by_reason}); allowed is a share of "
                f"{self.job.max_reject_fraction:g}. See {self.out.address}/rejects for each. Raise "
                "--max-reject-fraction and start the same command again; or mend them, and start it with --overwrite, "
                "because it is another job then."
            )

    def _rejects(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for report in self.parts.reports.values():
            counts.update(report.rejects)
        return dict(sorted(counts.items()))

    def _model(self, network: NeuralNetwork) -> ScaledPCA:
        """Return the fitted model: the stored one, or one made of the stored features."""
        folder = self.out / "model"
        rows = [self.parts.reports[index].rows for index in range(len(self.parts.reports))]
        if self.job.solver == "exact":
            check_components(self.job.components, sum(rows), network.features)
            for level in levels(len(rows)):
                self._merge(level)
        if folder.exists("model.json"):
            try:
                return ScaledPCA.load(folder)
            except ModelError as error:
                raise DamagedParts([Damage("model", str(error))]) from error
        check_components(self.job.components, sum(rows), network.features)
        identity = {"backbone": network.backbone, "engine": network.engine, "weights": network.weights_digest}
        if self.job.solver == "native":
            self.stages.start()
            with self.stages.stage("native fit"):
                parts = [f"{self.out.address}/features/{part_name(index, 'parquet')}" for index in range(len(rows))]
                fitted = self.executor.fit_native(parts, rows, self.job.components)
            model = dataclasses.replace(fitted, network=identity)
        else:
            moments = self._root(len(rows))
            if moments.count != sum(rows):
                raise DamageError(
                    f"{self.out.address}/moments count {moments.count:,} rows, the features {sum(rows):,}. "
                    "Remove that folder, and start the same command again."
                )
            with self.stages.stage("solve"):
                model = solve(moments, self.job.components, network=identity)
        model.save(folder)
        return model

    def _merge(self, groups: Sequence[Group]) -> None:
        """Merge some groups of one level; what is there already is verified."""
        if not groups:
            return
        level = groups[0].level

        def below(index: int) -> str:
            return f"features/{part_name(index, 'parquet')}" if level == 1 else tasks.moments_name(level - 1, index)

        missing = [
            dataclasses.replace(group, inputs=self.parts.checksums(*map(below, range(group.start, group.stop))))
            for group in self.parts.missing(f"moments/level-{level}", "safetensors", groups)
        ]
        self.parts.make(
            "moments", tasks.merge, missing, shared=self.out, total=len(missing), unit="groups", size=_groups
        )

    def _root(self, shards: int) -> Moments:
        name = tasks.moments_name(len(levels(shards)), 0)
        try:
            return Moments.from_bytes(read_part(self.out, name, *self.parts.checksums(name)))
        except PartError as error:
            raise DamagedParts([error.damage]) from error

    def _write_rows(self, partitions: Sequence[Partition], rows: Rows) -> None:
        missing = [
            dataclasses.replace(
                partition, inputs=self.parts.checksums(f"features/{part_name(partition.index, 'parquet')}")
            )
            for partition in self.parts.missing("rows", rows.format, partitions)
        ]
        self._make("rows", tasks.write_rows, missing, rows)

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
        rows = sum(report.rows for report in self.parts.reports.values())
        if rows + sum(rejects.values()) != plan.images:
            raise DamageError(
                f"{self.out.address}: {plan.images:,} images were listed, and {rows:,} rows + "
                f"{sum(rejects.values()):,} rejects are there. Give another --out."
            )
        self._check_own()
        if self.out.exists(REPORT):
            try:
                report = Report.of(self.out.read_json(REPORT), f"{self.out.address}/{REPORT}")
                self.progress.note("it was complete already: its parts were verified, and none had to be made again")
                return report
            except (OutputError, DamageError) as error:
                self.progress.event("damage", f"damaged: {REPORT}; made again", parts=[str(error)])
        self.out.sweep()
        for folder in (*FOLDERS, *(f"moments/{name}" for name in (self.out / "moments").names())):
            (self.out / folder).sweep()
        report = Report(
            **self._account(),
            ignored=None if self.job.keep_plan else listing.ignored,
            components=len(model.components),
            explained_variance_ratio=model.explained_variance_ratio.tolist(),
            components_reaching={f"{share:g}": model.components_reaching(share) for share in (0.8, 0.9, 0.95)},
        )
        self.out.write_json(REPORT, report.to_dict())
        return report

    def _slice_report(self, partitions: int) -> SliceReport:
        done = (self.out / ("rows" if self.command == "transform" else "features")).parts()
        return SliceReport(
            **self._account(),
            shards=str(self.job.shards),
            partitions_of_job=partitions,
            partitions_left=partitions - len(done),
        )

    def _account(self) -> dict[str, Any]:
        """Return what the reports of a job and of a slice have in common."""
        taken = self.stages.seconds.get("transform" if self.command == "transform" else "featurize", 0.0)
        steps: Counter[str] = Counter()
        for part in self.parts.reports.values():
            steps.update(part.seconds)
        now = sum(part.images for part in self.parts.reports.values() if part.seconds)
        return {
            "command": self.command,
            "out": self.out.address,
            "images": sum(part.images for part in self.parts.reports.values()),
            "rows": sum(part.rows for part in self.parts.reports.values()),
            "rejects": self._rejects(),
            "partitions": len(self.parts.reports),
            "resumed": self.parts.resumed,
            "seconds": {name: round(value, 3) for name, value in self.stages.seconds.items()},
            "worker_seconds": {name: round(value, 3) for name, value in sorted(steps.items())},
            "images_per_second": round(now / taken, 1) if taken else 0.0,
            "slowest": self.stages.slowest if len(self.parts.reports) > FEW else [],
        }


def _slice(groups: Sequence[Group], shards: str | None) -> Sequence[Group]:
    """Return those of the first level's groups that are in the slice ``i/n``; all where none is asked for."""
    if shards is None:
        return groups
    number, of = map(int, shards.split("/"))
    return groups[len(groups) * (number - 1) // of : len(groups) * number // of]


def _images(found: PartReport | Checked) -> int:
    return found.images if isinstance(found, PartReport) else 0


def _groups(found: Checked) -> int:
    return 0 if found.damages else 1


class _PlanFiles:
    """Takes the files of a plan for their checksums, and stores them where it is asked to."""

    def __init__(self, out: Folder, store: bool) -> None:
        self.checksums: dict[str, bytes] = {}
        self._out = out
        self._store = store

    def write(self, name: str, data: bytes) -> None:
        self.checksums[f"plan/{name}"] = checksum(data)
        if self._store:
            self._out.write(f"plan/{name}", data)

    def remove_others(self) -> None:
        """Remove what a plan that was not begun has left: it may have had more files."""
        for name in (self._out / "plan").names():
            if f"plan/{name}" not in self.checksums and not is_temporary(name):
                self._out.remove(f"plan/{name}")


def _counted(listing: Listing, advance: Callable[[int], None]) -> Iterator[Any]:
    entries = iter(listing)
    while some := list(islice(entries, COUNTED_TOGETHER)):
        yield from some
        advance(len(some))

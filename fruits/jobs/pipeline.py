"""The three commands, from the image folder to the report: :func:`fit`, :func:`run` and :func:`transform`.

::

    images → open the output: list → commit → plan/
               │
               ▼
             featurize (map, one task a partition) → rejects/ + features/
               │
               ▼
             merge moments (map, level by level) → moments/ → solve → model/
               │
               ▼
             write rows (map, one task a partition) → rows/ → report → commit

``transform`` goes from the images directly to ``rows/``, with a fitted model.

Each stage skips the parts that are finished, so that a command that was killed at any point resumes when it is started
again. With :attr:`fruits.Job.shards`, a command featurizes its slice of the partitions and merges the first level of
their moments; no slice cuts a group of that level. Any number of slices may work on one folder at the same time.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from fruits.errors import DamageError, JobError, ModelError, OutputError, SettingsError, StorageError
from fruits.executor import Executor, check_executor, native_solver
from fruits.images.plan import Partition, plan_index
from fruits.jobs.identity import versions
from fruits.jobs.job import Job
from fruits.jobs.output import Output, open_output
from fruits.jobs.parts import OutputParts
from fruits.jobs.report import REPORT, Report, SliceReport
from fruits.jobs.stages import Stage, StageRunner
from fruits.jobs.tasks import featurize as featurizing
from fruits.jobs.tasks.featurize import FeaturizeSettings, PlannedPartition, TransformSettings
from fruits.jobs.tasks.moments import MergeItem, merge, moments_name
from fruits.jobs.tasks.rows import FeaturizedPartition, RowSettings, write_rows
from fruits.model.components import check_components
from fruits.model.moments import Group, Moments, levels
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.progress.reporter import Progress, Silent
from fruits.storage.checksums import checksum, read_part
from fruits.storage.commits import COMMITS, complete
from fruits.storage.folder import Folder, encode_json
from fruits.text import without_secrets

__all__ = ["fit", "run", "transform"]


def fit(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Fit the standardisation and the PCA on the features of the images, and store them in ``model/``.

    Parameters
    ----------
    job : Job
    executor : fruits.Executor
        The engine that does the work; see :func:`backends.load`.
    progress : fruits.progress.reporter.Progress, optional
        The progress listener; default: silent.

    Returns
    -------
    Report or SliceReport
        A SliceReport if ``job.shards`` is set.

    Raises
    ------
    InputError
        An input cannot be used. Nothing was changed.
    JobError
        The job failed. Finished parts are kept: the same call resumes it.
    """
    return _execute("fit", job, executor, progress or Silent())


def run(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Fit, and write the rows of the same images. The network runs once on each image. See :func:`fit`."""
    return _execute("run", job, executor, progress or Silent())


def transform(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Write the rows of the images with the fitted model ``job.model``, in one pass. See :func:`fit`."""
    if job.model is None:
        raise SettingsError("transform needs a fitted model. Give `model`, the `out` of a fit or a run.")
    return _execute("transform", job, executor, progress or Silent())


def _execute(command: str, job: Job, executor: Executor, progress: Progress) -> Report | SliceReport:
    check_executor(executor)
    progress.event(
        "job_start",
        command=command,
        backend=executor.name,
        settings={
            name: without_secrets(value) if isinstance(value, str) else value
            for name, value in dataclasses.asdict(job).items()
        },
        versions=versions() | {"python": platform.python_version()},
    )
    model = _fitted_model(job) if command == "transform" else None
    if command != "transform" and job.solver == "native":
        native_solver(executor).check_native()
    runner = StageRunner(executor, progress)
    with runner.timed("network"):
        network = _network(job, model)
    with _storage_errors(job):
        output = open_output(command, job, network, model, runner)
        progress.event(
            "plan",
            partitions=len(output.plan.partitions()),
            **dataclasses.asdict(output.plan),
            fresh=output.fresh,
            network=output.commit.job["network"],
        )
        try:
            report = _Pipeline(command, job, network, output, OutputParts(output, runner), runner).execute(model)
        except JobError:
            output.owned.check_owner()  # the files of a superseded job are missing because another one removed them
            raise
    progress.event(
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


def _fitted_model(job: Job) -> ScaledPCA:
    """Return the model of a transform."""
    out, given = (_without_links(Folder.at(str(address)).address) for address in (job.out, job.model))
    if f"{given}/".startswith(f"{out}/"):
        raise SettingsError(f"`out` {job.out} contains the model of `model` {job.model}. Give the rows another `out`.")
    try:
        model = ScaledPCA.load(str(job.model))
    except OSError as error:
        raise ModelError(f"`model` {job.model} cannot be read: {error.strerror or error}.") from error
    fitted_on = model.network.get("backbone")
    if job.backbone not in (None, fitted_on):
        raise ModelError(
            f"`model` {job.model} was fitted on features of {fitted_on}, which contradicts `backbone` {job.backbone}. "
            f"Leave `backbone` out, or give a model of {job.backbone}."
        )
    return model


def _without_links(address: str) -> str:
    return address if "://" in address else os.path.realpath(address)


def _network(job: Job, model: ScaledPCA | None) -> NeuralNetwork:
    """Return the network of a job, which for a transform is that of the model."""
    fitted_on = dict(model.network) if model is not None else {}
    network = compile_network(
        job.backbone or fitted_on.get("backbone", "MobileNetV2"),
        job.engine or fitted_on.get("engine", "openvino"),
        job.weights,
    )
    if model is not None and network.weights_digest != fitted_on.get("weights"):
        raise ModelError(
            f"`model` {job.model} was fitted with weights of digest {fitted_on.get('weights')}, but the weights found "
            f"here have the digest {network.weights_digest}. Give the same weights with `weights`."
        )
    return network


@contextmanager
def _storage_errors(job: Job) -> Iterator[None]:
    """Translate an OSError of the driver's own reads and writes of the output."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"`out` = {job.out}: {error.strerror or error}. Stored parts are kept: fix the cause, then start the same "
            "command again."
        ) from error


@dataclass(frozen=True, slots=True)
class _Pipeline:
    """The stages of one command on an open output."""

    command: str
    job: Job
    network: NeuralNetwork
    output: Output
    parts: OutputParts
    runner: StageRunner

    def execute(self, model: ScaledPCA | None) -> Report | SliceReport:
        """Run the stages that are not finished, and return the report of the job or of the slice."""
        partitions = self.output.plan.partitions()
        if self.output.fresh:
            self.runner.note_idle_workers(len(partitions))
        groups = _slice(levels(len(partitions))[0], self.job.shards)
        selected = [partition for group in groups for partition in partitions[group.start : group.stop]]
        if model is not None:
            self._transform(selected, model)
        else:
            self._featurize(selected)
        self.output.owned.check_owner()
        if self.job.shards is not None:
            if model is None and self.job.solver == "exact":
                self._merge_moments(groups)
            return self._slice_report(len(partitions))
        self.parts.check_rejects(self.job.max_reject_fraction)
        if model is None:
            model = self._fit()
            if self.command == "run":
                self.output.owned.check_owner()
                self._write_rows(partitions, model)
        return self._finish(model)

    def _featurize(self, partitions: Sequence[Partition]) -> None:
        settings = FeaturizeSettings(Folder.at(self.job.images), self.output.owned, self.network)
        stage = Stage("featurize", featurizing.featurize, settings, "images", _planned_images)
        unfinished = self.parts.unfinished_partitions(partitions, "features", "parquet")
        self.parts.write(stage, self._planned(unfinished))

    def _transform(self, partitions: Sequence[Partition], model: ScaledPCA) -> None:
        settings = TransformSettings(
            FeaturizeSettings(Folder.at(self.job.images), self.output.owned, self.network), self._row_settings(model)
        )
        stage = Stage("transform", featurizing.transform, settings, "images", _planned_images)
        unfinished = self.parts.unfinished_partitions(partitions, "rows", self.job.format)
        self.parts.write(stage, self._planned(unfinished))

    def _planned(self, partitions: Sequence[Partition]) -> list[PlannedPartition]:
        checksum = self.output.plan_checksum
        return [PlannedPartition(partition, checksum(plan_index(partition))) for partition in partitions]

    def _row_settings(self, model: ScaledPCA) -> RowSettings:
        return RowSettings(self.output.owned, model, self.job.format, self.job.columns)

    def _fit(self) -> ScaledPCA:
        """Return the fitted model: the stored one, or one that is solved from the stored features."""
        rows = [self.parts.reports[index].rows for index in range(len(self.parts.reports))]
        check_components(self.job.components, sum(rows), self.network.features)
        if self.job.solver == "exact":
            for level in levels(len(rows)):
                self._merge_moments(level)
        if self.output.owned.name("model", "json") in (self.output.folder / "model").names():
            try:
                return ScaledPCA.load(self.output.folder)
            except ModelError as error:
                self.runner.progress.event("damage", f"corrupt: {error}; solving again", parts=["model"])
        model = self._solve_native(rows) if self.job.solver == "native" else self._solve(rows)
        for name, data in model.encode(self.output.owned.owner).items():
            self.output.owned.write(f"model/{name}", data)
        return model

    def _merge_moments(self, groups: Sequence[Group]) -> None:
        """Merge the groups of one level."""
        names = {group: moments_name(self.output.owned, group.level, group.index) for group in groups}
        unfinished = self.parts.unfinished(list(names.values()))
        items = [MergeItem(group, self._input_checksums(group)) for group in groups if names[group] in unfinished]
        self.parts.write(Stage("moments", merge, self.output.owned, "groups", lambda _: 1), items)

    def _input_checksums(self, group: Group) -> tuple[bytes, ...]:
        """Return the SHA-256 of the features, or of the nodes, that a group merges."""
        owned, indices, below = self.output.owned, range(group.start, group.stop), group.level - 1
        if below:
            return tuple(self.parts.checksum(moments_name(owned, below, index)) for index in indices)
        return tuple(self.parts.checksum(owned.part("features", index, "parquet")) for index in indices)

    def _solve(self, rows: Sequence[int]) -> ScaledPCA:
        """Solve the model from the root of the merge tree."""
        out = self.output.folder
        name = moments_name(self.output.owned, len(levels(len(rows))), 0)
        moments = Moments.from_bytes(read_part(out, name, self.parts.checksum(name)))
        if moments.count != sum(rows):
            raise DamageError(
                f"{out.address}/moments count {moments.count:,} rows, but the features have {sum(rows):,}. "
                "Remove that folder, and start the same command again."
            )
        with self.runner.timed("solve"):
            return solve(moments, self.job.components, network=self._network_identity())

    def _solve_native(self, rows: Sequence[int]) -> ScaledPCA:
        """Fit the model with the engine's own estimators."""
        self.runner.start()
        with self.runner.timed("native fit"):
            owned, address = self.output.owned, self.output.folder.address
            features = [f"{address}/{owned.part('features', index, 'parquet')}" for index in range(len(rows))]
            fitted = native_solver(self.runner.executor).fit_native(features, rows, self.job.components)
        return dataclasses.replace(fitted, network=self._network_identity())

    def _network_identity(self) -> dict[str, str]:
        network = self.network
        return {"backbone": network.backbone, "engine": network.engine, "weights": network.weights_digest}

    def _write_rows(self, partitions: Sequence[Partition], model: ScaledPCA) -> None:
        """Write the rows of the partitions from their stored features."""
        settings = self._row_settings(model)
        owned = self.output.owned
        names = {partition: owned.part("rows", partition.index, settings.format) for partition in partitions}
        unfinished = self.parts.unfinished(list(names.values()))
        items = [
            FeaturizedPartition(partition, self.parts.checksum(owned.part("features", partition.index, "parquet")))
            for partition in partitions
            if names[partition] in unfinished
        ]
        self.parts.write(Stage("rows", write_rows, settings, "images", lambda item: item.partition.images), items)

    def _finish(self, model: ScaledPCA) -> Report:
        """Check that every image is accounted for, and write the report, which marks the output as complete."""
        owned, out, images = self.output.owned, self.output.folder, self.output.plan.images
        totals = self.parts.totals(self.command)
        rejected = sum(totals["rejects"].values())
        if totals["rows"] + rejected != images:
            raise DamageError(
                f"{out.address}: {images:,} images were listed, but {totals['rows']:,} rows and {rejected:,} rejects "
                "are stored. Give another `out`."
            )
        report = self._stored_report() or Report(
            **totals,
            ignored=None if self.output.skipped is None else sum(self.output.skipped.values()),
            labels=self.output.labels,
            skipped=self.output.skipped,
            components=len(model.components),
            explained_variance_ratio=model.explained_variance_ratio.tolist(),
            components_reaching={f"{share:g}": model.components_reaching(share) for share in (0.8, 0.9, 0.95)},
        )
        data = encode_json(report.to_dict())
        commit, name = self.output.commit, owned.name(REPORT, "json")
        is_repair = commit.complete and commit.files.get(name) != checksum(data).hex()
        if not commit.complete:
            data = self._publish_report(data)
        files = self.parts.manifest_files() | {name: checksum(data).hex()}
        if self.command != "transform":
            files |= {f"model/{name}": checksum(data).hex() for name, data in model.encode(owned.owner).items()}
        if not (commit.complete and files.items() <= commit.files.items()):
            if not complete(out, commit, files):
                owned.check_owner()  # a twin was faster, unless another job claimed the folder
            elif is_repair:
                self._repair_report(name, data)
        for folder in (COMMITS, *self.output.subfolders()):
            owned.sweep(folder)
        return report

    def _publish_report(self, data: bytes) -> bytes:
        """Publish the report of a job, unless a twin has; return the content of the published one."""
        out, name = self.output.owned, self.output.owned.name(REPORT, "json")
        out.check_owner()
        return data if out.folder.create(name, data) else out.folder.read(name)

    def _repair_report(self, name: str, data: bytes) -> None:
        """Write the report that the commit of this command lists.

        It is written after the commit: of two commands that repair a report at once, only the one whose commit counts
        writes.
        """
        owned = self.output.owned
        try:
            dataclasses.replace(owned, commit=owned.commit + 1).write(name, data)
        except OutputError:
            owned.check_owner()  # a third command has repaired it since, unless another job claimed the folder

    def _stored_report(self) -> Report | None:
        """Return the report of a job that was complete before this command; None if it is missing or corrupt."""
        out, name = self.output.folder, self.output.owned.name(REPORT, "json")
        if not self.output.commit.complete:
            return None
        try:
            data = read_part(out, name, bytes.fromhex(self.output.commit.files[name]))
            report = Report.of(orjson.loads(data), f"{out.address}/{name}")
        except (DamageError, KeyError, ValueError) as error:
            self.runner.progress.event("damage", f"corrupt: {name}; writing it again", parts=[str(error)])
            return None
        self.runner.progress.note("the output was complete already; all its parts were verified")
        return report

    def _slice_report(self, partitions: int) -> SliceReport:
        finished = self.output.owned.parts("rows" if self.command == "transform" else "features")
        return SliceReport(
            **self.parts.totals(self.command),
            shards=str(self.job.shards),
            partitions_of_job=partitions,
            partitions_left=partitions - len(finished),
        )


def _slice(groups: Sequence[Group], shards: str | None) -> Sequence[Group]:
    """Return the groups of the first level that belong to the slice ``i/n``; all of them without a slice."""
    if shards is None:
        return groups
    number, count = map(int, shards.split("/"))
    return groups[len(groups) * (number - 1) // count : len(groups) * number // count]


def _planned_images(item: PlannedPartition) -> int:
    return item.partition.images

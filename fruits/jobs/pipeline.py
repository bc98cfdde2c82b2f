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

``transform`` goes from the images directly to ``rows/``, with a fitted model. With an output in place of the images,
its stored features are used: nothing is featurized, and a fit only solves. An update featurizes the images that were
added or changed; it adds their moments to those of the stored features, and subtracts those of dropped rows.

Each stage skips the parts that are finished, so that a command that was killed at any point resumes when it is started
again. With :attr:`fruits.Job.shards`, a command featurizes its slice of the partitions. Any number of slices may work
on one folder at the same time.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from fruits.errors import DamageError, JobError, ModelError, SettingsError, StorageError
from fruits.executor import Executor, check_executor, native_solver
from fruits.jobs.identity import feature_identity, versions
from fruits.jobs.job import Job
from fruits.jobs.output import Output, open_output
from fruits.jobs.parts import OutputParts
from fruits.jobs.report import REPORT, Report, SliceReport
from fruits.jobs.stages import Stage, StageRunner
from fruits.jobs.stored import StoredJob, encode_accounts, feature_source
from fruits.jobs.tasks import featurize as featurizing
from fruits.jobs.tasks.featurize import FeaturizeSettings, PlannedPartition, StoredFeatures, TransformSettings
from fruits.jobs.tasks.moments import Group, Input, MergeItem, MergeSettings, levels, merge
from fruits.jobs.tasks.rows import FeaturizedPartition, RowSettings, write_rows
from fruits.model.components import check_components
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.model.solver import solve
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.plan.partitions import Partition
from fruits.progress.reporter import Progress, Silent
from fruits.storage.checksums import checksum, read_part
from fruits.storage.commits import COMMITS, complete, last_commit, remove_earlier
from fruits.storage.folder import Folder, encode_json, part_name
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
    with _storage_errors(job):
        source = _source(job)
        network = None
        if source is None:
            with runner.timed("network"):
                network = _network(job, model)
                features = feature_identity(network)
        else:
            features = source.commit.job["features"]
        if model is not None:
            _check_network(job, model, features["network"])
        output = open_output(command, job, features, model, source, runner)
        plan = output.plan
        progress.event(
            "plan",
            partitions=len(plan.partitions),
            images=plan.images,
            partition_size=plan.partition_size,
            digest=plan.list.digest,
            fresh=output.fresh,
            network=features["network"],
        )
        report = _run(_Pipeline(command, job, network, output, OutputParts(output, runner), runner), model)
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


def _run(pipeline: _Pipeline, model: ScaledPCA | None) -> Report | SliceReport:
    """Run the stages; if they fail because another process completed the same job meanwhile, return its report."""
    output = pipeline.output
    try:
        return pipeline.execute(model)
    except JobError:
        output.owned.check_owner()  # the files of a superseded job are missing because another one removed them
        last = last_commit(output.folder)
        if last is None or not last.complete or output.commit.complete:
            raise
        data = output.folder.read(output.owned.name(REPORT, "json"))
        return Report.of(orjson.loads(data), output.folder.address)


def _source(job: Job) -> StoredJob | None:
    """Return the job whose stored features are used, if `images` is an output."""
    source = feature_source(job.images)
    if source is None:
        return None
    if Folder.at(job.images).address == Folder.at(job.out).address:
        raise SettingsError(f"`out` {job.out} is also `images`. Give another `out` for what is made from its features.")
    given = {"limit": job.limit, "sample": job.sample, "shards": job.shards, "update": job.update or None}
    if unused := [name for name, value in given.items() if value is not None]:
        raise SettingsError(
            f"`{unused[0]}` with the output {job.images} as `images`: not allowed, because all its features are used. "
            f"Leave `{unused[0]}` out."
        )
    return source


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
    return compile_network(
        job.backbone or fitted_on.get("backbone", "MobileNetV2"),
        job.engine or fitted_on.get("engine", "openvino"),
        job.weights,
    )


def _check_network(job: Job, model: ScaledPCA, network: Mapping[str, str]) -> None:
    """Raise if a model was fitted on features of another network."""
    if network["backbone"] != model.network.get("backbone"):
        raise ModelError(
            f"`model` {job.model} was fitted on features of {model.network.get('backbone')}, but those of {job.images} "
            f"are of {network['backbone']}. Give a model of {network['backbone']}."
        )
    if network["weights"] != model.network.get("weights"):
        raise ModelError(
            f"`model` {job.model} was fitted with weights of digest {model.network.get('weights')}, but the weights "
            f"found here have the digest {network['weights']}. Give the same weights with `weights`."
        )


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
    network: NeuralNetwork | None
    output: Output
    parts: OutputParts
    runner: StageRunner

    def execute(self, model: ScaledPCA | None) -> Report | SliceReport:
        """Run the stages that are not finished, and return the report of the job or of the slice."""
        partitions = self.output.plan.partitions
        selected = _slice(partitions, self.job.shards)
        if self.output.has_source:
            self.parts.use_source()
        elif self.command == "transform":
            assert model is not None
            self._transform(selected, model)
        else:
            self._featurize(selected)
        self.output.owned.check_owner()
        if self.job.shards is not None:
            return self._slice_report(len(partitions))
        self.parts.check_rejects(self.job.max_reject_fraction)
        moments = None
        if self.command != "transform":
            moments = self._moments()
            model = self._fit(moments)
        assert model is not None
        if self.command == "run" or (self.command == "transform" and self.output.has_source):
            self.output.owned.check_owner()
            self._write_rows(model)
        return self._finish(model, moments)

    def _featurize(self, partitions: Sequence[Partition]) -> None:
        stage = Stage("featurize", featurizing.featurize, self._featurize_settings(), "images", _planned_images)
        unfinished = self.parts.unfinished_partitions(partitions, "features", "parquet")
        self.parts.write(stage, [self._planned(partition) for partition in unfinished])

    def _transform(self, partitions: Sequence[Partition], model: ScaledPCA) -> None:
        settings = TransformSettings(self._featurize_settings(), self._row_settings(model))
        stage = Stage("transform", featurizing.transform, settings, "images", _planned_images)
        unfinished = self.parts.unfinished_partitions(partitions, "rows", self.job.format)
        self.parts.write(stage, [self._planned(partition) for partition in unfinished])

    def _featurize_settings(self) -> FeaturizeSettings:
        assert self.network is not None
        return FeaturizeSettings(
            Folder.at(self.job.images), self.output.owned, self.network, self.output.commit.job["features"]["fingerprint"]
        )

    def _planned(self, partition: Partition) -> PlannedPartition:
        pages = self.output.job.page_checksums(partition.start, partition.images)
        base, stored = self.output.base, partition.stored
        if base is None or stored is None:
            return PlannedPartition(partition, pages)
        name = base.owned.part("features", stored.index, "parquet", stored.owner)
        known = base.manifest.get(name)
        if known is None:
            return PlannedPartition(partition, pages)
        features = StoredFeatures(stored, base.page_checksums(stored.start, stored.images), (name, known))
        return PlannedPartition(partition, pages, features)

    def _row_settings(self, model: ScaledPCA) -> RowSettings:
        source = self.output.features.owned.folder if self.output.has_source else None
        return RowSettings(self.output.owned, model, self.job.format, self.job.columns, source)

    def _moments(self) -> Moments:
        """Return the moments of all features: the stored ones, those of an update, or the sum over all partitions."""
        partitions, base = self.output.plan.partitions, self.output.base
        rows = sum(report.rows for report in self.parts.reports.values())
        check_components(self.job.components, rows, self._features())
        stored = self.output.features.moments()
        if stored is None and base is not None and (before := base.moments()) is not None:
            changed = [partition for partition in partitions if partition.stored is not None]
            stored = before + self._merged("added", changed) - self._merged("removed", changed)
        if stored is None:
            stored = self._merged("features", partitions)
        if stored.count != rows:
            raise DamageError(
                f"{self.output.folder.address}/moments count {stored.count:,} rows, but the features have {rows:,}. "
                "Remove that folder, and start the same command again."
            )
        return stored

    def _features(self) -> int:
        return backbone(self.output.commit.job["features"]["network"]["backbone"]).features

    def _merged(self, kind: str, partitions: Sequence[Partition]) -> Moments:
        """Return the moments of the rows of some partitions in ``features/``, ``added/`` or ``removed/``."""
        if not partitions:
            return Moments.empty(self._features())
        owned = self.output.owned
        inputs: list[Input] = [self._input(kind, partition) for partition in partitions]
        for level in levels([self._most_rows(kind, partition) for partition in partitions]):
            names = [owned.part(f"moments/{kind}-{group.level}", group.index, "safetensors") for group in level]
            unfinished = self.parts.unfinished(names)
            settings = MergeSettings(self.output.features.owned.folder, self._features(), owned)
            items = [
                MergeItem(group, name, tuple(inputs[group.start : group.stop]))
                for group, name in zip(level, names, strict=True)
                if name in unfinished
            ]
            self.parts.write(Stage("moments", merge, settings, "groups", lambda _: 1), items)
            inputs = [(name, self.parts.checksum(name)) for name in names]
        (root,) = inputs
        return Moments.from_bytes(read_part(self.output.folder, *root))

    def _input(self, kind: str, partition: Partition) -> Input:
        if kind == "features":
            return self.parts.feature_parts(partition)[0]
        name = self.output.owned.part(kind, partition.index, "parquet")
        return name, self.parts.checksum(name)

    def _most_rows(self, kind: str, partition: Partition) -> int:
        """Return the number of rows of a part, or a bound for a partition that an earlier command finished."""
        if kind == "features":
            return partition.images
        report = self.parts.reports[partition.index]
        known = report.added if kind == "added" else report.removed
        bound = partition.images if kind == "added" or partition.stored is None else partition.stored.images
        return bound if known is None else known

    def _fit(self, moments: Moments) -> ScaledPCA:
        """Return the fitted model: the stored one, or one that is solved from the moments."""
        if self.output.owned.name("model", "json") in (self.output.folder / "model").names():
            try:
                return ScaledPCA.load(self.output.folder)
            except ModelError as error:
                self.runner.progress.event("damage", f"corrupt: {error}; solving again", parts=["model"])
        network = self.output.commit.job["features"]["network"]
        if self.job.solver == "native":
            model = dataclasses.replace(self._solve_native(), network=network)
        else:
            with self.runner.timed("solve"):
                model = solve(moments, self.job.components, network=network)
        for name, data in model.encode(self.output.owned.owner).items():
            self.output.owned.write(f"model/{name}", data)
        return model

    def _solve_native(self) -> ScaledPCA:
        """Fit the model with the engine's own estimators."""
        self.runner.start()
        with self.runner.timed("native fit"):
            address, partitions = self.output.features.owned.folder.address, self.output.plan.partitions
            features = [f"{address}/{self.output.features.features_name(partition)}" for partition in partitions]
            rows = [self.parts.reports[partition.index].rows for partition in partitions]
            return native_solver(self.runner.executor).fit_native(features, rows, self.job.components)

    def _write_rows(self, model: ScaledPCA) -> None:
        """Write the rows of the partitions from their stored features."""
        settings = self._row_settings(model)
        owned = self.output.owned
        partitions = self.output.plan.partitions
        names = {partition: owned.part("rows", partition.index, settings.format) for partition in partitions}
        unfinished = self.parts.unfinished(list(names.values()))
        items = [
            FeaturizedPartition(partition, *self.parts.feature_parts(partition))
            for partition in partitions
            if names[partition] in unfinished
        ]
        self.parts.write(Stage("rows", write_rows, settings, "images", lambda item: item.partition.images), items)

    def _finish(self, model: ScaledPCA, moments: Moments | None) -> Report:
        """Check that every image is accounted for, and write the report and the commit of the complete output."""
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
        written = {owned.name("plan/accounts", "parquet"): encode_accounts(self.parts.reports.values())}
        if moments is not None:
            written[owned.name("moments/total", "safetensors")] = moments.to_bytes()
        for name, data in written.items():
            owned.write(name, data)
        written[owned.name(REPORT, "json")] = self._publish_report(encode_json(report.to_dict()))
        if self.command != "transform":
            written |= {f"model/{name}": data for name, data in model.encode(owned.owner).items()}
        plan = owned.name("plan/partitions", "parquet")
        pages, listed = self.parts.final_manifest()
        files = {name: checksum(data).hex() for name, data in written.items()}
        files |= {plan: self.output.commit.files[plan], **pages}
        self._complete(files, listed)
        return report

    def _complete(self, files: Mapping[str, str], listed: Iterable[str]) -> None:
        """Create the commit of the complete output, and remove everything that it does not list."""
        owned, out, commit = self.output.owned, self.output.folder, self.output.commit
        if not (commit.complete and files == commit.files) and not complete(out, commit, files):
            owned.check_owner()  # a twin was faster, unless another job claimed the folder
        last = owned.check_owner()
        for folder in (COMMITS, *self.output.subfolders()):
            owned.sweep(folder)
        if last is not None and last.complete and last.files == files:
            final = {*files, *listed, *self.output.job.page_names()}
            for folder in self.output.subfolders():
                owned.remove_unlisted(folder, final)
            remove_earlier(out, last)

    def _publish_report(self, data: bytes) -> bytes:
        """Publish the report of a job, unless a twin has; return the content of the published one."""
        out, name = self.output.owned, self.output.owned.name(REPORT, "json")
        if self.output.commit.complete:  # its report was read, or is corrupt
            if self.output.commit.files.get(name) != checksum(data).hex():
                out.write(name, data)
            return data
        out.check_owner()
        return data if out.folder.create(name, data) else out.folder.read(name)

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
        folder, suffix = ("rows", self.job.format) if self.command == "transform" else ("features", "parquet")
        stored = set((self.output.folder / folder).names())
        names = (part_name(each.index, suffix, each.owner or self.output.owned.owner) for each in self.output.plan.partitions)
        return SliceReport(
            **self.parts.totals(self.command),
            shards=str(self.job.shards),
            partitions_of_job=partitions,
            partitions_left=partitions - sum(name in stored for name in names),
        )


def _slice(partitions: Sequence[Partition], shards: str | None) -> Sequence[Partition]:
    """Return the partitions that belong to the slice ``i/n``; all of them without a slice."""
    if shards is None:
        return partitions
    number, count = map(int, shards.split("/"))
    return partitions[len(partitions) * (number - 1) // count : len(partitions) * number // count]


def _planned_images(item: PlannedPartition) -> int:
    return item.partition.images

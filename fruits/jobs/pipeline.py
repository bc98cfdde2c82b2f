"""The commands, from the image folder to the report: :func:`fit`, :func:`run`, :func:`transform`, :func:`apply`.

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
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fruits.errors import JobError, SettingsError
from fruits.executor import Executor, check_executor, native_solver
from fruits.images.decode import Decoding
from fruits.images.pasting import Backgrounds, load_backgrounds
from fruits.images.sources.kinds import open_source
from fruits.jobs.completion import Completion, tidy
from fruits.jobs.fitting import Fitting, check_features, decode_mode, fitted_model, kept_model, without_links
from fruits.jobs.identity import feature_identity, versions
from fruits.jobs.job import FITTING, Job
from fruits.jobs.output import Output, Request, current_commit, open_output, storage_errors
from fruits.jobs.parts import OutputParts
from fruits.jobs.report import REPORT, Report, SliceReport
from fruits.jobs.reporting.write import COMMANDS, add_page, write_page
from fruits.jobs.stages import Stage, StageRunner
from fruits.jobs.stored import StoredJob, feature_source
from fruits.jobs.tasks import featurize as featurizing
from fruits.jobs.tasks.featurize import FeaturizeSettings, PlannedPartition, StoredFeatures, TransformSettings
from fruits.jobs.tasks.rows import Encoder, FeaturizedPartition, RowSettings, write_rows
from fruits.model.rows import RowEncoder
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.plan.partitions import Partition
from fruits.progress.reporter import Progress
from fruits.progress.select import default
from fruits.storage.folder import Folder
from fruits.text import without_secrets


def fit(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Fit the standardisation and the PCA on the features of the images, and store them in ``model/``.

    Parameters
    ----------
    job : Job
    executor : fruits.Executor
        The engine that does the work; see :func:`backends.load`.
    progress : fruits.progress.reporter.Progress, optional
        The progress listener; default: a bar in a notebook, else silent.

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
    return _execute("fit", job, executor, progress, None)


def run(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Fit, and write the rows of the same images. The network runs once on each image. See :func:`fit`."""
    return _execute("run", job, executor, progress, None)


def transform(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Write the rows of the images with the fitted model ``job.model``, in one pass. See :func:`fit`."""
    if job.model is None:
        raise SettingsError("transform needs a fitted model. Give `model`, the `out` of a fit or a run.")
    if job.crops != 1:
        raise SettingsError(
            f"`crops` = {job.crops}: not allowed for transform, which stores no features. "
            "Leave it out, or use fit or run."
        )
    check_executor(executor)
    encoder = RowEncoder(fitted_model(job), job.format, job.columns)
    return apply("transform", job, encoder, executor, progress=progress)


def apply(
    command: str, job: Job, encoder: Encoder, executor: Executor, *, progress: Progress | None = None
) -> Report | SliceReport:
    """Write the rows of the images with an encoder, in one pass. See :func:`fit`.

    Parameters
    ----------
    command : {"transform", "predict"}
    job : Job
    encoder : Encoder
    executor, progress
        See :func:`fit`.
    """
    if job.update:
        raise SettingsError(
            f"`update` for {command}: not allowed, because it stores no features. Use `overwrite`, or run or fit."
        )
    return _execute(command, job, executor, progress, encoder)


def _execute(
    command: str, job: Job, executor: Executor, listener: Progress | None, encoder: Encoder | None
) -> Report | SliceReport:
    check_executor(executor)
    progress = listener or default()
    _log_start(command, job, executor, progress)
    if job.backgrounds is not None and command != "fit":
        raise SettingsError(f"`backgrounds` for {command}: not allowed. Give it to fit, to train a recogniser.")
    kept = kept_model(command, job)
    if command in FITTING and job.solver == "native":
        native_solver(executor).check_native()
    runner = StageRunner(executor, progress)
    with storage_errors(job.out):
        source = _source(job)
        if job.backgrounds is not None:  # refuse a wrong folder before photographs are read
            current_commit(Folder.at(job.out), job)
        network, backgrounds, features = _features(job, encoder, source, runner)
        if encoder is not None:
            check_features(job, encoder, features)
        if kept is not None:
            encoder = RowEncoder(kept, job.format, job.columns)
        output = open_output(Request(command, job, features, encoder, source, runner))
        _log_plan(output, progress)
        owned, parts = output.owned, OutputParts(output, runner)
        report = _run(_Pipeline(command, job, network, backgrounds, output, parts, runner), encoder)
        del output, parts  # 2 kB a partition, which the page reads again
        if job.report and command in COMMANDS and isinstance(report, Report):
            add_page(owned, runner, write_page)
    counts = ("images", "rows", "rejects", "partitions", "resumed", "images_per_second", "slowest")
    progress.event("job_end", stage_seconds=report.seconds, **{name: getattr(report, name) for name in counts})
    return report


def _log_start(command: str, job: Job, executor: Executor, progress: Progress) -> None:
    settings = dataclasses.asdict(job).items()
    progress.event(
        "job_start",
        command=command,
        backend=executor.name,
        settings={name: without_secrets(value) if isinstance(value, str) else value for name, value in settings},
        versions=versions() | {"python": platform.python_version()},
    )


def _log_plan(output: Output, progress: Progress) -> None:
    plan = output.plan
    progress.event(
        "plan",
        str(plan),
        partitions=len(plan.partitions),
        images=plan.images,
        partition_size=plan.partition_size,
        digest=plan.list.digest,
        fresh=output.fresh,
        network=output.commit.job["features"]["network"],
    )


def _run(pipeline: _Pipeline, encoder: Encoder | None) -> Report | SliceReport:
    """Run the stages; if they fail because another process completed the same job meanwhile, return its report."""
    output = pipeline.output
    try:
        return pipeline.execute(encoder)
    except JobError:
        output.owned.check_owner()  # the files of a superseded job are missing because another one removed them
        if output.commit.complete or tidy(output) is None:
            raise
        data = output.folder.read(output.owned.name(REPORT, "json"))
        return Report.of(orjson.loads(data), output.folder.address)


def _source(job: Job) -> StoredJob | None:
    """Return the job whose stored features are used, if `images` is an output."""
    source = feature_source(job.images)
    if source is None:
        return None
    if without_links(Folder.at(job.images).address) == without_links(Folder.at(job.out).address):
        raise SettingsError(f"`out` {job.out} is also `images`. Give another `out` for what is made from its features.")
    given = {name: getattr(job, name) for name in ("limit", "sample", "shards", "backgrounds")}
    given |= {"update": job.update or None} | job.source_options().given()
    if unused := [name for name, value in given.items() if value is not None]:
        raise SettingsError(
            f"`{unused[0]}` with the output {job.images} as `images`: not allowed, because all its features are used. "
            f"Leave `{unused[0]}` out."
        )
    return source


def _features(
    job: Job, encoder: Encoder | None, source: StoredJob | None, runner: StageRunner
) -> tuple[NeuralNetwork | None, Backgrounds | None, dict[str, Any]]:
    """Return the network and the backgrounds of a job without stored features, and the identity of its features."""
    if source is not None:
        return None, None, source.commit.job["features"]
    fitted_on = dict(encoder.network) if encoder is not None else {}
    with runner.timed("model"):
        network = compile_network(
            job.backbone or fitted_on.get("backbone", "MobileNetV2"),
            job.engine or fitted_on.get("engine", "openvino"),
            job.weights,
        )
        decoding = Decoding(decode_mode(job, encoder), job.crops if encoder is None else encoder.crops)
        backgrounds = None if job.backgrounds is None else load_backgrounds(job.backgrounds)
        return network, backgrounds, feature_identity(network, decoding, backgrounds)


@dataclass(frozen=True, slots=True)
class _Pipeline:
    """The stages of one command on an open output."""

    command: str
    job: Job
    network: NeuralNetwork | None
    backgrounds: Backgrounds | None
    output: Output
    parts: OutputParts
    runner: StageRunner

    def execute(self, encoder: Encoder | None) -> Report | SliceReport:
        """Run the stages that are not finished, and return the report of the job or of the slice."""
        partitions = self.output.plan.partitions
        if self.output.fresh and self.output.base is None and not self.output.has_source:
            self.runner.note_idle_workers(len(partitions))
        selected = _slice(partitions, self.job.shards)
        if self.output.has_source:
            self.parts.reports = self.output.features.accounts()
        elif self.command not in FITTING:
            assert encoder is not None
            self._transform(selected, encoder)
        else:
            self._featurize(selected)
        self.output.owned.check_owner()
        if self.job.shards is not None:
            return self._slice_report(len(partitions))
        self.parts.check_rejects(self.job.max_reject_fraction)
        moments, model = None, encoder.model if isinstance(encoder, RowEncoder) else None
        if self.command in FITTING:
            fitting = Fitting(self.job, self.output, self.parts, self.runner)
            moments = fitting.moments()
            if encoder is None:
                model = fitting.fit(moments)
        if self.command == "run" and encoder is None:
            assert model is not None
            encoder = RowEncoder(model, self.job.format, self.job.columns)
        if encoder is not None and (self.command == "run" or self.output.has_source):
            self.output.owned.check_owner()
            self._write_rows(encoder)
        return Completion(self.command, self.output, self.parts, self.runner).complete(model, moments)

    def _featurize(self, partitions: Sequence[Partition]) -> None:
        stage = Stage("featurize", featurizing.featurize, self._featurize_settings(), "images", _planned_images)
        unfinished = self.parts.unfinished_partitions(partitions, "features")
        self.parts.write(stage, [self._planned(partition) for partition in unfinished])

    def _transform(self, partitions: Sequence[Partition], encoder: Encoder) -> None:
        settings = TransformSettings(self._featurize_settings(), self._row_settings(encoder))
        stage = Stage(self.command, featurizing.transform, settings, "images", _planned_images)
        unfinished = self.parts.unfinished_partitions(partitions, "rows")
        self.parts.write(stage, [self._planned(partition) for partition in unfinished])

    def _featurize_settings(self) -> FeaturizeSettings:
        assert self.network is not None
        features = self.output.commit.job["features"]
        decoding = Decoding(features["decode"], features["crops"])
        source = open_source(self.job.images, self.job.source_options())
        return FeaturizeSettings(
            source, self.output.owned, self.network, features["fingerprint"], decoding, self.backgrounds
        )

    def _planned(self, partition: Partition) -> PlannedPartition:
        pages = self.output.job.page_checksums(partition.start, partition.images)
        base, stored, features = self.output.base, partition.stored, None
        if base is not None and stored is not None:
            name = base.owned.part("features", stored.partition, "parquet", stored.owner)
            if (known := base.manifest.get(name)) is not None:
                features = StoredFeatures(stored, base.page_checksums(stored.start, stored.images), (name, known))
        return PlannedPartition(partition, pages, features)

    def _row_settings(self, encoder: Encoder) -> RowSettings:
        source = self.output.features.owned.folder if self.output.has_source else None
        return RowSettings(self.output.owned, encoder, source)

    def _write_rows(self, encoder: Encoder) -> None:
        """Write the rows of the partitions from their stored features."""
        settings = self._row_settings(encoder)
        partitions = self.output.plan.partitions
        names = {partition: self.output.job.rows_name(partition) for partition in partitions}
        unfinished = self.parts.unfinished(list(names.values()))
        items = [
            FeaturizedPartition(partition, *self.parts.feature_parts(partition))
            for partition in partitions
            if names[partition] in unfinished
        ]
        self.parts.write(Stage("rows", write_rows, settings, "images", lambda item: item.partition.images), items)

    def _slice_report(self, partitions: int) -> SliceReport:
        finished = self.output.job.stored_partitions("features" if self.command in FITTING else "rows")
        totals, left = self.parts.totals(self.command), partitions - len(finished)
        return SliceReport(**totals, shards=str(self.job.shards), partitions_of_job=partitions, partitions_left=left)


def _slice(partitions: Sequence[Partition], shards: str | None) -> Sequence[Partition]:
    """Return the partitions that belong to the slice ``i/n``; all of them without a slice."""
    if shards is None:
        return partitions
    number, count = map(int, shards.split("/"))
    return partitions[len(partitions) * (number - 1) // count : len(partitions) * number // count]


def _planned_images(item: PlannedPartition) -> int:
    return item.partition.images

"""Evaluate a recogniser on labelled images: predictions, labels left out, and the report as JSON and as one page.

The predictions are a job in ``predictions/`` below the evaluation, on any executor. Labels are left out on workers,
each of which reads the training data of the recogniser once. The driver holds the recognition of each image: about
1 kB, so that 10 million images take 10 GB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, cast

from fruits.errors import DatasetError, OutputError, SettingsError
from fruits.executor import Executor
from fruits.images.sources.options import SourceOptions
from fruits.jobs.job import Job
from fruits.jobs.output import storage_errors
from fruits.jobs.report import finished, row_files
from fruits.jobs.stages import Stage, StageRunner
from fruits.jobs.stored import StoredJob, feature_source
from fruits.jobs.tasks.thumbnails import PictureItem, make_pictures, picture_source
from fruits.model.rows import decode_rows
from fruits.parameters import whole_number
from fruits.progress.reporter import Progress
from fruits.progress.select import default
from fruits.recogniser.evaluation.leave_out import MOST_LABELS, LeftOut, choose_labels, leave_out
from fruits.recogniser.evaluation.metrics import Metrics, Outcome, UnknownImages, measure
from fruits.recogniser.evaluation.page import Heading, render_page
from fruits.recogniser.files import StoredRecogniser, read_recogniser
from fruits.recogniser.jobs.predict import predict
from fruits.recogniser.jobs.sources import check_labels
from fruits.recogniser.jobs.status import stale_sources
from fruits.recogniser.methods import Method
from fruits.recogniser.recogniser import Recogniser
from fruits.recogniser.training.fitting import Source, Statistics, group_statistics
from fruits.recogniser.training.records import stored_sources
from fruits.storage.folder import Folder, encode_json, is_temporary
from fruits.text import without_secrets

PREDICTIONS = "predictions"
JSON, PAGE = "report.json", "report.html"
LABELS_AT_ONCE = 4  # of an item: a worker keeps what it has read for the next item


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation, also stored as ``report.json``.

    Attributes
    ----------
    version : str
        The version of the recogniser.
    source : str
        The evaluated images.
    images, rejects : int
        The images that it lists, and those of them that could not be used.
    metrics : Metrics or None
        The numbers of the images whose label is known to the recogniser; None if there are none.
    unknown : UnknownImages
        The images of labels that it does not know, and how many of them it rejected.
    left_out : tuple of LeftOut
        The recognition of labels that were left out of training, at most 200; empty if there are fewer than three, or
        if none was asked for.
    """

    version: str
    source: str
    images: int
    rejects: int
    metrics: Metrics | None
    unknown: UnknownImages
    left_out: tuple[LeftOut, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON-compatible values, with the sums over the labels left out."""
        values = asdict(self)
        images = sum(each.images for each in self.left_out)
        values["left_out"] = {
            "images": images,
            "rejected": sum(each.rejected for each in self.left_out) / images if images else None,
            "placed": sum(each.placed for each in self.left_out) / images if images else None,
            "labels": [asdict(each) for each in self.left_out],
        }
        return values


def evaluate(
    source: str,
    recogniser: str,
    out: str,
    executor: Executor,
    *,
    image_column: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    label_regex: str | None = None,
    left_out: int = MOST_LABELS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a recogniser on a source, and write ``report.json`` and ``report.html``.

    Parameters
    ----------
    source : str
        A folder of labelled images, or an output with features.
    recogniser : str
        The folder of the recogniser.
    out : str
        The folder of the evaluation.
    executor : fruits.Executor
        The engine that does the work; see :func:`backends.load`.
    image_column, path_column, label_column, label_regex : str, optional
        Where the images, the paths and the labels of the source are; as in :class:`fruits.Job`.
    left_out : int, default 200
        The largest number of labels that are left out of training, one at a time, for a few seconds each; 0 to 200.
    overwrite : bool, default False
        Replace another evaluation in `out`.
    progress : fruits.progress.reporter.Progress, optional
        The progress listener; default: a bar in a notebook, else silent.

    Raises
    ------
    InputError
        An input cannot be used.
    JobError
        The evaluation failed. The same call resumes it.
    """
    listener = progress or default()
    if not 0 <= whole_number("left_out", left_out) <= MOST_LABELS:
        raise SettingsError(f"`left_out` = {left_out}: not allowed. Allowed: 0 to {MOST_LABELS}.")
    with storage_errors(out):
        options = SourceOptions(
            image_column=image_column, path_column=path_column, label_column=label_column, label_regex=label_regex
        )
        stored_features = feature_source(source)
        if stored_features is not None or label_column is not None:
            check_labels(source, stored_features, options)
        folder = Folder.at(out)
        _check_folder(folder)
        for images in stale_sources(recogniser):
            listener.note(f"{recogniser} is stale: its source {images} has changed since the training")
        rows = folder / PREDICTIONS
        job = Job(
            images=source,
            out=rows.address,
            recogniser=recogniser,
            **options.given(),
            max_reject_fraction=1.0,
            overwrite=overwrite,
        )
        report = predict(job, executor, progress=listener)
        stored = _training_data_of(Folder.at(recogniser), str(finished(rows).job["recogniser"]))
        loaded = Recogniser.from_stored(stored)
        classes = _classes(stored.sources, stored.labels)
        outcomes, unknown = _outcomes(rows, classes)
        if not outcomes and not unknown.images:
            raise DatasetError(f"{source}: no image can be used. {rows.address}/rejects lists the reasons.")
        runner = StageRunner(executor, listener)
        found = _left_out(Folder.at(recogniser), loaded, stored_sources(stored), left_out, runner)
        evaluation = Evaluation(
            version=loaded.version,
            source=without_secrets(source),
            images=report.images,
            rejects=sum(report.rejects.values()),
            metrics=measure(outcomes) if outcomes else None,
            unknown=unknown,
            left_out=tuple(found),
        )
        page = render_page(
            Heading(loaded.version, len(loaded.labels), sum(stored.counts.values()), evaluation.source),
            evaluation.metrics,
            evaluation.left_out,
            _pictures(source, rows, evaluation.metrics),
            _examples(loaded),
            unknown,
        )
        folder.write(PAGE, page.encode())
        folder.write(JSON, encode_json(evaluation.to_dict()))
    return evaluation


def _check_folder(out: Folder) -> None:
    others = [name for name in out.names() if name not in (PREDICTIONS, JSON, PAGE) and not is_temporary(name)]
    if others:
        raise OutputError(
            f"`out` {out.address} contains other files ({', '.join(others[:3])}). Give an empty folder for the "
            "evaluation, or one that does not exist yet."
        )


def _classes(sources: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, str]:
    """Return the class of each label that a recogniser knows: those of its sources, and the classes themselves."""
    classes = {label: label for label in labels}
    for source in reversed(sources):  # the first source decides
        classes |= source["classes"] or {}
    return classes


def _outcomes(folder: Folder, classes: Mapping[str, str]) -> tuple[list[Outcome], UnknownImages]:
    """Return the outcomes of images of known labels, and the counts of the others."""
    outcomes: list[Outcome] = []
    unknown: Counter[str] = Counter()
    for row in _rows(folder):
        if row["label"] in classes:
            top = tuple(each["label"] for each in row["top"])
            outcomes.append(Outcome(row["path"], classes[row["label"]], top, row["confidence"], row["reason"]))
        else:
            unknown[row["reason"] or ""] += 1
    images = sum(unknown.values())
    return outcomes, UnknownImages(images, images - unknown[""])


def _rows(folder: Folder) -> Iterator[dict[str, Any]]:
    for name in row_files(folder, finished(folder)):
        columns = cast(dict[str, list[Any]], decode_rows(folder.read(name), name))
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


@dataclass(frozen=True, slots=True)
class LeftOutItem:
    """Some groups to leave out, one after the other."""

    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"labels {self.numbers[0]} to {self.numbers[-1]} left out"


@dataclass(frozen=True, slots=True)
class LeftOutSettings:
    """The folder of the recogniser, and its version, so that a worker reads no other one."""

    recogniser: Folder
    version: str


def _left_out(
    folder: Folder, recogniser: Recogniser, sources: Sequence[Source], most: int, runner: StageRunner
) -> list[LeftOut]:
    statistics = _statistics(sources, recogniser.labels)
    numbers = iter(choose_labels(statistics, most))
    items = []
    while some := tuple(islice(numbers, LABELS_AT_ONCE)):
        items.append(LeftOutItem(some))
    found: list[LeftOut] = []
    settings = LeftOutSettings(folder, recogniser.version)
    stage = Stage("leave out", leave_labels_out, settings, "labels", lambda item: len(item.numbers))
    runner.run(stage, items, found.extend)
    return sorted(found, key=lambda each: (each.source, each.label))


def leave_labels_out(item: LeftOutItem, settings: LeftOutSettings) -> list[LeftOut]:
    """Return the recognition of the images of labels that are left out of training, if the other labels differ."""
    recogniser, method, sources, statistics = _training_data(settings)
    classes, decision = len(recogniser.labels), recogniser.decision
    found = []
    for number in item.numbers:
        with suppress(DatasetError):  # no recogniser can be trained on the other labels
            found.append(leave_out(statistics, sources, number, classes, decision, method))
    return found


@lru_cache(maxsize=1)
def _training_data(settings: LeftOutSettings) -> tuple[Recogniser, Method, list[Source], Statistics]:
    stored = _training_data_of(settings.recogniser, settings.version)
    sources = stored_sources(stored)
    return Recogniser.from_stored(stored), stored.method, sources, _statistics(sources, stored.labels)


def _training_data_of(folder: Folder, version: str) -> StoredRecogniser:
    """Return the recogniser in a folder with its training data, or raise if it is not the one that is evaluated."""
    stored = read_recogniser(folder, training=True)
    if stored.version != version:
        raise OutputError(
            f"{folder.address} was replaced by recogniser {stored.version} during the evaluation of {version}. "
            "Use `overwrite` to evaluate the new one."
        )
    return stored


def _statistics(sources: Sequence[Source], labels: Sequence[str]) -> Statistics:
    return group_statistics(sources, [each.fit + each.held_out for each in sources], labels)


def _pictures(source: str, rows: Folder, metrics: Metrics | None) -> dict[str, bytes]:
    """Return the pictures of the evaluated images that the page shows, by path."""
    if metrics is None:
        return {}
    predictions = StoredJob.load(rows, finished(rows))
    images = picture_source((feature_source(source) or predictions).commit.job)
    if images is None:
        return {}
    paths = {each.example for each in metrics.confusions} | {each.path for each in metrics.mistakes}
    return make_pictures(PictureItem(images, tuple(sorted(predictions.entries(paths).items()))), None)


def _examples(recogniser: Recogniser) -> dict[str, bytes]:
    """Return a picture of a training image of each class."""
    examples: dict[str, bytes] = {}
    for number, neighbour in zip(recogniser.scorer.classes.tolist(), recogniser.neighbours, strict=True):
        picture = recogniser.thumbnails.get(neighbour.key)
        if number >= 0 and picture is not None:
            examples.setdefault(recogniser.labels[number], picture)
    return examples

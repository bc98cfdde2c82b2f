"""Predict the labels of images on an executor: a job like a transform, whose rows are recognitions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from fruits.errors import SettingsError
from fruits.executor import Executor, check_executor
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.model.rows import Label, join_csv, label_array, label_cell, text_cell
from fruits.progress.reporter import Progress
from fruits.recogniser.recogniser import Recogniser, Recognition
from fruits.storage.parquet import number_array, text_array, vectors, write_table

COLUMNS = ("path", "label", "prediction", "confidence", "top", "reason")


@dataclass(frozen=True, slots=True)
class RecognitionEncoder:
    """Turns features into the rows ``path, label, prediction, confidence, top, reason``."""

    recogniser: Recogniser
    format: str

    parameter: ClassVar[str] = "recogniser"

    @property
    def network(self) -> Mapping[str, str]:
        """The network of the features that the recogniser was trained on."""
        network = dict(self.recogniser.network)
        return network | {"decode": network.pop("decoding")}

    @property
    def crops(self) -> int:
        """The crops of each image."""
        return self.recogniser.crops

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of features that it needs."""
        return ("path", "label", "features", "crop_features")[: 2 + self.crops]

    def identity(self) -> dict[str, Any]:
        """Return the version of the recogniser, and the format of the rows."""
        return {"recogniser": self.recogniser.version, "format": self.format}

    def encode(self, table: pa.Table) -> bytes:
        """Return the rows of a table of features as the content of a file."""
        features = np.stack([vectors(table[name]) for name in self.reads[2:]], axis=1)
        results = self.recogniser.recognise_features(features)
        paths, labels = table["path"].to_pylist(), table["label"].to_pylist()
        if self.format == "csv":
            return _csv(paths, labels, results)
        return _parquet(paths, label_array(labels, table.schema.field("label").type), results)


def _parquet(paths: Sequence[str], labels: pa.Array, results: Sequence[Recognition]) -> bytes:
    scores = [each for result in results for each in result.top]
    fields = [pa.field("label", pa.string(), nullable=False), pa.field("score", pa.float64(), nullable=False)]
    structs = pa.StructArray.from_arrays(
        [_texts([each.label for each in scores]), number_array(np.array([each.score for each in scores], np.float64))],
        fields=fields,
    )
    offsets = np.zeros(len(results) + 1, np.int32)
    np.cumsum([len(result.top) for result in results], out=offsets[1:])
    # Parquet's name for list items, so that a table equals the one read back.
    kind = pa.list_(pa.field("element", pa.struct(fields), nullable=False))
    arrays = [
        _texts(paths),
        labels,
        _texts([result.prediction for result in results]),
        number_array(np.array([result.confidence for result in results], np.float64)),
        pa.ListArray.from_arrays(number_array(offsets), structs, type=kind),
        _texts([result.reason for result in results]),
    ]
    nullable = {"label", "prediction", "reason"}
    columns = [
        pa.field(name, array.type, nullable=name in nullable) for name, array in zip(COLUMNS, arrays, strict=True)
    ]
    return write_table(pa.table(arrays, schema=pa.schema(columns)))


def _texts(values: Sequence[str | None]) -> pa.Array:
    return text_array([None if value is None else value.encode() for value in values], pa.string())


def _csv(paths: Sequence[str], labels: Sequence[Label], results: Sequence[Recognition]) -> bytes:
    """Return CSV in which `top` is a JSON cell, ``[{"label":…,"score":…},…]``."""
    tops = (orjson.dumps([each._asdict() for each in result.top]).decode() for result in results)
    cells = {
        "path": map(text_cell, paths),
        "label": map(label_cell, labels),
        "prediction": (text_cell(result.prediction) for result in results),
        "confidence": (orjson.dumps(result.confidence) for result in results),
        "top": map(text_cell, tops),
        "reason": (text_cell(result.reason) for result in results),
    }
    return join_csv(cells)


def predict(job: Job, executor: Executor, *, progress: Progress | None = None) -> Report | SliceReport:
    """Write the recognition of each image with the recogniser ``job.recogniser``.

    The rows are ``path, label, prediction, confidence, top, reason``: `prediction` is null for a rejected image, and
    `reason` is then ``uncertain`` or ``unlike-anything``; `top` are the five most probable labels with their scores.
    If the images are an output with features, the network does not run.

    Parameters
    ----------
    job : Job
    executor, progress
        See :func:`fruits.fit`.

    Raises
    ------
    ModelError
        The recogniser is missing or corrupt, or of another network.
    InputError, JobError
        See :func:`fruits.fit`.
    """
    check_executor(executor)
    if job.recogniser is None:
        raise SettingsError("predict needs a recogniser. Give `recogniser`, the `out` of a training.")
    if job.crops != 1:
        raise SettingsError(
            f"`crops` = {job.crops}: not allowed for predict, which uses the crops of the recogniser. Leave it out."
        )
    recogniser = dataclasses.replace(Recogniser.load(job.recogniser), thumbnails={})
    encoder = RecognitionEncoder(recogniser, job.format)
    return pipeline.apply("predict", job, encoder, executor, progress=progress)

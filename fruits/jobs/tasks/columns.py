"""Features and rows of the images in a column: the work of the DataFrames in ``backends``, with the bits of a job."""

from __future__ import annotations

import atexit
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fruits.errors import DatasetError, ModelError, SettingsError
from fruits.images.decode import DecodeMode, Decoding, ImageError
from fruits.images.isolation import IsolatedDecoder
from fruits.images.sources.source import Content
from fruits.images.sources.tables.addressed import Contents, read_addresses
from fruits.jobs.job import DECODE_MODES
from fruits.jobs.tasks.featurize import checked_featurizer, compute
from fruits.model.fingerprint import numeric_fingerprint
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.backbones import backbone as find_backbone
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.parameters import check_choice
from fruits.storage.folder import Folder
from fruits.storage.prefetch import UNKNOWN_SIZE
from fruits.storage.s3.settings import S3Settings
from fruits.text import NOT_IN_NAMES, brief, quoted, utf8, without_secrets

ERROR_SUFFIX = "_error"  # of the column with the reasons, after the name of the column of features
SCORES = ("scaled_features", "pca_features")  # columns that a model adds; those of a job's rows
VECTOR = pa.list_(pa.float32())


@dataclass(frozen=True, slots=True)
class ColumnSettings:
    """The inputs that all rows share.

    Attributes
    ----------
    folder : Folder
        Relative paths start there.
    s3 : S3Settings
    network : NeuralNetwork
    fingerprint : str
    decoding : Decoding
    """

    folder: Folder
    s3: S3Settings
    network: NeuralNetwork
    fingerprint: str
    decoding: Decoding

    @classmethod
    def on_this_machine(cls, backbone: str, engine: str, weights: str | None, decode: DecodeMode) -> ColumnSettings:
        """Return the settings of frames that are made by this process; see :class:`fruits.Job`."""
        check_choice("decode", decode, DECODE_MODES)
        network = compile_network(backbone, engine, weights)
        return cls(
            folder=Folder.at("."),
            s3=S3Settings.from_environment(),
            network=network,
            fingerprint=numeric_fingerprint(network.load(), find_backbone(network.backbone).size),
            decoding=Decoding(decode),
        )


def column_features(values: Sequence[bytes | str | None], settings: ColumnSettings) -> tuple[pa.Array, pa.Array]:
    """Return the features of images, and the reasons of those that cannot be used.

    Images are decoded in another process. A crash ends that process alone: not this one, which can be the user's own.

    Parameters
    ----------
    values : sequence
        The contents of files, or their paths or URLs. None has neither features nor a reason.
    settings : ColumnSettings

    Returns
    -------
    features : pyarrow.ListArray of float32
        Null for an image that cannot be used.
    errors : pyarrow.StringArray
        Null, or the reason of a job's reject and its detail, ``truncated: …``.

    Raises
    ------
    DatasetError
        A value is neither bytes nor text.
    OSError
        The storage failed.
    SettingsError
        This machine computes other features than the one that made the settings.
    """
    network = settings.network
    featurizer = checked_featurizer(network, settings.fingerprint)
    size = find_backbone(network.backbone).size
    given = [index for index, value in enumerate(values) if value is not None]
    read = _contents([value for value in values if value is not None], settings)
    contents = Contents()
    features: list[NDArray[np.float32]] = []
    errors: list[str | None] = [None] * len(values)
    present = np.zeros(len(values), bool)
    with _decoder() as decoder:

        def pixels(place: int) -> NDArray[np.uint8]:
            value = values[given[place]]
            data = contents.bytes(value if isinstance(value, str) else "", next(read))
            return decoder(data, size, settings.decoding)

        for index, found in zip(given, compute(len(given), pixels, featurizer), strict=True):
            if isinstance(found, ImageError):
                errors[index] = utf8(without_secrets(str(found)))
            else:
                features.append(found[0])
                present[index] = True
        contents.check()
    rows = np.stack(features) if features else np.empty((0, network.features), np.float32)
    return _vectors(rows, present), pa.array(errors, pa.string())


_idle: deque[IsolatedDecoder] = deque()  # with processes, which take 0.13 s of CPU time to start
os.register_at_fork(after_in_child=_idle.clear)  # two processes cannot share one


@contextmanager
def _decoder() -> Iterator[IsolatedDecoder]:
    """Yield a decoder that no other thread uses meanwhile."""
    try:
        decoder = _idle.pop()
    except IndexError:
        decoder = IsolatedDecoder()
    try:
        yield decoder
    except BaseException:  # also an interruption between a request and its response
        decoder.close()
        raise
    _idle.append(decoder)


@atexit.register
def close_decoders() -> None:
    """Stop the processes of the decoders that no thread uses."""
    with suppress(IndexError):
        while True:
            _idle.pop().close()


def column_rows(values: Any, model: ScaledPCA) -> tuple[pa.Array, ...]:
    """Return the columns :data:`SCORES` of a column of lists of numbers, as float32; null for null.

    `values` is a pandas Series, of objects or of Arrow.

    Raises
    ------
    DatasetError
        The column is not one of lists of numbers.
    ModelError
        The model was fitted on another number of features.
    """
    try:
        features = pa.array(values, from_pandas=True)
        if isinstance(features, pa.ChunkedArray):
            features = features.combine_chunks()
        features = features.cast(pa.list_(pa.float64()))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DatasetError(f"the column contains no vectors: {error}. Allowed: lists of numbers.") from error
    length = len(model.mean)
    present = ~np.asarray(features.is_null())
    offsets = np.asarray(features.offsets)
    lengths = np.diff(offsets)[present]
    if (lengths != length).any():
        raise ModelError(
            f"the column contains vectors of {lengths[lengths != length][0]:,} numbers, which do not fit a model of "
            f"{length:,} features. Use the backbone that the model was fitted with."
        )
    rows = np.asarray(features.flatten()).reshape(-1, length)
    return tuple(_vectors(values.astype(np.float32), present) for values in model.transform(rows))


def added_names(into: object) -> tuple[str, str]:
    """Return the names of the columns of the features and of their errors."""
    if not isinstance(into, str) or not into:
        raise SettingsError(f"`into` = {quoted(into)}: not allowed. Allowed: the name of the column to add, as text.")
    return into, f"{into}{ERROR_SUFFIX}"


def check_model(model: object) -> None:
    """Raise a ``SettingsError`` unless a value is a fitted model."""
    if not isinstance(model, ScaledPCA):
        raise SettingsError(
            f"`model` = {quoted(model)}: not allowed. Allowed: a fruits.ScaledPCA, such as "
            'fruits.ScaledPCA.load("out") returns, with the `out` of a fit or a run.'
        )


def check_names(names: Sequence[Any], column: object, added: Sequence[str]) -> None:
    """Raise a ``SettingsError`` unless a frame has exactly one column of a name, and none with one of those to add."""
    if not isinstance(column, str):
        raise SettingsError(f"`column` = {quoted(column)}: not allowed. Allowed: the name of a column, as text.")
    if (count := names.count(column)) != 1:
        found = f"{count} such columns. Rename the others" if count else "no such column"
        raise SettingsError(
            f"`column` = {brief(column)}: the DataFrame has {found}. Allowed: {', '.join(map(brief, names))}."
        )
    if existing := [name for name in names if str(name).casefold() in {new.casefold() for new in added}]:
        raise SettingsError(
            f"the DataFrame has a column {brief(existing[0])}, which would be replaced. Drop or rename it, or give "
            "another name for the features as `into`."
        )


def _contents(values: Sequence[bytes | str], settings: ColumnSettings) -> Iterator[Content]:
    if all(isinstance(value, str) for value in values):
        paths = (NOT_IN_NAMES.sub("\N{REPLACEMENT CHARACTER}", str(value)) for value in values)
        return read_addresses(settings.folder, ((path, UNKNOWN_SIZE, "") for path in paths), settings.s3)
    if not all(isinstance(value, bytes | bytearray | memoryview) for value in values):
        kinds = {type(value).__name__ for value in values}
        raise DatasetError(
            f"the column contains values of type {', '.join(sorted(kinds))}. Allowed: only the contents of images, as "
            "bytes, or only texts, which are paths or URLs."
        )
    return (bytes(value) for value in values if not isinstance(value, str))


def _vectors(rows: NDArray[np.float32], present: NDArray[np.bool_]) -> pa.Array:
    """Return rows, shape (n, d), as lists in the places that are `present`, of which there are n."""
    offsets = np.concatenate([[0], np.cumsum(present * rows.shape[1])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.reshape(-1)), type=VECTOR, mask=pa.array(~present))

"""Checked columns of a list of images: paths, versions and labels, from columns of any type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from fruits.errors import DatasetError
from fruits.images.sources.entries import LABEL, LABELS
from fruits.images.sources.tables.rows import Batch, is_text
from fruits.storage.parquet import number_array, number_scalar, numbers, text_array, text_scalar
from fruits.text import brief, printable, quoted, without_secrets

NUL = "\0"
EMPTY, NULL = (text_scalar(text, pa.string()) for text in (b"", None))


class UnusablePathError(DatasetError):
    """A path is null, empty, or contains a NUL."""


def checked_paths(batch: Batch, parameter: str) -> pa.Array:
    """Return the paths of a batch as binary.

    Raises
    ------
    UnusablePathError
        A path is null, empty, or contains a NUL.
    DatasetError
        The column contains no texts, or a path contains credentials, or is not UTF-8.
    """
    paths = _decoded(batch.columns[parameter])
    if not is_text(paths.type):
        raise DatasetError(f"{batch.file}: `{parameter}` is a column of type {paths.type}. Allowed: texts.")
    paths = _texts(batch, paths)
    for mask, problem in (
        (paths.is_null(), "no path. Give each row a path, or remove the row."),
        (pc.equal(paths, EMPTY), "the path is empty. Give each row a path, or remove the row."),
    ):
        if (row := _first(mask)) is not None:
            raise UnusablePathError(*batch.error(row, problem).args)
    # Only addresses with these characters can contain credentials, and a check takes microseconds.
    for row in pc.indices_nonzero(pc.match_substring_regex(paths, "[@?\0]")).to_pylist():
        path = paths[row].as_py()
        if NUL in path:
            problem = "the path contains a NUL character, which no file name can."
            raise UnusablePathError(*batch.error(row, problem).args)
        if without_secrets(path) != path:
            raise batch.error(
                row,
                f"{brief(path)} contains credentials, which would be stored in the output. Leave them out, and give "
                "them in the environment.",
            )
    return paths.cast(pa.binary())


def checked_versions(batch: Batch, parameter: str) -> pa.Array:
    """Return the versions of a batch as texts; empty for null.

    Raises
    ------
    DatasetError
        The column cannot be converted to texts.
    """
    column = _decoded(batch.columns[parameter])
    try:
        versions = _texts(batch, column.cast(pa.string()) if not is_text(column.type) else column)
    except pa.ArrowException as error:
        raise DatasetError(
            f"{batch.file}: `{parameter}` is a column of type {column.type}. Allowed: texts, numbers or times."
        ) from error
    if (row := _first(pc.match_substring(versions, NUL))) is not None:
        raise batch.error(row, "the version contains a NUL character.")
    return versions.fill_null(EMPTY)


def checked_labels(batch: Batch, parameter: str, column_name: str) -> pa.Array:
    """Return the labels of a batch in the type of :data:`~fruits.images.sources.entries.LABEL` or ``LABELS``.

    Null, and a text that is empty, is no label.

    Parameters
    ----------
    batch : Batch
    parameter : str
    column_name : str
        The name of the column in its file. Whole numbers that `datasets` has named are replaced by these names.

    Raises
    ------
    DatasetError
        The column contains neither texts, nor whole numbers, nor lists of them, or a label is not valid.
    """
    column = _decoded(batch.columns[parameter])
    names = class_names(batch.metadata, column_name)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = numbers(pc.list_value_length(column).cast(pa.int64()).fill_null(number_scalar(0)))
        owners = np.repeat(np.arange(len(column)), lengths)
        texts = _label_texts(batch, parameter, _decoded(column.flatten()), names, owners)
        if (item := _first(texts.is_null())) is not None:
            raise batch.error(int(owners[item]), "a label in the list is null. Remove it.")
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(number_array(offsets), texts.cast(pa.binary()), type=LABELS.type)
    texts = _label_texts(batch, parameter, column, names, np.arange(len(column)))
    return pc.if_else(pc.equal(texts, EMPTY), NULL, texts).cast(LABEL.type)


def _label_texts(batch: Batch, parameter: str, column: pa.Array, names: Sequence[str] | None, rows: Any) -> pa.Array:
    if pa.types.is_integer(column.type) and names is not None:
        classes = column.cast(pa.int64())
        classes = pc.if_else(pc.equal(classes, number_scalar(-1)), pa.nulls(1, pa.int64())[0], classes)  # no label
        is_class = pc.and_(pc.greater_equal(classes, number_scalar(0)), pc.less(classes, number_scalar(len(names))))
        if (item := _first(pc.invert(is_class))) is not None:
            raise batch.error(int(rows[item]), f"class {classes[item]} of {len(names):,} named classes.")
        return text_array([name.encode() for name in names], pa.string()).take(classes)
    if pa.types.is_integer(column.type):
        return column.cast(pa.string())
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if not is_text(column.type):
        raise DatasetError(
            f"{batch.file}: `{parameter}` is a column of type {column.type}. Allowed: texts, whole numbers, or lists "
            "of them."
        )
    texts = _texts(batch, column, rows)
    if (item := _first(pc.match_substring(texts, NUL))) is not None:
        raise batch.error(int(rows[item]), "the label contains a NUL character.")
    return texts


def class_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str] | None:
    """Return the names of the classes of a column, which `datasets` stores in the metadata of a Parquet schema.

    Metadata that cannot be read give none, because other tools copy and cut them.
    """
    try:
        feature = orjson.loads((metadata or {})[b"huggingface"])["info"]["features"]
        for name in column.split("."):
            feature = feature[name]
        while "feature" in feature:  # a list
            feature = feature["feature"]
        if feature["_type"] == "ClassLabel" and all(isinstance(name, str) for name in feature["names"]):
            return list(feature["names"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    return None


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _texts(batch: Batch, column: pa.Array, rows: Any = None) -> pa.Array:
    """Return texts as ``string``, after a check that they are UTF-8, which Parquet files do not guarantee."""
    texts = column.cast(pa.string())
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        for item, data in enumerate(texts.cast(pa.binary()).to_pylist()):
            try:
                (data or b"").decode()
            except UnicodeDecodeError:
                row = item if rows is None else int(rows[item])
                raise batch.error(row, f"{printable(quoted(data))} is not UTF-8.") from None
        raise
    return texts


def _first(mask: pa.Array) -> int | None:
    """Return the position of the first true value."""
    positions = pc.indices_nonzero(mask)
    return positions[0].as_py() if len(positions) else None

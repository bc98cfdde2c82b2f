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
from fruits.images.sources.tables.rows import Batch
from fruits.storage.parquet import text_array
from fruits.text import brief, printable, quoted, without_secrets

__all__ = ["checked_labels", "checked_paths", "checked_versions", "class_names"]

TEXTS = "Allowed: texts."
NUL = "\0"


def checked_paths(batch: Batch, parameter: str) -> pa.Array:
    """Return the paths of a batch as binary.

    Raises
    ------
    DatasetError
        The column contains no texts, or a path is null, empty, has a NUL or credentials, or is not UTF-8.
    """
    paths = _decoded(batch.columns[parameter])
    if not _is_text(paths.type):
        raise DatasetError(f"{batch.file}: `{parameter}` is a column of type {paths.type}. {TEXTS}")
    paths = _texts(batch, paths)
    for mask, problem in (
        (paths.is_null(), "no path. Give each row a path, or remove the row."),
        (pc.equal(paths, ""), "the path is empty. Give each row a path, or remove the row."),
        (pc.match_substring(paths, NUL), "the path contains a NUL character, which no file name can."),
    ):
        if (row := _first(mask)) is not None:
            raise batch.error(row, problem)
    # Only addresses with these characters can contain credentials; finding them takes a microsecond an address.
    for row in np.flatnonzero(np.asarray(pc.match_substring_regex(paths, "://.*[@?]"))).tolist():
        path = paths[row].as_py()
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
        versions = _texts(batch, column.cast(pa.string()) if not _is_text(column.type) else column)
    except pa.ArrowException as error:
        raise DatasetError(
            f"{batch.file}: `{parameter}` is a column of type {column.type}. Allowed: texts, numbers or times."
        ) from error
    if (row := _first(pc.match_substring(versions, NUL))) is not None:
        raise batch.error(row, "the version contains a NUL character.")
    return versions.fill_null("")


def checked_labels(batch: Batch, parameter: str, names: Sequence[str] | None) -> pa.Array:
    """Return the labels of a batch in the type of :data:`~fruits.images.sources.entries.LABEL` or ``LABELS``.

    Null, and a text that is empty, is no label.

    Parameters
    ----------
    batch : Batch
    parameter : str
    names : sequence of str, optional
        The names of classes that whole numbers stand for; see :func:`class_names`.

    Raises
    ------
    DatasetError
        The column contains neither texts, nor whole numbers, nor lists of them, or a label is not valid.
    """
    column = _decoded(batch.columns[parameter])
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.fill_null([])
        owners = np.repeat(np.arange(len(column)), np.asarray(column.value_lengths()))
        texts = _label_texts(batch, parameter, column.flatten(), names, owners)
        if (item := _first(texts.is_null())) is not None:
            raise batch.error(int(owners[item]), "a label in the list is null. Remove it.")
        offsets = np.concatenate([[0], np.cumsum(np.asarray(column.value_lengths()))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), texts.cast(pa.binary()), type=LABELS.type)
    texts = _label_texts(batch, parameter, column, names, np.arange(len(column)))
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts).cast(LABEL.type)


def _label_texts(batch: Batch, parameter: str, column: pa.Array, names: Sequence[str] | None, rows: Any) -> pa.Array:
    if pa.types.is_integer(column.type) and names is not None:
        numbers = column.cast(pa.int64())
        none = pc.equal(numbers, -1)  # the value of `datasets` for no label
        numbers = pc.if_else(none, pa.scalar(None, pa.int64()), numbers)
        if (item := _first(pc.or_(pc.less(numbers, 0), pc.greater_equal(numbers, len(names))))) is not None:
            raise batch.error(int(rows[item]), f"class {numbers[item]} of {len(names):,} named classes.")
        return text_array([name.encode() for name in names], pa.string()).take(numbers)
    if pa.types.is_integer(column.type):
        return column.cast(pa.string())
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if not _is_text(column.type):
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


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


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
    position: int = pc.index(mask, pa.scalar(True)).as_py()
    return position if position >= 0 else None

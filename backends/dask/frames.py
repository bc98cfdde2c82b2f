"""Features and scores as columns of Dask DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

from fruits.errors import SettingsError
from fruits.jobs.tasks.columns import (
    SCORES,
    VECTOR,
    ColumnSettings,
    added_names,
    check_model,
    check_names,
    column_features,
    column_rows,
)
from fruits.text import brief

if TYPE_CHECKING:
    from fruits.model.scaled_pca import ScaledPCA

Compute = Callable[[pd.Series], Sequence[pa.Array]]


def features(
    ddf: dd.DataFrame,
    column: str,
    *,
    into: str = "features",
    backbone: str = "MobileNetV2",
    engine: Literal["openvino", "tensorflow"] = "openvino",
    weights: str | None = None,
    decode: Literal["reduced", "full"] = "reduced",
) -> dd.DataFrame:
    """Return a DataFrame with the features of the images in a column, which have the bits of a job.

    Nothing is computed until the columns are used. An image that cannot be used does not fail the computation.

    Parameters
    ----------
    ddf : dask.dataframe.DataFrame
        Its workers need this package.
    column : str
        The column of the images: the contents of files (bytes), or their paths or URLs (texts), which the workers read.
        Relative paths start from the current folder of this process.
    into : str, default "features"
        The name of the column to add.
    backbone, engine, weights, decode
        As in :class:`fruits.Job`.

    Returns
    -------
    dask.dataframe.DataFrame
        With two more columns: `into`, lists of float32 in Arrow (1,280 for MobileNetV2), null for an image that cannot
        be used; and `into` with the suffix ``_error``, such as ``features_error``, text: the reason and the detail of
        a job's reject, ``truncated: …``, else null. A null in `column` gives two nulls.

    Raises
    ------
    SettingsError
        An argument is not allowed, or a package is missing. A worker that computes other features than this machine
        raises it when the columns are computed.
    WeightsError
        As in :func:`fruits.network.weights.find_weights`.
    DatasetError
        When the columns are computed: `column` has values of other types.

    Notes
    -----
    ``dask.dataframe.from_pandas`` fails for objects that are bytes, which it takes for texts: give them as
    ``pandas.ArrowDtype(pyarrow.binary())``, or call ``dask.config.set({"dataframe.convert-string": False})`` before.
    """
    added = added_names(into)
    _check(ddf, column, added)
    settings = ColumnSettings.on_this_machine(backbone, engine, weights, decode)
    return _added(ddf, column, dict(zip(added, (VECTOR, pa.string()), strict=True)), partial(_features, settings))


def transform(ddf: dd.DataFrame, model: ScaledPCA, column: str = "features") -> dd.DataFrame:
    """Return a DataFrame with the columns ``scaled_features`` and ``pca_features``, with the bits of a job's rows.

    :meth:`fruits.ScaledPCA.transform` calls it for the column ``features``.

    Parameters
    ----------
    ddf : dask.dataframe.DataFrame
    model : fruits.ScaledPCA
    column : str, default "features"
        The column of the features: lists of float32 or float64 in Arrow, or arrays. Null gives two nulls.

    Returns
    -------
    dask.dataframe.DataFrame
        With two more columns, both lists of float32 in Arrow.

    Raises
    ------
    SettingsError
        A column is missing, exists, or has another type.
    ModelError
        When the columns are computed: the model was fitted on another number of features.
    """
    _check(ddf, column, SCORES, vectors=True)
    check_model(model)
    return _added(ddf, column, dict.fromkeys(SCORES, VECTOR), partial(_rows, model))


def _check(ddf: Any, column: str, added: Sequence[str], *, vectors: bool = False) -> None:
    if not isinstance(ddf, dd.DataFrame):
        raise SettingsError(
            f"`ddf` is of type {type(ddf).__module__}.{type(ddf).__qualname__}. Allowed: a DataFrame of "
            "dask.dataframe, such as dask.dataframe.from_pandas() returns."
        )
    check_names(list(ddf.columns), column, added)
    kind = ddf.dtypes[column]
    arrow = kind.pyarrow_dtype if isinstance(kind, pd.ArrowDtype) else None
    if vectors:
        allowed = "lists of float32 or float64 in Arrow, or objects that are arrays"
        fits = arrow is not None and arrow.num_fields == 1 and pa.types.is_floating(arrow.field(0).type)
    else:
        allowed = "bytes (contents of files) or texts (paths or URLs), in Arrow or as objects"
        fits = isinstance(kind, pd.StringDtype) or str(arrow).removeprefix("large_") in ("binary", "string")
    if not fits and not pd.api.types.is_object_dtype(kind):
        raise SettingsError(f"`column` = {brief(column)}: of type {kind}. Allowed: {allowed}.")


def _features(settings: ColumnSettings, values: pd.Series) -> Sequence[pa.Array]:
    images = [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]
    return column_features(images, settings)


def _rows(model: ScaledPCA, values: pd.Series) -> Sequence[pa.Array]:
    return column_rows(values, model)


def _added(ddf: dd.DataFrame, column: str, kinds: dict[str, pa.DataType], compute: Compute) -> dd.DataFrame:
    """Return the frame with columns of the given types, which one call for each partition of a column computes."""
    empty = {name: pd.Series([], dtype=pd.ArrowDtype(kind)) for name, kind in kinds.items()}
    added: dd.DataFrame = ddf.map_partitions(_assign, column, list(kinds), compute, meta=ddf._meta.assign(**empty))
    return added


def _assign(frame: pd.DataFrame, column: str, names: Sequence[str], compute: Compute) -> pd.DataFrame:
    arrays = map(pd.arrays.ArrowExtensionArray, compute(frame[column]))
    return frame.assign(**dict(zip(names, arrays, strict=True)))

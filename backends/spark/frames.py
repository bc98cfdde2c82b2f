"""Features and scores as columns of Spark DataFrames, classic or of Connect, with the public DataFrame API alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa
from pyspark.sql.functions import pandas_udf  # type: ignore[attr-defined]
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DoubleType,
    FloatType,
    StringType,
    StructField,
    StructType,
)
from pyspark.sql.utils import AnalysisException  # type: ignore[attr-defined]  # pyspark.errors is new in 3.4

from fruits.errors import SettingsError
from fruits.jobs.tasks.columns import (
    SCORES,
    ColumnSettings,
    added_names,
    check_model,
    check_names,
    column_features,
    column_rows,
)
from fruits.text import brief

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from fruits.model.scaled_pca import ScaledPCA

LOCAL_PATH = re.compile("^file:/(?!/)")  # Hadoop's form of the path of a file, such as Spark's binaryFile returns


def features(
    df: DataFrame,
    column: str,
    *,
    into: str = "features",
    backbone: str = "MobileNetV2",
    engine: Literal["openvino", "tensorflow"] = "openvino",
    weights: str | None = None,
    decode: Literal["reduced", "full"] = "reduced",
) -> DataFrame:
    """Return a DataFrame with the features of the images in a column, which have the bits of a job.

    Nothing is computed until the columns are used. An image that cannot be used does not fail the query.

    Parameters
    ----------
    df : pyspark.sql.DataFrame
        Of a classic session, or of Spark Connect from Spark 4 on. The executors need Python with this package.
    column : str
        The column of the images: the contents of files (``binary``), or their paths or URLs (``string``), which the
        executors read. Relative paths start from the current folder of this process.
    into : str, default "features"
        The name of the column to add.
    backbone, engine, weights, decode
        As in :class:`fruits.Job`.

    Returns
    -------
    pyspark.sql.DataFrame
        With two more columns: `into`, ``array<float>`` (1,280 for MobileNetV2), null for an image that cannot be used;
        and `into` with the suffix ``_error``, such as ``features_error``, ``string``: the reason and the detail of a
        job's reject, ``truncated: …``, else null. A null in `column` gives two nulls.

    Raises
    ------
    SettingsError
        An argument is not allowed, or a package is missing. An executor that computes other features than this machine
        raises it when the columns are computed.
    WeightsError
        As in :func:`fruits.network.weights.find_weights`.

    Notes
    -----
    A Python worker holds the contents of the images of one Arrow batch twice: those of up to
    ``spark.sql.execution.arrow.maxRecordsPerBatch`` rows (default: 10,000) of a partition. Reduce it, or the size of
    the partitions, if that is too much: Spark reads files in partitions of 128 MB.
    """
    added = added_names(into)
    _check(df, column, added, (BinaryType(), StringType()), "binary (contents of files) or string (paths or URLs)")
    settings = ColumnSettings.on_this_machine(backbone, engine, weights, decode)

    def compute(values: pd.Series) -> Sequence[pa.Array]:
        images = [LOCAL_PATH.sub("/", image) if isinstance(image, str) else image for image in values]
        return column_features(images, settings)

    return _added(df, column, dict(zip(added, (ArrayType(FloatType()), StringType()), strict=True)), compute)


def transform(df: DataFrame, model: ScaledPCA, column: str = "features") -> DataFrame:
    """Return a DataFrame with the columns ``scaled_features`` and ``pca_features``, with the bits of a job's rows.

    :meth:`fruits.ScaledPCA.transform` calls it for the column ``features``.

    Parameters
    ----------
    df : pyspark.sql.DataFrame
        As in :func:`features`.
    model : fruits.ScaledPCA
    column : str, default "features"
        The column of the features, ``array<float>`` or ``array<double>``. Null gives two nulls.

    Returns
    -------
    pyspark.sql.DataFrame
        With two more columns, both ``array<float>``.

    Raises
    ------
    SettingsError
        A column is missing, exists, or has another type.
    ModelError
        When the columns are computed: the model was fitted on another number of features.
    """
    kinds = (ArrayType(FloatType()), ArrayType(DoubleType()))
    _check(df, column, SCORES, kinds, "array<float> or array<double>")
    check_model(model)

    def compute(values: pd.Series) -> Sequence[pa.Array]:
        return column_rows(values, model)

    return _added(df, column, dict.fromkeys(SCORES, ArrayType(FloatType())), compute)


def _check(df: Any, column: str, added: Sequence[str], kinds: Sequence[DataType], allowed: str) -> None:
    if type(df).__name__ != "DataFrame" or not type(df).__module__.startswith("pyspark.sql."):
        raise SettingsError(
            f"`df` is of type {type(df).__module__}.{type(df).__qualname__}. Allowed: a DataFrame of pyspark.sql; "
            "others convert with to_spark() or SparkSession.createDataFrame()."
        )
    check_names(df.columns, column, added)
    try:
        found = df.select(_quoted(column)).schema[0].dataType
    except AnalysisException as error:  # such as for `path` beside `PATH`, unless spark.sql.caseSensitive is set
        raise SettingsError(f"`column` = {brief(column)}: {str(error).splitlines()[0]} Rename it.") from error
    if found.simpleString() not in [kind.simpleString() for kind in kinds]:  # whatever the nullability of elements
        raise SettingsError(f"`column` = {brief(column)}: of type {found.simpleString()}. Allowed: {allowed}.")


def _added(
    df: DataFrame, column: str, kinds: dict[str, DataType], compute: Callable[[pd.Series], Sequence[pa.Array]]
) -> DataFrame:
    """Return the frame with columns of the given types, which one call for each Arrow batch of a column computes."""
    names = list(kinds)

    def run(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield pd.DataFrame({name: values.to_pandas() for name, values in zip(names, compute(batch), strict=True)})

    # A function of Spark gives one column. Of a deterministic one, Spark computes the column again for each filter.
    kind = StructType([StructField(*each) for each in kinds.items()])
    function = pandas_udf(run, kind).asNondeterministic()  # type: ignore[call-overload]  # its stubs know few functions
    first, *others = names
    df = df.withColumn(first, function(df[_quoted(column)]))
    for name in others:
        df = df.withColumn(name, df[_quoted(first)][name])
    return df.withColumn(first, df[_quoted(first)][first])


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"

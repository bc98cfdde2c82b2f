"""Spark as in public notebooks of this job: a pandas UDF with Keras, then Spark ML's StandardScaler and PCA.

The images are read as ``binaryFile`` and repartitioned to 20 partitions. A pandas UDF over an iterator of batches
builds the network once per partition from broadcast weights and calls ``predict`` on each batch. Where such notebooks
differ, this one takes the faster way: the features are stored before the estimators are fitted, because Spark would run
the network again for each estimator; batches fit into memory; TensorFlow uses one thread per Python worker.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.spark.java import find_java
from benchmarks.peers import SIZE, Start, build_network, command_line

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

REQUIRES = ("pyspark", "tensorflow")

PARTITIONS = 20
ARROW_BATCH = 256  # images: 154 MB of float32; Spark's default of 10,000 would need 6 GB


def run(images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
    """Do the job; see :mod:`benchmarks.peers`."""
    start = Start.now(out)
    session = open_session(workers, arrow_batch=ARROW_BATCH)
    try:
        _featurize(session, start, images, out)
        return start.stages() | (fit_and_write(session, out, components) if components else {})
    finally:
        session.stop()


def open_session(workers: int, *, arrow_batch: int) -> SparkSession:
    """Start Spark on this machine; `arrow_batch` images are passed to Python at once."""
    import pyspark
    from pyspark.sql import SparkSession

    os.environ |= {
        "JAVA_HOME": str(find_java(pyspark.__version__)),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    session = (
        SparkSession.builder.appName("notebook")
        .master(f"local[{workers}]")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", arrow_batch)
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    return session


def read_images(session: SparkSession, images: str) -> DataFrame:
    """Return the columns ``path, label, content`` of the images below a folder."""
    from pyspark.sql.functions import col, element_at, split

    root = Path(images).absolute()
    files = (
        session.read.format("binaryFile")
        .option("pathGlobFilter", "*.jpg")
        .option("recursiveFileLookup", "true")
        .load(str(root))
    )
    path = col("path").substr(len(f"file:{root}/") + 1, 2**31 - 1)
    return files.select(path.alias("path"), element_at(split(col("path"), "/"), -2).alias("label"), "content")


def _featurize(session: SparkSession, start: Start, images: str, out: str) -> None:
    from pyspark.sql.pandas.functions import PandasUDFType, pandas_udf

    weights = session.sparkContext.broadcast(build_network(start.weights, threads=1).get_weights())

    def model_fn() -> Any:
        import tensorflow as tf
        from keras.applications import MobileNetV2

        if (
            tf.config.threading.get_intra_op_parallelism_threads() != 1
        ):  # only possible before the first network of a process
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        model = MobileNetV2(input_shape=(*SIZE, 3), weights=None, include_top=False, pooling="avg")
        model.set_weights(weights.value)
        return model

    def featurize_udf(batches: Iterable[pd.Series]) -> Iterator[pd.Series]:
        import numpy as np
        import pandas as pd
        from keras.applications.mobilenet_v2 import preprocess_input
        from keras.utils import img_to_array
        from PIL import Image

        def preprocess(content: bytes) -> Any:
            return preprocess_input(img_to_array(Image.open(io.BytesIO(content)).convert("RGB").resize(SIZE)))

        model = model_fn()
        start.mark_network()
        for contents in batches:
            pixels = np.stack(contents.map(preprocess))
            yield pd.Series(list(model.predict(pixels, verbose=0)))

    read_images(session, images).repartition(PARTITIONS).select(
        "path",
        "label",
        pandas_udf(featurize_udf, "array<float>", PandasUDFType.SCALAR_ITER)("content").alias("features"),
    ).write.parquet(str(Path(out, "features").absolute()))


def fit_and_write(session: SparkSession, out: str, components: int) -> dict[str, float]:
    """Fit Spark ML's scaler and PCA to the stored features, write the rows, and return the seconds."""
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import PCA, StandardScaler
    from pyspark.ml.functions import array_to_vector, vector_to_array
    from pyspark.sql.functions import col

    begin = time.perf_counter()
    features = session.read.parquet(str(Path(out, "features").absolute()))
    features = features.withColumn("vectors", array_to_vector(col("features"))).cache()
    scaler = StandardScaler(inputCol="vectors", outputCol="scaled", withMean=True, withStd=True)
    pca = PCA(k=components, inputCol="scaled", outputCol="reduced")
    model = Pipeline(stages=[scaler, pca]).fit(features)
    fitted = time.perf_counter()
    model.transform(features).select(
        "path",
        "label",
        "features",
        vector_to_array(col("scaled"), "float32").alias("scaled_features"),
        vector_to_array(col("reduced"), "float32").alias("pca_features"),
    ).write.parquet(str(Path(out, "rows").absolute()))
    return {"fit": fitted - begin, "write": time.perf_counter() - fitted}


if __name__ == "__main__":
    command_line(run)

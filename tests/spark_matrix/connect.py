"""Check the columns that Spark Connect computes: ``python -m tests.spark_matrix.connect FOLDER``.

FOLDER is that of ``tests.spark_matrix.reference``. A process that has a classic session cannot run this.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

import backends
import fruits

LOOPBACK = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.connect.grpc.binding.address": "127.0.0.1",
}


def main(folder: Path) -> None:
    stored = pq.read_table(folder / "out" / "features")
    expected = np.array(stored["features"].to_pylist(), np.float32)
    rejects = pq.read_table(folder / "out" / "rejects").to_pylist()
    model = fruits.ScaledPCA.load(folder / "out")
    scores = [values.astype(np.float32) for values in model.transform(expected)]
    images = [folder / "images" / path for path in (*stored["path"].to_pylist(), *(row["path"] for row in rejects))]
    session = SparkSession.builder.remote("local[2]").config(map=LOOPBACK).getOrCreate()
    rows = [(number, str(path), path.read_bytes()) for number, path in enumerate(images)]
    frame = session.createDataFrame(rows, "number int, path string, content binary").repartition(4)
    assert type(frame).__module__ == "pyspark.sql.connect.dataframe"
    for column in ("path", "content"):
        found = model.transform(backends.spark.features(frame, column)).orderBy("number").collect()
        usable, unusable = found[: len(expected)], found[len(expected) :]
        for name, values in zip(("features", "scaled_features", "pca_features"), (expected, *scores), strict=True):
            assert np.array_equal(np.array([row[name] for row in usable], np.float32), values), name
        assert [row["features_error"] for row in unusable] == [f"{row['reason']}: {row['detail']}" for row in rejects]
        assert not any(row["features"] for row in unusable)
    session.stop()
    print("equal", len(expected), len(rejects))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

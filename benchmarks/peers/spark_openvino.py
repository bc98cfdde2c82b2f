"""Spark and OpenVINO: ``binaryFile``, then ``predict_batch_udf``, whose function decodes and runs the network.

The function takes the content of files: an array of pixels in a column would pass through Java. Spark ML standardises
and reduces the features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Start, command_line
from benchmarks.peers.equal import GROUP, features
from benchmarks.peers.notebook import fit_and_write, open_session, read_images
from fruits.network.featurizer import compile_network

REQUIRES = ("pyspark",)


def run(images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
    """Do the job; see :mod:`benchmarks.peers`."""
    start = Start.now(out)
    session = open_session(workers, arrow_batch=GROUP)
    try:
        from pyspark.ml.functions import predict_batch_udf
        from pyspark.sql.types import ArrayType, FloatType

        network = session.sparkContext.broadcast(compile_network("MobileNetV2"))

        def make_predict() -> Callable[[Any], NDArray[np.float32]]:
            network.value.load()
            start.mark_network()
            return lambda contents: features(network.value, contents)

        predict = predict_batch_udf(make_predict, return_type=ArrayType(FloatType()), batch_size=GROUP)
        read_images(session, images).withColumn("features", predict("content")).drop("content").write.parquet(
            str(Path(out, "features").absolute())
        )
        return start.stages() | (fit_and_write(session, out, components) if components else {})
    finally:
        session.stop()


if __name__ == "__main__":
    command_line(run)

"""Daft: files as a column of bytes, a class UDF that holds a Keras model; scikit-learn for the PCA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import BATCH, FEATURES, Start, build_network, command_line, decode, write_rows

REQUIRES = ("daft", "tensorflow", "sklearn")


def run(images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
    """Do the job; see :mod:`benchmarks.peers`."""
    start = Start.now(out)

    import daft

    vector = daft.DataType.fixed_size_list(daft.DataType.float32(), FEATURES)

    @daft.cls(max_concurrency=workers, use_process=True)
    class Featurizer:
        def __init__(self, start: Start) -> None:
            self.network = build_network(start.weights, threads=1)
            start.mark_network()

        @daft.method.batch(return_dtype=vector, batch_size=BATCH)
        def features(self, contents: Any) -> Any:
            from keras.applications.mobilenet_v2 import preprocess_input

            # Daft's own resize is bilinear, which gives other pixels.
            pixels = [decode(content) for content in contents.to_pylist()]
            return self.network.predict_on_batch(preprocess_input(np.stack(pixels).astype(np.float32)))

    daft.set_runner_native(num_threads=workers)
    root = Path(images).absolute()
    files = daft.from_glob_path(f"{root}/**/*.jpg")
    path = daft.col("path").substr(len(f"file://{root}/"))
    files.select(
        path.alias("path"),
        path.split("/")[-2].alias("label"),
        Featurizer(start).features(daft.col("path").download()).alias("features"),
    ).write_parquet(str(Path(out, "features").absolute()))
    return start.stages() | (write_rows(out, components) if components else {})


if __name__ == "__main__":
    command_line(run)

"""Ray Data: ``read_images``, then ``map_batches`` with actors that hold a Keras model; scikit-learn for the PCA."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import BATCH, FEATURES, SIZE, Start, build_network, command_line, write_rows

REQUIRES = ("ray", "tensorflow", "sklearn")

SHARE = 0.1  # of a core per read or write task; with a whole core, they would wait until the actors end
OBJECT_STORE = 2**30  # bytes; the default is a third of the machine's memory


class Predictor:
    """An actor that builds the network once and computes the features of batches."""

    def __init__(self, start: Start, root: Path) -> None:
        self.network = build_network(start.weights, threads=1)
        self.root = root
        start.mark_network()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> pa.Table:
        """Return the columns ``path, label, features`` for the columns ``image, path``."""
        from keras.applications.mobilenet_v2 import preprocess_input

        # Ray's own resize is bilinear, which gives other pixels.
        pixels = [_resize(image) for image in batch["image"]]
        features = self.network.predict_on_batch(preprocess_input(np.stack(pixels).astype(np.float32)))
        paths = [Path(path) for path in batch["path"]]
        # Ray stores a NumPy array as a type that only Ray can read.
        return pa.table(
            {
                "path": [path.relative_to(self.root).as_posix() for path in paths],
                "label": [path.parent.name for path in paths],
                "features": pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), FEATURES),
            }
        )


def run(images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
    """Do the job; see :mod:`benchmarks.peers`."""
    start = Start.now(out)

    import ray

    ray.init(
        address="local",
        num_cpus=workers,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        root = Path(images).absolute()
        dataset = ray.data.read_images(
            str(root), mode="RGB", include_paths=True, file_extensions=["jpg"], num_cpus=SHARE
        )
        dataset.map_batches(
            Predictor,
            fn_constructor_args=(start, root),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1 - 2 * SHARE,
        ).write_parquet(str(Path(out, "features").absolute()), ray_remote_args={"num_cpus": SHARE})
        seconds = start.stages()
    finally:
        ray.shutdown()
    return seconds | (write_rows(out, components) if components else {})


def _resize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize(SIZE, Image.Resampling.BICUBIC))


if __name__ == "__main__":
    command_line(run)

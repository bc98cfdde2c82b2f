"""Ray Data: ``read_images``, then ``map_batches`` with actors that hold a Keras model; scikit-learn for the PCA."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import BATCH, SIZE, Start, build_network, command_line, features_table, write_rows

REQUIRES = ("ray", "tensorflow", "sklearn")

SHARE = 0.1  # of a core per read or write task; with a whole core, they would wait until the actors end
OBJECT_STORE = 2**30  # bytes; the default is a third of the machine's memory


class Predictor:
    """An actor that builds the network once and computes the features of batches."""

    def __init__(self, start: Start, root: str) -> None:
        self.network = build_network(start.weights, threads=1)
        self.root = root
        start.mark_network()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> pa.Table:
        """Return the columns ``path, label, features`` for the columns ``image, path``."""
        from keras.applications.mobilenet_v2 import preprocess_input

        # Ray's own resize is bilinear, which gives other pixels.
        pixels = [_resize(image) for image in batch["image"]]
        features = self.network.predict_on_batch(preprocess_input(np.stack(pixels).astype(np.float32)))
        # A table of Arrow: Ray stores a NumPy array as a type that only Ray can read.
        return features_table(self.root, batch["path"], features)


def run(images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
    """Do the job; see :mod:`benchmarks.peers`."""
    start = Start.now(out)
    with connected(workers):
        import ray.data

        root = str(Path(images).absolute())
        dataset = ray.data.read_images(root, mode="RGB", include_paths=True, file_extensions=["jpg"], num_cpus=SHARE)
        write_features(dataset, Predictor, (start, root), out, workers=workers, batch=BATCH)
        seconds = start.stages()
    return seconds | (write_rows(out, components) if components else {})


@contextmanager
def connected(workers: int) -> Iterator[None]:
    """Start Ray on this machine, and stop it at the end of the context."""
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
        yield
    finally:
        ray.shutdown()


def write_features(
    dataset: Any, predictor: type, arguments: tuple[Any, ...], out: str, *, workers: int, batch: int
) -> None:
    """Apply a class of actors to a dataset, and write the features."""
    import ray.data

    dataset.map_batches(
        predictor,
        fn_constructor_args=arguments,
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1 - 2 * SHARE,
    ).write_parquet(str(Path(out, "features").absolute()), ray_remote_args={"num_cpus": SHARE})


def _resize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize(SIZE, Image.Resampling.BICUBIC))


if __name__ == "__main__":
    command_line(run)

"""The ways of doing the job that users have today, written as a competent user of each tool would write them.

=========== ==============================================================================================
notebook    Spark as the public notebooks of this job have it: a pandas UDF with Keras, then Spark ML
tfdata      tf.data and Keras in one process
ray         Ray Data, with actors that hold a Keras model
daft        Daft, with a class UDF that holds a Keras model
=========== ==============================================================================================

Each is a module with ``REQUIRES``, the names that have to be importable, and::

    run(images, out, *, workers=2, components=None) -> seconds by stage

It takes every ``*.jpg`` below the folder `images`, and stores ``path, label, features`` in ``out/features/*.parquet``
and, where `components` are asked for, also ``scaled_features, pca_features`` in ``out/rows/*.parquet``. The stages:

``start``
    until the first network stands in the process that will run it: imports, engine, worker processes, weights.
``featurize``
    from there until all features are stored.
``fit``, ``write``
    standardisation and PCA, from the stored features; and the rows.

All see the same pixels (Pillow's bicubic filter, ``x / 127.5 - 1``) and have the same weights, so that their features
agree with those of Fruits. None of them knows what to do with a picture that cannot be used: it ends the run.

A run sets environment variables and leaves thread pools behind; give each a process of its own::

    python -m benchmarks.peers.tfdata IMAGES --out OUT --workers 2 --components 200
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from fruits.network.backbones import backbone
from fruits.network.weights import find_weights

__all__ = ["BATCH", "FEATURES", "PEERS", "SIZE", "Run", "Start", "build_network", "command_line", "write_rows"]

PEERS = ("notebook", "tfdata", "ray", "daft")

SIZE = (224, 224)  # width and height of the network's input, in pixels
FEATURES = 1280
BATCH = 32  # pictures a call of the network: Keras' default
ROWS_PER_GROUP = 4096

ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "DAFT_ANALYTICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: Ray keeps to this machine, and listens on loopback only
}


class Run(Protocol):
    """What every peer offers."""

    def __call__(self, images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
        """Do the job, and return the seconds that each stage took."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a run; goes to its workers, too.

    Attributes
    ----------
    weights : str
        The path of the network's verified weights.
    mark : Path
        The file in which the first network that stands, in whichever process, writes the time.
    time : float
        When the run began, in seconds since the epoch.
    """

    weights: str
    mark: Path
    time: float

    @classmethod
    def now(cls, out: str) -> Start:
        """Begin a run: make the folder `out`, which must not be there yet, and set the environment of its processes."""
        begin = time.time()
        os.environ.update(ENVIRONMENT)
        folder = Path(out).absolute()
        folder.mkdir(parents=True)
        return cls(str(find_weights(backbone("MobileNetV2")).path), folder / "started", begin)

    def network_stands(self) -> None:
        """Note the time, for the first network alone."""
        try:
            with self.mark.open("x") as file:
                file.write(repr(time.time()))
        except FileExistsError:
            return

    def stages(self) -> dict[str, float]:
        """Return the seconds of ``start``, and of ``featurize`` as it ends now."""
        stood = float(self.mark.read_text())
        return {"start": stood - self.time, "featurize": time.time() - stood}


def build_network(weights: str, *, threads: int) -> Any:
    """Return Keras' MobileNetV2 without its top, on TensorFlow.

    Parameters
    ----------
    weights : str
        The path of its weights.
    threads : int
        How many TensorFlow computes with. Its default, one for each core in each of several processes, makes these
        fight over the cores.
    """
    import keras
    import tensorflow as tf
    from safetensors.numpy import load_file

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    network = keras.applications.MobileNetV2(input_shape=(*SIZE, 3), weights=None, include_top=False, pooling="avg")
    tensors = load_file(weights)
    for layer in network.layers:
        layer.set_weights([tensors[f"{layer.name}/{weight.name}"] for weight in layer.weights])
    return network


def write_rows(out: str, components: int) -> dict[str, float]:
    """Fit scikit-learn's standardisation and PCA to the stored features, and write the rows; return the seconds.

    For the tools that have no PCA of their own.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    begin = time.perf_counter()
    table = pq.read_table(Path(out, "features"))
    features = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, FEATURES)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    pca = PCA(components, svd_solver="covariance_eigh")  # for more rows than columns the fastest that is exact
    scores = pca.fit_transform(scaled)
    fitted = time.perf_counter()
    for name, values in (("scaled_features", scaled), ("pca_features", scores)):
        flat = pa.array(values.astype(np.float32).reshape(-1))
        table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
    folder = Path(out, "rows")
    folder.mkdir()
    pq.write_table(table, folder / "part-0.parquet", row_group_size=ROWS_PER_GROUP)
    return {"fit": fitted - begin, "write": time.perf_counter() - fitted}


def command_line(run: Run) -> None:
    """Run a peer with the arguments of its command, and print the seconds by stage as JSON."""
    about = inspect.getdoc(inspect.getmodule(run))
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder of folders of *.jpg")
    parser.add_argument("--out", required=True, help="a folder that is not there yet")
    parser.add_argument("--workers", type=int, default=2, help="cores to use (default: 2)")
    parser.add_argument("--components", type=int, help="also fit standardisation and PCA, and write rows")
    parser.add_argument("--limit", type=int, help="take the first N images only")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.limit is not None:
            _link(Path(given.images), Path(folder), given.limit)
            given.images = folder
        print(json.dumps(run(given.images, given.out, workers=given.workers, components=given.components)))


def _link(images: Path, folder: Path, limit: int) -> None:
    """Make the first images, in the order of their paths, stand in a folder of their own."""
    for source in islice(sorted(images.rglob("*.jpg")), limit):
        target = folder / source.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.absolute())

"""The same job in other tools, written as a competent user of each tool would write it.

=============== ==========================================================================================
notebook        Spark as in public notebooks of this job: a pandas UDF with Keras, then Spark ML
tfdata          tf.data and Keras in one process
ray             Ray Data, with actors that hold a Keras model
daft            Daft, with a class UDF that holds a Keras model
ray_openvino    Ray Data, with actors that run the network of Fruits; see :mod:`benchmarks.peers.equal`
spark_openvino  Spark, with a ``predict_batch_udf`` that runs the network of Fruits
=============== ==========================================================================================

Each module has ``REQUIRES``, the names of the packages that it imports, and a function :class:`Run`. It reads every
``*.jpg`` below the folder `images` and writes ``path, label, features`` to ``out/features/*.parquet``. With
`components`, it also writes ``scaled_features, pca_features`` to ``out/rows/*.parquet``. Stages:

``start``
    until the first network is built in the process that runs it: imports, engine, worker processes, weights
``featurize``
    from there until all features are stored
``fit``, ``write``
    standardisation and PCA of the stored features, then the rows

All peers use the same pixels (Pillow's bicubic filter, ``x / 127.5 - 1``) and weights, so that their features agree
with those of Fruits. Those with Keras decode photos at full size. None of them handles corrupt images: one ends the
run.

A run sets environment variables and leaves thread pools behind, so give each run its own process::

    python -m benchmarks.peers.tfdata IMAGES --out OUT --workers 2 --components 200
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from fruits.network.backbones import backbone
from fruits.network.weights import find_weights

PEERS = ("notebook", "tfdata", "ray", "daft", "ray_openvino", "spark_openvino")

SIZE = (224, 224)  # width and height of the network's input, in pixels
FEATURES = 1280
BATCH = 32  # images per call of the network: Keras' default
ROWS_PER_GROUP = 4096

ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "DAFT_ANALYTICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: keeps Ray on the loopback interface
}


class Run(Protocol):
    """The function ``run`` of every peer."""

    def __call__(self, images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
        """Do the job and return the seconds of each stage."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a run; pickled to its workers.

    Attributes
    ----------
    weights : str
        Path of the verified weights of the network.
    mark : Path
        File that receives the time at which the first process has built the network.
    time : float
        Start of the run, in seconds since the epoch.
    """

    weights: str
    mark: Path
    time: float

    @classmethod
    def now(cls, out: str) -> Start:
        """Start a run: create the folder `out`, which must not exist, and set the environment variables."""
        begin = time.time()
        os.environ.update(ENVIRONMENT)
        folder = Path(out).absolute()
        folder.mkdir(parents=True)
        return cls(str(find_weights(backbone("MobileNetV2")).path), folder / "started", begin)

    def mark_network(self) -> None:
        """Record the time at which the network is built; only the first call has an effect."""
        try:
            with self.mark.open("x") as file:
                file.write(repr(time.time()))
        except FileExistsError:
            return

    def stages(self) -> dict[str, float]:
        """Return the seconds of ``start`` and ``featurize``, which ends now."""
        built = float(self.mark.read_text())
        return {"start": built - self.time, "featurize": time.time() - built}


def build_network(weights: str, *, threads: int) -> Any:
    """Return Keras' MobileNetV2 without its top, on TensorFlow.

    Parameters
    ----------
    weights : str
        Path of its weights.
    threads : int
        Threads of TensorFlow. Its default of one per core oversubscribes the cores if several processes run.
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


def decode(content: bytes) -> Any:
    """Return the pixels of an image at full size, (224, 224, 3); the tools' own filters give other pixels."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(BytesIO(content)).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC))


def features_table(root: str, paths: Iterable[str], features: Any) -> Any:
    """Return the columns ``path, label, features`` of images below `root`; features have shape (n, 1280)."""
    import pyarrow as pa

    below = [PurePosixPath(path).relative_to(root) for path in paths]
    return pa.table(
        {
            "path": [path.as_posix() for path in below],
            "label": [path.parent.name for path in below],
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), FEATURES),
        }
    )


def write_rows(out: str, components: int) -> dict[str, float]:
    """Fit scikit-learn's scaler and PCA to the stored features, write the rows, and return the seconds.

    Used by tools without their own PCA.
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
    pca = PCA(components, svd_solver="covariance_eigh")  # the fastest exact solver for more rows than columns
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
    """Run a peer with command-line arguments and print the seconds by stage as JSON."""
    about = inspect.getdoc(inspect.getmodule(run))
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder <label>/<file>.jpg")
    parser.add_argument("--out", required=True, help="output folder, which must not exist")
    parser.add_argument("--workers", type=int, default=2, help="cores to use (default: 2)")
    parser.add_argument("--components", type=int, help="fit standardisation and PCA too, and write rows")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.images, arguments.out, workers=arguments.workers, components=arguments.components)))

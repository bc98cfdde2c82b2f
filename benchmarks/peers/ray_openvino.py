"""Ray Data and OpenVINO: ``read_binary_files``, then ``map_batches`` with actors that decode and run the network.

The actors decode, because pixels of read tasks would be copied through the object store. Images may be on S3:
``s3://bucket``, with the endpoint of ``AWS_ENDPOINT_URL_S3``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.peers import Start, command_line, features_table, write_rows
from benchmarks.peers.equal import GROUP, features
from benchmarks.peers.ray import SHARE, connected, write_features
from fruits.network.featurizer import compile_network

REQUIRES = ("ray", "sklearn")
S3 = "s3://"


class Predictor:
    """An actor that compiles the network once and computes the features of batches."""

    def __init__(self, start: Start, root: str) -> None:
        self.network = compile_network("MobileNetV2")
        self.root = root
        self.network.load()
        start.mark_network()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> pa.Table:
        """Return the columns ``path, label, features`` for the columns ``bytes, path``."""
        return features_table(self.root, batch["path"], features(self.network, batch["bytes"]))


def run(images: str, out: str, *, workers: int = 2, components: int | None = None) -> dict[str, float]:
    """Do the job; see :mod:`benchmarks.peers`."""
    start = Start.now(out)
    with connected(workers):
        import ray.data

        on_s3 = images.startswith(S3)
        root = images.removeprefix(S3).rstrip("/") if on_s3 else str(Path(images).absolute())
        dataset = ray.data.read_binary_files(
            root,
            filesystem=_s3() if on_s3 else None,
            include_paths=True,
            file_extensions=["jpg"],
            num_cpus=SHARE,
        )
        write_features(dataset, Predictor, (start, root), out, workers=workers, batch=GROUP)
        seconds = start.stages()
    return seconds | (write_rows(out, components) if components else {})


def _s3() -> Any:
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3"), region=os.environ.get("AWS_DEFAULT_REGION")
    )


if __name__ == "__main__":
    command_line(run)

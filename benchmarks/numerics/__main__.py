"""Measure the exact numerics: ``python -m benchmarks.numerics [IMAGES] [--turns COUNT] [--out FOLDER]``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.inputs.features import generated_features
from benchmarks.measure.results import write_results
from benchmarks.numerics.measure import accuracy, costs, peak_memory, table
from fruits.images.decode import ImageError, decode
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.network.featurizer import compile_network
from fruits.storage.parquet import read_table, vectors

GENERATED = 4096


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.numerics",
        description="Measure the exact numerics: cost beside float64, memory, and difference from scikit-learn.",
    )
    parser.add_argument("images", metavar="IMAGES", nargs="?", help="folder of images; default: generated features")
    parser.add_argument("--limit", type=int, default=4096, help="number of images, spread evenly; default 4096")
    parser.add_argument("--components", type=int, default=200, help="PCA components; default 200")
    parser.add_argument("--turns", type=int, default=7, help="runs of each case; default 7")
    parser.add_argument("--out", metavar="FOLDER", default="bench", help="folder of numerics.md and numerics.json")
    return parser


def _generated() -> npt.NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as cache:
        parts = sorted((generated_features(GENERATED, Path(cache)) / "features").iterdir())
        return np.concatenate([vectors(read_table(part.read_bytes(), ["features"])["features"]) for part in parts])


def _computed(images: str, limit: int) -> npt.NDArray[np.float32]:
    """Return the features of the readable images of a folder."""
    featurizer = compile_network("MobileNetV2").load()
    listed = list(Listing(open_source(images)))
    features = []
    for image in listed[:: max(1, len(listed) // limit)]:
        try:
            pixels = decode(Path(images, image.path).read_bytes(), 224)
        except ImageError as error:
            print(f"{image.path}: {error}")
        else:
            features.append(featurizer(pixels[np.newaxis])[0])
    return np.array(features)


def main() -> None:
    """Measure, print the results, and write them."""
    parser = _parser()
    arguments = parser.parse_args()
    features = _computed(arguments.images, arguments.limit) if arguments.images else _generated()
    if len(features) <= max(arguments.components, 1024):
        parser.error(f"{len(features):,} rows: too few. Give more than {max(arguments.components, 1024):,} images.")
    measured = costs(features, arguments.components, arguments.turns)
    compared = accuracy(features, arguments.components)
    memory = peak_memory(features)
    text = (
        f"{table(measured)}\nMemory of a sum: {memory / 1e6:.0f} MB.\n"
        f"Difference from scikit-learn ({compared.rows:,} rows): scores {compared.scores:.1e}, explained variance "
        f"{compared.explained_variance:.1e}.\n"
    )
    figures = {"costs": measured, "accuracy": compared, "memory": memory}
    write_results(arguments.out, "numerics", text, figures)


if __name__ == "__main__":
    main()

"""A small recogniser of generated images of drawn fruit, made by linear discriminant analysis without a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fruits.image_features import image_features
from fruits.images.decode import Decoding
from fruits.images.sample import generate
from fruits.network.featurizer import compile_network
from fruits.network.packaged import PACKAGED
from fruits.recogniser.files import StoredRecogniser, write_recogniser
from fruits.recogniser.products import lengths, on_grid, to_unit
from fruits.storage.folder import Folder

SHRINKAGE = 0.1
FARTHEST = 0.5


def drawn_fruit(folder: Path, *, images: int = 32, labels: int = 8, seed: int = 0) -> dict[str, list[Path]]:
    """Generate images of drawn fruit, and return their paths by label."""
    generate(str(folder), images=images, labels=labels, seed=seed, broken=0)
    return {label.name: sorted(label.iterdir()) for label in sorted(folder.iterdir())}


def small_recogniser(images: Mapping[str, Sequence[Path]], *, crops: int = 1) -> StoredRecogniser:
    """Return a recogniser with one prototype for each label.

    Parameters
    ----------
    images : mapping of str to sequence of Path
        Training images by label.
    crops : {1, 2}, default 1
        Crops of each image.
    """
    network = compile_network(PACKAGED)
    rows = {label: image_features(paths, network, Decoding(crops=crops)) for label, paths in images.items()}
    labels = sorted(rows)
    means = np.stack([rows[label].mean((0, 1)) for label in labels]).astype(np.float64)
    mean = means.mean(0)
    within = np.concatenate([(rows[label] - rows[label].mean((0, 1))).reshape(-1, 1280) for label in labels])
    scatter = within.T.astype(np.float64) @ within / len(within)
    scatter = (1 - SHRINKAGE) * scatter + SHRINKAGE * np.trace(scatter) / 1280 * np.eye(1280)
    whitening = np.linalg.inv(np.linalg.cholesky(scatter)).T
    _, _, directions = np.linalg.svd((means - mean) @ whitening, full_matrices=False)
    projection = whitening @ directions[: len(labels) - 1].T
    centres = (means - mean) @ projection
    keys = [f"{number:016x}" for number in range(len(labels))]
    return StoredRecogniser(
        labels=tuple(labels),
        crops=crops,  # type: ignore[arg-type]
        network={
            "backbone": network.backbone,
            "engine": network.engine,
            "weights": network.weights_digest,
            "decoding": "reduced",
        },
        temperature=0.05,
        thresholds={"doubt": (0.5,), "distance": (FARTHEST,), "product": 4},  # the largest of an image that is kept
        calibration_images=0,
        counts={label: len(rows[label]) for label in labels},
        sources=(),
        neighbours=tuple((key, label, str(images[label][0])) for key, label in zip(keys, labels, strict=True)),
        arrays={
            "mean": mean,
            "projection": projection,
            "prototypes": on_grid(to_unit(centres)).astype(np.float32),
            "lengths": lengths(centres),
            "spreads": np.ones(len(labels)),
            "classes": np.arange(len(labels)),
        },
        thumbnails={key: _thumbnail(images[label][0]) for key, label in zip(keys, labels, strict=True)},
        training={},
    )


def write(stored: StoredRecogniser, folder: Path) -> Path:
    """Write a recogniser to a folder, and return the folder."""
    write_recogniser(Folder.at(str(folder)), stored)
    return folder


def _thumbnail(path: Path) -> bytes:
    file = BytesIO()
    with Image.open(path) as image:
        image.resize((64, 64)).save(file, "JPEG")
    return file.getvalue()

"""The pixels and the network of Fruits, for peers that run the same OpenVINO network.

A ratio to them measures the pipelines alone: the network file, its options, the decoding and the number of images that
are decoded in a row are the same on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import SIZE
from fruits.images.decode import MARGIN
from fruits.jobs.tasks.featurize import IMAGES_PER_GROUP
from fruits.network.featurizer import NeuralNetwork

GROUP = IMAGES_PER_GROUP  # images that are decoded before the network runs on them, one by one


def features(network: NeuralNetwork, contents: Iterable[Any]) -> NDArray[np.float32]:
    """Return the features of JPEG files, (n, 1280); the network is compiled once per thread, for one thread."""
    return network.load()(np.stack([decode(content) for content in contents]))


def decode(content: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a JPEG, (224, 224, 3), with Pillow; a large one is decoded at a reduced scale."""
    image = Image.open(BytesIO(content))
    _, box = image.draft("RGB", (MARGIN * SIZE[0], MARGIN * SIZE[1])) or (None, None)
    return np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC, box))

"""A small recogniser with random arrays."""

from __future__ import annotations

import numpy as np
import pytest

from fruits.recogniser.files import StoredRecogniser

LABELS = ("Apple", "Banana", "Cherry", "Date", "Elder", "Fig")


def random_recogniser(seed: int = 0, *, features: int = 1280, directions: int = 5, crops: int = 1) -> StoredRecogniser:
    """Return a recogniser with two prototypes for each of six labels and two unknown prototypes."""
    random = np.random.default_rng(seed)
    classes = np.repeat([*range(len(LABELS)), -1], 2).astype(np.int64)
    prototypes = random.normal(size=(len(classes), directions))
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    return StoredRecogniser(
        labels=LABELS,
        crops=crops,
        network={"backbone": "MobileNetV2", "engine": "openvino", "weights": "ab" * 32, "decoding": "reduced"},
        temperature=0.05,
        thresholds={"doubt": (0.0,), "distance": (0.0,), "product": 0},
        calibration_images=12,
        counts=dict.fromkeys(LABELS, 10),
        sources=(
            {"address": "/photos", "digest": "cd" * 32, "images": 60, "rejects": 0, "weight": 1, "classes": None},
        ),
        neighbours=tuple((f"{i:016x}", "Label", f"Label/{i}.jpg") for i in range(len(classes))),
        arrays={
            "mean": random.random(features),
            "projection": random.normal(size=(features, directions)),
            "lengths": np.ones(len(classes)),
            "spreads": np.linspace(0.8, 1.2, len(classes)),
            "prototypes": prototypes.astype(np.float32),
            "classes": classes,
        },
        thumbnails={"0000000000000000": b"\xff\xd8\xff picture"},
        training={"counts": np.arange(3)},
    )


@pytest.fixture
def stored() -> StoredRecogniser:
    return random_recogniser()

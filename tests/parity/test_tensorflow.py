"""Features of both engines and of Keras itself on the same images."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fruits.errors import WeightsError
from fruits.images.decode import decode
from fruits.network.backbones import BACKBONES
from fruits.network.featurizer import compile_network
from fruits.network.weights import find_weights
from tests.conftest import LONG
from tests.keras_reference import save_weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs pip install 'fruits[tensorflow]'"),
]


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.einsum("ij,ij->i", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_engines_agree_on_real_images(fruits360: Path) -> None:
    files = sorted(fruits360.glob("Training/*/*.jpg"))
    chosen = files[:: len(files) // 200][:200]
    pixels = np.stack([decode(file.read_bytes(), 224) for file in chosen])
    assert len(pixels) == 200

    openvino = compile_network("MobileNetV2", "openvino").load()(pixels)
    tensorflow = compile_network("MobileNetV2", "tensorflow").load()(pixels)

    assert np.abs(openvino - tensorflow).max() <= 1e-3
    assert _cosines(openvino, tensorflow).min() >= 0.999999


NETWORKS = [("MobileNetV2", ["openvino"])]
if LONG:  # half a minute each
    NETWORKS += [(name, ["openvino", "tensorflow"]) for name in ("EfficientNetV2B0", "ResNet50")]


@pytest.mark.parametrize(("name", "engines"), NETWORKS)
def test_features_equal_those_of_keras(
    name: str, engines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))  # without conversions of an earlier run
    pixels = np.random.default_rng(2).integers(0, 256, (3, 224, 224, 3), np.uint8)
    saved = tmp_path / "saved.weights.h5"
    known = find_weights(BACKBONES[name]).path if name == "MobileNetV2" else None
    expected = save_weights(name, saved, pixels, seed=3, weights=known)
    if known is not None:
        assert find_weights(BACKBONES[name], str(saved)).digest == BACKBONES[name].weights_digest
        with pytest.raises(WeightsError, match=r"saved\.weights\.h5: corrupt, or not weights of this network"):
            find_weights(BACKBONES["ResNet50"], str(saved))
    for engine in engines:
        features = compile_network(name, engine, weights=str(saved)).load()(pixels)
        assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()
        assert _cosines(features, expected).min() >= 0.999999

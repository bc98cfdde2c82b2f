"""Weights for the tests: the verified ones, none at all, and a conversion that starts no subprocess."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fruits.network import download, weights
from fruits.network.backbones import BACKBONES
from fruits.network.weights import Weights, find_weights

REFUSING = "http://127.0.0.1:9/"  # the discard port, which refuses connections


@pytest.fixture(scope="session")
def real() -> Weights:
    """Return the verified weights of MobileNetV2."""
    return find_weights(BACKBONES["MobileNetV2"])


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave every source of weights but the package empty, and return the cache folder of weights."""
    monkeypatch.delenv("FRUITS_WEIGHTS", raising=False)
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "KERAS_FILES", REFUSING)
    monkeypatch.setattr(weights, "_temporary_folder", lambda: tmp_path / "temporary")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def converted(real: Weights, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Replace the conversion by one that writes the real weights, and return the bytes of its inputs."""
    given: list[bytes] = []

    def convert(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        given.append(source.read_bytes())
        weights.save_cached(target, weights.load_cached(real.path)[0], origin)

    monkeypatch.setattr(weights, "build_in_subprocess", convert)
    return given


@pytest.fixture
def cached(real: Weights, empty: Path) -> Path:
    """Put the real weights into the empty cache folder, and return their path."""
    empty.mkdir(parents=True)
    return Path(shutil.copyfile(real.path, empty / "MobileNetV2.safetensors"))

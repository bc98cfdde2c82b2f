from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fruits.errors import SettingsError
from fruits.network import build as network_build
from fruits.network import featurizer
from fruits.network.backbones import BACKBONES
from fruits.network.featurizer import NeuralNetwork, compile_network

PYTHON = sys.executable
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> NeuralNetwork:
    return compile_network("MobileNetV2")


def test_the_network_ships_as_a_small_value(network: NeuralNetwork) -> None:
    data = pickle.dumps(network)
    assert len(data) < 10_000_000
    assert pickle.loads(data) == network
    assert (network.engine, network.backbone, network.features) == ("openvino", "MobileNetV2", 1280)
    assert network.weights_digest == BACKBONES["MobileNetV2"].weights_digest
    assert len(repr(network)) < 500


def test_features_are_float32_rows(network: NeuralNetwork) -> None:
    features = network.load()(PIXELS)
    assert (features.shape, features.dtype) == ((6, 1280), np.float32)
    assert np.isfinite(features).all()
    assert 0 <= features.min() < features.max() <= 6  # the mean of what a ReLU6 lets through
    assert network.load()(PIXELS[:0]).shape == (0, 1280)


def test_features_depend_on_the_image_alone(network: NeuralNetwork, tmp_path: Path) -> None:
    expected = network.load()(PIXELS)

    alone = np.concatenate([network.load()(picture[np.newaxis]) for picture in PIXELS])
    assert np.array_equal(alone, expected)
    assert np.array_equal(network.load()(PIXELS[::-1])[::-1], expected)

    elsewhere: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: elsewhere.append(network.load()(PIXELS)))
    thread.start()
    thread.join()
    assert np.array_equal(elsewhere[0], expected)

    (tmp_path / "network").write_bytes(pickle.dumps(network))
    np.save(tmp_path / "pixels.npy", PIXELS)
    subprocess.run([PYTHON, "-c", WORKER, str(tmp_path)], check=True)
    assert np.array_equal(np.load(tmp_path / "features.npy"), expected)


WORKER = """
import json, pickle, socket, sys
from pathlib import Path
import numpy as np

def connect(*arguments):
    raise SystemExit(f"it called home: {arguments}")

socket.socket.connect = socket.getaddrinfo = connect
folder = Path(sys.argv[1])
network = pickle.loads((folder / "network").read_bytes())
np.save(folder / "features.npy", network.load()(np.load(folder / "pixels.npy")))
heavy = {"dask", "h5py", "keras", "openvino_telemetry", "pyspark", "scipy", "tensorflow"}
(folder / "modules.json").write_text(json.dumps(sorted(heavy & set(sys.modules))))
"""


def test_a_worker_neither_calls_home_nor_imports_what_built_the_network(network: NeuralNetwork, tmp_path: Path) -> None:
    (tmp_path / "network").write_bytes(pickle.dumps(network))
    np.save(tmp_path / "pixels.npy", PIXELS[:1])
    subprocess.run([PYTHON, "-c", WORKER, str(tmp_path)], check=True)
    assert json.loads((tmp_path / "modules.json").read_text()) == []


def test_a_network_is_loaded_once_per_thread(network: NeuralNetwork) -> None:
    first = network.load()
    assert pickle.loads(pickle.dumps(network)).load() is first

    others: list[object] = []
    thread = threading.Thread(target=lambda: others.extend((network.load(), network.load())))
    thread.start()
    thread.join()
    assert others[0] is others[1]
    assert others[0] is not first


def test_a_slot_is_one_thread_that_no_core_owns_and_float32(network: NeuralNetwork) -> None:
    compiled = network.load()._request.get_compiled_model()  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert {frozenset(os.sched_getaffinity(int(task.name))) for task in Path("/proc/self/task").iterdir()} == {
        frozenset(os.sched_getaffinity(0))
    }


@pytest.mark.parametrize("pixels", [PIXELS[0], PIXELS[:, :200], PIXELS.astype(np.float32)], ids=["one", "size", "type"])
def test_other_pixels_are_refused(pixels: np.ndarray, network: NeuralNetwork) -> None:
    with pytest.raises(ValueError, match=r"MobileNetV2 takes uint8 of shape \(n, 224, 224, 3\)"):
        network.load()(pixels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MobileNetV2", lambda rgb: rgb / np.float32(127.5) - np.float32(1)),
        ("ResNet50", lambda rgb: rgb[..., ::-1] - np.float32([103.939, 116.779, 123.68])),
        ("EfficientNetV2B0", lambda rgb: rgb),
    ],
)
def test_preprocessing_is_exact_for_every_value(name: str, expected: object) -> None:
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    out = np.empty(pixels.shape, np.float32)
    featurizer._prepare(pixels, BACKBONES[name], out)
    assert np.array_equal(out, expected(pixels.astype(np.float32)))  # type: ignore[operator]


# Compiling


def test_an_unknown_engine_or_backbone_lists_the_choices() -> None:
    with pytest.raises(SettingsError, match=r"--engine onnx: not known. Allowed: openvino, tensorflow"):
        compile_network("MobileNetV2", "onnx")
    with pytest.raises(SettingsError, match=r"--backbone VGG: not known. Allowed: MobileNetV2, ResNet50"):
        compile_network("VGG")


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(featurizer, "version", version)
    with pytest.raises(SettingsError, match=r"tensorflow: not installed.*pip install 'fruits\[tensorflow\]'"):
        compile_network("MobileNetV2", "tensorflow")


def test_the_second_command_starts_no_process(network: NeuralNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featurizer, "run", None)
    assert compile_network("MobileNetV2") == network


def test_a_damaged_network_in_the_cache_is_built_again(
    network: NeuralNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next((featurizer.cache_folder("networks")).glob(f"MobileNetV2-{network.weights_digest[:16]}-*openvino*"))
    arrays = load_file(path)
    built: list[Path] = []

    def build(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        built.append(source)
        save_file(arrays, target, {"digest": network.digest})

    weights = featurizer.find_weights(BACKBONES["MobileNetV2"])
    monkeypatch.setattr(featurizer, "run", build)
    monkeypatch.setattr(featurizer, "find_weights", lambda backbone, address: weights)
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path))
    assert compile_network("MobileNetV2") == network
    (cached,) = (tmp_path / "networks").iterdir()
    for damaged in (cached.read_bytes()[:-1] + b"\xff", cached.read_bytes()[:1000], b""):
        cached.write_bytes(damaged)
        assert compile_network("MobileNetV2") == network
    assert built == [weights.path] * 4
    assert list((tmp_path / "networks").iterdir()) == [cached]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit('No space left on device')", "ended with code 1(.|\n)*No space left on device"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code -9"),
    ],
)
def test_what_a_failing_process_wrote_is_in_the_error(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{PYTHON}\nimport sys\n{code}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SettingsError, match=words):
        network_build.run("openvino", "MobileNetV2", tmp_path / "a", tmp_path / "b", origin="a test")

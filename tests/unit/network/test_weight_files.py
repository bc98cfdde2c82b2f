from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from fruits.errors import WeightsError
from fruits.network import weight_files
from fruits.network.backbones import BACKBONES
from fruits.network.weights import Weights, find_weights

MOBILENET, RESNET = BACKBONES["MobileNetV2"], BACKBONES["ResNet50"]


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


def _rejection(source: Path, origin: str = "here") -> str:
    with pytest.raises(WeightsError) as caught, weight_files.rejecting_corrupt(origin):
        weight_files.read_tensors(source)
    return str(caught.value)


def test_files_that_are_not_weights_are_rejected(tmp_path: Path, real: Weights) -> None:
    file = tmp_path / "file"
    file.write_text("hello, these are words")
    assert "here: corrupt, or not weights of this network: starts with b'hello, t'" in _rejection(file)
    for whole in (_keras_2(tmp_path / "whole.h5", load_file(real.path)), real.path):
        file.write_bytes(whole.read_bytes()[: 2**20])
        assert "here: corrupt, or not weights of this network" in _rejection(file)


def test_tensors_stored_in_other_files_are_rejected(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("a/kernel:0", (4,), "f4", external=[("/etc/hostname", 0, 16)])
    assert "a/kernel:0 is stored in another file" in _rejection(tmp_path / "file.h5")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda tensors: tensors.pop(("b", "gamma")),
            "not the weights of X: 1 of its 2 tensors are present, b/gamma is missing",
        ),
        (lambda tensors: tensors.update({("b", "gamma"): np.ones(3, np.float32)}), r"float32 of shape \(3,\); X needs"),
        (lambda tensors: tensors.update({("b", "gamma"): np.ones(2)}), r"b/gamma is float64 of shape \(2,\)"),
        (lambda tensors: tensors.update({("b", "gamma"): np.float32([1, np.nan])}), "X needs finite float32"),
    ],
)
def test_tensors_of_another_architecture_are_rejected(
    change: Callable[[dict[tuple[str, str], np.ndarray]], object], words: str
) -> None:
    shapes = {("a", "kernel"): (3, 2), ("b", "gamma"): (2,)}
    tensors = {key: np.ones(shape, np.float32) for key, shape in shapes.items()}
    weight_files.check_tensors(tensors, shapes, "X", "here")
    change(tensors)
    with pytest.raises(WeightsError, match=words):
        weight_files.check_tensors(tensors, shapes, "X", "here")


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
def test_names_of_keras_and_tf_slim_are_translated(path: str, key: tuple[str, str], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file[path] = np.ones(2, np.float32)
        file["training_config"] = 1
    tensors = weight_files.read_tensors(tmp_path / "file.h5")
    assert tensors is not None
    assert list(tensors) == [key]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_format_gives_the_verified_tensors(
    real: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``.weights.h5`` of Keras 3 is in tests/parity/test_tensorflow.py."""
    monkeypatch.setenv("FRUITS_CACHE", str(tmp_path / "cache"))
    keras_2 = _keras_2(tmp_path / "keras2.h5", load_file(real.path))

    for source in (keras_2, real.path):
        assert find_weights(MOBILENET, str(source)).digest == MOBILENET.weights_digest
    with pytest.raises(WeightsError, match=r"keras2\.h5: not the weights of ResNet50: 0 of its 318 tensors"):
        find_weights(RESNET, str(keras_2))

"""Keras in a subprocess: saves weights in its own format, and computes reference features."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = """
import sys
import keras, numpy as np
from safetensors.numpy import load_file
name, weights, target, pixels, features = sys.argv[1:]
keras.config.set_image_data_format("channels_last")
model = getattr(keras.applications, name)(
    input_shape=(224, 224, 3), include_top=False, weights=None, pooling="avg"
)
if weights.isdigit():
    random = np.random.default_rng(int(weights))
    for layer in model.layers:
        layer.set_weights([
            random.uniform(0.5, 1.5, value.shape) if value.ndim == 1
            else random.normal(0, (2 / np.prod(value.shape[:3])) ** 0.5, value.shape)
            for value in layer.get_weights()
        ])
else:
    tensors = load_file(weights)
    for layer in model.layers:
        layer.set_weights([tensors[f"{layer.name}/{weight.name}"] for weight in layer.weights])
model.save_weights(target)
family = {"MobileNetV2": "mobilenet_v2", "ResNet50": "resnet", "EfficientNetV2B0": "efficientnet_v2"}[name]
prepared = getattr(keras.applications, family).preprocess_input(np.load(pixels).astype("float32"))
np.save(features, model.predict(prepared, batch_size=1, verbose=0))
"""


def save_weights(name: str, target: Path, pixels: np.ndarray, *, seed: int, weights: Path | None) -> np.ndarray:
    """Save given or random weights as ``target``, a ``.weights.h5``, and return Keras' own features of pixels."""
    files = [str(target.with_suffix(".pixels.npy")), str(target.with_suffix(".features.npy"))]
    np.save(files[0], pixels)
    environment = os.environ | {
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(target.parent / "keras"),
        "CI": "true",  # disables OpenVINO's telemetry
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    command = [sys.executable, "-c", SCRIPT, name, str(weights or seed), str(target), *files]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    features: np.ndarray = np.load(files[1])
    return features

"""Work that needs Keras, in a subprocess: converting files of weights, and building a network for an engine.

Keras picks its backend once per process and takes seconds to import, so neither the driver nor a worker imports it:
:func:`build_in_subprocess` starts ``python -m fruits.network.build ACTION BACKBONE SOURCE TARGET ORIGIN``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from fruits.errors import FruitsError, SettingsError, WeightsError
from fruits.network.backbones import backbone
from fruits.network.digests import Tensors, content_digest
from fruits.network.weight_files import check_tensors, read_tensors, rejecting_corrupt, save_cached

Action = Literal["weights", "openvino", "tensorflow"]

TIMEOUT_SECONDS = 600  # Keras' first import on a cold network disk takes minutes
REJECTED = 3  # exit code: standard output is the message of a WeightsError
EXTRA = ("keras", "h5py", "scipy")  # Keras' openvino backend imports scipy


def require_keras(purpose: str) -> None:
    """Raise a SettingsError if the packages of the extra ``keras``, which `purpose` needs, are not installed."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"{purpose} needs Keras; not installed: {', '.join(missing)}. Install it with: pip install 'fruits[keras]'."
        )


def build_in_subprocess(action: Action, name: str, source: Path, target: Path, *, origin: str) -> None:
    """Write `target` from `source` in a subprocess that imports Keras.

    Parameters
    ----------
    action : {"weights", "openvino", "tensorflow"}
        ``weights``: convert a file of weights in any supported format to the safetensors of the cache folder.
        The others: build the network for that engine from such safetensors, batch 1, input (1, size, size, 3) of
        float32 after the preprocessing.
    name : str
        The backbone's name.
    source, target : Path
        Files on the local disk; `target` is written in place.
    origin : str
        Origin of the source, for error messages and for the metadata of converted weights.

    Raises
    ------
    WeightsError
        The source does not contain the weights of this backbone.
    SettingsError
        Keras is not installed, or the process failed; the message ends with its standard error.
    """
    require_keras(f"{action} of {name} from {origin}")
    with tempfile.TemporaryDirectory(prefix="fruits-keras-") as home:
        environment = os.environ | {
            "KERAS_BACKEND": "tensorflow" if action == "tensorflow" else "openvino",
            "KERAS_HOME": home,  # the user's keras.json could set another precision or data format
            "PYTHONIOENCODING": "utf-8:backslashreplace",  # a file name may be invalid UTF-8
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        command = [sys.executable, "-P", "-m", "fruits.network.build", action, name, str(source), str(target), origin]
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise SettingsError(f"{action} of {name}: Keras did not finish within {TIMEOUT_SECONDS} s.") from error
    if done.returncode == REJECTED:
        raise WeightsError(done.stdout.strip())
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise SettingsError(
            f"{action} of {name} from {origin}: the subprocess that runs Keras exited with code {done.returncode}. "
            f"Check that keras, openvino and scipy can be imported in this environment. Its standard error:\n{tail}"
        )


def read_built(path: Path) -> tuple[bytes, bytes, str]:
    """Return graph, constants and digest of a network that :func:`build_in_subprocess` wrote.

    Raises
    ------
    SettingsError
        The file is missing or corrupt.
    """
    try:
        with safe_open(path, "numpy") as file:
            graph, constants = file.get_tensor("graph").tobytes(), file.get_tensor("constants").tobytes()
            digest = (file.metadata() or {}).get("digest", "")
        if digest != content_digest(graph, constants):
            raise ValueError(digest)
    except (OSError, SafetensorError, ValueError) as error:
        raise SettingsError(
            f"{path}: corrupt right after writing. Check the disk, or set TMPDIR to another one."
        ) from error
    return graph, constants, digest


def main(action: str, name: str, source: str, target: str, origin: str) -> None:
    """Run one action of :func:`build_in_subprocess`, in the subprocess."""
    # Without openvino_telemetry, OpenVINO uses a stub; with it, every import sends statistics.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        if action == "weights":
            _convert(name, Path(source), Path(target), origin)
        else:
            _build(action, name, Path(source), Path(target))
    except FruitsError as error:
        print(error)
        raise SystemExit(REJECTED) from error


def _convert(name: str, source: Path, target: Path, origin: str) -> None:
    with rejecting_corrupt(origin):
        tensors = read_tensors(source)
    model = _architecture(name, "channels_first")
    shapes = {
        (layer.name, weight.name): tuple(int(length) for length in weight.shape)
        for layer in model.layers
        for weight in layer.weights
    }
    if tensors is None:
        with rejecting_corrupt(origin):
            tensors = _load_with_keras(model, source)
    check_tensors(tensors, shapes, name, origin)
    save_cached(target, {key: tensors[key] for key in shapes}, origin)


def _load_with_keras(model: Any, source: Path) -> Tensors:
    """Return the tensors of a ``.weights.h5``, which stores them by class and position; no object is created."""
    model.load_weights(source)
    return {
        (layer.name, weight.name): np.asarray(value)
        for layer in model.layers
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True)
    }


def _architecture(name: str, data_format: str) -> Any:
    import keras

    keras.config.set_image_data_format(data_format)
    size = backbone(name).size
    shape = (3, size, size) if data_format == "channels_first" else (size, size, 3)
    return getattr(keras.applications, name)(input_shape=shape, include_top=False, weights=None, pooling="avg")


def _build(engine: str, name: str, source: Path, target: Path) -> None:
    from safetensors.numpy import load_file, save

    # Exported from channels_last, OpenVINO's graph runs three to four times slower.
    model = _architecture(name, "channels_first" if engine == "openvino" else "channels_last")
    tensors = load_file(source)
    for layer in model.layers:
        layer.set_weights([tensors[f"{layer.name}/{weight.name}"] for weight in layer.weights])
    size = backbone(name).size
    graph, constants = _openvino(model, size) if engine == "openvino" else (_tensorflow(model, size), b"")
    arrays = {"graph": np.frombuffer(graph, np.uint8), "constants": np.frombuffer(constants, np.uint8)}
    target.write_bytes(save(arrays, {"digest": content_digest(graph, constants)}))


def _openvino(model: Any, size: int) -> tuple[bytes, bytes]:
    """Return OpenVINO's graph (XML) and constants, with the pixels' channels moved last."""
    import keras
    import openvino
    from openvino.preprocess import PrePostProcessor

    with tempfile.TemporaryDirectory() as folder:
        exported, final = Path(folder, "exported.xml"), Path(folder, "final.xml")
        model.export(
            str(exported),
            format="openvino",
            verbose=False,
            input_signature=[keras.InputSpec(shape=(1, 3, size, size), dtype="float32")],
        )
        steps = PrePostProcessor(openvino.Core().read_model(exported))
        steps.input().tensor().set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        openvino.serialize(steps.build(), final)
        return final.read_bytes(), final.with_suffix(".bin").read_bytes()


def _tensorflow(model: Any, size: int) -> bytes:
    """Return the frozen GraphDef, from the tensor ``pixels:0`` to ``features:0``."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(
        lambda pixels: model(pixels, training=False),
        input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32, name="pixels")],
    )
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    with frozen.graph.as_default():
        tf.identity(frozen.outputs[0], name="features")
    data: bytes = frozen.graph.as_graph_def().SerializeToString(deterministic=True)
    return data


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What needs Keras, in a process of its own: reading files of weights, and building the network for an engine.

Keras picks its backend once per process and takes seconds to import, so neither the driver nor a worker imports it:
:func:`run` starts ``python -m fruits.network.build ACTION BACKBONE SOURCE TARGET ORIGIN`` and waits. A broken HDF5 file
that brings the reader down brings down that process alone.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fruits.errors import FruitsError, SettingsError, WeightsError
from fruits.network.backbones import backbone

__all__ = ["Action", "content_digest", "run"]

Action = Literal["weights", "openvino", "tensorflow"]
Tensors = Mapping[tuple[str, str], NDArray[np.float32]]

TIMEOUT_SECONDS = 600  # Keras' first import on a cold network disk takes minutes
REFUSED = 3  # exit code: standard output is the message of a WeightsError
HDF5 = b"\x89HDF\r\n\x1a\n"
LARGEST = 2**28  # bytes of tensors: no application in the table has half of it


def run(action: Action, name: str, source: Path, target: Path, *, origin: str) -> None:
    """Write `target` from `source` in a subprocess.

    Parameters
    ----------
    action : {"weights", "openvino", "tensorflow"}
        ``weights``: any file of weights to our safetensors, in Keras' order. The others: such weights to the network
        for that engine, batch 1, input (1, size, size, 3) of float32 after the preprocessing.
    name : str
        The backbone's name.
    source, target : Path
        Files on the local disk; `target` is written in place.
    origin : str
        Where the source came from: named in errors, and recorded.

    Raises
    ------
    WeightsError
        The source does not hold the weights of this backbone.
    SettingsError
        The process failed for another reason; the message ends with what it wrote to standard error.
    """
    with tempfile.TemporaryDirectory(prefix="fruits-keras-") as home:
        environment = os.environ | {
            "KERAS_BACKEND": "tensorflow" if action == "tensorflow" else "openvino",
            "KERAS_HOME": home,  # a keras.json of the user's could ask for another precision or data format
            "PYTHONIOENCODING": "utf-8:backslashreplace",  # a name that is not UTF-8 is told all the same
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
            raise SettingsError(f"{action} of {name}: Keras was not done after {TIMEOUT_SECONDS} s.") from error
    if done.returncode == REFUSED:
        raise WeightsError(done.stdout.strip())
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise SettingsError(
            f"{action} of {name} from {origin}: the process that runs Keras ended with code {done.returncode}. "
            f"Check that keras, openvino and scipy import in this environment. It wrote:\n{tail}"
        )


def content_digest(graph: bytes, constants: bytes) -> str:
    """Return the sha256 of a built network, by which its file is checked and a loaded one is found again."""
    digest = sha256(len(graph).to_bytes(8, "little"))
    digest.update(graph)
    digest.update(constants)
    return digest.hexdigest()


def main(action: str, name: str, source: str, target: str, origin: str) -> None:
    """Do what :func:`run` asks for, in the subprocess."""
    # Without it `import openvino` uses a stub in its place; with it, it calls home.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        if action == "weights":
            _convert(name, Path(source), Path(target), origin)
        else:
            _build(action, name, Path(source), Path(target))
    except FruitsError as error:
        print(error)
        raise SystemExit(REFUSED) from error


def _convert(name: str, source: Path, target: Path, origin: str) -> None:
    from safetensors.numpy import save

    with _refusing(origin):
        found = _read(source)
    model = _architecture(name, "channels_first")
    shapes = {
        (layer.name, weight.name): tuple(int(length) for length in weight.shape)
        for layer in model.layers
        for weight in layer.weights
    }
    if found is None:
        with _refusing(origin):
            found = _load(model, source)
    _check(found, shapes, name, origin)
    names = ["/".join(key) for key in shapes]
    tensors = {"/".join(key): np.ascontiguousarray(found[key], "<f4") for key in shapes}
    target.write_bytes(save(tensors, {"order": json.dumps(names), "origin": origin}))


def _check(found: Tensors, shapes: Mapping[tuple[str, str], tuple[int, ...]], name: str, origin: str) -> None:
    """Raise where tensors are not all that an architecture has; there may be more of them."""
    missing = [key for key in shapes if key not in found]
    if missing:
        raise WeightsError(
            f"{origin}: not the weights of {name}: {len(shapes) - len(missing)} of its {len(shapes)} tensors are "
            f"there, {'/'.join(missing[0])} is not. Give the weights of {name}, or the --backbone that they belong to."
        )
    for key, shape in shapes.items():
        tensor = found[key]
        if tensor.shape != shape or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise WeightsError(
                f"{origin}: {'/'.join(key)} is {tensor.dtype} of shape {tensor.shape}; "
                f"{name} needs finite float32 of shape {shape}."
            )


@contextmanager
def _refusing(origin: str) -> Iterator[None]:
    """Say what is wrong with a file in the words of the library that could not read it."""
    try:
        yield
    except Exception as error:  # each of them has errors of its own
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{origin}: damaged, or not weights of this network: {words}") from error


def _read(source: Path) -> Tensors | None:
    """Return the tensors of a file by layer and name, or nothing for those that only Keras can take apart."""
    import h5py
    from safetensors.numpy import load_file

    with source.open("rb") as file:
        head = file.read(9)
    if head.startswith(HDF5):
        with h5py.File(source, "r") as file:
            _check_sizes(file)
            return None if "layers" in file else dict(_named(file))
    if head[8:] == b"{":
        if source.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        return {_key(*name.rpartition("/")[::2]): tensor for name, tensor in load_file(source).items()}
    raise ValueError(f"it begins with {head[:8]!r}. Allowed: safetensors that fruits wrote, Keras' .h5 and .weights.h5")


def _load(model: Any, source: Path) -> Tensors:
    """Let Keras read its third format, which knows tensors by class and position. No object is unpickled or made."""
    model.load_weights(source)
    return {
        (layer.name, weight.name): np.asarray(value)
        for layer in model.layers
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True)
    }


def _check_sizes(file: Any) -> None:
    """Raise where an HDF5 file leads to another, or claims more than any network has, before memory is taken for it."""
    import h5py

    datasets: list[tuple[str, Any]] = []
    file.visititems(lambda path, item: datasets.append((path, item)) if isinstance(item, h5py.Dataset) else None)
    total = 0
    for path, dataset in datasets:
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{path} lies in another file")
        if path.startswith("optimizer"):
            continue  # moments of the training, which nobody reads
        total += max(dataset.nbytes, math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize)
        if total > LARGEST:
            raise ValueError(f"its tensors take more than {LARGEST:,} bytes")
    links: list[str] = []
    file.visititems_links(lambda path, link: links.append(path) if isinstance(link, h5py.ExternalLink) else None)
    if links:
        raise ValueError(f"{links[0]} lies in another file")


def _named(file: Any) -> Iterator[tuple[tuple[str, str], NDArray[np.float32]]]:
    """Yield the tensors of a file that stores them by name, as Keras 1 and 2 and TF-Slim do, wherever they nest."""
    import h5py

    paths: list[str] = []
    file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    for path in paths:
        scope, _, weight = path.partition(":")[0].rpartition("/")
        # Moments of the training's optimizer have the names of the weights.
        if not scope or scope.startswith("optimizer_weights"):
            continue
        layer = scope.rpartition("/")[2]
        if "MobilenetV2/" in scope:
            layer, weight = _slim(scope.partition("MobilenetV2/")[2].split("/"), weight)
        yield _key(layer, weight), file[path][()]


def _key(layer: str, weight: str) -> tuple[str, str]:
    return layer, "kernel" if weight == "depthwise_kernel" else weight  # Keras 2 called it so


def _slim(scope: list[str], variable: str) -> tuple[str, str]:
    """Return Keras' layer and weight for a variable of TF-Slim's MobileNetV2, which TF-Hub's modules keep.

    ``Conv``, ``expanded_conv[_i]/{expand,depthwise,project}`` and ``Conv_1``, each with a ``BatchNorm`` below.
    """
    normalises = scope[-1] == "BatchNorm"
    block, *kind = scope[:-1] if normalises else scope
    weight = variable if normalises else "kernel"
    if block == "Conv":
        return "bn_Conv1" if normalises else "Conv1", weight
    if not kind:
        return f"{block}_bn" if normalises else block, weight
    prefix = "expanded_conv" if block == "expanded_conv" else f"block_{block.removeprefix('expanded_conv_')}"
    return f"{prefix}_{kind[0]}{'_BN' if normalises else ''}", weight


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
    """Return OpenVINO's representation, its XML and its constants, with the pixels' channels moved last."""
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

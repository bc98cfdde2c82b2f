"""The network that turns pixels into features: compiled once on the driver, shipped as bytes, loaded once per thread.

Two engines behind one call. Both see one picture at a time and use one thread, so that an image's features depend on
that image alone, down to the last bit, and as many workers as there are cores do not fight over them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fruits.errors import SettingsError
from fruits.network import backbones
from fruits.network.backbones import Backbone
from fruits.network.build import content_digest, run
from fruits.network.weights import cache_folder, find_weights

__all__ = ["DISTRIBUTIONS", "Engine", "Featurizer", "NeuralNetwork", "compile_network"]

Engine = Literal["openvino", "tensorflow"]

DISTRIBUTIONS: dict[str, tuple[str, ...]] = {  # by engine, the distributions that bring it
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
}
EXTRAS = {"openvino": "fruits", "tensorflow": "'fruits[tensorflow]'"}
CACHE_FORMAT = 1  # of the compiled network's file
CAFFE_MEANS = np.array([103.939, 116.779, 123.68], np.float32)  # of ImageNet's blue, green and red, as Keras has them

GREETING = (b"WARNING: All log messages before absl::InitializeLog()", b"I0000 ")  # the latter: INFO

_loaded = threading.local()
_loading = threading.Lock()  # OpenVINO's bindings can lock up where two threads use them for the first time at once


class Featurizer(Protocol):
    """A network that is ready to run, on the thread that loaded it."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of pictures.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, size, size, 3)
            RGB, as :func:`fruits.images.decode.decode` gives them.

        Returns
        -------
        ndarray of float32, shape (n, features)
        """
        ...


@dataclass(frozen=True, slots=True)
class NeuralNetwork:
    """A compiled network as bytes: what the driver ships to its workers.

    Attributes
    ----------
    engine : {"openvino", "tensorflow"}
        What runs it.
    package : str
        The package that brings the engine, with its version: ``openvino-2026.4.1``.
    backbone : str
        The name of its :class:`fruits.network.backbones.Backbone`.
    weights_digest : str
        The digest of its weights' tensors.
    features : int
        The length of a feature vector.
    graph, constants : bytes
        OpenVINO's XML and its constants; or TensorFlow's frozen GraphDef, and nothing.
    digest : str
        The sha256 of both.
    """

    engine: Engine
    package: str
    backbone: str
    weights_digest: str
    features: int
    graph: bytes = field(repr=False)
    constants: bytes = field(repr=False)
    digest: str

    def load(self) -> Featurizer:
        """Return this thread's featurizer, made at the first call and kept for as long as the thread lives."""
        known: dict[str, Featurizer] = _loaded.__dict__.setdefault("featurizers", {})
        if self.digest not in known:
            kind = _OpenVINO if self.engine == "openvino" else _TensorFlow
            with _loading:
                known[self.digest] = kind(self, backbones.backbone(self.backbone))
        return known[self.digest]


def compile_network(backbone: str, engine: str = "openvino", weights: str | None = None) -> NeuralNetwork:
    """Return a backbone compiled for an engine, from the cache folder where it was compiled before.

    Parameters
    ----------
    backbone : str
        One of :data:`fruits.network.backbones.BACKBONES`.
    engine : {"openvino", "tensorflow"}
        What shall run it.
    weights : str, optional
        The address of its weights; see :func:`fruits.network.weights.find_weights` for where else they are sought.

    Raises
    ------
    SettingsError
        The backbone or the engine is not known, or the engine is not installed, or the cache folder cannot be written.
    WeightsError
        As in :func:`fruits.network.weights.find_weights`.
    """
    network = backbones.backbone(backbone)
    known, package = _installed(engine)
    versions = f"keras-{version('keras')}-{package}"
    found = find_weights(network, weights)
    folder = cache_folder("networks")
    path = folder / f"{network.name}-{found.digest[:16]}-{versions}-{CACHE_FORMAT}.safetensors"
    stored = _read(path)
    if stored is None:
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as temporary:
            target = Path(temporary, path.name)
            run(known, network.name, found.path, target, origin=found.source)
            target.replace(path)
        stored = _read(path)
    if stored is None:
        raise SettingsError(
            f"{path}: damaged as soon as it was written. Check the disk, or set FRUITS_CACHE to another."
        )
    graph, constants, digest = stored
    return NeuralNetwork(known, package, network.name, found.digest, network.features, graph, constants, digest)


def _installed(engine: str) -> tuple[Engine, str]:
    """Return an engine that can be used, and the name and version of the package that brings it."""
    if engine not in DISTRIBUTIONS:
        raise SettingsError(f"--engine {engine}: not known. Allowed: {', '.join(DISTRIBUTIONS)}.")
    for name in DISTRIBUTIONS[engine]:
        try:
            return cast(Engine, engine), f"{name}-{version(name)}"
        except PackageNotFoundError:
            continue
    raise SettingsError(f"--engine {engine}: not installed. It comes with: pip install {EXTRAS[engine]}")


def _read(path: Path) -> tuple[bytes, bytes, str] | None:
    """Return graph, constants and digest of a compiled network, or nothing where its file is missing or damaged."""
    try:
        with safe_open(path, "numpy") as file:
            graph, constants = file.get_tensor("graph").tobytes(), file.get_tensor("constants").tobytes()
            digest = (file.metadata() or {}).get("digest")
    except (OSError, SafetensorError):
        return None
    return (graph, constants, digest) if digest == content_digest(graph, constants) else None


def _prepare(pixels: NDArray[np.uint8], network: Backbone, out: NDArray[np.float32]) -> None:
    """Write one picture, shape (size, size, 3), as the backbone wants it."""
    if network.preprocessing == "tf":
        np.divide(pixels, np.float32(127.5), out=out, dtype=np.float32)
        np.subtract(out, np.float32(1), out=out)
    elif network.preprocessing == "caffe":
        np.subtract(pixels[..., ::-1], CAFFE_MEANS, out=out, dtype=np.float32)
    else:
        out[...] = pixels


def _check(pixels: NDArray[np.uint8], network: Backbone) -> None:
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (network.size, network.size, 3):
        raise ValueError(
            f"pixels of {pixels.dtype}, shape {pixels.shape}; "
            f"{network.name} takes uint8 of shape (n, {network.size}, {network.size}, 3)"
        )


class _OneByOne:
    """What the engines share: each picture is prepared in the engine's input, shape (1, …), and run by itself."""

    _kind: Backbone
    _input: NDArray[np.float32]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        _check(pixels, self._kind)
        features = np.empty((len(pixels), self._kind.features), np.float32)
        for picture, row in zip(pixels, features, strict=True):
            _prepare(picture, self._kind, self._input[0])
            row[:] = self._infer()[0]
        return features

    def _infer(self) -> NDArray[np.float32]:
        """Return the features of what is in the input, shape (1, features)."""
        raise NotImplementedError


class _OpenVINO(_OneByOne):
    def __init__(self, network: NeuralNetwork, kind: Backbone) -> None:
        openvino = _import_openvino()
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(network.graph, network.constants),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": 1,
                "NUM_STREAMS": 1,
                # Every process would pin its thread to the same first core.
                "ENABLE_CPU_PINNING": False,
                # Otherwise bfloat16 where the CPU has it, which moves these features by a fifth.
                "INFERENCE_PRECISION_HINT": "f32",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            },
        )
        self._kind = kind
        self._request = compiled.create_infer_request()
        self._input = self._request.get_input_tensor().data
        self._output: NDArray[np.float32] = self._request.get_output_tensor().data

    def _infer(self) -> NDArray[np.float32]:
        self._request.infer()
        return self._output


class _TensorFlow(_OneByOne):
    def __init__(self, network: NeuralNetwork, kind: Backbone) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
        with _without_greeting():
            import tensorflow as tf

        definition = tf.compat.v1.GraphDef.FromString(network.graph)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(definition, name="")
        # A session has thread pools of its own; TensorFlow 2's are one per process and fixed at first use.
        threads = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=1, use_per_session_threads=True
        )
        self._kind = kind
        self._run = tf.compat.v1.Session(graph=graph, config=threads).make_callable(
            "features:0", feed_list=["pixels:0"]
        )
        self._input = np.empty((1, kind.size, kind.size, 3), np.float32)

    def _infer(self) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._run(self._input)
        return features


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Keep TensorFlow's greeting off standard error: it comes whatever the log level, from every worker."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            os.write(2, b"".join(line for line in caught if not line.startswith(GREETING)))


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would call home from every worker.

    Where that package cannot be imported, OpenVINO uses a stub of its own in its place, for good.
    """
    if "openvino" in sys.modules or "openvino_telemetry" in sys.modules:
        import openvino
    else:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            import openvino
        finally:
            sys.modules.pop("openvino_telemetry", None)
    return openvino

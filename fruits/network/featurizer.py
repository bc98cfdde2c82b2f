"""The network that computes features from pixels: read or built on the driver, sent to workers, loaded once per thread.

Two engines implement one call. Both process one image at a time on one thread: the features of an image depend on that
image alone, to the last bit, and one worker per core does not oversubscribe the CPU.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from mmap import MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any, Literal, Protocol, cast
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from fruits.errors import SettingsError
from fruits.network import backbones
from fruits.network.backbones import Backbone
from fruits.network.build import build_in_subprocess, read_built, require_keras
from fruits.network.packaged import PACKAGED, PACKAGED_DIGEST, packaged_network
from fruits.network.weights import Weights, find_weights, given_address

Engine = Literal["openvino", "tensorflow"]

DISTRIBUTIONS: dict[str, tuple[str, ...]] = {  # by engine, the distributions that provide it
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
}
EXTRAS = {"openvino": "fruits", "tensorflow": "'fruits[tensorflow]'"}
CAFFE_MEANS = np.array([103.939, 116.779, 123.68], np.float32)  # ImageNet's blue, green and red; Keras

STARTUP_LINES = (b"WARNING: All log messages before absl::InitializeLog()", b"I0000 ")  # the latter: INFO

_loaded = threading.local()
_requests: WeakSet[_OpenVINO] = WeakSet()
_held: list[_OpenVINO] = []
_loading = threading.Lock()  # OpenVINO's bindings can deadlock if two threads use them for the first time at once

# A forked process frees the networks of threads that it does not have, and OpenVINO waits for ever as it frees one.
os.register_at_fork(before=lambda: _held.extend(_requests), after_in_parent=_held.clear)


class Featurizer(Protocol):
    """A loaded network, for the thread that loaded it."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of images.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, size, size, 3)
            RGB, from :func:`fruits.images.decode.decode`.

        Returns
        -------
        ndarray of float32, shape (n, features)
        """
        ...


@dataclass(frozen=True, slots=True, repr=False)
class NeuralNetwork:
    """A network as bytes, sent by the driver to its workers.

    Of the packaged network, only the digest is pickled: every worker has its files, and need not receive 9 MB.

    Attributes
    ----------
    engine : {"openvino", "tensorflow"}
        Library that runs it.
    package : str
        Distribution of the engine, with its version: ``openvino-2026.4.1``.
    backbone : str
        Name of its :class:`fruits.network.backbones.Backbone`.
    weights_digest : str
        :func:`fruits.network.digests.tensor_digest` of its weights.
    features : int
        Length of a feature vector.
    graph, constants : bytes
        OpenVINO's XML and constants, which are a mapped file in the packaged network; or TensorFlow's frozen GraphDef
        and an empty value.
    digest : str
        :func:`fruits.network.digests.content_digest` of both.
    """

    engine: Engine
    package: str
    backbone: str
    weights_digest: str
    features: int
    graph: bytes
    constants: bytes | mmap
    digest: str

    def __repr__(self) -> str:
        return (
            f"NeuralNetwork({self.backbone!r}, package={self.package!r}, features={self.features}, "
            f"digest={self.digest[:12]!r})"
        )

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], NeuralNetwork], tuple[dict[str, Any]]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _unpickled, (values | ({"graph": b"", "constants": b""} if self.digest == PACKAGED_DIGEST else {}),)

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        """Identify the network in Dask's graphs without its bytes."""
        return self.package, self.backbone, self.digest

    def load(self) -> Featurizer:
        """Return this thread's featurizer, created at the first call and cached for the life of the thread."""
        known: dict[str, Featurizer] = _loaded.__dict__.setdefault("featurizers", {})
        if self.digest not in known:
            (known[self.digest],) = self.load_shared(1)
        return known[self.digest]

    def load_shared(self, count: int) -> list[Featurizer]:
        """Return `count` featurizers, each for one thread, which share one compiled network.

        Their features are those of :meth:`load`, to the last bit. With OpenVINO, two of them take 45 MB less memory
        than two compiled networks.
        """
        kind = backbones.backbone(self.backbone)
        with _loading:
            if self.engine == "tensorflow":
                return [_TensorFlow(self, kind) for _ in range(count)]
            compiled = _compiled(self, threads=count)
            return [_OpenVINO(compiled, kind, self.constants) for _ in range(count)]


def compile_network(backbone: str, engine: str = "openvino", weights: str | None = None) -> NeuralNetwork:
    """Return a backbone's network for an engine.

    MobileNetV2 for OpenVINO ships with Fruits. Other networks are built with Keras once in each process.

    Parameters
    ----------
    backbone : str
        One of :data:`fruits.network.backbones.BACKBONES`.
    engine : {"openvino", "tensorflow"}
        Library that runs it.
    weights : str, optional
        Address of a file of its weights. Default: see :func:`fruits.network.weights.find_weights`.

    Raises
    ------
    SettingsError
        The backbone or the engine is unknown, or the engine or Keras is not installed.
    WeightsError
        As in :func:`fruits.network.weights.find_weights`.
    """
    kind = backbones.backbone(backbone)
    known, package = _installed(engine)
    if kind.name == PACKAGED and known == "openvino":
        if given_address(weights):
            find_weights(kind, weights)  # raises unless they are the weights of the packaged network
        assert kind.weights_digest is not None
        return NeuralNetwork(
            known, package, kind.name, kind.weights_digest, kind.features, *_packaged(), PACKAGED_DIGEST
        )
    require_keras(f"{kind.name} on {known}")
    found = find_weights(kind, weights)
    return NeuralNetwork(known, package, kind.name, found.digest, kind.features, *build_network(kind, known, found))


@lru_cache(maxsize=1)
def build_network(kind: Backbone, engine: Engine, weights: Weights) -> tuple[bytes, bytes, str]:
    """Return graph, constants and digest of a network that is built with Keras.

    It is not stored for other processes: no digest in the code could verify it.
    """
    with tempfile.TemporaryDirectory(prefix="fruits-network-") as temporary:
        target = Path(temporary, "network.safetensors")
        build_in_subprocess(engine, kind.name, weights.path, target, origin=weights.source)
        return read_built(target)


def _unpickled(values: dict[str, Any]) -> NeuralNetwork:
    """Return a network from its pickled fields."""
    if not values["graph"]:
        if values["digest"] != PACKAGED_DIGEST:
            raise SettingsError(
                f"the {PACKAGED} of this machine's Fruits has the digest {PACKAGED_DIGEST[:12]}, that of the command "
                f"{values['digest'][:12]}. Install the same version of Fruits on both."
            )
        values = values | dict(zip(("graph", "constants"), _packaged(), strict=True))
    return NeuralNetwork(**values)


@lru_cache(maxsize=1)  # a DataFrame's partitions are unpickled one by one
def _packaged() -> tuple[bytes, mmap]:
    return packaged_network()


def _installed(engine: str) -> tuple[Engine, str]:
    """Return an engine, and the name and version of its distribution."""
    if engine not in DISTRIBUTIONS:
        raise SettingsError(f"`engine` = {engine}: not known. Allowed: {', '.join(DISTRIBUTIONS)}.")
    for name in DISTRIBUTIONS[engine]:
        try:
            return cast(Engine, engine), f"{name}-{version(name)}"
        except PackageNotFoundError:
            continue
    raise SettingsError(f"`engine` = {engine}: not installed. Install it with: pip install {EXTRAS[engine]}")


def _prepare(pixels: NDArray[np.uint8], network: Backbone, out: NDArray[np.float32]) -> None:
    """Write one preprocessed image, shape (size, size, 3), to `out`."""
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
    """Base of the engines: writes each image to the engine's input, shape (1, …), and runs it alone."""

    _kind: Backbone
    _input: NDArray[np.float32]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        _check(pixels, self._kind)
        features = np.empty((len(pixels), self._kind.features), np.float32)
        for image, row in zip(pixels, features, strict=True):
            _prepare(image, self._kind, self._input[0])
            row[:] = self._infer()[0]
        return features

    def _infer(self) -> NDArray[np.float32]:
        """Return the features of the image in the input, shape (1, features)."""
        raise NotImplementedError


class _OpenVINO(_OneByOne):
    def __init__(self, compiled: Any, kind: Backbone, constants: bytes | mmap) -> None:
        _requests.add(self)
        self._kind = kind
        self._constants = constants  # the network has pointers to those that are mapped, but does not keep them
        self._request = compiled.create_infer_request()
        self._input = self._request.get_input_tensor().data
        self._output: NDArray[np.float32] = self._request.get_output_tensor().data

    def _infer(self) -> NDArray[np.float32]:
        self._request.infer()
        return self._output


def _compiled(network: NeuralNetwork, threads: int) -> Any:
    """Return OpenVINO's compiled network for as many threads, of which each runs its requests alone."""
    openvino, constants = import_openvino(), network.constants
    core = openvino.Core()
    if isinstance(constants, mmap):
        weights = openvino.Tensor(np.frombuffer(constants, np.uint8), shared_memory=True)
        model = core.read_model(network.graph.decode(), weights)
    else:
        model = core.read_model(network.graph, constants)
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            # With pinning, every process pins its thread to the same first core.
            "ENABLE_CPU_PINNING": False,
            # The default is bfloat16 on CPUs that have it, which changes these features by 21 %.
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        },
    )
    if isinstance(constants, mmap):
        constants.madvise(MADV_DONTNEED)  # 9 MB, which the compiled network has copied
    return compiled


class _TensorFlow(_OneByOne):
    def __init__(self, network: NeuralNetwork, kind: Backbone) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
        with _without_startup_lines():
            import tensorflow as tf

        definition = tf.compat.v1.GraphDef.FromString(network.graph)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(definition, name="")
        # A session can have its own thread pools; those of TensorFlow 2 are per process and fixed at first use.
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
def _without_startup_lines() -> Iterator[None]:
    """Remove TensorFlow's start-up lines from standard error; they ignore the log level, in every worker."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            os.write(2, b"".join(line for line in caught if not line.startswith(STARTUP_LINES)))


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send statistics from every worker.

    If ``openvino_telemetry`` cannot be imported, OpenVINO uses its stub for the life of the process.
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

"""MobileNetV2 as it ships with Fruits: OpenVINO's graph and constants, verified by a digest in the code.

``mobilenetv2/PROVENANCE.md`` describes the origin of the two files; :mod:`fruits.network.rebuild` regenerates them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import as_file, files
from mmap import ACCESS_COPY, mmap
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fruits.errors import SettingsError
from fruits.network.digests import content_digest

PACKAGED = "MobileNetV2"
PACKAGED_DIGEST = "005f7cbfb65a148b530856bdf86d950bd79d7402f70c59c831775073a3b0dcbd"
GRAPH, CONSTANTS = "graph.xml", "constants.bin"
NORMALISATION = ("gamma", "beta", "moving_mean", "moving_variance")  # in Keras' order and in the order of the graph


def packaged_network() -> tuple[bytes, mmap]:
    """Return graph and constants of the packaged network; the constants are mapped, so that they need no memory.

    Raises
    ------
    SettingsError
        The files of this installation are missing or differ from the released ones.
    """
    folder = files("fruits.network") / "mobilenetv2"
    try:
        graph = (folder / GRAPH).read_bytes()
        # From a package in a ZIP archive, a temporary copy is mapped.
        with as_file(folder / CONSTANTS) as path, path.open("rb") as file:
            constants = mmap(file.fileno(), 0, access=ACCESS_COPY)  # writable, as OpenVINO requires
    except (OSError, ValueError) as error:  # the latter for an empty file
        raise SettingsError(f"the packaged {PACKAGED} cannot be read: {error}. Reinstall fruits.") from error
    digest = content_digest(graph, constants)
    if digest != PACKAGED_DIGEST:
        raise SettingsError(
            f"the packaged {PACKAGED} in {folder} is corrupt: its digest is {digest}, expected {PACKAGED_DIGEST}. "
            "Reinstall fruits."
        )
    return graph, constants


def packaged_tensors() -> dict[tuple[str, str], NDArray[np.float32]]:
    """Return the weights of the packaged network, by layer and name in Keras' order.

    The graph contains every tensor as it is in Keras' file, apart from the order of the axes of the kernels: batch
    normalisation is not folded into the convolutions.
    """
    graph, constants = packaged_network()
    stored = _constants(graph, constants)
    tensors = {}
    for convolution, normalisation in _layers():
        tensors[convolution, "kernel"] = _keras_kernel(next(stored))
        for name in NORMALISATION:
            tensors[normalisation, name] = next(stored)
    return tensors


def _constants(graph: bytes, constants: mmap) -> Iterator[NDArray[np.float32]]:
    """Yield the constants of a graph that are weights: float32, and neither a scalar nor the padding's zero."""
    for data in ElementTree.fromstring(graph).iterfind("layers/layer[@type='Const']/data"):  # nosec B314  # verified
        if data.get("element_type") == "f32" and data.get("shape"):
            shape = [int(length) for length in data.get("shape", "").split(",")]
            tensor = np.frombuffer(constants, "<f4", int(np.prod(shape)), int(data.get("offset", "")))
            yield tensor.reshape(shape)


def _keras_kernel(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a kernel with Keras' axes: height, width, channels in, channels out; 1 for the last of a depthwise one."""
    if kernel.ndim == 5:  # OpenVINO's grouped convolution: groups, out, in, height, width
        return kernel[:, :, 0].transpose(2, 3, 0, 1)
    return kernel.transpose(2, 3, 1, 0)


def _layers() -> Iterator[tuple[str, str]]:
    """Yield the names of MobileNetV2's convolutions in Keras, each with that of its batch normalisation."""
    yield "Conv1", "bn_Conv1"
    for block in range(17):
        prefix = f"block_{block}" if block else "expanded_conv"
        for step in ("expand", "depthwise", "project") if block else ("depthwise", "project"):
            yield f"{prefix}_{step}", f"{prefix}_{step}_BN"
    yield "Conv_1", "Conv_1_bn"

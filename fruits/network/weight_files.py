"""Files of weights: Keras' HDF5 formats, TF-Slim's MobileNetV2 in HDF5, and the safetensors of the cache folder.

HDF5 is read only in the subprocess of :mod:`fruits.network.build`, because the HDF5 library is C code that a crafted
file can crash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from fruits.errors import WeightsError
from fruits.network.digests import Tensors

HDF5 = b"\x89HDF\r\n\x1a\n"
MAX_TENSOR_BYTES = 2**28  # the largest backbone has less than half of it


def save_cached(path: Path, tensors: Tensors, origin: str) -> None:
    """Write tensors as safetensors ``layer/name``, with their order and their origin in the metadata."""
    names = ["/".join(key) for key in tensors]
    arrays = {"/".join(key): np.ascontiguousarray(tensor, "<f4") for key, tensor in tensors.items()}
    path.write_bytes(save(arrays, {"order": json.dumps(names), "origin": origin}))


def load_cached(path: Path) -> tuple[Tensors, str]:
    """Return the tensors that :func:`save_cached` wrote, in their order, and their origin.

    Raises
    ------
    WeightsError
        The file is missing or corrupt.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            order = json.loads(metadata["order"])
            if sorted(order) != sorted(file.keys()):
                raise ValueError("the listed tensors differ from those in the header")
            tensors: Tensors = {tuple(name.rsplit("/", 1)): file.get_tensor(name) for name in order}
            return tensors, metadata["origin"]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"corrupt: {error}") from error


@contextmanager
def rejecting_corrupt(origin: str) -> Iterator[None]:
    """Raise every error of a reading library as a WeightsError that names the file's origin."""
    try:
        yield
    except Exception as error:  # h5py, safetensors and Keras raise unrelated classes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{origin}: corrupt, or not weights of this network: {reason}") from error


def read_tensors(source: Path) -> Tensors | None:
    """Return the tensors of a file; None for Keras' ``.weights.h5``, which only Keras can read."""
    import h5py

    with source.open("rb") as file:
        head = file.read(9)
    if head.startswith(HDF5):
        with h5py.File(source, "r") as file:
            datasets: dict[str, Any] = {}
            file.visititems(
                lambda path, item: datasets.update({path: item}) if isinstance(item, h5py.Dataset) else None
            )
            _check_sizes(file, datasets)
            return None if "layers" in file else dict(_named_tensors(datasets))
    if head[8:] == b"{":
        if source.stat().st_size > MAX_TENSOR_BYTES:
            raise ValueError(f"more than {MAX_TENSOR_BYTES:,} bytes")
        return {_keras_key(*name.rpartition("/")[::2]): tensor for name, tensor in load_file(source).items()}
    raise ValueError(f"starts with {head[:8]!r}. Allowed: safetensors that fruits wrote, Keras' .h5 and .weights.h5")


def check_tensors(tensors: Tensors, shapes: Mapping[tuple[str, str], tuple[int, ...]], name: str, origin: str) -> None:
    """Raise a WeightsError unless `tensors` contains every tensor of an architecture; more are allowed."""
    missing = [key for key in shapes if key not in tensors]
    if missing:
        raise WeightsError(
            f"{origin}: not the weights of {name}: {len(shapes) - len(missing)} of its {len(shapes)} tensors are "
            f"present, {'/'.join(missing[0])} is missing. Give the weights of {name}, or the `backbone` of this file."
        )
    for key, shape in shapes.items():
        tensor = tensors[key]
        if tensor.shape != shape or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise WeightsError(
                f"{origin}: {'/'.join(key)} is {tensor.dtype} of shape {tensor.shape}; "
                f"{name} needs finite float32 of shape {shape}."
            )


def _check_sizes(file: Any, datasets: Mapping[str, Any]) -> None:
    """Raise if an HDF5 file links to another or claims more bytes than any backbone, before memory is allocated."""
    import h5py

    total = 0
    for path, dataset in datasets.items():
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{path} is stored in another file")
        if path.startswith("optimizer"):
            continue  # moments of the training, which are never read
        total += max(dataset.nbytes, math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize)
        if total > MAX_TENSOR_BYTES:
            raise ValueError(f"its tensors take more than {MAX_TENSOR_BYTES:,} bytes")
    links: list[str] = []
    file.visititems_links(lambda path, link: links.append(path) if isinstance(link, h5py.ExternalLink) else None)
    if links:
        raise ValueError(f"{links[0]} is stored in another file")


def _named_tensors(datasets: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], NDArray[np.float32]]]:
    """Yield the tensors of a file that stores them by name at any depth, as Keras 1 and 2 and TF-Slim do."""
    for path, dataset in datasets.items():
        scope, _, weight = path.partition(":")[0].rpartition("/")
        # Moments of the training's optimizer have the names of the weights.
        if not scope or scope.startswith("optimizer_weights"):
            continue
        layer = scope.rpartition("/")[2]
        if "MobilenetV2/" in scope:
            layer, weight = _from_slim(scope.partition("MobilenetV2/")[2].split("/"), weight)
        yield _keras_key(layer, weight), dataset[()]


def _keras_key(layer: str, weight: str) -> tuple[str, str]:
    return layer, "kernel" if weight == "depthwise_kernel" else weight  # its name in Keras 2


def _from_slim(scope: list[str], variable: str) -> tuple[str, str]:
    """Return Keras' layer and weight for a variable of TF-Slim's MobileNetV2, whose names TF-Hub's modules keep.

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

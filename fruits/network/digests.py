"""Digests of weights and of built networks."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[tuple[str, str], NDArray[np.float32]]
"""Weights by layer and name, such as ``("Conv1", "kernel")``."""


def tensor_digest(tensors: Tensors) -> str:
    """Return the SHA-256 of named tensors, in hexadecimal.

    Parameters
    ----------
    tensors : mapping of (str, str) to ndarray of float32
        By layer and weight, in Keras' order. Hashed for each: the UTF-8 text ``f"{layer}/{name}{shape}"``, the shape
        written as a Python tuple, then its bytes, little-endian and in C order.
    """
    digest = sha256()
    for (layer, name), tensor in tensors.items():
        digest.update(f"{layer}/{name}{tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor, "<f4").data)
    return digest.hexdigest()


def content_digest(graph: bytes, constants: bytes | mmap) -> str:
    """Return the SHA-256 of a built network: the graph's length as 8 bytes little-endian, graph, constants."""
    digest = sha256(len(graph).to_bytes(8, "little"))
    digest.update(graph)
    digest.update(constants)
    return digest.hexdigest()

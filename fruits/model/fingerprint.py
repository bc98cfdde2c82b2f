"""Fingerprints of the numerics of a machine: machines with equal fingerprints compute equal features and models.

They are part of the identity of features and models, because versions and the CPU's name do not determine the bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from fruits.model.eigh import eigh
from fruits.model.moments import Moments

Pixels = npt.NDArray[np.uint8]
Featurizer = Callable[[Pixels], npt.NDArray[np.float32]]

ROWS, FEATURES = 500, 300  # of the built-in matrix


def numeric_fingerprint(featurizer: Featurizer, size: int = 224) -> str:
    """Return the SHA-256 of the features of four built-in images, in hexadecimal.

    Parameters
    ----------
    featurizer : callable
        Images of uint8, shape (4, size, size, 3), → features of float32, shape (4, d).
    size : int, default 224
        Side of the images.
    """
    return hashlib.sha256(featurizer(built_in_images(size)).astype("<f4").tobytes()).hexdigest()


@cache
def solver_fingerprint() -> str:
    """Return the SHA-256 of mean, standard deviation and eigenvectors of a built-in matrix, in hexadecimal."""
    features = _noise(ROWS * FEATURES).reshape(ROWS, FEATURES).astype(np.float32) / np.float32(37)
    moments = Moments.from_features(features)
    digest = hashlib.sha256()
    for array in (moments.mean(), moments.std(), *eigh(moments.correlation())):
        digest.update(array.astype("<f8").tobytes())
    return digest.hexdigest()


def built_in_images(size: int) -> Pixels:
    """Return four images computed with integers: a gradient, a checkerboard, noise, and a mixture of the three."""
    y, x, channel = np.ogrid[:size, :size, :3]
    gradient = (x * (channel + 1) + y * (3 - channel)) * 255 // (4 * size)
    checkerboard = 255 * ((x // 16 + y // 16 + channel) % 2)
    noise = _noise(size * size * 3).reshape(size, size, 3)
    mixture = (2 * gradient + checkerboard + noise) // 4
    return np.stack(np.broadcast_arrays(gradient, checkerboard, noise, mixture)).astype(np.uint8)


def _noise(count: int) -> npt.NDArray[np.int64]:
    """Return integers from 0 to 255: the mixing function of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((values ^ (values >> np.uint64(31))) >> np.uint64(56)).astype(np.int64)

"""Pixels and features of images given as paths, bytes, Pillow images or arrays."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from fruits.errors import DatasetError
from fruits.images.decode import decode
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.network.packaged import PACKAGED

__all__ = ["ImageInput", "features", "image_features", "pixels"]

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]"

PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}  # the modes that Pillow stores losslessly in a PNG


def features(images: ImageInput | Sequence[ImageInput], *, crops: int = 1) -> npt.NDArray[np.float32]:
    """Return the features of images, with the bits of a job on the packaged network.

    Parameters
    ----------
    images : path, bytes, PIL.Image, ndarray, or a sequence of these
        A local path, the content of an image file, a Pillow image, or uint8 of shape (height, width, 3), RGB.
    crops : {1, 2}, default 1
        2 adds the features of the centre crop.

    Returns
    -------
    ndarray of float32, shape (n, 1280), or (n, 2, 1280) for two crops

    Raises
    ------
    fruits.images.decode.ImageError
        An image cannot be used.
    DatasetError
        A value is none of the allowed types.
    """
    result = image_features(images, compile_network(PACKAGED), crops)
    return result[:, 0] if crops == 1 else result


def image_features(
    images: ImageInput | Sequence[ImageInput], network: NeuralNetwork, crops: int
) -> npt.NDArray[np.float32]:
    """Return the features of images, shape (n, crops, features)."""
    featurizer = network.load()
    inputs: Sequence[ImageInput] = images if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]
    result = np.empty((len(inputs), crops, network.features), np.float32)
    for image, rows in zip(inputs, result, strict=True):
        rows[:] = featurizer(pixels(image, crops))
    return result


def pixels(image: ImageInput, crops: int) -> npt.NDArray[np.uint8]:
    """Return the pixels of one image, shape (crops, 224, 224, 3); the first crop is the whole image."""
    if crops != 1:
        raise NotImplementedError  # decoding gets the centre crop
    return decode(_encoded(image))[None]


def _encoded(image: ImageInput) -> bytes:
    """Return an image as the content of a file, so that all forms are decoded in the same way."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DatasetError(
                f"an array of {image.dtype}, shape {image.shape}: not allowed. "
                "Allowed: uint8 of shape (height, width, 3), RGB."
            )
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        if image.mode in PNG_MODES:
            image.save(file, "PNG", compress_level=0, exif=image.getexif())
        else:
            image.save(file, "TIFF", exif=image.getexif())
        return file.getvalue()
    raise DatasetError(
        f"an image of type {type(image).__name__}: not allowed. Allowed: a path, bytes, PIL.Image, uint8 array."
    )

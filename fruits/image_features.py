"""Features of single images in this process, with the bits of a job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruits.errors import DatasetError, OutputError
from fruits.images.decode import DecodeMode, Decoding, ImageError, decode_crops, resize_crops
from fruits.network.backbones import backbone as find_backbone
from fruits.network.featurizer import NeuralNetwork, compile_network
from fruits.parameters import check_choice
from fruits.storage.addresses import open_store
from fruits.storage.prefetch import MAX_BYTES
from fruits.text import brief, canonical, printable

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]"

ALLOWED = "Allowed: a path or URL, the bytes of a file, a PIL.Image, or a uint8 array of shape (height, width, 3), RGB."


def features(
    inputs: ImageInput | Iterable[ImageInput],
    *,
    backbone: str = "MobileNetV2",
    decode: Literal["reduced", "full"] = "reduced",
) -> NDArray[np.float32]:
    """Return the features of images; those of files have the same bits as in a job.

    Parameters
    ----------
    inputs : image or iterable of images
        An image is a path or URL (str or path-like), the content of a file (bytes), a ``PIL.Image.Image``, or an array
        of uint8, shape (height, width, 3), RGB. Images and arrays are converted and resized like decoded files, but
        neither reduced nor rotated by EXIF.
    backbone : str, default "MobileNetV2"
        The Keras application that computes the features.
    decode : {"reduced", "full"}, default "reduced"
        The scale at which large JPEGs are decoded; see :class:`fruits.images.decode.Decoding`.

    Returns
    -------
    ndarray of float32, shape (n, d)
        One row for each image, also for a single one; d is 1,280 for MobileNetV2.

    Raises
    ------
    DatasetError
        An input is none of the above or cannot be used; the message names it.
    SettingsError
        The backbone or `decode` is unknown, or the network needs packages that are not installed.
    """
    check_choice("decode", decode, get_args(DecodeMode))
    return image_features(inputs, _network(backbone), Decoding(decode))[:, 0]


def image_features(
    inputs: ImageInput | Iterable[ImageInput], network: NeuralNetwork, decoding: Decoding
) -> NDArray[np.float32]:
    """Return the features of images, shape (n, crops, d); see :func:`features`."""
    size = find_backbone(network.backbone).size
    featurizer = network.load()
    rows = [featurizer(_pixels(image, name, size, decoding)) for name, image in _named(inputs)]
    return np.stack(rows) if rows else np.empty((0, decoding.crops, network.features), np.float32)


@lru_cache(maxsize=1)
def _network(backbone: str) -> NeuralNetwork:
    return compile_network(backbone)


def _named(inputs: ImageInput | Iterable[ImageInput]) -> Iterator[tuple[str, ImageInput]]:
    """Yield each image with its name in messages."""
    if isinstance(inputs, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray):
        yield "`inputs`", inputs
    elif isinstance(inputs, Iterable):
        for index, image in enumerate(inputs):
            yield f"`inputs`[{index}]", image
    else:
        raise DatasetError(f"`inputs` is {_kind(inputs)}: not allowed. {ALLOWED} Or several of them, such as a list.")


def _pixels(image: ImageInput, name: str, size: int, decoding: Decoding) -> NDArray[np.uint8]:
    """Return the pixels of an image, shape (crops, size, size, 3)."""
    if isinstance(image, str | os.PathLike):
        address = canonical(os.fspath(image))
        name = f"{name} {printable(brief(address))}".rstrip()
        try:
            store, path = open_store(address)
            image = store.read(path, limit=MAX_BYTES)
        except OutputError as error:
            raise DatasetError(f"{name} cannot be read: {error}") from error
        except OSError as error:
            raise DatasetError(f"{name} cannot be read: {error.strerror or error}. {ALLOWED}") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise DatasetError(f"{name} is {_kind(image)}: not allowed. {ALLOWED}")
        image = Image.fromarray(np.ascontiguousarray(image))
    try:
        if isinstance(image, Image.Image) and all(image.size):
            return resize_crops(image, size, decoding.crops)
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_crops(bytes(image), size, decoding)
    except (ImageError, OSError) as error:  # Pillow reads the file of an image when its pixels are needed
        raise DatasetError(f"{name} cannot be used: {error}. {ALLOWED}") from error
    raise DatasetError(f"{name} is {_kind(image)}: not allowed. {ALLOWED}")


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    if isinstance(value, Image.Image):
        return f"an image of {value.width} x {value.height} pixels"
    return f"of type {type(value).__name__}"

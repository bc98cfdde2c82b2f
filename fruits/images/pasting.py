"""Augmentation: an object on a white background is cut out and pasted onto a photograph.

The photograph, position and size are drawn from the SHA-256 of the image's path, so that an image always gives the same
pixels. Images without a white border are not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import nsmallest

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fruits.errors import DatasetError
from fruits.images.decode import ImageError, decode_image
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.text import name_bytes, without_secrets

SIDE = 320  # pixels of the result: its centre crop has the size of the network's input
MOST = 64  # photographs: 13 to 39 MB in every worker
WIDEST = 2  # the longer side of a photograph, in shorter sides; the centre is kept
WHITE = 235  # the smallest channel of a white pixel; JPEG artefacts around an object are darker than white
BORDER = 0.5  # fraction of the border that has to be white
SMALLEST, LARGEST = 0.45, 1.0  # side of the object's image, in sides of the result
LEAST_OF_PHOTO = 0.5  # side of the square cut from a photograph, in shorter sides

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False, repr=False)
class Backgrounds:
    """Photographs to paste objects onto.

    Attributes
    ----------
    photos : tuple of ndarray of shape (height, width, 3), uint8
        In a fixed order, at least one; the shorter side has 320 pixels.
    """

    photos: tuple[Pixels, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pixels: equal backgrounds give equal images."""
        digest = hashlib.sha256()
        for photo in self.photos:
            digest.update(b"%d %d\0" % photo.shape[:2])
            digest.update(photo.tobytes())
        return digest.hexdigest()

    def paste(self, pixels: Pixels, path: str) -> Image.Image | None:
        """Return an image pasted onto one of the photographs; None if its border is not white.

        Parameters
        ----------
        pixels : ndarray of shape (320, 320, 3), uint8
        path : str
            The path of the image, from which the photograph, position, size and reflection are drawn.

        Returns
        -------
        Image or None
            RGB, 320 x 320 pixels.
        """
        white = pixels.min(axis=2) >= WHITE
        if np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]]).mean() < BORDER:
            return None
        draws = _draws(path)
        canvas = _square(self.photos[int(next(draws) * len(self.photos))], next(draws), next(draws), next(draws))
        side = round(SIDE * (SMALLEST + (LARGEST - SMALLEST) * next(draws)))
        left, top = (round((SIDE - side) * next(draws)) for _ in range(2))
        cut, mask = Image.fromarray(pixels), Image.fromarray(~_connected_to_border(white)).convert("L")
        if next(draws) < 0.5:
            cut, mask = (each.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for each in (cut, mask))
        size = (side, side)
        canvas.paste(
            cut.resize(size, Image.Resampling.BICUBIC), (left, top), mask.resize(size, Image.Resampling.BILINEAR)
        )
        return canvas


def load_backgrounds(address: str) -> Backgrounds:
    """Return the photographs of a folder: all, or 64 that are chosen by the SHA-256 of their paths.

    Parameters
    ----------
    address : str
        Any fsspec address of a folder. Files that cannot be decoded are left out.

    Raises
    ------
    DatasetError
        The folder contains no usable image, or one that cannot be read, without which the choice would be another.
    """
    source = open_source(address)
    photos: list[Pixels] = []
    for content in source.read(nsmallest(2 * MOST, Listing(source), key=_order)):
        if isinstance(content, OSError):
            raise DatasetError(
                f"`backgrounds` {without_secrets(address)}: {content}. Make it readable, or remove it."
            ) from content
        if isinstance(content, ImageError):
            continue
        try:
            photos.append(_reduced(decode_image(content, SIDE)))
        except ImageError:
            continue
        if len(photos) == MOST:
            break
    if not photos:
        raise DatasetError(f"`backgrounds` {without_secrets(address)}: no usable image. Give a folder of photographs.")
    return Backgrounds(tuple(photos))


def _order(entry: ImageEntry) -> tuple[bytes, str]:
    return hashlib.sha256(name_bytes(entry.path)).digest(), entry.path


def _reduced(photo: Image.Image) -> Pixels:
    """Return a photograph whose shorter side has 320 pixels, and the longer one at most twice as many."""
    shorter = min(photo.size)
    width, height = (min(side, WIDEST * shorter) for side in photo.size)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    size = round(SIDE * width / shorter), round(SIDE * height / shorter)
    return np.asarray(photo.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height)))


def _draws(path: str) -> Iterator[float]:
    """Yield eight numbers in [0, 1)."""
    digest = hashlib.sha256(name_bytes(path)).digest()
    for start in range(0, len(digest), 4):
        yield int.from_bytes(digest[start : start + 4], "big") / 2**32


def _square(photo: Pixels, size: float, x: float, y: float) -> Image.Image:
    """Return a square part of a photograph, resized to the size of the result."""
    height, width = photo.shape[:2]
    side = int(min(height, width) * (LEAST_OF_PHOTO + (1 - LEAST_OF_PHOTO) * size))
    left, top = int((width - side + 1) * x), int((height - side + 1) * y)
    return Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def _connected_to_border(white: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the white pixels that are connected to the border through white pixels."""
    framed = Image.fromarray(np.pad(white, 1, constant_values=True)).convert("L")
    ImageDraw.floodfill(framed, (0, 0), 128)
    connected: npt.NDArray[np.bool_] = np.asarray(framed)[1:-1, 1:-1] == 128
    return connected

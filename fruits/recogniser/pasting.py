"""Augmentation: fruit on a white background is cut out and pasted onto a photograph.

The position, size and background are drawn from the SHA-256 of the image's path, so that an image always gives the same
result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["paste"]

SIDE = 320  # pixels of the result: the centre crop still has the size of the network's input
WHITE = 235  # the smallest channel of a background pixel; JPEG artefacts around a fruit are darker than white
LEAST, MOST = 0.45, 1.0  # side of the fruit's image as a fraction of the result
BACKGROUND = 0.5  # smallest side of the square cut from a photograph, as a fraction of its shorter side

Mask = npt.NDArray[np.bool_]


def paste(image: npt.NDArray[np.uint8], backgrounds: Sequence[npt.NDArray[np.uint8]], path: str) -> Image.Image:
    """Return an image pasted onto one of the backgrounds, 320 x 320 pixels.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), uint8
        A fruit on white, RGB.
    backgrounds : sequence of ndarray of shape (h, w, 3), uint8
        Photographs, at least one, in a fixed order.
    path : str
        The seed.
    """
    draws = _draws(path)
    canvas = _square(backgrounds[int(next(draws) * len(backgrounds))], next(draws), next(draws), next(draws))
    side = round(SIDE * (LEAST + (MOST - LEAST) * next(draws)))
    left, top = (round((SIDE - side) * next(draws)) for _ in range(2))
    fruit, mask = Image.fromarray(image), Image.fromarray(~_background(image))
    if next(draws) < 0.5:
        fruit, mask = (each.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for each in (fruit, mask))
    size = (side, side)
    canvas.paste(
        fruit.resize(size, Image.Resampling.BICUBIC),
        (left, top),
        mask.convert("L").resize(size, Image.Resampling.BILINEAR),
    )
    return canvas


def _draws(path: str) -> Iterator[float]:
    """Yield eight numbers in [0, 1)."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()
    for start in range(0, 32, 4):
        yield int.from_bytes(digest[start : start + 4], "big") / 2**32


def _square(photo: npt.NDArray[np.uint8], size: float, x: float, y: float) -> Image.Image:
    """Return a square part of a photograph, resized to the result's size."""
    height, width = photo.shape[:2]
    side = max(1, int(min(height, width) * (BACKGROUND + (1 - BACKGROUND) * size)))
    left, top = int((width - side + 1) * x), int((height - side + 1) * y)
    part = Image.fromarray(np.ascontiguousarray(photo[top : top + side, left : left + side]))
    return part.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _background(image: npt.NDArray[np.uint8]) -> Mask:
    """Return the white pixels that are connected to the border through white pixels, shape (height, width)."""
    white: Mask = image.min(axis=2) >= WHITE
    reached = np.zeros_like(white)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        reached[edge] = white[edge]
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= white
        if np.array_equal(grown, reached):
            return reached
        reached = grown

"""Pictures of images: small JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from fruits.images.decode import ImageError, decode_image
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.source import Source

__all__ = ["SIDE", "PictureItem", "batches", "make_pictures", "thumbnail"]

SIDE = 96  # pixels of the longer side
QUALITY = 80


@dataclass(frozen=True, slots=True)
class PictureItem:
    """Some images: their source, and their keys and entries in it."""

    source: Source
    images: tuple[tuple[str, ImageEntry], ...]

    def __str__(self) -> str:
        return f"{len(self.images)} pictures, from {self.images[0][1].path}"


def make_pictures(item: PictureItem, shared: None) -> dict[str, bytes]:
    """Return the pictures of images by key, about 3 kB each; images that cannot be read any more are left out."""
    contents = item.source.read(entry for _, entry in item.images)
    found = {}
    for (key, _), content in zip(item.images, contents, strict=True):
        if isinstance(content, bytes):
            picture = thumbnail(content)
            if picture is not None:
                found[key] = picture
    return found


def thumbnail(content: bytes, side: int = SIDE) -> bytes | None:
    """Return the picture of an encoded image, at most `side` pixels wide and high; None if it cannot be decoded."""
    try:
        image = decode_image(content, side)
    except ImageError:
        return None
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=None)
    file = BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def batches(source: Source, images: Sequence[tuple[str, ImageEntry]], size: int = 32) -> list[PictureItem]:
    """Return the items that make the pictures of images."""
    return [PictureItem(source, tuple(images[start : start + size])) for start in range(0, len(images), size)]

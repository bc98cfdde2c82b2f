"""Pictures of images: small JPEGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from fruits.errors import InputError
from fruits.images.decode import ImageError, decode_image
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import stored_source
from fruits.images.sources.source import Source

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
    pictures = read_pictures(item.source, [entry for _, entry in item.images])
    return {key: picture for (key, _), picture in zip(item.images, pictures, strict=False) if picture is not None}


def read_pictures(source: Source, entries: Sequence[ImageEntry], side: int = SIDE) -> Iterator[bytes | None]:
    """Yield the picture of each image, or None; nothing more if its store, such as an archive, cannot be opened."""
    with suppress(InputError):
        for content in source.read(entries):
            yield _thumbnail(content, side) if isinstance(content, bytes) else None


def picture_source(identity: Mapping[str, Any]) -> Source | None:
    """Return the source of a stored job, as ``stored_source`` does; None if its store cannot be opened."""
    try:
        return stored_source(identity)
    except InputError:
        return None


def _thumbnail(content: bytes, side: int) -> bytes | None:
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

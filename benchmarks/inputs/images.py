"""Image sets of any size, made deterministically from the images of a folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fruits.errors import DatasetError
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions

COPY = re.compile(r"~copy\d+(?=\.jpg$)")
COMPLETE = ".complete"
NOISE = 5.0  # standard deviation, of 255
QUALITY = 92  # of the enlarged JPEGs


@dataclass(frozen=True, slots=True)
class Originals:
    """The ``*.jpg`` images from which image sets are made.

    Other formats are excluded, because not all compared tools read them.
    """

    folder: str
    names: tuple[str, ...]
    digest: str

    @classmethod
    def below(cls, folder: str, most: int) -> Originals:
        """Choose up to `most` images below a folder, evenly over its listing; symbolic links are followed.

        Raises
        ------
        DatasetError
            The folder is missing or has no ``*.jpg``.
        """
        source = open_source(folder, SourceOptions(follow_links=True))
        listed = [image for image in Listing(source) if image.path.endswith(".jpg")]
        if not listed:
            raise DatasetError(f"{folder}: no file *.jpg below it. Give a folder <label>/<file>.jpg on this machine.")
        count = min(most, len(listed))
        chosen = [listed[index * len(listed) // count] for index in range(count)]
        digest = hashlib.sha256("\0".join(f"{image.path}\0{image.size}" for image in chosen).encode())
        return cls(folder, tuple(image.path for image in chosen), digest.hexdigest())

    def enlarged(self, megapixels: float, cache: Path) -> Originals:
        """Return the originals as photos of a camera, of this size in a ratio of 4 to 3.

        Enlarged images are smooth. Noise like a sensor's gives them as many bytes as a camera's files, on which the
        time of decoding depends: 2.6 MB at 12 megapixels.
        """
        folder = cache / f"enlarged-{megapixels:g}-{len(self.names)}-{self.digest[:8]}"
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
            for seed, name in enumerate(self.names):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(Path(self.folder, name)) as image:
                    _noisy(image.convert("RGB"), (height * 4 // 3, height), seed).save(target, quality=QUALITY)
            (folder / COMPLETE).touch()
        return Originals.below(str(folder), len(self.names))

    def repeated(self, count: int, cache: Path) -> Path:
        """Return a folder of `count` images: the originals, repeated under other names if there are too few.

        Images of an incomplete last round are chosen evenly, so that every label is present. The files are hard links
        where the file system allows it. A complete folder is reused.
        """
        folder = cache / f"images-{count}-{self.digest[:8]}"
        if (folder / COMPLETE).exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        for index in range(count):
            copy, place = divmod(index, len(self.names))
            in_this_round = min(len(self.names), count - copy * len(self.names))
            name = self.names[place * len(self.names) // in_this_round]
            target = folder / (name if copy == 0 else f"{name.removesuffix('.jpg')}~copy{copy}.jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(Path(self.folder, name), target)
        (folder / COMPLETE).touch()
        return folder


def original(name: str) -> str:
    """Return the original name of a repeated image."""
    return COPY.sub("", name)


def read_once(folder: Path) -> None:
    """Load the images of a folder into the page cache."""
    for path in folder.rglob("*.jpg"):
        path.read_bytes()


def drop_from_cache(folder: Path) -> None:
    """Drop the images of a folder from the page cache."""
    for path in folder.rglob("*.jpg"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _noisy(image: Image.Image, size: tuple[int, int], seed: int) -> Image.Image:
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32)
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels + NOISE * noise, 0, 255).astype(np.uint8))


def _link(source: Path, target: Path) -> None:
    source = source.resolve()  # a hard link to a relative symbolic link would be broken
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)

"""Image sets of any size, made of the images that there are: the same request always gives the same set."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fruits.dataset import Listing
from fruits.errors import DatasetError

__all__ = ["drop_from_cache", "image_set", "original", "read_once"]

COPY = re.compile(r"~copy\d+(?=\.jpg$)")
COMPLETE = ".complete"


def image_set(images: str, count: int, cache: Path) -> Path:
    """Return a folder of `count` images: some of those below `images`, or all of them, repeated under other names.

    They are chosen evenly over the listing, so that every label is there. Only files ``*.jpg`` are used: every tool
    that is compared reads those. They are hard links where the file system allows it.

    Raises
    ------
    DatasetError
        `images` is missing, or holds no ``*.jpg``.
    """
    folder = cache / f"images-{count}"
    if (folder / COMPLETE).exists():
        return folder
    names = [entry.path for entry in Listing(images) if entry.path.endswith(".jpg")]
    if not names:
        raise DatasetError(f"{images}: no file *.jpg below it. Give a folder <label>/<file>.jpg on this machine.")
    shutil.rmtree(folder, ignore_errors=True)
    for index in range(count):
        copy, place = divmod(index, len(names))
        # Where not all are needed, every n-th; and of a last, incomplete round likewise.
        within = min(len(names), count - copy * len(names))
        name = names[place * len(names) // within]
        target = folder / (name if copy == 0 else f"{name.removesuffix('.jpg')}~copy{copy}.jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(Path(images, name), target)
    (folder / COMPLETE).touch()
    return folder


def original(name: str) -> str:
    """Return the name that an image had before it was repeated."""
    return COPY.sub("", name)


def read_once(folder: Path) -> None:
    """Bring the images of a folder into the system's page cache."""
    for path in folder.rglob("*.jpg"):
        path.read_bytes()


def drop_from_cache(folder: Path) -> None:
    """Drop the images of a folder from the system's page cache."""
    for path in folder.rglob("*.jpg"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)

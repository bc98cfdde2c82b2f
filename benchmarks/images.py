"""Image sets of any size, made of the images that there are: the same request always gives the same set."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fruits.errors import DatasetError
from fruits.images.listing import Listing

__all__ = ["Originals", "drop_from_cache", "original", "read_once"]

COPY = re.compile(r"~copy\d+(?=\.jpg$)")
COMPLETE = ".complete"


@dataclass(frozen=True, slots=True)
class Originals:
    """The images that sets are made of: those `*.jpg` below a folder that are used, evenly chosen over its listing.

    Only files ``*.jpg`` are used, because every tool that is compared reads those.
    """

    folder: str
    names: tuple[str, ...]
    digest: str

    @classmethod
    def below(cls, folder: str, most: int) -> Originals:
        """Return `most` of the images below a folder, or all of them.

        Raises
        ------
        DatasetError
            The folder is missing, or holds no ``*.jpg``.
        """
        found = [entry for entry in Listing(folder) if entry.path.endswith(".jpg")]
        if not found:
            raise DatasetError(f"{folder}: no file *.jpg below it. Give a folder <label>/<file>.jpg on this machine.")
        count = min(most, len(found))
        chosen = [found[index * len(found) // count] for index in range(count)]
        digest = hashlib.sha256("\0".join(f"{entry.path}\0{entry.size}" for entry in chosen).encode())
        return cls(folder, tuple(entry.path for entry in chosen), digest.hexdigest())

    def repeated(self, count: int, cache: Path) -> Path:
        """Return a folder of `count` images: originals, repeated under other names where there are fewer.

        What is not a multiple of them is chosen evenly, so that every label is there. They are hard links where the
        file system allows it. A folder that was made before is used again.
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

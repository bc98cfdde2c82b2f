"""The pages of a list of images on the local disk, until the owner of the output is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fruits.images.sources.entries import ImageEntry
from fruits.plan.pages import ImageList, decode_images
from fruits.plan.partitions import Partition, Plan
from fruits.storage.checksums import CorruptPart, CorruptPartError, checksum, read_part
from fruits.storage.commits import OwnedFolder
from fruits.storage.parquet import read_table


class PageSpool:
    """The pages of a list on the local disk, until the output is claimed.

    A page has 20 to 30 bytes an image. Nothing is written to the output before its owner, and thus the listing, is
    known.

    Attributes
    ----------
    list : ImageList
        The list, once all pages are written.
    labels : int
        The number of labels of its images.
    """

    list: ImageList
    labels: int

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checksums: list[bytes] = []

    def plan(self, partition_size: int, partitions: tuple[Partition, ...]) -> Plan:
        """Return the plan of the list in these partitions."""
        return Plan(self.list, partition_size, partitions, tuple(self._checksums), self.labels)

    def write(self, name: str, data: bytes) -> None:
        """Take the next page; see :func:`fruits.plan.pages.write_list`."""
        self._path(len(self._checksums)).write_bytes(data)
        self._checksums.append(checksum(data))

    def images(self) -> Iterator[ImageEntry]:
        """Yield the images of the pages."""
        pages = (self._path(number).read_bytes() for number in range(len(self._checksums)))
        return decode_images(pages, 0, self.list.images)

    def sizes(self) -> Iterator[int]:
        """Yield the bytes of each image of the pages, in order; negative if unknown."""
        for number in range(len(self._checksums)):
            yield from read_table(self._path(number).read_bytes(), ["size"])["size"].to_pylist()

    def store(self, owned: OwnedFolder) -> None:
        """Store all pages in an output."""
        for number in range(len(self._checksums)):
            owned.write(owned.part("plan", number, "parquet"), self._path(number).read_bytes())

    def restore(self, owned: OwnedFolder) -> Iterator[CorruptPart]:
        """Store the pages that are missing or corrupt in an output, and yield them."""
        for number, known in enumerate(self._checksums):
            name = owned.part("plan", number, "parquet")
            try:
                read_part(owned.folder, name, known)
            except CorruptPartError as error:
                yield error.part
                owned.write(name, self._path(number).read_bytes())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.parquet"

"""The list of the images of a job, stored in pages.

The list is written to storage while the images are listed, and workers read the page of their partition: the memory of
the driver does not grow with the number of images. A page depends on the list alone, not on the partitions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits.errors import DamageError
from fruits.images.listing import ImageEntry
from fruits.storage.folder import part_name
from fruits.storage.parquet import number_array, text_array

__all__ = ["ImageList", "PageWriter", "decode_images", "pages_of", "write_list"]

GROUP = 1024  # images of a row group
PAGE = 64 * GROUP  # images of a page: 1 to 2 MB, one request on S3
SCHEMA = pa.schema(
    [
        pa.field("path", pa.binary(), nullable=False),  # file names need not be UTF-8
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ImageList:
    """A stored list of images.

    Attributes
    ----------
    images : int
        The number of images.
    digest : str
        SHA-256 of the paths, sizes and versions, in order: lists with equal digests contain the same images.
    """

    images: int
    digest: str


class PageWriter(Protocol):
    """A writer of files, such as :class:`fruits.storage.folder.Folder`."""

    def write(self, name: str, data: bytes) -> object:
        """Write a file."""


def write_list(entries: Iterable[ImageEntry], out: PageWriter | None = None) -> ImageList:
    """Return the description of an ordered listing, and store its pages if `out` is given.

    Parameters
    ----------
    entries : iterable of ImageEntry
        The listing, in order.
    out : PageWriter, optional
        Receives the pages, ``part-00000.parquet`` and so on, each of 65,536 images.
    """
    digest = hashlib.sha256()
    images = pages = 0
    entries = iter(entries)
    while first := list(islice(entries, GROUP)):
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink,
            SCHEMA,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer:
            for number in range(PAGE // GROUP):
                group = first if number == 0 else list(islice(entries, GROUP))
                if not group:
                    break
                images += len(group)
                writer.write_table(_table(group, digest))
        if out is not None:
            out.write(part_name(pages, "parquet"), sink.getvalue().to_pybytes())
        pages += 1
    return ImageList(images, digest.hexdigest())


def _table(group: Sequence[ImageEntry], digest: hashlib._Hash) -> pa.Table:
    """Return the table of some images, and add them to the digest of the list."""
    paths = [entry.path.encode("utf-8", "surrogateescape") for entry in group]
    sizes = [entry.size for entry in group]
    versions = [entry.version.encode() for entry in group]
    # Unambiguous: paths and versions contain no NUL, and sizes are numbers.
    digest.update(b"".join(b"%b\0%d\0%b\0" % image for image in zip(paths, sizes, versions, strict=True)))
    columns = [
        text_array(paths, pa.binary()),
        number_array(np.array(sizes, np.int64)),
        text_array(versions, pa.string()),
    ]
    return pa.table(columns, schema=SCHEMA)


def pages_of(start: int, images: int) -> range:
    """Return the numbers of the pages that contain the images from position `start` on."""
    return range(start // PAGE, (start + images - 1) // PAGE + 1) if images else range(0)


def decode_images(pages: Iterable[bytes], start: int, images: int) -> Iterator[ImageEntry]:
    """Yield some images of a list, in order.

    Parameters
    ----------
    pages : iterable of bytes
        The content of the pages :func:`pages_of` names; one is in memory at a time.
    start, images : int
        The position of the first image, and the number of images.

    Raises
    ------
    DamageError
        A page is corrupt, or the list is shorter.
    """
    found = 0
    for number, data in zip(pages_of(start, images), pages, strict=True):
        first = number * PAGE
        begin, end = max(start - first, 0), min(start + images - first, PAGE)
        groups = range(begin // GROUP, (end - 1) // GROUP + 1)
        try:
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            for group in groups:
                table = file.read_row_group(group, use_threads=False)
                skipped = max(begin - group * GROUP, 0)
                table = table.slice(skipped, end - group * GROUP - skipped)
                paths = (path.decode("utf-8", "surrogateescape") for path in table["path"].to_pylist())
                others = (table[name].to_pylist() for name in ("size", "version"))
                found += table.num_rows
                yield from (ImageEntry(*image) for image in zip(paths, *others, strict=True))
        except (pa.ArrowException, ValueError, OSError) as error:
            raise DamageError(
                f"page {number} of the stored list of images cannot be read: {error}. Run the command again with "
                "`overwrite`."
            ) from error
    if found != images:
        raise DamageError(
            f"the stored list of images ends {images - found:,} images early. Run the command again with `overwrite`."
        )

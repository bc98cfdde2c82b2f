"""The list of the images of a job, stored in pages.

The list is written to storage while the images are listed, and workers read the page of their partition: the memory of
the driver does not grow with the number of images. A page depends on the list alone, not on the partitions. It has
columns of labels and places only if the source gives them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fruits.errors import DamageError
from fruits.images.sources.entries import PATHS, ImageEntry, table_entries
from fruits.storage.folder import part_name
from fruits.storage.parquet import text_scalar
from fruits.text import counted

GROUP = 1024  # images of a row group
NUL, EMPTY = (text_scalar(text, pa.binary()) for text in (b"\0", b""))
PAGE = 64 * GROUP  # images of a page: 1 to 2 MB, one request on S3


@dataclass(frozen=True, slots=True)
class ImageList:
    """A stored list of images.

    Attributes
    ----------
    images : int
        The number of images.
    digest : str
        SHA-256 of the paths, sizes and versions, and of the labels and places that the source gives, in order: lists
        with equal digests contain the same images.
    """

    images: int
    digest: str


class PageWriter(Protocol):
    """A writer of files, such as :class:`fruits.storage.folder.Folder`."""

    def write(self, name: str, data: bytes) -> object:
        """Write a file."""


def write_list(tables: Iterable[pa.Table], out: PageWriter | None = None) -> ImageList:
    """Return the description of an ordered list, and store its pages if `out` is given.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        The list, in order; see :func:`fruits.images.sources.entries.entry_table`.
    out : PageWriter, optional
        Receives the pages, ``part-00000.parquet`` and so on, each of 65,536 images.
    """
    digest = hashlib.sha256()
    images = 0
    groups = _groups(tables)
    for number, first in enumerate(groups):
        if number == 0 and (added := first.column_names[len(PATHS) :]):
            # No list without these columns has this digest, because no path is empty.
            digest.update(f"\0{','.join(added)}:{first.schema.field(added[0]).type}\0".encode())
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink,
            first.schema,
            compression="zstd",
            use_dictionary=["file"] if "file" in first.column_names else False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer:
            for group in chain([first], islice(groups, PAGE // GROUP - 1)):
                digest.update(_lines(group))
                images += group.num_rows
                writer.write_table(group)
        if out is not None:
            out.write(part_name(number, "parquet"), sink.getvalue().to_pybytes())
    return ImageList(images, digest.hexdigest())


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables of :data:`GROUP` images, and a last one of fewer, each in one piece."""
    slices: list[pa.Table] = []
    rows = 0
    for table in tables:
        start = 0
        while start < table.num_rows:
            slices.append(table.slice(start, GROUP - rows))
            rows += slices[-1].num_rows
            start += slices[-1].num_rows
            if rows == GROUP:
                yield pa.concat_tables(slices).combine_chunks()
                slices, rows = [], 0
    if slices:
        yield pa.concat_tables(slices).combine_chunks()


def _lines(group: pa.Table) -> memoryview:
    """Return the values of a group as bytes, for the digest, which no other values give.

    Texts contain no NUL, which ends each value. A label follows the number of labels.
    """
    values = [group["path"], _digits(group["size"]), group["version"].cast(pa.binary())]
    if "label" in group.column_names:
        labels = group["label"]
        if pa.types.is_list(labels.type):
            texts = labels.cast(pa.list_(pa.binary()))  # binary_join takes no other lists
            values += [_digits(pc.list_value_length(labels)), pc.binary_join(texts, NUL)]
        else:
            values += [_digits(labels.is_valid().cast(pa.int64())), labels.fill_null(EMPTY)]
    if "file" in group.column_names:
        values += [group["file"], _digits(group["position"])]
    joined = pc.binary_join_element_wise(*values, EMPTY, NUL).combine_chunks()
    array = joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset :][[0, len(array)]]
    return memoryview(array.buffers()[2])[slice(*offsets)]


def _digits(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    return numbers.cast(pa.string()).cast(pa.binary())


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
                found += table.num_rows
                yield from table_entries(table)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise DamageError(
                f"page {number} of the stored list of images cannot be read: {error}. Run the command again with "
                "`overwrite`."
            ) from error
    if found != images:
        raise DamageError(
            f"the stored list of images ends {counted(images - found, 'image')} early. Run the command again with "
            "`overwrite`."
        )

"""The protocol of sources: the one interface between the kinds of input and everything downstream.

A source is a frozen value that pickles. On the driver it lists its images as tables, in code-point order of their
paths; the tables become the pages of the plan, and a worker gets the entries of its partition from there. On a worker
the same source returns the content of these entries. :mod:`fruits.images.sources.kinds` selects the kind of an address.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Protocol

import pyarrow as pa

from fruits.images.decode import ImageError
from fruits.images.skipped import SkippedFiles
from fruits.images.sources.entries import ImageEntry
from fruits.storage.prefetch import MAX_BYTES, ChangedFileError

# Errors that concern one file. Any other error may come from the storage and is retried.
FILE_ERRORS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.EIO,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,  # a socket, a FIFO or a device
    errno.ENODEV,
}

Content = bytes | OSError | ImageError  # of an image, or why it cannot be read


class Source(Protocol):
    """Images at an address. See the module's docstring."""

    @property
    def address(self) -> str:
        """The address, as it is valid in every process; it may contain credentials."""
        ...

    def tables(self, skipped: SkippedFiles, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield the images as tables, ordered by the bytes of their paths, each path once.

        The memory needed does not grow with the number of images. Every table has the same columns; see
        :func:`fruits.images.sources.entries.entry_table`.

        Parameters
        ----------
        skipped : SkippedFiles
            Receives the files that are no images.
        limit : int, optional
            The images that the caller uses: the source need not look for more, and may yield more.

        Raises
        ------
        DatasetError
            The source cannot be listed, or its entries are not valid; the message names the place.
        """
        ...

    def read(self, entries: Iterable[ImageEntry]) -> Iterator[Content]:
        """Yield the content of each entry in order, prefetching where requests are slow.

        Memory is bounded. An image that cannot be read is an error among the values: an ``ImageError`` with a reason
        is a reject; an ``OSError`` is one if it concerns the file, and else the task is retried. An image that differs
        from its entry in size or version is a :class:`~fruits.storage.prefetch.ChangedFileError`.
        """
        ...


def image_bytes(content: Content) -> bytes:
    """Return the content of an image, or raise the reason why it is a reject.

    Raises
    ------
    ImageError
        The file changed since it was listed, is too large, or cannot be read.
    OSError
        The storage failed; the task is retried.
    """
    if isinstance(content, ImageError):
        raise content
    if isinstance(content, ChangedFileError):
        raise ImageError("changed", str(content)) from content
    if isinstance(content, OSError):
        if content.errno == errno.EFBIG:
            raise ImageError("too-large", f"more than {MAX_BYTES:,} bytes") from content
        if content.errno not in FILE_ERRORS and not isinstance(content, FileNotFoundError | PermissionError):
            raise content
        # Some stores give a missing file without a text.
        missing = os.strerror(errno.ENOENT) if isinstance(content, FileNotFoundError) else ""
        raise ImageError("unreadable", content.strerror or missing or str(content)) from content
    return content

"""Listings of the images below an address, in code-point order of their paths.

A listing is read folder by folder, or page by page, and is never held in memory as a whole.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from fruits.errors import DatasetError
from fruits.images.decode import EXTENSIONS, is_image
from fruits.storage.addresses import open_store
from fruits.storage.stores import FileInfo, Store

__all__ = ["ImageEntry", "Listing"]

ENDINGS = tuple(EXTENSIONS)  # the type that str.endswith needs
HEAD_BYTES = 32  # enough for the signature of every format
READABLE = 8  # images, of which an object store must let at least one be read


class ImageEntry(NamedTuple):
    """An image of a listing.

    Attributes
    ----------
    path : str
        Path below the root, with ``/``.
    size : int
        Size in bytes.
    version : str
        A value that changes when the image is rewritten: the modification time on a local disk, the ETag on S3, either
        of them elsewhere; empty if unknown.
    """

    path: str
    size: int
    version: str = ""

    @property
    def label(self) -> str | None:
        """Name of the folder that contains the image; None for an image directly in the root."""
        return posixpath.basename(posixpath.dirname(self.path)) or None

    @property
    def leads_out(self) -> bool:
        """True if the path, used as a file path, leads out of the root, as keys of S3 can."""
        return self.path.startswith("/") or ".." in self.path.split("/")


class Listing:
    """Images below an address, in code-point order of their paths; each iteration lists them again.

    Parameters
    ----------
    address : str
        Any fsspec address of a folder.
    limit : int, optional
        The largest number of images.
    follow_links : bool, default False
        Include links to files outside the folder. Links to files inside it are always included; links to folders
        never are.

    Attributes
    ----------
    ignored : int
        Files skipped so far: without an image's extension or signature, not regular files, or links to the outside.
    links_out : int
        Links to files outside the folder among them.
    """

    def __init__(self, address: str, *, limit: int | None = None, follow_links: bool = False) -> None:
        self.address = address
        self.limit = limit
        self.follow_links = follow_links
        self.ignored = 0
        self.links_out = 0

    def __iter__(self) -> Iterator[ImageEntry]:
        self.ignored = self.links_out = 0
        return islice(self._entries(), self.limit)

    def _entries(self) -> Iterator[ImageEntry]:
        store, root = open_store(self.address)
        readable = False
        try:
            for files in store.walk(root):
                skipped = self._skipped(store, root, files)
                if not readable:
                    images = (f"{root}/{file.path}" for file in files if file.path not in skipped)
                    if first := list(islice(images, READABLE)):
                        store.check_readable(first)
                        readable = True
                for path, size, version, *_ in files:
                    if path in skipped:
                        self.ignored += 1
                    else:
                        yield ImageEntry(path, size, version)
        except FileNotFoundError as error:
            raise DatasetError(f"{self.address}: no such folder. Give the address of a folder of images.") from error
        except NotADirectoryError as error:
            raise DatasetError(f"{self.address}: not a folder. Give the folder that contains the image.") from error
        except OSError as error:
            raise DatasetError(f"{self.address}: {error}.") from error

    def _skipped(self, store: Store, root: str, files: Sequence[FileInfo]) -> set[str]:
        """Return the paths of the files that are no images, by extension or else by their first bytes."""
        skipped = {file.path for file in files if not file.is_file}
        if not self.follow_links:
            links = [file.path for file in files if file.leads_out]
            self.links_out += len(links)
            skipped.update(links)
        unclear = [file.path for file in files if not file.path.lower().endswith(ENDINGS) and file.path not in skipped]
        if unclear:
            heads = store.read_heads([f"{root}/{path}" for path in unclear], HEAD_BYTES)
            # An unreadable file may be an image: it is listed, and becomes a reject with the reason.
            skipped.update(
                path
                for path, head in zip(unclear, heads, strict=True)
                if isinstance(head, bytes) and not is_image(head)
            )
        return skipped

"""Listings: the images below an address, in code-point order of their whole paths.

A listing is walked folder by folder and is never held whole.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from fruits.errors import DatasetError
from fruits.images.decode import EXTENSIONS, is_image
from fruits.storage.prefetch import heads
from fruits.storage.stores import is_s3, open_address

__all__ = ["ImageEntry", "Listing"]

ENDINGS = tuple(EXTENSIONS)  # as str.endswith takes them: once for every image of a listing
HEAD_BYTES = 32  # enough for the signature of every format
READABLE = 8  # images on S3 of which one has to be readable


class ImageEntry(NamedTuple):
    """One image of a listing: its path below the root, with ``/``, its size in bytes, and its version.

    The version is another when the image was written again: the modification time on a local disk, the ETag on S3, and
    elsewhere what the listing says of the two; empty where it says nothing.
    """

    path: str
    size: int
    version: str = ""

    @property
    def label(self) -> str | None:
        """The name of the folder that holds the image; None for an image directly in the root."""
        return posixpath.basename(posixpath.dirname(self.path)) or None

    @property
    def leads_out(self) -> bool:
        """Whether the path, taken as that of a file, leads out of the root; on S3, a key may be called so."""
        return self.path.startswith("/") or ".." in self.path.split("/")


class Listing:
    """The images below an address, in code-point order of their paths; iterating lists them.

    Parameters
    ----------
    address : str
        Any fsspec address of a folder.
    limit : int, optional
        Stop after so many images.
    follow_links : bool, default False
        Take links to files that lead out of the folder for images too; those that stay in it always are. Links to
        folders are never followed.

    Attributes
    ----------
    ignored : int
        Files passed over so far: their names have no extension of an image, and their first bytes no signature; or
        they are no regular files; or links that lead out.
    links_out : int
        How many of them are links to files that lead out of the folder.
    """

    def __init__(self, address: str, *, limit: int | None = None, follow_links: bool = False) -> None:
        self.address = address
        self.limit = limit
        self.follow_links = follow_links
        self.ignored = 0
        self.links_out = 0

    def __iter__(self) -> Iterator[ImageEntry]:
        self.ignored = self.links_out = 0
        file_system, root = open_address(self.address)
        if is_s3(file_system):
            return islice(self._pages(file_system, root), self.limit)
        file_system.invalidate_cache()
        if not file_system.exists(root):
            raise DatasetError(f"{self.address}: no such folder. Give the address of a folder of images.")
        if not file_system.isdir(root):
            raise DatasetError(f"{self.address}: not a folder. Give the folder that holds the image.")
        return islice(self._walk(file_system, root), self.limit)

    def _walk(self, file_system: Any, root: str) -> Iterator[ImageEntry]:
        start = len(root.rstrip("/")) + 1
        inside = os.path.join(os.path.realpath(root), "")
        ways = [
            self._folder(file_system, root, start, inside)
        ]  # no recursion: folders may lie in each other by the thousand
        while ways:
            for found in ways[-1]:
                if isinstance(found, str):
                    ways.append(self._folder(file_system, found, start, inside))
                    break
                yield found
            else:
                ways.pop()

    def _folder(self, file_system: Any, folder: str, start: int, inside: str) -> Iterator[ImageEntry | str]:
        """Yield the images of one folder, and the addresses of the folders in it, in order."""
        try:
            found = file_system.ls(folder, detail=True)
        except OSError as error:
            raise DatasetError(f"{folder}: cannot be listed: {error}. Make it readable, or leave it out.") from error
        # A folder sorts as its name with "/", which is how the paths of what it holds go on.
        entries = {
            entry["name"].rstrip("/") + "/" * (entry["type"] == "directory"): entry
            for entry in found
            if entry["name"].rstrip("/") != folder  # an object store lists the marker of the folder itself
        }
        files = [name for name, entry in entries.items() if self._is_file(name, entry, inside)]
        images = _images(file_system, files)
        for name in sorted(entries):
            if name.endswith("/"):
                yield name[:-1]
            elif name in images:
                yield ImageEntry(name[start:], entries[name]["size"] or 0, _version(entries[name]))
            else:
                self.ignored += 1

    def _is_file(self, name: str, entry: dict[str, Any], inside: str) -> bool:
        """Tell whether to take an entry for a file; one behind a link too, but not a folder, which could lead round."""
        if not entry.get("islink"):
            return bool(entry["type"] == "file")
        try:
            mode = os.stat(name).st_mode
        except OSError:
            mode = stat.S_IFREG  # it leads nowhere: its partition tells so
        if not stat.S_ISREG(mode):
            return False
        if not self.follow_links and not os.path.realpath(name).startswith(inside):
            self.links_out += 1
            return False
        return True

    def _pages(self, file_system: Any, root: str) -> Iterator[ImageEntry]:
        """List S3, which gives all files below a folder in the order of their paths, and 1,000 at a time."""
        found = False
        last = ""
        try:
            for page in file_system.pages(root):
                images = _images(file_system, [f"{root}/{file.path}" for file in page.files])
                entries = [
                    ImageEntry(file.path, file.size, file.etag)
                    for file in page.files
                    if f"{root}/{file.path}" in images
                ]
                self.ignored += len(page.files) - len(entries)
                if entries and last == "":
                    self._check_readable(file_system, root, entries[:READABLE])
                for entry in entries:
                    if entry.path <= last:
                        raise DatasetError(
                            f"{self.address}: this storage does not list in the order of the paths ({entry.path} comes "
                            f"after {last}), as S3 does but in directory buckets. Give a general purpose bucket."
                        )
                    last = entry.path
                    yield entry
                found = found or bool(page.files)
            if not found and file_system.isfile(root):
                raise DatasetError(f"{self.address}: not a folder. Give the folder that holds the image.")
        except OSError as error:
            raise DatasetError(f"{self.address}: {error}.") from error
        if not found:
            raise DatasetError(f"{self.address}: no such folder. Give the address of a folder of images.")

    def _check_readable(self, file_system: Any, root: str, entries: list[ImageEntry]) -> None:
        """Refuse what may be listed and not read, before it is found out picture by picture."""
        found = heads(file_system, [f"{root}/{entry.path}" for entry in entries], HEAD_BYTES)
        if all(isinstance(head, PermissionError) for head in found):
            raise DatasetError(f"{self.address}: {found[0]!s}.")


def _version(entry: dict[str, Any]) -> str:
    """Return what a listing says by which a file that was written again is known."""
    if entry.get("islink"):  # the time that is listed is that of the link, and what is read is what it leads to
        try:
            return str(os.stat(entry["name"]).st_mtime)
        except OSError:
            return ""
    return str(entry.get("ETag") or entry.get("etag") or entry.get("mtime") or "")


def _images(file_system: Any, names: list[str]) -> set[str]:
    """Tell which files are images: by extension, and those that have none of ours by their first bytes."""
    images = {name for name in names if name.lower().endswith(ENDINGS)}
    others = [name for name in names if name not in images]
    if others:
        found = heads(file_system, others, HEAD_BYTES)
        # What cannot be read may be an image: it is listed, and its partition tells why it was rejected.
        images.update(
            name for name, head in zip(others, found, strict=True) if not isinstance(head, bytes) or is_image(head)
        )
    return images

"""Folders of image files, on any store: the label of an image is the folder that contains it.

A folder is listed folder by folder, or page by page, and the list is never held in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from fruits.errors import DatasetError
from fruits.images.decode import EXTENSIONS, HEAD_BYTES, ImageError, is_image
from fruits.images.skipped import LINK, LOOP, NOT_IMAGE, SPECIAL, SkippedFiles, skipped_by_name
from fruits.images.sources.entries import ImageEntry, entry_tables
from fruits.images.sources.source import Content
from fruits.storage.folder import Folder
from fruits.storage.stores import FileInfo, Store

READABLE = 8  # images, of which an object store must let at least one be read


@dataclass(frozen=True, slots=True)
class FolderSource:
    """The image files below a folder.

    Attributes
    ----------
    given : str
        The address as it was given, for messages.
    folder : Folder
    follow_links : bool, default False
        Follow links to folders, and to files outside the folder. Links to files inside it are always followed.
    include_hidden : bool, default False
        Include files and folders whose names start with a dot, and folders of systems and tools, such as
        ``__MACOSX``.
    """

    given: str
    folder: Folder
    follow_links: bool = False
    include_hidden: bool = False

    @property
    def address(self) -> str:
        """The address of the folder."""
        return self.folder.address

    def tables(self, skipped: SkippedFiles, limit: int | None = None) -> Iterator[pa.Table]:
        """Yield the images as tables; see :class:`fruits.images.sources.source.Source`."""
        return entry_tables(islice(self._entries(skipped), limit))

    def read(self, entries: Iterable[ImageEntry]) -> Iterator[Content]:
        """Yield the content of each image; see :class:`fruits.images.sources.source.Source`."""
        entries = list(entries)
        files = (entry[:3] for entry in entries if not entry.leads_out)
        contents = self.folder.fetch(files, is_confined=not self.follow_links)
        for entry in entries:
            if entry.leads_out:
                yield ImageError("unreadable", "its path leads out of the image folder")
            else:
                yield next(contents)

    def _entries(self, skipped: SkippedFiles) -> Iterator[ImageEntry]:
        prune = None if self.include_hidden else _is_skipped
        store, root = self.folder.open()
        readable = False
        try:
            for files in store.walk(root, follow_links=self.follow_links, prune=prune):
                images = self._select(store, root, files, skipped)
                if images and not readable:
                    store.check_readable([f"{root}/{file.path}" for file in images[:READABLE]])
                    readable = True
                yield from (ImageEntry(file.path, file.size, file.version) for file in images)
        except FileNotFoundError as error:
            raise DatasetError(f"{self.given}: no such folder. Give the address of a folder of images.") from error
        except NotADirectoryError as error:
            archive = f", or zip://::{self.given} for the images in an archive" if self.given.endswith(".zip") else ""
            raise DatasetError(
                f"{self.given}: not a folder. Give the folder that contains the image{archive}."
            ) from error
        except OSError as error:
            raise DatasetError(f"{self.given}: {error}.") from error

    def _select(self, store: Store, root: str, files: Sequence[FileInfo], skipped: SkippedFiles) -> list[FileInfo]:
        """Return the files that are images, by extension or else by their first bytes."""
        images, unclear = [], []
        for file in files:
            if not self.include_hidden and (named := skipped_by_name(file.path)):
                skipped.add(*named)
            elif file.unfollowed:
                skipped.add(LOOP if self.follow_links else LINK, file.path)
            elif not file.is_file:
                skipped.add(SPECIAL, file.path)
            elif file.path.lower().endswith(EXTENSIONS):
                images.append(file)
            elif file.size == 0:
                skipped.add(NOT_IMAGE, file.path)
            else:
                images.append(file)
                unclear.append(file.path)
        heads = store.read_heads([f"{root}/{path}" for path in unclear], HEAD_BYTES) if unclear else []
        # An unreadable file may be an image: it is listed, and becomes a reject with the reason.
        others = set()
        for path, head in zip(unclear, heads, strict=True):
            if isinstance(head, bytes) and not is_image(head):
                others.add(path)
                skipped.add(NOT_IMAGE, path)
        return [file for file in images if file.path not in others] if others else images


def _is_skipped(folder: str) -> bool:
    return skipped_by_name(folder) is not None

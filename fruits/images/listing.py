"""Listings of the images below an address, in code-point order of their paths.

A listing is read folder by folder, or page by page, and is never held in memory as a whole.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import NamedTuple

from fruits.errors import DatasetError
from fruits.images.decode import EXTENSIONS, is_image
from fruits.images.skipped import LINK, LOOP, NOT_IMAGE, SPECIAL, describe_skipped, skipped_by_name
from fruits.images.stratified import stratified
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
        Size in bytes; -1 if unknown.
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


@dataclass(eq=False)
class Listing:
    """Images below an address, in code-point order of their paths; each iteration lists them again.

    Parameters
    ----------
    address : str
        Any fsspec address of a folder.
    limit : int, optional
        Only the first images, up to this number.
    sample : int, optional
        Only a sample of this size, with images of each label; see :func:`fruits.images.stratified.stratified`.
    seed : int, default 0
        The seed of the sample.
    follow_links : bool, default False
        Follow links to folders, and to files outside the folder. Links to files inside it are always followed.
    include_hidden : bool, default False
        Include files and folders whose names start with a dot, and folders of systems and tools, such as
        ``__MACOSX``.

    Attributes
    ----------
    labels : int
        The number of labels of the images listed so far.
    skipped : mapping of str to int
        The number of files skipped so far, by kind; see :data:`fruits.images.skipped.KINDS`. A folder that is skipped
        as a whole counts once.
    """

    address: str
    _: KW_ONLY
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    follow_links: bool = False
    include_hidden: bool = False

    def __post_init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.skipped: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._skipped_last = ""
        self._labels: set[str] = set()

    @property
    def labels(self) -> int:
        """The number of labels of the images listed so far."""
        return len(self._labels)

    def describe_skipped(self) -> list[str]:
        """Return a line for each kind of skipped files, with an example and the option that includes them."""
        return describe_skipped(self.skipped, self._examples)

    def __iter__(self) -> Iterator[ImageEntry]:
        chosen = self._images() if self.sample is None else stratified(self._images, self.sample, self.seed)
        last = None
        for image in islice(chosen, self.limit):
            folder = image.path.rpartition("/")[0]
            if folder != last and image.label is not None:  # few images are the first of their folder
                self._labels.add(image.label)
            last = folder
            yield image

    def _images(self) -> Iterator[ImageEntry]:
        """Yield all images, and count the files skipped."""
        self._reset()
        prune = None if self.include_hidden else _is_skipped
        store, root = open_store(self.address)
        readable = False
        try:
            for files in store.walk(root, follow_links=self.follow_links, prune=prune):
                images = self._select(store, root, files)
                if images and not readable:
                    store.check_readable([f"{root}/{file.path}" for file in images[:READABLE]])
                    readable = True
                yield from (ImageEntry(file.path, file.size, file.version) for file in images)
        except FileNotFoundError as error:
            raise DatasetError(f"{self.address}: no such folder. Give the address of a folder of images.") from error
        except NotADirectoryError as error:
            raise DatasetError(f"{self.address}: not a folder. Give the folder that contains the image.") from error
        except OSError as error:
            raise DatasetError(f"{self.address}: {error}.") from error

    def _select(self, store: Store, root: str, files: Sequence[FileInfo]) -> list[FileInfo]:
        """Return the files that are images, by extension or else by their first bytes."""
        images, unclear = [], []
        for file in files:
            if not self.include_hidden and (named := skipped_by_name(file.path)):
                self._skip(*named)
            elif file.unfollowed:
                self._skip(LOOP if self.follow_links else LINK, file.path)
            elif not file.is_file:
                self._skip(SPECIAL, file.path)
            elif file.path.lower().endswith(ENDINGS):
                images.append(file)
            elif file.size == 0:
                self._skip(NOT_IMAGE, file.path)
            else:
                images.append(file)
                unclear.append(file.path)
        heads = store.read_heads([f"{root}/{path}" for path in unclear], HEAD_BYTES) if unclear else []
        # An unreadable file may be an image: it is listed, and becomes a reject with the reason.
        others = set()
        for path, head in zip(unclear, heads, strict=True):
            if isinstance(head, bytes) and not is_image(head):
                others.add(path)
                self._skip(NOT_IMAGE, path)
        return [file for file in images if file.path not in others] if others else images

    def _skip(self, kind: str, path: str) -> None:
        if path != self._skipped_last:  # the files of a skipped folder follow each other
            self.skipped[kind] += 1
            self._examples.setdefault(kind, path)
            self._skipped_last = path


def _is_skipped(folder: str) -> bool:
    return skipped_by_name(folder) is not None

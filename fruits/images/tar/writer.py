"""Writing of one tar archive: the same images give the same bytes."""

from __future__ import annotations

import json
import tarfile
from hashlib import sha256
from typing import BinaryIO

from fruits.images.tar.members import BLOCK, ENCODING, padded
from fruits.images.tar.samples import MAX_LABEL, Label, key_of, stem_of, stripped

RECORD = 20 * BLOCK  # the length of archives is a multiple of it, by convention


def label_member(path: str, label: Label) -> tuple[str, bytes] | None:
    """Return the name and the content of the label of an image; None for one that has no label when it is read.

    What the reader would take for something else is written as JSON: no label where a folder or another image would
    give one, and a text with spaces around it, of several lines, or too long.
    """
    stem = stem_of(path)
    if label is None and "/" not in path and stem == key_of(path):
        return None
    if isinstance(label, str):
        data = label.encode(*ENCODING)
        if label and stripped(data) == data and b"\n" not in data and len(data) <= MAX_LABEL:
            return f"{stem}.txt", data
    return f"{stem}.json", json.dumps({"label": label}).encode()


def member_bytes(path: str, size: int) -> int:
    """Return the number of bytes that a member takes in an archive."""
    return len(_header(path, size)) + padded(size)


class ShardWriter:
    """The archive that is being written.

    Parameters
    ----------
    file : BinaryIO

    Attributes
    ----------
    size : int
        Bytes written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = sha256()
        self.size = 0
        self._key = ""
        self._labels: dict[str, Label] = {}  # of the current sample, by stem

    @property
    def checksum(self) -> str:
        """The SHA-256 of the bytes written, in hexadecimal."""
        return self._checksum.hexdigest()

    def add(self, path: str, data: bytes) -> None:
        """Write a member: owned by nobody, from 1970, with the name as GNU tar stores it, byte by byte."""
        for piece in (_header(path, len(data)), data, bytes(padded(len(data)) - len(data))):
            self._write(piece)

    def add_image(self, path: str, data: bytes, label: Label) -> bool:
        """Write an image, and its label unless an image of the same stem has written it.

        Return False, and write nothing, if an image of the same stem has another label.
        """
        key, stem = key_of(path), stem_of(path)
        if key != self._key:
            self._key, self._labels = key, {}
        is_first = stem not in self._labels
        if self._labels.setdefault(stem, label) != label:
            return False
        self.add(path, data)
        if is_first and (member := label_member(path, label)) is not None:
            self.add(*member)
        return True

    def size_with(self, count: int) -> int:
        """Return the size of the archive with `count` more bytes of members."""
        return -(-(self.size + count + 2 * BLOCK) // RECORD) * RECORD

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(self.size_with(0) - self.size))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._checksum.update(data)
        self.size += len(data)


def _header(path: str, size: int) -> bytes:
    header = tarfile.TarInfo(path)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT, *ENCODING)

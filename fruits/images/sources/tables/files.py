"""The files of a table: one file, those of a folder, or those that a pattern matches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BufferedReader
from typing import BinaryIO

from fruits.errors import DatasetError
from fruits.images.skipped import skipped_by_name
from fruits.storage.addresses import name_in, split_chain
from fruits.storage.folder import Folder
from fruits.storage.stores import FileInfo, Store
from fruits.text import native

BUFFER = 2**20
LOG_OF_TABLE = re.compile(r"_delta_log/|\.hoodie/|metadata/.*\.metadata\.json$")


def parent(address: str) -> str:
    """Return the address of the folder that contains a file."""
    first, separator, others = split_chain(address)
    protocol, colon, path = first.rpartition("://")
    return f"{protocol}{colon}{path.rpartition('/')[0] or path[: path.startswith('/')]}{separator}{others}"


def last_name(address: str) -> str:
    """Return the last name in an address."""
    first = split_chain(address)[0]
    return name_in(first, first.rpartition("/")[2])


def _has_wildcard(address: str) -> bool:
    return any(character in split_chain(address)[0] for character in "*?[")


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a table.

    Attributes
    ----------
    folder : Folder
        The root of the table.
    name : str
        Path below the root.
    size : int
    version : str
    """

    folder: Folder
    name: str
    size: int
    version: str

    def __str__(self) -> str:
        return f"{self.folder.address}/{self.name}"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file.

        Raises
        ------
        DatasetError
            It cannot be read, now or while it is open.
        """
        store, root = self.folder.open()
        try:
            with store.open(f"{root}/{self.name}") as file:
                yield BufferedReader(file, BUFFER) if not isinstance(file, BufferedReader) else file  # type: ignore[type-var]
        except OSError as error:
            raise DatasetError(f"{self} cannot be read: {error.strerror or error}.") from error


@dataclass(frozen=True, slots=True)
class TableFiles:
    """The files of a table.

    Attributes
    ----------
    given : str
        The address as it was given, for messages.
    place : Folder
        The same address, absolute: that of a file, of a folder, or a pattern with ``*``, ``?`` or ``[…]``.
    suffix : str
        The end of the names of the files in a folder.
    is_pattern : bool
    """

    given: str
    place: Folder
    suffix: str
    is_pattern: bool

    @classmethod
    def at(cls, address: str, suffix: str) -> TableFiles:
        """Return the files at an address. It is no pattern if a local file or folder has this name."""
        place = Folder.at(address)
        is_literal = "://" not in place.address and os.path.exists(native(place.address))
        return cls(address, place, suffix, _has_wildcard(place.address) and not is_literal)

    @property
    def root(self) -> Folder:
        """The folder that relative paths in the table start from: the one that contains the file or folder.

        For a pattern, it is the folder above its first wildcard; for a folder without the suffix, the folder itself.
        """
        address = self.place.address
        if self.is_pattern:
            while _has_wildcard(address):
                address = parent(address)
        elif last_name(address).lower().endswith(self.suffix):
            address = parent(address)
        return Folder(address, self.place.s3)

    def find(self) -> list[TableFile]:
        """Return the files, sorted by name.

        Raises
        ------
        DatasetError
            There is none, or they cannot be listed.
        """
        store, path = self.place.open()
        root, prefix = self.root, ""
        try:
            if store.is_file(path):
                if root == self.place:
                    raise DatasetError(f"{self.given}: no {self.suffix} file. Give one, or a folder of them.")
                files = [store.info(path)._replace(path=last_name(self.place.address))]
            elif self.is_pattern:
                files = self._matching(store, path)
            else:
                files = self._below(store, path)
                prefix = "" if root == self.place else f"{last_name(self.place.address)}/"
        except FileNotFoundError as error:
            raise DatasetError(f"{self.given}: no such file. Give an existing {self.suffix} file.") from error
        except OSError as error:
            raise DatasetError(f"{self.given}: {error}.") from error
        if not files:
            raise DatasetError(f"{self.given}: no {self.suffix} file found. Give a file, or a folder of such files.")
        return [TableFile(root, prefix + file.path, file.size, file.version) for file in files]

    def _below(self, store: Store, path: str) -> list[FileInfo]:
        """Return the files below a folder; hidden files and markers of Spark, such as _SUCCESS, are no parts."""
        found = [file for files in store.walk(path) for file in files]
        if any(map(LOG_OF_TABLE.match, (file.path for file in found))):
            raise DatasetError(
                f"{self.given}: a Delta, Hudi or Iceberg table, whose folder also contains deleted rows. Write its "
                "current rows as Parquet, and give these files."
            )
        return [
            file
            for file in found
            if file.path.lower().endswith(self.suffix)
            and file.is_file
            and skipped_by_name(file.path) is None
            and not any(name.startswith("_") for name in file.path.split("/"))
        ]

    def _matching(self, store: Store, path: str) -> list[FileInfo]:
        root = self.root.open()[1]
        pattern = path[len(root) :].strip("/").split("/")
        if len(pattern) == 1:
            files = store.files(root)
        else:
            files = [file for some in store.walk(root) for file in some]
        return [file for file in files if file.is_file and _matches(file.path.split("/"), pattern)]


def _matches(names: list[str], pattern: list[str]) -> bool:
    return len(names) == len(pattern) and all(map(fnmatchcase, names, pattern))

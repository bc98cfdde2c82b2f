"""Checksums: the SHA-256 of every stored part, and the manifest that lists them.

The manifest is a folder of pages in the format of ``sha256sum``. In the output folder, ``cat manifest/* | sha256sum
--check`` verifies all parts. The driver writes a page when it is full, every ten seconds and when a stage ends. A
killed driver may leave finished partitions that no page lists; the survey task verifies those by their account.

The name of a page contains a digest of its content, so that two commands on one job cannot replace each other's pages.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256

from fruits.errors import DamageError
from fruits.storage.commits import OwnedFolder, owner_in
from fruits.storage.folder import READERS, Folder, is_temporary

MANIFEST = "manifest"
PAGE = 512  # parts of one folder: a page of 50 KB
FLUSH_SECONDS = 10.0  # between two writes of the manifest: a killed driver loses track of no more finished rows
NAME = re.compile(r"^(?P<folder>.+)/part-(?P<index>\d{5,})-[0-9a-f]{12}\.\w+$")
LINE = re.compile(r"^(?P<checksum>[0-9a-f]{64})  (?P<name>.+)$")


@dataclass(frozen=True, slots=True)
class CorruptPart:
    """A part that is missing or corrupt: its name below the output folder, and the problem."""

    name: str
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class CorruptPartError(DamageError):
    """A stored part is missing or corrupt.

    Attributes
    ----------
    part : CorruptPart
    """

    def __init__(self, name: str, problem: str) -> None:
        # Both arguments, so that the error can be pickled from a worker to the driver.
        super().__init__(name, problem)
        self.part = CorruptPart(name, problem)

    def __str__(self) -> str:
        return f"{self.part}. Start the same command again: it verifies the stored parts and regenerates this one"


def checksum(data: bytes) -> bytes:
    """Return the SHA-256 of the bytes of a part."""
    return sha256(data).digest()


def read_part(out: Folder, name: str, expected: bytes | None) -> bytes:
    """Return the bytes of a part. A missing or different part is read once more before it counts as corrupt.

    Parameters
    ----------
    out : Folder
    name : str
        The name of the part below the output folder.
    expected : bytes or None
        Its SHA-256; None to accept any content.

    Raises
    ------
    CorruptPartError
        The part is missing, or its SHA-256 differs.
    """
    for _ in range(2):
        try:
            data = out.read(name)
        except FileNotFoundError:
            problem = "missing"
            continue
        found = checksum(data)
        if expected is None or found == expected:
            return data
        problem = f"its {len(data):,} bytes have the SHA-256 {found.hex()}, expected {expected.hex()}"
    raise CorruptPartError(name, problem)


def read_parts(out: Folder, parts: Iterable[tuple[str, bytes | None]]) -> Iterator[bytes]:
    """Yield the bytes of parts in order, each given as to :func:`read_part`; the next is read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        reads = (pool.submit(read_part, out, name, expected) for name, expected in parts)
        current = next(reads, None)
        while current is not None:
            following = next(reads, None)
            yield current.result()
            current = following


class Manifest:
    """The checksums of the parts of one job, stored as pages.

    Parameters
    ----------
    out : OwnedFolder
        The output folder.
    """

    def __init__(self, out: OwnedFolder) -> None:
        self._out = out
        self._pages: dict[str, dict[str, bytes]] = {}
        self._changed: set[str] = set()
        self._flushed = time.monotonic()
        self._written: dict[str, set[str]] = {}  # by page, the names of its stored versions

    @classmethod
    def load(cls, out: OwnedFolder) -> Manifest:
        """Return the stored manifest of a job, the union of its pages; corrupt pages are ignored."""
        manifest = cls(out)
        folder = out.folder / MANIFEST
        names = [name for name in folder.names() if not is_temporary(name)]
        names = [name for name in names if owner_in(f"{MANIFEST}/{name}") == out.owner]

        def read(name: str) -> bytes:
            try:
                return folder.read(name)
            except FileNotFoundError:  # another command of the same job has just replaced this page
                return b""

        with ThreadPoolExecutor(READERS) as pool:
            for file, data in zip(names, pool.map(read, names), strict=True):
                for name, known in parse_page(data).items():
                    manifest._pages.setdefault(_page(name), {})[name] = known
                    manifest._written.setdefault(_page(name), set()).add(file)
        manifest._changed = {key for key, files in manifest._written.items() if len(files) > 1}
        return manifest

    def get(self, name: str) -> bytes | None:
        """Return the checksum of a part, or None if the manifest does not list it."""
        return self._pages.get(_page(name), {}).get(name)

    def names(self) -> list[str]:
        """Return the names of all listed parts, sorted."""
        return sorted(name for page in self._pages.values() for name in page)

    def add(self, checksums: Mapping[str, bytes]) -> None:
        """Add the checksums of parts, by name, and write the pages that are full, and all changed ones now and then.

        Raises
        ------
        DamageError
            A part is listed with another checksum: it was regenerated with different content.
        """
        for name, found in checksums.items():
            key = _page(name)
            page = self._pages.setdefault(key, {})
            known = page.get(name)
            if known == found:
                continue
            if known is not None:
                raise DamageError(
                    f"{name} was regenerated and differs from the content that the manifest lists: the images, the CPU "
                    "or the software changed since. Start the command with `overwrite`, or give another `out`."
                )
            page[name] = found
            self._changed.add(key)
            if len(page) == PAGE:
                self._write(key)
        if time.monotonic() >= self._flushed + FLUSH_SECONDS:
            self.flush()

    def retain(self, is_final: Callable[[str], bool]) -> None:
        """Keep the checksums of the parts that the complete job consists of, and write the changed pages."""
        for key, page in self._pages.items():
            final = {name: known for name, known in page.items() if is_final(name)}
            if len(final) < len(page):
                self._pages[key] = final
                self._changed.add(key)
        self.flush()

    def flush(self) -> None:
        """Write the changed pages."""
        for key in sorted(self._changed):
            self._write(key)
        self._flushed = time.monotonic()

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """Write the changed pages when the context ends, also when it fails."""
        try:
            yield
        except BaseException:
            with suppress(OSError):  # report the original error; the next command finds or makes the unlisted parts
                self.flush()
            raise
        self.flush()

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of the content of each page, by its name below the output folder."""
        contents = {key: _encode(page) for key, page in sorted(self._pages.items()) if page}
        return {f"{MANIFEST}/{self._file(key, data)}": checksum(data).hex() for key, data in contents.items()}

    def _write(self, key: str) -> None:
        """Write a page, unless it is empty, and then remove its earlier versions."""
        data = _encode(self._pages[key])
        file = self._file(key, data)
        if self._pages[key]:
            self._out.write(f"{MANIFEST}/{file}", data)
        if stale := self._written.get(key, set()) - {file}:
            (self._out.folder / MANIFEST).remove_files(stale)
        self._written[key] = {file}
        self._changed.discard(key)

    def _file(self, key: str, data: bytes) -> str:
        return f"{key}-{checksum(data).hex()[:8]}-{self._out.owner}.sha256"


def _encode(page: Mapping[str, bytes]) -> bytes:
    lines = b"".join(b"%b  %b\n" % (found.hex().encode(), name.encode()) for name, found in sorted(page.items()))
    return lines + b"# %b\n" % sha256(lines).hexdigest().encode()


def _page(name: str) -> str:
    """Return the name of the page that lists a part."""
    match = NAME.match(name)
    assert match is not None
    return f"{match['folder'].replace('/', '.')}-{int(match['index']) // PAGE:05d}"


def parse_page(data: bytes) -> dict[str, bytes]:
    """Return the checksums on a page; none if the page is corrupt."""
    lines, mark, own = data.rpartition(b"# ")
    if not mark or own != sha256(lines).hexdigest().encode() + b"\n":
        return {}
    matches = map(LINE.match, lines.decode().splitlines())
    return {match["name"]: bytes.fromhex(match["checksum"]) for match in matches if match and NAME.match(match["name"])}

"""The SHA-256 of every stored part, by which a damaged one is known.

Pages lie below ``manifest/``, a line for each part, as ``sha256sum`` writes and checks them: in the output folder,
``cat manifest/* | sha256sum --check``. The driver keeps them, from what the tasks report. A page is written when its
parts are complete and when a stage ends: what a killed driver had not written yet is found whole, or not, by
the survey and check tasks, because parts tell of themselves whether they are whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from fruits.storage.folder import Folder, is_temporary

__all__ = ["Damage", "Manifest", "PartError", "checksum", "read_part"]

PAGE = 512  # parts of one folder: a page of 50 KB
READERS = 16
NAME = re.compile(r"^(?P<folder>.+)/part-(?P<index>\d{5,})\.\w+$")
LINE = re.compile(r"^(?P<checksum>[0-9a-f]{64})  (?P<name>.+)$")


@dataclass(frozen=True, slots=True)
class Damage:
    """A part that is missing, or is not what was written: its name below the output folder, and how that shows."""

    name: str
    how: str

    def __str__(self) -> str:
        return f"{self.name}: {self.how}"


class PartError(Exception):
    """A part cannot be used; what a task returns to the driver is its :class:`Damage`."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"{name}: {how}")
        self.damage = Damage(name, how)


def checksum(data: bytes) -> bytes:
    """Return the SHA-256 of the bytes of a part."""
    return sha256(data).digest()


def read_part(out: Folder, name: str, expected: bytes | None) -> bytes:
    """Return the bytes of a part; what is missing or differs is asked for once more.

    Raises
    ------
    PartError
        It is missing, or its checksum is not the expected one.
    """
    for _ in range(2):
        try:
            data = out.read(name)
        except FileNotFoundError:
            how = "missing"
            continue
        found = checksum(data)
        if expected is None or found == expected:
            return data
        how = f"its {len(data):,} bytes have the SHA-256 {found.hex()}; {expected.hex()} was written"
    raise PartError(name, how)


class Manifest:
    """The checksums of the parts of one output, and the pages that keep them.

    Parameters
    ----------
    out : Folder
        The output.
    """

    def __init__(self, out: Folder) -> None:
        self._pages: dict[str, dict[str, bytes]] = {}
        self._unwritten: set[str] = set()
        self._folder = out / "manifest"

    @classmethod
    def load(cls, out: Folder) -> Manifest:
        """Return what the pages of an output say; a page that is not whole says nothing."""
        manifest = cls(out)
        pages = [name for name in manifest._folder.names() if not is_temporary(name)]
        with ThreadPoolExecutor(READERS) as pool:
            for data in pool.map(manifest._folder.read, pages):
                for name, known in _parsed(data).items():
                    manifest._pages.setdefault(_page(name), {})[name] = known
        return manifest

    def get(self, name: str) -> bytes | None:
        """Return the checksum of a part, or None where it is not known."""
        return self._pages.get(_page(name), {}).get(name)

    def names(self) -> list[str]:
        """Return the names of all parts that are known, in order."""
        return sorted(name for page in self._pages.values() for name in page)

    def update(self, checksums: Mapping[str, bytes]) -> list[str]:
        """Take in the checksums of parts, by name; return those that were known to be others."""
        others = []
        for name, found in checksums.items():
            key = _page(name)
            page = self._pages.setdefault(key, {})
            known = page.get(name)
            if known == found:
                continue
            if known is not None:
                others.append(name)
            page[name] = found
            self._unwritten.add(key)
            if len(page) == PAGE:
                self._write(key)
        return others

    def flush(self) -> None:
        """Write the pages that have changed."""
        for key in sorted(self._unwritten):
            self._write(key)

    def _write(self, key: str) -> None:
        lines = b"".join(
            b"%b  %b\n" % (found.hex().encode(), name.encode()) for name, found in sorted(self._pages[key].items())
        )
        self._folder.write(f"{key}.sha256", lines + b"# %b\n" % sha256(lines).hexdigest().encode())
        self._unwritten.discard(key)


def _page(name: str) -> str:
    """Return the name of the page that a part belongs to."""
    match = NAME.match(name)
    assert match is not None
    return f"{match['folder'].replace('/', '.')}-{int(match['index']) // PAGE:05d}"


def _parsed(data: bytes) -> dict[str, bytes]:
    lines, mark, own = data.rpartition(b"# ")
    if not mark or own != sha256(lines).hexdigest().encode() + b"\n":
        return {}
    matches = map(LINE.match, lines.decode().splitlines())
    return {match["name"]: bytes.fromhex(match["checksum"]) for match in matches if match and NAME.match(match["name"])}

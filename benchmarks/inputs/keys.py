"""Keys of a large object store, generated folder by folder while they are listed."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

import fsspec

LABELS = 131  # as in Fruits-360
ODD = 0x9E3779B97F4A7C15F39CC0605CEDC835  # an odd multiplier, so that ETags look as random as an MD5


class GeneratedFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """File system ``generated://COUNT`` with 131 folders of keys in all, none of which is stored."""

    protocol = "generated"
    cachable = False

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[dict[str, Any]]:
        """Return the entries of a folder."""
        keys, _, label = self._strip_protocol(path).partition("/")
        count = int(keys)
        if not label:
            return [{"name": f"{keys}/{name}", "type": "directory", "size": 0} for name in _labels(count)]
        numbers = range(int(label.removeprefix("label ")), count, LABELS)
        return [
            {"name": f"{keys}/{label}/{_name(n)}", "type": "file", "size": _size(n), "ETag": _etag(n)} for n in numbers
        ]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Describe the root, the only path that is looked up, as a folder."""
        return {"name": self._strip_protocol(path), "type": "directory", "size": 0}


class Key(NamedTuple):
    """A key: its path, label and ETag."""

    path: str
    label: str
    etag: str


def key(number: int, count: int) -> Key:
    """Return a key of `count`, by its number."""
    label = _labels(count)[number % LABELS]
    return Key(f"{label}/{_name(number)}", label, _etag(number))


def expected_manifest_digest(count: int) -> str:
    """Return the digest that a plan of a manifest of `count` keys must have, computed without a manifest."""
    digest = hashlib.sha256(b"\0label:binary\0")
    for index, label in enumerate(_labels(count)):
        numbers = range(index, count, LABELS)
        digest.update("".join(f"{label}/{_name(n)}\0-1\0{_etag(n)}\0001\0{label}\0" for n in numbers).encode())
    return digest.hexdigest()


def expected_digest(count: int) -> str:
    """Return the digest that a plan of `count` keys must have, computed without a listing."""
    digest = hashlib.sha256()
    for index, label in enumerate(_labels(count)):
        numbers = range(index, count, LABELS)
        digest.update("".join(f"{label}/{_name(n)}\0{_size(n)}\0{_etag(n)}\0" for n in numbers).encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _labels(count: int) -> list[str]:
    return [f"label {index:03d}" for index in range(min(LABELS, count))]


def _name(number: int) -> str:
    return f"{number:08d}_100.jpg"


def _size(number: int) -> int:
    return 4000 + number % 3000


def _etag(number: int) -> str:
    return f"{number * ODD % 2**128:032x}"

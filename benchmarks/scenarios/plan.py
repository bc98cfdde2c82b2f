"""Listing and planning millions of keys, which are generated as an object store would list them, folder by folder."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import fsspec

from benchmarks.child import Done, Task
from fruits.images.listing import Listing
from fruits.images.plan import make_plan
from fruits.storage.folder import Folder

BACKENDS = ("driver",)
DATA = "keys"
ANSWER = "plan"

LABELS = 131  # as many as Fruits-360 has
ODD = 0x9E3779B97F4A7C15F39CC0605CEDC835  # spreads the digits as those of an MD5 are


class GeneratedFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """131 folders of keys that exist only while they are listed: ``generated://KEYS``."""

    protocol = "generated"
    cachable = False

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[dict[str, Any]]:
        """Return what one folder holds."""
        keys, _, label = self._strip_protocol(path).partition("/")
        count = int(keys)
        if not label:
            return [{"name": f"{keys}/{name}", "type": "directory", "size": 0} for name in _labels(count)]
        numbers = range(int(label.removeprefix("label ")), count, LABELS)
        return [
            {"name": f"{keys}/{label}/{_name(n)}", "type": "file", "size": _size(n), "ETag": _etag(n)} for n in numbers
        ]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return that the root is a folder."""
        return {"name": self._strip_protocol(path), "type": "directory", "size": 0}


def run(task: Task) -> Done:
    """List the keys, cut them into partitions of 1,024, and store the plan."""
    fsspec.register_implementation("generated", GeneratedFileSystem, clobber=True)
    begin = time.perf_counter()
    out = Folder(task.out)
    plan = make_plan(Listing(f"generated://{task.case.images}"), 1024, out / "plan")
    seconds = {"listing": time.perf_counter() - begin}
    out.write_json("plan.json", {"images": plan.images, "digest": plan.digest})
    return Done(seconds=seconds)


def expected_digest(count: int) -> str:
    """Return the digest that the plan of `count` keys must have, made without listing anything."""
    digest = hashlib.sha256()
    for index, label in enumerate(_labels(count)):
        numbers = range(index, count, LABELS)
        digest.update("".join(f"{label}/{_name(n)}\0{_size(n)}\0{_etag(n)}\0" for n in numbers).encode())
    return digest.hexdigest()


def _labels(count: int) -> list[str]:
    return [f"label {index:03d}" for index in range(min(LABELS, count))]


def _name(number: int) -> str:
    return f"{number:08d}_100.jpg"


def _size(number: int) -> int:
    return 4000 + number % 3000


def _etag(number: int) -> str:
    return f"{number * ODD % 2**128:032x}"

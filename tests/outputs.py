"""Access to the files of an output, whose names contain their owner."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from fruits.storage.commits import Commit, last_commit
from fruits.storage.folder import Folder

OWNER = re.compile(r"-[0-9a-f]{12}(?=\.)")


def commit_of(out: str | Path) -> Commit:
    """Return the last commit of an output."""
    commit = last_commit(Folder.at(str(out)))
    assert commit is not None, f"{out} has no commit"
    return commit


def owner(out: str | Path) -> str:
    """Return the owner of an output."""
    return commit_of(out).owner


def is_complete(out: str | Path) -> bool:
    """Return whether an output is complete."""
    commit = last_commit(Folder.at(str(out)))
    return commit is not None and commit.complete


def stored(out: str | Path, name: str) -> Path:
    """Return the path of a file of the owner by its name without the owner: ``rows/part-00003.parquet``."""
    stem, _, suffix = name.rpartition(".")
    (path,) = Path(out).glob(f"{stem}-{owner(out)}.{suffix}")
    return path


def report_of(out: str | Path) -> dict[str, Any]:
    """Return the stored report of an output."""
    report: dict[str, Any] = json.loads(stored(out, "report.json").read_bytes())
    return report


def contents(out: str | Path) -> dict[str, bytes]:
    """Return the content of each file by name, without the report, which contains times, and the commits."""
    root = Path(out)
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()]
    return {name: (root / name).read_bytes() for name in names if not name.startswith(("report-", "commits/"))}


def digest(out: str | Path) -> str:
    """Return the SHA-256 of the stored parts and arrays by their names without the owner."""
    return hashlib.sha256(
        b"".join(
            OWNER.sub("", name).encode() + hashlib.sha256(data).digest()
            for name, data in contents(out).items()
            if not name.startswith(("manifest/", "model/model"))
        )
    ).hexdigest()

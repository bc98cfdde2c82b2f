"""A folder tree with everything that a listing must treat alike on every store."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing

PICTURE = b"\xff\xd8\xff\xe0 the rest does not matter to a listing"

IMAGES = {
    "root.jpg": PICTURE,
    "Apple/1.jpg": PICTURE,
    "Apple/10.JPG": PICTURE,
    "Apple/2.jpg": PICTURE,
    "Apple/no extension": PICTURE,
    "Apple/empty.jpg": b"",  # an image by its name, and thus a reject
    "Apple/text.jpg": b"words",
    "Apple-b/1.jpg": PICTURE,
    "Apple/deep/er/x.png": PICTURE,
    "_background_/1.jpg": PICTURE,
    "__MACOSX.jpg": PICTURE,
    "lost+found.jpg": PICTURE,
    "http_1/https_1.jpg": PICTURE,
    "odd/#1.jpg": PICTURE,
    "odd/50%.jpg": PICTURE,
    "odd/%41.jpg": PICTURE,
    "odd/[a-z]*.jpg": PICTURE,
    "odd/::.jpg": PICTURE,
    "odd/it's+1&2;3.jpg": PICTURE,
    "odd/<b>.jpg": PICTURE,
    'odd/"quoted".jpg': PICTURE,
    "odd/back\\slash.jpg": PICTURE,
    "odd/\\xff.jpg": PICTURE,
    "odd/?x=1&y.jpg": PICTURE,
    "odd/{b}.jpg": PICTURE,
    "odd/~.jpg": PICTURE,
    "odd/ .jpg": PICTURE,
    "odd/name ending with a space ": PICTURE,
    "folder ending with a space /1.jpg": PICTURE,
    "what?/1.jpg": PICTURE,
    "hash#/1.jpg": PICTURE,
    "100%/1.jpg": PICTURE,
    unicodedata.normalize("NFC", "pêche/é.jpg"): PICTURE,
    unicodedata.normalize("NFD", "pêche/é.jpg"): PICTURE,
    "水果/🍑.jpg": PICTURE,
    "odd/new\nline.jpg": PICTURE,
    "two\nlines/1.jpg": PICTURE,
    os.fsdecode(b"bytes\xff/1.jpg"): PICTURE,
    os.fsdecode(b"odd/\xff.jpg"): PICTURE,
}
SKIPPED = {
    "not-image": {
        "README.md": b"words",
        "Apple/_SUCCESS": b"",
        "Apple_$folder$": b"",
        "Apple/Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "Apple/desktop.ini": b"[.ShellClassInfo]",
        "Apple/notes": b"",
        "Icon\r": b"",
    },
    "hidden": {
        ".DS_Store": b"\0\0\0\1Bud1",
        "Apple/._1.jpg": b"\0\5\x16\7",
        "Apple/.hidden.jpg": PICTURE,
        "Apple/.gitkeep": b"",
        "Apple/.empty.jpg": b"",
        ".git/1.jpg": PICTURE,
    },
    "system": {
        "__MACOSX/1.jpg": PICTURE,
        "Apple/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg": PICTURE,
        "$Recycle.bin/1.jpg": PICTURE,
        "lost+found/1.jpg": PICTURE,
    },
}
MORE_OF_A_FOLDER = {  # a folder that is skipped counts once
    ".git/objects/2.jpg": PICTURE,
    "__MACOSX/Apple/._2.jpg": PICTURE,
    "Apple/@eaDir/2.jpg/SYNOPHOTO_THUMB_M.jpg": PICTURE,
}

Planned = tuple[list[tuple[str, str | None]], int, dict[str, int]]


def tree(excluded: str = "") -> dict[str, bytes]:
    """Return the contents of all files by path, without names that contain one of the excluded characters."""
    files = IMAGES | MORE_OF_A_FOLDER
    for kind in SKIPPED.values():
        files |= kind
    return {path: data for path, data in files.items() if not set(path) & set(excluded)}


def expected(excluded: str = "") -> Planned:
    """Return the paths and labels of the images, the number of labels, and the number of skipped files by kind."""
    files = tree(excluded)
    labels = {path: path.split("/")[-2] if "/" in path else None for path in IMAGES if path in files}
    skipped = {kind: sum(path in files for path in paths) for kind, paths in SKIPPED.items()}
    return sorted(labels.items()), len(set(labels.values()) - {None}), skipped


def planned(address: str) -> Planned:
    """Return the same of a listing."""
    listing = Listing(open_source(address))
    return [(entry.path, entry.label) for entry in listing], listing.labels, dict(listing.skipped)


def write(root: Path, files: dict[str, bytes]) -> None:
    """Write files to a local folder."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

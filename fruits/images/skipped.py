"""Files that a listing skips, by kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from fruits.text import brief, printable

# Folders of operating systems and tools that contain copies, thumbnails or deleted files. Their own files without an
# image, such as Thumbs.db, _SUCCESS and x_$folder$, are recognised by their content.
SYSTEM_FOLDERS = (
    "__MACOSX",  # archives made on macOS
    *("@eaDir", "#recycle", "#snapshot"),  # Synology
    *("@Recycle", "@Recently-Snapshot"),  # QNAP
    *("$RECYCLE.BIN", "RECYCLER", "System Volume Information"),  # Windows
    "lost+found",  # ext4
    "_temporary",  # Hadoop and Spark
)
SKIPPED_FOLDER = re.compile(
    rf"(?:^|/)(?:(?P<hidden>\.(?!\.?/))|(?P<system>(?i:{'|'.join(map(re.escape, SYSTEM_FOLDERS))})(?=/)))[^/]*"
)
NOT_IMAGE, LABEL, LINK, LOOP, SPECIAL = "not-image", "label", "link", "loop", "special"
OLD_VERSION, OTHER_FORMAT = "old-version", "other-format"
# Extensions of images that are not decoded, in lower case: those of phones, cameras and other programs.
OTHER_FORMATS = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".psd", ".tga", ".ppm", ".pgm", ".exr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".dcm"),
)
# The kinds of skipped files: their description, and the option that includes them.
KINDS = {
    NOT_IMAGE: ("files that are not images", ""),
    OTHER_FORMAT: ("images of other formats, which JPEG or PNG can replace", ""),
    LABEL: ("labels (.cls, .json, .txt) without an image next to them", ""),
    "hidden": ("hidden files and folders (.*)", "--include-hidden"),
    "system": ("folders of systems and tools", "--include-hidden"),
    LINK: ("links to folders, and to files outside", "--follow-links"),
    LOOP: ("links to a folder that contains them", ""),
    SPECIAL: ("FIFOs, sockets and devices", ""),
    OLD_VERSION: ("old versions and delete markers", ""),
}


def skipped_by_name(path: str) -> tuple[str, str] | None:
    """Return the kind and the path of the topmost hidden or system folder, or hidden file, in a path."""
    folder, _, name = path.rpartition("/")
    if skipped := _skipped_folder(folder):
        return skipped
    return ("hidden", path) if name.startswith(".") and name not in (".", "..") else None


@lru_cache(maxsize=64)  # files are listed folder by folder; the search takes 3 µs
def _skipped_folder(folder: str) -> tuple[str, str] | None:
    match = SKIPPED_FOLDER.search(f"{folder}/")
    return None if match is None else (str(match.lastgroup), folder[: match.end()])


class SkippedFiles:
    """The files that a listing has skipped so far.

    Attributes
    ----------
    counts : Counter of str
        The number of files by kind; see :data:`KINDS`. A folder that is skipped as a whole counts once.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._last = ""

    def add(self, kind: str, path: str) -> None:
        """Count a file, or the folder that contains it."""
        if kind == NOT_IMAGE and path.lower().endswith(OTHER_FORMATS):
            kind = OTHER_FORMAT
        if path != self._last:  # the files of a skipped folder follow each other
            self.counts[kind] += 1
            self._examples.setdefault(kind, path)
            self._last = path

    def include(self, others: SkippedFiles) -> None:
        """Add the counts of another listing."""
        self.counts += others.counts
        self._examples = others._examples | self._examples

    def describe(self) -> list[str]:
        """Return a line for each kind, with an example and the option that includes its files."""
        return describe_skipped(self.counts, self._examples)


def describe_skipped(skipped: Mapping[str, int], examples: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each kind of skipped files: ``hidden files and folders (.*): 3, such as a/.b; --include-…``."""
    lines = []
    for kind, count in skipped.items():
        description, option = KINDS[kind]
        example = f", such as {printable(brief(examples[kind]))}" if examples else ""
        lines.append(f"{description}: {count:,}{example}" + (f"; {option} includes them" if option else ""))
    return lines

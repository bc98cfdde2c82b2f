"""Verification of a finished output: every file that its last commit lists exists and has the listed SHA-256."""

from __future__ import annotations

from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from fruits.errors import DamageError, ModelError
from fruits.jobs.job import FITTING
from fruits.jobs.output import FOLDERS
from fruits.jobs.report import REPORT, finished, reading
from fruits.jobs.stored import StoredJob
from fruits.model.scaled_pca import ScaledPCA
from fruits.progress.reporter import Progress
from fruits.storage.checksums import MANIFEST, CorruptPart, CorruptPartError, read_part
from fruits.storage.commits import COMMITS, OwnedFolder, owner_in
from fruits.storage.folder import Folder, is_temporary

READERS = 8
LISTS = ("plan/partitions", f"{MANIFEST}/")


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification.

    Attributes
    ----------
    parts, bytes : int
        The number of intact files, and their size.
    corrupt : tuple of CorruptPart
        The missing, the corrupt and the unreadable files.
    unexpected : tuple of str
        Files in the folders of the output that do not belong to it, by name below the output folder. No command reads
        them, and the next command of the job removes those of other jobs, and temporary files and markers. Empty if a
        file is corrupt that lists those of the output.
    """

    parts: int
    bytes: int
    corrupt: tuple[CorruptPart, ...]
    unexpected: tuple[str, ...]

    @property
    def is_intact(self) -> bool:
        """True if no file is corrupt, and ``rows/``, which other programs read whole, contains no unexpected file.

        These programs ignore files whose names start with a dot, as those of temporary files do.
        """
        rows = (name for name in self.unexpected if name.startswith("rows/"))
        return not self.corrupt and all(name.startswith("rows/.") for name in rows)


def verify(address: str, progress: Progress) -> Verification:
    """Read every file of a finished output, and compare it with the last commit.

    Parameters
    ----------
    address : str
        The output folder.
    progress : Progress
        The listener for the count of files.

    Raises
    ------
    OutputError
        The folder contains no finished output, or cannot be listed.
    """
    out = Folder.at(address)
    commit = finished(out)
    corrupt: list[CorruptPart] = []
    expected = {name: bytes.fromhex(known) for name, known in commit.files.items()}
    with suppress(DamageError, OSError):  # a corrupt or unreadable plan is reported as a file
        expected = StoredJob.load(out, commit).final_files()
    intact = size = 0
    with progress.stage("verify", total=len(expected), unit="parts") as stage, ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(partial(_check, out), expected.items()):
            if isinstance(found, CorruptPart):
                corrupt.append(found)
            else:
                intact, size = intact + 1, size + found
            stage.advance(1)
    if commit.job["command"] in FITTING and not any(part.name.startswith("model/") for part in corrupt):
        try:
            ScaledPCA.load(out)
        except ModelError as error:
            corrupt.append(CorruptPart("model", str(error)))
    known = {*expected, OwnedFolder(out, commit.owner).name(REPORT, "html")}
    unexpected: list[str] = []
    if not any(part.name.startswith(LISTS) for part in corrupt):  # which list the files of the output
        with reading(out.address):
            unexpected += _unexpected_files(out, known)
    return Verification(intact, size, tuple(corrupt), tuple(unexpected))


def _check(out: Folder, file: tuple[str, bytes]) -> int | CorruptPart:
    """Return the size of an intact file."""
    name, known = file
    try:
        return len(read_part(out, name, known))
    except CorruptPartError as error:
        return error.part
    except OSError as error:
        return CorruptPart(name, f"cannot be read: {error.strerror or error}")


def _unexpected_files(out: Folder, known: Container[str]) -> Iterator[str]:
    """Yield the files in the folders of an output that are not known."""
    yield from (name for name in out.names() if owner_in(name) and name not in known)
    levels = [f"moments/{name}" for name in (out / "moments").names() if "." not in name]
    for folder in (*FOLDERS, COMMITS, *levels):
        files = (f"{folder}/{file}" for file in (out / folder).names() if folder != COMMITS or is_temporary(file))
        yield from (name for name in files if name not in known and name not in levels)

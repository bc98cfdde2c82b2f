"""Commits: the numbered files that decide which job owns an output folder.

A commit is created only if its number is still free, so that of two jobs that claim a folder at once exactly one
succeeds. The last commit names the owner. The owner is part of the name of every file that a job writes, and each job
compares itself with the last commit right before it publishes or removes files. A job that was suspended while another
one claimed the folder can therefore neither replace nor remove a file of its successor: it can at most publish the one
file that it was about to publish, under its own name, which no reader uses and the next command removes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import orjson

from fruits.errors import OutputError
from fruits.storage.folder import READERS, Folder, encode_json, is_temporary, part_name
from fruits.storage.stores import FileInfo
from fruits.text import brief, utf8

SCHEMA = "fruits.commit/2"
COMMANDS = ("fit", "run", "transform", "predict", "train")
COMMITS = "commits"
NAME = re.compile(r"^([0-9]{8})\.json$")
LAST_NUMBER = 99_999_999
MAX_PARTITION = 2**31
OWNER_DIGITS = 12
# The names of all files of a job below the output folder, and no others: files of these names are removed when their
# owner is not the current one, and 12 hexadecimal digits also end a UUID or are a date and time.
PART, ID = r"part-\d{5,}", rf"[0-9a-f]{{{OWNER_DIGITS}}}"
OWNED = re.compile(
    "|".join(
        (
            rf"report-{ID}\.(?:json|html)",
            rf"plan/(?:{PART}|partitions|accounts)-{ID}\.parquet",
            rf"(?:rejects|features|added|removed)/{PART}-{ID}\.parquet",
            rf"rows/{PART}-{ID}\.\w+",
            rf"moments/(?:total|\w+-\d+/{PART})-{ID}\.safetensors",
            rf"model/(?:model-{ID}\.json|scaled_pca-{ID}\.safetensors)",
            rf"manifest/(?:rejects|features|added|removed|rows|moments\.\w+-\d+)-\d{{5,}}-[0-9a-f]{{8}}-{ID}\.sha256",
        )
    )
)
# Outputs without commits, which earlier versions wrote: the identity of the job, and the names of the other files.
OLD_JOB, OLD_SCHEMA = "job.json", "fruits.job/"
OLD_FILES = re.compile(
    rf"report\.json|\w+/(?:{PART}\.\w+|[\w.-]+-\d{{5}}\.sha256|(?:job|model|report)\.json|scaled_pca\.safetensors)"
    rf"|moments/[\w-]+/{PART}\.\w+"
)
FILE = re.compile(r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")
CHECKSUM = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of an output folder.

    Attributes
    ----------
    number : int
        From 1; the highest number is the current state.
    owner : str
        The 12 hexadecimal digits in the names of the owner's files.
    job : dict
        The identity of the job.
    files : dict of str to str
        The SHA-256 of files by name: that of the plan, and when the job is complete also those of the manifest, the
        model, the moments, the accounts and the report. The plan lists its pages, and the manifest all other parts.
    complete : bool
        Whether the output is complete.
    partition_size : int
        The number of images of a new partition.
    base : int
        The number of the commit of the job whose features this job uses again; 0 if there is none.
    """

    number: int
    owner: str
    job: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    partition_size: int = 1
    base: int = 0

    def encode(self) -> bytes:
        """Return the content of the file of the commit."""
        content = {
            "schema": SCHEMA,
            "owner": self.owner,
            "complete": self.complete,
            "partition_size": self.partition_size,
            "base": self.base,
            "job": self.job,
            "files": self.files,
        }
        return encode_json(content)


@dataclass(frozen=True, slots=True)
class OwnedFolder:
    """An output folder, as the job that owns it writes to it.

    Attributes
    ----------
    folder : Folder
    owner : str
        The owner in the commit of the job; empty for a folder without commits, whose files have plain names.
    commit : int
        The number of a commit of the job: a later one of another owner supersedes it.
    """

    folder: Folder
    owner: str = ""
    commit: int = 0

    def part(self, kind: str, index: int, suffix: str, owner: str = "") -> str:
        """Return the name of a part below the folder, such as ``rows/part-00017-3f9c2a1b4d5e.parquet``.

        `owner` names the job that wrote it, if it is not this one.
        """
        return f"{kind}/{part_name(index, suffix, owner or self.owner)}"

    def name(self, stem: str, suffix: str) -> str:
        """Return the name of another file of the job, below the folder: ``report-3f9c2a1b4d5e.json``."""
        return f"{stem}{self.owner and '-'}{self.owner}.{suffix}"

    def write(self, name: str, data: bytes) -> None:
        """Publish a file of the job, unless the job was superseded, or completed with other content of this file."""

        def check() -> None:
            last = self.check_owner()
            if last is not None and last.complete and last.number > self.commit:
                with suppress(FileNotFoundError):
                    if self.folder.read(name) != data:
                        raise OutputError(
                            f"{self.folder.address} was completed by another command, with other content of {name}: "
                            "an image changed or could not be read in between. This command stopped and changed "
                            "nothing. Run fruits verify."
                        )

        self.folder.write(name, data, check=check)

    def begun(self, name: str) -> AbstractContextManager[bool]:
        """Mark work on a file as begun; see :meth:`fruits.storage.folder.Folder.begun`."""
        folder, _, file = name.rpartition("/")
        return (self.folder / folder).begun(file)

    def check_owner(self) -> Commit | None:
        """Return the last commit of the folder; raise an ``OutputError`` if it is not one of this job.

        The number does not suffice: after the folder was removed or renamed, another job starts at 1 again.
        """
        last = last_commit(self.folder)
        if last is None and self.owner:
            raise OutputError(f"{self.folder.address} was removed while this job ran; it stopped.")
        if last is not None and last.owner != self.owner:
            raise OutputError(
                f"{self.folder.address} was claimed by another job (`overwrite`) while this one ran; it stopped. "
                "Give each job its own `out`."
            )
        return last

    def remove_foreign(self, kinds: Sequence[str], keep: Callable[[str], bool] = lambda name: False) -> None:
        """Remove the files of other jobs, and of outputs without commits, from subfolders.

        Parameters
        ----------
        kinds : sequence of str
            The subfolders; the empty one is the folder itself.
        keep : callable
            Returns whether a file, by name below the folder, is kept nevertheless.
        """
        listed = list(self._names(kinds))
        is_old = any(OLD_JOB in names for kind, names in listed if not kind) and is_old_output(self.folder)

        def is_foreign(name: str) -> bool:
            if (owner := owner_in(name)) is None:
                return is_old and OLD_FILES.fullmatch(name) is not None
            return owner != self.owner and not keep(name)

        for kind, names in listed:
            self._remove(kind, [name for name in names if is_foreign(_below(kind, name))])
        if is_old:
            self._remove("", [OLD_JOB])  # last: it marks the others

    def remove_leftovers(self, kinds: Sequence[str], final: Container[str] | None = None) -> None:
        """Remove the temporary files and markers that killed writers of this job left, and the uploads of any job.

        Parameters
        ----------
        kinds : sequence of str
            The subfolders; the empty one is the folder itself.
        final : container of str, optional
            All files of a complete output, by name below the folder. Other files of any job are removed, too.
        """

        def is_abandoned(name: str) -> bool:
            if owner_in(name) is None:
                return False
            self.check_owner()  # after the upload was listed, so that it cannot be that of a successor
            return True

        def is_left(name: str) -> bool:
            if is_temporary(name.rpartition("/")[2]):
                return final is not None or owner_in(name) in (self.owner, None)
            return final is not None and owner_in(name) is not None and name not in final

        self.folder.abort_uploads(is_abandoned)
        for kind, names in self._names(kinds):
            self._remove(kind, [name for name in names if is_left(_below(kind, name))])

    def remove_earlier(self, commit: Commit) -> None:
        """Remove the commits before that of a complete output, which describe lists of images that are outdated."""
        names = self._subfolder(COMMITS).names()
        self._remove(COMMITS, [name for name in names if NAME.match(name) and int(name[:8]) < commit.number])

    def _names(self, kinds: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield each subfolder and the names in it. On S3, they are listed at once; not all stores allow it."""
        if self.folder.s3 is None:
            yield from ((kind, self._subfolder(kind).names()) for kind in kinds)
            return
        with ThreadPoolExecutor(READERS) as pool:
            yield from zip(kinds, pool.map(lambda kind: self._subfolder(kind).names(), kinds), strict=True)

    def _remove(self, kind: str, names: Sequence[str]) -> None:
        """Remove files, if there are any, unless the job was superseded.

        Their names were read before the owner is checked, so that they cannot be those of a successor.
        """
        if names:
            self.check_owner()
            self._subfolder(kind).remove_files(names)

    def _subfolder(self, kind: str) -> Folder:
        return self.folder / kind if kind else self.folder


def _below(kind: str, name: str) -> str:
    """Return the name of a file of a subfolder, below the output folder."""
    return f"{kind}/{name}" if kind else name


def owner_in(name: str) -> str | None:
    """Return the owner in the name of a file below an output, also of a temporary file or marker; None if it has none.

    Examples
    --------
    >>> owner_in("rows/part-00017-3f9c2a1b4d5e.parquet"), owner_in("rows/notes-3f9c2a1b4d5e.parquet")
    ('3f9c2a1b4d5e', None)
    """
    folder, slash, file = name.rpartition("/")
    if is_temporary(file):
        file = file[1:].removesuffix(".tmp").rpartition(".")[0]  # .NAME.UUID.tmp or .NAME.begun.tmp
    return file.rpartition(".")[0][-OWNER_DIGITS:] if OWNED.fullmatch(f"{folder}{slash}{file}") else None


def is_old_output(folder: Folder) -> bool:
    """Return whether a folder contains the output of an earlier version, which had no commits."""
    try:
        return str(folder.read_json(OLD_JOB).get("schema")).startswith(OLD_SCHEMA)
    except (OSError, OutputError):  # a file or a folder of the user
        return False


def last_number(folder: Folder) -> int:
    """Return the number of the last commit of a folder; 0 if there is none."""
    return _last(folder)[0]


def last_commit(folder: Folder) -> Commit | None:
    """Return the current state of a folder; None if no job owns it.

    Raises
    ------
    OutputError
        The commit is corrupt.
    """
    number, file = _last(folder)
    while number:
        try:
            # A job asks before each write. On S3, it reads a commit once: another content has another ETag.
            return _known_commit(folder, number, file) if file and file.version else read_commit(folder, number)
        except FileNotFoundError:  # its job was completed since, and has removed it
            earlier, (number, file) = number, _last(folder)
            if number == earlier:
                raise
    return None


def _last(folder: Folder) -> tuple[int, FileInfo | None]:
    """Return the number of the last commit of a folder, 0 if there is none, and on S3 its entry with its ETag."""
    commits = folder / COMMITS
    files = dict.fromkeys(commits.names()) if folder.s3 is None else commits.files()
    last = max((name for name in files if NAME.match(name)), default=None)
    return (0, None) if last is None else (int(last[:8]), files[last])


@lru_cache(maxsize=16)
def _known_commit(folder: Folder, number: int, file: FileInfo) -> Commit:
    return read_commit(folder, number)


def read_commit(folder: Folder, number: int) -> Commit:
    """Return a commit.

    Raises
    ------
    OutputError
        The commit is corrupt, or of an earlier version of Fruits.
    FileNotFoundError
        There is none with this number.
    """
    name = f"{COMMITS}/{number:08d}.json"
    content = folder.read_json(name)
    match content:
        case {
            "schema": str(schema),
            "owner": str(owner),
            "complete": bool(complete),
            "partition_size": int(size),
            "base": int(base),
            "job": dict(job),
            "files": dict(files),
        } if schema == SCHEMA and re.fullmatch(rf"[0-9a-f]{{{OWNER_DIGITS}}}", owner):
            if 1 <= size <= MAX_PARTITION and 0 <= base < number and _is_valid(job, files):
                return Commit(number, owner, job, files, complete, size, base)
        case {"schema": str(schema)} if schema.startswith("fruits.commit/") and schema != SCHEMA:
            raise OutputError(
                f"{folder.address} contains the output of another version of Fruits ({brief(schema)}, this version "
                f"reads {SCHEMA}). Use `overwrite` to replace it, or give another folder."
            )
    raise OutputError(f"{folder.address}/{name} is corrupt. Use `overwrite` to start over.")


def _is_valid(job: Mapping[str, Any], files: Mapping[str, Any]) -> bool:
    """Return whether readers can use the content of a commit, which may come from someone else."""
    names = all(FILE.match(name) and isinstance(value, str) and CHECKSUM.match(value) for name, value in files.items())
    suffix = job.get("format", "parquet")
    return names and job.get("command") in COMMANDS and isinstance(suffix, str) and suffix.isalnum()


def claim(
    folder: Folder,
    job: Mapping[str, Any],
    files: Mapping[str, str],
    number: int,
    *,
    partition_size: int = 1,
    base: int = 0,
) -> Commit | None:
    """Create the commit with which a job takes over a folder; return None if another one was faster.

    Parameters
    ----------
    folder : Folder
    job : mapping
        The identity of the job.
    files : mapping of str to str
        The SHA-256 of the files of its plan, by a name with ``{owner}`` for the owner.
    number : int
        The number of the commit: one more than that of the state that was read.
    partition_size, base : int
        See :class:`Commit`.
    """
    if number >= LAST_NUMBER:
        raise OutputError(f"{folder.address}/{COMMITS} contains the highest number. Give another `out`.")
    # With the plan: after the folder was removed, the same job in other partitions is another owner.
    identity = orjson.dumps([number, utf8(dict(job)), dict(files), partition_size], option=orjson.OPT_SORT_KEYS)
    owner = hashlib.sha256(identity).hexdigest()[:OWNER_DIGITS]
    named = {name.format(owner=owner): value for name, value in files.items()}
    commit = Commit(number, owner, utf8(dict(job)), named, False, partition_size, base)
    return commit if _create(folder, commit) else None


def complete(folder: Folder, started: Commit, files: Mapping[str, str]) -> bool:
    """Create the commit that marks the output of a job as complete; return whether it is the last one."""
    OwnedFolder(folder, started.owner, started.number).check_owner()
    return _create(folder, replace(started, number=started.number + 1, files=dict(files), complete=True, base=0))


def _create(folder: Folder, commit: Commit) -> bool:
    name, data = f"{COMMITS}/{commit.number:08d}.json", commit.encode()
    # A PUT that was repeated after a lost response finds its own object.
    return folder.create(name, data) or folder.read(name) == data

"""A local folder into a bucket: ``fruits cluster push``. Only what changed goes up, and it goes on where it stopped."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fruits.errors import SettingsError, StorageError
from fruits.storage.folder import Folder
from fruits.storage.stores import is_s3

if TYPE_CHECKING:
    from fruits.storage.s3.file_system import S3FileSystem, Stored

__all__ = ["Pushed", "push"]

AT_ONCE = 32
AT_ONCE_BYTES = 256 * 2**20
MD5 = re.compile("^[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class Pushed:
    """How far a push is, or what it did.

    Attributes
    ----------
    files, bytes : int
        All that the local folder holds.
    uploaded, uploaded_bytes : int
        What went up.
    unchanged, unchanged_bytes : int
        What was there already.
    """

    files: int
    bytes: int
    uploaded: int = 0
    uploaded_bytes: int = 0
    unchanged: int = 0
    unchanged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Local:
    path: str  # below the folder, with "/"
    file: str
    size: int
    modified: float


def push(source: str | Path, address: str, *, progress: Callable[[Pushed], None] | None = None) -> Pushed:
    """Upload the files of a folder, each below `address` by its path, many at a time, and return what was done.

    A file that the bucket has with the same content stays as it is: the same size, and an ETag that is the MD5 of the
    content. Where the ETag is none (an upload in parts, or an object that KMS encrypts), what was stored after the
    local file was last changed counts as the same. A file appears whole or not at all, so that a push which was stopped
    goes on when it is started again. Nothing is removed from the bucket; before a file goes up in parts, unfinished
    uploads of the same name are aborted, as a push that was killed leaves them.

    Parameters
    ----------
    source : str or Path
        A local folder; links to files are followed, links to folders are not.
    address : str
        ``s3://bucket`` or ``s3://bucket/folder``.
    progress : callable, optional
        Is told, here, after each file how far it is.

    Raises
    ------
    InputError
        There is no such folder or nothing in it, or the address is not on S3 or cannot be written.
    StorageError
        A file could not be uploaded. What is uploaded stays.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise SettingsError(f"{source}: no such folder. Give the local folder that is to be uploaded.")
    if not address.startswith(("s3://", "s3a://")):
        raise SettingsError(f"{address}: not on S3. Give an address such as s3://my-fruits/images.")
    try:
        sizes = [file.size for file in _walk(str(root), "")]
        done = Pushed(len(sizes), sum(sizes))
        if not sizes:
            raise SettingsError(f"{source}: there is no file in it. Give the local folder that is to be uploaded.")
        target = Folder.at(address)
        target.check()
        return _upload(root, target, done, progress or (lambda _: None))
    except OSError as error:
        raise StorageError(
            f"{source} to {address}: {error}. What is uploaded stays: mend the cause, then start it again."
        ) from error


def _upload(root: Path, target: Folder, done: Pushed, progress: Callable[[Pushed], None]) -> Pushed:
    file_system, path = target.open()
    assert is_s3(file_system)
    under_way: deque[tuple[Future[None], int]] = deque()

    def finish_one() -> None:
        nonlocal done
        future, size = under_way.popleft()
        future.result()
        done = replace(done, uploaded=done.uploaded + 1, uploaded_bytes=done.uploaded_bytes + size)
        progress(done)

    try:
        for local, stored in _side_by_side(_walk(str(root), ""), _stored(file_system, path)):
            if stored is not None and _is_same(file_system, f"{path}/{stored.path}", local, stored):
                done = replace(done, unchanged=done.unchanged + 1, unchanged_bytes=done.unchanged_bytes + local.size)
                progress(done)
                continue
            while under_way and (len(under_way) >= AT_ONCE or sum(size for _, size in under_way) > AT_ONCE_BYTES):
                finish_one()
            upload = file_system.upload(local.file, f"{path}/{local.path}")
            under_way.append((asyncio.run_coroutine_threadsafe(upload, file_system.loop), local.size))
        while under_way:
            finish_one()
    finally:
        for future, _ in under_way:
            future.cancel()
    return done


def _walk(folder: str, prefix: str) -> Iterator[_Local]:
    """Yield the files of a folder in code-point order of their paths, which is how S3 lists them."""
    with os.scandir(folder) as entries:
        found = {entry.name + "/" * entry.is_dir(follow_symlinks=False): entry for entry in entries}
    for name in sorted(found):
        entry = found[name]
        if name.endswith("/"):
            yield from _walk(entry.path, prefix + name)
        elif entry.is_file():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise SettingsError(f"{entry.path!r}: its name is not UTF-8, which S3 needs. Rename it.") from None
            state = entry.stat()
            yield _Local(prefix + name, entry.path, state.st_size, state.st_mtime)


def _stored(file_system: S3FileSystem, path: str) -> Iterator[Stored]:
    for page in file_system.pages(path):
        yield from page.files


def _side_by_side(here: Iterator[_Local], there: Iterator[Stored]) -> Iterator[tuple[_Local, Stored | None]]:
    """Yield each local file with what the bucket has under its path; both come in the order of the paths."""
    stored = next(there, None)
    for local in here:
        while stored is not None and stored.path < local.path:
            stored = next(there, None)
        yield local, stored if stored is not None and stored.path == local.path else None


def _is_same(file_system: S3FileSystem, path: str, local: _Local, stored: Stored) -> bool:
    if local.size != stored.size:
        return False
    if MD5.match(stored.etag):
        with open(local.file, "rb") as file:
            content = hashlib.md5(usedforsecurity=False)
            while chunk := file.read(2**20):
                content.update(chunk)
        if content.hexdigest() == stored.etag:
            return True
        if not file_system.is_encrypted_by_kms(path):
            return False
    return stored.modified > datetime.fromtimestamp(local.modified, UTC)

"""Files of this machine: read where they are regular files, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["mark", "read", "read_head", "stats", "too_large", "write"]


def read(path: str, limit: int | None = None) -> tuple[bytes, str]:
    """Return the bytes of a file, and its version: when it was written.

    Raises
    ------
    OSError
        It is no regular file, as a FIFO or a device, or larger than `limit` bytes: EFBIG.
    """
    file = _open_regular(path)
    try:
        size = os.fstat(file).st_size
        if limit is not None and size > limit:
            raise too_large(path)
        data = os.read(file, size + 1)  # one more, so that a file which has grown is not taken for whole
        while len(data) < size and (more := os.read(file, size + 1 - len(data))):  # 2 GiB is all that one call reads
            data += more
        return data, str(os.fstat(file).st_mtime)  # after reading, so that no writing is missed
    finally:
        os.close(file)


def read_head(path: str, count: int) -> bytes | OSError:
    """Return the first `count` bytes of a file, or the error that came of reading it."""
    try:
        file = _open_regular(path)
    except OSError as error:
        return error
    try:
        return os.read(file, count)
    except OSError as error:
        return error
    finally:
        os.close(file)


def too_large(path: str) -> OSError:
    """Return the error of a file that has more bytes than it may."""
    return OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)


def write(path: Path, data: bytes, *, again: bool = True) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except FileNotFoundError:  # swept away by another command that has just finished the same job
        if not again:
            raise
        write(path, data, again=False)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def mark(path: Path) -> bool:
    """Make an empty file, and tell whether it was there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def stats(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files in a folder, by name; none where it does not exist."""
    try:
        names = sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        with suppress(FileNotFoundError):  # a temporary name, which a writer has meanwhile given up for the file's own
            told = os.stat(os.path.join(path, name))
            if stat.S_ISREG(told.st_mode):
                yield name, told


def _open_regular(path: str) -> int:
    """Return a regular file, open to be read; to open a FIFO or a device must neither wait nor be taken for one."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.ENXIO, "Not a regular file", path)

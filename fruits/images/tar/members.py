"""The members of a tar archive, from its headers: ustar, pax and GNU, by byte offsets in one file.

``tarfile`` parses each header block, with its checksum. Its ``TarFile`` is not used: at a corrupt or missing header
after the first one it ends as if the archive were complete, it follows extension headers recursively, and it reads
extension headers of any size. An archive that ends anywhere before its two zero blocks is an error here.

============================================ ===============================================================
member                                       treatment
============================================ ===============================================================
regular file                                 yielded
folder                                       ignored
hard or symbolic link                        error: its content is elsewhere
sparse file, volume header, unknown type     error
absolute path, path with ``..``, empty path  error
FIFO, device                                 yielded as special; the caller counts it
negative size, size beyond the end           error
============================================ ===============================================================
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from fruits.errors import DatasetError
from fruits.text import brief, printable

BLOCK = 512
END = bytes(2 * BLOCK)  # of an archive
MAX_EXTENSION = 2**20  # bytes of an extension header; paths have at most 4,096
MAX_TAIL = 2**20  # bytes after the end, which writers fill with zeros up to a multiple of, by default, 10,240
FEW, MANY = 2**16, 2**23  # bytes of a request
NEAR = 2**20  # bytes up to the next header: below, reading on costs less than another request (30 ms)

ENCODING = ("utf-8", "surrogateescape")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
SPECIAL = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
CONCERNS_DATA = (b"path", b"size", b"GNU.sparse.")  # keys of pax records that must not be global


class Member(NamedTuple):
    """A member of an archive.

    Attributes
    ----------
    path : str
        Its name, without ``./`` at the start.
    position : int
        Byte offset of its content.
    size : int
        Bytes of its content.
    is_file : bool
        False for a FIFO or a device.
    """

    path: str
    position: int
    size: int
    is_file: bool = True


class Window:
    """A file that is read by ranges, in the order of its bytes.

    Parameters
    ----------
    name : str
        The file in messages.
    size : int
        Its size in bytes.
    read : callable
        Returns the bytes from a start to an end.
    """

    def __init__(self, name: str, size: int, read: Callable[[int, int], bytes]) -> None:
        self.name = name
        self.size = size
        self._read = read
        self._start = 0
        self._data = b""
        self._requests = 0

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on; fewer at the end of the file.

        A request reads 8 MiB where it follows the last one closely, as it does while members are small. The first one,
        and one after a jump over a large member, reads 64 KiB.
        """
        begin = start - self._start
        if begin < 0 or begin + count > len(self._data):
            follows = begin <= len(self._data) + NEAR and self._requests > 0
            end = min(max(start + count, start + (MANY if follows else FEW)), self.size)
            self._data = self._read(start, end) if start < end else b""
            self._start, begin = start, 0
            self._requests += 1
            if len(self._data) < end - start:
                self.fail(start + len(self._data), "the file became shorter while it was read")
        return self._data[begin : begin + count]

    def fail(self, position: int, problem: str, remedy: str = "Write or copy the archive again.") -> NoReturn:
        """Raise the error of the archive at a position."""
        raise DatasetError(f"{self.name}: at byte {position:,}: {problem}. {remedy}")


def read_members(window: Window) -> Iterator[Member]:
    """Yield the members of an archive, in their order; see the table of the module.

    Only headers are read. Memory does not grow with the archive.

    Raises
    ------
    DatasetError
        The archive is truncated, corrupt or compressed, or a member is refused; the message states the byte offset.
    """
    place = 0
    extended: dict[bytes, bytes] = {}
    while (header := _header(window, place)) is not None:
        data = place + BLOCK
        if header.type in EXTENSIONS:
            extended |= _extension(window, header, place)
            place = data + padded(header.size)
            continue
        size = _size(window, header, extended, place)
        path = extended[b"path"].decode(*ENCODING) if b"path" in extended else header.name
        if any(key.startswith(b"GNU.sparse.") for key in extended) or header.type == tarfile.GNUTYPE_SPARSE:
            window.fail(place, f"{_shown(path)} is a sparse file", "Pack it again without --sparse.")
        extended = {}
        is_folder = header.isdir() or path.endswith("/")
        if not is_folder:
            path = path.removeprefix("./")
            _check(window, header, path, place)
        place = data if is_folder or header.type in SPECIAL else data + padded(size)
        if is_folder:
            continue
        if header.type not in SPECIAL and data + size > window.size:
            problem = f"{_shown(path)} has {size:,} bytes, and the file ends at {window.size:,}"
            window.fail(data, f"the archive is truncated: {problem}")
        yield Member(path, data, size, header.type not in SPECIAL)
    if extended:
        window.fail(place, "the archive ends after an extension header, without its member")
    _check_end(window, place)


def padded(size: int) -> int:
    """Return a size rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def _header(window: Window, place: int) -> tarfile.TarInfo | None:
    """Return the header at a place, or None at the end of the archive."""
    block = window.read(place, BLOCK)
    if len(block) < BLOCK:
        window.fail(place, f"the archive is truncated: {len(block)} bytes instead of a header or the final zeros")
    try:
        return tarfile.TarInfo.frombuf(block, *ENCODING)
    except tarfile.HeaderError as error:
        if not any(block):
            return None
        if place == 0:
            for magic, name in COMPRESSED.items():
                if block.startswith(magic):
                    window.fail(0, f"the archive is compressed with {name}", DECOMPRESS)
        window.fail(place, f"not a header of tar: {error}")


DECOMPRESS = "Decompress it: bytes of a compressed archive cannot be read by offset, and images do not become smaller."


def _size(window: Window, header: tarfile.TarInfo, extended: dict[bytes, bytes], place: int) -> int:
    if (text := extended.get(b"size")) is None:
        size = header.size
    elif text.isdigit() and len(text) < 20:
        size = int(text)
    else:
        window.fail(place, f"the size {_shown(text.decode(*ENCODING))} of a member is not a number of bytes")
    if size < 0:
        window.fail(place, f"a member has the size {size:,}")
    return size


def _extension(window: Window, header: tarfile.TarInfo, place: int) -> dict[bytes, bytes]:
    """Return what an extension header changes for the next member."""
    if not 0 <= header.size <= MAX_EXTENSION:
        window.fail(place, f"an extension header of {header.size:,} bytes; at most {MAX_EXTENSION:,} are allowed")
    data = window.read(place + BLOCK, header.size)
    if len(data) < header.size:
        window.fail(place, "the archive is truncated: an extension header ends after the file")
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {b"path": data.partition(b"\0")[0]}
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return {}
    records = dict(_records(window, data, place))
    if header.type == tarfile.XHDTYPE:
        return records
    if named := [key for key in records if key.startswith(CONCERNS_DATA)]:
        window.fail(place, f"a global header sets {named[0].decode(*ENCODING)} for all members")
    return {}


def _records(window: Window, data: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of a pax header: lines ``LENGTH KEY=VALUE``; the length is that of the whole line."""
    start = 0
    while start < len(data) and data[start]:
        length, space, _ = data[start : start + 20].partition(b" ")
        end = start + int(length) if length.isdigit() else 0
        record = data[start + len(length) + 1 : end]
        key, equals, value = record.partition(b"=")
        if not space or not equals or end > len(data) or value[-1:] != b"\n":
            window.fail(place, "an extension header is corrupt")
        yield key, value[:-1]
        start = end


def _check(window: Window, header: tarfile.TarInfo, path: str, place: int) -> None:
    """Refuse a member that is no file, or whose path is not one below a folder."""
    if header.type in LINKS:
        remedy = "Pack the files themselves: tar --dereference --hard-dereference."
        window.fail(place, f"{_shown(path)} is a link to {_shown(header.linkname)}", remedy)
    if header.type not in SPECIAL and header.type not in tarfile.REGULAR_TYPES:
        kind = header.type.decode("latin-1")
        window.fail(place, f"{_shown(path)} is a member of the unknown type {kind!r}", "Pack its file again.")
    if not path or "\0" in path or path.startswith("/") or ".." in path.split("/"):
        remedy = "Pack it again with relative paths, such as: tar -C FOLDER -cf photos.tar ."
        window.fail(place, f"the path {_shown(path)} is not one below a folder", remedy)


def _check_end(window: Window, place: int) -> None:
    """Require two zero blocks, and nothing but zeros after them: another archive would be left out."""
    tail = window.read(place, min(max(len(END), window.size - place), MAX_TAIL))
    if len(tail) < len(END):
        window.fail(place, f"the archive is truncated: it ends with {len(tail):,} zeros instead of {len(END):,}")
    if any(tail):
        other = place + len(tail) - len(tail.lstrip(b"\0"))
        remedy = "Give archives one by one instead of joining them."
        window.fail(other, f"bytes follow the end of the archive at {place:,}", remedy)


def _shown(path: str) -> str:
    return printable(brief(path)) or "''"

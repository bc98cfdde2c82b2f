"""Tar archives in memory, for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

from fruits.images.tar.members import Member, Window, read_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
JPEG = b"\xff\xd8\xff\xe0 the rest does not matter to a listing"


def archive(
    files: Iterable[tuple[str, bytes] | tarfile.TarInfo], form: str = "gnu", **options: dict[str, str]
) -> bytes:
    """Return the bytes of an archive of files and of other members, as ``tarfile`` writes it."""
    data = io.BytesIO()
    with tarfile.open(
        fileobj=data, mode="w", format=FORMATS[form], encoding="utf-8", errors="surrogateescape", **options
    ) as tar:
        for file in files:
            if isinstance(file, tarfile.TarInfo):
                tar.addfile(file)
            else:
                tar.addfile(member(file[0], size=len(file[1])), io.BytesIO(file[1]))
    return data.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    """Return a header with some of its fields."""
    header = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(header, field, value)
    return header


def window(data: bytes) -> Window:
    """Return an archive as it is read by ranges."""
    return Window("x.tar", len(data), lambda start, end: data[start:end])


def listed(data: bytes) -> list[Member]:
    """Return the members of an archive."""
    return list(read_members(window(data)))

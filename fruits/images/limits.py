"""Of how many pieces a picture file is made before its picture.

Pillow keeps something of each, a hundred bytes of one that has twelve, and passes over the whole picture for each scan
of a JPEG. Cameras and editors write a few; where somebody wrote millions, to decode the file would take gigabytes or
hours. They are counted without being read: what only looks like a piece, within one or behind the picture, is none.
"""

from __future__ import annotations

import re
import struct

__all__ = ["MAX_SCANS", "MAX_SEGMENTS", "MAX_VALUES", "too_many"]

MAX_SCANS = 100  # of a JPEG; encoders write 10, and libtiff stops here too
MAX_SEGMENTS = 100_000  # of a JPEG or GIF; chunks of a PNG, which have 8 kB each in a large one; tags of a TIFF
MAX_VALUES = 1_000_000  # of a tag of a TIFF: a strip for every row of the highest picture that is allowed
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # of a segment that has a length, or the last; a scan holds none
GIF_HEADER = 13
KEPT_AS_BYTES = {1, 2, 7}  # the types BYTE, ASCII and UNDEFINED of a TIFF; values of others become numbers, one by one


def too_many(data: bytes) -> str | None:
    """Return in words what a file, in any format, has too many of; None where it does not."""
    if data.startswith(b"\xff\xd8"):
        return _of_jpeg(data)
    if data.startswith(b"\x89PNG"):
        return _of_png(data)
    if data.startswith((b"II", b"MM")):
        return _of_tiff(data)
    if data.startswith(b"GIF"):
        return _of_gif(data)
    return None


def _of_jpeg(data: bytes) -> str | None:
    many = data.count(START_OF_SCAN) > MAX_SCANS  # in a thumbnail, or behind the picture, it begins nothing
    scans = place = 0
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.search(data, place)
        if marker is None or marker[0] == END_OF_IMAGE:
            return None
        if marker[0] == START_OF_SCAN:
            scans += 1
            if not many:
                return None
            if scans > MAX_SCANS:
                return f"more than {MAX_SCANS} scans"
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return f"more than {MAX_SEGMENTS:,} segments"


def _of_png(data: bytes) -> str | None:
    place = 8
    for _ in range(MAX_SEGMENTS):
        if place >= len(data) or data[place + 4 : place + 8] == b"IEND":
            return None
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return f"more than {MAX_SEGMENTS:,} chunks"


def _of_tiff(data: bytes) -> str | None:
    order = "<" if data.startswith(b"II") else ">"
    long, number, offset, tag = ("Q", "Q", 8, "HHQ8s") if data[2:4] in (b"+\0", b"\0+") else ("L", "H", 4, "HHL4s")
    try:
        (start,) = struct.unpack_from(order + long, data, offset)
        (tags,) = struct.unpack_from(order + number, data, start)
    except struct.error:  # it ends before; Pillow will say so
        return None
    if tags > MAX_SEGMENTS:
        return f"more than {MAX_SEGMENTS:,} tags"
    layout = struct.Struct(order + tag)
    start += struct.calcsize(order + number)
    directory = data[start : start + tags * layout.size]
    whole = len(directory) - len(directory) % layout.size
    for _, kind, values, _ in layout.iter_unpack(directory[:whole]):
        if values > MAX_VALUES and kind not in KEPT_AS_BYTES:
            return f"a tag of more than {MAX_VALUES:,} values"
    return None


def _of_gif(data: bytes) -> str | None:
    def palette(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 128 else 0

    place = GIF_HEADER + palette(data[GIF_HEADER - 3]) if len(data) >= GIF_HEADER else len(data)
    inside = False  # an extension, which is made of blocks that each begin with their length
    for _ in range(MAX_SEGMENTS):
        if place >= len(data):
            return None
        if inside:
            inside = data[place] > 0
            place += 1 + data[place]
        elif data[place] == ord("!"):
            inside, place = True, place + 2
        elif data[place] in b",;":
            return None
        else:
            place += 1  # as Pillow passes over what is neither
    return f"more than {MAX_SEGMENTS:,} blocks"

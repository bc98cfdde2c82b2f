"""Limits on the segments of an image file, checked before decoding to reject decompression bombs.

Pillow allocates memory for every segment, up to 100 bytes for one of 12, and processes the whole image for each scan
of a JPEG. Cameras and editors write a few; a file with millions would take gigabytes or hours to decode. The segments
are counted by their length fields, so that bytes inside a segment or after the image are not counted.
"""

from __future__ import annotations

import re
import struct

__all__ = ["MAX_SCANS", "MAX_SEGMENTS", "MAX_VALUES", "exceeded_limit"]

MAX_SCANS = 100  # of a JPEG; encoders write 10, and libtiff has the same limit
MAX_SEGMENTS = 100_000  # of a JPEG or GIF, chunks of a PNG (8 kB each in a large one), tags of a TIFF
MAX_VALUES = 1_000_000  # of a TIFF tag: one strip per row of the tallest image that is allowed
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # the start of a JPEG segment with a length, or the end of the image
GIF_HEADER = 13
BYTE_TYPES = {1, 2, 7}  # TIFF types BYTE, ASCII and UNDEFINED; Pillow converts values of other types one by one


def exceeded_limit(data: bytes) -> str | None:
    """Return the first limit that an image file exceeds, such as ``more than 100 scans``, or None."""
    if data.startswith(b"\xff\xd8"):
        return _exceeded_in_jpeg(data)
    if data.startswith(b"\x89PNG"):
        return _exceeded_in_png(data)
    if data.startswith((b"II", b"MM")):
        return _exceeded_in_tiff(data)
    if data.startswith(b"GIF"):
        return _exceeded_in_gif(data)
    return None


def _exceeded_in_jpeg(data: bytes) -> str | None:
    # An upper bound: the two bytes also occur in thumbnails and after the image.
    may_exceed = data.count(START_OF_SCAN) > MAX_SCANS
    scans = place = 0
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.search(data, place)
        if marker is None or marker[0] == END_OF_IMAGE:
            return None
        if marker[0] == START_OF_SCAN:
            scans += 1
            if not may_exceed:
                return None
            if scans > MAX_SCANS:
                return f"more than {MAX_SCANS} scans"
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return f"more than {MAX_SEGMENTS:,} segments"


def _exceeded_in_png(data: bytes) -> str | None:
    place = 8
    for _ in range(MAX_SEGMENTS):
        if place >= len(data) or data[place + 4 : place + 8] == b"IEND":
            return None
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return f"more than {MAX_SEGMENTS:,} chunks"


def _exceeded_in_tiff(data: bytes) -> str | None:
    order = "<" if data.startswith(b"II") else ">"
    long, number, offset, tag = ("Q", "Q", 8, "HHQ8s") if data[2:4] in (b"+\0", b"\0+") else ("L", "H", 4, "HHL4s")
    try:
        (start,) = struct.unpack_from(order + long, data, offset)
        (tags,) = struct.unpack_from(order + number, data, start)
    except struct.error:  # a truncated file, which Pillow rejects
        return None
    if tags > MAX_SEGMENTS:
        return f"more than {MAX_SEGMENTS:,} tags"
    layout = struct.Struct(order + tag)
    start += struct.calcsize(order + number)
    directory = data[start : start + tags * layout.size]
    complete = len(directory) - len(directory) % layout.size
    for _, kind, values, _ in layout.iter_unpack(directory[:complete]):
        if values > MAX_VALUES and kind not in BYTE_TYPES:
            return f"a tag of more than {MAX_VALUES:,} values"
    return None


def _exceeded_in_gif(data: bytes) -> str | None:
    def palette(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 128 else 0

    place = GIF_HEADER + palette(data[GIF_HEADER - 3]) if len(data) >= GIF_HEADER else len(data)
    in_extension = False  # a series of blocks, each after its length
    for _ in range(MAX_SEGMENTS):
        if place >= len(data):
            return None
        if in_extension:
            in_extension = data[place] > 0
            place += 1 + data[place]
        elif data[place] == ord("!"):
            in_extension, place = True, place + 2
        elif data[place] in b",;":
            return None
        else:
            place += 1  # Pillow skips unknown bytes too
    return f"more than {MAX_SEGMENTS:,} blocks"

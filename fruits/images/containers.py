"""Segments of image files: their number is limited, and metadata is hidden from Pillow.

Pillow parses text, EXIF, XMP and colour profiles, none of which changes the pixels. Parsing can fail, take quadratic
time (EXIF segments of a JPEG) or gigabytes (values of a tag). So the segments are listed here by their length fields:
metadata is skipped, and of EXIF only the orientation is read. Encoders write a few segments and scans; a file with
many is a decompression bomb, because Pillow processes the whole image for each scan of a JPEG.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO

from fruits.images.tiff import LimitError, read_directory

MAX_SCANS = 100  # of a JPEG; encoders write 10, and libtiff has the same limit
MAX_SEGMENTS = 100_000  # of a JPEG or GIF, chunks of a PNG (8 kB each in a large one) or WebP
MAX_EXIF = 2**20  # bytes that are searched for the orientation; the longest directory has 800 kB
SOI, EOI, SOS, COM = b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xfe"
APP0, APP1, APP14, APP15 = b"\xff\xe0", b"\xff\xe1", b"\xff\xee", b"\xff\xef"
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # the start of a JPEG segment with a length, or the end of the image
EXIF = b"Exif\0\0"
COLOUR_SEGMENTS = {APP0: (b"JFIF\0", 14), APP14: (b"Adobe", 12)}  # libjpeg takes the colour space from them
GIF_HEADER = 13
TRANSPARENT = {0: 2, 2: 6}  # bytes of the transparent colour of a PNG, by its colour type
WEBP_HEADER = 12
WEBP_CHUNKS = {b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"}  # those of pixels
WEBP_FLAGS = 8  # offset in the chunk VP8X
WEBP_EXIF, WEBP_ALPHA = 8, 16
ORIENTATION = 274


@dataclass(frozen=True, slots=True)
class Container:
    """An image file for Pillow: its bytes, the segments to skip, by start and end, and the EXIF orientation."""

    data: bytes
    skipped: Mapping[int, int] = field(default_factory=dict)
    orientation: int = 1

    def open(self, ending: bytes = b"") -> BytesIO:
        """Return the file for Pillow, with `ending` after its last byte."""
        return _Skipping(self.data, self.skipped, ending) if self.skipped or ending else BytesIO(self.data)


class _Skipping(BytesIO):
    """A file without some of its segments; it shares the memory of the data."""

    def __init__(self, data: bytes, skipped: Mapping[int, int], ending: bytes) -> None:
        super().__init__(data)
        self._skipped, self._starts, self._ending = skipped, sorted(skipped), ending

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most `size` bytes, up to the next skipped segment."""
        while (end := self._skipped.get(self.tell())) is not None:
            self.seek(end)
        index = bisect(self._starts, self.tell())
        if index < len(self._starts):
            space = self._starts[index] - self.tell()
            size = min(size, space) if size is not None and size >= 0 else space
        data = super().read(size)
        if not data:
            data, self._ending = self._ending, b""
        return data


def parse(data: bytes) -> Container:
    """List the segments of an image file.

    Raises
    ------
    LimitError
        The file has too many segments or scans.
    """
    if data.startswith(SOI):
        return _jpeg(data)
    if data.startswith(b"\x89PNG"):
        return _png(data)
    if data.startswith(b"RIFF"):
        return _webp(data)
    if data.startswith(b"GIF"):
        _check_gif(data)
    return Container(data)


def _exif_orientation(data: bytes, start: int, end: int) -> int:
    exif = data[start : min(end, start + MAX_EXIF)]
    try:
        return read_directory(exif.removeprefix(EXIF), {ORIENTATION}).get(ORIENTATION, (1,))[0]
    except LimitError:  # corrupt metadata; viewers show the pixels as stored
        return 1


def _jpeg(data: bytes) -> Container:
    # An upper bound: the two bytes also occur in thumbnails and after the image.
    may_exceed = data.count(SOS) > MAX_SCANS
    skipped: dict[int, int] = {}

    def skip(start: int, end: int) -> None:
        start = max(start, len(SOI) + 1)  # Pillow reads the first three bytes together; the third is then a fill byte
        if start < end:
            skipped[start] = end

    orientation = None
    scans, place = 0, len(SOI)
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.search(data, place)
        if scans == 0 and (marker is None or marker[0] == EOI):
            skip(place, len(data))  # without a scan
        if marker is None or marker[0] == EOI:
            break
        if marker.start() > place and scans == 0:
            skip(place, marker.start())  # fill bytes, of which Pillow reads a million in a second
        if marker[0] == SOS:
            scans += 1
            if not may_exceed:
                break
            if scans > MAX_SCANS:
                raise LimitError(f"more than {MAX_SCANS} scans")
        body = marker.end() + 2
        place = marker.end() + int.from_bytes(data[marker.end() : body], "big")
        if APP0 <= marker[0] <= APP15 or marker[0] == COM:
            name, length = COLOUR_SEGMENTS.get(marker[0], (b"", 0))
            if not name or not data.startswith(name, body) or place - body < length:
                skip(marker.start(), place)
            if orientation is None and marker[0] == APP1 and data.startswith(EXIF, body):
                orientation = _exif_orientation(data, body, place)
    else:
        raise LimitError(f"more than {MAX_SEGMENTS:,} segments")
    return Container(data, skipped, orientation or 1)


def _png(data: bytes) -> Container:
    skipped: dict[int, int] = {}
    orientation = None
    seen: set[bytes] = set()
    colour = colours = 0
    place = 8
    for _ in range(MAX_SEGMENTS):
        name = data[place + 4 : place + 8]
        if place >= len(data) or name == b"IEND":
            return Container(data, skipped, orientation or 1)
        start, place = place, place + 12 + int.from_bytes(data[place : place + 4], "big")
        if name == b"eXIf" and orientation is None:
            orientation = _exif_orientation(data, start + 8, place - 4)
        # As in libpng, the first of several counts, and a palette after the pixels is ignored.
        repeated = name in {b"IHDR", b"PLTE", b"tRNS"} and (name in seen or b"IDAT" in seen)
        length = place - start - 12
        if name == b"IHDR" and not repeated:
            colour = data[start + 17] if start + 17 < len(data) else 0
        if name == b"PLTE" and not repeated:
            colours = length // 3
        transparent = name == b"tRNS" and (0 < length <= colours if colour == 3 else length == TRANSPARENT.get(colour))
        ancillary = name.isalpha() and name[:1].islower() and not transparent
        if repeated or ancillary:
            skipped[start] = place
        else:
            seen.add(name)
    raise LimitError(f"more than {MAX_SEGMENTS:,} chunks")


def _webp(data: bytes) -> Container:
    """Reduce a WebP to its first frame: libwebp needs 48 bytes for each chunk, and rejects truncated EXIF."""
    kept: dict[bytes, tuple[int, int]] = {}
    orientation = None
    chunks, place = 0, WEBP_HEADER
    while place + 8 <= len(data):
        chunks += 1
        if chunks > MAX_SEGMENTS:
            raise LimitError(f"more than {MAX_SEGMENTS:,} chunks")
        name, size = struct.unpack_from("<4sI", data, place)
        start, place = place, place + 8 + size + size % 2  # the last may end after the file
        if name == b"EXIF" and orientation is None:
            orientation = _exif_orientation(data, start + 8, place)
        if name in WEBP_CHUNKS:
            kept.setdefault(name, (start, place))
    if chunks == len(kept) and b"ANMF" not in kept:
        return Container(data)
    size = 4 + sum(end - start for start, end in kept.values())
    parts = {name: bytearray(data[start:end]) for name, (start, end) in kept.items()}
    flags = parts.get(b"VP8X", b"")[WEBP_FLAGS : WEBP_FLAGS + 1]
    if flags and b"ANMF" in kept:
        # The canvas outside of the first frame is transparent, whether the file says so or not.
        parts[b"VP8X"][WEBP_FLAGS] |= WEBP_ALPHA
    if not flags or not flags[0] & WEBP_EXIF:  # as in libwebp
        orientation = None
    return Container(b"".join([b"RIFF", struct.pack("<I", size), b"WEBP", *parts.values()]), {}, orientation or 1)


def _check_gif(data: bytes) -> None:
    def palette(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 128 else 0

    place = GIF_HEADER + palette(data[GIF_HEADER - 3]) if len(data) >= GIF_HEADER else len(data)
    in_extension = False  # a series of blocks, each after its length
    for _ in range(MAX_SEGMENTS):
        if place >= len(data):
            return
        if in_extension:
            in_extension = data[place] > 0
            place += 1 + data[place]
        elif data[place] == ord("!"):
            in_extension, place = True, place + 2
        elif data[place] in b",;":
            return
        else:
            place += 1  # Pillow skips unknown bytes too
    raise LimitError(f"more than {MAX_SEGMENTS:,} blocks")

"""JPEG at a reduced scale, and JPEG without an end marker: accepted if all scans are complete, as in browsers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import takewhile

from PIL.JpegImagePlugin import JpegImageFile

from fruits.images.containers import EOI, MARKER, SOS, Container

PROGRESSIVE = {b"\xff\xc2", b"\xff\xca"}
FRAMES = {b"\xff\xc0", b"\xff\xc1", b"\xff\xc9", *PROGRESSIVE}
LOSSLESS = {b"\xff\xc3", b"\xff\xc7", b"\xff\xcb", b"\xff\xcf"}  # frames without DCT, which libjpeg cannot scale
COEFFICIENTS = 64
RESTART = 0xD0
BLOCK = 2**22  # bytes that Pillow reads at once; with its 64 kB, decoding takes 3 % more time
FILLER = b"\x55" * 4096
MAX_SCANS = 20  # the image is decoded four times; encoders write 10


def load_reduced(container: Container, smallest: int) -> tuple[JpegImageFile, tuple[float, float]] | None:
    """Return the image at 1/2, 1/4 or 1/8 of its size, and its width and height; the smallest with enough pixels.

    libjpeg scales each block of 8 x 8 pixels in the inverse DCT. The width and height are fractions of pixels where the
    last column or row of the result extends beyond the image.

    Parameters
    ----------
    container : Container
    smallest : int
        The least pixels on each side; at most half of what the image has.

    Returns
    -------
    tuple or None
        None if the image cannot be reduced or is corrupt. Decoding at full size then decides about it.
    """
    header = takewhile(lambda segment: segment[0] != SOS, _segments(container.data))
    if any(marker in LOSSLESS for marker, _ in header):
        return None
    image = JpegImageFile(container.open())
    drafted = image.draft(None, (smallest, smallest))
    if drafted is None:
        return None
    image.decodermaxblock = BLOCK
    try:
        image.load()
    except OSError:
        return None
    _, (_, _, width, height) = drafted
    return image, (width, height)


def load_without_end(container: Container) -> JpegImageFile | None:
    """Return the loaded image if all its scans are complete, else None.

    libjpeg replaces missing bits by zeros without an error. So the file is decoded with various bits after its end,
    also in the restart interval that would be next. If the pixels differ, bits are missing.
    """
    data = container.data
    if not _all_scans_started(data):
        return None
    zero = b"\0" if data.endswith(b"\xff") else b""  # makes half of a marker data
    digests = set()
    for ending in (b"", zero + FILLER, _next_restart(data) + FILLER):
        image = JpegImageFile(container.open(ending + EOI))
        image.load()
        digests.add(hashlib.sha256(image.tobytes()).digest())
    return image if len(digests) == 1 else None


def _all_scans_started(data: bytes) -> bool:
    """Return True if the scans contain every coefficient of every component, to its last bit."""
    missing: dict[int, set[int]] = {}
    progressive = False
    scans = 0
    for marker, body in _segments(data):
        if marker in FRAMES:
            progressive = marker in PROGRESSIVE
            missing = {component: set(range(COEFFICIENTS)) for component in body[6::3]}
        elif marker == SOS and body and len(body) >= 4 + 2 * body[0]:
            scans += 1
            first, last, shifts = body[1 + 2 * body[0] :][:3]
            done = range(first, last + 1) if progressive else range(COEFFICIENTS)
            for component in body[1 : 1 + 2 * body[0] : 2]:
                if not progressive or shifts & 15 == 0:
                    missing.get(component, set()).difference_update(done)
    return 0 < scans <= MAX_SCANS and bool(missing) and not any(missing.values())


def _next_restart(data: bytes) -> bytes:
    """Return the restart marker after the last one of the last scan."""
    places = [data.rfind(bytes([0xFF, RESTART + number]), data.rfind(SOS)) for number in range(8)]
    last = max(range(8), key=places.__getitem__)
    return bytes([0xFF, RESTART + ((last + 1) % 8 if places[last] >= 0 else 0)])


def _segments(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while marker := MARKER.search(data, place):
        body = marker.end() + 2
        place = marker.end() + int.from_bytes(data[marker.end() : body], "big")
        yield marker[0], data[body:place]

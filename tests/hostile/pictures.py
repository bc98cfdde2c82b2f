"""Malicious images: small files that state or decompress to very large sizes."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

from PIL import Image

CHUNK = 2**20


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def zeros(count: int) -> bytes:
    """Return `count` zero bytes, deflated in chunks to save memory."""
    deflate = zlib.compressobj(1)
    whole, rest = divmod(count, CHUNK)
    return b"".join(
        [*(deflate.compress(bytes(CHUNK)) for _ in range(whole)), deflate.compress(bytes(rest)), deflate.flush()]
    )


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, rows: bytes | None = None) -> bytes:
    """Return a PNG of zeros or of deflated `rows`; colour 0 is grey, 2 RGB, 6 RGBA."""
    if rows is None:
        rows = zeros(height * (1 + (width * bits * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": rows, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks.items())


def tiff(
    width: int,
    height: int,
    *,
    bits: tuple[int, ...] = (8, 8, 8),
    form: int = 1,
    strip: bytes = b"",
    compression: int = 8,
    tile: int | None = None,
    more: bytes = b"",
) -> bytes:
    """Return a TIFF of one strip, or of one tile of `tile` x `tile` pixels; form 1 is integers, 3 floats.

    `more` is appended to its tags.
    """
    tags: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: bits,
        259: (compression,),
        262: (2 if len(bits) > 2 else 1,),
        277: (len(bits),),
        339: (form,) * len(bits),
    }
    where = (
        {322: (tile,), 323: (tile,), 324: (0,), 325: (len(strip),)}
        if tile
        else {273: (0,), 278: (height,), 279: (len(strip),)}
    )
    entries = sorted((tags | where).items())
    start = 8 + 2 + 12 * len(entries) + len(more) + 4
    beyond = b""
    table = b""
    for tag, values in entries:
        kind, code, size = (3, "H", 2) if tag in (258, 339) else (4, "I", 4)
        data = struct.pack(f"<{len(values)}{code}", *values)
        if tag in (273, 324):
            data = b"strt"
        if len(values) * size > 4:
            data, beyond = struct.pack("<I", start + len(beyond)), beyond + data
        table += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    table = table.replace(b"strt", struct.pack("<I", start + len(beyond)))
    table += more
    return b"II*\0" + struct.pack("<IH", 8, len(table) // 12) + table + struct.pack("<I", 0) + beyond + strip


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segment(marker: int, body: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif(orientations: int) -> bytes:
    """Return a chunk of EXIF whose orientation has so many values."""
    entry = struct.pack("<HHHII", 1, 274, 3, orientations, 26)
    return chunk(b"eXIf", b"II*\0" + struct.pack("<I", 8) + entry + bytes(4) + bytes(2 * orientations))


def png_with(chunks: bytes) -> bytes:
    small = png(1, 1)
    return small[:33] + chunks + small[33:]


def jpeg_with(segments: bytes) -> bytes:
    small = encoded(Image.new("RGB", (16, 16)), "JPEG")
    return small[:2] + segments + small[2:]


def webp_with(chunks: bytes) -> bytes:
    return riff(encoded(Image.new("RGB", (4, 4)), "WEBP")[12:] + chunks)


def tiff_with(tags: int, size: int, side: int = 4) -> bytes:
    """Return a deflated RGBA TIFF with unknown tags, which share `size` bytes at the end of the file."""
    entry = struct.pack("<HII", 7, size, 0xFEFEFEFE)
    more = b"".join(struct.pack("<H", 30_000 + tag) + entry for tag in range(tags))
    data = tiff(side, side, bits=(8,) * 4, strip=zeros(side * side * 4), more=more)
    return data.replace(b"\xfe" * 4, struct.pack("<I", len(data))) + bytes(size)


def png_of_chunks(count: int) -> bytes:
    """Return a PNG with empty private chunks."""
    return png_with(chunk(b"fruT", b"") * count)


def gif_of_blocks(count: int) -> bytes:
    """Return a GIF with a comment of `count` blocks of two bytes."""
    small = gif(4, 4)
    place = small.index(b",", 13 + 3 * 2 ** ((small[10] & 7) + 1))
    return small[:place] + b"!\xfe" + b"\2to" * count + b"\0" + small[place:]


def tiff_of_tags(count: int) -> bytes:
    """Return a BigTIFF with `count` additional tags of one value."""
    small = encoded(Image.new("RGB", (4, 4)), "TIFF", big_tiff=True)
    (start,) = struct.unpack_from("<Q", small, 8)
    (own,) = struct.unpack_from("<Q", small, start)
    tags = small[start + 8 : start + 8 + 20 * own] + struct.pack("<HHQQ", 50_000, 1, 1, 0) * count
    return small[:8] + struct.pack("<Q", len(small)) + small[16:] + struct.pack("<Q", own + count) + tags + bytes(8)


def webp(width: int, height: int) -> bytes:
    """Return a lossless WebP of one colour, which takes 0 bits per pixel."""
    header = width - 1 | height - 1 << 14 | 1 << 28
    codes = sum(1 << 3 + 4 * index for index in range(5))  # five prefix codes of one symbol each
    body = b"\x2f" + struct.pack("<I", header) + codes.to_bytes(3, "little") + bytes(4)
    return riff(b"VP8L" + struct.pack("<I", len(body)) + body)


def webp_canvas(width: int, height: int) -> bytes:
    """Return an extended WebP whose canvas is far larger than its image."""
    canvas = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(b"VP8X" + struct.pack("<I", len(canvas)) + canvas + webp(4, 4)[12:])


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def jpeg_of_scans(width: int, height: int, scans: int) -> bytes:
    """Return a progressive JPEG of many scans of ten bytes, each of which covers the whole image."""
    table = bytes([1]) + bytes(15) + b"\0"  # one code of one bit, for the symbol 0
    refine = segment(0xDA, bytes([1, 1, 0, 1, 63, 0]))
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\0" + b"\1" * 64),
            segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"),
            segment(0xC4, b"\0" + table),
            segment(0xC4, b"\x10" + table),
            segment(0xDA, bytes([1, 1, 0, 0, 0, 0])),
            refine * scans,
            b"\xff\xd9",
        ]
    )


def gif(width: int, height: int, frames: int = 1) -> bytes:
    """Return a GIF with that screen size and frames of 4 x 4 pixels."""
    small = encoded(Image.new("P", (4, 4)), "GIF")
    colours = small[10] & 7
    palette = small[13 : 13 + 3 * 2 ** (colours + 1)]
    frame = small[small.index(b",", 13 + len(palette)) : -1]
    return small[:6] + struct.pack("<HH", width, height) + small[10:13] + palette + frame * frames + b";"


def bmp(width: int, height: int, *, runs: bytes | None = None) -> bytes:
    """Return a BMP without pixels; with `runs`, an 8-bit run-length encoded BMP."""
    palette = bytes(4 * 256) if runs is not None else b""
    bits, compression = (8, 1) if runs is not None else (24, 0)
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(runs or b""), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs or b""), 0, 0, start) + header + palette + (runs or b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)

"""Writers of TIFF, PNG and BMP files in variants that no library writes, from arrays of samples."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Samples = NDArray[Any]
TIFF_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 7: "B", 12: "d", 16: "Q"}


def packed(rows: Samples, bits: int, order: str = ">") -> bytes:
    """Return rows of samples as bytes; samples below 8 bits, and of 12, are packed, and every row is padded."""
    if rows.dtype.kind == "f" or bits not in (1, 2, 4, 8, 12, 16, 32):
        return rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    if bits in (8, 16, 32):
        return rows.astype(f"{order}{'i' if rows.dtype.kind == 'i' else 'u'}{bits // 8}").tobytes()
    flat = rows.reshape(len(rows), -1).astype(np.uint16)
    every = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(every.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def packbits(data: bytes) -> bytes:
    return b"".join(bytes([len(piece) - 1]) + piece for piece in chunks(data, 128))


def lzw(data: bytes) -> bytes:
    """Return TIFF's LZW without compression: codes of 9 bits, cleared before they grow."""
    codes = [code for piece in chunks(data, 200) for code in (256, *piece)] + [257]
    bits = "".join(f"{code:09b}" for code in codes)
    return bytes(int(bits[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(bits), 8))


def chunks(data: bytes, size: int) -> Iterable[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


COMPRESSIONS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: lzw,
    8: zlib.compress,
    32773: packbits,
    32946: zlib.compress,
}


def reversed_bits(data: bytes) -> bytes:
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()


def tiff(
    samples: Samples,
    photometric: int,
    *,
    bits: int = 8,
    order: str = "<",
    big: bool = False,
    planar: int = 1,
    compression: int = 1,
    rows: int | None = None,
    tile: int | None = None,
    fill: int = 1,
    predictor: int = 1,
    extra: Sequence[int] = (),
    more: dict[int, tuple[int, Sequence[int]]] | None = None,
    encode: Callable[[Samples], bytes] | None = None,
) -> bytes:
    """Return a TIFF of `samples` of shape (height, width, bands); `more` is further tags: type and values."""
    height, width, bands = samples.shape
    stored = samples
    blocks: list[bytes] = []
    for plane in [stored] if planar == 1 else [stored[..., band : band + 1] for band in range(bands)]:
        step_y, step_x = (tile, tile) if tile else (rows or height, width)
        for y in range(0, height, step_y):
            for x in range(0, width, step_x):
                block = plane[y : y + step_y, x : x + step_x]
                if tile:
                    block = np.pad(block, ((0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)))
                if predictor == 2:
                    block = block.copy()
                    block[:, 1:] -= block[:, :-1].copy()
                data = encode(block) if encode else COMPRESSIONS[compression](packed(block, bits, order))
                blocks.append(reversed_bits(data) if fill == 2 else data)
    form = {"f": 3, "i": 2}.get(samples.dtype.kind, 1)
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * bands),
        259: (3, [compression]),
        262: (3, [photometric]),
        266: (3, [fill]),
        277: (3, [bands]),
        284: (3, [planar]),
        339: (3, [form] * bands),
    }
    if tile:
        tags |= {322: (4, [tile]), 323: (4, [tile]), 324: (4, [0] * len(blocks)), 325: (4, [len(b) for b in blocks])}
    else:
        tags |= {278: (4, [rows or height]), 273: (4, [0] * len(blocks)), 279: (4, [len(b) for b in blocks])}
    if predictor != 1:
        tags[317] = (3, [predictor])
    if extra:
        tags[338] = (3, list(extra))
    tags |= more or {}
    return tiff_file(tags, blocks, order, big)


def tiff_file(tags: dict[int, tuple[int, Sequence[int]]], blocks: Sequence[bytes], order: str, big: bool) -> bytes:
    """Return a TIFF of tags and blocks; the values of tag 273 or 324 become the places of the blocks."""
    count, place, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    tags = dict(sorted(tags.items()))
    size = len(head) + struct.calcsize(order + count) + len(tags) * (4 + 2 * inline) + inline
    beyond = {tag: len(v) * struct.calcsize(TIFF_TYPES[k]) for tag, (k, v) in tags.items()}
    start = size + sum(length + length % 2 for length in beyond.values() if length > inline)
    places = list(accumulate(map(len, blocks[:-1]), initial=start))
    table, values = b"", b""
    for tag, (kind, numbers) in tags.items():
        data = struct.pack(f"{order}{len(numbers)}{TIFF_TYPES[kind]}", *(places if tag in (273, 324) else numbers))
        table += struct.pack(f"{order}HH{place}", tag, kind, len(numbers))
        if len(data) > inline:
            table += struct.pack(order + place, size + len(values))
            values += data + bytes(len(data) % 2)
        else:
            table += data.ljust(inline, b"\0")
    return head + struct.pack(order + count, len(tags)) + table + bytes(inline) + values + b"".join(blocks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples: Samples, colour: int, bits: int, *, interlace: bool = False, chunks: Sequence[bytes] = ()) -> bytes:
    """Return a PNG of `samples` of shape (height, width, bands); `chunks` stand before the pixels."""
    height, width, _ = samples.shape
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlace else [samples]
    rows = b"".join(b"\0" + packed(row[None], bits) for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    body = zlib.compress(rows)
    half = len(body) // 2
    named = [(b"IHDR", header), None, (b"IDAT", body[:half]), (b"IDAT", body[half:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) if part else b"".join(chunks) for part in named)


def bmp(
    rows: Sequence[bytes],
    width: int,
    bits: int,
    *,
    header: int = 40,
    compression: int = 0,
    palette: Samples | None = None,
    colours: int | None = None,
    masks: Sequence[int] = (),
    top_down: bool = False,
    height: int | None = None,
    pixels: bytes | None = None,
) -> bytes:
    """Return a BMP of packed rows, in the order of the image; `pixels` replaces them, already encoded."""
    high = height or len(rows)
    if pixels is None:
        pixels = b"".join(row.ljust((len(row) + 3) & ~3, b"\0") for row in (rows if top_down else reversed(rows)))
    table = b""
    if palette is not None:
        table = b"".join(bytes(rgb[::-1]) + (b"" if header == 12 else b"\0") for rgb in palette.astype(np.uint8))
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, high, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII",
            *(header, width, -high if top_down else high, 1, bits, compression, len(pixels), 0, 0),
            *((len(palette) if palette is not None else 0) if colours is None else colours, 0),
        )
        info += struct.pack(f"<{len(masks)}I", *masks)
        if header > 40:
            info = info.ljust(header, b"\0")
    start = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + table + pixels


def jpeg_block(block: Samples, **options: Any) -> bytes:
    """Return a strip or tile as a complete JPEG."""
    stream = BytesIO()
    image = Image.fromarray(block.squeeze(), "CMYK" if block.shape[2] == 4 else None)
    image.save(stream, "JPEG", quality=100, subsampling=0, **options)
    return stream.getvalue()

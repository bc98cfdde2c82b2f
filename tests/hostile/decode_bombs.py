"""Decode all bombs in a child process: ``python -m tests.hostile.decode_bombs``."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from fruits.images.decode import decode
from tests.hostile import pictures
from tests.hostile.measure import print_measurements
from tests.unit.images import encoders

SIDE = 7_071  # pixels; the square is just below 50 megapixels
LARGEST = 390_000_000  # bytes; a file may have 400 MB

BOMBS: dict[str, Callable[[], bytes]] = {
    "png-rgb": lambda: pictures.png(SIDE, SIDE),
    "png-rgba": lambda: pictures.png(SIDE, SIDE, colour=6),
    "png-grey16": lambda: pictures.png(SIDE, SIDE, bits=16, colour=0),
    "webp": lambda: pictures.webp(16_383, 3_051),
    "tiff-rgba": lambda: pictures.tiff(SIDE, SIDE, bits=(8,) * 4, strip=pictures.zeros(SIDE * SIDE * 4)),
    "tiff-float": lambda: pictures.tiff(SIDE, SIDE, bits=(32,), form=3, strip=pictures.zeros(SIDE * SIDE * 4)),
    "tiff-tile": lambda: pictures.tiff(8, 8, tile=13_000, strip=pictures.zeros(13_000 * 13_000 * 3)),
    "tiff-tile-beyond": lambda: pictures.tiff(8, 8, tile=40_000, strip=pictures.zeros(10**8)),
    "webp-canvas": lambda: pictures.webp_canvas(16_000, 11_000),
    "side": lambda: pictures.png(1_000_000, 50, bits=1, colour=0),
    "line": lambda: pictures.png(30_000_000, 1, bits=1, colour=0),
    "column": lambda: pictures.png(1, 30_000_000, bits=1, colour=0),
    "bmp-runs": lambda: pictures.bmp(4_400, 4_400, runs=b"\0\2\xff\xff" * 200 + b"\0\1"),
    "gif-frames": lambda: pictures.gif(4, 4, frames=10_000),
    "jpeg-scans": lambda: pictures.jpeg_of_scans(SIDE, SIDE, 100),
    # Segments
    "exif-segments": lambda: pictures.jpeg_with(pictures.segment(0xE1, b"Exif\0\0" + bytes(400)) * 20_000),
    "exif-segments-largest": lambda: pictures.jpeg_with(pictures.segment(0xE1, b"Exif\0\0" + bytes(4_000)) * 99_000),
    "jfif-segments-largest": lambda: pictures.jpeg_with(pictures.segment(0xE0, b"JFIF\0" + bytes(4_000)) * 99_000),
    "jpeg-tables": lambda: pictures.jpeg_with(pictures.segment(0xDB, (b"\0" + b"\1" * 64) * 15) * 99_000),
    "jpeg-fill": lambda: pictures.jpeg_with(b"\xff" * 40_000_000),
    "jpeg-fill-largest": lambda: pictures.jpeg_with(b"\xff" * LARGEST),
    "jpeg-without-scan": lambda: b"\xff\xd8\xff\xd9" + b"\xff" * LARGEST,
    "png-orientation": lambda: pictures.png_with(pictures.exif(25_000_000)),
    "png-orientation-largest": lambda: pictures.png_with(pictures.exif(LARGEST // 2)),
    "png-text": lambda: pictures.png_with(pictures.chunk(b"zTXt", b"k\0\0" + pictures.zeros(10**6)) * 99_000),
    "png-empty-idat": lambda: pictures.png_with(pictures.chunk(b"IDAT", b"") * 99_000),
    "webp-chunks": lambda: pictures.webp_with((b"fruT" + bytes(4)) * 5_000_000),
    "webp-chunk-largest": lambda: pictures.webp_with(b"fruT" + struct.pack("<I", LARGEST) + bytes(LARGEST)),
    "tiff-shared-tags": lambda: pictures.tiff_with(30_000, 10**6),
    "tiff-metadata": lambda: pictures.tiff_with(1, 190_000_000, SIDE),
    "tiff-metadata-largest": lambda: pictures.tiff_with(1, LARGEST, SIDE),
    "tiff-strips": lambda: encoders.tiff(np.zeros((10**6, 1, 1), np.uint8), 1, rows=1),
    # The largest of each format
    "png-largest": lambda: pictures.png(7_000, 7_000, bits=16, colour=6, rows=zlib.compress(bytes(56_001 * 7_000), 0)),
    "tiff-largest": lambda: pictures.tiff(7_000, 7_000, bits=(16,) * 4, strip=bytes(56_000 * 7_000), compression=1),
    "tiff-largest-deflate": lambda: pictures.tiff(
        7_000, 7_000, bits=(16,) * 4, strip=zlib.compress(bytes(56_000 * 7_000), 0)
    ),
    "tiff-integers": lambda: encoders.tiff(np.zeros((SIDE, SIDE, 1), np.uint32), 1, bits=32),
    "jpeg-largest": lambda: pictures.encoded(Image.new("CMYK", (SIDE, SIDE)), "JPEG", progressive=True)[:-2],
    "bmp-rows": lambda: pictures.bmp(4_400, 4_400, runs=b"\1\1\0\0" * 4_400 + b"\0\1"),
    "bmp-largest": lambda: pictures.bmp(4_400, 4_400, runs=b"\0\2\0\0" * 4_900_000 + b"\0\1"),
    "gif-largest": lambda: pictures.encoded(Image.new("P", (SIDE, SIDE)), "GIF", transparency=0),
}


def shape(data: bytes) -> tuple[int, ...]:
    return decode(data).shape


if __name__ == "__main__":
    print_measurements((name, partial(shape, BOMBS[name]())) for name in sys.argv[1:] or BOMBS)

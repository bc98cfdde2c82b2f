"""Decode all bombs in a child process: ``python -m tests.hostile.decode_bombs``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from fruits.images.decode import decode
from tests.hostile import pictures
from tests.hostile.measure import print_measurements

SIDE = 7_071  # pixels; the square is just below 50 megapixels

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
    "bmp-runs": lambda: pictures.bmp(SIDE, SIDE, runs=b"\0\2\xff\xff" * 200 + b"\0\1"),
    "gif-frames": lambda: pictures.gif(4, 4, frames=10_000),
    "jpeg-scans": lambda: pictures.jpeg_of_scans(SIDE, SIDE, 100),
}


def shape(data: bytes) -> tuple[int, ...]:
    return decode(data).shape


if __name__ == "__main__":
    made = {name: BOMBS[name]() for name in sys.argv[1:] or BOMBS}
    print_measurements([(name, partial(shape, data)) for name, data in made.items()])

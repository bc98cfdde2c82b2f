"""Variants of TIFF, PNG, BMP, JPEG and GIF: each is decoded to the pixels of the specification, or rejected.

The expected pixels are computed from the samples that are written. libvips, an independent reader, must give them too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image

from fruits.images.decode import ImageError, decode
from tests.unit.images import encoders
from tests.unit.images.encoders import COMPRESSIONS, Samples, bmp, jpeg_block, packed, png, png_chunk, tiff

SIDE = 20  # no multiple of a tile, a strip, or a byte of small samples
LEVELS = 3  # of 255: rounding of alpha that was multiplied in 8 bits
LAYOUTS: tuple[dict[str, int], ...] = ({}, {"rows": 7}, {"tile": 16})
Cell = tuple[str, bytes, NDArray[np.float64]]

_x, _y = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE))
RAMPS = np.stack([_x, _y, (_x + _y) / 2, 1 - _x], axis=-1)
RANDOM = np.random.default_rng(0)


def ramp(bands: int, bits: int, kind: str = "u") -> Samples:
    """Return samples that use the whole range; with two bands, the second is alpha."""
    part = RAMPS[..., [0, 3]] if bands == 2 else RAMPS[..., :bands]
    return part.astype(f"f{bits // 8}") if kind == "f" else np.rint(part * (2**bits - 1)).astype(whole(bits))


def whole(bits: int) -> str:
    return "u1" if bits <= 8 else "u2" if bits <= 16 else "u4"


def rgb(samples: Samples, bits: int) -> NDArray[np.float64]:
    """Return samples as values from 0 to 255, in three channels."""
    values = samples.astype(float) * (255 if samples.dtype.kind == "f" else 255 / (2**bits - 1))
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def on_white(colour: NDArray[np.float64], alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    return colour * alpha + 255 * (1 - alpha)


def cmyk(samples: Samples, bits: int) -> NDArray[np.float64]:
    values = 255 - rgb(samples, bits)
    return values[..., :3] * values[..., 3:4] / 255


def ycbcr(y: Samples, cb: Samples, cr: Samples) -> NDArray[np.float64]:
    y, cb, cr = (plane.astype(float) for plane in (y, cb - 128.0, cr - 128.0))
    return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1), 0, 255)


def libvips(data: bytes, unsupported: Samples) -> NDArray[np.float64]:
    image = pyvips.Image.new_from_buffer(data, "", fail_on="error")
    image = image if image.interpretation == "srgb" else image.colourspace("srgb")
    image = image.flatten(background=255) if image.hasalpha() else image
    try:
        pixels = np.asarray(image.cast("uchar").numpy(), float).reshape(SIDE, SIDE, -1)
    except pyvips.Error as error:
        if "tiled separate planes not supported" not in str(error):
            raise
        return unsupported
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def outcome(cell: Cell, independent: bool) -> str:
    """Return "right", "rejected", or a description of wrong pixels."""
    name, data, expected = cell
    try:
        pixels = decode(data, SIDE)
    except ImageError as error:
        return "rejected" if error.reason == "undecodable" else f"{name}: {error}"
    wrong = np.abs(pixels - expected).max()
    if wrong > LEVELS:
        return f"{name}: wrong by {wrong:.0f} levels"
    other = np.abs(pixels - libvips(data, pixels)).max() if independent else 0
    return f"{name}: {other:.0f} levels from libvips" if other > LEVELS else "right"


def check(cells: list[Cell], rejected: int, independent: bool = True) -> None:
    found = Counter(outcome(cell, independent) for cell in cells)
    assert found == Counter(right=len(cells) - rejected, rejected=rejected)


# TIFF


def tiffs(bands: int, bits: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every combination of byte order, layout, planes and compression."""
    for order, big, layout, planar, compression in product(
        "<>", (False, True), LAYOUTS, (1, 2) if bands > 1 else (1,), COMPRESSIONS
    ):
        options = {"order": order, "big": big, "planar": planar, "compression": compression, "bits": bits, **layout}
        yield str(options), options


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("bits", "rejected"),
    [(1, (0, 0)), (2, (0, 0)), (4, (0, 0)), (8, (0, 0)), (12, (60, 30)), (16, (30, 0)), (32, (60, 30))],
)
def test_tiff_of_grey(bits: int, rejected: tuple[int, int], photometric: int) -> None:
    samples = ramp(1, bits)
    expected = rgb(samples, bits) if photometric else 255 - rgb(samples, bits)
    cells = [(name, tiff(samples, photometric, **options), expected) for name, options in tiffs(1, bits)]
    check(cells, rejected[photometric], independent=bits in (1, 2, 4, 8, 16))


@pytest.mark.parametrize(("bits", "photometric", "rejected"), [(32, 1, 0), (32, 0, 60), (16, 1, 60), (64, 1, 60)])
def test_tiff_of_floats(bits: int, photometric: int, rejected: int) -> None:
    samples = ramp(1, bits, "f")
    cells = [(name, tiff(samples, photometric, **options), rgb(samples, bits)) for name, options in tiffs(1, bits)]
    check(cells, rejected, independent=False)  # libvips clips them to 0 to 255


@pytest.mark.parametrize(("bits", "rejected"), [(8, 60), (16, 0), (32, 0)])
def test_tiff_of_signed_grey_is_stretched_from_minimum_to_maximum(bits: int, rejected: int) -> None:
    samples = (ramp(1, bits).astype(np.int64) - 2 ** (bits - 1)).astype(f"i{bits // 8}")
    cells = [(name, tiff(samples, 1, **options), rgb(ramp(1, bits), bits)) for name, options in tiffs(1, bits)]
    check(cells, rejected, independent=False)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [1, 257], ids=["8-bit-map", "16-bit-map"])
def test_tiff_of_palette(bits: int, scale: int) -> None:
    colours = RANDOM.integers(0, 256, (3, 2**bits))
    colours[0, 0] = 255
    samples = RANDOM.integers(0, 2**bits, (SIDE, SIDE, 1), np.uint8)
    more = {320: (3, (colours.ravel() * scale).tolist())}
    expected = colours.T[samples[..., 0]].astype(float)
    check([(name, tiff(samples, 3, **options, more=more), expected) for name, options in tiffs(1, bits)], 0)


@pytest.mark.parametrize(("bits", "rejected"), [(8, 0), (16, 12), (32, 120)])
def test_tiff_of_rgb(bits: int, rejected: int) -> None:
    samples = ramp(3, bits)
    check([(name, tiff(samples, 2, **o), rgb(samples, bits)) for name, o in tiffs(3, bits)], rejected)


@pytest.mark.parametrize(("bits", "photometric", "bands"), [(8, 2, 3), (16, 2, 3), (8, 1, 1), (16, 1, 1)])
@pytest.mark.parametrize("compression", [5, 8])
def test_tiff_with_predictor(bits: int, photometric: int, bands: int, compression: int) -> None:
    samples = ramp(bands, bits)
    options = [o | {"predictor": 2} for _, o in tiffs(bands, bits) if o["compression"] == compression]
    options = [o for o in options if o["planar"] == 1]
    check([(str(o), tiff(samples, photometric, **o), rgb(samples, bits)) for o in options], 0)


@pytest.mark.parametrize(
    ("extra", "bits", "rejected"),
    [
        ((2,), 8, 0),
        ((2,), 16, 12),
        ((1,), 8, 12),
        ((1,), 16, 12),
        ((0,), 8, 60),  # without a meaning: alpha, as in libvips
        ((0,), 16, 60),
        ((), 8, 60),
        ((), 16, 60),
        ((2, 0), 8, 60),
        ((0, 0), 8, 120),
    ],
)
def test_tiff_of_rgb_with_alpha(extra: tuple[int, ...], bits: int, rejected: int) -> None:
    samples = ramp(4, bits)
    alpha = rgb(samples, bits)[..., 3:] / 255
    expected = on_white(rgb(samples, bits)[..., :3], alpha)
    if extra == (1,):
        samples[..., :3] = np.floor(samples[..., :3] * alpha)
        expected = rgb(samples, bits)[..., :3] + 255 * (1 - alpha)
    if len(extra) > 1:
        samples = np.concatenate([samples, ramp(1, bits)], axis=2)
    cells = [(name, tiff(samples, 2, extra=extra, **o), expected) for name, o in tiffs(samples.shape[2], bits)]
    check(cells, rejected, independent=extra not in {(1,), (2, 0)})  # libvips takes them for unassociated, and the last


@pytest.mark.parametrize(("extra", "bits", "rejected"), [(2, 8, 60), (0, 8, 60), (1, 8, 60), (2, 16, 120)])
def test_tiff_of_grey_with_alpha(extra: int, bits: int, rejected: int) -> None:
    samples = ramp(2, bits)
    alpha = rgb(samples, bits)[..., 1:] / 255
    expected = on_white(np.repeat(rgb(samples, bits)[..., :1], 3, axis=2), alpha)
    if extra == 1:
        samples[..., :1] = np.floor(samples[..., :1] * alpha)
        expected = np.repeat(rgb(samples, bits)[..., :1], 3, axis=2) + 255 * (1 - alpha)
    check([(n, tiff(samples, 1, extra=(extra,), **o), expected) for n, o in tiffs(2, bits)], rejected, extra != 1)


@pytest.mark.parametrize(("bits", "rejected"), [(8, 0), (16, 12)])
def test_tiff_of_cmyk(bits: int, rejected: int) -> None:
    samples = ramp(4, bits)
    cells = [(name, tiff(samples, 5, **options), cmyk(samples, bits)) for name, options in tiffs(4, bits)]
    check(cells, rejected, independent=False)  # libvips uses a colour profile
    inks = {332: (3, [2])}
    check([(name, tiff(samples, 5, more=inks, **o), cmyk(samples, bits)) for name, o in tiffs(4, bits)], len(cells))


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tiff_of_ycbcr(subsampling: tuple[int, int], order: str, compression: int) -> None:
    across, down = subsampling
    y, *full = np.moveaxis(ramp(3, 8), -1, 0)
    small = [np.rint(c.reshape(SIDE // down, down, SIDE // across, across).mean((1, 3))).astype(int) for c in full]
    units = np.concatenate(
        [
            y.reshape(SIDE // down, down, SIDE // across, across).swapaxes(1, 2).reshape(-1, down * across),
            np.stack([c.ravel() for c in small], axis=1),
        ],
        axis=1,
    )
    data = tiff(
        ramp(3, 8),
        6,
        order=order,
        compression=compression,
        more={530: (3, subsampling)},
        encode=lambda _: COMPRESSIONS[compression](units.astype(np.uint8).tobytes()),
    )
    expected = ycbcr(y, *(c.repeat(down, 0).repeat(across, 1) for c in small))
    rejected = compression == 1 and subsampling != (1, 1)
    check([("", data, expected)], int(rejected), independent=subsampling != (1, 1))  # else libvips does not convert


@pytest.mark.parametrize("layout", [{}, {"rows": 16}, {"tile": 16}])
@pytest.mark.parametrize(("photometric", "bands"), [(0, 1), (1, 1), (2, 3), (6, 3), (5, 4)])
def test_tiff_of_jpeg(photometric: int, bands: int, layout: dict[str, int]) -> None:
    samples = ramp(bands, 8)
    expected = 255 - rgb(samples, 8) if photometric == 0 else rgb(samples, 8)
    if photometric == 5:
        expected = cmyk(samples, 8)
        samples = 255 - samples  # Pillow's JPEG inverts CMYK

    def encode(block: Samples) -> bytes:
        return jpeg_block(block, keep_rgb=photometric == 2)

    more = {530: (3, (1, 1))} if photometric == 6 else {}
    data = tiff(samples, photometric, compression=7, encode=encode, more=more, **layout)
    check([("", data, expected)], 0, independent=photometric != 5)


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_tiff_of_fax(compression: str) -> None:
    samples = ramp(1, 1)
    stream = BytesIO()
    Image.fromarray(samples[..., 0] * np.uint8(255)).convert("1").save(stream, "TIFF", compression=compression)
    check([("", stream.getvalue(), rgb(samples, 1))], 0)


@pytest.mark.parametrize(
    ("kind", "bits", "photometric", "rejected"),
    [(1, 1, 1, 0), (1, 4, 0, 0), (1, 8, 0, 12), (1, 8, 1, 0), (1, 16, 1, 30), (3, 8, 2, 12)],
)
def test_tiff_of_reversed_bits(kind: int, bits: int, photometric: int, rejected: int) -> None:
    samples = ramp(kind, bits)
    expected = rgb(samples, bits) if photometric else 255 - rgb(samples, bits)
    cells = [(name, tiff(samples, photometric, fill=2, **o), expected) for name, o in tiffs(kind, bits)]
    check(cells, rejected)


@pytest.mark.parametrize("without", [256, 257, 258, 262, 273, 277])
@pytest.mark.parametrize("compression", [1, 8])
def test_tiff_without_a_tag_of_its_pixels_is_rejected(
    without: int, compression: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = encoders.tiff_file
    monkeypatch.setattr(
        encoders, "tiff_file", lambda tags, *rest: write({t: v for t, v in tags.items() if t != without}, *rest)
    )
    with pytest.raises(ImageError, match=r"^undecodable: "):
        decode(tiff(ramp(3, 8), 2, compression=compression))


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("offsets", ["fewer", "zero", "more"])
def test_tiff_with_another_number_of_strips(offsets: str, compression: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow leaves the rows of missing strips black, and draws further ones over the first."""
    write = encoders.tiff_file

    def changed(tags: dict[int, Any], blocks: Any, *rest: Any) -> bytes:
        if offsets == "more":
            blocks = [*blocks, COMPRESSIONS[compression](bytes(SIDE * 7))]
            tags |= {tag: (4, [*tags[tag][1], len(blocks[-1])]) for tag in (273, 279)}
        data = bytearray(write(tags, blocks, *rest))
        entry = data.index((273).to_bytes(2, "little"), 8)
        if offsets == "fewer":
            data[entry + 4] -= 1
        if offsets == "zero":
            place = int.from_bytes(data[entry + 8 : entry + 12], "little")
            data[place : place + 4] = bytes(4)
        return bytes(data)

    monkeypatch.setattr(encoders, "tiff_file", changed)
    data = tiff(ramp(1, 8), 1, rows=7, compression=compression)
    check([("", data, rgb(ramp(1, 8), 8))], int(offsets != "more"), independent=False)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("bits", "photometric"), [(8, 1), (12, 1), (16, 0)])
@pytest.mark.parametrize("compression", [1, 8])
def test_rotated_tiff_has_the_same_values(orientation: int, bits: int, photometric: int, compression: int) -> None:
    samples = ramp(1, bits)
    values = rgb(samples, bits) if photometric else 255 - rgb(samples, bits)
    upright = {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.swapaxes(0, 1),
        6: np.rot90(values, -1),
        7: values[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(values),
    }
    data = tiff(samples, photometric, bits=bits, compression=compression, more={274: (3, [orientation])})
    check([("", data, upright[orientation])], 0, independent=False)


# PNG

PNGS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize(("colour", "bits"), [*PNGS, (4, 8), (4, 16), (6, 8), (6, 16)])
def test_png(colour: int, bits: int, interlace: bool) -> None:
    samples = ramp({0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour], bits)
    chunks = []
    expected = rgb(samples, bits)
    if colour == 3:
        palette = RANDOM.integers(0, 256, (2**bits, 3), np.uint8)
        chunks = [png_chunk(b"PLTE", palette.tobytes())]
        expected = palette[samples[..., 0]].astype(float)
    if colour in (4, 6):
        colours = expected[..., :-1]
        expected = on_white(np.repeat(colours, 3, axis=2) if colour == 4 else colours, expected[..., -1:] / 255)
    check([("", png(samples, colour, bits, interlace=interlace, chunks=chunks), expected)], 0)


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("high", [0, 0xFF00], ids=["", "with-unused-bits"])
@pytest.mark.parametrize(("colour", "bits"), PNGS)
def test_png_with_transparent_colour(colour: int, bits: int, high: int, interlace: bool) -> None:
    samples = ramp(3 if colour == 2 else 1, bits)
    expected = rgb(samples, bits)
    if colour == 3:
        palette = RANDOM.integers(0, 256, (2**bits, 3), np.uint8)
        alpha = RANDOM.integers(0, 256, 2**bits - 1, np.uint8)
        chunks = [png_chunk(b"PLTE", palette.tobytes()), png_chunk(b"tRNS", alpha.tobytes())]
        expected = on_white(palette[samples[..., 0]].astype(float), np.append(alpha, 255)[samples] / 255)
    else:
        clear = samples[3, 5]
        unused = high if bits in (2, 4, 8) else 0
        chunks = [png_chunk(b"tRNS", (clear.astype(">u2") | np.uint16(unused)).astype(">u2").tobytes())]
        expected[(samples == clear).all(axis=-1)] = 255
    check(
        [("", png(samples, colour, bits, interlace=interlace, chunks=chunks), expected)], int((colour, bits) == (2, 16))
    )


# BMP; libvips does not read it


@pytest.mark.parametrize("header", [12, 40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("palette", ["random", "grey", "inverted", "index", "two"])
def test_bmp_of_palette(palette: str, bits: int, header: int) -> None:
    count = 2**bits
    grey = np.rint(np.linspace(0, 255, count))
    values = {"grey": grey, "inverted": 255 - grey, "index": np.arange(count), "two": np.array([0, 255])}.get(palette)
    colours = RANDOM.integers(0, 256, (count, 3)) if values is None else np.repeat(values[:, None], 3, axis=1)
    if palette == "two" and header == 12:
        pytest.skip("the header states no number of colours")
    samples = RANDOM.integers(0, len(colours), (SIDE, SIDE, 1), np.uint8)
    rows = [packed(row[None], bits) for row in samples]
    expected = colours[samples[..., 0]].astype(float)
    cells = [
        (str(top_down), bmp(rows, SIDE, bits, header=header, palette=colours, top_down=top_down), expected)
        for top_down in ((False,) if header == 12 else (False, True))
    ]
    check(cells, 0, independent=False)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("colours", [2, 16])
@pytest.mark.parametrize("absolute", [False, True])
def test_bmp_of_runs(bits: int, colours: int, absolute: bool) -> None:
    palette = np.repeat(np.rint(np.linspace(0, 255, colours))[:, None], 3, axis=1)
    samples = RANDOM.integers(0, colours, (SIDE, SIDE, 1), np.uint8)
    pixels = b""
    for row in samples[::-1]:
        runs = b"".join(bytes([1, value << (8 - bits)]) for value in row[:, 0].tolist())
        pixels += (bytes([0, SIDE]) + packed(row[None], bits) if absolute else runs) + b"\0\0"
    data = bmp([], SIDE, bits, compression=RUNS[bits], palette=palette, height=SIDE, pixels=pixels + b"\0\1")
    check([("", data, palette[samples[..., 0]])], 0, independent=False)


RUNS = {8: 1, 4: 2}
SHIFTS = {
    "xrgb": (16, 8, 0),
    "argb": (16, 8, 0, 24),
    "abgr": (0, 8, 16, 24),
    "bgra": (8, 16, 24, 0),
    "rgba": (24, 16, 8, 0),
}


@pytest.mark.parametrize("header", [40, 56, 108, 124])
@pytest.mark.parametrize("layout", SHIFTS)
@pytest.mark.parametrize("alpha", ["some", "none"])
def test_bmp_of_32_bits(layout: str, header: int, alpha: str) -> None:
    shifts = SHIFTS[layout]
    if len(shifts) == 4 and header == 40:
        pytest.skip("the header has no alpha")
    samples = ramp(4, 8)
    if alpha == "none":
        samples[..., 3] = 0
    pixels = sum((samples[..., band].astype(np.uint32) << shift) for band, shift in enumerate(shifts))
    expected = rgb(samples, 8)[..., :3]
    if len(shifts) == 4 and alpha == "some":
        expected = on_white(expected, samples[..., 3:] / 255)
    masks = [255 << shift for shift in shifts]
    rows = [row.astype("<u4").tobytes() for row in pixels]
    rejected = layout == "bgra"  # an unusual order
    cells = [
        (str(top), bmp(rows, SIDE, 32, header=header, compression=3, masks=masks, top_down=top), expected)
        for top in (False, True)
    ]
    check(cells, 2 * rejected, independent=False)


@pytest.mark.parametrize("header", [40, 108])
@pytest.mark.parametrize(
    ("masks", "rejected"),
    [
        ((), 0),
        ((0x7C00, 0x3E0, 0x1F), 0),
        ((0xF800, 0x7E0, 0x1F), 0),
        ((0xF00, 0xF0, 0xF), 1),
        ((0x7C00, 0x3E0, 0x1F, 0x8000), 1),
    ],
)
def test_bmp_of_16_bits(masks: tuple[int, ...], rejected: int, header: int) -> None:
    if len(masks) == 4 and header == 40:
        pytest.skip("the header has no alpha")
    fields = masks[:3] or (0x7C00, 0x3E0, 0x1F)
    unit = [mask & -mask for mask in fields]
    tops = [mask // one for mask, one in zip(fields, unit, strict=True)]
    values = [np.rint(RAMPS[..., band] * top).astype(int) for band, top in enumerate(tops)]
    pixels = sum(value * one for value, one in zip(values, unit, strict=True))
    expected = np.stack([value * 255 / top for value, top in zip(values, tops, strict=True)], axis=-1)
    rows = [row.astype("<u2").tobytes() for row in np.asarray(pixels)]
    data = bmp(rows, SIDE, 16, header=header, compression=3 if masks else 0, masks=masks)
    check([("", data, expected)], rejected, independent=False)


# JPEG and GIF


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"optimize": True}], ids=str
)
@pytest.mark.parametrize("end", [0, 2], ids=["", "no-eoi"])
def test_jpeg(mode: str, options: dict[str, Any], end: int) -> None:
    samples = ramp({"L": 1, "RGB": 3, "CMYK": 4}[mode], 8)
    stream = BytesIO()
    Image.fromarray(samples.squeeze(), mode).save(stream, "JPEG", quality=100, subsampling=0, **options)
    data = stream.getvalue()
    expected = cmyk(samples, 8) if mode == "CMYK" else rgb(samples, 8)
    check([("", data[: len(data) - end], expected)], 0, independent=not end and mode != "CMYK")


@pytest.mark.parametrize("colours", [2, 16, 256])
@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("transparency", [None, 1])
def test_gif(colours: int, interlace: int, transparency: int | None) -> None:
    palette = RANDOM.integers(0, 256, (colours, 3), np.uint8)
    samples = RANDOM.integers(0, colours, (SIDE, SIDE), np.uint8)
    image = Image.fromarray(samples, "P")
    image.putpalette(palette.tobytes())
    stream = BytesIO()
    image.save(stream, "GIF", interlace=interlace, **({} if transparency is None else {"transparency": transparency}))
    expected = palette[samples].astype(float)
    if transparency is not None:
        expected[samples == transparency] = 255
    check([("", stream.getvalue(), expected)], 0)

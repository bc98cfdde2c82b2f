"""Decoding: plain images equal Pillow's result, unusual ones are converted, all others are rejected with a reason."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from fruits.images import decode as images
from fruits.images.decode import EXTENSIONS, REASONS, ImageError, decode, is_image
from tests.unit.images.encoders import png as png_of
from tests.unit.images.encoders import png_chunk
from tests.unit.images.encoders import tiff as tiff_of

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]
EXTENSION_OF = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}


def photo(width: int = 24, height: int = 20, seed: int = 0) -> Image.Image:
    """Return smooth colours with some noise, so that every transposition and every channel shows."""
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1)
    noise = np.random.default_rng(seed).integers(-20, 20, base.shape)
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bare(image: Image.Image | bytes, size: int = 224) -> NDArray[np.uint8]:
    """Return the pixels that the original notebook of this job computes."""
    opened = Image.open(BytesIO(image)) if isinstance(image, bytes) else image
    return np.asarray(opened.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return three equal channels of 8-bit values, the result of decoding grey values at their own size."""
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def png(width: int, height: int, bits: int, colour: int, rows: bytes = b"", **chunks: bytes) -> bytes:
    """Return a PNG that Pillow cannot write: 16-bit RGB, transparent 16-bit grey, or a size without pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    named = {"IHDR": header, **chunks, "IDAT": zlib.compress(rows), "IEND": b""}
    parts = [
        struct.pack(">I", len(body)) + name.encode() + body + struct.pack(">I", zlib.crc32(name.encode() + body))
        for name, body in named.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int, bits: int, strip: bytes) -> bytes:
    """Return an uncompressed grey TIFF, for the depths that Pillow does not write."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 277: 1, 278: height, 279: len(strip)}
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = sorted((tags | {273: start}).items())
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + strip


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value.reason


# Plain images


def test_real_images_equal_pillow_bit_for_bit(fruits360: Path) -> None:
    files = sorted(fruits360.glob("*/*/*.jpg"))[::10]
    assert files
    unequal = [str(file) for file in files if not np.array_equal(decode(data := file.read_bytes()), bare(data))]
    assert unequal == []


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", [(24, 20), (300, 10), (1, 1), (224, 224), (640, 480)])
def test_rgb_image_equals_pillow_bit_for_bit(kind: str, shape: tuple[int, int]) -> None:
    data = encode(photo(*shape), kind)
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (224, 224, 3)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, bare(data))


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_png_is_rotated_by_exif_before_and_after_its_pixels(before: bytes) -> None:
    data, exif = encode(photo(), "PNG"), Image.Exif()
    exif[274] = 6
    start = data.index(before) - 4
    rotated = data[:start] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[start:]
    assert np.array_equal(decode(rotated), bare(ImageOps.exif_transpose(Image.open(BytesIO(rotated)))))
    assert not np.array_equal(decode(rotated), decode(data))


def test_size_is_a_parameter() -> None:
    data = encode(photo(), "PNG")
    assert np.array_equal(decode(data, 97), bare(data, 97))


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
def test_jpeg_variants_are_decoded(options: dict[str, Any]) -> None:
    data = encode(photo(100, 100), "JPEG", **options)
    assert np.array_equal(decode(data), bare(data))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_tiff_variants_are_decoded(compression: str) -> None:
    data = encode(photo(), "TIFF", compression=compression)
    assert np.array_equal(decode(data), bare(data))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, kind) for mode in ("1", "L", "P") for kind in ("PNG", "BMP", "TIFF", "GIF")]
    + [("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF")],
)
def test_other_modes_are_converted_like_pillow(mode: str, kind: str) -> None:
    data = encode(photo().convert(mode), kind)
    assert np.array_equal(decode(data), bare(data))


def test_cmyk_colours_are_not_inverted() -> None:
    red = Image.new("RGB", (16, 16), (220, 30, 30)).convert("CMYK")
    for data in (encode(red, "JPEG", quality=95), encode(red, "TIFF")):
        assert np.abs(decode(data, 4).astype(int) - (220, 30, 30)).max() <= 3


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = photo()
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = upright if undo == 1 else upright.transpose(images.TRANSPOSE[undo])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(decode(data), bare(upright))


def test_jpeg_is_rotated_before_it_is_resized() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photo(), "JPEG", exif=exif)
    assert np.array_equal(decode(data), bare(Image.open(BytesIO(data)).transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",  # 65,535 tags, all missing
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x09\0\0\0\xff\xff\xff\x7f\0\0\0\0",  # text, beyond the end
        b"Exif\0\0" + bytes(60_000),
    ],
)
def test_corrupt_metadata_does_not_reject_an_image(exif: bytes) -> None:
    plain = encode(photo(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert np.array_equal(decode(plain[:2] + segment + plain[2:]), bare(plain))


CORRUPT = [
    png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000))),
    png_chunk(b"tEXt", b"key\0value")[:-1] + b"?",  # wrong checksum
    png_chunk(b"zTXt", b"k\0\7unknown compression"),
    png_chunk(b"iCCP", b"no zero"),
    png_chunk(b"pHYs", b""),
    png_chunk(b"fcTL", bytes(26)),
    png_chunk(b"acTL", bytes(3)),
    png_chunk(b"tEXt", b"Raw profile type exif\0not hexadecimal"),
    png_chunk(b"eXIf", b"II*\0" + bytes([8, 0, 0, 0, 255, 255])),
]


@pytest.mark.parametrize("chunk", CORRUPT)
@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_corrupt_chunk_of_metadata_does_not_reject_a_png(chunk: bytes, place: str) -> None:
    samples = np.asarray(photo())
    data = png_of(samples, 2, 8)
    at = {"before": 33, "between": data.index(b"IDAT", data.index(b"IDAT") + 4) - 4, "after": len(data) - 12}[place]
    assert np.array_equal(decode(data[:at] + chunk + data[at:]), bare(photo()))


def test_png_truncated_in_metadata_after_its_pixels_is_decoded() -> None:
    data = png_of(np.asarray(photo()), 2, 8)
    assert np.array_equal(decode(data[:-12] + png_chunk(b"tEXt", b"key\0value")[:9]), bare(photo()))


def test_first_transparency_of_a_png_counts() -> None:
    first, second = (png_chunk(b"tRNS", struct.pack(">3H", *rgb)) for rgb in ((10, 20, 30), (40, 50, 60)))
    samples = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8).repeat(2, axis=0)
    data = png_of(samples, 2, 8, chunks=[first, second])
    late = png_of(samples, 2, 8)
    for each, clear in ((data, 0), (late[:-12] + second + late[-12:], None)):
        expected = samples.copy()
        if clear is not None:
            expected[:, clear] = 255
        assert np.array_equal(decode(each, 2), expected)


PALETTE = png_chunk(b"PLTE", bytes([200, 0, 0, 0, 200, 0]))


@pytest.mark.parametrize(
    ("colour", "chunks", "white"),
    [
        (3, [PALETTE, png_chunk(b"tRNS", b"\0")], True),
        (3, [png_chunk(b"tRNS", b"\0"), PALETTE], False),
        (3, [PALETTE, png_chunk(b"tRNS", bytes(3))], False),
        (3, [PALETTE, png_chunk(b"tRNS", bytes(3)), png_chunk(b"tRNS", b"\0")], True),
        (2, [png_chunk(b"tRNS", bytes(6))], True),
        (2, [png_chunk(b"tRNS", bytes(5))], False),
        (0, [png_chunk(b"tRNS", b"")], False),
        (6, [png_chunk(b"tRNS", bytes(6))], False),
    ],
)
def test_transparency_that_libpng_ignores_is_ignored(colour: int, chunks: list[bytes], white: bool) -> None:
    sample = {3: [0], 2: [0, 0, 0], 0: [0], 6: [0, 0, 0, 255]}[colour]
    pixels = decode(png_of(np.array([[sample] * 2] * 2, np.uint8), colour, 8, chunks=chunks), 2)
    assert pixels[0, 0].tolist() == ([255] * 3 if white else [200, 0, 0] if colour == 3 else [0] * 3)


@pytest.mark.parametrize(
    ("tag", "kind", "values"),
    [
        (282, 2, b"a resolution in words"),
        (282, 5, [1, 0]),
        (296, 3, [3, 3]),
        (270, 2, b"text"),
        (700, 12, [0] * 9),
        (34665, 4, [7]),
        (34675, 7, b"no profile"),
        (33723, 4, [1, 2, 3]),
    ],
)
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("beyond", [False, True], ids=["", "beyond-the-file"])
def test_corrupt_tag_of_metadata_does_not_reject_a_tiff(
    tag: int, kind: int, values: Any, compression: int, beyond: bool
) -> None:
    data = tiff_of(np.asarray(photo()), 2, compression=compression, more={tag: (kind, values)})
    if beyond:
        entry = data.index(struct.pack("<HH", tag, kind), 8)
        data = data[: entry + 4] + struct.pack("<II", 1000, len(data) - 4) + data[entry + 12 :]
    assert np.array_equal(decode(data), bare(photo()))


@pytest.mark.parametrize("chunk", [b"EXIF" + b"\xff\xff\xff\x7f", b"XMP " + bytes(4), b"ICCP\3\0\0\0abc\0"])
def test_corrupt_chunk_of_metadata_does_not_reject_a_webp(chunk: bytes) -> None:
    plain = encode(photo(), "WEBP", lossless=True, exif=b"Exif\0\0")
    data = plain + chunk
    assert np.array_equal(decode(data[:4] + struct.pack("<I", len(data) - 8) + data[8:]), bare(photo()))


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe0\0\7JFIF\0",
        b"\xff\xe2\0\x10ICC_PROFILE\0\1\0",
        b"\xff\xed\0\x1aPhotoshop 3.0\0" + b"8BIM\4\x04\0\0\x7f\xff",
        b"\xff\xee\0\7Adobe",
        b"\xff\xfe\0\2",
        b"\xff\xe1\0\x08MPF\0\0\0",
    ],
)
def test_corrupt_segment_of_metadata_does_not_reject_a_jpeg(segment: bytes) -> None:
    plain = encode(photo(), "JPEG")
    assert np.array_equal(decode(plain[:2] + segment + plain[2:]), bare(plain))


def exif(*entries: tuple[int, int, int, int]) -> bytes:
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)


@pytest.mark.parametrize(
    ("segments", "rotated"),
    [
        ([exif((274, 3, 1, 6))], True),
        ([exif((274, 4, 1, 6))], True),
        ([exif((274, 2, 1, 6))], False),
        ([exif((274, 3, 25_000_000, 6))], False),
        ([exif((274, 3, 1, 0))], False),
        ([exif((274, 3, 1, 9))], False),
        ([exif((1, 3, 1, 0)), exif((274, 3, 1, 6))], False),  # the first counts
        ([exif((274, 3, 1, 6)), exif((274, 3, 1, 3))], True),
        ([b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>".replace(b"'", b'"')], False),  # XMP never
    ],
)
def test_orientation_is_the_one_of_the_first_exif(segments: list[bytes], rotated: bool) -> None:
    plain = encode(photo(), "JPEG")
    inserted = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in segments)
    upright = Image.open(BytesIO(plain))
    expected = bare(upright.transpose(Image.Transpose.ROTATE_270) if rotated else upright)
    assert np.array_equal(decode(plain[:2] + inserted + plain[2:]), expected)


# JPEG without its end

JPEGS: list[dict[str, Any]] = [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}]


@pytest.mark.parametrize("options", JPEGS, ids=str)
@pytest.mark.parametrize("tail", [b"", b"\xff", bytes(100), b"\xff\xff"])
def test_jpeg_with_all_scans_needs_no_end_marker(options: dict[str, Any], tail: bytes) -> None:
    data = encode(photo(50, 40), "JPEG", **options)
    assert np.array_equal(decode(data[:-2] + tail), bare(data))


@pytest.mark.parametrize("options", JPEGS, ids=str)
def test_jpeg_cut_in_or_between_its_scans_is_truncated(options: dict[str, Any]) -> None:
    data = encode(photo(50, 40), "JPEG", **options)
    first = data.index(b"\xff\xda") + 14
    for end in range(first, len(data) - 4):
        assert reason_of(data[:end]) == "truncated"


# Transparency


def half_clear(mode: str) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Return an image whose left half is transparent, and its pixels on white."""
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:, :4] = 0
    image = Image.new("RGB", (8, 8), (10, 200, 30)) if mode == "RGBA" else Image.new("L", (8, 8), 77)
    seen = np.array(image.convert("RGB"))
    seen[:, :4] = 255
    image.putalpha(Image.fromarray(alpha))
    return image, seen


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGBA", "PNG", {}),
        ("RGBA", "TIFF", {}),
        ("RGBA", "WEBP", {"lossless": True, "exact": True}),
        ("RGBA", "GIF", {}),
        ("LA", "PNG", {}),
        ("LA", "TIFF", {}),
    ],
)
def test_alpha_is_composited_onto_white(mode: str, kind: str, options: dict[str, Any]) -> None:
    image, seen = half_clear(mode)
    assert np.array_equal(decode(encode(image, kind, **options), 8), seen)


def test_half_transparent_becomes_half_white() -> None:
    data = encode(Image.new("RGBA", (4, 4), (0, 100, 200, 128)), "PNG")
    assert np.abs(decode(data, 4).astype(int) - (127, 177, 227)).max() <= 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_colours_become_white(kind: str, transparency: int | bytes) -> None:
    if kind == "GIF" and isinstance(transparency, bytes):
        transparency = 1  # GIF supports one transparent colour
    image = Image.new("P", (4, 4), 2)
    image.putpalette([0, 0, 0, 250, 0, 0, 0, 0, 250])
    image.paste(1, (0, 0, 2, 4))
    pixels = decode(encode(image, kind, transparency=transparency), 4)
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, 2:] == (0, 0, 250)).all()


@pytest.mark.parametrize(
    ("bits", "colour", "clear", "solid"),
    [
        (8, 0, (200,), (90,)),
        (16, 0, (0x1234,), (0x5A35,)),
        (8, 2, (1, 2, 3), (1, 2, 90)),
    ],
)
def test_transparent_colour_without_palette_becomes_white(
    bits: int, colour: int, clear: tuple[int, ...], solid: tuple[int, ...]
) -> None:
    sample = ">" + ("H" if bits == 16 else "B") * len(clear)
    row = b"\0" + struct.pack(sample, *clear) + struct.pack(sample, *solid)
    data = png(2, 2, bits, colour, row * 2, tRNS=struct.pack(">" + "H" * len(clear), *clear))
    pixels = decode(data, 2)
    assert (pixels[:, 0] == 255).all()
    assert (pixels[:, 1] == np.array(solid) >> (bits - 8)).all()


def test_bits_of_a_png_are_read_from_its_header_wherever_it_is() -> None:
    data = png(2, 1, 4, 0, b"\0\x7a", tRNS=struct.pack(">H", 7))
    before = png_chunk(b"teXt", bytes(8) + b"\x08" + bytes(3))  # an 8 at the place of the bits
    moved = data[:8] + before + data[8:]
    assert moved[24] == 8
    assert decode(moved, 2).tolist() == decode(data, 2).tolist() == [[[255] * 3, [170] * 3]] * 2


@pytest.mark.parametrize("transparency", [None, 2])
@pytest.mark.parametrize("place", [(0, 0), (3, 1)])
def test_canvas_outside_the_first_frame_of_a_gif_is_white(place: tuple[int, int], transparency: int | None) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    options = {} if transparency is None else {"transparency": transparency}
    data = bytearray(encode(image, "GIF", optimize=False, **options))
    struct.pack_into("<HH", data, 6, 8, 8)  # the canvas
    frame = data.index(b",", 13 + 3 * (2 << (data[10] & 7)))
    assert data[frame + 5 : frame + 9] == struct.pack("<HH", 4, 4)
    struct.pack_into("<HH", data, frame + 1, *place)
    expected = np.full((8, 8, 3), 255)
    left, top = place
    expected[top : top + 4, left : left + 4] = (0, 250, 0)
    assert np.array_equal(decode(bytes(data), 8), expected)


def test_canvas_outside_the_first_frame_of_a_webp_is_white() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((0, 250, 0), (250, 0, 0))]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert data[12:16] == b"VP8X"
    assert not data[20] & 16  # no frame has alpha
    data[24:30] = bytes([7, 0, 0, 7, 0, 0])  # width and height of the canvas, less 1
    data[data.index(b"ANMF") + 8] = 1  # half of the left edge
    expected = np.full((8, 8, 3), 255)
    expected[:4, 2:6] = (0, 250, 0)
    assert np.array_equal(decode(bytes(data), 8), expected)


@pytest.mark.parametrize(("flags", "rotated"), [(8, True), (0, False), (None, False)])
def test_exif_of_a_webp_counts_if_its_header_names_it(flags: int | None, rotated: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photo(), "WEBP", lossless=True, exif=exif)
    header = data[12:30]
    if flags is None:
        body = data[30:]
    else:
        body = header[:8] + bytes([flags]) + header[9:] + data[30:]
    upright = photo().transpose(images.TRANSPOSE[6]) if rotated else photo()
    assert np.array_equal(decode(data[:4] + struct.pack("<I", len(body) + 4) + b"WEBP" + body), bare(upright))


# Wide samples

RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)


def test_16_bit_samples_keep_the_high_byte() -> None:
    for image in (Image.fromarray(RAMP), Image.fromarray(RAMP.astype(">u2"))):
        for kind in ("PNG", "TIFF") if image.mode == "I;16" else ("TIFF",):
            assert np.array_equal(decode(encode(image, kind), 16), grey(RAMP >> 8))


def test_16_bit_grey_and_16_bit_rgb_give_equal_pixels() -> None:
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in RAMP)
    assert np.array_equal(decode(png(16, 16, 16, 2, rows), 16), decode(encode(Image.fromarray(RAMP), "PNG"), 16))


def test_12_bit_samples_are_scaled_to_full_range() -> None:
    values = RAMP >> 4
    packed = b"".join(struct.pack(">I", a << 12 | b)[1:] for a, b in values.reshape(-1, 2).tolist())
    assert np.array_equal(decode(tiff(16, 16, 12, packed), 16), grey(values >> 4))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP.astype(np.int32), RAMP >> 8),
        (np.array([[-300, 0], [0, 300]], np.int32), [[0, 128], [128, 255]]),
        (np.array([[0, 2**31 - 1], [0, 0]], np.int32), [[0, 255], [0, 0]]),
        (np.array([[0.0, 0.25], [0.5, 0.5]], np.float32), [[0, 64], [128, 128]]),
        (np.array([[0.0, 1000.0], [500.0, 1000.0]], np.float32), [[0, 255], [128, 255]]),
        (np.array([[np.nan, -np.inf], [np.inf, 0.6]], np.float32), [[0, 0], [255, 153]]),
        (np.array([[-3e38, 3e38], [0.0, 0.0]], np.float32), [[0, 255], [128, 128]]),
        (np.array([[5.0, 5.0], [5.0, 5.0]], np.float32), [[0, 0], [0, 0]]),
    ],
)
def test_32_bit_integers_and_floats_are_scaled(values: NDArray[Any], expected: list[list[int]]) -> None:
    pixels = decode(encode(Image.fromarray(values), "TIFF"), len(values))
    assert np.array_equal(pixels, grey(np.array(expected)))


# Multiple frames


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_first_frame_is_used(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    data = encode(first, kind, save_all=True, append_images=[second])
    assert np.array_equal(decode(data), bare(data))
    assert np.abs(decode(data, 4).astype(int) - (200, 0, 0)).max() <= 3


# Rejects


def test_every_reason_is_documented() -> None:
    assert re.findall(r"^``([a-z-]+)`` +the ", images.__doc__ or "", re.MULTILINE) == list(REASONS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"BMW and other cars, a list of them\n", "not-an-image"),
        (b"%PDF-1.7", "not-an-image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not-an-image"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not-an-image"),
        (b"GIF89a" + bytes(100), "undecodable"),
        (b"\xff\xd8\xff" + bytes(100), "undecodable"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\1bad!", "undecodable"),
        (png(0, 5, 8, 2), "undecodable"),
        (tiff(0, 4, 8, bytes(16)), "undecodable"),
        (tiff(4, 4, 7, bytes(16)), "undecodable"),
        (png(4, 4, 8, 5, bytes(20)), "undecodable"),
    ],
)
def test_unusable_file_has_a_reason(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_rejected_as_truncated(kind: str) -> None:
    data = encode(photo(), kind)
    assert reason_of(data[: len(data) // 2]) == "truncated"


def test_corrupt_image_is_undecodable_not_truncated() -> None:
    data = bytearray(encode(photo(), "WEBP"))
    data[20:60] = bytes(40)
    assert reason_of(bytes(data)) == "undecodable"


def patched(kind: str, width: int, height: int) -> bytes:
    """Return a small image whose header states another size."""
    data = bytearray(encode(photo(), kind, **({"lossless": True} if kind == "WEBP" else {})))
    if kind == "WEBP":
        at = data.index(b"VP8L") + 9
        struct.pack_into("<I", data, at, (width - 1) | (height - 1) << 14)
    elif kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    elif kind == "GIF":
        struct.pack_into("<HH", data, 6, width, height)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, width, height)
    elif kind == "PNG":
        return png(width, height, 8, 2)
    elif kind == "TIFF":
        return tiff(width, height, 8, bytes(16))
    return bytes(data)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("side", [7_072, 10_000, 16_000])  # just above our limit; Pillow warns; Pillow raises
def test_more_than_50_megapixels_are_rejected_by_the_header(kind: str, side: int) -> None:
    data = patched(kind, side, side)
    with pytest.raises(ImageError, match=r"too-large: .*pixels"):  # decoded, it would be truncated or undecodable
        decode(data)


def test_image_at_the_pixel_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo(30, 20), "PNG")
    monkeypatch.setattr(images, "MAX_PIXELS", 600)
    assert decode(data).shape == (224, 224, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    assert reason_of(data) == "too-large"


def test_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageError("truncated", "OSError: message")))
    assert (error.reason, error.detail, str(error)) == ("truncated", "OSError: message", "truncated: OSError: message")


SAMPLES = [
    *(encode(photo(), kind) for kind in FORMATS),
    encode(photo(), "JPEG", progressive=True),
    encode(photo().convert("CMYK"), "JPEG"),
    encode(half_clear("RGBA")[0], "PNG"),
    encode(Image.fromarray(RAMP), "PNG"),
    encode(photo().convert("P"), "PNG", transparency=bytes(range(256))),
    encode(photo(), "WEBP", lossless=True),
    encode(photo(), "WEBP", save_all=True, append_images=[photo(seed=1)]),
    encode(photo(), "TIFF", compression="tiff_lzw"),
    encode(photo(), "TIFF", compression="tiff_deflate"),
    encode(photo(), "GIF", save_all=True, append_images=[photo(seed=1)]),
]


def check_hostile(data: bytes) -> None:
    """Assert that any bytes give pixels or a reproducible reason."""
    try:
        pixels = decode(data, 8)
    except ImageError as error:
        reason, detail = error.reason, error.detail
    else:
        assert pixels.shape == (8, 8, 3)
        return
    assert reason in REASONS
    assert detail.encode()
    assert " at 0x" not in detail  # an address in memory would make two runs differ


@pytest.mark.parametrize("data", SAMPLES)
def test_file_truncated_anywhere_gives_pixels_or_a_reason(data: bytes) -> None:
    for length in range(len(data)):
        check_hostile(data[:length])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_file_with_changed_bytes_gives_pixels_or_a_reason(draw: st.DataObject) -> None:
    data = bytearray(draw.draw(st.sampled_from(SAMPLES)))
    places = st.one_of(st.integers(0, min(len(data), 120) - 1), st.integers(0, len(data) - 1))
    for place, value in draw.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=8)).items():
        data[place] = value
    check_hostile(bytes(data))


@given(st.sampled_from([data[:16] for data in SAMPLES]), st.binary(max_size=200))
def test_signature_followed_by_any_bytes_gives_pixels_or_a_reason(head: bytes, tail: bytes) -> None:
    check_hostile(head + tail)


def test_threads_and_warning_filters_do_not_change_the_pixels() -> None:
    plain = encode(photo(), "PNG")
    odd = tiff_of(np.asarray(photo()), 2, more={256: (4, [24, 24])})  # Pillow warns about the second width
    with pytest.warns(UserWarning, match="too many entries"):
        loud = decode(odd)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(decode, [odd, plain] * 50))
    assert warnings.filters == before
    assert all(np.array_equal(result, loud) for result in results)
    assert np.array_equal(loud, bare(plain))


# Detection


@pytest.mark.parametrize("kind", FORMATS)
def test_image_is_detected_by_its_first_bytes(kind: str) -> None:
    data = encode(photo(), kind)
    assert is_image(data[:32])
    assert not is_image(data[1:33])
    assert EXTENSION_OF[kind] in EXTENSIONS


def test_extensions_are_known_to_pillow() -> None:
    Image.init()
    known = {extension for extension, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert set(EXTENSIONS) <= known | {".dib"}
    assert known - set(EXTENSIONS) <= {".apng"}


def test_pillow_supports_all_formats() -> None:
    assert all(features.check(name) for name in ("jpg", "zlib", "webp", "libtiff"))


def test_corrupt_tiff_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    data = bytearray(encode(Image.fromarray(noise), "TIFF", compression="tiff_lzw"))
    data[100:2000] = bytes(value ^ 0xA5 for value in data[100:2000])
    with pytest.raises(ImageError, match="undecodable"):  # by libtiff, and not before
        decode(bytes(data), 224)
    assert capfd.readouterr().err == ""


def test_ycbcr_tiff_is_a_reject_where_pillow_decodes_it_to_other_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo().convert("YCbCr"), "TIFF")
    assert decode(data).shape == (224, 224, 3)
    monkeypatch.setattr("fruits.images.tiff.PILLOW", 12)
    with pytest.raises(ImageError, match="YCbCr"):
        decode(data)

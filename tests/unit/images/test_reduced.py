"""JPEGs decoded at a reduced scale, and centre crops."""

from __future__ import annotations

import struct
from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fruits.images.containers import parse
from fruits.images.decode import TRANSPOSE, Decoding, ImageError, decode, decode_crops, resize_crops
from fruits.images.jpeg import load_reduced

FULL = Decoding("full")
BICUBIC = Image.Resampling.BICUBIC


def photo(width: int, height: int) -> Image.Image:
    """Return waves of several lengths and noise: every pixel of the result depends on its place."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(9 * x + 4 * y), np.cos(30 * x * y + 5 * y), np.sin(60 * (x - 0.3) ** 2 + 20 * y)]
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    return Image.fromarray(np.clip(127 + 100 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **options})
    return stream.getvalue()


def lossless_jpeg(width: int, height: int) -> bytes:
    """Return a grey JPEG without DCT (process 14, predictor 1), whose differences are all 0, of one bit each."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xC4, bytes([0, 1, *[0] * 15, 0])),
            segment(0xC3, struct.pack(">BHHB", 8, height, width, 3) + components),
            segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 1, 0, 0])),
            bytes(-(-width * height * 3 // 8)),
            b"\xff\xd9",
        ]
    )


def drafted(data: bytes, size: int) -> NDArray[np.uint8]:
    """Return the pixels of a JPEG that Pillow reduces to at least twice the size."""
    image = Image.open(BytesIO(data))
    box = image.draft(None, (2 * size, 2 * size))  # type: ignore[arg-type]
    assert box is not None
    return np.asarray(image.convert("RGB").resize((size, size), BICUBIC, box[1]))


def outcome(data: bytes, decoding: Decoding, size: int = 16) -> tuple[str, str]:
    """Return the reason and detail of a reject, or ``"pixels"``."""
    try:
        assert decode_crops(data, size, decoding).shape == (decoding.crops, size, size, 3)
    except ImageError as error:
        return error.reason, error.detail
    return "pixels", ""


@pytest.mark.parametrize("shape", list(product((447, 448, 449, 895, 896, 897), repeat=2)))
def test_jpeg_is_reduced_if_both_sides_stay_twice_as_long_as_the_result(shape: tuple[int, int]) -> None:
    data = jpeg(photo(*shape))
    pixels, full = decode(data), decode_crops(data, 224, FULL)[0]
    assert np.array_equal(full, np.asarray(Image.open(BytesIO(data)).resize((224, 224), BICUBIC)))
    assert np.array_equal(pixels, full) == (min(shape) < 896)
    assert np.array_equal(pixels, drafted(data, 224))
    assert np.abs(pixels.astype(int) - full).max() <= 8


@pytest.mark.parametrize(("side", "scale"), [(31, 1), (32, 2), (63, 2), (64, 4), (127, 4), (128, 8), (1000, 8)])
def test_scale_is_the_smallest_that_keeps_twice_the_size(side: int, scale: int) -> None:
    reduced = load_reduced(parse(jpeg(photo(side, side))), 16)
    assert reduced is not None
    image, extent = reduced
    assert image.size == (-(-side // scale),) * 2
    assert extent == (side / scale,) * 2


@pytest.mark.parametrize("shape", [(64, 6_000), (6_000, 64), (63, 6_000), (900, 70)])
def test_shape_of_any_ratio_is_reduced_by_its_shorter_side(shape: tuple[int, int]) -> None:
    data = jpeg(photo(*shape))
    assert np.array_equal(decode(data, 16), drafted(data, 16))
    assert np.abs(decode(data, 16).astype(int) - decode_crops(data, 16, FULL)[0]).max() <= 12


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats_are_never_reduced(kind: str) -> None:
    stream = BytesIO()
    photo(200, 150).save(stream, kind)
    data = stream.getvalue()
    assert np.array_equal(decode_crops(data, 16), decode_crops(data, 16, FULL))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_blocks": 3}],
    ids=["baseline", "progressive", "4:4:4", "4:2:2", "restarts"],
)
def test_variants_of_jpeg_are_reduced(mode: str, options: dict[str, Any]) -> None:
    data = jpeg(photo(301, 203).convert(mode), **options)
    pixels = decode(data, 24)
    assert np.array_equal(pixels, drafted(data, 24))
    assert 0 < np.abs(pixels.astype(int) - decode_crops(data, 24, FULL)[0]).mean() <= 3  # 4:2:2 blurs the colours most


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(301, 203), (289, 255), (256, 201)])
def test_orientation_turns_the_pixels_of_both_crops(orientation: int, shape: tuple[int, int]) -> None:
    """The reduced image extends beyond the right and the bottom of the picture by part of a pixel."""
    image = photo(*shape)
    exif = Image.Exif()
    exif[274] = orientation
    plain, turned = (decode_crops(jpeg(image, **options), 24, Decoding(crops=2)) for options in ({}, {"exif": exif}))
    for before, after in zip(plain, turned, strict=True):
        method = TRANSPOSE.get(orientation)
        expected = np.asarray(Image.fromarray(before).transpose(method)) if method is not None else before
        assert np.abs(after.astype(int) - expected).max() <= 2  # rounding, which depends on the order of the axes


def test_lossless_jpeg_is_decoded_at_full_size() -> None:
    data = lossless_jpeg(120, 100)
    assert load_reduced(parse(data), 32) is None
    assert np.array_equal(decode(data, 16), np.full((16, 16, 3), 128))


# A reduced JPEG is rejected for the same reason as the full one.


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_blocks": 5}])
@pytest.mark.parametrize("shape", [(160, 130), (129, 145)])
def test_truncated_jpeg_is_rejected_as_at_full_size(options: dict[str, Any], shape: tuple[int, int]) -> None:
    data = jpeg(photo(*shape), **options)
    found = set()
    for length in (*range(2, len(data) - 150, len(data) // 40), *range(len(data) - 150, len(data) + 1)):
        reduced, full = outcome(data[:length], Decoding()), outcome(data[:length], FULL)
        assert reduced == full
        found.add(reduced[0])
    assert found >= {"truncated", "pixels"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.data())
def test_corrupt_jpeg_has_the_outcome_of_full_decoding(draw: st.DataObject) -> None:
    data = bytearray(draw.draw(st.sampled_from(CORRUPTED)))
    places = st.one_of(st.integers(0, 700), st.integers(0, len(data) - 1))
    for place, value in draw.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=6)).items():
        data[place] = value
    assert outcome(bytes(data), Decoding(crops=2)) == outcome(bytes(data), FULL)


CORRUPTED = [jpeg(photo(130, 110)), jpeg(photo(130, 110), progressive=True), jpeg(photo(130, 110).convert("L"))]


def test_size_is_limited_before_the_reduction() -> None:
    data = bytearray(jpeg(photo(130, 110)))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 7_072, 7_072)
    reason, detail = outcome(bytes(data), Decoding())
    assert (reason, detail) == ("too-large", "7072 x 7072 pixels, of 50,000,000 at most")


# Crops


@pytest.mark.parametrize("mode", ["reduced", "full"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (230, 180), (1_000, 900)])
def test_first_crop_is_the_whole_image(mode: Any, shape: tuple[int, int]) -> None:
    data = jpeg(photo(*shape))
    crops = decode_crops(data, 224, Decoding(mode, crops=2))
    assert crops.shape == (2, 224, 224, 3)
    assert np.array_equal(crops[0], decode_crops(data, 224, Decoding(mode))[0])


def test_second_crop_is_the_centre() -> None:
    image = photo(500, 300)
    stream = BytesIO()
    image.save(stream, "PNG")
    expected = np.asarray(image.resize((224, 224), BICUBIC, (75, 45, 425, 255)))
    crops = decode_crops(stream.getvalue(), 224, Decoding(crops=2))
    assert np.array_equal(crops[1], expected)
    assert np.array_equal(resize_crops(image, 224, 2), crops)

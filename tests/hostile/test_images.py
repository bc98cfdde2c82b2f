"""Malicious images: pixels or a reason, in bounded time and memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fruits.images.decode import REASONS, ImageError, decode
from tests.conftest import LONG
from tests.hostile import decode_bombs, pictures
from tests.hostile.conftest import EXAMPLES
from tests.hostile.measure import Measurement, run_module

MEMORY = 10**9  # bytes of the whole process
SECONDS = 10  # of CPU time
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
QUICK = (
    *("bmp-runs", "gif-frames", "tiff-tile", "tiff-tile-beyond", "webp", "webp-canvas", "line", "side"),
    *("exif-segments", "jpeg-fill", "png-orientation", "png-empty-idat", "webp-chunks", "tiff-shared-tags"),
)
BOMBS = tuple(decode_bombs.BOMBS) if LONG else QUICK
SEGMENTS = {"png": pictures.png_of_chunks, "gif": pictures.gif_of_blocks, "tiff": pictures.tiff_of_tags}
CUTS = 60  # lengths per file; all lengths with FRUITS_LONG


def check(data: bytes) -> str:
    """Return the reason of the reject, or ``"pixels"``; any other exception is a failure."""
    try:
        pixels = decode(data, 8)
    except ImageError as error:
        rejected = error
    else:
        assert pixels.shape == (8, 8, 3)
        return "pixels"
    assert rejected.reason in REASONS
    assert rejected.detail.encode()
    return rejected.reason


@pytest.fixture(scope="module")
def seeds(fruits360: Path) -> list[bytes]:
    """Real images of several labels, each in all six formats."""
    files = sorted(fruits360.glob("Training/*/*.jpg"))[:: 30 * 22]
    assert len(files) > 4
    originals = [file.read_bytes() for file in files]
    return originals + [pictures.encoded(Image.open(file), kind) for file, kind in zip(files, KINDS[1:], strict=False)]


def test_truncated_real_images_give_pixels_or_a_reason(seeds: list[bytes]) -> None:
    strides = (1 if LONG else max(1, len(seed) // CUTS) for seed in seeds)
    found = {
        check(seed[:cut]) for seed, stride in zip(seeds, strides, strict=True) for cut in range(0, len(seed), stride)
    }
    assert {"empty", "truncated"} <= found


@EXAMPLES
@given(draw=st.data())
def test_real_images_with_changed_bytes_give_pixels_or_a_reason(seeds: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(draw.draw(st.sampled_from(seeds)))
    places = st.one_of(st.integers(0, min(len(data), 200) - 1), st.integers(0, len(data) - 1))
    for place, value in draw.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=12)).items():
        data[place] = value
    check(bytes(data))


@EXAMPLES
@given(draw=st.data())
def test_spliced_real_images_give_pixels_or_a_reason(seeds: list[bytes], draw: st.DataObject) -> None:
    one, two = (draw.draw(st.sampled_from(seeds)) for _ in range(2))
    check(one[: draw.draw(st.integers(0, len(one)))] + two[draw.draw(st.integers(0, len(two))) :])


@pytest.mark.parametrize(
    "data",
    [
        pictures.jpeg_claiming(65_500, 65_500),
        pictures.png(65_500, 65_500, rows=b""),
        pictures.tiff(65_500, 65_500, strip=b"\0" * 64),
        pictures.gif(65_500, 65_500),
        pictures.bmp(65_500, 65_500),
        pictures.webp_canvas(65_500, 65_500),
        pictures.webp(16_383, 16_383),
    ],
    ids=["jpeg", "png", "tiff", "gif", "bmp", "webp-canvas", "webp"],
)
def test_header_of_four_gigapixels_is_rejected(data: bytes) -> None:
    assert check(data) == "too-large"


@pytest.fixture(scope="module")
def measurements() -> dict[str, Measurement]:
    """Return the measurements of decoding all bombs in one process."""
    return run_module("tests.hostile.decode_bombs", *BOMBS, timeout=900 if LONG else 300)


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_is_decoded_in_bounded_time_and_memory(measurements: dict[str, Measurement], bomb: str) -> None:
    seconds, memory, result = measurements[bomb]
    assert "224, 224, 3" in result or result.startswith("ImageError")
    assert memory < MEMORY
    assert seconds < SECONDS


def test_gif_of_ten_thousand_frames_takes_the_time_of_one(measurements: dict[str, Measurement]) -> None:
    assert measurements["gif-frames"].result == "(224, 224, 3)"
    assert measurements["gif-frames"].seconds < 1


def test_jpeg_of_thousands_of_scans_is_rejected() -> None:
    """A megabyte of scans of ten bytes would occupy a worker for a quarter of an hour."""
    assert check(pictures.jpeg_of_scans(64, 64, 5_000)) == "too-large"


def test_jpeg_of_twenty_scans_is_decoded() -> None:
    assert check(pictures.jpeg_of_scans(64, 64, 20)) == "pixels"


def test_scan_markers_in_a_comment_or_after_the_image_are_not_counted() -> None:
    data = pictures.jpeg_of_scans(64, 64, 20)
    comment = b"\xff\xfe" + (2 + 20_000).to_bytes(2, "big") + b"\xff\xda" * 10_000
    assert check(data[:2] + comment + data[2:] + b"\xff\xda" * 10_000) == "pixels"


@pytest.mark.parametrize("place", [2, -2], ids=["before", "after"])
def test_a_million_segments_are_rejected(place: int) -> None:
    data = pictures.jpeg_of_scans(64, 64, 1)
    assert check(data[:place] + b"\xff\xfe\0\2" * 10**6 + b"\xff\xda" * 200 + data[place:]) == "too-large"


@pytest.mark.parametrize("many", [10, 200_000], ids=["few", "many"])
@pytest.mark.parametrize("form", SEGMENTS)
def test_too_many_chunks_blocks_or_tags_are_rejected(form: str, many: int) -> None:
    assert check(SEGMENTS[form](many)) == ("pixels" if many == 10 else "too-large")


@pytest.mark.parametrize(("tag", "expected"), [(320, "too-large"), (50_000, "pixels")])
@pytest.mark.parametrize("kind", [3, 5, 7])
def test_tag_of_two_million_numbers_is_rejected_if_the_pixels_need_it(tag: int, expected: str, kind: int) -> None:
    entry = struct.pack("<HHII", tag, kind, 2_000_000, 0)
    is_number = kind == 3
    found = check(pictures.tiff(4, 4, strip=pictures.zeros(48), more=entry))
    assert found == (expected if is_number else "pixels")


def test_image_of_the_longest_side_is_decoded() -> None:
    assert check(pictures.png(1_000_000, 3, bits=1, colour=0)) == "pixels"
    assert check(pictures.png(1_000_001, 3, bits=1, colour=0)) == "too-large"

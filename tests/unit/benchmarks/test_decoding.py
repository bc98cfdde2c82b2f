from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.answers.check import LARGE_COSINE, LARGE_LARGEST, compare_features
from benchmarks.inputs.images import Originals
from benchmarks.peers import equal
from benchmarks.precision.decoding import measure, table
from fruits.images.decode import decode
from tests.unit.benchmarks.test_answers import PATHS, store


@pytest.fixture
def photos(tmp_path: Path) -> Originals:
    for index in range(4):
        path = tmp_path / "photos" / f"label {index % 2}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (60 * index, 200 - 50 * index, 90)).save(path)
    return Originals.below(str(tmp_path / "photos"), 4)


def test_enlarged_images_have_the_size_and_the_noise_of_photos(photos: Originals, tmp_path: Path) -> None:
    enlarged = photos.enlarged(1.2, tmp_path / "cache")
    assert enlarged.names == photos.names
    for name in photos.names:
        with Image.open(Path(enlarged.folder, name)) as image, Image.open(Path(photos.folder, name)) as small:
            pixels, colour = np.asarray(image, np.float32), small.getpixel((0, 0))
            assert image.size == (1265, 949)
        assert pixels.mean(axis=(0, 1)) == pytest.approx(colour, abs=4)
        assert 2 < pixels[..., 1].std() < 8
    again = photos.enlarged(1.2, tmp_path / "other")
    assert Path(again.folder, again.names[0]).read_bytes() == Path(enlarged.folder, enlarged.names[0]).read_bytes()
    assert again.digest == enlarged.digest


def test_scales_are_compared_with_full_decoding(photos: Originals, tmp_path: Path) -> None:
    enlarged = photos.enlarged(1.2, tmp_path)
    results = measure(1.2, enlarged, enlarged, lambda pixels: pixels[:, ::16, ::16].reshape(1, -1).astype(np.float32))
    full, one, two, four = results
    assert [result.form for result in results] == ["full", "margin 1", "margin 2", "margin 4"]
    assert (full.mean_error, four.mean_error, full.speed) == (0, 0, 1)  # 949 pixels are not reduced to 4 x 224
    assert 0 < two.mean_error < one.mean_error < 0.05
    assert [result.accuracy for result in results] == [100] * 4
    assert [result.recogniser for result in results] == [100] * 4
    assert table(results).count("\n| 1.2 | ") == 4


def test_peers_that_decode_at_full_size_are_close_within_the_tolerance_for_large_images(tmp_path: Path) -> None:
    features = np.abs(np.random.default_rng(0).standard_normal((40, 12))).astype(np.float32)
    other = features * np.float32(1) + np.float32(0.01)
    folder = store(tmp_path / "x", other)
    assert compare_features(folder, PATHS, features, exact=False).verdict == "wrong"
    tolerance = (LARGE_LARGEST, LARGE_COSINE)
    assert compare_features(folder, PATHS, features, exact=False, tolerance=tolerance).verdict == "close"
    assert compare_features(folder, PATHS, features[:, ::-1], exact=False, tolerance=tolerance).verdict == "wrong"


@pytest.mark.parametrize("size", [(100, 100), (640, 480), (1000, 900), (2049, 1537), (4000, 3000)])
def test_peers_on_an_equal_runtime_have_the_pixels_of_fruits(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0])
    file = BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)).resize(size).save(file, "JPEG")
    assert np.array_equal(equal.decode(file.getvalue()), decode(file.getvalue()))

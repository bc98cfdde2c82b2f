"""`fruits.features`: the features of images in any form, with the bits of a job."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fruits
from backends.local import LocalExecutor
from fruits.errors import DatasetError, SettingsError
from fruits.storage.parquet import read_table, vectors


def photo(width: int, height: int, seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write a small PNG, a transparent PNG, and a large JPEG that is rotated, of one label."""
    folder = tmp_path_factory.mktemp("images") / "label"
    folder.mkdir()
    exif = Image.Exif()
    exif[274] = 6
    photo(120, 90, 0).save(folder / "a.png")
    clear = photo(300, 200, 1).convert("RGBA")
    clear.putalpha(photo(300, 200, 2).convert("L"))
    clear.save(folder / "b.png")
    photo(1_301, 905, 3).save(folder / "c.jpg", exif=exif)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("decode", ["reduced", "full"])
def test_features_of_files_have_the_bits_of_a_job(images: list[Path], tmp_path: Path, decode: Any) -> None:
    job = fruits.Job(images=str(images[0].parent), out=str(tmp_path / "out"), components=1, decode=decode)
    fruits.fit(job, LocalExecutor())
    (part,) = (tmp_path / "out" / "features").iterdir()
    table = read_table(part.read_bytes())
    assert table["path"].to_pylist() == [path.name for path in images]
    expected = vectors(table["features"])
    assert np.array_equal(fruits.features(images, decode=decode), expected)
    assert np.array_equal(fruits.features(map(str, images), decode=decode), expected)
    assert np.array_equal(fruits.features([path.read_bytes() for path in images], decode=decode), expected)
    one = fruits.features(images[2], decode=decode)
    assert one.shape == (1, 1280)
    assert one.dtype == np.float32
    assert np.array_equal(one, expected[2:])


def test_scale_of_large_jpegs_is_a_setting(images: list[Path]) -> None:
    reduced, full = fruits.features(images), fruits.features(images, decode="full")
    assert [np.array_equal(*pair) for pair in zip(reduced, full, strict=True)] == [True, True, False]


def test_images_and_arrays_have_the_features_of_their_pixels(images: list[Path]) -> None:
    with Image.open(images[0]) as small, Image.open(images[1]) as clear:
        forms = [small, np.asarray(small), np.asarray(small)[:, ::-1][:, ::-1], clear]
        found = fruits.features(forms)
        assert np.array_equal(found[0], fruits.features(small)[0])
    expected = fruits.features(images)
    assert np.array_equal(found, expected[[0, 0, 0, 1]])
    upright = Image.open(images[2]).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(fruits.features(upright), fruits.features(images[2], decode="full"))


def test_no_images_give_no_rows() -> None:
    assert fruits.features([]).shape == (0, 1280)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (3, "`inputs` is of type int: not allowed. Allowed: a path or URL, the bytes of a file"),
        ([np.zeros((2, 2, 3), np.uint8), 3], "`inputs`[1] is of type int: not allowed. Allowed: a path"),
        (np.zeros((4, 8, 8, 3), np.uint8), "`inputs` is an array of uint8, shape (4, 8, 8, 3): not allowed"),
        (np.zeros((8, 8, 3), np.float32), "`inputs` is an array of float32, shape (8, 8, 3): not allowed"),
        ([np.zeros((0, 8, 3), np.uint8)], "`inputs`[0] is an array of uint8, shape (0, 8, 3): not allowed"),
        (b"GIF of a cat", "`inputs` cannot be used: not-an-image: begins with b'GIF of a'"),
        (["no-such-file.jpg"], "`inputs`[0] no-such-file.jpg cannot be read: No such file or directory. Allowed:"),
        ("", "`inputs` cannot be read: empty path"),
        ("a\0.jpg", "`inputs` a\\x00.jpg cannot be read: a\\x00.jpg: a NUL or half a surrogate pair is in no name"),
        ("\ud800", "`inputs` \\ud800 cannot be read: \\ud800: a NUL or half a surrogate pair is in no name"),
        (Path("\ud800"), "`inputs` \\ud800 cannot be read: \\ud800: a NUL or half a surrogate pair is in no name"),
        (Image.new("RGB", (0, 5)), "`inputs` is an image of 0 x 5 pixels: not allowed"),
    ],
)
def test_invalid_input_is_named(inputs: Any, says: str) -> None:
    with pytest.raises(DatasetError) as raised:
        fruits.features(inputs)
    assert str(raised.value).startswith(says)


def test_truncated_file_behind_an_image_is_named(images: list[Path]) -> None:
    data = images[2].read_bytes()
    with pytest.raises(DatasetError, match=r"^`inputs`\[1\] cannot be used: image file is truncated"):
        fruits.features([images[0], Image.open(BytesIO(data[: len(data) // 2]))])


@pytest.mark.parametrize(("setting", "says"), [({"decode": "half"}, "reduced, full"), ({"backbone": "VGG"}, "Mobile")])
def test_invalid_setting_is_refused_with_the_allowed_values(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        fruits.features([], **setting)


def test_import_of_fruits_loads_neither_the_network_nor_pillow() -> None:
    loaded = "import fruits, sys; print(sorted({'PIL', 'openvino', 'numpy', 'pyarrow'} & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True)
    assert process.stdout == "[]\n"

"""The sample dataset: labelled, varied, reproducible, and never written over existing files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fruits.errors import OutputError, SettingsError
from fruits.images.decode import EXTENSIONS, ImageError, decode
from fruits.images.sample import KINDS, generate


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sample")
    assert generate(folder, images=80, broken=6) == 86
    return contents(folder)


def test_each_label_has_a_folder(sample: dict[str, bytes]) -> None:
    assert len(sample) == 86
    labels = [name.split("/")[0] for name in sample if "broken" not in name]
    assert sorted(set(labels)) == [kind.label for kind in KINDS]


def test_number_of_labels_is_a_parameter(tmp_path: Path) -> None:
    assert generate(tmp_path / "new" / "folder", images=5, labels=2) == 5
    assert [folder.name for folder in sorted((tmp_path / "new" / "folder").iterdir())] == ["Apple", "Banana"]


def test_images_are_decodable_and_corrupt_files_are_rejected(sample: dict[str, bytes]) -> None:
    reasons = []
    for name, data in sample.items():
        assert Path(name).suffix in EXTENSIONS
        try:
            pixels = decode(data)
        except ImageError as error:
            reasons.append(error.reason)
        else:
            assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] > 240).all(), name  # white corners
            assert 0.05 < (pixels.min(axis=2) < 200).mean() < 0.8, name  # with a fruit in the middle
    assert sorted(reasons) == ["empty"] * 2 + ["not-an-image"] * 2 + ["truncated"] * 2


def test_images_have_100_pixels_and_several_formats(tmp_path: Path) -> None:
    generate(tmp_path, images=50)
    seen = set()
    for file in tmp_path.rglob("*.*"):
        with Image.open(file) as image:
            assert image.size == (100, 100)
            seen.add((image.format, image.mode))
    assert seen == {
        ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "I;16"),
    }  # fmt: skip


def test_seed_determines_all_bytes(tmp_path: Path, sample: dict[str, bytes]) -> None:
    generate(tmp_path / "again", images=80, broken=6)
    generate(tmp_path / "other", images=80, broken=6, seed=1)
    assert contents(tmp_path / "again") == sample
    other = contents(tmp_path / "other")
    assert other.keys() == sample.keys()
    assert sum(other[name] == sample[name] for name in sample) == 4  # the empty files and the texts


def test_labels_differ_visibly(sample: dict[str, bytes]) -> None:
    by_label: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, data in sample.items():
        if name.endswith(".jpg") and "_" not in name:
            by_label.setdefault(name.split("/")[0], []).append(decode(data, 8).astype(float))
    means = np.array([np.mean(pictures, axis=0) for pictures in by_label.values()])
    distances = np.abs(means[:, None] - means[None]).mean(axis=(2, 3, 4))
    assert distances[~np.eye(len(means), dtype=bool)].min() > 5


@pytest.mark.parametrize("occupied", ["file", "folder"])
def test_existing_files_are_not_overwritten(tmp_path: Path, occupied: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    with pytest.raises(OutputError, match="not an empty folder"):
        generate(mine if occupied == "file" else tmp_path, images=1)
    assert contents(tmp_path) == {"mine": b"precious"}


def test_folder_that_cannot_be_created_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        generate(tmp_path / "file" / "below", images=1)


@pytest.mark.parametrize(
    "wrong", [{"images": 0}, {"images": 10**7}, {"labels": 0}, {"labels": 9}, {"seed": -1}, {"broken": -1}]
)
def test_numbers_out_of_range_are_rejected(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="Allowed: images 1 to 1,000,000, labels 1 to 8"):
        generate(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()

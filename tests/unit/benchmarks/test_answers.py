from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.answers.check import check, compare_features, compare_models
from benchmarks.answers.reference import Reference, fit_parts
from benchmarks.cases import Case
from benchmarks.inputs.images import Originals, original
from benchmarks.inputs.keys import expected_digest
from fruits.errors import DatasetError
from fruits.model.rows import features_table

PATHS = [f"a/{index:02d}.jpg" for index in range(40)]


def store(folder: Path, features: npt.NDArray[np.float32], paths: list[str] = PATHS) -> Path:
    """Write features as two files, the second half first."""
    folder.mkdir(parents=True)
    half = len(paths) // 2
    for name, part in (("b", slice(0, half)), ("a", slice(half, None))):
        pq.write_table(
            features_table(paths[part], ["a"] * len(paths[part]), features[part]), folder / f"{name}.parquet"
        )
    return folder


@pytest.fixture
def features() -> npt.NDArray[np.float32]:
    return np.abs(np.random.default_rng(0).standard_normal((40, 12))).astype(np.float32)


def test_identical_features_are_identical_in_any_order_and_column_type(
    features: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    found = compare_features(store(tmp_path / "x", features), PATHS, features, exact=True)
    assert (found.verdict, found.largest, found.cosine) == ("identical", 0.0, pytest.approx(1))
    lists = pa.table({"path": PATHS[::-1], "features": pa.array(features[::-1].tolist(), pa.list_(pa.float32()))})
    (tmp_path / "y").mkdir()
    pq.write_table(lists, tmp_path / "y" / "part.parquet")
    assert compare_features(tmp_path / "y", PATHS, features, exact=True) == found


def test_one_changed_bit_is_wrong_for_fruits_and_close_for_peers(
    features: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    moved = features.copy()
    moved[3, 4] = np.nextafter(moved[3, 4], np.float32(9))
    folder = store(tmp_path / "x", moved)
    ours, theirs = (compare_features(folder, PATHS, features, exact=exact) for exact in (True, False))
    assert (ours.verdict, theirs.verdict) == ("wrong", "close")
    assert ours.detail.startswith("must be bit-identical; differ by up to")
    assert 0 < theirs.largest < 1e-6
    assert (
        ours.digest
        == theirs.digest
        != compare_features(store(tmp_path / "y", features), PATHS, features, exact=True).digest
    )


@pytest.mark.parametrize("fault", ["values", "directions", "missing", "unexpected"])
def test_wrong_features_are_detected(fault: str, features: npt.NDArray[np.float32], tmp_path: Path) -> None:
    given, paths = features.copy(), list(PATHS)
    if fault == "values":
        given[0, 0] += 0.06
    elif fault == "directions":
        given[0] = given[0] * 0.001 + 0.04
        features[0] *= 0.001
    elif fault == "missing":
        given, paths = given[:-1], paths[:-1]
    else:
        paths[-1] = "z/99.jpg"
    found = compare_features(store(tmp_path / "x", given, paths), PATHS, features, exact=False)
    assert found.verdict == "wrong"
    details = {"values": "0.06", "directions": "cosine", "missing": "1 missing", "unexpected": "1 unexpected"}
    assert details[fault] in found.detail


def test_a_model_must_equal_the_reference(features: npt.NDArray[np.float32]) -> None:
    right = fit_parts([features[:20], features[20:]], 3)
    other = replace(right, mean=np.nextafter(right.mean, np.inf))
    assert compare_models(right, right, exact=True).verdict == "identical"
    assert compare_models(other, right, exact=True).verdict == "wrong"
    assert compare_models(other, right, exact=False).verdict == "close"
    assert compare_models(fit_parts([features[:30]], 3), right, exact=False).verdict == "wrong"
    assert compare_models(fit_parts([features], 4), right, exact=False).verdict == "wrong"


def test_a_plan_must_contain_the_generated_keys(tmp_path: Path) -> None:
    case = Case(scenario="plan", backend="driver", workers=1, images=300)
    for digest, verdict in ((expected_digest(300), "identical"), ("0", "wrong")):
        (tmp_path / "plan.json").write_text(f'{{"images": 300, "digest": "{digest}"}}')
        assert check(case, "plan", tmp_path, tmp_path, None, None).verdict == verdict


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(10):
        path = tmp_path / "photos" / f"label {index % 3}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (index, 0, 0)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.mark.parametrize("count", [1, 4, 10, 25])
def test_an_image_set_has_the_requested_size_and_is_deterministic(images: Path, tmp_path: Path, count: int) -> None:
    originals = Originals.below(str(images), 100)
    folders = [originals.repeated(count, tmp_path / name) for name in ("a", "b")]
    sets = [sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")) for folder in folders]
    assert sets[0] == sets[1]
    assert len(sets[0]) == count
    assert {original(name) for name in sets[0]} <= set(originals.names)
    assert folders[0].name == folders[1].name
    for name in sets[0]:
        assert (folders[0] / name).read_bytes() == (images / original(name)).read_bytes()


def test_originals_are_chosen_evenly(images: Path) -> None:
    assert [name.partition("/")[0] for name in Originals.below(str(images), 3).names] == [
        "label 0",
        "label 0",
        "label 1",
    ]
    assert len(Originals.below(str(images), 100).names) == 10
    with pytest.raises(DatasetError, match="no such folder"):
        Originals.below(str(images / "nowhere"), 3)


def test_the_reference_maps_copies_to_their_originals(
    images: Path, features: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    originals = Originals.below(str(images), 100)
    names = sorted(originals.names)
    reference = Reference(store(tmp_path / "reference", features[:10], names))
    paths, found = reference.features(originals.repeated(25, tmp_path))
    assert len(paths) == 25
    assert paths == sorted(paths)
    for path, row in zip(paths, found, strict=True):
        np.testing.assert_array_equal(row, features[names.index(original(path))])


def test_linked_images_and_folders_are_used(tmp_path: Path) -> None:
    for name in ("real/a/1.jpg", "real/a/2.jpg", "elsewhere/3.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 9, 9)).save(path)
    linked = tmp_path / "linked"
    (linked / "b").mkdir(parents=True)
    (linked / "a").symlink_to("../real/a")
    (linked / "b" / "3.jpg").symlink_to("../../elsewhere/3.jpg")
    (tmp_path / "images").symlink_to("linked")
    originals = Originals.below(str(tmp_path / "images"), 10)
    assert originals.names == ("a/1.jpg", "a/2.jpg", "b/3.jpg")
    folder = originals.repeated(5, tmp_path / "cache")
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == 5
    assert not any(file.is_symlink() for file in files)
    assert (folder / "b" / "3.jpg").read_bytes() == (tmp_path / "elsewhere" / "3.jpg").read_bytes()
    assert len(originals.enlarged(0.01, tmp_path / "cache").names) == 3

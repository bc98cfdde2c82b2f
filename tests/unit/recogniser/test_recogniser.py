"""Recognitions of features, and the files of a recogniser."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

import fruits
from fruits.errors import ModelError
from fruits.network.backbones import backbone
from fruits.recogniser.files import StoredRecogniser, read_recogniser, write_recogniser
from fruits.recogniser.recogniser import Recogniser
from fruits.storage.folder import Folder


def rows(recogniser: Recogniser, *prototypes: int) -> np.ndarray:
    """Return features, (n, crops, d), whose points in the space are prototypes."""
    scorer = recogniser.scorer
    inverse = np.linalg.pinv(scorer.projection)
    points = scorer.prototypes[list(prototypes)] @ inverse + scorer.mean
    return np.repeat(points[:, None].astype(np.float32), recogniser.crops, axis=1)


def test_a_recogniser_is_read_as_it_was_written(stored: StoredRecogniser, tmp_path: Path) -> None:
    files = write_recogniser(Folder.at(str(tmp_path)), stored)
    read = read_recogniser(Folder.at(str(tmp_path)), training=True)
    assert {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in files} == files
    assert len(read.version) == 12
    for field in dataclasses.fields(stored):
        if field.name not in ("arrays", "training", "version"):
            assert getattr(read, field.name) == getattr(stored, field.name), field.name
    for kind in ("arrays", "training"):
        expected, actual = getattr(stored, kind), getattr(read, kind)
        assert {name: (array.dtype, array.tolist()) for name, array in actual.items()} == {
            name: (array.dtype, array.tolist()) for name, array in expected.items()
        }


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 1e-300), ("mean", np.nan), ("projection", -np.inf), ("lengths", 1e200), ("spreads", 1e300)],
)
def test_numbers_that_would_give_no_confidence_are_refused(
    stored: StoredRecogniser, tmp_path: Path, field: str, value: float
) -> None:
    if field == "temperature":
        changed = dataclasses.replace(stored, temperature=value)
    else:
        array = np.full_like(stored.arrays[field], value)
        changed = dataclasses.replace(stored, arrays={**stored.arrays, field: array})
    write_recogniser(Folder.at(str(tmp_path)), changed)
    with pytest.raises(ModelError, match=f"is corrupt: {field}"):
        read_recogniser(Folder.at(str(tmp_path)))


def test_a_file_that_is_too_long_is_named(stored: StoredRecogniser, tmp_path: Path) -> None:
    write_recogniser(Folder.at(str(tmp_path)), stored)
    (scorer,) = tmp_path.glob("scorer-*")
    scorer.write_bytes(scorer.read_bytes() + b"x")
    with pytest.raises(ModelError, match=rf"{scorer.name} is corrupt: it has more than [\d,]+ bytes. Copy the"):
        read_recogniser(Folder.at(str(tmp_path)))


def test_a_recogniser_of_another_number_of_features_is_refused(stored: StoredRecogniser) -> None:
    digest = str(backbone("MobileNetV2").weights_digest)
    arrays = {**stored.arrays, "mean": stored.arrays["mean"][:7], "projection": stored.arrays["projection"][:7]}
    changed = dataclasses.replace(stored, arrays=arrays, network={**stored.network, "weights": digest})
    with pytest.raises(ModelError, match="is for 7 features, but MobileNetV2 has 1,280"):
        Recogniser.from_stored(changed).compile_network()


def test_a_prototype_is_recognised_as_its_label(stored: StoredRecogniser, tmp_path: Path) -> None:
    write_recogniser(Folder.at(str(tmp_path)), stored)
    recogniser = fruits.Recogniser.load(str(tmp_path))
    results = recogniser.recognise_features(rows(recogniser, 0, 3, 11, 12))
    assert [each.prediction for each in results] == ["Apple", "Banana", "Fig", None]
    assert [each.reason for each in results] == [None, None, None, "unlike-anything"]
    assert [each.nearest[0] for each in results] == [recogniser.neighbours[index] for index in (0, 3, 11, 12)]
    assert all(len(each.top) == 5 for each in results)
    assert results[0].top[0] == ("Apple", results[0].confidence)


@pytest.mark.parametrize(
    ("doubt", "distance", "product", "reason"),
    [
        ((-1.0, 1.0), (9.0, 9.0), 6, None),  # the ranks are 2 and 3
        ((-1.0, 1.0), (9.0, 9.0), 7, "uncertain"),
        ((1.0, 1.0), (-1.0, 9.0), 6, None),
        ((1.0, 1.0), (-1.0, 9.0), 7, "unlike-anything"),
        ((-1.0, -1.0), (-1.0, -1.0), 2, "unlike-anything"),
    ],
)
def test_the_smaller_rank_is_the_reason(
    stored: StoredRecogniser, doubt: tuple[float, ...], distance: tuple[float, ...], product: int, reason: str | None
) -> None:
    thresholds = {"doubt": doubt, "distance": distance, "product": product}
    recogniser = Recogniser.from_stored(dataclasses.replace(stored, thresholds=thresholds, temperature=0.5))
    (result,) = recogniser.recognise_features(rows(recogniser, 0))
    assert (result.prediction, result.reason) == (None if reason else "Apple", reason)
    assert result.top[0].label == "Apple"
    assert result.top[0].score == result.confidence > 0


def test_features_of_another_shape_are_refused(stored: StoredRecogniser) -> None:
    with pytest.raises(ModelError, match=r"shape \(2, 1280\): not allowed. Allowed: \(n, 1, 1280\)"):
        Recogniser.from_stored(stored).recognise_features(np.zeros((2, 1280), np.float32))


def test_no_image_gives_no_recognition(stored: StoredRecogniser) -> None:
    assert Recogniser.from_stored(stored).recognise_features(np.zeros((0, 1, 1280), np.float32)) == []

"""Training, predictions and evaluation as jobs, with a small stand-in for the network."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

import fruits
from backends.local import LocalExecutor
from fruits.cli import main as cli
from fruits.errors import (
    DamageError,
    DatasetError,
    ModelError,
    OutputError,
    RejectsError,
    SettingsError,
    StorageError,
)
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.status import status
from fruits.jobs.inspect.verify import verify
from fruits.jobs.tasks import moments as tree
from fruits.model.rows import decode_rows
from fruits.progress.lines import Lines
from fruits.progress.reporter import Silent
from fruits.recogniser.files import read_recogniser
from fruits.recogniser.jobs import summaries
from fruits.storage import local
from fruits.storage.folder import Folder
from fruits.storage.parquet import write_table
from tests.pages import Page, requests
from tests.unit.jobs.test_foreign_files import suspended
from tests.unit.jobs.test_pipeline import Counting, MeanColours, network  # noqa: F401 - a fixture

LABELS = ("Apple Red", "Apple Green", "Banana", "Cherry")
COLOURS = {"Apple Red": (200, 30, 30), "Apple Green": (90, 200, 40), "Banana": (240, 220, 40), "Cherry": (120, 0, 30)}


def draw(folder: Path, labels: tuple[str, ...] = LABELS, each: int = 25, seed: int = 0) -> Path:
    """Write images of one colour and noise."""
    random = np.random.default_rng(seed)
    for label in labels:
        for number in range(each):
            path = folder / label / f"{random.integers(10**9):09}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = random.normal(0, 25, (24, 24, 3))
            colour = COLOURS.get(label, (30, 30, 220))
            Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write 100 images of four labels, and one that cannot be read."""
    folder = draw(tmp_path / "images")
    (folder / "Banana" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def training(images: Path, tmp_path: Path) -> fruits.Training:
    return fruits.Training(sources=(str(images),), out=str(tmp_path / "rec"))


def files(out: str | Path) -> dict[str, bytes]:
    """Return the files of a recogniser, without the page, which contains its address."""
    found = (path for path in sorted(Path(out).iterdir()) if path.is_file() and path.suffix != ".html")
    return {path.name: path.read_bytes() for path in found}


def fitted(images: Path | str, out: Path, **settings: Any) -> str:
    """Return an output with features."""
    job = fruits.Job(images=str(images), out=str(out), components=2, **settings)
    fruits.fit(job, LocalExecutor())
    return str(out)


def only_rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "rows").iterdir()) for row in pq.read_table(path).to_pylist()]


# -- training


def test_every_image_is_accounted_for_and_nothing_is_left_over(training: fruits.Training, images: Path) -> None:
    report = fruits.train(training, LocalExecutor())
    assert (report.classes, report.images) == (4, 100)
    assert report.sources == [{"address": str(images), "images": 101, "rejects": 1, "weight": 1}]
    assert report.calibration_images > 5
    assert report.pictures == report.prototypes
    names = sorted(path.name.partition("-")[0] for path in Path(training.out).iterdir())
    assert names == ["commits", "recogniser.json", "report", "scorer", "sources", "thumbnails", "training"]
    loaded = fruits.Recogniser.load(training.out)
    assert loaded.labels == tuple(sorted(LABELS))
    assert loaded.version == report.version
    assert all(data.startswith(b"\xff\xd8") for data in loaded.thumbnails.values())
    assert verify(training.out, Silent()).is_intact


def test_the_linear_method_has_one_prototype_for_each_label(training: fruits.Training) -> None:
    report = fruits.train(dataclasses.replace(training, method="linear"), LocalExecutor())
    assert report.prototypes == len(LABELS)
    assert read_recogniser(Folder.at(training.out), training=False).method == "linear"
    with pytest.raises(OutputError, match="method: linear stored, prototypes requested"):
        fruits.train(training, LocalExecutor())
    with pytest.raises(SettingsError, match="`method` = trees: not known"):
        dataclasses.replace(training, method="trees")


def on_white(folder: Path) -> Path:
    """Write images of discs of several colours on white."""
    for label, colour in (("Apple Red", (200, 30, 30)), ("Lime", (90, 200, 40))):
        for number in range(7):
            image = Image.new("RGB", (60, 60), "white")
            ImageDraw.Draw(image).ellipse((10, 10, 40 + number, 50), fill=colour)
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return folder


@pytest.mark.parametrize("crops", [1, 2])
def test_backgrounds_change_the_features_of_folders_and_not_those_of_predictions(tmp_path: Path, crops: int) -> None:
    source, photographs = on_white(tmp_path / "images"), draw(tmp_path / "photographs", ("Shelf",), 5)
    plain = fruits.Training(sources=(str(source),), out=str(tmp_path / "plain"), crops=crops)
    pasted = dataclasses.replace(plain, out=str(tmp_path / "pasted"), backgrounds=str(photographs))
    for each in (plain, pasted):
        fruits.train(each, LocalExecutor())
    (folder,) = (Path(pasted.out) / "sources").iterdir()
    fitted(source, tmp_path / "other-partitions", backgrounds=str(photographs), partition_size=5, crops=crops)
    assert features_of(folder) == features_of(tmp_path / "other-partitions")
    (folder,) = (Path(plain.out) / "sources").iterdir()
    assert features_of(folder) != features_of(tmp_path / "other-partitions")
    job = fruits.Job(images=str(source), out=str(tmp_path / "rows"), recogniser=pasted.out)
    assert fruits.predict(job, LocalExecutor()).rows == 14
    fitted(source, tmp_path / "unpasted", crops=crops)
    stored = dataclasses.replace(job, images=str(tmp_path / "unpasted"), out=str(tmp_path / "stored"))
    fruits.predict(stored, LocalExecutor())
    assert only_rows(tmp_path / "stored") == only_rows(tmp_path / "rows")


def features_of(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "features").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_other_backgrounds_are_another_training_and_belong_to_a_fit(tmp_path: Path) -> None:
    source, photographs = on_white(tmp_path / "images"), draw(tmp_path / "photographs", ("Shelf",), 5)
    training = fruits.Training(sources=(str(source),), out=str(tmp_path / "rec"), backgrounds=str(photographs))
    fruits.train(training, LocalExecutor())
    draw(photographs, ("Shelf",), 1, seed=1)
    with pytest.raises(OutputError, match="backgrounds"):
        fruits.train(training, LocalExecutor())
    job = fruits.Job(images=str(source), out=str(tmp_path / "out"), components=2, backgrounds=str(photographs))
    with pytest.raises(SettingsError, match="`backgrounds` for run: not allowed"):
        fruits.run(job, LocalExecutor())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").touch()
    with pytest.raises(OutputError, match="contains other files"):  # before the photographs are read
        fruits.fit(dataclasses.replace(job, backgrounds=str(tmp_path / "missing")), LocalExecutor())


@pytest.mark.parametrize("crops", [1, 2])
def test_partitions_and_the_merge_tree_change_no_bit(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crops: int
) -> None:
    found = []
    for size, rows in ((1000, 8192), (7, 8192), (3, 10)):
        monkeypatch.setattr(tree, "ROWS", rows)
        monkeypatch.setattr(tree, "FAN_IN", 3)
        source = fitted(images, tmp_path / f"features-{size}", partition_size=size, crops=crops)
        out = str(tmp_path / f"rec-{size}")
        executor = Counting()
        fruits.train(fruits.Training(sources=(source,), out=out, crops=crops), executor)
        found.append((files(out), executor.given["summarize_node"]))
    assert found[0][0] == found[1][0] == found[2][0]
    assert found[0][1] == 1 < found[2][1]


@pytest.mark.parametrize("crops", [1, 2])
def test_partitions_without_a_usable_image_are_empty_summaries(tmp_path: Path, crops: int) -> None:
    images = draw(tmp_path / "images", ("Banana", "Cherry"), 3)
    (images / "Banana" / "broken.png").write_bytes(b"no image")
    found = []
    for size in (1, 1000):
        settings: dict[str, Any] = {"partition_size": size, "max_reject_fraction": 0.5, "crops": crops}
        source = fitted(images, tmp_path / f"features-{size}", **settings)
        out = str(tmp_path / f"rec-{size}")
        fruits.train(fruits.Training(sources=(source,), out=out, crops=crops), LocalExecutor())
        found.append(files(out))
    assert found[0] == found[1]


def test_stored_moments_give_the_bits_of_moments_that_are_summed_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fitted(images, tmp_path / "features")
    for name, most in (("with", 10_000), ("without", 0)):
        monkeypatch.setattr(summaries, "MOST_LABELS", most)
        fruits.train(fruits.Training(sources=(source,), out=str(tmp_path / name)), LocalExecutor())
    assert files(tmp_path / "with") == files(tmp_path / "without")


def test_a_complete_training_is_verified_and_a_damaged_one_is_repaired(training: fruits.Training) -> None:
    fruits.train(training, LocalExecutor())
    before = files(training.out)
    again = Counting()
    assert fruits.train(training, again).seconds == {}
    assert set(again.given) <= {"survey", "verify_parts"}  # of the source
    (scorer,) = Path(training.out).glob("scorer-*")
    scorer.write_bytes(b"damage")
    with pytest.raises(ModelError, match="corrupt"):
        fruits.Recogniser.load(training.out)
    fruits.train(training, LocalExecutor())
    assert files(training.out) == before


@pytest.fixture
def stopped(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fruits.Training:
    """Return a training on ``features/`` that stopped after four summaries."""
    monkeypatch.setattr(tree, "ROWS", 10)
    source = fitted(images, tmp_path / "features", partition_size=5)
    training = fruits.Training(sources=(source,), out=str(tmp_path / "rec"))
    with pytest.raises(KeyboardInterrupt):
        fruits.train(training, Counting(stop_after=("summarize_node", 4)))
    return training


def test_a_stopped_training_resumes_with_what_is_stored(stopped: fruits.Training, tmp_path: Path) -> None:
    assert not (tmp_path / "rec" / "recogniser.json").exists()
    nodes = sorted((tmp_path / "rec" / "moments").glob("source0_*-1/*"))
    assert len(nodes) == 4
    nodes[2].write_bytes(nodes[2].read_bytes()[:-1] + b"\0")
    resumed = Counting()
    fruits.train(stopped, resumed)
    whole = Counting()
    other = dataclasses.replace(stopped, out=str(tmp_path / "whole"))
    fruits.train(other, whole)
    assert resumed.given["summarize_node"] == whole.given["summarize_node"] - 3
    assert files(stopped.out) == files(other.out)


def test_a_superseded_training_leaves_its_successor_intact(stopped: fruits.Training, tmp_path: Path) -> None:
    successor = dataclasses.replace(stopped, weights=(2,), overwrite=True)

    def begin() -> None:
        with pytest.raises(KeyboardInterrupt):
            fruits.train(successor, Counting(stop_after=("summarize_node", 4)))

    error = suspended(("before remove_files", "/moments/"), begin, lambda: fruits.train(stopped, LocalExecutor()))
    assert "claimed by another job" in error
    resumed = Counting()
    fruits.train(dataclasses.replace(successor, overwrite=False), resumed)
    whole = Counting()
    fruits.train(dataclasses.replace(successor, out=str(tmp_path / "whole")), whole)
    assert resumed.given["summarize_node"] == whole.given["summarize_node"] - 4
    assert files(successor.out) == files(tmp_path / "whole")


def test_a_training_whose_nodes_another_process_has_removed_states_the_reason(
    stopped: fruits.Training, tmp_path: Path
) -> None:
    finish = partial(fruits.train, stopped, LocalExecutor())
    assert suspended(("after write", "/moments/"), finish, finish) is None
    other = dataclasses.replace(stopped, out=str(tmp_path / "other"))
    replace = partial(fruits.train, dataclasses.replace(other, weights=(2,), overwrite=True), LocalExecutor())
    error = suspended(("after write", "/manifest/"), replace, partial(fruits.train, other, LocalExecutor()))
    assert "claimed by another job" in error


def test_a_resumed_training_uses_no_summaries_of_other_parts(
    stopped: fruits.Training, images: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "features")
    fitted(images, tmp_path / "features", partition_size=7)  # the same features
    fruits.train(stopped, LocalExecutor())
    whole = dataclasses.replace(stopped, out=str(tmp_path / "whole"))
    fruits.train(whole, LocalExecutor())
    assert files(stopped.out) == files(whole.out)


def test_a_recogniser_is_stale_when_an_image_of_its_source_can_be_read_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(local, "_read", partial(refuse_cherries, local._read))
        source = fitted(images, tmp_path / "features", max_reject_fraction=0.5)
    training = fruits.Training(sources=(source,), out=str(tmp_path / "rec"))
    assert fruits.train(training, LocalExecutor()).classes == 3
    fitted(images, tmp_path / "features", update=True)
    with pytest.raises(OutputError, match=r"sources\.1\.moments"):
        fruits.train(training, LocalExecutor())
    assert fruits.train(dataclasses.replace(training, overwrite=True), LocalExecutor()).classes == 4


def refuse_cherries(
    read: Callable[..., tuple[bytes, str]], path: str, *limit: int, **options: Any
) -> tuple[bytes, str]:
    if "/Cherry/" in path:
        raise PermissionError(13, "Permission denied", path)
    return read(path, *limit, **options)


def test_another_training_in_the_same_folder_needs_overwrite(training: fruits.Training) -> None:
    fruits.train(training, LocalExecutor())
    before = files(training.out)
    other = dataclasses.replace(training, weights=(3,))
    with pytest.raises(OutputError, match=r"sources\.1\.weight: 1 stored, 3 requested"):
        fruits.train(other, LocalExecutor())
    assert files(training.out) == before
    fruits.train(dataclasses.replace(other, overwrite=True), LocalExecutor())
    assert read_recogniser(Folder.at(training.out)).sources[0]["weight"] == 3


def test_added_images_are_learnt_without_featurizing_the_others(
    training: fruits.Training, images: Path, tmp_path: Path
) -> None:
    fruits.train(training, LocalExecutor())
    draw(images, ("Date",), seed=1)
    again = Counting()
    report = fruits.train(dataclasses.replace(training, overwrite=True), again)
    assert (report.classes, report.images) == (5, 125)
    assert 0 < again.given["featurize"] <= 2
    new = dataclasses.replace(training, out=str(tmp_path / "new"))
    fruits.train(new, LocalExecutor())
    assert files(training.out) == files(new.out)


def test_labels_are_mapped_to_classes_and_unmapped_ones_are_counted(images: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "classes.csv"
    mapping.write_text("label,class\nApple Red,Apple\nApple Green,Apple\n\n")
    report = fruits.train(
        fruits.Training(sources=(str(images),), out=str(tmp_path / "rec"), classes=mapping), LocalExecutor()
    )
    assert fruits.Recogniser.load(report.out).labels == ("Apple", "Banana", "Cherry")
    assert report.unmapped == 2


def test_images_of_an_unknown_source_are_rejected(images: Path, tmp_path: Path) -> None:
    unknown = draw(tmp_path / "unknown", ("Blue",), 40)
    for path in sorted((unknown / "Blue").iterdir())[::2]:
        path.rename(unknown / path.name)  # images of no label
    training = fruits.Training(sources=(str(images),), out=str(tmp_path / "rec"), unknown=str(unknown))
    report = fruits.train(training, LocalExecutor())
    assert (report.classes, report.images) == (4, 100)
    other = draw(tmp_path / "others", ("Blue",), 10, seed=5)
    job = fruits.Job(images=str(other), out=str(tmp_path / "out"), recogniser=report.out)
    fruits.predict(job, LocalExecutor())
    rows = only_rows(tmp_path / "out")
    assert [(row["prediction"], row["reason"]) for row in rows] == [(None, "unlike-anything")] * 10


def test_the_same_paths_in_two_sources_are_different_images(images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(images, other)
    training = fruits.Training(sources=(str(images), str(other)), out=str(tmp_path / "rec"), weights=(1, 2))
    report = fruits.train(training, LocalExecutor())
    assert report.images == 200
    assert [source["weight"] for source in report.sources] == [1, 2]


# -- bad input of a training


def test_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="`sources` is empty"):
        fruits.Training(sources=(), out=str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights": (1, 2)}, "`weights` has 2 values for 1 source."),
        ({"weights": (0,)}, "`weights` = 0: not allowed"),
        ({"weights": (1.5,)}, "`weights` = 1.5: not allowed"),
        ({"crops": 3}, "`crops` = 3: not allowed"),
        ({"max_reject_fraction": float("nan")}, "`max_reject_fraction` = nan: not allowed. Allowed: 0 to 1"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        fruits.Training(sources=("images",), out="rec", **settings)
    assert says in str(raised.value)


def test_one_class_is_refused(tmp_path: Path) -> None:
    training = fruits.Training(sources=(str(draw(tmp_path / "one", ("Banana",))),), out=str(tmp_path / "rec"))
    with pytest.raises(DatasetError, match=r"1 class in the sources: not allowed\. Allowed: at least 2"):
        fruits.train(training, LocalExecutor())


def test_a_class_with_one_image_is_learnt(images: Path, tmp_path: Path) -> None:
    draw(images, ("Date",), 1)
    report = fruits.train(fruits.Training(sources=(str(images),), out=str(tmp_path / "rec")), LocalExecutor())
    stored = read_recogniser(Folder.at(report.out))
    assert stored.counts["Date"] == 1
    (date,) = (images / "Date").iterdir()
    recogniser = fruits.Recogniser.from_stored(stored)
    with pytest.raises(ModelError, match="weights"):  # of the stand-in for the network
        recogniser.recognise(date)


def test_sources_of_different_networks_are_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = fitted(images, tmp_path / "one")
    monkeypatch.setattr(
        pipeline,
        "compile_network",
        lambda backbone, engine, weights: MeanColours(backbone, engine, weights_digest="other", digest="other"),
    )
    two = fitted(draw(tmp_path / "more", seed=1), tmp_path / "two")
    with pytest.raises(SettingsError, match=r"differ in their network: .*'none'.* and .*'other'"):
        fruits.train(fruits.Training(sources=(one, two), out=str(tmp_path / "rec")), LocalExecutor())


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("given", ["sources", "unknown", "test"])
def test_a_folder_without_images_is_refused_before_others_are_featurized(
    training: fruits.Training, tmp_path: Path, given: str, exists: bool
) -> None:
    empty = tmp_path / "empty"
    if exists:
        empty.mkdir()
    value = (*training.sources, str(empty)) if given == "sources" else str(empty)
    with pytest.raises(DatasetError, match="empty: no image found" if exists else "empty: no such folder"):
        fruits.train(dataclasses.replace(training, **{given: value}), LocalExecutor())
    assert not Path(training.out).exists()


@pytest.mark.parametrize("form", ["folder", "link", "output", "subfolder"])
def test_the_same_images_in_two_sources_are_refused(images: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "link").symlink_to(images)
    second = {"folder": images, "link": tmp_path / "link", "subfolder": images / "Banana"}.get(form)
    second = second or fitted(images, tmp_path / "features")
    with pytest.raises(DatasetError, match="two sources have the images of"):
        fruits.train(fruits.Training(sources=(str(images), second), out=str(tmp_path / "rec")), LocalExecutor())


def test_test_images_among_the_training_images_are_refused(training: fruits.Training, images: Path) -> None:
    with pytest.raises(DatasetError, match="two sources have the images of"):
        fruits.train(dataclasses.replace(training, test=str(images / "Banana")), LocalExecutor())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("label,class\nApple Red,A\nApple Red,B\n", "row 3: the label Apple Red is there twice"),
        ("label,class\nDurian,A\nApple Red,A\n", "maps labels that no source has: Durian"),
        ("label,class\nApple Red\n", "row 2: Apple Red. Allowed: a label and its class"),
        ("name,kind\n", "begins with name,kind. Allowed: the line label,class"),
        ("", "begins with an empty file"),
        (b"label,class\n\xff\xfe,A\n", "is no CSV file in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_an_invalid_file_of_classes_is_refused(
    images: Path, tmp_path: Path, content: str | bytes | None, says: str
) -> None:
    path = tmp_path / "classes.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError) as raised:
        fruits.train(
            fruits.Training(sources=(str(images),), out=str(tmp_path / "rec"), classes=str(path)), LocalExecutor()
        )
    assert says in str(raised.value)


def test_images_without_a_label_are_refused(images: Path, training: fruits.Training) -> None:
    next((images / "Banana").glob("0*.png")).rename(images / "lost.png")
    with pytest.raises(DatasetError, match=r"lost\.png: an image without a label"):
        fruits.train(training, LocalExecutor())


def test_an_output_with_one_crop_cannot_be_trained_with_two(images: Path, tmp_path: Path) -> None:
    source = fitted(images, tmp_path / "features")
    with pytest.raises(SettingsError, match="Make them with: fruits fit IMAGES --out FOLDER --crops 2"):
        fruits.train(fruits.Training(sources=(source,), out=str(tmp_path / "rec"), crops=2), LocalExecutor())


def part(labels: pa.Array, features: np.ndarray) -> bytes:
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), features.shape[1])
    flat = pa.array(features.reshape(-1), pa.float32())
    columns = {
        "path": pa.array(["a", "b"]),
        "label": labels,
        "features": pa.FixedSizeListArray.from_arrays(flat, type=kind),
    }
    return write_table(pa.table(columns))


def test_lists_of_labels_are_refused() -> None:
    data = part(pa.array([["Apple"], ["Pear", "Fig"]]), np.zeros((2, 4), np.float32))
    with pytest.raises(DatasetError, match=r"its labels are of type list.* Allowed: one label for each image"):
        summaries.read_features(data, "part", 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0**19])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    features = np.zeros((2, 4), np.float32)
    features[1, 2] = value
    with pytest.raises(DamageError, match="part contains NaN, infinity"):
        summaries.read_features(part(pa.array(["Apple", "Fig"]), features), "part", 1)


@pytest.mark.parametrize("content", ["job", "others"])
def test_a_folder_with_other_content_is_refused(images: Path, tmp_path: Path, content: str) -> None:
    out = tmp_path / "rec"
    if content == "job":
        fitted(images, out)
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"contains the output of a job|contains other files"):
        fruits.train(fruits.Training(sources=(str(images),), out=str(out), overwrite=True), LocalExecutor())


def test_a_recogniser_is_no_source(training: fruits.Training, tmp_path: Path) -> None:
    fruits.train(training, LocalExecutor())
    with pytest.raises(OutputError, match=r"is a recogniser\. Give a folder of images, or the output of a `fit`"):
        fruits.train(fruits.Training(sources=(training.out,), out=str(tmp_path / "other")), LocalExecutor())
    with pytest.raises(OutputError, match=r"is a recogniser\. Give the `out` of a job"):
        status(training.out)


# -- predictions


@pytest.fixture
def recogniser(training: fruits.Training) -> str:
    return fruits.train(training, LocalExecutor()).out


def test_predictions_are_rows_and_rejects(recogniser: str, images: Path, tmp_path: Path) -> None:
    job = fruits.Job(images=str(images), out=str(tmp_path / "out"), recogniser=recogniser, partition_size=16)
    report = fruits.predict(job, LocalExecutor())
    assert (report.command, report.images, report.rows, report.rejects) == ("predict", 101, 100, {"not-an-image": 1})
    rows = only_rows(tmp_path / "out")
    assert list(rows[0]) == ["path", "label", "prediction", "confidence", "top", "reason"]
    kept = [row for row in rows if row["prediction"] is not None]
    assert len(kept) > 80
    assert all(row["prediction"] == row["label"] and row["reason"] is None for row in kept)
    for row in rows:
        assert row["confidence"] == row["top"][0]["score"]
        assert [list(each) for each in row["top"]] == [["label", "score"]] * 4
        assert (row["prediction"] is None) == (row["reason"] in ("uncertain", "unlike-anything"))


@pytest.mark.parametrize("crops", [1, 2])
def test_stored_features_give_the_same_predictions_without_the_network(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crops: int
) -> None:
    source = fitted(images, tmp_path / "features", crops=crops)
    rec = str(tmp_path / "rec")
    fruits.train(fruits.Training(sources=(source,), out=rec, crops=crops), LocalExecutor())
    job = fruits.Job(images=str(images), out=str(tmp_path / "direct"), recogniser=rec)
    fruits.predict(job, LocalExecutor())
    monkeypatch.setattr(pipeline, "compile_network", None)
    stored = dataclasses.replace(job, images=source, out=str(tmp_path / "stored"), format="csv")
    assert fruits.predict(stored, LocalExecutor()).rejects == {"not-an-image": 1}
    found = compare(job.out, stored.out)
    assert (found.rows, found.identical) == (100, True), found.differences
    assert verify(stored.out, Silent()).is_intact


def test_hostile_labels_survive_csv(images: Path, tmp_path: Path) -> None:
    label = '=HYPERLINK("x");+1\t<script>'
    (images / "Cherry").rename(images / label)
    rec = fruits.train(fruits.Training(sources=(str(images),), out=str(tmp_path / "rec")), LocalExecutor()).out
    job = fruits.Job(images=str(images / label), out=str(tmp_path / "out"), recogniser=rec, format="csv")
    fruits.predict(job, LocalExecutor())
    path = next((tmp_path / "out" / "rows").iterdir())
    assert b',"=HYPERLINK' not in path.read_bytes()
    assert b";+1" not in path.read_bytes()
    columns = decode_rows(path.read_bytes(), path.name)
    assert label in columns["prediction"]
    assert columns["top"][0][0].keys() == {"label", "score"}


def test_another_recogniser_is_another_job(recogniser: str, training: fruits.Training, tmp_path: Path) -> None:
    job = fruits.Job(images=training.sources[0], out=str(tmp_path / "out"), recogniser=recogniser)
    fruits.predict(job, LocalExecutor())
    fruits.train(dataclasses.replace(training, weights=(2,), overwrite=True), LocalExecutor())
    with pytest.raises(OutputError, match=r"recogniser: .* stored, .* requested"):
        fruits.predict(job, LocalExecutor())


def test_predictions_that_replace_a_fit_use_none_of_its_parts(recogniser: str, images: Path, tmp_path: Path) -> None:
    job = fruits.Job(images=str(images), out=fitted(images, tmp_path / "out"), recogniser=recogniser)
    fruits.predict(dataclasses.replace(job, overwrite=True), LocalExecutor())
    assert fruits.predict(job, LocalExecutor()).rows == 100
    assert verify(job.out, Silent()).is_intact


def test_a_recogniser_is_not_replaced_by_a_job(recogniser: str, images: Path) -> None:
    before = files(recogniser)
    with pytest.raises(OutputError, match="contains a recogniser"):
        fitted(images, Path(recogniser), overwrite=True)
    assert files(recogniser) == before


def test_images_that_are_all_rejects_fail_and_can_be_allowed(recogniser: str, tmp_path: Path) -> None:
    folder = tmp_path / "broken" / "Banana"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"no image")
    job = fruits.Job(images=str(folder.parent), out=str(tmp_path / "out"), recogniser=recogniser)
    with pytest.raises(RejectsError, match="3 of 3 images are rejects"):
        fruits.predict(job, LocalExecutor())
    report = fruits.predict(dataclasses.replace(job, max_reject_fraction=1.0), LocalExecutor())
    assert (report.rows, report.rejects) == (0, {"not-an-image": 3})
    assert only_rows(tmp_path / "out") == []


def test_a_recogniser_of_another_network_is_refused(
    recogniser: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pipeline, "compile_network", lambda backbone, engine, weights: MeanColours(backbone, engine, weights_digest="x")
    )
    job = fruits.Job(images=str(images), out=str(tmp_path / "out"), recogniser=recogniser)
    with pytest.raises(ModelError, match=r"`recogniser` .* was fitted with weights of digest none, .* digest x"):
        fruits.predict(job, LocalExecutor())


def test_predict_without_a_recogniser_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="predict needs a recogniser"):
        fruits.predict(fruits.Job(images=str(images), out=str(tmp_path)), LocalExecutor())
    job = fruits.Job(images=str(images), out=str(tmp_path / "out"), recogniser=str(tmp_path))
    with pytest.raises(ModelError, match="no recogniser found"):
        fruits.predict(job, LocalExecutor())


# -- evaluation


def test_an_evaluation_is_written_as_json_and_as_a_page(recogniser: str, tmp_path: Path) -> None:
    source = draw(tmp_path / "test", (*LABELS, "Blue"), 10, seed=9)
    (source / "Banana" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "evaluation"
    found = fruits.evaluate(str(source), recogniser, str(out), LocalExecutor())
    assert (found.images, found.rejects) == (51, 1)
    assert found.metrics is not None
    assert (found.metrics.images, found.metrics.top1) == (40, 1.0)
    assert found.unknown.images == 10
    assert [each.label for each in found.left_out] == sorted(LABELS)
    assert all(each.images == 25 for each in found.left_out)
    report = json.loads((out / "report.json").read_bytes())
    assert report == json.loads(json.dumps(found.to_dict()))
    assert report["left_out"]["images"] == 100
    page = (out / "report.html").read_text("utf-8")
    assert "top-1 accuracy" in page
    assert "unknown images rejected" in page
    (out / ".report.json.0.tmp").touch()  # of a command that was killed
    assert fruits.evaluate(str(source), recogniser, str(out), LocalExecutor()) == found


def test_a_recogniser_that_is_replaced_during_its_evaluation_is_an_error(
    training: fruits.Training, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(*arguments: Any, **options: Any) -> Any:
        report = fruits.predict(*arguments, **options)
        fruits.train(dataclasses.replace(training, weights=(2,), overwrite=True), LocalExecutor())
        return report

    fruits.train(training, LocalExecutor())
    monkeypatch.setattr("fruits.recogniser.jobs.evaluate.predict", predict)
    with pytest.raises(OutputError, match=r"was replaced by recogniser .* Use `overwrite` to evaluate the new one"):
        fruits.evaluate(str(images), training.out, str(tmp_path / "evaluation"), LocalExecutor())


def test_a_label_whose_absence_leaves_equal_labels_is_not_left_out(images: Path, tmp_path: Path) -> None:
    shutil.rmtree(images / "Cherry")
    shutil.rmtree(images / "Banana")
    for path in sorted((images / "Apple Red").iterdir()):
        shutil.copy(path, images / "Apple Green" / path.name)
    for path in (images / "Apple Green").iterdir():
        if not (images / "Apple Red" / path.name).exists():
            path.unlink()
    draw(images, ("Date",), 10)
    rec = fruits.train(fruits.Training(sources=(str(images),), out=str(tmp_path / "rec")), LocalExecutor()).out
    found = fruits.evaluate(str(images), rec, str(tmp_path / "evaluation"), LocalExecutor())
    assert [each.label for each in found.left_out] == ["Apple Green", "Apple Red"]


def test_a_page_that_cannot_be_written_is_an_error_of_the_storage(
    recogniser: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "evaluation" / "report.html").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"Is a directory: .*report.html"):
        fruits.evaluate(str(images), recogniser, str(tmp_path / "evaluation"), LocalExecutor(), left_out=0)


def test_images_of_unknown_labels_alone_are_evaluated(recogniser: str, tmp_path: Path) -> None:
    source = draw(tmp_path / "test", ("Blue",), 10)
    found = fruits.evaluate(str(source), recogniser, str(tmp_path / "evaluation"), LocalExecutor())
    assert found.metrics is None
    assert found.unknown.images == 10
    assert "unknown images rejected" in (tmp_path / "evaluation" / "report.html").read_text("utf-8")


def test_fewer_labels_can_be_left_out(recogniser: str, images: Path, tmp_path: Path) -> None:
    found = fruits.evaluate(str(images), recogniser, str(tmp_path / "two"), LocalExecutor(), left_out=2)
    assert len(found.left_out) == 2
    assert fruits.evaluate(str(images), recogniser, str(tmp_path / "none"), LocalExecutor(), left_out=0).left_out == ()
    with pytest.raises(SettingsError, match="`left_out` = 201: not allowed"):
        fruits.evaluate(str(images), recogniser, str(tmp_path / "many"), LocalExecutor(), left_out=201)


def test_labels_are_evaluated_as_their_classes(images: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "classes.csv"
    mapping.write_text("label,class\nApple Red,Apple\nApple Green,Apple\n")
    training = fruits.Training(sources=(str(images),), out=str(tmp_path / "rec"), classes=str(mapping))
    rec = fruits.train(training, LocalExecutor()).out
    test = draw(tmp_path / "test", ("Apple Red", "Banana"), 10, seed=3)
    (test / "Apple Red").rename(test / "Apple")
    found = fruits.evaluate(str(test), rec, str(tmp_path / "evaluation"), LocalExecutor())
    assert found.metrics is not None
    assert (found.metrics.images, found.metrics.top1) == (20, 1.0)
    assert {each.label: each.siblings for each in found.left_out}["Apple Red"] == 1


def test_a_folder_with_other_files_is_not_used_for_an_evaluation(recogniser: str, images: Path) -> None:
    with pytest.raises(OutputError, match="contains other files"):
        fruits.evaluate(str(images), recogniser, str(images), LocalExecutor())


def test_images_that_are_all_rejects_cannot_be_evaluated(recogniser: str, tmp_path: Path) -> None:
    folder = tmp_path / "broken" / "Banana"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="no image can be used"):
        fruits.evaluate(str(folder.parent), recogniser, str(tmp_path / "evaluation"), LocalExecutor())


# -- the command line


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command in this process."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return run


def test_commands_train_evaluate_and_predict(
    command: Callable[..., tuple[int, str, str]], images: Path, tmp_path: Path
) -> None:
    test = draw(tmp_path / "test", each=5, seed=2)
    local = ("--backend", "local", "--json")
    code, out, err = command("train", "images", "--out", "rec", "--weights", "2", "--test", "test", *local)
    assert code == 0, err
    trained = json.loads(out)
    assert trained["test"]["metrics"]["top1"] == 1.0
    assert (tmp_path / "rec" / "test" / "report.html").exists()
    code, out, err = command("evaluate", "test", "--recogniser", "rec", "--out", "evaluation", "--backend", "local")
    assert code == 0, err
    assert "top-1            100.00%" in out
    code, out, err = command("predict", "test", "--recogniser", "rec", "--out", "predictions", *local)
    assert code == 0, err
    assert json.loads(out)["rows"] == len(list(test.rglob("*.png"))) == 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--out", "rec"), "SOURCE"),
        (("train", "images", "--out", "rec", "--weights", "1,x"), "--weights 1,x: not allowed"),
        (("train", "images", "--out", "rec", "--weights", "1,2"), "--weights has 2 values for 1 source."),
        (("train", "images", "--out", "rec", "--crops", "3"), "--crops 3: not allowed"),
        (("train", "images", "--out", "rec", "--classes", "none.csv"), "--classes none.csv cannot be read"),
        (("predict", "images", "--recogniser", "rec"), "images is no file. Give image files; or give --out"),
        (("predict", "a", "--recogniser", "r", "--limit", "3"), "--limit without --out: not allowed"),
        (("predict", "a", "--recogniser", "r", "--label-regex", "(x)"), "--label-regex without --out"),
        (("predict", "a", "--recogniser", "r", "--workers", "3"), "--workers without --out"),
        (("predict", "a", "--recogniser", "r", "--format", "csv"), "Leave --format out, or give --out and a folder"),
        (("predict", "a", "--recogniser", "r", "--overwrite"), "--overwrite without --out"),
        (("run", "a", "--out", "o", "--weights", ""), "--weights: empty path (unset shell variable?). Give a path"),
        (("run", "a", "--out", "o", "--cluster", ""), "--cluster: empty (unset shell variable?). Give a value"),
        (("run", "a", "--out", "o", "--backend", ""), "--backend: empty (unset shell variable?). Give a value"),
        (("run", "a", "--out", "o", "--cluster-file", ""), "--cluster-file: empty path (unset shell variable?)"),
        (("run", "a", "--out", "o", "--label-column", ""), "--label-column: empty (unset shell variable?). Give a v"),
        (("run", "a", "--out", "o", "--label-regex", ""), "--label-regex: empty (unset shell variable?). Give a v"),
        (("predict", "a", "b", "--recogniser", "rec", "--out", "c"), "2 IMAGES with --out: not allowed"),
        (("evaluate", "images", "--recogniser", "rec", "--out", "e"), "no recogniser found"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(
    command: Callable[..., tuple[int, str, str]], images: Path, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = command(*arguments)
    assert code == 2
    assert says in err


def test_a_training_writes_a_page_that_belongs_to_it(training: fruits.Training, images: Path) -> None:
    fruits.train(training, LocalExecutor())
    (written,) = Path(training.out).glob("*.html")
    html = written.read_text("utf-8")
    page = Page(html)
    flat = " ".join(page.text.split())
    for text in (
        "4classes",
        "4 classes, 100 images. The largest has 25",
        "Typical images",
        "doubt of held-out images: median, largest",
        "features.network.backboneMobileNetV2",
    ):
        assert text in flat, text
    assert sum(tag == "img" for tag, _ in page.tags) == 4
    assert requests(html) == []
    (source,) = Path(training.out, "sources").iterdir()
    assert len(list(source.glob("report-*.html"))) == 1
    written.unlink()
    assert fruits.write_report(training.out) == str(written)
    assert written.read_text("utf-8") == html
    other = dataclasses.replace(training, weights=(2,), overwrite=True)
    fruits.train(other, LocalExecutor())
    (replaced,) = Path(training.out).glob("*.html")
    assert replaced != written


def test_a_training_without_a_report_writes_no_page(training: fruits.Training) -> None:
    fruits.train(dataclasses.replace(training, report=False), LocalExecutor())
    assert list(Path(training.out).rglob("*.html")) == []


def test_the_page_of_a_training_that_fails_is_reported(
    training: fruits.Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*values: object) -> str:
        raise ValueError("a fault")

    monkeypatch.setattr("fruits.recogniser.jobs.report.document", fail)
    log = io.StringIO()
    assert fruits.train(training, LocalExecutor(), progress=Lines(log)).classes == 4
    assert f"ValueError: a fault Write it with: fruits report {training.out}" in log.getvalue()

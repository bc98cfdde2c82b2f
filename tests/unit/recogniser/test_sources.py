"""Recognisers of manifests and of Parquet files: the same as of the folder, with pictures."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruits
from backends.local import LocalExecutor
from fruits.errors import DatasetError, SettingsError
from fruits.recogniser.files import read_recogniser
from fruits.storage.folder import Folder
from tests.unit.jobs.test_pipeline import network  # noqa: F401 - a fixture
from tests.unit.recogniser.test_jobs import command, draw, fitted, images, training  # noqa: F401 - fixtures


def write_manifest(folder: Path, path: Path) -> dict[str, Any]:
    rows = [(str(file.resolve().relative_to(folder.resolve())), file.parent.name) for file in folder.rglob("*.png")]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "kind"), *rows])
    return {"path_column": "uri", "label_column": "kind"}


def write_parquet(folder: Path, path: Path) -> dict[str, Any]:
    rows = [
        {"image": {"bytes": file.read_bytes(), "path": file.relative_to(folder).as_posix()}, "kind": file.parent.name}
        for file in folder.rglob("*.png")
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return {"image_column": "image.bytes", "label_column": "kind"}


@pytest.mark.parametrize("kind", ["m.csv", "p.parquet"])
def test_a_recogniser_of_another_source_is_that_of_the_folder(
    training: fruits.Training,  # noqa: F811
    images: Path,  # noqa: F811
    tmp_path: Path,
    kind: str,
) -> None:
    fruits.train(training, LocalExecutor())
    options = write_manifest(images, images / kind) if kind == "m.csv" else write_parquet(images, images / kind)
    other = fruits.Training(sources=(str(images / kind),), out=str(tmp_path / "other"), **options)
    report = fruits.train(other, LocalExecutor())
    assert report.pictures == report.prototypes
    assert report.sources[0]["address"] == str(images / kind)
    one, two = (read_recogniser(Folder.at(out), training=True) for out in (training.out, other.out))
    assert one.thumbnails == two.thumbnails
    assert one.arrays.keys() == two.arrays.keys()
    assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)


@pytest.mark.parametrize("kind", ["m.csv", "p.parquet", "output"])
def test_an_evaluation_of_another_source_is_that_of_the_folder(
    training: fruits.Training,  # noqa: F811
    tmp_path: Path,
    kind: str,
) -> None:
    fruits.train(training, LocalExecutor())
    test = draw(tmp_path / "test", each=6, seed=4)
    draw(tmp_path / "test" / "other", labels=("Banana",), each=3, seed=5)
    (tmp_path / "test" / "Cherry" / "odd.png").write_bytes(next((test / "Banana").glob("*.png")).read_bytes())
    expected = fruits.evaluate(str(test), training.out, str(tmp_path / "one"), LocalExecutor())
    write = write_manifest if kind == "m.csv" else write_parquet
    address, options = str(test / kind), write(test, test / kind)
    if kind == "output":
        pq.ParquetFile(test / kind).close()
        (test / kind).rename(test / "q.parquet")
        fruits.fit(
            fruits.Job(images=str(test / "q.parquet"), out=str(tmp_path / "fit"), components=2, **options),
            LocalExecutor(),
        )
        address, options = str(tmp_path / "fit"), {}
    found = fruits.evaluate(address, training.out, str(tmp_path / "two"), LocalExecutor(), **options)
    assert found.metrics == expected.metrics
    assert expected.metrics is not None
    assert expected.metrics.mistakes
    pages = [(tmp_path / name / "report.html").read_text() for name in ("one", "two")]
    pictures = [page.count("data:image/jpeg") for page in pages]
    assert pictures[0] == pictures[1] > 0


def test_lists_of_labels_are_refused(images: Path, training: fruits.Training, tmp_path: Path) -> None:  # noqa: F811
    rows = [{"uri": path.relative_to(images).as_posix(), "kind": ["a", "b"]} for path in images.rglob("*.png")]
    (images / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    address, options = str(images / "m.jsonl"), {"path_column": "uri", "label_column": "kind"}
    lists = dataclasses.replace(training, sources=(address,), out=str(tmp_path / "lists"), **options)
    with pytest.raises(DatasetError, match=r"m\.jsonl: its images have lists of labels"):
        fruits.train(lists, LocalExecutor())
    assert not (tmp_path / "lists").exists()
    output = fruits.Job(images=address, out=str(tmp_path / "fit"), components=2, **options)  # type: ignore[arg-type]
    fruits.fit(output, LocalExecutor())
    with pytest.raises(DatasetError, match="fit: its images have lists of labels"):
        fruits.train(dataclasses.replace(training, sources=(output.out,)), LocalExecutor())
    fruits.train(training, LocalExecutor())
    for source, given in ((address, options), (output.out, {})):
        with pytest.raises(DatasetError, match="its images have lists of labels"):
            fruits.evaluate(source, training.out, str(tmp_path / "e"), LocalExecutor(), **given)


def test_options_of_sources_without_a_source_for_them_are_refused(
    images: Path,  # noqa: F811
    training: fruits.Training,  # noqa: F811
    tmp_path: Path,
) -> None:
    output = fitted(images, tmp_path / "fit")
    with pytest.raises(SettingsError, match="`label_regex` with outputs as `sources`: not allowed"):
        fruits.train(dataclasses.replace(training, sources=(output,), label_regex="(.)"), LocalExecutor())
    with pytest.raises(SettingsError, match=r"`label_column` with .*images: not allowed, because it is a folder"):
        fruits.train(dataclasses.replace(training, label_column="kind"), LocalExecutor())


def test_commands_take_the_options(
    command: Callable[..., tuple[int, str, str]],  # noqa: F811
    images: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    write_manifest(images, images / "m.csv")
    write_parquet(images, tmp_path / "p.parquet")
    manifest = ("images/m.csv", "--path-column", "uri", "--label-column", "kind")
    parquet = ("p.parquet", "--image-column", "image.bytes", "--label-column", "kind")
    local = ("--backend", "local", "--json")
    for arguments in (
        ("train", *manifest, "--out", "rec"),
        ("evaluate", *parquet, "--recogniser", "rec", "--out", "e"),
        ("predict", *parquet, "--recogniser", "rec", "--out", "p"),
        ("run", *manifest, "--version-column", "kind", "--out", "r", "--components", "2"),
        ("fit", "images", "--label-regex", "(.*)/", "--out", "f", "--components", "2"),
        ("transform", *parquet, "--model", "r", "--out", "t"),
    ):
        code, out, err = command(*arguments, *local)
        assert code == 0, err
        assert json.loads(out)
    code, _, err = command("fit", "images/m.csv", "--out", "g")
    assert code == 2
    assert "name its column of paths with --path-column" in err

"""Whole jobs on manifests and Parquet files: updates, samples, lists of labels, and rejects."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backends.local import LocalExecutor
from fruits import executor
from fruits.errors import DatasetError, OutputError, RejectsError, SettingsError, TaskError
from fruits.images.decode import ImageError
from fruits.images.sources.tables.addressed import Contents
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.jobs.job import Job
from fruits.model.moments import Moments
from fruits.model.rows import decode_rows
from fruits.progress.reporter import Silent
from fruits.storage import http
from fruits.storage.prefetch import UnreachableError
from tests.outputs import stored
from tests.unit.jobs.test_pipeline import images, network  # noqa: F401


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def rows(images: Path) -> list[dict[str, Any]]:  # noqa: F811
    """Return the rows of a manifest of the 30 usable images, which is in their folder."""
    paths = sorted(path for path in images.rglob("*.png"))
    return [
        {"uri": path.relative_to(images).as_posix(), "kind": path.parent.name, "etag": f"v{number}"}
        for number, path in enumerate(paths)
    ]


@pytest.fixture
def job(images: Path, rows: list[dict[str, Any]], tmp_path: Path) -> Job:  # noqa: F811
    write_manifest(images / "m.parquet", rows)
    options: dict[str, Any] = {"path_column": "uri", "label_column": "kind", "version_column": "etag"}
    return Job(images=str(images / "m.parquet"), out=str(tmp_path / "out"), components=5, partition_size=4, **options)


def fresh(job: Job, tmp_path: Path, **changes: Any) -> str:
    """Return the output of the same job without a history."""
    again = dataclasses.replace(job, out=str(tmp_path / "fresh"), update=False, overwrite=True, **changes)
    pipeline.run(again, LocalExecutor())
    return again.out


class Notes(Silent):
    """Collects the notes of a job."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def updated(job: Job) -> str:
    """Update a job, and return the reported changes."""
    notes = Notes()
    pipeline.run(dataclasses.replace(job, update=True), LocalExecutor(), progress=notes)
    (text,) = (text for text in notes.texts if " since the stored features" in text)
    return text.partition(" since")[0]


def test_an_update_computes_images_of_other_versions_and_labels_only(
    job: Job, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    pipeline.run(job, LocalExecutor())
    rows[3]["etag"] = "new"
    rows[9]["kind"] = "other"
    write_manifest(Path(job.images), [*rows[:5], *rows[6:]])
    with pytest.raises(OutputError, match=r"changed images: 2 replaced \(.*\), 1 removed"):
        pipeline.run(job, LocalExecutor())
    assert updated(job) == "0 images added, 2 changed, 1 deleted"
    assert compare(job.out, fresh(job, tmp_path)).identical
    assert verify(job.out, Silent()).is_intact


def test_an_update_of_another_list_computes_all_images_without_a_version(
    job: Job, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    unversioned = dataclasses.replace(job, version_column=None)
    pipeline.run(unversioned, LocalExecutor())
    write_manifest(Path(job.images), rows[1:])
    assert updated(unversioned) == "0 images added, 29 changed, 1 deleted"
    assert compare(job.out, fresh(unversioned, tmp_path)).identical


def test_other_columns_are_another_job(job: Job) -> None:
    pipeline.run(job, LocalExecutor())
    for changes in ({"label_column": None}, {"version_column": None}, {"label_column": None, "label_regex": "(.)"}):
        other = dataclasses.replace(job, update=True, **changes)  # type: ignore[arg-type]
        with pytest.raises(OutputError, match=f"{next(iter(changes))}: \\S+ stored, nothing requested"):
            pipeline.run(other, LocalExecutor())


def test_missing_files_are_rejects_and_too_many_fail_the_job(
    job: Job, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    extra = [{"uri": f"missing/{number}.png", "kind": "x", "etag": ""} for number in range(2)]
    write_manifest(Path(job.images), rows + extra)
    report = pipeline.run(job, LocalExecutor())
    assert (report.images, report.rows, report.rejects) == (32, 30, {"unreadable": 2})
    with pytest.raises(RejectsError):
        pipeline.run(dataclasses.replace(job, out=str(tmp_path / "strict"), max_reject_fraction=0.05), LocalExecutor())


@pytest.mark.parametrize("changes", [{"limit": 7}, {"sample": 6, "seed": 2}])
def test_a_selection_is_that_of_the_folder(job: Job, images: Path, tmp_path: Path, changes: dict[str, int]) -> None:  # noqa: F811
    for name in ("broken.jpg", "zero.jpg"):
        next(images.rglob(name)).unlink()
    folder = Job(images=str(images), out=str(tmp_path / "folder"), components=3, **changes)  # type: ignore[arg-type]
    pipeline.run(folder, LocalExecutor())
    pipeline.run(dataclasses.replace(job, components=3, **changes), LocalExecutor())  # type: ignore[arg-type]
    found = compare(folder.out, job.out)
    assert found.identical
    assert found.rows == next(iter(changes.values()))


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_lists_of_labels_are_lists_in_the_rows_and_of_no_class(
    job: Job, rows: list[dict[str, Any]], tmp_path: Path, format: str
) -> None:
    lists: list[list[str]] = [[["a", 'b,"c"'], [], ["a"]][number % 3] for number in range(30)]
    missing = {"uri": "missing.png", "kind": ["a", "b"], "etag": ""}
    listed = [row | {"kind": labels} for row, labels in zip(rows, lists, strict=True)]
    write_manifest(Path(job.images), [*listed, missing])
    report = pipeline.run(dataclasses.replace(job, format=format), LocalExecutor())  # type: ignore[arg-type]
    assert report.labels == 3
    parts = sorted(Path(job.out, "rows").glob(f"*.{format}"))
    if format == "parquet":
        assert [label for part in parts for label in pq.read_table(part)["label"].to_pylist()] == lists
    else:
        cells = [
            row["label"]
            for part in parts
            for row in csv.DictReader(io.StringIO(part.read_bytes().decode(), newline=""))
        ]
        assert [json.loads(cell) for cell in cells] == lists
    decoded = [label for part in parts for label in decode_rows(part.read_bytes(), part.name)["label"]]
    assert [json.loads(str(label)) for label in decoded] == lists
    (reject,) = (row for part in Path(job.out, "rejects").glob("*.parquet") for row in pq.read_table(part).to_pylist())
    assert reject["label"] == '["a","b"]'
    moments = Moments.from_bytes(stored(job.out, "moments/total.safetensors").read_bytes())
    assert list(moments.classes) == [None]
    write_manifest(Path(job.images), listed[1:])
    pipeline.run(dataclasses.replace(job, format=format, update=True), LocalExecutor())  # type: ignore[arg-type]
    assert compare(job.out, fresh(job, tmp_path)).identical


def test_labels_may_become_lists_in_an_update(job: Job, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    pipeline.run(job, LocalExecutor())
    write_manifest(Path(job.images), [row | {"kind": [row["kind"]]} for row in rows])
    pipeline.run(dataclasses.replace(job, update=True), LocalExecutor())
    assert compare(job.out, fresh(job, tmp_path)).identical


def test_an_update_of_parquet_computes_the_images_of_changed_files_only(
    images: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    paths = sorted(images.rglob("*.png"))
    (tmp_path / "data").mkdir()
    for number in range(3):
        table = pa.table({"content": [path.read_bytes() for path in paths[number::3]]})
        pq.write_table(table, tmp_path / "data" / f"{number}.parquet")
    job = Job(
        images=str(tmp_path / "data"),
        out=str(tmp_path / "out"),
        components=5,
        partition_size=4,
        image_column="content",
    )
    assert pipeline.run(job, LocalExecutor()).labels == 0
    os.utime(tmp_path / "data" / "1.parquet", (7, 7))
    assert updated(job) == "0 images added, 10 changed, 0 deleted"
    assert compare(job.out, fresh(job, tmp_path)).identical


def test_options_of_sources_are_refused_for_an_output(job: Job, tmp_path: Path) -> None:
    pipeline.run(job, LocalExecutor())
    other = dataclasses.replace(job, images=job.out, out=str(tmp_path / "other"))
    with pytest.raises(SettingsError, match=r"`path_column` with the output .* as `images`: not allowed"):
        pipeline.fit(other, LocalExecutor())


def test_an_empty_manifest_fails_before_anything_is_written(job: Job) -> None:
    write_manifest(Path(job.images), [])
    pq.write_table(pa.table({"uri": pa.array([], pa.string()), "kind": [], "etag": []}), job.images)
    with pytest.raises(DatasetError, match=r"m\.parquet lists no image"):
        pipeline.run(job, LocalExecutor())
    assert not Path(job.out).exists()


def dead_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_an_image_whose_server_is_unreachable_is_a_reject(
    job: Job, rows: list[dict[str, Any]], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "RECONNECT_SECONDS", (0.01,))
    address = f"{scheme}://127.0.0.1:{dead_port()}/1.png"
    write_manifest(Path(job.images), [*rows, {"uri": address, "kind": "Dead", "etag": "v"}])
    report = pipeline.run(dataclasses.replace(job, partition_size=31), LocalExecutor())
    assert (report.rows, report.rejects) == (30, {"unreadable": 1})
    (name,) = Path(job.out, "rejects").iterdir()
    assert "no connection to" in pq.read_table(name)["detail"][0].as_py()


def test_servers_that_are_all_unreachable_fail_the_job(
    job: Job, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "RECONNECT_SECONDS", (0.01,))
    monkeypatch.setattr(executor, "RETRY_DELAY_SECONDS", 0.01)
    address = f"http://127.0.0.1:{dead_port()}"
    write_manifest(Path(job.images), [row | {"uri": f"{address}/{row['uri']}"} for row in rows])
    with pytest.raises(TaskError, match=rf"{address}/.+png: no connection to .*network, or remove the images"):
        pipeline.run(dataclasses.replace(job, partition_size=31), LocalExecutor())
    assert not list(Path(job.out, "rejects").glob("*.parquet"))


def test_a_server_that_answered_before_fails_the_partition() -> None:
    contents = Contents()
    assert contents.bytes("a/1.jpg", b"1") == b"1"
    assert contents.bytes("https://host/1.jpg", b"2") == b"2"
    with pytest.raises(ImageError, match="unreadable: no connection to other:443"):
        contents.bytes("https://other/1.jpg", UnreachableError("other:443", "refused"))
    contents.check()
    with pytest.raises(ImageError):
        contents.bytes("https://host/2.jpg", UnreachableError("host:443", "refused"))
    with pytest.raises(ConnectionError, match=r"https://host/2.jpg: .*it answered before"):
        contents.check()

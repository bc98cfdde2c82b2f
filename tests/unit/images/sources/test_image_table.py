"""Parquet files that contain the images: how they are named, labelled and read, and what is refused."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fruits.errors import DatasetError, SettingsError
from fruits.images.decode import ImageError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source, stored_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.images.sources.source import Source, image_bytes
from fruits.images.sources.tables import image_reader
from fruits.storage.prefetch import ChangedFileError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["pear", "apple"]
METADATA = {
    b"huggingface": json.dumps(
        {
            "info": {
                "features": {
                    "image": {"_type": "Image"},
                    "label": {"names": NAMES, "_type": "ClassLabel"},
                }
            }
        }
    ).encode()
}


def write(path: Path, images: list[bytes | None], paths: list[str | None], **options: Any) -> None:
    """Write a table as `datasets` writes it."""
    values = [{"bytes": data, "path": name} for data, name in zip(images, paths, strict=True)]
    labels = pa.array([number % 2 for number in range(len(images))], pa.int64())
    schema = pa.schema([("image", IMAGE), ("label", pa.int64())], metadata=METADATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([pa.array(values, IMAGE), labels], schema=schema), path, **options)


def source(path: object, column: str = "image.bytes", **options: Any) -> Source:
    return open_source(str(path), SourceOptions(**{"image_column": column, "label_column": "label"} | options))


def listed(path: object, **options: Any) -> list[ImageEntry]:
    return list(Listing(source(path, **options)))


def test_images_are_named_by_the_field_path_and_labelled_by_class_names(tmp_path: Path) -> None:
    write(tmp_path / "p.parquet", [b"1", b"2", b"3"], ["b.jpg", "a.jpg", "c.jpg"])
    version = str((tmp_path / "p.parquet").stat().st_mtime)
    assert listed(tmp_path / "p.parquet") == [
        ImageEntry("a.jpg", -1, version, "apple", "p.parquet", 1),
        ImageEntry("b.jpg", -1, version, "pear", "p.parquet", 0),
        ImageEntry("c.jpg", -1, version, "pear", "p.parquet", 2),
    ]


@pytest.mark.parametrize("paths", [["a.jpg", "a.jpg"], ["a.jpg", None], ["a.jpg", ""], ["a\0", "b"]])
def test_images_without_a_path_of_their_own_are_named_by_file_and_row(tmp_path: Path, paths: list[str | None]) -> None:
    write(tmp_path / "p.parquet", [b"1", b"2"], paths)
    assert [entry.path for entry in listed(tmp_path / "p.parquet")] == ["p.parquet/000000000", "p.parquet/000000001"]
    assert [entry.label for entry in listed(tmp_path / "p.parquet", label_column=None)] == [None, None]
    with pytest.raises(DatasetError, match=r"is there twice|no path|the path is empty|NUL"):
        listed(tmp_path / "p.parquet", path_column="image.path")


def test_images_of_pandas_are_a_column_of_bytes(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"content": [b"1", b"2"], "label": ["x", "y"], "file": ["b/1.jpg", "a/2.jpg"]})
    frame.to_parquet(tmp_path / "p.parquet")
    entries = listed(tmp_path / "p.parquet", column="content")
    assert [entry[0] for entry in entries] == ["p.parquet/000000000", "p.parquet/000000001"]
    entries = listed(tmp_path / "p.parquet", column="content", path_column="file", label_column=None)
    assert [(entry.path, entry.label) for entry in entries] == [("a/2.jpg", "a"), ("b/1.jpg", "b")]
    assert list(source(tmp_path / "p.parquet", "content").read(entries)) == [b"2", b"1"]


@pytest.mark.parametrize("address", ["data", "data/*.parquet", "data/x-[12].parquet"])
def test_several_files_are_one_source(tmp_path: Path, address: str) -> None:
    for number in (2, 1):
        write(tmp_path / "data" / f"x-{number}.parquet", [b"%d%d" % (number, row) for row in range(3)], [None] * 3)
    entries = listed(tmp_path / address)
    assert [entry.path for entry in entries] == [
        f"x-{number}.parquet/{row:09d}" for number in (1, 2) for row in range(3)
    ]
    assert list(source(tmp_path / address).read(entries)) == [b"10", b"11", b"12", b"20", b"21", b"22"]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_rows_in_any_order_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    monkeypatch.setattr(image_reader, "WINDOW", data.draw(st.integers(1, 9)))
    monkeypatch.setattr(image_reader, "WINDOW_BYTES", data.draw(st.integers(1, 400)))
    contents: dict[tuple[str, int], bytes] = {}
    for name in ("a", "b"):
        count = data.draw(st.integers(1, 12))
        images = [data.draw(st.binary(max_size=40)) for _ in range(count)]
        write(tmp_path / "d" / f"{name}.parquet", images, [None] * count, row_group_size=data.draw(st.integers(1, 12)))
        contents |= {(f"{name}.parquet", row): image for row, image in enumerate(images)}
    keys = data.draw(st.lists(st.sampled_from(sorted(contents)), max_size=30))
    entries = [ImageEntry(f"{name}/{row}", -1, "", None, name, row) for name, row in keys]
    assert list(source(tmp_path / "d").read(entries)) == [contents[key] for key in keys]


def test_a_row_group_is_read_once_if_the_entries_are_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reader, "WINDOW_BYTES", 7000)
    images: list[bytes | None] = [os.urandom(5000 if 10 < row < 15 else 500) for row in range(40)]
    write(tmp_path / "p.parquet", images, [None] * 40, row_group_size=20)
    begun: list[list[int]] = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(file: Any, *given: Any, row_groups: list[int], **options: Any) -> Any:
        begun.append(row_groups)
        return iter_batches(file, *given, row_groups=row_groups, **options)

    entries = listed(tmp_path / "p.parquet")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert all(isinstance(content, bytes) for content in source(tmp_path / "p.parquet").read(entries))
    assert begun == [[0], [1]]


@pytest.mark.parametrize("step", [1, -1], ids=["in-order", "reversed"])
def test_memory_is_bounded_by_bytes_if_images_are_of_very_different_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(image_reader, "WINDOW_BYTES", 2**22)
    monkeypatch.setattr(image_reader, "REQUEST_BYTES", 2**20)
    images: list[bytes | None] = [os.urandom(2**20 if 200 <= row < 230 else 100) for row in range(400)]
    write(tmp_path / "p.parquet", images, [None] * 400, write_batch_size=1, data_page_size=1, use_dictionary=False)
    entries = listed(tmp_path / "p.parquet")[::step]
    before, arrow = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        for content, image in zip(source(tmp_path / "p.parquet").read(entries), images[::step], strict=True):
            assert content == image
            arrow = max(arrow, pa.total_allocated_bytes() - before)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert arrow < 4 * 2**20


def test_a_file_that_was_written_again_is_a_changed_image(tmp_path: Path) -> None:
    write(tmp_path / "p.parquet", [b"1", b"2"], [None] * 2)
    entries = listed(tmp_path / "p.parquet")
    os.utime(tmp_path / "p.parquet", (7, 7))
    contents = list(source(tmp_path / "p.parquet").read(entries))
    assert [type(content) for content in contents] == [ChangedFileError] * 2
    unversioned = [entry._replace(version="", position=row) for row, entry in enumerate(entries, 1)]
    assert [type(content) for content in source(tmp_path / "p.parquet").read(unversioned)] == [bytes, ChangedFileError]


def test_an_image_that_cannot_be_read_is_an_error_among_the_others(tmp_path: Path) -> None:
    write(tmp_path / "d" / "1.parquet", [b"1", None], [None] * 2)
    write(tmp_path / "d" / "2.parquet", [b"2" * 5000], [None], compression="none")
    write(tmp_path / "d" / "3.parquet", [b"3"], [None])
    entries = [entry._replace(version="") for entry in listed(tmp_path / "d")]
    data = (tmp_path / "d" / "2.parquet").read_bytes()
    (tmp_path / "d" / "2.parquet").write_bytes(data[:100])
    (tmp_path / "d" / "3.parquet").unlink()
    one, null, cut, missing = source(tmp_path / "d").read(entries)
    assert one == b"1"
    assert isinstance(null, ImageError)
    assert null.detail == "1.parquet, row 1: `image_column` image.bytes is null"
    assert isinstance(cut, ImageError)
    assert cut.reason == "unreadable"
    assert isinstance(missing, FileNotFoundError)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("image", r"has it as struct<.*Its columns of bytes: image\.bytes\."),
        ("picture", r"has no such column\. Its columns of bytes: image\.bytes\."),
        ("label", "has it as int64"),
    ],
)
def test_a_column_without_images_is_an_error(tmp_path: Path, column: str, message: str) -> None:
    write(tmp_path / "p.parquet", [b"1"], ["a"])
    for paths in (None, "image.path"):
        with pytest.raises(DatasetError, match=f"`image_column` {column}: .*p.parquet {message}"):
            listed(tmp_path / "p.parquet", column=column, path_column=paths)


@pytest.mark.parametrize("twice", ["image", "path"])
def test_two_columns_of_one_name_are_an_error(tmp_path: Path, twice: str) -> None:
    columns = {"image": pa.array([b"1"]), "path": pa.array(["a"])}
    names = [*columns, twice]
    pq.write_table(pa.Table.from_arrays([columns[name] for name in names], names), tmp_path / "p.parquet")
    with pytest.raises(DatasetError, match=r"p\.parquet has (it twice|2 columns path)"):
        listed(tmp_path / "p.parquet", column="image", path_column="path", label_column=None)


@pytest.mark.parametrize("length", [0, 4, 100, 900, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, length: int) -> None:
    write(tmp_path / "p.parquet", [b"1" * 1000], ["a"])
    (tmp_path / "p.parquet").write_bytes((tmp_path / "p.parquet").read_bytes()[:length])
    with pytest.raises(DatasetError, match=r"p\.parquet is no readable Parquet file"):
        listed(tmp_path / "p.parquet")


def test_other_options_and_addresses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"`version_column` with p\.parquet: not allowed"):
        source("p.parquet", version_column="etag")
    (tmp_path / "p.txt").write_text("words")
    with pytest.raises(DatasetError, match=r"p\.txt: no \.parquet file"):
        listed(tmp_path / "p.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: no \.parquet file found"):
        listed(tmp_path / "empty")


def test_the_source_of_a_stored_job_is_the_same(tmp_path: Path) -> None:
    options = SourceOptions(image_column="image.bytes", label_column="label")
    identity = {"images": str(tmp_path / "p.parquet")} | options.given()
    assert stored_source(identity) == open_source(str(tmp_path / "p.parquet"), options)


def test_a_file_without_a_version_that_lost_its_images_gives_rejects(tmp_path: Path) -> None:
    write(tmp_path / "p.parquet", [b"1"], ["a"])
    entry = listed(tmp_path / "p.parquet")[0]._replace(version="")
    for other in (pa.table({"other": [b"1"]}), pa.table({"image": [{"bytes": "text"}]})):
        pq.write_table(other, tmp_path / "p.parquet")
        assert [type(content) for content in source(tmp_path / "p.parquet").read([entry])] == [ChangedFileError]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip"])
def test_images_in_a_corrupt_page_are_rejects(tmp_path: Path, compression: str) -> None:
    images: list[bytes | None] = [os.urandom(50) for _ in range(20)]
    names: list[str | None] = [f"{number:02d}.jpg" for number in range(20)]
    write(tmp_path / "p.parquet", images, names, row_group_size=10, compression=compression, use_dictionary=False)
    opened = source(tmp_path / "p.parquet")
    entries = [entry._replace(version="") for entry in Listing(opened)]
    chunk = pq.read_metadata(tmp_path / "p.parquet").row_group(0).column(0)
    data = bytearray((tmp_path / "p.parquet").read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle - 250 : middle + 200] = bytes(450)
    (tmp_path / "p.parquet").write_bytes(data)
    *corrupt, last = (content for content in opened.read(entries[:10] + entries[19:]))
    with pytest.raises(ImageError, match=r"^unreadable: p\.parquet, row 0: "):
        image_bytes(corrupt[0])
    assert last == images[19]

"""S3 Inventories in their three formats, in the memory of fsspec, which stands in for S3."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from fruits.errors import DatasetError, SettingsError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source, stored_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions

MANIFEST = "reports/photos/weekly/2026-11-01T01-00Z/manifest.json"
COLUMNS = {
    "bucket": "Bucket",
    "key": "Key",
    "version_id": "VersionId",
    "is_latest": "IsLatest",
    "is_delete_marker": "IsDeleteMarker",
    "size": "Size",
    "last_modified_date": "LastModifiedDate",
    "e_tag": "ETag",
    "storage_class": "StorageClass",
}
Record = dict[str, Any]


def record(key: str, size: int | None = 3, *, latest: bool = True, deleted: bool = False) -> Record:
    etag = None if deleted else hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    values = ("photos", key, "v1", latest, deleted, size, "2026-10-31T12:00:00.000Z", etag, "STANDARD")
    return dict(zip(COLUMNS, values, strict=True))


def encode(kind: str, records: list[Record], columns: list[str], plus: bool = False) -> tuple[bytes, str]:
    """Return a data file and the schema in ``manifest.json``."""
    if kind == "CSV":
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        for each in records:
            values = each | {"key": (quote_plus if plus else quote)(each["key"], safe="/")}
            cells = (values[name] for name in columns)
            writer.writerow(
                ["" if cell is None else str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]
            )
        return gzip.compress(text.getvalue().encode()), ", ".join(COLUMNS[name] for name in columns)
    table = pa.Table.from_pylist([{name: each[name] for name in columns} for each in records])
    stream = io.BytesIO()
    if kind == "ORC":
        orc.write_table(table, stream)
        return stream.getvalue(), f"struct<{','.join(f'{name}:string' for name in columns)}>"
    pq.write_table(table, stream)
    return stream.getvalue(), f"message s3.inventory {{ {' '.join(f'optional binary {name};' for name in columns)} }}"


@pytest.fixture
def memory() -> Iterator[Any]:
    file_system = fsspec.filesystem("memory")
    yield file_system
    for bucket in ("photos", "lists"):
        if file_system.exists(f"/{bucket}"):
            file_system.rm(f"/{bucket}", recursive=True)


def write(memory: Any, kind: str, parts: list[list[Record]], columns: list[str] | None = None, **changed: Any) -> str:
    described, schema = [], ""
    for number, records in enumerate(parts):
        data, schema = encode(kind, records, columns or list(COLUMNS), plus=number == 1)
        key = f"reports/photos/weekly/data/{number}.{ {'CSV': 'csv.gz'}.get(kind, kind.lower()) }"
        memory.pipe_file(f"/lists/{key}", data)
        described.append(
            {"key": key, "size": len(data), "MD5checksum": hashlib.md5(data, usedforsecurity=False).hexdigest()}
        )
    manifest = {
        "sourceBucket": "photos",
        "destinationBucket": "arn:aws:s3:::lists",
        "version": "2016-11-30",
        "fileFormat": kind,
        "fileSchema": schema,
        "files": described,
    }
    memory.pipe_file(f"/lists/{MANIFEST}", json.dumps(manifest | changed).encode())
    return f"memory://lists/{MANIFEST}"


def listed(address: str, **options: Any) -> tuple[list[ImageEntry], dict[str, int]]:
    listing = Listing(open_source(address, SourceOptions(**options)))
    return list(listing), dict(listing.skipped)


kinds = pytest.mark.parametrize("kind", ["CSV", "Parquet", "ORC"])


@kinds
def test_images_are_listed_with_sizes_and_etags(memory: Any, kind: str) -> None:
    keys = ["b/2.jpg", "a/1 +%.JPG", 'é/,"x".png', "a/0.webp", "top.gif"]
    others = [record("a/notes.txt"), record("a/", 0), record("a/.hidden/1.jpg"), record("a/no-extension")]
    old = [record("b/2.jpg", 9, latest=False), record("gone.jpg", None, deleted=True)]
    address = write(memory, kind, [[record(keys[0], 0), *others], [record(key) for key in keys[1:]], old])
    entries, skipped = listed(address)
    assert [entry.path for entry in entries] == sorted(keys)
    assert entries[0] == ImageEntry("a/0.webp", 3, record("a/0.webp")["e_tag"])
    assert [entry.size for entry in entries if entry.path == "b/2.jpg"] == [0]
    assert skipped == {"not-image": 3, "hidden": 1, "old-version": 2}
    assert len(listed(address, include_hidden=True)[0]) == len(keys) + 1


@kinds
def test_columns_but_the_key_are_optional(memory: Any, kind: str) -> None:
    address = write(memory, kind, [[record("a/1.jpg")]], ["bucket", "key"])
    assert listed(address)[0] == [ImageEntry("a/1.jpg", -1)]
    address = write(memory, kind, [[record("a/1.jpg")]], ["bucket", "size"])
    with pytest.raises(DatasetError, match=r"Allowed: CSV, Parquet, ORC, with the key"):
        listed(address)


def test_objects_are_read_from_the_source_bucket(memory: Any) -> None:
    address = write(memory, "CSV", [[record("a/1.jpg"), record("a/2.jpg"), record("../3.jpg")]])
    memory.pipe_file("/photos/a/1.jpg", b"one")
    entries, _ = listed(address)
    one, missing, outside = [list(open_source(address).read(entries))[place] for place in (1, 2, 0)]
    assert one == b"one"
    assert isinstance(missing, FileNotFoundError)
    assert getattr(outside, "reason", None) == "unreadable"


@kinds
def test_a_data_file_that_differs_from_its_checksum_is_an_error(memory: Any, kind: str) -> None:
    address = write(memory, kind, [[record("a/1.jpg")]])
    (path,) = memory.find("/lists/reports/photos/weekly/data")
    data = memory.cat_file(path)
    memory.pipe_file(path, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DatasetError, match=r"data/0\.\S+ differs from its inventory: its MD5 is"):
        listed(address)
    memory.rm(path)
    with pytest.raises(DatasetError, match=r"data/0\.\S+ cannot be read: No such file"):
        listed(address)


@pytest.mark.parametrize("kind", ["Parquet", "ORC"])
def test_a_corrupt_data_file_with_its_checksum_is_an_error_that_names_it(memory: Any, kind: str) -> None:
    data, schema = encode(kind, [record("a/1.jpg")], ["key"])
    data = data[:-10]
    memory.pipe_file("/lists/data/x", data)
    known = hashlib.md5(data, usedforsecurity=False).hexdigest()
    with pytest.raises(DatasetError, match=r"lists/data/x (cannot be read|is no readable)"):
        listed(write(memory, kind, [], files=[{"key": "data/x", "MD5checksum": known}], fileSchema=schema))


@kinds
def test_a_repeated_key_is_an_error_that_names_both_rows(memory: Any, kind: str) -> None:
    address = write(memory, kind, [[record("a/1.jpg")], [record("b.jpg"), record("a/1.jpg")]])
    unit, numbers = ("line", (1, 2)) if kind == "CSV" else ("row", (0, 1))
    pattern = rf"a/1\.jpg is there twice: \S+0\.\S+, {unit} {numbers[0]}, and \S+1\.\S+, {unit} {numbers[1]}"
    with pytest.raises(DatasetError, match=pattern):
        listed(address)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (b'"photos","a/%FF.jpg","3"\n', r"line 1: the key a/%FF\.jpg is no UTF-8"),
        (b'"photos","a.jpg","big"\n', "a size is no whole number"),
        (b'"photos","a.jpg"\n', "line 1: 2 values for 3 columns"),
    ],
)
def test_a_malformed_csv_file_is_an_error(memory: Any, rows: bytes, message: str) -> None:
    for data, pattern in (
        (gzip.compress(rows), message),
        (rows, "no gzipped CSV file"),
        (gzip.compress(rows)[:-9], "gz"),
    ):
        memory.pipe_file("/lists/data/x.csv.gz", data)
        known = hashlib.md5(data, usedforsecurity=False).hexdigest()
        files = [{"key": "data/x.csv.gz", "size": len(data), "MD5checksum": known}]
        with pytest.raises(DatasetError, match=pattern):
            listed(write(memory, "CSV", [], files=files, fileSchema="Bucket, Key, Size"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no manifest.json of an S3 Inventory"),
        (b"[]", "is no manifest.json of an S3 Inventory"),
        (b'{"sourceBucket": "a", "destinationBucket": 1}', "is no manifest.json of an S3 Inventory"),
        (b'{"images": ["a.jpg"]}', r"KeyError\('sourceBucket'\).*give .jsonl"),
    ],
)
def test_another_json_file_is_an_error(memory: Any, content: bytes, message: str) -> None:
    memory.pipe_file("/lists/x.json", content)
    with pytest.raises(DatasetError, match=message):
        listed("memory://lists/x.json")


def test_other_addresses_formats_and_options_are_refused(memory: Any) -> None:
    with pytest.raises(DatasetError, match=r"a local file\. Give the address of the manifest\.json"):
        listed("manifest.json")
    with pytest.raises(DatasetError, match=r"missing\.json cannot be read"):
        listed("memory://lists/missing.json")
    with pytest.raises(DatasetError, match="the format Avro"):
        listed(write(memory, "CSV", [[record("a.jpg")]], fileFormat="Avro"))
    with pytest.raises(DatasetError, match="lists no image"):
        listed(write(memory, "CSV", [[record("a.txt")]]))
    with pytest.raises(SettingsError, match=r"`label_column` with x\.json: not allowed, because it is an S3 Inventory"):
        open_source("x.json", SourceOptions(label_column="kind"))


def test_the_source_of_a_stored_job_is_the_same(memory: Any) -> None:
    address = f"memory://lists/{MANIFEST}"
    options = SourceOptions(include_hidden=True, label_regex="(.)/")
    assert stored_source({"images": address} | options.given()) == open_source(address, options)


@pytest.mark.parametrize("key", [None, 7, b"a/1.jpg"])
def test_a_key_that_is_no_text_is_an_error(memory: Any, key: Any) -> None:
    address = write(memory, "Parquet", [[record("a/1.jpg") | {"key": key}]])
    with pytest.raises(DatasetError, match=r"0\.parquet, row 0: the key .* is no text"):
        listed(address)


def test_a_manifest_of_other_types_is_an_error(memory: Any) -> None:
    with pytest.raises(DatasetError, match=r"is no manifest\.json of an S3 Inventory"):
        listed(write(memory, "CSV", [[record("a/1.jpg")]], fileFormat=["CSV"]))

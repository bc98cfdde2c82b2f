"""Manifests, inventories and Parquet files on a real S3 server: the bits of the folder."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fruits.errors import DatasetError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.jobs.inspect.compare import compare
from fruits.storage.prefetch import ChangedFileError
from fruits.storage.s3 import file_system
from tests.s3.server import Server
from tests.s3.test_jobs import OPTIONS, images, local  # noqa: F401 - fixtures


def manifest(folder: Path, lists: Path, address: str) -> tuple[str, list[str]]:
    """Write a manifest of absolute addresses in another bucket; the paths of its rows are these."""
    rows = [{"uri": f"{address}/{path.relative_to(folder)}", "kind": path.parent.name} for path in folder.rglob("*.*")]
    pq.write_table(pa.Table.from_pylist(rows), lists / "m.parquet")
    return "s3://lists/m.parquet", ["--path-column", "uri", "--label-column", "kind"]


def relative_manifest(folder: Path, lists: Path, address: str) -> tuple[str, list[str]]:
    lines = [json.dumps({"uri": f"{path.relative_to(folder)}"}) for path in folder.rglob("*.*")]
    (folder / "m.jsonl").write_text("\n".join(lines))
    return f"{address}/m.jsonl", ["--path-column", "uri"]


def inventory(folder: Path, lists: Path, address: str) -> tuple[str, list[str]]:
    entries = list(Listing(open_source(address)))
    text = io.StringIO()
    bucket = address.removeprefix("s3://")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(
        [bucket, entry.path, entry.size, entry.version] for entry in entries
    )
    data = gzip.compress(text.getvalue().encode())
    (lists / "data").mkdir()
    (lists / "data" / "1.csv.gz").write_bytes(data)
    known = hashlib.md5(data, usedforsecurity=False).hexdigest()
    content = {
        "sourceBucket": bucket,
        "destinationBucket": "arn:aws:s3:::lists",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, ETag",
        "files": [{"key": "data/1.csv.gz", "size": len(data), "MD5checksum": known}],
    }
    (lists / "manifest.json").write_text(json.dumps(content))
    return "s3://lists/manifest.json", []


def parquet(folder: Path, lists: Path, address: str) -> tuple[str, list[str]]:
    rows: list[dict[str, Any]] = [
        {"image": {"bytes": path.read_bytes(), "path": f"{path.relative_to(folder)}"}, "kind": path.parent.name}
        for path in folder.rglob("*.*")
    ]
    for number in range(2):
        pq.write_table(pa.Table.from_pylist(rows[number::2]), lists / f"x-{number}.parquet", row_group_size=9)
    return "s3://lists/*.parquet", ["--image-column", "image.bytes", "--label-column", "kind"]


@pytest.mark.parametrize("write", [manifest, relative_manifest, inventory, parquet])
def test_a_job_on_another_source_has_the_bits_of_a_local_job(
    write: Callable[[Path, Path, str], tuple[str, list[str]]],
    fruits: Callable[..., Any],
    bucket: str,
    folder_of: Callable[[str], Path],
    s3: Server,
    images: Path,  # noqa: F811
    local: Path,  # noqa: F811
) -> None:
    shutil.copytree(images, folder_of(bucket), dirs_exist_ok=True)
    (s3.root / "lists").mkdir()
    address, options = write(folder_of(bucket), s3.root / "lists", bucket)
    out = "s3://lists/out"
    report = fruits("run", address, *options, "--out", out, *OPTIONS, "--backend", "local")
    assert (report["images"], report["rows"]) == (62, 60)
    found = compare(str(local), out)
    if write is manifest:  # other paths
        assert {each.name for each in found.differences} == {"rows"}
    else:
        assert found.identical


def test_objects_that_changed_since_the_inventory_are_rejects(
    bucket: str, folder_of: Callable[[str], Path], s3: Server
) -> None:
    folder = folder_of(bucket)
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"%d" % number)
    (s3.root / "lists").mkdir()
    address, _ = inventory(folder, s3.root / "lists", bucket)
    source = open_source(address)
    entries = list(Listing(source))
    assert entries == list(Listing(open_source(bucket)))
    (folder / "1.jpg").write_bytes(b"another")
    same, changed, missing = source.read([*entries[:2], entries[2]._replace(path="missing.jpg")])
    assert same == b"0"
    assert isinstance(changed, ChangedFileError)
    assert isinstance(missing, FileNotFoundError)


def test_an_address_that_s3_cannot_have_is_a_reject(bucket: str, folder_of: Callable[[str], Path], s3: Server) -> None:
    (folder_of(bucket) / "1.jpg").write_bytes(b"one")
    source = open_source(f"{bucket}/m.csv", SourceOptions(path_column="uri"))
    paths = ["1.jpg", "s3://nonsuch-bucket/1.jpg", "s3://Not_A_Bucket!/1.jpg", bucket, f"{bucket}/1.jpg"]
    first, *others, last = source.read([ImageEntry(path, -1) for path in paths])
    assert first == last == b"one"
    assert [getattr(other, "reason", other) for other in others] == ["unreadable"] * 3
    assert "the bucket nonsuch-bucket does not exist" in str(others[0])
    with pytest.raises(DatasetError, match=r"m\.csv: no such file"):
        list(Listing(source))


def test_an_object_above_the_limit_is_not_read(
    bucket: str, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_system, "MAX_BYTES", 100_000)
    for name, size in (("1.jpg", 3), ("2.jpg", 100_001), ("3.jpg", 100_000), ("4.jpg", 10**8)):
        with (folder_of(bucket) / name).open("wb") as file:
            file.truncate(size)
    for paths in (["2.jpg", "1.jpg"], ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]):  # first through botocore, then directly
        source = open_source(f"{bucket}/m.csv", SourceOptions(path_column="uri"))
        tracemalloc.start()
        contents = list(source.read([ImageEntry(path, -1) for path in paths]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        large = [isinstance(content, OSError) and content.errno == errno.EFBIG for content in contents]
        assert large == [path in ("2.jpg", "4.jpg") for path in paths]
        assert peak < 50_000_000

"""Manifests as Parquet, CSV and JSON Lines: what is listed, what is read, and what is refused."""

from __future__ import annotations

import csv
import errno
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fruits.errors import DatasetError, SettingsError
from fruits.images.decode import ImageError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.kinds import open_source, stored_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.images.sources.source import image_bytes
from fruits.images.sources.tables import rows
from tests.unit.storage import servers

Rows = Sequence[dict[str, Any]]


def write_parquet(path: Path, records: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(list(records)), path)


def write_csv(path: Path, records: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)


def write_jsonl(path: Path, records: Rows) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


WRITERS: dict[str, Callable[[Path, Rows], None]] = {"parquet": write_parquet, "csv": write_csv, "jsonl": write_jsonl}
kinds = pytest.mark.parametrize("kind", WRITERS)


def entries(path: object, **options: Any) -> list[ImageEntry]:
    return list(Listing(open_source(str(path), SourceOptions(**{"path_column": "uri"} | options))))


@kinds
def test_rows_are_listed_in_order_of_their_paths(tmp_path: Path, kind: str) -> None:
    names = ["b/2.jpg", "a/10.jpg", "é.jpg", "a/2.jpg", "s3://bucket/z.jpg", 'a/, "x".jpg']
    WRITERS[kind](tmp_path / f"m.{kind}", [{"other": 1, "uri": name, "etag": f"v{name}"} for name in names])
    expected = [ImageEntry(name, -1, f"v{name}") for name in sorted(names)]
    assert entries(tmp_path / f"m.{kind}", version_column="etag") == expected
    assert [entry.label for entry in entries(tmp_path / f"m.{kind}")] == ["a", "a", "a", "b", "bucket", None]


@kinds
def test_labels_are_those_of_the_column(tmp_path: Path, kind: str) -> None:
    records = [{"uri": f"x/{number}.jpg", "kind": label} for number, label in enumerate(["a", None, "", "b c"])]
    WRITERS[kind](tmp_path / f"m.{kind}", records)
    assert [entry.label for entry in entries(tmp_path / f"m.{kind}", label_column="kind")] == ["a", None, None, "b c"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_lists_of_labels_stay_lists(tmp_path: Path, kind: str) -> None:
    labels = [["a", "b"], [], ["c"], None]
    records = [{"uri": f"{number}.jpg", "kind": label} for number, label in enumerate(labels)]
    WRITERS[kind](tmp_path / f"m.{kind}", records)
    listing = Listing(open_source(str(tmp_path / f"m.{kind}"), SourceOptions(path_column="uri", label_column="kind")))
    assert [entry.label for entry in listing] == [("a", "b"), (), ("c",), ()]
    assert listing.labels == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([2, None], pa.int8()), ["2", None]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["x", None], pa.large_string()), ["x", None]),
        (pa.array([None, None]), [None, None]),
        (pa.array([[1, 2], []], pa.large_list(pa.int64())), [("1", "2"), ()]),
        (pa.array([["x"], ["x", "y"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), [("x",), ("x", "y")]),
    ],
)
def test_labels_of_other_types_are_texts(tmp_path: Path, values: pa.Array, expected: list[object]) -> None:
    pq.write_table(pa.table({"uri": ["1", "2"], "kind": values}), tmp_path / "m.parquet")
    assert [entry.label for entry in entries(tmp_path / "m.parquet", label_column="kind")] == expected


def test_class_names_of_datasets_are_the_labels(tmp_path: Path) -> None:
    features = {"kind": {"names": ["apple", "pear"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"uri": ["1", "2", "3"], "kind": [1, 0, -1]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "m.parquet")
    assert [entry.label for entry in entries(tmp_path / "m.parquet", label_column="kind")] == ["pear", "apple", None]
    pq.write_table(table.slice(0, 1).set_column(1, "kind", pa.array([2])), tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match=r"m.parquet, row 0: class 2 of 2 named classes"):
        entries(tmp_path / "m.parquet", label_column="kind")


def test_a_field_of_a_struct_is_named_with_a_dot(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"uri": "b.jpg", "n": 1}, {"uri": "a.jpg", "n": 2}]}), tmp_path / "m.parquet")
    assert [entry.path for entry in entries(tmp_path / "m.parquet", path_column="image.uri")] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("address", ["m.parquet", "parts/*.parquet", "*/x-?.parquet", "parts"])
def test_several_files_are_one_manifest(tmp_path: Path, address: str) -> None:
    folder = tmp_path / address if address == "m.parquet" else tmp_path / "parts"
    folder.mkdir()
    for number in (2, 1):
        write_parquet(folder / f"x-{number}.parquet", [{"uri": f"a/{number}.jpg"}, {"uri": f"b/{number}.jpg"}])
    (folder / "_SUCCESS").touch()
    (folder / "_common.parquet").write_bytes(b"no table")
    found = entries(tmp_path / address) if address == "m.parquet" or "x" in address else None
    if found is None:
        (folder / "_common.parquet").unlink()
        found = entries(tmp_path / address)
    assert [entry.path for entry in found] == ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]


def test_a_local_manifest_is_found_by_its_name_whatever_characters_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "[old] *"
    folder.mkdir()
    (folder / "m?.csv").write_text("uri\n1.jpg\n")
    (folder / "1.jpg").write_bytes(b"one")
    assert [entry.path for entry in entries(folder / "m?.csv")] == ["1.jpg"]
    assert read(folder / "m?.csv", ["1.jpg"]) == [b"one"]


def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_parquet(tmp_path / "m.parquet", [{"uri": "a"}])
    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(DatasetError, match=r"m\.parquet cannot be sorted in .+: No space left.*TMPDIR"):
        entries(tmp_path / "m.parquet")


# -- reading


def read(source_address: object, paths: Sequence[str]) -> list[object]:
    source = open_source(str(source_address), SourceOptions(path_column="uri"))
    return [
        content if isinstance(content, bytes) else type(content).__name__
        for content in source.read([ImageEntry(path, -1, "not compared") for path in paths])
    ]


def test_paths_are_relative_to_the_manifest_or_absolute_on_any_store(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for name in ("lists/1.jpg", "2.jpg", "lists/a b#%41?.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/manifests/3.jpg", b"three")
    paths = ["1.jpg", "../2.jpg", str(tmp_path / "2.jpg"), f"file://{tmp_path}/2.jpg", "memory://manifests/3.jpg"]
    paths += ["./../lists/1.jpg", "missing.jpg", "memory://manifests/4.jpg", "a b#%41?.jpg", "nonsuch://x", "1.jpg"]
    first, two = b"lists/1.jpg", b"2.jpg"
    expected = [first, two, two, two, b"three", first, "FileNotFoundError", "FileNotFoundError"]
    expected += [b"lists/a b#%41?.jpg", "ImageError", first]
    assert read(tmp_path / "lists" / "m.csv", paths) == expected
    memory.pipe_file("/manifests/deep/5.jpg", b"five")
    assert read("memory://manifests/deep/m.csv", ["5.jpg", "../3.jpg", "1.jpg"]) == [
        b"five",
        b"three",
        "FileNotFoundError",
    ]


def test_a_path_above_the_storage_is_unreadable(tmp_path: Path) -> None:
    depth = len(tmp_path.parts) + 3
    assert read(tmp_path / "m.csv", ["../" * depth + "x.jpg", "x.jpg"]) == ["ImageError", "FileNotFoundError"]


# -- refusals


@kinds
def test_a_missing_column_is_an_error_that_names_the_others(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / f"m.{kind}", [{"path": "a", "size": 1}])
    with pytest.raises(DatasetError, match=r"has no column uri\. Its columns: path, size\. .*`path_column`"):
        entries(tmp_path / f"m.{kind}")
    with pytest.raises(DatasetError, match=r"has no column kind\. .*`label_column`"):
        entries(tmp_path / f"m.{kind}", path_column="path", label_column="kind")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_column_of_numbers_has_no_paths(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / f"m.{kind}", [{"uri": 1}])
    with pytest.raises(DatasetError, match=r"`path_column` is a column of type int64\. Allowed: texts"):
        entries(tmp_path / f"m.{kind}")


@kinds
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "no path"),
        ("a\0b", "NUL"),
        ("https://user:secret@host/1.jpg", r"https://\*\*\*@host/1.jpg contains credentials"),
        ("https://host/1.jpg?X-Amz-Signature=0123", r"Signature=\*\*\* contains credentials"),
    ],
)
def test_an_invalid_path_is_an_error_with_its_row(tmp_path: Path, kind: str, value: str | None, message: str) -> None:
    WRITERS[kind](
        tmp_path / f"m.{kind}", [{"uri": "ok.jpg"}, {"uri": value, "x": 1} if kind != "csv" else {"uri": value}]
    )
    if kind == "csv" and value is None:
        (tmp_path / "m.csv").write_text('uri,x\nok.jpg,\n"",1\n')
    where = "row 1" if kind == "parquet" else f"line {3 if kind == 'csv' else 2}"
    with pytest.raises(DatasetError, match=f"m.{kind}, {where}: .*{message}"):
        entries(tmp_path / f"m.{kind}")


@kinds
def test_a_repeated_path_is_an_error_that_names_both_rows(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / f"m.{kind}", [{"uri": name} for name in ("b", "a", "c", "a")])
    rows = "row 1, .*row 3" if kind == "parquet" else {"csv": "line 3, .*line 5", "jsonl": "line 2, .*line 4"}[kind]
    with pytest.raises(DatasetError, match=f"the path a is there twice: .*{rows}"):
        entries(tmp_path / f"m.{kind}")


@kinds
def test_a_manifest_without_rows_is_an_error(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / f"m.{kind}", [{"uri": "a"}])
    if kind == "parquet":
        pq.write_table(pq.read_table(tmp_path / "m.parquet").slice(0, 0), tmp_path / "m.parquet")
    else:
        (tmp_path / f"m.{kind}").write_text("uri\n" if kind == "csv" else "\n")
    with pytest.raises(DatasetError, match="lists no image" if kind != "jsonl" else "no column uri"):
        entries(tmp_path / f"m.{kind}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"uri,kind\na.jpg,x\nb.jpg\n", "line 3: 1 value for 2 columns"),
        (b'uri,kind\na.jpg,"x\n', "line 2: unexpected end of data"),
        (b'uri,kind\n"a"b.jpg,x\n', "line 2: "),
        (b'uri,kind\n"a\nb.jpg",x\nb,c,d\n', "line 4: 3 values"),
        ("uri\na.jpg\np\u00eache.jpg\n".encode("latin-1"), "line 3: it is not UTF-8"),
        ("uri\na.jpg\n".encode("utf-16"), "no CSV file in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "no CSV file in UTF-8"),
        (b"uri,uri\na,b\n", "has 2 columns uri"),
        (b"", "has no column uri. Its columns: none"),
        (b"uri\n" + b"x" * 200_000, "line 2: field larger than field limit"),
    ],
)
def test_a_malformed_csv_file_is_an_error_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(DatasetError, match=message):
        entries(tmp_path / "m.csv")


def test_a_line_of_any_length_is_not_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LINE_BYTES", 100)
    for kind, start in (("csv", "uri,x\na.jpg,"), ("jsonl", '{"uri": "')):
        (tmp_path / f"m.{kind}").write_text(start + "x" * 1000)
        with pytest.raises(DatasetError, match=f"m.{kind}, line {1 + start.count(chr(10))}: "):
            entries(tmp_path / f"m.{kind}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"uri": "a"}\n{"uri": \n', "line 2: "),
        (b'{"uri": "a"}\n\n["a"]\n', "line 3: .*Allowed: a JSON object"),
        (b'{"uri": "a"}\n{"uri": 1}\n', "line 2: uri is 1. Allowed: texts in all rows"),
        (b'{"uri": "a"}\n{"uri": "\xff"}\n', "line 2: "),
        (b'{"uri": "a", "kind": "x"}\n{"uri": "b", "kind": ["x"]}\n', r"line 2: kind is \['x'\]"),
        (b'{"uri": "a", "kind": ["x"]}\n{"uri": "b", "kind": ["x", 1]}\n', r"line 2: kind is \['x', 1\]"),
        (
            b'{"uri": "a", "kind": 1}\n{"uri": "b", "kind": 9223372036854775808}\n',
            "line 2: kind is 9223372036854775808",
        ),
        (b'{"uri": "a", "kind": ["x", null]}\n', "line 1: a label in the list is null"),
        (b'{"uri": "a", "kind": 1.5}\n', "line 1: kind is 1.5"),
        (b'{"uri": "a", "kind": {"a": 1}}\n', "line 1: kind is"),
        (b'{"uri": "a", "kind": true}\n', "line 1: kind is True"),
        (b'{"uri": "a", "kind": "x\\u0000"}\n', "line 1: the label contains a NUL"),
    ],
)
def test_a_malformed_json_line_is_an_error_with_its_number(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m.jsonl").write_bytes(data)
    with pytest.raises(DatasetError, match=message):
        entries(tmp_path / "m.jsonl", **({"label_column": "kind"} if b"kind" in data else {}))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfuri\r\na.jpg\r\n\r\n")
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"uri": "a.jpg"}')
    assert [entry.path for kind in ("csv", "jsonl") for entry in entries(tmp_path / f"m.{kind}")] == ["a.jpg"] * 2


@pytest.mark.parametrize("length", [0, 4, 100, 400, -1])
def test_a_truncated_parquet_file_is_an_error(tmp_path: Path, length: int) -> None:
    write_parquet(tmp_path / "m.parquet", [{"uri": f"{number}.jpg"} for number in range(100)])
    (tmp_path / "m.parquet").write_bytes((tmp_path / "m.parquet").read_bytes()[:length])
    with pytest.raises(DatasetError, match=r"m\.parquet is no readable Parquet file"):
        entries(tmp_path / "m.parquet")


def test_texts_of_parquet_that_are_not_utf_8_are_an_error(tmp_path: Path) -> None:
    broken = pa.array([b"a.jpg", b"\xff.jpg"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 2, broken.buffers())
    pq.write_table(pa.table({"uri": texts}), tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match=r"row 1: .*xff.* is not UTF-8"):
        entries(tmp_path / "m.parquet")


def test_labels_that_are_lists_in_one_file_only_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").mkdir()
    write_parquet(tmp_path / "m.parquet" / "1.parquet", [{"uri": "a", "kind": "x"}])
    write_parquet(tmp_path / "m.parquet" / "2.parquet", [{"uri": "b", "kind": ["x"]}])
    with pytest.raises(DatasetError, match="the labels of some rows are lists"):
        entries(tmp_path / "m.parquet", label_column="kind")


@pytest.mark.parametrize("first", [None, ["x"]])
def test_labels_that_are_null_for_a_batch_are_no_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: list[str] | None
) -> None:
    monkeypatch.setattr(rows, "BATCH", 2)
    labels = [first, first, None if first else ["x"], None if first else ["x"]]
    write_jsonl(tmp_path / "m.jsonl", [{"uri": f"{n}.jpg", "kind": label} for n, label in enumerate(labels)])
    with pytest.raises(DatasetError, match=r"or all null, from \S+, line 3 on\. Give a list in every row, \[\] for no"):
        entries(tmp_path / "m.jsonl", label_column="kind")


@pytest.mark.parametrize("type_", [pa.float64(), pa.bool_(), pa.binary(), pa.list_(pa.float64())])
def test_labels_of_types_without_a_text_are_refused(tmp_path: Path, type_: pa.DataType) -> None:
    pq.write_table(pa.table({"uri": ["a"], "kind": pa.array([None], type_)}), tmp_path / "m.parquet")
    if pa.types.is_list(type_):
        pq.write_table(pa.table({"uri": ["a"], "kind": pa.array([[1.5]], type_)}), tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match="`label_column` is a column of type"):
        entries(tmp_path / "m.parquet", label_column="kind")


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    for name in ("m.csv", "*.csv", "m.parquet"):
        with pytest.raises(DatasetError, match=r"no such file|no \.csv file found"):
            entries(tmp_path / name)


def test_options_of_another_kind_are_refused(tmp_path: Path) -> None:
    for address, options, message in (
        ("m.csv", {}, "m.csv is a table: name its column of paths with `path_column`"),
        ("m.csv", {"path_column": "uri", "follow_links": True}, "`follow_links` with m.csv: .*it is a manifest"),
        ("images", {"label_column": "kind"}, "`label_column` with images: not allowed, because it is a folder"),
    ):
        with pytest.raises(SettingsError, match=message):
            open_source(address, SourceOptions(**options))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="`label_regex` with `label_column`"):
        SourceOptions(label_regex="(.)", label_column="kind")
    (tmp_path / "m.csv").mkdir()
    assert list(Listing(open_source(f"{tmp_path}/m.csv/"))) == []


def test_the_source_of_a_stored_job_is_the_same_manifest(tmp_path: Path) -> None:
    options = SourceOptions(path_column="uri", label_column="kind", version_column="etag")
    address = str(tmp_path / "m.csv")
    assert stored_source({"images": address} | options.given()) == open_source(address, options)


def test_large_manifests_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH", 7)
    names = [f"{number * 7919 % 100:02d}.jpg" for number in range(100)]
    for kind, write in WRITERS.items():
        write(tmp_path / f"m.{kind}", [{"uri": name} for name in names])
        assert [entry.path for entry in entries(tmp_path / f"m.{kind}")] == sorted(names)


def test_a_manifest_on_a_web_server_lists_images_beside_it_and_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "www" / "lists").mkdir(parents=True)
    (tmp_path / "www" / "lists" / "a b.jpg").write_bytes(b"one")
    (tmp_path / "www" / "2.jpg").write_bytes(b"two")
    (tmp_path / "3.jpg").write_bytes(b"three")
    with servers.http(tmp_path / "www") as address:
        paths = ["a b.jpg", "../2.jpg", str(tmp_path / "3.jpg"), f"{address}/2.jpg", f"{address}/missing.jpg"]
        write_parquet(tmp_path / "www" / "lists" / "m.parquet", [{"uri": path} for path in paths])
        assert [entry.path for entry in entries(f"{address}/lists/m.parquet")] == sorted(paths)
        assert read(f"{address}/lists/m.parquet", paths) == [b"one", b"two", b"three", b"two", "FileNotFoundError"]
        with pytest.raises(DatasetError, match=r"n\.parquet: no such file"):
            entries(f"{address}/lists/n.parquet")


@pytest.mark.parametrize("log", ["_delta_log/00000.json", ".hoodie/hoodie.properties", "metadata/v1.metadata.json"])
def test_a_table_whose_folder_contains_deleted_rows_is_refused(tmp_path: Path, log: str) -> None:
    table = tmp_path / "table"
    (table / log).parent.mkdir(parents=True)
    (table / log).write_text("{}")
    write_parquet(table / "part-0.parquet", [{"uri": "deleted.jpg"}])
    with pytest.raises(DatasetError, match="a Delta, Hudi or Iceberg table"):
        entries(table)


def test_planning_and_reading_do_not_import_pandas(tmp_path: Path) -> None:
    """pyarrow imports it for many conversions of single values: 50 MB and half a second in every process."""
    rows = [{"uri": f"{name}.jpg", "kind": ["a", None][name == "b"], "etag": 1} for name in "ba"]
    for kind, write in WRITERS.items():
        write(tmp_path / f"m.{kind}", rows)
    table = pa.table({"uri": ["1.jpg"], "kind": [["a"]], "etag": ["x"], "content": [b"x"]})
    pq.write_table(table, tmp_path / "lists.parquet")
    program = """
import sys
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.plan.pages import write_list
given = {"path_column": "uri", "label_column": "kind"}
for name in ("m.parquet", "m.csv", "m.jsonl", "lists.parquet"):
    write_list(Listing(open_source(f"{sys.argv[1]}/{name}", SourceOptions(**given, version_column="etag"))).tables())
source = open_source(f"{sys.argv[1]}/lists.parquet", SourceOptions(**given, image_column="content"))
assert list(source.read(Listing(source))) == [b"x"]
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999/1.jpg", "http:///1.jpg", "http://", "https://[::1/1.jpg"])
def test_an_address_that_is_no_url_is_a_reject(tmp_path: Path, address: str) -> None:
    (content,) = open_source(str(tmp_path / "m.csv"), SourceOptions(path_column="uri")).read([ImageEntry(address, -1)])
    with pytest.raises(ImageError, match=r"unreadable: .*URL"):
        image_bytes(content)

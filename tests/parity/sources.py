"""Other sources of the images of a folder: manifests and Parquet files, as several programs write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Images = list[tuple[str, str, bytes]]  # path, label and content
Writer = Callable[[Images, Path], tuple[Path, dict[str, Any]]]
MANIFEST = {"path_column": "uri", "label_column": "kind"}


def parquet_manifest(images: Images, folder: Path) -> tuple[Path, dict[str, Any]]:
    table = pa.table({"uri": [path for path, _, _ in images], "kind": [label for _, label, _ in images]})
    pq.write_table(table, folder / "m.parquet", row_group_size=5)
    return folder / "m.parquet", MANIFEST


def csv_manifest(images: Images, folder: Path) -> tuple[Path, dict[str, Any]]:
    with (folder / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("kind", "uri"), *((label, path) for path, label, _ in images)])
    return folder / "m.csv", MANIFEST


def jsonl_manifest(images: Images, folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = [json.dumps({"uri": path, "kind": label}) for path, label, _ in images]
    (folder / "m.jsonl").write_text("\n".join(lines))
    return folder / "m.jsonl", MANIFEST


def unlabelled_manifest(images: Images, folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "paths.csv").write_text("\n".join(["uri", *(path for path, _, _ in images)]))
    return folder / "paths.csv", {"path_column": "uri"}


def datasets_parquet(images: Images, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write the layout of `datasets`: struct<bytes, path>, and class numbers, whose names are in the metadata."""
    names = sorted({label for _, label, _ in images}, reverse=True)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind), ("label", pa.int64())], metadata=metadata)
    (folder / "data").mkdir(exist_ok=True)
    for number in range(3):
        some = images[number::3]
        values = pa.array([{"bytes": data, "path": path} for path, _, data in some], kind)
        labels = pa.array([names.index(label) for _, label, _ in some], pa.int64())
        table = pa.table([values, labels], schema=schema)
        pq.write_table(table, folder / "data" / f"train-{number:05d}-of-00003.parquet", row_group_size=4)
    return folder / "data", {"image_column": "image.bytes", "label_column": "label"}


def pandas_parquet(images: Images, folder: Path) -> tuple[Path, dict[str, Any]]:
    pd = pytest.importorskip("pandas")
    pd.DataFrame(images, columns=["name", "fruit", "content"]).to_parquet(folder / "p.parquet")
    return folder / "p.parquet", {"image_column": "content", "path_column": "name", "label_column": "fruit"}


WRITERS: list[tuple[str, Writer]] = [
    ("dask", csv_manifest),
    ("local", jsonl_manifest),
    ("local", unlabelled_manifest),
    ("spark", parquet_manifest),
    ("spark", datasets_parquet),
    ("dask", pandas_parquet),
]

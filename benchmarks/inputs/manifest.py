"""A Parquet manifest of the keys of :mod:`benchmarks.inputs.keys`, in an order unlike that of their paths."""

from __future__ import annotations

import math
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs.keys import key

MANIFEST_COLUMNS: dict[str, Any] = {"path_column": "uri", "label_column": "kind", "version_column": "etag"}
ROWS = 2**20  # of a row group, as pyarrow and pandas write by default
STEP = 7_654_321  # between the keys of neighbouring rows


def write_manifest(count: int, path: str) -> None:
    """Write a manifest of `count` keys, in one file."""
    step = next(step for step in range(STEP, STEP + count + 1) if math.gcd(step, count) == 1)
    schema = pa.schema([pa.field(name, pa.string()) for name in MANIFEST_COLUMNS.values()])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, ROWS):
            keys = [key(number * step % count, count) for number in range(start, min(start + ROWS, count))]
            columns = [[each.path for each in keys], [each.label for each in keys], [each.etag for each in keys]]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS)


if __name__ == "__main__":
    write_manifest(int(sys.argv[1]), sys.argv[2])

"""Rows as CSV: encode and write all columns in one process, as a worker does."""

from __future__ import annotations

import time

import pyarrow as pa
from threadpoolctl import threadpool_limits

from benchmarks.scenarios.task import Task, Timings
from fruits.jobs.job import COLUMNS
from fruits.model.rows import encode_rows
from fruits.model.scaled_pca import ScaledPCA
from fruits.storage.folder import Folder, part_name


def run(task: Task) -> Timings:
    """Encode and write the rows, part by part."""
    begin = time.perf_counter()
    model = ScaledPCA.load(task.model)
    source, out = Folder(task.data) / "features", Folder(task.out) / "rows"
    parts: list[pa.Table] = [source.read_table(name) for name in source.names()]
    started = time.perf_counter()
    with threadpool_limits(1):  # as on a worker
        for index, table in enumerate(parts):
            out.write(part_name(index, "csv"), encode_rows(table, model, "csv", COLUMNS))
    return Timings(seconds={"start-up": started - begin, "write": time.perf_counter() - started})

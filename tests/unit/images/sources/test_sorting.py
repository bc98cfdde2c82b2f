"""Sorting with bounded memory: any rows, in any runs and blocks, give the order and the repetitions of a whole sort."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fruits.images.sources.tables import sorting
from fruits.images.sources.tables.sorting import RepeatedPathError, sorted_tables


def table(paths: list[bytes], start: int = 0) -> pa.Table:
    places = range(start, start + len(paths))
    fields = [pa.field("path", pa.binary(), nullable=False), pa.field("place", pa.int64(), nullable=False)]
    return pa.table([pa.array(paths, pa.binary()), pa.array(places, pa.int64())], schema=pa.schema(fields))


def tables(parts: list[list[bytes]]) -> list[pa.Table]:
    starts = [sum(map(len, parts[:number])) for number in range(len(parts))]
    return [table(part, start) for part, start in zip(parts, starts, strict=True)]


paths = st.one_of(
    st.binary(max_size=3), st.text(max_size=2).map(str.encode), st.sampled_from([b"a/1", b"a/10", b"a/2"])
)
pieces = st.lists(st.lists(paths, max_size=12), max_size=8)


@given(pieces, st.integers(1, 200), st.integers(1, 5))
def test_rows_come_in_order_with_their_places(parts: list[list[bytes]], run_bytes: int, block: int) -> None:
    flat = [path for part in parts for path in part]
    repeated = sorted(path for path, count in Counter(flat).items() if count > 1)
    with mock.patch.multiple(sorting, RUN_BYTES=run_bytes, BLOCK=block):
        if repeated:
            with pytest.raises(RepeatedPathError, match=r"^here: the path .* is there twice: ") as caught:
                list(sorted_tables(tables(parts), "here", "<{}>".format))
            one, other = map(int, re.findall(r"<(\d+)>", str(caught.value)))
            assert one < other
            assert flat[one] == flat[other] == repeated[0]
        else:
            found = [row for each in sorted_tables(tables(parts), "here", str) for row in each.to_pylist()]
            assert [row["path"] for row in found] == sorted(flat)
            assert all(flat[row["place"]] == row["path"] for row in found)


def test_utf_8_is_sorted_by_code_points() -> None:
    names = ["\U0001f351", "\uffff", "\ud7ff", "z", "é", "ab", "a"]
    found = sorted_tables(tables([[name.encode()] for name in names]), "here", str)
    assert [row["path"].decode() for each in found for row in each.to_pylist()] == sorted(names)


def test_sorted_tables_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 100)
    parts = [[b"%06d" % number for number in range(start, start + 50)] for start in range(0, 1000, 50)]
    sorting._write_runs(tables(parts), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0.arrow"]

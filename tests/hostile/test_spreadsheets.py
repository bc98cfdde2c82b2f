"""Rows in CSV, opened in a spreadsheet: file names must not become formulas."""

from __future__ import annotations

import csv
import io
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fruits.model.rows import decode_rows, encode_rows, features_table
from fruits.model.scaled_pca import ScaledPCA
from tests.hostile.conftest import EXAMPLES

MODEL = ScaledPCA(np.zeros(2), np.ones(2), np.eye(2), np.ones(2), 3)
STARTS = ("=", "+", "-", "@", "\t", "\r")
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def encoded(paths: list[str], labels: list[str | None]) -> bytes:
    table: pa.Table = features_table(paths, labels, np.ones((len(paths), 2), np.float32))
    return encode_rows(table, MODEL, "csv", ("path", "label", "features"))


def cells(data: bytes) -> list[list[str]]:
    """Return the cells that a spreadsheet reads."""
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))[1:]


@EXAMPLES
@example(rows=[("'", "''"), ("'=1", None), ("=1", "'"), ('"', "\r\n")])
@given(rows=st.lists(st.tuples(names, st.none() | names), min_size=1, max_size=6))
def test_any_name_is_read_back_unchanged(rows: list[tuple[str, str | None]]) -> None:
    paths, labels = [path for path, _ in rows], [label for _, label in rows]
    found = decode_rows(encoded(paths, labels), "part-00000.csv")
    assert (found["path"], found["label"]) == (paths, labels)


@pytest.mark.parametrize("start", STARTS)
def test_no_cell_starts_like_a_formula(start: str) -> None:
    name = f"{start}cmd|' /C calc'!A0"
    assert not [cell for row in cells(encoded([f"{name}/1.jpg"], [name])) for cell in row if cell.startswith(STARTS)]


@EXAMPLES
@given(values=st.lists(st.floats(width=32), min_size=2, max_size=2))
def test_vector_cells_start_with_a_bracket(values: list[float]) -> None:
    table = features_table(["a/b.jpg"], ["a"], np.array([values], np.float32))
    data = encode_rows(table, MODEL, "csv", ("features",))
    assert data.splitlines()[1].startswith(b'"[')


def test_image_names_do_not_become_output_paths(tmp_path: pathlib.Path) -> None:
    """Image names are cells only; part files are named by number."""
    data = encoded(["../../escape/1.jpg"], [".."])
    assert cells(data)[0][:2] == ["../../escape/1.jpg", ".."]
    assert not list(tmp_path.iterdir())

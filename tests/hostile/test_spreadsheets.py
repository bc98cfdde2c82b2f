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


QUOTES = st.text("'\"; \t\r\nab,=+-@\uff1d", min_size=1, max_size=12)


def lenient(data: bytes, separator: str) -> list[str]:
    """Return the cells of a reader that separates by another character and honours quotes at the start of a cell."""
    found: list[str] = []
    text = data.decode()
    while text:
        cell = ""
        if text[0] == '"':
            end = 1
            while end < len(text) and (text[end] != '"' or text[end : end + 2] == '""'):
                cell += text[end]
                end += 2 if text[end] == '"' else 1
            text = text[end + 1 :]
        end = next((index for index, char in enumerate(text) if char in separator + "\r\n"), len(text))
        found.append(cell + text[:end])
        text = text[end + 1 :]
    return found


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("before", ["b", "b'", 'b"', "", "b;", "b\n"])
@pytest.mark.parametrize("quotes", ["", '"', "'", '"\'"', '""'])
def test_no_cell_is_a_formula_where_another_character_separates(separator: str, before: str, quotes: str) -> None:
    name = f"{before}{separator}{quotes}=cmd|'x'!A0"
    data = encoded([f"a/{name}.jpg"], [name])
    assert "=cmd" in data.decode()
    assert not [cell for cell in lenient(data, separator) if cell.lstrip('"').startswith(STARTS)]
    assert decode_rows(data, "x.csv")["label"] == [name]


def test_label_of_a_formula_after_a_semicolon_has_an_apostrophe_there() -> None:
    data = encoded(["b;=cmd|'x'!A0/1.jpg"], ["b;=cmd|'x'!A0"])
    assert data.splitlines()[1].startswith(b""""b;'=cmd|'x'!A0/1.jpg","b;'=cmd|'x'!A0",""")


@EXAMPLES
@given(label=QUOTES)
def test_separators_quotes_and_formulas_are_read_back_unchanged(label: str) -> None:
    data = encoded([label], [label])
    assert decode_rows(data, "x.csv")["label"] == [label]
    assert not [cell for cell in lenient(data, ";") if cell.startswith(("=", "+", "-", "@", "\uff1d"))]


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

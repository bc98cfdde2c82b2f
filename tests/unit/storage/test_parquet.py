import subprocess
import sys

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fruits.storage.parquet import number_array, read_table, text_array, vector_array, vectors, write_table


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_text_arrays_equal_those_of_arrow(texts):
    made = text_array([None if text is None else text.encode() for text in texts], pa.string())
    made.validate(full=True)
    assert made.equals(pa.array(texts, pa.string()))


@given(hnp.arrays(st.sampled_from([np.int64, np.float32]), st.integers(0, 9)))
def test_number_arrays_equal_those_of_arrow(numbers):
    made = number_array(numbers)
    made.validate(full=True)
    assert made.to_pylist() == pa.array(numbers).to_pylist() or np.isnan(numbers).any()


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 7), st.integers(1, 5))), st.integers(0, 7))
def test_vectors_round_trip_bit_for_bit_whole_sliced_and_in_chunks(values, start):
    column = pa.chunked_array([vector_array(values)])
    column.validate(full=True)
    assert vectors(column).tobytes() == values.tobytes()
    assert vectors(column.slice(start)).tobytes() == values[start:].tobytes()
    assert vectors(pa.chunked_array([*column.chunks, *column.chunks])).tobytes() == values.tobytes() * 2
    table = read_table(write_table(pa.table({"features": column})))
    assert vectors(table["features"]).tobytes() == values.tobytes()


def test_equal_tables_give_equal_bytes():
    table = pa.table({"label": ["a", "b"] * 500, "x": np.arange(1000, dtype=np.float32)})
    assert write_table(table) == write_table(table.slice(0))


def test_workers_do_not_import_pandas():
    code = """
import sys, numpy as np
from fruits.model.rows import decode_rows, features_table
from fruits.storage.parquet import write_table
table = features_table(["a/1"], [None], np.ones((1, 3), np.float32))
decode_rows(write_table(table), "x.parquet")
import fruits.jobs.tasks, fruits.plan.pages
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)

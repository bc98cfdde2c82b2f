import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fruits.errors import OutputError
from fruits.jobs.job import COLUMNS
from fruits.model.moments import Moments
from fruits.model.rows import decode_rows, encode_rows, features_table
from fruits.model.solver import solve
from fruits.storage.parquet import vectors

floats = hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(6)), elements=st.floats(0, 6, width=32))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    return solve(Moments.from_features(rng.uniform(0, 6, (50, 6)).astype(np.float32)), 2)


@given(features=floats, data=st.data(), format=st.sampled_from(["parquet", "csv"]))
def test_rows_are_read_back_bit_for_bit_in_both_formats(model, features, data, format):
    count = len(features)
    paths = data.draw(st.lists(names, min_size=count, max_size=count))
    labels = data.draw(st.lists(st.none() | names, min_size=count, max_size=count))
    rows = decode_rows(encode_rows(features_table(paths, labels, features), model, format, COLUMNS), f"x.{format}")
    scaled, scores = model.transform(features)
    assert list(rows) == list(COLUMNS)
    assert rows["path"] == paths
    assert rows["label"] == labels
    if count:
        assert rows["features"].tobytes() == features.tobytes()
        assert rows["scaled_features"].tobytes() == scaled.astype(np.float32).tobytes()
        assert rows["pca_features"].tobytes() == scores.astype(np.float32).tobytes()


def test_columns_are_written_in_the_given_order(model):
    table = features_table(["a/1"], ["a"], np.ones((1, 6), np.float32))
    for format in ("parquet", "csv"):
        data = encode_rows(table, model, format, ("pca_features", "label"))
        assert list(decode_rows(data, f"x.{format}")) == ["pca_features", "label"]


def test_csv_is_readable_with_standard_csv_and_json(model):
    features = np.array([[0.1, 1e-8, 3, 6, 0, 2.5]], np.float32)
    data = encode_rows(features_table(['a, "b"\n/1'], [None], features), model, "csv", ("path", "label", "features"))
    (row,) = csv.DictReader(io.StringIO(data.decode(), newline=""))
    assert row["path"] == 'a, "b"\n/1'
    assert row["label"] == ""
    assert json.loads(row["features"]) == [0.1, 1e-8, 3, 6, 0, 2.5]  # the shortest digits that give the float32 back


def test_vectors_of_several_chunks_are_concatenated():
    import pyarrow as pa

    parts = [features_table(["a"], ["b"], np.full((1, 3), value, np.float32)) for value in (1, 2)]
    assert vectors(pa.concat_tables(parts)["features"]).tolist() == [[1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_error_names_the_corrupt_file(name):
    with pytest.raises(OutputError, match=name):
        decode_rows(b'"a\xff', name)

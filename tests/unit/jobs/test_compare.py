import numpy as np
import pytest

from fruits.errors import OutputError
from fruits.jobs.inspect.compare import compare
from fruits.jobs.job import COLUMNS
from fruits.model.moments import Moments
from fruits.model.rows import encode_rows, features_table
from fruits.model.solver import solve
from fruits.storage.commits import complete, last_commit
from fruits.storage.folder import Folder
from tests.plans import claimed

FEATURES = np.random.default_rng(0).uniform(0, 6, (20, 6)).astype(np.float32)
MODEL = solve(Moments.from_features(FEATURES), 3)


def output(folder, features=FEATURES, *, size=8, format="parquet", columns=COLUMNS, model=MODEL, label="a"):
    """Write a finished output, as a job would."""
    command = "transform" if model is None else "run"
    out = finished_output(folder, command, model, format, images=len(features), size=size)
    for index, start in enumerate(range(0, len(features), size)):
        part = features[start : start + size]
        table = features_table([f"{label}/{start + i}" for i in range(len(part))], [label] * len(part), part)
        out.write(out.part("rows", index, format), encode_rows(table, MODEL, format, columns))
    return out.folder.address


def finished_output(folder, command, model, format="parquet", images=8, size=8):
    """Write the commits, the plan and the model of a finished output, and return the folder."""
    owned = claimed(Folder.at(str(folder)), {"command": command, "format": format}, images, size)
    for name, data in (model.encode(owned.owner) if model is not None else {}).items():
        owned.write(f"model/{name}", data)
    commit = last_commit(owned.folder)
    assert complete(owned.folder, commit, commit.files)
    return owned


def test_the_same_rows_are_identical_however_they_are_cut_and_encoded(tmp_path):
    a = output(tmp_path / "a")
    for name, settings in {"b": {"size": 3}, "c": {"format": "csv"}, "d": {"size": 7, "format": "csv"}}.items():
        found = compare(a, output(tmp_path / name, **settings))
        assert found.identical
        assert (found.rows, found.model, found.largest) == (20, True, 0.0)


def test_one_bit_is_found_and_placed(tmp_path):
    changed = FEATURES.copy()
    changed[13, 2] = np.nextafter(changed[13, 2], np.float32(9))
    found = compare(output(tmp_path / "a"), output(tmp_path / "b", changed, size=5))
    assert not found.identical
    by_name = {difference.name: difference for difference in found.differences}
    assert by_name["features"].values == 1
    assert 0 < by_name["features"].largest < 1e-6
    assert by_name["features"].first == "row 10 + 3, 2"
    assert found.largest < 1e-6


def test_minus_zero_differs_from_zero_by_nothing_but_bits(tmp_path):
    positive, negative = FEATURES.copy(), FEATURES.copy()
    positive[0, 0], negative[0, 0] = 0.0, -0.0
    found = compare(
        output(tmp_path / "a", positive, columns=("features",)), output(tmp_path / "b", negative, columns=("features",))
    )
    (difference,) = found.differences
    assert (difference.values, difference.largest) == (1, 0.0)


def test_other_labels_missing_rows_and_other_models_are_found(tmp_path):
    a = output(tmp_path / "a")
    labels = compare(a, output(tmp_path / "b", label="z"))
    (rows,) = labels.differences
    assert (rows.name, rows.values, rows.first) == ("rows", 40, f"a/0: only in {a}")
    assert (labels.rows, labels.largest) == (0, float("inf"))
    shorter = compare(a, output(tmp_path / "c", FEATURES[:17]))
    assert [(difference.name, difference.first) for difference in shorter.differences] == [
        ("rows", f"row 17: only {a} has more rows")
    ]
    model = compare(a, output(tmp_path / "d", model=solve(Moments.from_features(FEATURES[:19]), 2)))
    assert {difference.name for difference in model.differences} >= {"model.mean", "model.components"}


def test_outputs_that_cannot_be_compared_are_refused(tmp_path):
    a = output(tmp_path / "a")
    with pytest.raises(OutputError, match="no finished output"):
        compare(a, str(tmp_path / "missing"))
    with pytest.raises(OutputError, match="same `columns`"):
        compare(a, output(tmp_path / "b", columns=("path", "pca_features")))
    fitted = finished_output(tmp_path / "c", "fit", MODEL).folder
    with pytest.raises(OutputError, match="no rows"):
        compare(a, fitted.address)
    broken = output(tmp_path / "e")
    next((tmp_path / "e" / "rows").iterdir()).unlink()
    with pytest.raises(OutputError, match=r"cannot be read: No such file or directory: .*part-.* restore it"):
        compare(a, broken)
    rows = output(tmp_path / "d", model=None)
    assert compare(a, rows).identical
    assert not compare(a, rows).model
    with pytest.raises(OutputError, match="cannot be compared"):
        compare(fitted.address, rows)


def test_two_fits_are_compared_by_their_models(tmp_path):
    for name in "ab":
        finished_output(tmp_path / name, "fit", MODEL)
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (found.identical, found.rows, found.model) == (True, 0, True)

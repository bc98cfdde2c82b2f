"""Features and scores as columns of DataFrames, against the output of the command line."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import backends
import fruits
from fruits.errors import SettingsError
from fruits.images.sample import generate
from fruits.jobs.tasks.columns import ColumnSettings

IMAGES, BROKEN = 20, 3
VECTORS = ("features", "scaled_features", "pca_features")
ROOT = Path(__file__).resolve().parents[2]


class SparkFrames:
    """DataFrames of the running session."""

    def __init__(self, executor):
        self.session = executor._session
        self.module = backends.spark

    def make(self, path, content):
        rows = list(zip(path, content, range(len(path)), strict=True))
        return self.session.createDataFrame(rows, "path string, content binary, number int").repartition(3)

    def read(self, folder):
        return self.session.read.parquet(str(folder))

    def rows(self, frame):
        return {row["path"]: row.asDict() for row in frame.collect()}


class DaskFrames:
    """DataFrames that the executor's cluster computes."""

    def __init__(self, executor):
        self.client = executor._client
        self.module = backends.dask

    def make(self, path, content):
        from dask.dataframe import from_pandas

        content = pd.Series(content, dtype=pd.ArrowDtype(pa.binary()))
        return from_pandas(pd.DataFrame({"path": path, "content": content, "number": range(len(path))}), npartitions=3)

    def read(self, folder):
        from dask.dataframe import read_parquet

        return read_parquet(folder)

    def rows(self, frame):
        table = self.client.compute(frame).result()
        table = table.astype(object).where(table.notna(), None)
        return {row["path"]: row for row in table.to_dict("records")}


@pytest.fixture(scope="module")
def frames(engine, executor):
    if engine == "local":
        pytest.skip("local has no DataFrames")
    return {"spark": SparkFrames, "dask": DaskFrames}[engine](executor)


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    """The folder of some images, and the output of a run of the command line on them."""
    folder = tmp_path_factory.mktemp("frames")
    generate(folder / "images", images=IMAGES, broken=BROKEN)
    # Workers with an old Python cannot run a job.
    command = [os.environ.get("FRUITS_PYTHON", sys.executable), "-m", "fruits", "run", folder / "images"]
    options = ["--out", folder / "out", "--components", "5", "--max-reject-fraction", "1", "--no-report"]
    subprocess.run([*command, *options, "--backend", "local"], cwd=ROOT, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def images(job):
    """The images by their path."""
    return {str(path): path.read_bytes() for path in sorted((job / "images").rglob("*")) if path.is_file()}


def part(job, kind):
    rows = pq.read_table(job / "out" / kind).to_pylist()
    return {str(job / "images" / row["path"]): row for row in rows}


@pytest.mark.parametrize("column", ["path", "content"])
def test_frames_have_the_bits_of_the_command_line(frames, job, images, column):
    frame = frames.make([*images, None], [*images.values(), None])
    model = fruits.ScaledPCA.load(job / "out")
    found = frames.rows(model.transform(frames.module.features(frame, column)))
    nothing = found.pop(None)
    expected, rejects = part(job, "rows"), part(job, "rejects")
    assert set(found) == set(images) == set(expected) | set(rejects)
    assert (len(expected), len(rejects)) == (IMAGES, BROKEN)
    for path, row in expected.items():
        for name in VECTORS:
            assert np.array_equal(np.array(found[path][name], np.float32), np.array(row[name], np.float32)), name
        assert found[path]["features_error"] is None
    for path, row in rejects.items():
        assert [found[path][name] for name in VECTORS] == [None] * 3
        assert found[path]["features_error"] == f"{row['reason']}: {row['detail']}"
    assert [nothing[name] for name in (*VECTORS, "features_error")] == [None] * 4
    assert found[next(iter(images))]["number"] == 0


def test_stored_rows_are_transformed(frames, job):
    frame = frames.read(job / "out" / "rows")
    frame = frame[[name for name in frame.columns if name not in VECTORS[1:]]]
    found = frames.rows(fruits.ScaledPCA.load(job / "out").transform(frame))
    for row in pq.read_table(job / "out" / "rows").to_pylist():
        for name in VECTORS:
            assert list(found[row["path"]][name]) == row[name]


def test_nothing_is_computed_before_the_frame(frames, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ["later.jpg", "a\0b", "", "nonsuch://a", "s3://key:secret@bucket/a"]
    frame = frames.module.features(frames.make(paths, [b""] * 5), "path", into="vectors", decode="full")
    monkeypatch.chdir("/")
    path, content = next(iter(images.items()))
    (tmp_path / "later.jpg").write_bytes(content)
    found = frames.rows(frame)
    expected = fruits.features(path, decode="full")[0]
    assert np.array_equal(np.array(found["later.jpg"]["vectors"], np.float32), expected)
    assert all(found[path]["vectors_error"].startswith("unreadable: ") for path in paths[1:])
    assert "secret" not in str([found[path]["vectors_error"] for path in paths])


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        ("bytes", {}, "`column` = bytes: the DataFrame has no such column. Allowed: path, content, number"),
        (7, {}, "`column` = 7: not allowed. Allowed: the name of a column"),
        ("path", {"into": 7}, "`into` = 7: not allowed. Allowed: the name of the column"),
        ("number", {}, r"`column` = number: of type int(32|64)?\. Allowed: .*contents of files.* or .*paths or URLs"),
        ("path", {"into": "Number"}, "has a column number, which would be replaced. Drop or rename it, or .* `into`"),
        ("path", {"decode": "half"}, "`decode` = half: not known. Allowed: reduced, full"),
        ("path", {"engine": "onnx"}, "`engine` = onnx: not known. Allowed: openvino, tensorflow"),
        ("path", {"backbone": "VGG"}, "`backbone` = VGG"),
    ],
)
def test_arguments_that_are_not_allowed_are_named(frames, column, options, message):
    frame = frames.make(["a"], [b"a"])
    with pytest.raises(SettingsError, match=message):
        frames.module.features(frame, column, **options)


def test_frames_that_do_not_fit_a_model_are_named(frames, job):
    model = fruits.ScaledPCA.load(job / "out")
    frame = frames.make(["a"], [b"a"])
    with pytest.raises(SettingsError, match=r"`column` = features: the DataFrame has no such column\. Allowed: path"):
        model.transform(frame)
    with pytest.raises(SettingsError, match=r"`column` = number: of type int.* Allowed: .*float"):
        frames.module.transform(frame, model, "number")
    with pytest.raises(SettingsError, match="has a column scaled_features"):
        model.transform(frames.read(job / "out" / "rows"))
    for call in (
        lambda other: frames.module.features(other, "path"),
        lambda other: frames.module.transform(other, model),
    ):
        with pytest.raises(SettingsError, match=r"of type pandas\..*DataFrame\. Allowed: a DataFrame of"):
            call(pd.DataFrame({"path": ["a"]}))
    with pytest.raises(SettingsError, match=r"`column` = path: the DataFrame has 2 such columns. Rename the others"):
        frames.module.features(frame[["path", "path"]], "path")
    narrow = frames.read(job / "out" / "rows")[["path", "features"]]
    with pytest.raises(SettingsError, match=r"`model` = 'out': not allowed. Allowed: a fruits.ScaledPCA"):
        frames.module.transform(narrow, "out")
    other = dataclasses.replace(model, mean=model.mean[:7])
    with pytest.raises(Exception, match="vectors of 1,280 numbers, which do not fit a model of 7 features"):
        frames.rows(other.transform(narrow))


def test_worker_that_computes_other_features_is_refused(frames, images, monkeypatch):
    settings = ColumnSettings.on_this_machine("MobileNetV2", "openvino", None, "reduced")
    changed = ColumnSettings(settings.folder, settings.s3, settings.network, "0" * 64, settings.decoding)
    monkeypatch.setattr(ColumnSettings, "on_this_machine", lambda *_: changed)
    frame = frames.module.features(frames.make(list(images), list(images.values())), "content")
    with pytest.raises(Exception, match="computes other features than the one"):
        frames.rows(frame)


def test_paths_in_the_form_of_hadoop_are_read(frames, engine, images, tmp_path):
    if engine != "spark":
        pytest.skip("a form of Spark alone")
    path = str(tmp_path / "a::b%20#c.jpg")
    Path(path).write_bytes(next(iter(images.values())))
    frame = frames.session.read.format("binaryFile").load(path)
    ((found, error),) = frames.module.features(frame, "path", into="a.`b").select("`a.``b`", "`a.``b_error`").collect()
    assert error is None
    assert np.array_equal(np.array(found, np.float32), fruits.features(path)[0])


def test_columns_that_differ_in_their_case_are_named(frames, engine):
    if engine != "spark":
        pytest.skip("Dask distinguishes them")
    frame = frames.make(["a"], [b"a"]).withColumnRenamed("content", "PATH")
    with pytest.raises(SettingsError, match=r"`column` = path: (?i:.*ambiguous.*) Rename it"):
        frames.module.features(frame, "path")


def test_features_are_computed_once_for_a_filter_and_the_result(frames, engine):
    if engine != "spark":
        pytest.skip("Dask computes a partition once")
    frame = frames.module.features(frames.make(["a"], [b"a"]), "path").where("features_error is null")
    assert frame._jdf.queryExecution().executedPlan().toString().count("ArrowEvalPython") == 1

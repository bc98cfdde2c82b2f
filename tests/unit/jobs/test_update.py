"""Stored features are used again: by an update, an overwrite, a run after a fit, and from another output."""

import dataclasses
import os
import random
import shutil
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from backends.local import LocalExecutor
from fruits.errors import OutputError, SettingsError
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.jobs.job import Job
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.progress.reporter import Silent
from tests.outputs import commit_of
from tests.unit.jobs.test_pipeline import Counting, MeanColours, images, job, network  # noqa: F401 - fixtures


def add(folder, name, seed):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(seed, seed))  # versions differ although the changes take no time


def fresh(job, tmp_path, command=pipeline.run):  # noqa: F811
    """Return the output of a new job on the current images."""
    out = str(tmp_path / f"fresh-{random.random()}")
    command(dataclasses.replace(job, out=out, update=False), LocalExecutor())
    return out


class Featurized(LocalExecutor):
    """Counts the images that the network processes."""

    def __init__(self):
        super().__init__(workers=1)
        self.images = 0

    def map(self, task, items, *, shared=None, retries=0, progress=None):
        def counted(index, outcome):
            if task.__name__ == "featurize":
                result = outcome.result()
                self.images += result.rows if result.added is None else result.added
            if progress is not None:
                progress(index, outcome)

        return super().map(task, items, shared=shared, retries=retries, progress=counted)


@pytest.mark.parametrize("command", [pipeline.run, pipeline.fit])
def test_an_update_featurizes_changes_alone_and_equals_a_new_job(job, images, tmp_path, command):  # noqa: F811
    command(job, LocalExecutor())
    add(images, "label 0/00a.png", 100)
    add(images, "label 9/new.png", 101)
    add(images, "label 1/01.png", 102)
    (images / "label 2" / "02.png").unlink()
    executor = Featurized()
    report = command(dataclasses.replace(job, update=True), executor)
    assert executor.images == 3
    assert (report.images, report.rows) == (33, 31)
    assert compare(job.out, fresh(job, tmp_path, command)).identical
    found = verify(job.out, Silent())
    assert (found.corrupt, found.unexpected) == ((), ())


def test_an_update_of_a_missing_output_is_a_new_job(job, tmp_path):  # noqa: F811
    assert pipeline.run(dataclasses.replace(job, update=True), LocalExecutor()).rows == 30
    assert compare(job.out, fresh(job, tmp_path)).identical


def test_an_update_without_changes_starts_nothing(job):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    executor = Counting()
    pipeline.run(dataclasses.replace(job, update=True), executor)
    assert set(executor.given) == {"survey", "verify_parts"}


def test_partitions_grow_split_and_vanish(job, images, tmp_path):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    for number in range(20):
        add(images, f"label 0/00-{number:02d}.png", 200 + number)
    shutil.rmtree(images / "label 2")
    pipeline.run(dataclasses.replace(job, update=True), LocalExecutor())
    assert compare(job.out, fresh(job, tmp_path)).identical
    for number in range(20):
        (images / f"label 0/00-{number:02d}.png").unlink()
    pipeline.run(dataclasses.replace(job, update=True), LocalExecutor())
    assert compare(job.out, fresh(job, tmp_path)).identical


def test_changed_settings_are_refused_by_an_update(job):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    with pytest.raises(OutputError, match="components: 5 stored, 6 requested"):
        pipeline.run(dataclasses.replace(job, update=True, components=6), LocalExecutor())
    for other in ({"overwrite": True}, {"keep_plan": True}, {"shards": "1/2"}):
        with pytest.raises(SettingsError, match="`update` with"):
            dataclasses.replace(job, update=True, **other)


NAMES = [f"{label}/{number}.png" for label in ("a", "b", "c") for number in range(6)]
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["write", "delete"])), min_size=1, max_size=8)
KILLS = st.one_of(st.none(), st.tuples(st.sampled_from(["featurize", "merge", "write_rows"]), st.integers(0, 2)))


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(history=st.lists(st.tuples(STEPS, KILLS), min_size=1, max_size=4), size=st.integers(1, 7))
def test_any_history_gives_the_bits_of_a_new_job(tmp_path_factory, history, size):
    tmp_path = tmp_path_factory.mktemp("history")
    folder = tmp_path / "images"
    for number, name in enumerate(NAMES[::2]):
        add(folder, name, number)
    start = Job(images=str(folder), out=str(tmp_path / "out"), components=0.9, partition_size=size)
    pipeline.run(start, LocalExecutor())
    asked = dataclasses.replace(start, update=True)
    for turn, (steps, kill) in enumerate(history, 1):
        for number, (name, step) in enumerate(steps):
            if step == "write":
                add(folder, name, 1000 * turn + number)
            elif sum(1 for _ in folder.rglob("*.png")) > 3:
                (folder / name).unlink(missing_ok=True)
        if kill is not None:
            try:
                pipeline.run(asked, Counting(kill))
            except KeyboardInterrupt:
                continue  # the next turn changes the list of an unfinished update
        else:
            pipeline.run(asked, LocalExecutor())
    pipeline.run(asked, LocalExecutor())
    compared = compare(start.out, fresh(start, tmp_path))
    assert compared.identical, compared
    found = verify(start.out, Silent())
    assert (found.corrupt, found.unexpected) == ((), ())


@pytest.mark.parametrize("stop", [("featurize", 1), ("merge", 0), ("merge", 1), ("write_rows", 1)])
def test_an_interrupted_update_resumes(job, images, tmp_path, stop):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    add(images, "label 0/00a.png", 100)
    (images / "label 1" / "01.png").unlink()
    update = dataclasses.replace(job, update=True)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(update, Counting(stop))
    executor = Featurized()
    pipeline.run(update, executor)
    assert executor.images <= 1
    assert compare(job.out, fresh(job, tmp_path)).identical


def stored_vectors(out):
    """Yield every vector of features that any file of an output contains, and the count and sum of its moments."""
    for path in out.rglob("*"):
        if path.suffix == ".parquet" and "features" in (table := pq.read_table(path)).column_names:
            yield from np.array(table["features"].to_pylist(), np.float32).reshape(table.num_rows, -1)


def test_a_deleted_image_cannot_be_read_or_subtracted_from_any_stored_file(job, images, tmp_path):  # noqa: F811
    deleted = "label 1/04.png"
    pipeline.run(job, LocalExecutor())
    projection = np.random.default_rng(0).standard_normal((8 * 8 * 3, 40)).astype(np.float32)
    table = next(
        table
        for path in (tmp_path / "out" / "features").iterdir()
        if deleted in (table := pq.read_table(path))["path"].to_pylist()
    )
    vector = np.array(table["features"].to_pylist(), np.float32)[table["path"].to_pylist().index(deleted)]
    assert any((row == vector).all() for row in stored_vectors(tmp_path / "out"))
    before = Moments.from_bytes(next((tmp_path / "out" / "moments").glob("total-*")).read_bytes())
    (images / deleted).unlink()
    pipeline.run(dataclasses.replace(job, update=True), LocalExecutor())
    out = tmp_path / "out"
    assert not any((row == vector).all() for row in stored_vectors(out))
    alone = Moments.from_features(vector[None], ["label 1"])
    totals = []
    for path in sorted(out.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        assert deleted.encode() not in data, path
        if path.suffix == ".parquet":
            assert not any(deleted in map(str, column) for column in pq.read_table(BytesIO(data)).to_pydict().values())
        elif path.parent.name == "moments":
            totals.append(Moments.from_bytes(data))
        elif path.suffix == ".safetensors":
            assert safetensors.numpy.load(data)
    assert totals == [before - alone]  # one set of moments: there is nothing to subtract it from
    assert len(list((out / "commits").iterdir())) == 1
    assert projection.shape[1] == len(vector)


def test_run_after_fit_uses_its_features(job, tmp_path):  # noqa: F811
    pipeline.fit(job, LocalExecutor())
    executor = Counting()
    pipeline.run(job, executor)
    assert set(executor.given) == {"write_rows"}
    assert compare(job.out, fresh(job, tmp_path)).identical


def test_overwrite_with_other_settings_uses_stored_features(job, tmp_path):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    for change in ({"components": 3}, {"columns": ("path", "pca_features")}, {"format": "csv"}):
        executor = Counting()
        changed = dataclasses.replace(job, overwrite=True, **change)
        pipeline.run(changed, executor)
        assert "featurize" not in executor.given
        assert compare(job.out, fresh(dataclasses.replace(changed, overwrite=False), tmp_path)).identical


def test_fit_and_transform_of_an_output_start_no_network(job, tmp_path, monkeypatch):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    monkeypatch.setattr(MeanColours, "load", lambda this: pytest.fail("the network was loaded"))
    fitted = dataclasses.replace(job, images=job.out, out=str(tmp_path / "fitted"))
    executor = Counting()
    pipeline.fit(fitted, executor)
    assert executor.given == {}
    rows = dataclasses.replace(job, images=job.out, out=str(tmp_path / "rows"), model=fitted.out)
    report = pipeline.transform(rows, LocalExecutor())
    assert (report.rows, report.rejects) == (30, {"empty": 1, "undecodable": 1})
    both = dataclasses.replace(job, images=job.out, out=str(tmp_path / "both"))
    pipeline.run(both, LocalExecutor())
    assert compare(both.out, job.out).identical
    assert compare(rows.out, job.out).identical
    for out in (fitted.out, rows.out, both.out):
        found = verify(out, Silent())
        assert (found.corrupt, found.unexpected) == ((), ())


def test_outputs_that_cannot_be_a_source_are_refused(job, tmp_path):  # noqa: F811
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 3)))
    other = dataclasses.replace(job, images=job.out, out=str(tmp_path / "other"))
    with pytest.raises(OutputError, match="has not finished"):
        pipeline.fit(other, LocalExecutor())
    pipeline.run(job, LocalExecutor())
    with pytest.raises(SettingsError, match="`limit` with the output"):
        pipeline.fit(dataclasses.replace(other, limit=3), LocalExecutor())
    with pytest.raises(SettingsError, match="is also `images`"):
        pipeline.fit(dataclasses.replace(other, out=job.out), LocalExecutor())
    rows = dataclasses.replace(other, out=str(tmp_path / "rows"), model=job.out)
    pipeline.transform(rows, LocalExecutor())
    with pytest.raises(OutputError, match="without features"):
        pipeline.fit(dataclasses.replace(job, images=rows.out, out=str(tmp_path / "again")), LocalExecutor())


@pytest.mark.parametrize("size", [1, 3, 32])
def test_no_bit_depends_on_the_partition_size(job, tmp_path, size):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    other = dataclasses.replace(job, out=str(tmp_path / "other"), partition_size=size)
    pipeline.run(other, LocalExecutor())
    compared = compare(job.out, other.out)
    assert (compared.rows, compared.identical) == (30, True)


def test_a_resumed_job_keeps_its_partitions(job):  # noqa: F811
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 3)))
    with pytest.raises(OutputError, match=r"`partition_size` = 5: .* partitions of 4"):
        pipeline.run(dataclasses.replace(job, partition_size=5), LocalExecutor())
    assert pipeline.run(dataclasses.replace(job, partition_size=None), LocalExecutor(workers=7)).partitions == 8
    assert commit_of(job.out).partition_size == 4


def test_keep_model_writes_the_rows_of_changes_with_the_stored_model(job, images, tmp_path):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    fitted = ScaledPCA.load(job.out).digest()
    keep = dataclasses.replace(job, update=True, keep_model=True)
    for turn in range(2):  # the second update adopts rows of two earlier jobs
        add(images, f"label 0/00{turn}.png", 100 + turn)
        (images / "label 1" / f"{(1, 4)[turn]:02d}.png").unlink()
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(keep, Counting(("write_rows", 0)))
        executor = Counting()
        pipeline.run(keep, executor)
        assert executor.given["write_rows"] <= 2
        assert ScaledPCA.load(job.out).digest() == fitted
        expected = dataclasses.replace(job, out=str(tmp_path / f"rows-{turn}"), model=job.out)
        pipeline.transform(expected, LocalExecutor())
        assert compare(job.out, expected.out).identical
        found = verify(job.out, Silent())
        assert (found.corrupt, found.unexpected) == ((), ())
    pipeline.run(dataclasses.replace(job, update=True), LocalExecutor())  # fits again
    assert compare(job.out, fresh(job, tmp_path)).identical


def test_keep_model_needs_a_model_and_rows(job):  # noqa: F811
    keep = dataclasses.replace(job, update=True, keep_model=True)
    with pytest.raises(SettingsError, match="no model yet"):
        pipeline.run(keep, LocalExecutor())
    with pytest.raises(SettingsError, match="for run"):
        pipeline.fit(keep, LocalExecutor())
    with pytest.raises(SettingsError, match="`keep_model` without `update`"):
        dataclasses.replace(job, keep_model=True)

"""Whole jobs on every backend, compared bit by bit, on real images, or on generated ones if there are none.

The tests are in one file to share the executors.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import backends
import fruits
from fruits.images.sample import generate
from fruits.images.sources.kinds import open_source
from fruits.images.tar.pack import pack
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.jobs.job import Job
from fruits.progress.reporter import Silent
from fruits.storage.folder import Folder
from tests.conformance.crashing import PixelNetwork
from tests.conftest import real_images
from tests.outputs import contents
from tests.parity.sources import WRITERS

WORKERS = {"local": (1, 2), "dask": (1, 3), "spark": (3,)}  # a Spark session takes 7 s of CPU time
assert set(WORKERS) == set(backends.BACKENDS)  # add new backends here
SOME = [(name, count) for name, counts in WORKERS.items() for count in counts]
SIZES = {"local": 5, "dask": 18, "spark": 10}  # images in a partition
assert set(SIZES) == set(WORKERS)


@pytest.fixture(scope="module")
def opened():
    """Return a function that opens an executor, or returns the open one of that backend and number of workers."""
    found = {}

    def executor(name, workers=None):
        if name in found and workers not in (None, found[name][0]):
            found.pop(name)[1].close()  # Spark allows one session in a process
        if name not in found:
            found[name] = workers or 2, backends.load(name)(workers=workers or 2)
        return found[name][1]

    yield executor
    for _, each in found.values():
        each.close()


@pytest.fixture(scope="module", params=["real"])
def images(request, tmp_path_factory):
    """140 images of many labels and three rejects."""
    folder = tmp_path_factory.mktemp(request.param) / "images"
    if request.param == "real" and (real := real_images()):
        for source in sorted(real.glob("Training/*/*.jpg"))[::28]:
            target = folder / source.parent.name / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    else:
        generate(folder, images=140, labels=6)
    some = next(folder.iterdir())
    (some / "zero.jpg").touch()
    (some / "text.jpg").write_text("not an image")
    whole = next(some.glob("*.jpg")).read_bytes()
    (some / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def reference(images, tmp_path_factory):
    """Return a function that runs a job on the local backend, once for each partition size."""
    jobs = {}

    def reference_job(size):
        if size not in jobs:
            job = Job(
                images=str(images),
                out=str(tmp_path_factory.mktemp("reference") / "out"),
                components=40,
                partition_size=size,
            )
            with backends.load("local")(workers=1) as executor:
                jobs[size] = job, pipeline.run(job, executor)
        return jobs[size]

    return reference_job


@pytest.mark.parametrize(("name", "workers"), SOME)
def test_run_gives_the_same_bytes_on_every_backend(opened, images, reference, tmp_path, name, workers):
    expected, report = reference(16)
    job = dataclasses.replace(expected, out=str(tmp_path / "out"))
    assert pipeline.run(job, opened(name, workers)).rejects == report.rejects
    found = compare(expected.out, job.out)
    assert found.identical, found.differences
    assert found.rows == report.rows == report.images - 3
    assert contents(job.out) == contents(expected.out)


@pytest.mark.parametrize("images", ["generated"], indirect=True)
def test_slices_on_several_backends_two_at_once_give_the_same_bytes(images, tmp_path):
    # Twenty partitions form three groups of at most eight in the tree of moments.
    options = {"components": 10, "limit": 20, "partition_size": 1}
    job = Job(images=str(images), out=str(tmp_path / "out"), **options)
    arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]

    def start(shards, backend):
        where = [job.images, "--out", job.out, "--shards", shards, "--backend", backend, "--workers", "1", "--json"]
        command = [sys.executable, "-m", "fruits", "run", *where, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    together = [start("3/3", "local"), start("1/3", "dask")]
    whole = dataclasses.replace(job, out=str(tmp_path / "whole"))
    with backends.load("local")(workers=1) as executor:
        pipeline.run(whole, executor)
        answers = [json.loads(process.communicate()[0]) for process in together]
        assert [process.returncode for process in together] == [0, 0]
        assert min(answer["partitions_left"] for answer in answers) == 7
        assert pipeline.run(dataclasses.replace(job, shards="2/3"), executor).partitions_left == 0
        assert pipeline.run(job, executor).resumed == 20
    assert contents(job.out) == contents(whole.out)


@pytest.mark.parametrize("name", list(backends.BACKENDS))
def test_transform_gives_the_rows_of_run_on_every_backend(opened, images, reference, tmp_path, name):
    expected, report = reference(16)
    job = dataclasses.replace(expected, out=str(tmp_path / "out"), model=expected.out, format="csv")
    assert pipeline.transform(job, opened(name)).rows == report.rows
    assert compare(expected.out, job.out).identical


@pytest.mark.parametrize("images", ["generated"], indirect=True)
@pytest.mark.parametrize("name", list(backends.BACKENDS))
def test_tar_archives_give_the_bits_of_their_folder_on_every_backend(opened, images, reference, tmp_path, name):
    expected, report = reference(16)
    packed = pack(open_source(str(images)), Folder.at(tmp_path / "shards"), shard_size=150_000)
    assert len(packed.shards) > 2
    job = dataclasses.replace(expected, images=f"{tmp_path}/shards/*.tar", out=str(tmp_path / "out"))
    assert pipeline.run(job, opened(name)).rejects == report.rejects
    found = compare(expected.out, job.out)
    assert found.identical, found.differences
    assert found.rows == report.rows


def test_other_partition_sizes_give_the_same_bits(reference):
    small, _ = reference(16)
    large, _ = reference(1024)
    found = compare(small.out, large.out)
    assert found.rows > 125
    assert found.identical, found.differences


@pytest.mark.parametrize("images", ["generated"], indirect=True)
def test_a_history_of_changes_on_all_backends_gives_the_bits_of_a_new_job(opened, images, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    job = Job(images=str(folder), out=str(tmp_path / "out"), components=20, partition_size=24)
    update = dataclasses.replace(job, update=True)
    files = sorted(folder.rglob("0*.jpg"))
    assert len(files) > 50
    for turn, name in enumerate(["spark", "dask", "local", "spark"]):
        if turn:  # images are deleted, replaced by others, and added
            for deleted, replaced in zip(files[turn::20], files[turn + 10 :: 20], strict=False):
                shutil.copyfile(deleted, replaced)
                shutil.copyfile(deleted, deleted.with_name(f"{turn}-{deleted.name}"))
                deleted.unlink()
        pipeline.run(update if turn else job, opened(name))
    fresh = dataclasses.replace(job, out=str(tmp_path / "fresh"), partition_size=None)
    report = pipeline.run(fresh, opened("local"))
    found = compare(job.out, fresh.out)
    assert found.identical, found.differences
    assert found.rows == report.rows > 125


@pytest.mark.parametrize("name", [name for name in backends.BACKENDS if name != "local"])
def test_native_estimators_agree_with_the_exact_solver(opened, images, tmp_path, monkeypatch, name):
    import numpy as np

    from fruits.model.scaled_pca import ScaledPCA

    # Spark ML takes 20 s for the 1,280 features of the network.
    monkeypatch.setattr(pipeline, "compile_network", lambda *_: PixelNetwork(features=160))
    expected = Job(images=str(images), out=str(tmp_path / "exact"), components=40, partition_size=16)
    pipeline.run(expected, opened("local"))
    job = dataclasses.replace(expected, out=str(tmp_path / "out"), solver="native")
    pipeline.run(job, opened(name))
    exact, native = ScaledPCA.load(expected.out), ScaledPCA.load(job.out)
    np.testing.assert_allclose(native.explained_variance, exact.explained_variance, rtol=1e-9)
    np.testing.assert_allclose(native.scale, exact.scale, rtol=1e-9)
    assert compare(expected.out, job.out).largest <= 1e-6


def test_the_model_exported_to_spark_gives_the_same_scores(opened, reference, tmp_path):
    import numpy as np
    from pyspark.ml import PipelineModel
    from pyspark.ml.linalg import Vectors
    from pyspark.sql import SparkSession

    from fruits.model.scaled_pca import ScaledPCA
    from fruits.storage.parquet import vectors

    job, _ = reference(16)
    opened("spark").start()
    model = ScaledPCA.load(job.out)
    features = vectors(pq.read_table(f"{job.out}/features")["features"])[:40]
    rows = [(Vectors.dense(row.astype(float)),) for row in features]
    frame = SparkSession.getActiveSession().createDataFrame(rows, ["features"])
    scaled, scores = model.transform(features)
    model.to_spark().write().save(str(tmp_path / "pipeline"))  # a later Spark job may load it
    for fitted in (model.to_spark(), PipelineModel.load(str(tmp_path / "pipeline"))):
        found = fitted.transform(frame).collect()
        for name, ours in (("scaled_features", scaled), ("pca_features", scores)):
            theirs = np.array([row[name].toArray() for row in found])
            assert np.abs(ours - theirs).max() <= 1e-9 * np.abs(theirs).max()


# -- other sources


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Return a folder of 40 images of 4 labels, and 3 rejects."""
    folder = tmp_path_factory.mktemp("sample") / "images"
    generate(folder, images=40, labels=4, broken=3)
    return folder


@pytest.fixture(scope="module")
def sample_job(opened, sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("sample-job") / "out"
    job = Job(images=str(sample), out=str(out), components=8, partition_size=7)
    pipeline.run(job, opened("local"))
    return job


def rejects(out):
    parts = sorted(Path(out, "rejects").glob("*.parquet"))
    return sorted((row for part in parts for row in pq.read_table(part).to_pylist()), key=lambda row: str(row["path"]))


@pytest.mark.parametrize(("backend", "writer"), WRITERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_source_gives_the_bits_of_the_folder(opened, sample, sample_job, tmp_path, backend, writer):
    paths = sorted(
        (path for path in sample.rglob("*.*") if path.suffix not in (".csv", ".jsonl", ".parquet")), key=hash
    )
    entries = [(path.relative_to(sample).as_posix(), path.parent.name, path.read_bytes()) for path in paths]
    address, options = writer(entries, sample if "manifest" in writer.__name__ else tmp_path)
    job = dataclasses.replace(sample_job, images=str(address), out=str(tmp_path / "out"), partition_size=9, **options)
    report = pipeline.run(job, opened(backend))
    assert (report.images, report.labels, sum(report.rejects.values())) == (43, 4, 3)
    assert pipeline.run(job, opened(backend)).rows == report.rows  # the finished output is the same job
    found = compare(sample_job.out, job.out)
    assert (found.rows, found.differences) == (40, ())
    assert rejects(job.out) == rejects(sample_job.out)
    assert verify(job.out, Silent()).is_intact


# -- recognisers


def recognise(images, folder, executor, size, crops):
    """Train, predict and evaluate; return the files of the recogniser and the evaluation."""
    job = fruits.Job(images=str(images), out=str(folder / "features"), components=2, crops=crops, partition_size=size)
    fruits.fit(job, executor)
    rec = str(folder / "rec")
    fruits.train(fruits.Training(sources=(job.out,), out=rec, crops=crops), executor)
    predictions = fruits.Job(images=str(images), out=str(folder / "predictions"), recogniser=rec, partition_size=size)
    fruits.predict(predictions, executor)
    evaluation = fruits.evaluate(job.out, rec, str(folder / "evaluation"), executor)
    files = {path.name: path.read_bytes() for path in Path(rec).iterdir() if path.suffix in (".json", ".safetensors")}
    return files, evaluation


@pytest.fixture(scope="module")
def recognised(solver_in_this_process, opened, sample, tmp_path_factory):
    """Return a function that returns the folder and the results of a recogniser, made once for each number of crops."""

    @cache
    def made(crops):
        folder = tmp_path_factory.mktemp("recognised")
        return folder, recognise(sample, folder, opened("local"), 100, crops)

    return made


@pytest.mark.parametrize(("backend", "crops"), [*((name, 1) for name in SIZES), ("dask", 2)])
def test_every_backend_gives_the_same_recogniser_and_predictions(opened, sample, recognised, tmp_path, backend, crops):
    expected, (files, evaluation) = recognised(crops)
    found, other = recognise(sample, tmp_path, opened(backend), SIZES[backend], crops)
    assert found == files
    assert (other.metrics, other.left_out) == (evaluation.metrics, evaluation.left_out)
    rows = compare(str(expected / "predictions"), str(tmp_path / "predictions"))
    assert (rows.rows, rows.identical) == (40, True), rows.differences

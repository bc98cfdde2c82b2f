"""Whole jobs on every backend, compared bit by bit, on real images, or on generated ones if there are none."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

import backends
from fruits.images.sample import generate
from fruits.images.sources.kinds import open_source
from fruits.images.tar.pack import pack
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.job import Job
from fruits.storage.folder import Folder
from tests.conformance.crashing import PixelNetwork
from tests.conftest import real_images
from tests.outputs import contents

WORKERS = {"local": (1, 2), "dask": (1, 2, 3), "spark": (1, 3)}  # two of Spark: test_recogniser.py, test_sources.py
assert set(WORKERS) == set(backends.BACKENDS)  # add new backends here
SOME = [(name, count) for name, counts in WORKERS.items() for count in counts]


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

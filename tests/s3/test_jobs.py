"""Whole jobs from S3 to S3: the bits of a local job on every engine, despite failed requests."""

from __future__ import annotations

import os
import random
import re
import shutil

import pytest

from backends.local import LocalExecutor
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.job import Job
from fruits.storage.commits import last_commit
from fruits.storage.folder import Folder

OPTIONS = ("--components", "8", "--partition-size", "16", "--quiet", "--workers", "2")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Return a generated dataset of 62 images, 2 of them corrupt."""
    folder = tmp_path_factory.mktemp("sample") / "images"
    generate(folder, images=60, broken=2)
    return folder


@pytest.fixture(scope="session")
def local(images, tmp_path_factory):
    """Return the output of the local job, the reference of the others."""
    out = tmp_path_factory.mktemp("local") / "out"
    pipeline.run(Job(images=str(images), out=str(out), components=8, partition_size=16), LocalExecutor())
    return out


@pytest.mark.parametrize("backend", ["dask", "spark"])
def test_job_from_s3_to_s3_has_the_bits_of_a_local_job(fruits, backend, bucket, folder_of, images, local, s3, proxy):
    """Even if one request in twenty fails, in each of four ways."""
    shutil.copytree(images, folder_of(bucket) / "images")
    between = proxy(faults=0.05, seed=random.Random(backend).randrange(1000))
    out = f"{bucket}/out"
    report = fruits("run", f"{bucket}/images", "--out", out, *OPTIONS, "--backend", backend)
    assert (report["images"], report["rows"]) == (62, 60)
    assert sum(between.made.values()) > 2
    assert compare(str(local), out).identical
    state = fruits("status", out)
    assert (state["complete"], state["rows"], state["rejects"]) == (True, 60, report["rejects"])
    assert state["seconds_since_newest"] < 600
    stored = [path for path in (folder_of(bucket) / "out").rglob("*") if path.is_file()]
    assert stored
    assert not any(s3.secret.encode() in path.read_bytes() for path in stored)
    part = Folder.at(out)
    commit = last_commit(part)
    assert commit is not None
    for name in (f"report-{commit.owner}.json", f"rows/part-00002-{commit.owner}.parquet"):
        part.remove_files([name])
    again = fruits("run", f"{bucket}/images", "--out", out, *OPTIONS, "--backend", "local")
    assert again["resumed"] == 4
    assert compare(str(local), out).identical


def test_packed_images_on_s3_have_the_bits_of_a_local_folder_with_few_requests(
    fruits, bucket, folder_of, images, local, proxy
):
    shutil.copytree(images, folder_of(bucket) / "images")
    proxy(faults=0.03, seed=5)
    packed = fruits("pack", f"{bucket}/images", "--out", f"{bucket}/shards", "--shard-size", "60kB", "--quiet")
    assert (packed["images"], packed["unpacked"]) == (62, {})
    assert len(packed["shards"]) > 2
    between = proxy()
    report = fruits("run", f"{bucket}/shards/*.tar", "--out", f"{bucket}/out", *OPTIONS, "--backend", "dask")
    assert (report["images"], report["rows"]) == (62, 60)
    assert compare(str(local), f"{bucket}/out").identical
    reads = [line for line in between.seen if line.startswith("GET") and ".tar" in line]
    assert len(packed["shards"]) < len(reads) < 4 * len(packed["shards"])


def test_a_job_makes_few_requests_beside_those_for_its_parts(fruits, bucket, folder_of, images, proxy):
    """A job that waits for each of its requests would take longer for them than for small images."""
    shutil.copytree(images, folder_of(bucket) / "images")
    between = proxy()
    fruits("fit", f"{bucket}/images", "--out", f"{bucket}/out", *OPTIONS, "--backend", "local")
    requests = [line for line in between.seen if "/out" in line]
    parts = [line for line in requests if re.search("(rejects|features)/.*part-", line)]
    assert len(parts) <= 4 * 7  # of each of 4 partitions: its marker 2, its parts 2, the moments and the page 3
    assert len(requests) - len(parts) <= 95
    commits = [line for line in requests if "GET" in line and "commits/0000000" in line]
    assert len(commits) == 2  # each is read once, however often a job asks whether it still owns its folder


def test_model_on_s3_transforms_with_the_endpoint_as_an_option(fruits, bucket, folder_of, images, local, s3):
    shutil.copytree(images, folder_of(bucket) / "images")
    shutil.copytree(local / "model", folder_of(bucket) / "model")
    command = ("transform", f"{bucket}/images", "--model", f"{bucket}/model", "--out", f"{bucket}/rows")
    without = os.environ.pop("AWS_ENDPOINT_URL_S3")
    fruits(*command, "--partition-size", "16", "--workers", "2", "--quiet", "--s3-endpoint", without)
    os.environ["AWS_ENDPOINT_URL_S3"] = without
    rows = folder_of(bucket) / "rows" / "rows"
    assert [path.read_bytes() for path in sorted(rows.iterdir())] == [
        path.read_bytes() for path in sorted((local / "rows").iterdir())
    ]


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another-secret"}, "were refused: SignatureDoesNotMatch"),
        ({"AWS_PROFILE": "nobody"}, "no credentials"),
    ],
)
def test_wrong_credentials_end_the_command_before_an_engine_starts(
    fruits, bucket, folder_of, images, monkeypatch, environ, text
):
    shutil.copytree(images, folder_of(bucket) / "images")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for source in (f"{bucket}/images", images):
        answer = fruits("run", source, "--out", f"{bucket}/out", *OPTIONS, exit_code=2)
        assert text in answer["error"]["message"]
        assert answer["error"]["type"] in ("DatasetError", "OutputError")

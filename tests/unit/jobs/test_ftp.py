"""Outputs on an FTP server, which has no atomic operations, creates no folders, and raises errors of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fsspec
import pytest

from backends.local import LocalExecutor
from fruits.errors import StorageError
from fruits.images.sources.kinds import open_source
from fruits.images.tar.pack import pack
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.jobs.job import Job
from fruits.progress.reporter import Silent
from fruits.storage.folder import Folder
from tests.unit.jobs.test_pipeline import images, network  # noqa: F401
from tests.unit.storage import servers


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": "robot", "password": "secret"})


@pytest.fixture
def job(images: Path) -> Job:  # noqa: F811
    return Job(images=str(images), out="", components=5, partition_size=20, report=False)


def test_a_job_on_an_ftp_server_is_written_updated_and_verified(job: Job, tmp_path: Path) -> None:
    (tmp_path / "ftp").mkdir()
    with servers.ftp(tmp_path / "ftp", "robot", "secret", writable=True) as url:
        job = dataclasses.replace(job, out=f"{url}/new/out")
        pipeline.run(job, LocalExecutor())
        next(Path(job.images).rglob("*.png")).unlink()
        pipeline.run(dataclasses.replace(job, update=True), LocalExecutor())
        verified = verify(job.out, Silent())
        assert (verified.corrupt, verified.unexpected) == ((), ())
        fresh = dataclasses.replace(job, out=str(tmp_path / "fresh"))
        pipeline.run(fresh, LocalExecutor())
        assert compare(job.out, fresh.out).identical


def test_archives_on_an_ftp_server_are_replaced(job: Job, tmp_path: Path) -> None:
    (tmp_path / "ftp").mkdir()
    with servers.ftp(tmp_path / "ftp", "robot", "secret", writable=True) as url:
        out, source = Folder.at(f"{url}/tars"), open_source(job.images)
        for shard_size in (20_000, 10**6):
            pack(source, out, shard_size=shard_size, overwrite=True)
        assert out.names() == ["pack.json", "shard-000000.tar"]


def test_an_ftp_server_that_refuses_to_write_is_an_error(job: Job, tmp_path: Path) -> None:
    with (
        servers.ftp(tmp_path, "robot", "secret") as url,
        pytest.raises(StorageError, match=r"/out\S* cannot be written: error_perm 550 Not enough privileges\. "),
    ):
        pipeline.run(dataclasses.replace(job, out=f"{url}/out"), LocalExecutor())

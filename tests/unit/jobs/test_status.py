"""The status of running, stopped, complete and missing jobs."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from backends.local import LocalExecutor
from fruits.cli.main import main
from fruits.errors import DamageError, OutputError
from fruits.jobs import pipeline
from fruits.jobs.inspect import status
from fruits.plan.pages import ImageList
from fruits.plan.partitions import Partition, Plan
from fruits.storage.checksums import checksum
from fruits.storage.commits import OwnedFolder
from fruits.storage.folder import Folder
from tests.outputs import owner, stored
from tests.unit.jobs.test_pipeline import Counting, images, job, network  # noqa: F401 - the fixtures of a small job

NOW = 1_700_000_000.0  # long ago


@pytest.fixture
def stopped(job):  # noqa: F811
    """Return the output of a job stopped after five of eight partitions, one every 10 seconds."""
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 5)))
    out = Folder.at(job.out)
    for path in (str(path) for path in _files(out.address)):
        os.utime(path, (NOW - 1000, NOW - 1000))
    for index in range(5):
        when = NOW - 10 * (4 - index)
        os.utime(stored(out.address, f"features/part-{index:05d}.parquet"), (when, when))
    return out.address


def _files(folder):
    return (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)


def test_a_running_job_reports_progress_speed_and_remaining_time(stopped):
    found = status.status(stopped, now=lambda: NOW + 12)
    assert [(stage.name, stage.done, stage.total, stage.unit) for stage in found.stages] == [
        ("featurize", 5, 8, "partitions"),
        ("moments", 0, 1, "groups"),
        ("solve", 0, 1, "models"),
        ("rows", 0, 8, "partitions"),
    ]
    assert (found.command, found.complete, found.images, found.partitions) == ("run", False, 32, 8)
    assert (found.images_done, found.surveyed) == (20, 5)
    assert found.rows == 20 - sum(found.rejects.values())
    assert (found.moves, found.seconds_since_newest) == (True, 12.0)
    assert (found.images_per_second, found.seconds_left) == (0.4, 30.0)


def test_a_job_without_recent_parts_is_stalled(stopped):
    found = status.status(stopped, now=lambda: NOW + 61)
    assert (found.moves, found.seconds_since_newest) == (False, 61.0)
    assert (found.images_per_second, found.seconds_left) == (None, None)


def test_clock_skew_gives_no_negative_time(stopped):
    assert status.status(stopped, now=lambda: NOW - 50).seconds_since_newest == 0.0


def test_only_the_first_rejects_are_read_for_many_partitions(stopped, monkeypatch):
    monkeypatch.setattr(status, "SURVEYED", 2)
    found = status.status(stopped)
    assert (found.surveyed, found.rows) == (2, None)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_complete_job_lists_all_its_stages(job, place):  # noqa: F811
    if place == "memory":
        job = dataclasses.replace(job, out="memory://status-test/out")
    report = pipeline.run(job, LocalExecutor())
    found = status.status(job.out)
    assert (found.complete, found.moves, found.stage) == (True, False, None)
    assert (found.images_done, found.rows, found.rejects) == (32, report.rows, report.rejects)
    assert {stage.name for stage in found.stages} == report.seconds.keys() - {"listing", "model", "engine"}
    assert all(stage.done == stage.total for stage in found.stages)
    assert found.seconds_since_newest is not None
    if place == "local":
        other = dataclasses.replace(job, model=job.out, out=job.out + "2", components=0.95)
        report = pipeline.transform(other, LocalExecutor())
        assert {stage.name for stage in status.status(other.out).stages} == {"transform"} <= report.seconds.keys()


def test_status_only_reads(stopped):
    times = {path: os.stat(path).st_mtime_ns for path in _files(stopped)}
    status.status(stopped)
    assert times == {path: os.stat(path).st_mtime_ns for path in _files(stopped)}


def test_a_folder_without_a_job_is_refused(stopped, tmp_path):
    with pytest.raises(OutputError, match=r"no job here.*Give the `out`"):
        status.status(str(tmp_path / "nothing"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"plan": {"images": "many"}}', b'{"plan": 3}'])
def test_a_corrupt_job_is_refused(stopped, content):
    with open(f"{stopped}/commits/00000001.json", "wb") as file:
        file.write(content)
    with pytest.raises(OutputError, match=r"is (corrupt|damaged)"):
        status.status(stopped)


@pytest.mark.parametrize("count", [10**9, 2**63 - 1])
def test_a_plan_with_more_images_than_its_pages_is_refused(stopped, count):
    owned = OwnedFolder(Folder.at(stopped), owner(stopped), 1)
    name = owned.name("plan/partitions", "parquet")
    plan = Plan.decode(owned.folder.read(name))
    forged = dataclasses.replace(plan, list=ImageList(count, ""), partitions=(Partition(0, 0, count),)).encode()
    owned.folder.write(name, forged)
    path = Path(stopped, "commits", "00000001.json")
    content = json.loads(path.read_bytes())
    content["files"][name] = checksum(forged).hex()
    path.write_text(json.dumps(content))
    with pytest.raises(DamageError, match="contradict"):
        status.status(stopped)


def answer(capfd, *words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code, *capfd.readouterr()


def test_status_command_prints_text_and_json(capfd, stopped):
    code, out, err = answer(capfd, "status", stopped)
    assert (code, err) == (0, "")
    assert "run of 32 images in 8 partitions, incomplete" in out
    assert "featurize  5 of 8 partitions" in out
    assert "20 of 32 featurized" in out
    assert "waiting or stopped" in out
    code, out, _ = answer(capfd, "status", stopped, "--json")
    assert (code, json.loads(out)["stages"][0]["done"]) == (0, 5)
    shutil.rmtree(f"{stopped}/features")
    assert "no part stored yet" in answer(capfd, "status", stopped)[1]
    shutil.rmtree(stopped)
    code, out, err = answer(capfd, "status", stopped)
    assert (code, out) == (2, "")
    assert "no job here" in err

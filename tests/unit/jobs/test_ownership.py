"""A job that was superseded while it was suspended changes and deletes nothing of its successor.

The job is suspended at one of its mutations of the storage: before it, between the check of the owner and the
publication, or after it. Meanwhile the successor runs to completion; then the job goes on.
"""

import dataclasses
import itertools
import os
import re
import shutil
import threading
from contextlib import suppress

import boto3
import pytest
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from backends.local import LocalExecutor
from fruits.errors import OutputError
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.progress.reporter import Silent
from fruits.storage import commits
from fruits.storage.commits import OwnedFolder, last_commit, owner_in
from fruits.storage.folder import Folder
from fruits.storage.local import LocalStore
from tests.conftest import LONG
from tests.outputs import owner
from tests.unit.jobs.test_pipeline import Counting, images, job, network  # noqa: F401 - the fixtures of a small job

# Between two suspensions: not a multiple of 3, the number of positions of a write. Each pair starts with another one.
STEP, STEP_ON_S3 = (1, 4) if LONG else (7, 17)
COMMANDS = {"run": pipeline.run, "fit": pipeline.fit, "transform": pipeline.transform}


class Suspension:
    """Runs a successor within the n-th mutation of the storage by a job.

    Attributes
    ----------
    mutations : list of str
        The mutations that the job reached, by position and kind.
    """

    def __init__(self, at, successor):
        self.at = at
        self.successor = successor
        self.mutations = []
        self._lock = threading.Lock()
        self._inside = False

    def reached(self, position, path):
        with self._lock:
            if self._inside:
                return
            self.mutations.append(f"{position} {path}")
            if len(self.mutations) - 1 != self.at:
                return
            self._inside = True
        self.successor()
        self._inside = False

    def install(self, monkeypatch, store):
        write, create, remove_files = (getattr(store, name) for name in ("write", "create", "remove_files"))

        def suspended_write(this, path, data, *, check=None):
            self.reached("before write", path)

            def checked():
                if check is not None:
                    check()
                self.reached("between check and write", path)

            write(this, path, data, check=checked)
            self.reached("after write", path)

        def suspended(kind, method):
            def call(this, path, *arguments):
                place = path if isinstance(path, str) else ":".join(path)
                self.reached(f"before {kind}", place)
                result = method(this, path, *arguments)
                self.reached(f"after {kind}", place)
                return result

            return call

        monkeypatch.setattr(store, "write", suspended_write)
        for kind, method in (("create", create), ("remove_files", remove_files)):
            monkeypatch.setattr(store, kind, suspended(kind, method))


def files_of(folder, owner):
    """Return the content of all files of an owner by name."""
    found = {}
    folders = ["", *(name for name in folder.names() if name != "commits")]
    folders += [f"moments/{name}" for name in (folder / "moments").names()]
    for kind in folders:
        for name in (folder / kind if kind else folder).names():
            name = f"{kind}/{name}".strip("/")
            if owner_in(name) == owner and not name.endswith(".tmp"):
                found[name] = folder.read(name)
    return found


def suspend_everywhere(monkeypatch, store, first, second, place, start=0, step=STEP):
    """Suspend the job `first` at every `step`-th mutation, one run for each; return all mutations of its last run.

    `first` and `second` are a command and a job whose output is replaced by a new folder for each run.
    """
    undisturbed = f"{place}/undisturbed"
    run(second, undisturbed, overwrite=False)
    for number in itertools.count(start, step):
        out = f"{place}/{number}"
        with monkeypatch.context() as patch:
            suspension = Suspension(number, lambda out=out: run(second, out))
            suspension.install(patch, store)
            error = error_of(lambda out=out: run(first, out, overwrite=False))
        assert error is None or "claimed by another job" in error or "contains another job" in error
        if len(suspension.mutations) <= number:
            return suspension.mutations
        check_successor(second, out, undisturbed, suspension.mutations[number])


def error_of(command):
    """Return the message of the error that stops a superseded job; None if it finished before it was superseded."""
    try:
        command()
    except OutputError as error:
        return str(error)
    return None


def run(command_and_job, out, overwrite=True):
    command, asked = command_and_job
    changes = {"overwrite": True} if overwrite and asked.shards is None else {}
    return COMMANDS[command](dataclasses.replace(asked, out=out, **changes), LocalExecutor())


def check_successor(second, out, undisturbed, where):
    folder = Folder.at(out)
    commit = last_commit(folder)
    assert commit is not None, where
    assert commit.complete, where
    found = verify(out, Silent())
    assert found.corrupt == (), where
    strays = [name for name in found.unexpected if owner_in(name) != commit.owner]
    assert len(strays) <= 1, (where, strays)  # the file that was about to appear
    assert compare(out, undisturbed).identical, where
    before = files_of(folder, commit.owner)
    run(second, out, overwrite=False)
    assert files_of(folder, commit.owner) == before, where
    after = verify(out, Silent())
    assert (after.corrupt, [name for name in after.unexpected if owner_in(name) != commit.owner]) == ((), []), where


@pytest.fixture
def jobs(job, images, tmp_path):  # noqa: F811
    """Pairs of a job and its successor on ten images and two rejects, by name."""
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        if number % 3:
            path.unlink()
    job = dataclasses.replace(job, partition_size=6, max_reject_fraction=0.2)
    models = []
    for components in (3, 4):
        fitted = dataclasses.replace(job, out=str(tmp_path / f"model-{components}"), components=components)
        pipeline.fit(fitted, LocalExecutor())
        models.append(fitted.out)
    transforms = [dataclasses.replace(job, model=model) for model in models]
    return {
        "another model": (("transform", transforms[0]), ("transform", transforms[1])),
        "other components": (("run", job), ("run", dataclasses.replace(job, components=4))),
        "another limit": (("run", job), ("fit", dataclasses.replace(job, limit=8))),
        "a slice": (("run", dataclasses.replace(job, shards="1/1")), ("run", dataclasses.replace(job, components=4))),
    }


@pytest.mark.parametrize(
    ("pair", "start"), [("another model", 0), ("other components", 2), ("another limit", 4), ("a slice", 6)]
)
def test_a_suspended_job_leaves_its_successor_intact(jobs, tmp_path, monkeypatch, pair, start):
    first, second = jobs[pair]
    mutations = suspend_everywhere(monkeypatch, LocalStore, first, second, str(tmp_path / "outputs"), start % STEP)
    assert len(mutations) > 30
    kinds = {mutation.partition(" /")[0] for mutation in mutations}
    assert kinds >= {"before write", "between check and write", "after write", "before create", "after create"}
    assert {"before remove_files", "after remove_files"} <= kinds
    names = {part for mutation in mutations for part in mutation.split("/")}
    assert names >= {"plan", "rejects", "manifest", "commits"}
    pages = [name for name in names if re.fullmatch(r"report-[0-9a-f]{12}\.html", name)]
    assert bool(pages) == (pair != "a slice")


def test_a_suspended_takeover_leaves_its_successor_intact(jobs, tmp_path, monkeypatch):
    """The suspended job has itself taken over a finished output, and removes the files of that."""
    first, second = jobs["other components"]
    third = ("run", dataclasses.replace(second[1], components=2))
    undisturbed = f"{tmp_path}/undisturbed"
    run(third, undisturbed)
    removals = 0
    for number in itertools.count(0, STEP):
        out = f"{tmp_path}/{number}"
        run(first, out)
        with monkeypatch.context() as patch:
            suspension = Suspension(number, lambda out=out: run(third, out))
            suspension.install(patch, LocalStore)
            error = error_of(lambda out=out: run(second, out))
        assert error is None or "claimed by another job" in error
        if len(suspension.mutations) <= number:
            break
        where = suspension.mutations[number]
        removals += "remove_files " in where
        if last_commit(Folder.at(out)).job["components"] == 2:  # else it took over after its successor had finished
            check_successor(third, out, undisturbed, where)
        else:
            assert where.startswith("before create") or "plan" not in where
    assert removals > 0


def test_a_removed_folder_in_other_partitions_is_another_owner(job, tmp_path):  # noqa: F811
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 2)))
    suspended = OwnedFolder(Folder.at(job.out), owner(job.out), 1)
    shutil.rmtree(job.out)
    pipeline.run(dataclasses.replace(job, partition_size=5), LocalExecutor())
    with pytest.raises(OutputError, match="claimed by another job"):
        suspended.write(suspended.part("features", 0, "parquet"), b"of other images")


def test_a_reader_follows_a_commit_that_is_replaced_meanwhile(job, monkeypatch):  # noqa: F811
    pipeline.run(job, LocalExecutor())
    numbers = iter([1, 2])  # the first commit is removed between the listing and the reading
    monkeypatch.setattr(commits, "_last", lambda folder: (next(numbers), None))
    assert last_commit(Folder.at(job.out)).complete


def test_twins_both_finish_wherever_one_is_suspended(jobs, tmp_path, monkeypatch):
    first, _ = jobs["other components"]
    undisturbed = f"{tmp_path}/undisturbed"
    run(first, undisturbed)
    for number in itertools.count(1 % STEP, STEP):
        out = f"{tmp_path}/{number}"
        with monkeypatch.context() as patch:
            suspension = Suspension(number, lambda out=out: run(first, out, overwrite=False))
            suspension.install(patch, LocalStore)
            assert run(first, out, overwrite=False).rows == 10
        if len(suspension.mutations) <= number:
            break
        check_successor(first, out, undisturbed, suspension.mutations[number])


def test_an_interrupted_twin_leaves_the_output_intact(jobs, tmp_path, monkeypatch):
    """A twin that ends in the middle may write a manifest that lists less; the complete one is not replaced."""
    first, _ = jobs["other components"]
    for number in itertools.count(3 % STEP, STEP):
        out = f"{tmp_path}/{number}"

        def finish_and_interrupt(out=out):
            run(first, out, overwrite=False)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            suspension = Suspension(number, finish_and_interrupt)
            suspension.install(patch, LocalStore)
            with suppress(KeyboardInterrupt):
                run(first, out, overwrite=False)
        if len(suspension.mutations) <= number:
            break
        found = verify(out, Silent())
        assert (found.corrupt, found.is_intact) == ((), True), suspension.mutations[number]


@pytest.fixture
def bucket(monkeypatch):
    """Return the URL of an empty bucket of a server with conditional requests."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    put, lock = S3Response.put_object, threading.Lock()

    def put_alone(this):
        with lock:  # it compares and stores in two steps
            return put(this)

    monkeypatch.setattr(S3Response, "put_object", put_alone)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="outputs")
    yield "s3://outputs"
    server.stop()


def test_a_suspended_job_leaves_its_successor_intact_on_s3(jobs, bucket, monkeypatch):
    from fruits.storage.s3.store import S3ObjectStore

    first, second = jobs["another model"]
    mutations = suspend_everywhere(monkeypatch, S3ObjectStore, first, second, bucket, step=STEP_ON_S3)
    assert len(mutations) > 30
    assert os.environ["AWS_ENDPOINT_URL_S3"].startswith("http://127.0.0.1")


def test_of_two_commits_with_one_number_one_succeeds_on_s3(bucket):
    folder = Folder.at(f"{bucket}/claims")
    results = []

    def commit(data):
        # A PUT that was repeated after a lost response finds its own object.
        results.append(folder.create("commits/00000001.json", data) or folder.read("commits/00000001.json") == data)

    threads = [threading.Thread(target=commit, args=(b"%d" % n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(True) == 1
    assert not folder.create("commits/00000001.json", b"later")

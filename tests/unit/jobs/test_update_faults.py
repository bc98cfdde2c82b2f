"""Updates after faults: images that could not be read for a while, interruptions, damaged files, other commands."""

import dataclasses
import os

import numpy as np
import pytest

from backends.local import LocalExecutor
from fruits.errors import DamageError, OutputError, SettingsError
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.jobs.job import Job
from fruits.jobs.tasks import moments as merging
from fruits.model import solver
from fruits.progress.reporter import Silent
from fruits.storage import local
from fruits.storage.commits import OwnedFolder
from tests.unit.jobs.test_pipeline import Counting, network  # noqa: F401 - a fixture
from tests.unit.jobs.test_update import Featurized, add, fresh


@pytest.fixture(autouse=True)
def quick_jobs(monkeypatch):
    monkeypatch.setattr(solver, "eigh", np.linalg.eigh)  # in this process: no kernel is compared here
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power fails here


@pytest.fixture
def images(tmp_path):
    for number in range(10):
        add(tmp_path / "images", f"label {number % 2}/{number}.png", number + 1)
    return tmp_path / "images"


@pytest.fixture
def job(images, tmp_path):
    return Job(images=str(images), out=str(tmp_path / "out"), components=3, partition_size=3)


@pytest.fixture
def unreadable(monkeypatch):
    """Return a set of file names that cannot be read at present."""
    names = set()
    read = local._read

    def refuse(path, *limit, **options):
        if path.rpartition("/")[2] in names:
            raise PermissionError(13, "Permission denied", path)
        return read(path, *limit, **options)

    monkeypatch.setattr(local, "_read", refuse)
    return names


def updated(job):
    return dataclasses.replace(job, update=True)


def damage(path):
    path.write_bytes(b"damaged" + path.read_bytes()[7:])


def assert_intact(out):
    found = verify(out, Silent())
    assert (found.corrupt, found.unexpected) == ((), ())


def assert_as_new(job, tmp_path):
    compared = compare(job.out, fresh(job, tmp_path))
    assert compared.identical, compared
    assert_intact(job.out)


@pytest.mark.parametrize("is_changed", [True, False])
def test_an_update_tries_images_again_that_could_not_be_read(job, images, tmp_path, unreadable, is_changed):
    unreadable.add("4.png")
    assert pipeline.run(job, LocalExecutor()).rejects == {"unreadable": 1}
    unreadable.clear()
    if is_changed:
        add(images, "label 1/z.png", 100)
    executor = Featurized()
    pipeline.run(updated(job), executor)
    assert executor.images == 1 + is_changed
    assert_as_new(job, tmp_path)


def test_an_update_of_an_interrupted_job_tries_unreadable_images_again(job, images, tmp_path, unreadable):
    unreadable.add("4.png")
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 2)))
    unreadable.clear()
    add(images, "label 1/z.png", 100)
    pipeline.run(updated(job), LocalExecutor())
    assert_as_new(job, tmp_path)


def test_a_resumed_update_merges_the_same_groups(job, images, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "ROWS", 3)
    pipeline.run(job, LocalExecutor())
    for number in (0, 2, 6):  # one row of each changed partition
        add(images, f"label 0/{number}.png", 100 + number)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(updated(job), Counting(("write_rows", 0)))
    for path in (tmp_path / "out" / "model").iterdir():
        path.unlink()
    pipeline.run(updated(job), LocalExecutor())
    assert_as_new(job, tmp_path)


@pytest.mark.parametrize("kind", ["added", "removed"])
def test_a_resumed_update_regenerates_damaged_changes(job, images, tmp_path, kind):
    pipeline.run(job, LocalExecutor())
    add(images, "label 0/0.png", 100)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(updated(job), Counting(("merge", 0)))
    (part,) = (tmp_path / "out" / kind).iterdir()
    damage(part)
    pipeline.run(updated(job), LocalExecutor())
    assert_as_new(job, tmp_path)


@pytest.mark.parametrize("when", ["before the update", "during the update"])
@pytest.mark.parametrize("page", ["features", "removed"])
def test_a_damaged_page_of_the_manifest_loses_no_change(job, images, tmp_path, when, page):
    pipeline.run(job, LocalExecutor())
    add(images, "label 0/0.png", 100)
    if when == "during the update":
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(updated(job), Counting(("merge", 0)))
    for path in (tmp_path / "out" / "manifest").glob(f"{page}-*"):
        damage(path)
    pipeline.run(updated(job), LocalExecutor())
    assert_as_new(job, tmp_path)


def test_a_damaged_plan_of_an_update_needs_overwrite(job, images, tmp_path):
    pipeline.run(job, LocalExecutor())
    add(images, "label 0/00.png", 100)
    pipeline.run(updated(job), LocalExecutor())
    (plan,) = (tmp_path / "out" / "plan").glob("partitions-*")
    damage(plan)
    with pytest.raises(DamageError, match="Use `overwrite` to start over"):
        pipeline.run(job, LocalExecutor())
    pipeline.run(dataclasses.replace(job, overwrite=True), LocalExecutor())
    assert_as_new(job, tmp_path)


@pytest.fixture
def kept(job):
    return dataclasses.replace(job, update=True, keep_model=True)


def assert_rows_of_the_model(job, tmp_path):
    assert_intact(job.out)
    expected = dataclasses.replace(job, out=str(tmp_path / "rows"), model=job.out)
    pipeline.transform(expected, LocalExecutor())
    assert compare(job.out, expected.out).identical


def test_a_kept_model_writes_all_rows_of_a_fit(job, kept, images, tmp_path):
    pipeline.fit(job, LocalExecutor())
    add(images, "label 1/z.png", 100)
    pipeline.run(kept, LocalExecutor())
    assert_rows_of_the_model(job, tmp_path)


def test_rows_of_an_earlier_job_are_regenerated_under_their_name(job, kept, images, tmp_path):
    pipeline.run(job, LocalExecutor())
    add(images, "label 1/z.png", 100)
    pipeline.run(kept, LocalExecutor())
    damage(min((tmp_path / "out" / "rows").iterdir()))
    pipeline.run(kept, LocalExecutor())
    assert_rows_of_the_model(job, tmp_path)


@pytest.mark.parametrize("after", [0, 2, 6])
def test_an_update_that_is_killed_at_its_start_loses_nothing(job, kept, images, tmp_path, monkeypatch, after):
    pipeline.run(job, LocalExecutor())
    write, written = OwnedFolder.write, []

    def stop(folder, name, data):
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(name)
        write(folder, name, data)

    for added in ("z.png", None, "zz.png"):
        if added is not None:
            add(images, f"label 1/{added}", 100 + len(added))
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(OwnedFolder, "write", stop)
            with pytest.raises(KeyboardInterrupt):
                pipeline.run(kept, LocalExecutor())
    executor = Featurized()
    pipeline.run(kept, executor)
    assert executor.images == 2
    assert_rows_of_the_model(job, tmp_path)


def test_rows_of_two_models_do_not_mix(job, kept, images, tmp_path, monkeypatch):
    pipeline.run(job, LocalExecutor())
    open_output = pipeline.open_output

    def fit_meanwhile(*given):
        monkeypatch.setattr(pipeline, "open_output", open_output)
        add(images, "label 1/y.png", 100)
        pipeline.run(updated(job), LocalExecutor())
        add(images, "label 1/z.png", 101)
        return open_output(*given)

    monkeypatch.setattr(pipeline, "open_output", fit_meanwhile)
    pipeline.run(kept, LocalExecutor())
    assert_rows_of_the_model(job, tmp_path)


@pytest.fixture
def derived(job, tmp_path):
    return dataclasses.replace(job, images=job.out, out=str(tmp_path / "derived"))


def test_a_job_on_features_that_is_killed_before_its_plan_is_stored_resumes(job, derived, monkeypatch):
    pipeline.run(job, LocalExecutor())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OwnedFolder, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(derived, LocalExecutor())
    pipeline.run(derived, LocalExecutor())
    assert compare(job.out, derived.out).identical


@pytest.mark.parametrize("file", ["partitions", "part-00000"])
def test_a_plan_that_is_incomplete_cannot_be_kept(job, tmp_path, file):
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job, Counting(("featurize", 0)))
    next((tmp_path / "out" / "plan").glob(f"{file}-*")).unlink()
    with pytest.raises(DamageError, match=rf"{file}.*Leave `keep_plan` out for the next command"):
        pipeline.run(dataclasses.replace(job, keep_plan=True), LocalExecutor())
    pipeline.run(job, LocalExecutor())
    assert_as_new(job, tmp_path)


def test_other_rows_of_the_same_images_are_another_source(job, derived, unreadable):
    unreadable.add("4.png")
    pipeline.run(job, LocalExecutor())
    pipeline.run(derived, LocalExecutor())
    unreadable.clear()
    pipeline.run(updated(job), LocalExecutor())
    with pytest.raises(OutputError, match="moments: "):
        pipeline.run(derived, LocalExecutor())
    pipeline.run(dataclasses.replace(derived, overwrite=True), LocalExecutor())
    assert compare(job.out, derived.out).identical


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_job_on_features_that_moved_to_other_parts_starts_again(job, derived, images, is_complete):
    pipeline.run(job, LocalExecutor())
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(derived, Counting(("write_rows", 1)))
    if is_complete:
        pipeline.run(derived, LocalExecutor())
    add(images, "label 0/00.png", 100)
    pipeline.run(updated(job), LocalExecutor())
    (images / "label 0" / "00.png").unlink()
    pipeline.run(updated(job), LocalExecutor())  # the first list again, in other parts
    pipeline.run(derived, LocalExecutor())
    assert compare(job.out, derived.out).identical
    assert_intact(derived.out)


def test_a_link_to_the_source_is_no_output(job, derived, tmp_path):
    pipeline.run(job, LocalExecutor())
    (tmp_path / "derived").symlink_to(job.out)
    with pytest.raises(SettingsError, match="is also `images`"):
        pipeline.fit(dataclasses.replace(derived, overwrite=True), LocalExecutor())
    assert_intact(job.out)


def test_an_update_of_rows_without_features_is_neither_done_nor_advised(job, images, tmp_path):
    pipeline.fit(job, LocalExecutor())
    rows = dataclasses.replace(job, out=str(tmp_path / "rows"), model=job.out)
    pipeline.transform(rows, LocalExecutor())
    with pytest.raises(SettingsError, match="`update` for transform"):
        pipeline.transform(updated(rows), LocalExecutor())
    add(images, "label 1/z.png", 100)
    with pytest.raises(OutputError, match=r"to replace that job\.$"):
        pipeline.transform(rows, LocalExecutor())

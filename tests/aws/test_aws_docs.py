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
from backends.aws.account.resources import end_resource, find_resources
from backends.aws.emr import submitted as emr_submitted
from backends.aws.emr.releases import RELEASES
from backends.aws.emr.submitted import SubmittedJob
from backends.aws.staging.wheelhouse import digest_of
from backends.local import LocalExecutor
from fruits.cli.main import app
from fruits.errors import OutputError, SettingsError
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.jobs.report import Report
from tests.aws.python_build import python_archive

PAGE = (Path(__file__).parents[2] / "docs" / "aws.md").read_text("utf-8")
PROSE = " ".join(PAGE.split())


def test_every_command_parses() -> None:
    commands = [shlex.split(line)[1:] for line in re.findall(r"(?m)^ *\$ (fruits .*)$", PAGE)]
    assert {words[1] for words in commands if words[0] == "cluster"} >= {
        "init",
        "doctor",
        "cost",
        "stage",
        "up",
        "ssh",
        "down",
        "remove",
    }
    front: Any = typer.main.get_command(app)
    clusters: Any = typer.main.get_command(clusters_cli.app)
    for name, *arguments in commands:
        group, arguments = (clusters, arguments) if name == "cluster" else (front, [name, *arguments])
        command = group.commands[arguments[0]]
        command.make_context(arguments[0], arguments[1:])


def test_the_commands_run_in_their_order(
    account: Account,
    quotas: dict[str, float],
    small_wheelhouse: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In an empty account, with a stand-in for the job on EMR. What the page prints is what they print."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(clusters_cli, "confirm", lambda question: True)
    submitted: list[str] = []

    def follow(job: SubmittedJob, **more: object) -> dict[str, Any]:
        submitted.append(job.name)
        for cluster in find_resources(job.account):
            end_resource(job.account, cluster)
        return asdict(Report("transform", "s3://my-fruits/rows", 8, 8, {}, 0, 1, 0, {}, {}, 0.0, 2, [0.5, 0.5], {}))

    monkeypatch.setattr(emr_submitted, "follow", follow)
    archive = python_archive(tmp_path / "python")
    for name in ("Training", "Test"):
        generate(f"data/fruits360/{name}", images=8)
    with LocalExecutor() as executor:  # the model of the fit that the stand-in skips
        pipeline.fit(Job(images="data/fruits360/Test", out="fitted", components=2), executor)
    answers: dict[str, list[Any]] = {}
    for line in re.findall(r"(?m)^ *\$ ((?:fruits|aws) .*)$", PAGE):
        line = line.replace(
            "cpython.tar.gz --sha256 0123…", f"{archive.relative_to(tmp_path)} --sha256 {digest_of(archive)}"
        )
        words = line.split()
        if line.startswith("aws iam create-user"):
            account.client("iam").create_user(UserName=words[-1])
        elif line.startswith("aws s3 sync "):
            assert sync(account, *words[3:]) == 16
        elif words[0] == "fruits":
            if words[1] == "transform":
                assert sync(account, "fitted", "s3://my-fruits/model") > 0
            if words[1:3] == ["cluster", "ssh"]:  # moto starts no nodes
                with pytest.raises(SettingsError, match="master node of emr-notebook has not started"):
                    main(line.removeprefix("fruits "))
                continue
            if words[1:3] == ["cluster", "stage"] and "emr-serverless" in words:
                continue  # needs the wheels: tests/stage covers it
            if words[1:3] == ["cluster", "remove"]:
                continue  # last, as the page continues with other clusters of this account
            answers.setdefault(" ".join(words[1:3]), []).append(main(line.removeprefix("fruits ")))
    # Another job in the output is found before a cluster is paid for.
    with pytest.raises(OutputError, match=r"s3://my-fruits/model contains another job:\n  images: .* stored, s3://"):
        main("fit s3://my-fruits/images/Training --out s3://my-fruits/model --cluster emr")
    for each in find_resources(Account("eu-west-3")):
        end_resource(Account("eu-west-3"), each)
    removed = main("cluster remove --region eu-west-3")
    assert [each["made"] for each in answers["cluster init"]] == [False, True]
    (doctor,) = answers["cluster doctor"]
    assert [check["name"] for check in doctor["checks"]] == re.findall(r"(?m)^   ok +([a-z ]+?)  ", PAGE)
    assert doctor["failed"] == 0
    for cost in answers["cluster cost"]:
        assert f"${cost['dollars']:.2f} (${cost['dollars_without_spot']:.2f} without Spot)" in PAGE
        assert f"{cost['dollars']:.2f} dollars with Spot, {cost['dollars_without_spot']:.2f} without" in PAGE
    assert [name.split("-")[1] for name in submitted] == ["fit", "fit", "transform", "transform"]
    assert all(f"     {line}" in PAGE for line in removed["remains"])


def test_the_costs_of_the_page_are_those_of_the_command() -> None:
    dask = main("cluster cost --cluster dask-ec2 --images 1000000 --region eu-west-3")
    assert f"{dask['minutes']:.0f} minutes, and {dask['dollars']} or {dask['dollars_without_spot']} dollars" in PROSE
    serverless = main("cluster cost --cluster emr-serverless --images 1000000 --region us-east-1")
    assert f"{serverless['minutes']:.0f} minutes and {serverless['dollars']} dollars" in PROSE


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
        assert cells[4:6] == [carried.python, "yes" if carried.brings_python else "no"]

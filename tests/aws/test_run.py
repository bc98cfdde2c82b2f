"""A job on EMR from start to end, and what is left of it, against moto's server."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, tzinfo
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID
from moto.emr.models import emr_backends
from rich.console import Console

from backends.aws import cli
from backends.aws.account import resources as cleanup
from backends.aws.account import setup
from backends.aws.account.clients import Account
from backends.aws.emr import job as emr_job
from backends.aws.emr import steps as emr_run
from backends.aws.emr.session import session_command
from backends.aws.emr.steps import Step, follow, start_step
from backends.aws.job_arguments import command_line
from backends.aws.staging.staged import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.clusters.resolve import resolve
from fruits.errors import DatasetError, InputError, JobError, SettingsError
from fruits.jobs.job import Job
from fruits.jobs.report import Report
from fruits.progress.json_log import JsonLog
from fruits.progress.reporter import Silent
from tests.aws.conftest import REGION, SECRET

EMR = EmrCluster(backend="spark", cloud="emr")
BUCKET = "my-fruits"
STAGED = StagedFiles.of(BUCKET, "3.11")
REPORT = Report("run", f"s3://{BUCKET}/out", 4, 4, {}, 0, 1, 0, {}, {}, 0.0, 2, [0.5, 0.5], {})
WORDS = ["run", f"s3://{BUCKET}/images", "--out", f"s3://{BUCKET}/out", "--cluster", "spark-yarn"]


@pytest.fixture
def ready(account: Account) -> Account:
    """Return an account for which init was run."""
    for thing in setup.needed(account, EMR, BUCKET):
        thing.make()
    return account


def begin(account: Account) -> Step:
    return start_step(account, EMR, WORDS, entry="emr", bucket=BUCKET, staged=STAGED)


def inside(job: Step) -> Any:
    """Return what moto keeps of a cluster, in whatever region: its server reads EMR's from the name of the host."""
    (found,) = (b.clusters[job.cluster] for b in emr_backends[DEFAULT_ACCOUNT_ID].values() if job.cluster in b.clusters)
    return found


def fate(account: Account, job: Step, *states: tuple[str, str], files: Iterable[tuple[str, Any]] = ()) -> Callable:
    """Return a wait that lets the cluster and its step come to the next state, and the job leave its files at last."""
    cluster = inside(job)
    (step,) = (each for each in cluster.steps if each.id == job.identifier)
    coming: Iterator[tuple[str, str]] = iter(states)
    cluster.state, step.state = "STARTING", "PENDING"

    def wait(seconds: float) -> None:
        cluster.state, step.state = next(coming)
        if step.state not in ("PENDING", "RUNNING"):
            for name, content in files:
                put(account, job, name, content)

    return wait


def put(account: Account, job: Step, name: str, content: Any) -> None:
    body = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else b""
    body = body or json.dumps(content).encode()
    account.client("s3").put_object(Bucket=BUCKET, Key=f"fruits/jobs/{job.name}/{name}", Body=body)


def test_a_job_gets_a_cluster_of_its_own_is_followed_and_ends_with_its_report(ready: Account) -> None:
    job = begin(ready)
    assert job.own
    told: list[str] = []
    logged: list[str] = []
    states = [("BOOTSTRAPPING", "PENDING"), ("RUNNING", "RUNNING"), ("TERMINATING", "COMPLETED")]
    files = [("stderr.txt", "listing\nlisting: 4 images\n"), ("result.json", {"exit_code": 0, "answer": {"rows": 4}})]
    wait = fate(ready, job, *states, files=files)
    assert follow(ready, job, tell=told.append, log=logged.append, wait=wait) == {"rows": 4}
    assert [words.partition(": ")[2] for words in told] == [
        "waiting for machines; the step is pending",
        "the nodes build their environment; the step is pending",
        "the cluster is up; the step is running",
        "the cluster is ending; the step is completed",
    ]
    assert logged == ["listing", "listing: 4 images"]


def test_a_line_of_the_log_is_shown_when_it_is_whole(ready: Account) -> None:
    job = begin(ready)
    logged: list[str] = []
    coming = fate(ready, job, ("RUNNING", "RUNNING"), ("RUNNING", "RUNNING"), ("TERMINATING", "COMPLETED"))
    texts = iter(["listing\nlisting: 4 im", "listing\nlisting: 4 images\nengi", "listing\nlisting: 4 images\nengine"])
    shown: list[int] = []

    def wait(seconds: float) -> None:
        shown.append(len(logged))
        coming(seconds)
        put(ready, job, "stderr.txt", next(texts))
        put(ready, job, "result.json", {"exit_code": 0, "answer": {"rows": 4}})

    follow(ready, job, tell=lambda text: None, log=logged.append, wait=wait)
    assert logged == ["listing", "listing: 4 images", "engine"]
    assert shown == [0, 1, 2]


def test_the_jobs_own_error_is_said_as_it_is_and_bad_input_stays_bad_input(ready: Account) -> None:
    for code, kind in ((2, InputError), (1, JobError)):
        job = begin(ready)
        answer = {"error": {"type": "X", "message": "s3://a: no image found.", "exit_code": code}}
        result = [("result.json", {"exit_code": code, "answer": answer})]
        wait = fate(ready, job, ("TERMINATING", "FAILED"), files=result)
        with pytest.raises(kind, match=r"^s3://a: no image found\.\n\(said by fruits-run-.* on j-") as caught:
            follow(ready, job, tell=print, log=print, wait=wait)
        assert isinstance(caught.value, kind)


def test_a_step_that_left_nothing_is_explained_by_emr_and_by_the_end_of_its_log(ready: Account) -> None:
    job = begin(ready)
    log = "\n".join(f"line {number}" for number in range(100))
    wait = fate(ready, job, ("TERMINATING", "FAILED"), files=[("stderr.txt", log)])
    with pytest.raises(JobError) as caught:
        follow(ready, job, tell=print, log=lambda line: None, wait=wait)
    assert "ended as failed, and the job left no result" in str(caught.value)
    assert str(caught.value).endswith("The end of its log:\n" + "\n".join(f"line {n}" for n in range(70, 100)))


def test_a_cluster_that_ends_before_its_step_ends_the_waiting(ready: Account) -> None:
    job = begin(ready)
    wait = fate(ready, job, ("TERMINATED_WITH_ERRORS", "PENDING"))
    with pytest.raises(JobError, match="left no result"):
        follow(ready, job, tell=print, log=print, wait=wait)


def test_a_job_runs_on_the_long_lived_cluster_of_the_same_name_where_it_is_up(ready: Account) -> None:
    up = emr_run.start(ready, EMR, name="emr", bucket=BUCKET, staged=STAGED)
    job = begin(ready)
    assert (job.cluster, job.own) == (up, False)
    (step,) = ready.client("emr").list_steps(ClusterId=up)["Steps"]
    assert step["ActionOnFailure"] == "CONTINUE"


def test_two_jobs_that_start_in_one_second_are_two(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stopped:
            return cls(2026, 11, 25, 12, 30, 15, tzinfo=tz)

    monkeypatch.setattr(emr_run, "datetime", Stopped)
    first, second = begin(ready), begin(ready)
    assert first.cluster != second.cluster
    assert first.folder != second.folder
    for job in (first, second):
        assert re.fullmatch(r"fruits-run-20261125-123015-[0-9a-f]{4}", job.name)
        assert [each.identifier for each in cleanup.find(ready, job.name)] == [job.cluster]


def test_a_cluster_that_cannot_be_looked_at_for_another_reason_is_told(
    ready: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(ready)

    def busy(**given: object) -> None:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Slow down."}}, "DescribeCluster")

    monkeypatch.setattr(ready.client("emr"), "describe_cluster", busy)
    with pytest.raises(JobError, match=r"Could not look up the clusters: DescribeCluster: Slow down\."):
        cleanup.find(ready)


def test_an_answer_is_asked_for_on_a_terminal_alone(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begin(ready)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    for words in (["down", "--all", "--region", REGION], ["init", "s3://new", "--region", REGION]):
        with pytest.raises(SettingsError, match=r"\? There is nobody to ask, .* Give --yes"):
            cli.call(words)
    assert [each.identifier for each in cleanup.find(ready)] == [job.cluster]

    class Interrupted(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *given: object) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        cli._confirmed("End it?")


def test_down_ends_what_the_tag_names_and_nothing_else(ready: Account) -> None:
    ec2, emr = ready.client("ec2"), ready.client("emr")
    machine = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1}
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}]
    (ours,) = ec2.run_instances(**machine, TagSpecifications=tags)["Instances"]
    (theirs,) = ec2.run_instances(**machine)["Instances"]
    foreign = emr.run_job_flow(Name="theirs", Instances={"KeepJobFlowAliveWhenNoSteps": True})["JobFlowId"]
    job = begin(ready)
    (found,) = cleanup.find(ready, job.name)
    assert (found.kind, found.identifier) == ("cluster", job.cluster)
    assert {each.identifier for each in cleanup.find(ready)} == {job.cluster, ours["InstanceId"]}
    for each in cleanup.find(ready):
        cleanup.end_found(ready, each)
    assert cleanup.find(ready) == []
    (state,) = ec2.describe_instances(InstanceIds=[theirs["InstanceId"]])["Reservations"][0]["Instances"]
    assert state["State"]["Name"] == "running"
    assert emr.describe_cluster(ClusterId=foreign)["Cluster"]["Status"]["State"] in emr_run.ACTIVE


def test_down_goes_on_when_one_thing_cannot_be_ended(
    ready: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = begin(ready)
    ec2 = ready.client("ec2")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}]
    (machine,) = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=tags)["Instances"]

    def refused(account: Account, identifier: str) -> None:
        raise JobError(f"Could not end {identifier}: it is protected.")

    monkeypatch.setattr(cleanup, "end_cluster", refused)
    answer = cli.call(["down", "--all", "--yes", "--region", REGION])
    assert answer.exit_code == 1
    assert answer.values == {
        "ended": [machine["InstanceId"]],
        "left": [job.cluster],
        "failed": {job.cluster: f"Could not end {job.cluster}: it is protected."},
    }
    answer.show(Console())
    assert "it is protected" in capsys.readouterr().out


def test_a_start_that_is_interrupted_ends_what_it_began(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ready.client("emr"), "list_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(ready)
    assert cleanup.find(ready) == []


def test_a_session_on_no_cluster_is_refused(ready: Account) -> None:
    with pytest.raises(SettingsError, match="nowhere: no such cluster is up"):
        session_command(ready, "nowhere")


def test_no_secret_is_in_what_emr_is_told(ready: Account) -> None:
    job = begin(ready)
    cluster = inside(job)
    told = repr([vars(step) for step in cluster.steps]) + repr(vars(cluster))
    assert SECRET not in told
    assert "spark-submit" in told


def test_a_job_becomes_a_command_line_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from fruits.cli import job_commands
    from fruits.cli.main import app

    jobs = {
        "run": Job(
            images="s3://a/i", out="s3://a/o", components=20, limit=7, overwrite=True, columns=("path", "label")
        ),
        "fit": Job(images="s3://a/i", out="s3://a/o", components=0.9, backbone="ResNet50", max_reject_fraction=0.5),
        "transform": Job(images="s3://a/i", out="s3://a/o", model="s3://a/m", format="csv", partition_size=64),
    }
    for command, job in jobs.items():
        asked: list[tuple[str, Job]] = []
        monkeypatch.setattr(
            job_commands, "_run_job", lambda command, job, *_, asked=asked: asked.append((command, job))
        )
        app(command_line(command, job), prog_name="fruits", standalone_mode=False)
        assert asked == [(command, job)]


def test_an_address_that_the_nodes_do_not_see_is_refused_before_anything_is_started() -> None:
    with pytest.raises(SettingsError, match=r"images photos/: the nodes of a cluster in the cloud do not see it"):
        command_line("run", Job(images="photos/", out="s3://a/o"))
    with pytest.raises(SettingsError, match="out out/"):
        command_line("run", Job(images="s3://a/i", out="out/"))


@pytest.mark.parametrize(
    ("backbone", "weights", "files"),
    [(None, [], 3), ("ResNet50", ["--weights", f"{STAGED.weights}/ResNet50.safetensors"], 4)],
)
def test_a_job_asked_for_here_is_staged_started_and_followed(
    backbone: str | None,
    weights: list[str],
    files: int,
    ready: Account,
    small_wheelhouse: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed: list[Step] = []

    def follow(account: Account, job: Step, **more: object) -> dict[str, Any]:
        followed.append(job)
        return dataclasses.asdict(REPORT)

    monkeypatch.setattr(emr_job, "follow", follow)
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    with pytest.raises(DatasetError, match=r"images: no such folder"):
        emr_job.run_job("run", job, resolve(cluster="emr", environ={}), Noted())
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/notes.txt", Body=b"nothing")
    with pytest.raises(DatasetError, match="no image found"):
        emr_job.run_job("run", job, resolve(cluster="emr", environ={}), Noted())
    assert cleanup.find(ready) == []
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out", components=20, backbone=backbone)
    told = Noted()
    assert emr_job.run_job("run", job, resolve(cluster="emr", environ={}), told) == REPORT
    args = list(inside(followed[0]).steps[0].args)
    assert args[:3] == ["spark-submit", "--deploy-mode", "cluster"]
    assert args[3:5] == [STAGED.step, followed[0].folder]
    assert json.loads(args[5]) == {"endpoint": ready.client("s3").meta.endpoint_url}
    assert args[6:] == [*command_line("run", job), *weights, "--cluster", "spark-yarn"]
    assert any(f"uploading {files} of {files} files" in words for words in told.notes)
    told.notes.clear()
    emr_job.run_job("run", job, resolve(cluster="emr", environ={}), told)
    assert not any("uploading" in words for words in told.notes)


def test_a_log_for_programs_has_the_events_of_the_job_on_emr(
    ready: Account, small_wheelhouse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = {"time": "2026-02-03T02:05:06.007Z", "level": "info", "event": "partition", "index": 3}

    def follow(account: Account, job: Step, *, tell: Callable[[str], None], log: Callable[[str], None]) -> Any:
        assert inside(job).steps[0].args[-1] == "--log-json"
        tell("the cluster is up")
        for line in (json.dumps(event), "WARN a library says something"):
            log(line)
        return dataclasses.asdict(REPORT)

    monkeypatch.setattr(emr_job, "follow", follow)
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    stream = io.StringIO()
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    emr_job.run_job("run", job, resolve(cluster="emr", environ={}), JsonLog(stream))
    *_, up, partition, library = map(json.loads, stream.getvalue().splitlines())
    assert partition == event
    assert [(line["event"], line["message"]) for line in (up, library)] == [
        ("note", "the cluster is up"),
        ("note", "WARN a library says something"),
    ]


def test_ctrl_c_without_a_terminal_ends_the_cluster_of_the_job(
    ready: Account, small_wheelhouse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(emr_job, "follow", interrupted)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    with pytest.raises(KeyboardInterrupt):
        emr_job.run_job("run", job, resolve(cluster="emr", environ={}), Noted())
    assert cleanup.find(ready) == []


def test_ctrl_c_on_a_terminal_asks_whether_to_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for said, left in (("y\n", True), ("n\n", False), ("\n", False), ("", False)):
        monkeypatch.setattr("sys.stdin", Terminal(said))
        assert emr_run.asked_to_leave(Step("j-1", "s-1", "name", "s3://a/b", own=True)) is left


class Noted(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

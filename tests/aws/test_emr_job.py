"""Jobs on EMR against moto's server: start, follow, failures, and the end of resources."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, tzinfo
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.validate import ParamValidator
from moto.core import DEFAULT_ACCOUNT_ID
from moto.emr.models import emr_backends

from backends.aws import cli, cli_output, job_arguments
from backends.aws.account import resources
from backends.aws.account.clients import Account
from backends.aws.account.preflight import QUOTAS, check_quotas
from backends.aws.emr import clusters, submitted
from backends.aws.emr import job as emr_job
from backends.aws.emr.job import Step, submit_step
from backends.aws.emr.releases import DEFAULT, release
from backends.aws.emr.session import session_command
from backends.aws.emr.submitted import SubmittedJob, confirm_leaving
from backends.aws.job_arguments import command_line
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.clusters.resolve import resolve
from fruits.errors import DatasetError, InputError, JobError, SettingsError
from fruits.jobs.job import Job
from fruits.jobs.report import Report
from fruits.progress.console import SafeConsole
from fruits.progress.json_log import JsonLog
from fruits.progress.reporter import Silent
from tests.aws.conftest import REGION, SECRET

EMR = EmrCluster(backend="spark", cloud="emr")
BUCKET = "my-fruits"
STAGED = StagedFiles.for_release(BUCKET, release(DEFAULT))
JOB = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
REPORT = Report("run", f"s3://{BUCKET}/out", 4, 4, {}, 0, 1, 0, {}, {}, 0.0, 2, [0.5, 0.5], {})
ARGUMENTS = ["run", f"s3://{BUCKET}/images", "--out", f"s3://{BUCKET}/out", "--cluster", "spark-yarn"]


@pytest.fixture
def ready(installed: Account) -> Account:
    """Return an account after ``init``."""
    return installed


def submit(account: Account, *more: str) -> SubmittedJob:
    return submit_step(account, EMR, [*ARGUMENTS, *more], entry="emr", staged=STAGED, notify=print)


def moto_cluster(job: SubmittedJob) -> Any:
    """Return moto's record of a cluster in any region; moto takes EMR's region from the host name."""
    (found,) = (b.clusters[job.cluster] for b in emr_backends[DEFAULT_ACCOUNT_ID].values() if job.cluster in b.clusters)
    return found


def play(
    account: Account, job: SubmittedJob, *states: tuple[str, str], files: Iterable[tuple[str, Any]] = ()
) -> Callable:
    """Return a wait function that moves cluster and step to the next state, and writes the files at the end."""
    cluster = moto_cluster(job)
    (step,) = (each for each in cluster.steps if each.id == job.identifier)
    coming: Iterator[tuple[str, str]] = iter(states)
    cluster.state, step.state = "STARTING", "PENDING"

    def wait(seconds: float) -> None:
        cluster.state, step.state = next(coming)
        if step.state not in ("PENDING", "RUNNING"):
            for name, content in files:
                put(account, job, name, content)

    return wait


def put(account: Account, job: SubmittedJob, name: str, content: Any) -> None:
    body = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else b""
    body = body or json.dumps(content).encode()
    account.client("s3").put_object(Bucket=BUCKET, Key=f"fruits/jobs/{job.name}/{name}", Body=body)


def test_a_job_starts_its_own_cluster_and_returns_its_report(ready: Account) -> None:
    job = submit(ready)
    assert job.owner == job.name
    messages: list[str] = []
    logged: list[str] = []
    states = [("BOOTSTRAPPING", "PENDING"), ("RUNNING", "RUNNING"), ("TERMINATING", "COMPLETED")]
    files = [("stderr.txt", "listing\nlisting: 4 images\n"), ("result.json", {"exit_code": 0, "answer": {"rows": 4}})]
    wait = play(ready, job, *states, files=files)
    assert submitted.follow(job, notify=messages.append, log=logged.append, wait=wait) == {"rows": 4}
    assert [message.partition(": ")[2] for message in messages] == [
        "waiting for instances; the step is pending",
        "the nodes build their environment; the step is pending",
        "the cluster is running; the step is running",
        "the cluster is shutting down; the step is completed",
    ]
    assert logged == ["listing", "listing: 4 images"]


def test_an_incomplete_line_of_the_log_is_not_shown(ready: Account) -> None:
    job = submit(ready)
    logged: list[str] = []
    coming = play(ready, job, ("RUNNING", "RUNNING"), ("RUNNING", "RUNNING"), ("TERMINATING", "COMPLETED"))
    texts = iter(["listing\nlisting: 4 im", "listing\nlisting: 4 images\nengi", "listing\nlisting: 4 images\nengine"])
    shown: list[int] = []

    def wait(seconds: float) -> None:
        shown.append(len(logged))
        coming(seconds)
        put(ready, job, "stderr.txt", next(texts))
        put(ready, job, "result.json", {"exit_code": 0, "answer": {"rows": 4}})

    submitted.follow(job, notify=lambda text: None, log=logged.append, wait=wait)
    assert logged == ["listing", "listing: 4 images", "engine"]
    assert shown == [0, 1, 2]


def test_the_error_of_the_job_is_raised_with_its_kind(ready: Account) -> None:
    for code, kind in ((2, InputError), (1, JobError)):
        job = submit(ready, f"--seed={code}")
        answer = {"error": {"type": "X", "message": "s3://a: no image found.", "exit_code": code}}
        result = [("result.json", {"exit_code": code, "answer": answer})]
        wait = play(ready, job, ("TERMINATING", "FAILED"), files=result)
        with pytest.raises(kind, match=r"^s3://a: no image found\.\n\(Error of fruits-run-.* on j-") as caught:
            submitted.follow(job, notify=print, log=print, wait=wait)
        assert isinstance(caught.value, kind)


def test_a_step_without_a_result_is_reported_with_the_end_of_its_log(ready: Account) -> None:
    job = submit(ready)
    log = "\n".join(f"line {number}" for number in range(100))
    wait = play(ready, job, ("TERMINATING", "FAILED"), files=[("stderr.txt", log)])
    with pytest.raises(JobError) as caught:
        submitted.follow(job, notify=print, log=lambda line: None, wait=wait)
    assert "has ended without a result (the cluster is shutting down; the step is failed)" in str(caught.value)
    assert str(caught.value).endswith("The end of its log:\n" + "\n".join(f"line {n}" for n in range(70, 100)))


def test_a_cluster_that_ends_before_its_step_fails_the_job(ready: Account) -> None:
    job = submit(ready)
    wait = play(ready, job, ("TERMINATED_WITH_ERRORS", "PENDING"))
    with pytest.raises(JobError, match=r"without a result \(the cluster has failed; the step is pending\)"):
        submitted.follow(job, notify=print, log=print, wait=wait)


def test_a_job_runs_on_the_active_long_lived_cluster_of_that_name(ready: Account) -> None:
    up = clusters.start_cluster(ready, EMR, name="emr", staged=STAGED, notify=print)
    job = submit(ready)
    assert (job.cluster, job.owner) == (up, "emr")
    (step,) = ready.client("emr").list_steps(ClusterId=up)["Steps"]
    assert step["ActionOnFailure"] == "CONTINUE"


def test_the_same_command_follows_its_running_job(ready: Account) -> None:
    job = submit(ready)
    notes: list[str] = []
    more: dict[str, Any] = {"entry": "emr", "staged": STAGED, "notify": notes.append}
    assert submit_step(ready, EMR, ARGUMENTS, **more) == job
    assert len(resources.find_resources(ready)) == 1
    assert notes == [
        f"{job.name} runs already on {job.cluster}, with the same arguments; following it. "
        f"To start anew, end it first: fruits cluster down {job.name} --region {REGION}"
    ]
    other = submit_step(ready, EMR, [*ARGUMENTS, "--limit", "5"], **more)
    assert other.cluster != job.cluster


def test_the_same_command_follows_its_step_on_a_long_lived_cluster(ready: Account) -> None:
    clusters.start_cluster(ready, EMR, name="emr", staged=STAGED, notify=print)
    job = submit(ready)
    assert submit(ready) == job
    assert job.down == f"fruits cluster down emr --region {REGION}"
    moto_cluster(job).steps[0].state = "COMPLETED"
    assert submit(ready).identifier != job.identifier


def test_a_lost_connection_names_the_job_that_continues(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(ready)
    monkeypatch.setattr(ready.client("emr"), "describe_step", lost)
    with pytest.raises(JobError, match=rf"{job.name} continues on {job.cluster}\. The same command follows it again"):
        submitted.follow(job, notify=print, log=print)
    assert [each.identifier for each in resources.find_resources(ready)] == [job.cluster]


def lost(**given: object) -> None:
    raise EndpointConnectionError(endpoint_url="https://elasticmapreduce.eu-west-3.amazonaws.com")


def test_sigterm_names_the_job_that_continues(
    ready: Account, small_wheelhouse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminated(BaseException):
        pass

    def stopped(*given: object, **more: object) -> None:
        raise Terminated

    monkeypatch.setattr(submitted, "follow", stopped)
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    progress = Recorder()
    with pytest.raises(Terminated):
        emr_job.run_job("run", JOB, resolve(cluster="emr", environ={}), progress)
    (found,) = resources.find_resources(ready)
    assert f"{found.name} continues on {found.identifier}. The same command follows it again" in progress.notes[-1]


def test_ctrl_c_cancels_the_step_on_a_long_lived_cluster(
    ready: Account, small_wheelhouse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = clusters.start_cluster(ready, EMR, name="emr", staged=STAGED, notify=print)
    sent: list[dict[str, Any]] = []
    make = botocore.client.BaseClient._make_api_call

    def recorded(self: Any, operation: str, given: dict[str, Any]) -> Any:  # moto cannot cancel steps
        if operation != "CancelSteps":
            return make(self, operation, given)
        shape = self.meta.service_model.operation_model(operation).input_shape
        assert ParamValidator().validate(given, shape).generate_report() == ""
        return sent.append(given)

    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    monkeypatch.setattr(submitted, "follow", interrupted)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    with pytest.raises(KeyboardInterrupt):
        emr_job.run_job("run", JOB, resolve(cluster="emr", environ={}), Recorder())
    assert [each["ClusterId"] for each in sent] == [up]
    assert [each.identifier for each in resources.find_resources(ready)] == [up]


def test_a_cluster_beyond_the_quotas_is_refused_with_a_shape_that_fits(
    ready: Account, quotas: dict[str, float]
) -> None:
    on_demand, spot = QUOTAS.values()
    quotas |= {on_demand: 5, spot: 5}  # those of a new account
    with pytest.raises(SettingsError) as caught:
        submit(ready)
    message = str(caught.value)
    assert (
        "12 on-demand vCPUs, but the quota L-1216C47A is 5, and 16 Spot vCPUs, but the quota L-34B43A08 is 5" in message
    )
    assert "--quota-code L-1216C47A --desired-value 12" in message
    assert "master_type: m7i.xlarge, core_nodes: 0, task_nodes: 0" in message
    assert resources.find_resources(ready) == []
    fitting = EmrCluster(backend="spark", cloud="emr", core_nodes=0, task_nodes=0)
    check_quotas(ready, fitting, print)
    quotas |= {on_demand: 8}
    with pytest.raises(SettingsError, match=r"worker_types: \[m7i.xlarge\], core_nodes: 1, task_nodes: 1\."):
        submit(ready)
    shape = {"master_type": "m7i.xlarge", "worker_types": ["m7i.xlarge"], "core_nodes": 1, "task_nodes": 1}
    check_quotas(ready, EmrCluster(backend="spark", cloud="emr", **shape), print)
    wrong = EmrCluster(backend="spark", cloud="emr", worker_types=["z9.xlarge"])
    with pytest.raises(SettingsError, match=r"instance types m7i.xlarge, z9.xlarge of cluster.yaml in eu-west-3: .*z9"):
        check_quotas(ready, wrong, print)
    quotas.clear()  # not readable: not checked, and said so
    notes: list[str] = []
    check_quotas(ready, EMR, notes.append)
    assert len(notes) == 2


def test_jobs_of_the_same_second_have_different_names(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stopped:
            return cls(2026, 11, 25, 12, 30, 15, tzinfo=tz)

    monkeypatch.setattr(job_arguments, "datetime", Stopped)
    first = submit(ready)
    moto_cluster(first).steps[0].state = "FAILED"
    second = submit(ready)
    assert first.cluster != second.cluster
    assert first.folder != second.folder
    for job in (first, second):
        assert re.fullmatch(r"fruits-run-[0-9a-f]{8}-20261125-123015-[0-9a-f]{4}", job.name)
        assert [each.identifier for each in resources.find_resources(ready, job.name)] == [job.cluster]


def test_a_cluster_that_cannot_be_described_is_an_error(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(ready)

    def busy(**given: object) -> None:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Slow down."}}, "DescribeCluster")

    monkeypatch.setattr(ready.client("emr"), "describe_cluster", busy)
    with pytest.raises(JobError, match=r"Could not look up the clusters: DescribeCluster: Slow down\."):
        resources.find_resources(ready)


def test_questions_need_a_terminal(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(ready)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    for arguments in (["down", "--all", "--region", REGION], ["init", "s3://new", "--region", REGION]):
        with pytest.raises(SettingsError, match=r"\? Cannot ask: stdin is not a terminal\. Give --yes"):
            cli.call(arguments)
    assert [each.identifier for each in resources.find_resources(ready)] == [job.cluster]

    class Interrupted(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *given: object) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        cli_output.confirm("End it?")


def test_down_ends_tagged_resources_only(ready: Account) -> None:
    ec2, emr = ready.client("ec2"), ready.client("emr")
    machine = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1}
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}]
    (tagged,) = ec2.run_instances(**machine, TagSpecifications=tags)["Instances"]
    (untagged,) = ec2.run_instances(**machine)["Instances"]
    foreign = emr.run_job_flow(Name="theirs", Instances={"KeepJobFlowAliveWhenNoSteps": True})["JobFlowId"]
    job = submit(ready)
    (found,) = resources.find_resources(ready, job.name)
    assert (found.kind, found.identifier) == ("cluster", job.cluster)
    assert {each.identifier for each in resources.find_resources(ready)} == {job.cluster, tagged["InstanceId"]}
    for each in resources.find_resources(ready):
        resources.end_resource(ready, each)
    assert resources.find_resources(ready) == []
    (state,) = ec2.describe_instances(InstanceIds=[untagged["InstanceId"]])["Reservations"][0]["Instances"]
    assert state["State"]["Name"] == "running"
    assert emr.describe_cluster(ClusterId=foreign)["Cluster"]["Status"]["State"] in clusters.ACTIVE


def test_down_continues_after_a_failure(
    ready: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = submit(ready)
    ec2 = ready.client("ec2")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fruits", "Value": "other"}]}]
    (machine,) = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=tags)["Instances"]

    def refused(account: Account, identifier: str) -> None:
        raise JobError(f"Could not end {identifier}: it is protected.")

    monkeypatch.setattr(resources, "end_cluster", refused)
    answer = cli.call(["down", "--all", "--yes", "--region", REGION])
    assert answer.exit_code == 1
    assert answer.values == {
        "ended": [machine["InstanceId"]],
        "left": [job.cluster],
        "failed": {job.cluster: f"Could not end {job.cluster}: it is protected."},
    }
    answer.show(SafeConsole())
    assert "it is protected" in capsys.readouterr().out


def test_an_interrupted_submission_ends_its_cluster(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ready.client("emr"), "list_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit(ready)
    assert resources.find_resources(ready) == []


def test_a_session_needs_a_running_cluster(ready: Account) -> None:
    with pytest.raises(SettingsError, match="nowhere: no such cluster is running"):
        session_command(ready, "nowhere")


def test_requests_to_emr_contain_no_secret(ready: Account) -> None:
    job = submit(ready)
    cluster = moto_cluster(job)
    recorded = repr([vars(step) for step in cluster.steps]) + repr(vars(cluster))
    assert SECRET not in recorded
    assert "spark-submit" in recorded


def test_a_job_survives_the_round_trip_through_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from fruits.cli import job_commands
    from fruits.cli.main import app

    jobs = {
        "run": Job(
            images="s3://a/i", out="s3://a/o", components=20, limit=7, overwrite=True, columns=("path", "label")
        ),
        "fit": Job(images="s3://a/i", out="s3://a/o", components=0.9, backbone="ResNet50", max_reject_fraction=0.5),
        "transform": Job(
            images="s3://a/i", out="s3://a/o", model="s3://a/m", format="csv", sample=9, seed=3, report=False
        ),
    }
    for command, job in jobs.items():
        asked: list[tuple[str, Job]] = []
        monkeypatch.setattr(
            job_commands, "_run_job", lambda command, job, *_, asked=asked: asked.append((command, job))
        )
        app(command_line(command, job), prog_name="fruits", standalone_mode=False)
        assert asked == [(command, job)]


def test_local_paths_are_rejected() -> None:
    with pytest.raises(SettingsError, match=r"images photos/: a local path, which the nodes"):
        command_line("run", Job(images="photos/", out="s3://a/o"))
    with pytest.raises(SettingsError, match="out out/"):
        command_line("run", Job(images="s3://a/i", out="out/"))


@pytest.mark.parametrize(
    ("backbone", "weights", "files"),
    [(None, [], 3), ("ResNet50", ["--weights", f"{STAGED.weights}/ResNet50.safetensors"], 4)],
)
def test_run_job_checks_stages_submits_and_follows(
    backbone: str | None,
    weights: list[str],
    files: int,
    ready: Account,
    small_wheelhouse: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed: list[SubmittedJob] = []

    def follow(job: SubmittedJob, **more: object) -> dict[str, Any]:
        followed.append(job)
        return dataclasses.asdict(REPORT)

    monkeypatch.setattr(submitted, "follow", follow)
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    with pytest.raises(DatasetError, match=r"images: no such folder"):
        emr_job.run_job("run", job, resolve(cluster="emr", environ={}), Recorder())
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/notes.txt", Body=b"nothing")
    with pytest.raises(DatasetError, match="no image found"):
        emr_job.run_job("run", job, resolve(cluster="emr", environ={}), Recorder())
    assert resources.find_resources(ready) == []
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out", components=20, backbone=backbone)
    progress = Recorder()
    assert emr_job.run_job("run", job, resolve(cluster="emr", environ={}), progress) == REPORT
    args = list(moto_cluster(followed[0]).steps[0].args)
    assert args[:3] == ["spark-submit", "--deploy-mode", "cluster"]
    assert args[3:5] == [STAGED.step, followed[0].folder]
    assert json.loads(args[5]) == {"endpoint": ready.client("s3").meta.endpoint_url}
    assert args[6:] == [*command_line("run", job), *weights, "--cluster", "spark-yarn"]
    assert any(f"uploading {files} of {files} files" in note for note in progress.notes)
    progress.notes.clear()
    emr_job.run_job("run", job, resolve(cluster="emr", environ={}), progress)
    assert not any("uploading" in note for note in progress.notes)


def test_the_json_log_relays_the_events_of_the_job(
    ready: Account, small_wheelhouse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = {"time": "2026-02-03T02:05:06.007Z", "level": "info", "event": "partition", "index": 3}

    def follow(job: SubmittedJob, *, notify: Callable[[str], None], log: Callable[[str], None]) -> Any:
        assert moto_cluster(job).steps[0].args[-1] == "--log-json"
        notify("the cluster is running")
        for line in (json.dumps(event), "WARN a library message"):
            log(line)
        return dataclasses.asdict(REPORT)

    monkeypatch.setattr(submitted, "follow", follow)
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    stream = io.StringIO()
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    emr_job.run_job("run", job, resolve(cluster="emr", environ={}), JsonLog(stream))
    *_, up, partition, library = map(json.loads, stream.getvalue().splitlines())
    assert partition == event
    assert [(line["event"], line["message"]) for line in (up, library)] == [
        ("note", "the cluster is running"),
        ("note", "WARN a library message"),
    ]


def test_ctrl_c_without_a_terminal_ends_the_cluster(
    ready: Account, small_wheelhouse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submitted, "follow", interrupted)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ready.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    job = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
    with pytest.raises(KeyboardInterrupt):
        emr_job.run_job("run", job, resolve(cluster="emr", environ={}), Recorder())
    assert resources.find_resources(ready) == []


def test_ctrl_c_on_a_terminal_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    job = Step(Account(REGION), "name", BUCKET, "j-1", "s-1", "name")
    for answer, leave in (("y\n", True), ("n\n", False), ("\n", False), ("", False)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert confirm_leaving(job) is leave

    def again(self: Terminal) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Terminal, "readline", again)
    assert confirm_leaving(job) is False


class Recorder(Silent):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

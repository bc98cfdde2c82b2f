"""Jobs on EMR Serverless: requests against botocore's models, and runs against moto's server."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import botocore.client
import botocore.session
import pytest
from botocore.validate import ParamValidator
from moto.core import DEFAULT_ACCOUNT_ID
from moto.emrserverless.models import EMRServerlessBackend, emrserverless_backends

from backends.aws import serverless
from backends.aws.account import resources
from backends.aws.account.clients import Account
from backends.aws.account.stack import Installed
from backends.aws.emr import submitted
from backends.aws.emr.emr_step import SUBMITTED
from backends.aws.emr.releases import DEFAULT, release, release_of
from backends.aws.staging import stage as staging
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrServerlessCluster
from fruits.clusters.resolve import resolve
from fruits.errors import InputError, JobError, SettingsError
from fruits.jobs.job import Job
from fruits.jobs.report import Report
from fruits.progress.reporter import Silent
from tests.aws.conftest import REGION
from tests.aws.iam import BUCKET, action, document, enforce

SETTINGS = EmrServerlessCluster(backend="spark", cloud="emr-serverless", conf={"spark.speculation": "true"})
STAGED = StagedFiles.for_release(BUCKET, release(DEFAULT))
JOB = Job(images=f"s3://{BUCKET}/images", out=f"s3://{BUCKET}/out")
REPORT = Report("run", f"s3://{BUCKET}/out", 4, 4, {}, 0, 1, 0, {}, {}, 0.0, 2, [0.5, 0.5], {})


def job_request() -> dict[str, Any]:
    return serverless.job_request(
        SETTINGS,
        "x",
        application="00abc",
        installed=Installed(REGION, DEFAULT_ACCOUNT_ID),
        staged=STAGED,
        arguments=["run", f"s3://{BUCKET}/images"],
    )


@pytest.mark.parametrize(
    ("operation", "request_"),
    [("CreateApplication", serverless.application_request(SETTINGS, "mine")), ("StartJobRun", job_request())],
)
def test_requests_are_valid(operation: str, request_: dict[str, Any]) -> None:
    service = botocore.session.get_session().get_service_model("emr-serverless")
    shape = service.operation_model(operation).input_shape
    token = {"clientToken": "x"}  # botocore adds it
    assert ParamValidator().validate(request_ | token, shape).generate_report() == ""
    assert ParamValidator().validate(request_ | token | {"relaseLabel": "x"}, shape).generate_report()


def test_a_job_runs_in_the_archive_and_ends_after_its_hours() -> None:
    request = job_request()
    assert request["executionTimeoutMinutes"] == 720
    assert request["executionRoleArn"] == f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/fruits-serverless-{REGION}"
    submit = request["jobDriver"]["sparkSubmit"]
    conf = dict(
        each.split("=", 1) for each in submit["sparkSubmitParameters"].removeprefix("--conf ").split(" --conf ")
    )
    assert conf["spark.archives"] == f"{STAGED.environment}#environment"
    for name in ("spark.executorEnv.PYSPARK_PYTHON", "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON"):
        assert conf[name] == "./environment/bin/python3.11"
    assert conf["spark.speculation"] == "true"
    assert submit["entryPointArguments"][0] == f"s3://{BUCKET}/fruits/jobs/x"
    logs = request["configurationOverrides"]["monitoringConfiguration"]["cloudWatchLoggingConfiguration"]
    assert logs["logGroupName"] == f"/fruits/{REGION}"


class Recorder(Silent):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def ready(installed: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return an account after ``init`` and ``stage``, in which the user policy is enforced."""
    monkeypatch.setattr(staging, "is_staged", lambda *_, **__: True)  # tests/stage builds the archive
    monkeypatch.setenv("AWS_REGION", REGION)
    installed.client("s3").put_object(Bucket=BUCKET, Key="images/apple/a.jpg", Body=b"picture")
    create = EMRServerlessBackend.create_application

    def with_no_runs(self: EMRServerlessBackend, *given: Any, **more: Any) -> Any:
        application = create(self, *given, **more)
        self.job_runs.setdefault(application.id, [])  # moto rejects a list of runs before the first one
        return application

    start = EMRServerlessBackend.start_job_run

    def pending(self: EMRServerlessBackend, *given: Any, **more: Any) -> Any:
        job_run = start(self, *given, **more)
        job_run.state = "PENDING"  # moto's runs have ended when they start
        return job_run

    monkeypatch.setattr(EMRServerlessBackend, "create_application", with_no_runs)
    monkeypatch.setattr(EMRServerlessBackend, "start_job_run", pending)
    enforce(monkeypatch, document("UserPolicy"))
    return installed


def runs() -> list[Any]:
    """Return moto's records of the job runs in the region."""
    return [run for each in emrserverless_backends[DEFAULT_ACCOUNT_ID][REGION].job_runs.values() for run in each]


def play(patch: pytest.MonkeyPatch, account: Account, *states: str, answer: Any = None) -> None:
    """Move the job to the next state at each wait, and write its result before the last."""
    coming = iter(states)

    def wait(seconds: float) -> None:
        (run,) = (each for each in runs() if each.state not in serverless.ENDED)
        run.state = next(coming)
        if run.state in serverless.ENDED and answer is not None:
            folder = run.job_driver["sparkSubmit"]["entryPointArguments"][0].removeprefix(f"s3://{BUCKET}/")
            s3 = account.client("s3")
            s3.put_object(Bucket=BUCKET, Key=f"{folder}/stderr.txt", Body=b"listing: 4 images\n")
            s3.put_object(Bucket=BUCKET, Key=f"{folder}/result.json", Body=json.dumps(answer).encode())

    patch.setattr(submitted.time, "sleep", wait)


def run(progress: Recorder) -> Any:
    return serverless.run_job("run", JOB, resolve(cluster="emr-serverless", environ={}), progress)


def test_a_job_creates_its_application_once_and_returns_its_report(
    ready: Account, called: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Recorder()
    for _ in range(2):
        answer = {"exit_code": 0, "answer": dataclasses.asdict(REPORT)}
        play(monkeypatch, ready, "SCHEDULED", "RUNNING", "SUCCESS", answer=answer)
        assert run(progress) == REPORT
    (application,) = ready.client("emr-serverless").list_applications()["applications"]
    assert application["name"] == "fruits-emr-serverless"
    assert len(runs()) == 2
    arguments = runs()[0].job_driver["sparkSubmit"]["entryPointArguments"]
    assert arguments[-2:] == ["--cluster", SUBMITTED]
    assert "listing: 4 images" in progress.notes
    assert any(note.endswith(": running") for note in progress.notes)
    allowed = {name for each in document("UserPolicy")["Statement"] for name in each["Action"]}
    assert {action(*each) for each in called} - allowed == set()


def test_errors_of_the_job_and_of_the_service_are_raised(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"exit_code": 2, "answer": {"error": {"message": "s3://a: no image found.", "exit_code": 2}}}
    play(monkeypatch, ready, "FAILED", answer=error)
    with pytest.raises(InputError, match=r"^s3://a: no image found\."):
        run(Recorder())
    play(monkeypatch, ready, "FAILED")
    with pytest.raises(JobError, match=r"has ended without a result \(failed\)"):
        run(Recorder())


def test_the_same_command_follows_its_running_job(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise ConnectionAbortedError

    monkeypatch.setattr(submitted.time, "sleep", interrupted)
    with pytest.raises(ConnectionAbortedError):
        run(Recorder())
    (found,) = resources.find_resources(ready)
    assert found.kind == "job run"
    play(monkeypatch, ready, "SUCCESS", answer={"exit_code": 0, "answer": dataclasses.asdict(REPORT)})
    progress = Recorder()
    assert run(progress) == REPORT
    assert progress.notes[0].startswith(f"{found.name} runs already on {found.detail}, with the same arguments;")
    assert len(runs()) == 1


def test_ctrl_c_without_a_terminal_and_down_cancel_the_job(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr(submitted.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(Recorder())
    assert [each.state for each in runs()] == ["CANCELLED"]
    assert resources.find_resources(ready) == []


def test_the_release_of_the_original_chain_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"emr-6\.9\.0: not available on EMR Serverless here\. Allowed: emr-7"):
        release_of(SETTINGS.model_copy(update={"release": "emr-6.9.0"}))


def test_a_missing_python_archive_is_named(ready: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "is_staged", lambda *_, **__: False)
    with pytest.raises(SettingsError, match=r"stage it once: fruits cluster stage .*--python-archive FILE"):
        run(Recorder())
    assert runs() == []

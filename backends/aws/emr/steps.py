"""Steps of EMR: submit a job as a step, follow it to its end, and read its log."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.tags import TAG
from backends.aws.emr.clusters import ACTIVE, end_cluster, find_cluster, list_clusters, start_cluster
from backends.aws.emr.emr_step import LOG, RESULT
from backends.aws.emr.request import step_request
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.errors import FruitsError, InputError, JobError, SettingsError
from fruits.storage.s3.settings import S3Settings

__all__ = [
    "SubmittedStep",
    "confirm_leaving",
    "follow_step",
    "job_prefix",
    "new_lines",
    "outcome",
    "read_log",
    "read_text",
    "submit_step",
]

DONE = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")
POLL_SECONDS = 10.0
TAIL_LINES = 30  # of the log, in the message about a failed step
CLUSTER_STATES = {
    "STARTING": "waiting for instances",
    "BOOTSTRAPPING": "the nodes build their environment",
    "RUNNING": "the cluster is running",
    "WAITING": "the cluster is idle",
    "TERMINATING": "the cluster is shutting down",
}


@dataclass(frozen=True, slots=True)
class SubmittedStep:
    """A job that was submitted to EMR.

    Attributes
    ----------
    cluster, identifier : str
        EMR's identifiers of the cluster and of the step.
    name : str
        The name of the job; the tag of its own cluster.
    folder : str
        The address of the folder with the log and the result.
    own : bool
        Whether the cluster was started for this job and ends with it.
    """

    cluster: str
    identifier: str
    name: str
    folder: str
    own: bool


def job_prefix(arguments: Sequence[str]) -> str:
    """Return the start of the name of every job with these arguments, by which a running one is found again."""
    return f"fruits-{arguments[0]}-{sha256(json.dumps(list(arguments)).encode()).hexdigest()[:8]}"


def submit_step(
    account: Account,
    settings: EmrCluster,
    arguments: Sequence[str],
    *,
    entry: str,
    bucket: str,
    staged: StagedFiles,
    notify: Callable[[str], None],
) -> SubmittedStep:
    """Submit a job to the long-lived cluster with the name `entry` if it is active, or else to a new cluster.

    A job with the same arguments that is running already, as after a lost connection, is returned instead.

    Parameters
    ----------
    account : Account
    settings : EmrCluster
    arguments : sequence of str
        The arguments of ``fruits``.
    entry : str
        The name of the cluster in ``cluster.yaml``.
    bucket : str
        Without ``s3://``.
    staged : StagedFiles
    notify : callable
        Receives messages.
    """
    for running in _running(account, job_prefix(arguments), entry, bucket):
        notify(
            f"{running.name} runs already on {running.cluster}, with the same arguments; following it. "
            f"To start anew, end it first: fruits cluster down {running.name}"
        )
        return running
    name = f"{job_prefix(arguments)}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
    folder = _folder(bucket, name)
    s3 = S3Settings.from_environment()
    request = step_request(name, staged=staged, folder=folder, s3=s3, arguments=arguments)
    emr = account.client("emr")
    active = find_cluster(account, entry)
    if active is not None:
        with translated_errors(f"add the job to the cluster {entry}"):
            added = emr.add_job_flow_steps(JobFlowId=active["Id"], Steps=[request | {"ActionOnFailure": "CONTINUE"}])
        return SubmittedStep(active["Id"], added["StepIds"][0], name, folder, own=False)
    cluster = start_cluster(account, settings, name=name, bucket=bucket, staged=staged, steps=[request], notify=notify)
    try:
        with translated_errors("look up the step"):
            identifier = emr.list_steps(ClusterId=cluster)["Steps"][0]["Id"]
    except BaseException:
        end_cluster(account, cluster)
        raise
    return SubmittedStep(cluster, identifier, name, folder, own=True)


def _running(account: Account, prefix: str, entry: str, bucket: str) -> Iterator[SubmittedStep]:
    """Yield the steps that have not ended, and whose names start with a prefix."""
    for cluster in list_clusters(account):
        own = str(cluster["Tags"][TAG]).startswith(prefix)
        if cluster["Status"]["State"] in ACTIVE and (own or cluster["Tags"][TAG] == entry):
            with translated_errors("look up the steps"):
                pages = account.client("emr").get_paginator("list_steps").paginate(ClusterId=cluster["Id"])
                steps = [step for page in pages for step in page["Steps"]]
            for step in steps:
                if str(step["Name"]).startswith(prefix) and step["Status"]["State"] not in DONE:
                    yield SubmittedStep(cluster["Id"], step["Id"], step["Name"], _folder(bucket, step["Name"]), own)


def _folder(bucket: str, name: str) -> str:
    return f"s3://{bucket}/fruits/jobs/{name}"


def follow_step(
    account: Account,
    step: SubmittedStep,
    *,
    notify: Callable[[str], None],
    log: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait for the end of a step, and return the report of its job.

    Parameters
    ----------
    account : Account
    step : SubmittedStep
    notify : callable
        Receives a message for each new state of the cluster and the step.
    log : callable
        Receives each line of the job's log.
    wait : callable, default ``time.sleep``
        Waits for a number of seconds.

    Raises
    ------
    InputError
        The job has reported bad input.
    JobError
        The job or the cluster failed.
    """
    emr = account.client("emr")
    last_message, seen = "", 0
    while True:
        try:
            with translated_errors("look up the cluster and its step"):
                cluster = emr.describe_cluster(ClusterId=step.cluster)["Cluster"]["Status"]
                status = emr.describe_step(ClusterId=step.cluster, StepId=step.identifier)["Step"]["Status"]
            text = read_text(account, f"{step.folder}/{LOG}") or ""
        except FruitsError as error:
            raise type(error)(
                f"{error}\n{step.name} continues on {step.cluster}. The same command follows it again; to end it: "
                f"fruits cluster down {step.name if step.own else step.cluster}"
            ) from error
        state = str(status["State"])
        message = f"{step.name}: {CLUSTER_STATES.get(cluster['State'], cluster['State'])}; the step is {state.lower()}"
        if message != last_message:
            notify(message)
            last_message = message
        over = state in DONE or str(cluster["State"]).startswith("TERMINATED")
        lines = new_lines(text, over=over)
        for line in lines[seen:]:
            log(line)
        seen = max(seen, len(lines))
        if over:
            return _outcome(account, step, status, cluster)
        wait(POLL_SECONDS)


def new_lines(text: str, *, over: bool) -> list[str]:
    """Return the lines of a log; while the job runs, the last one may be incomplete, and is left out."""
    return (text if over else text[: text.rfind("\n") + 1]).splitlines()


def confirm_leaving(name: str, place: str) -> bool:
    """Ask on the terminal whether an interrupted job continues; without a terminal, return False."""
    if not sys.stdin.isatty():
        return False
    print(f"\n{name} is running on {place}. Leave it running? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def read_log(account: Account, bucket: str, name: str) -> str:
    """Return the log of a job, as far as it is written.

    Raises
    ------
    SettingsError
        The bucket has no log of this job.
    """
    address = f"s3://{bucket}/fruits/jobs/{name}/{LOG}"
    text = read_text(account, address)
    if text is None:
        raise SettingsError(f"{address} does not exist. The job {name} has not started, or it uses another bucket.")
    return text


def _outcome(
    account: Account, step: SubmittedStep, status: Mapping[str, Any], cluster: Mapping[str, Any]
) -> dict[str, Any]:
    answer = outcome(account, step.folder, f"{step.name} on {step.cluster}")
    if answer is not None and status["State"] == "COMPLETED":
        return answer
    raise _missing_result(account, step, status, cluster)


def outcome(account: Account, folder: str, job: str) -> dict[str, Any] | None:
    """Return the report that a job has written to its folder, or None; raise its error.

    Raises
    ------
    InputError, JobError
        The job has reported an error.
    """
    content = read_text(account, f"{folder}/{RESULT}")
    result: dict[str, Any] = json.loads(content) if content else {}
    answer = result.get("answer")
    if isinstance(answer, dict) and "error" in answer:
        kind = InputError if result.get("exit_code") == InputError.exit_code else JobError
        raise kind(f"{answer['error']['message']}\n(Error of {job}. Its log: {folder}/{LOG})")
    return answer if isinstance(answer, dict) else None


def _missing_result(
    account: Account, step: SubmittedStep, status: Mapping[str, Any], cluster: Mapping[str, Any]
) -> JobError:
    """Return the error of a step without a result: the reasons that EMR gives, and the end of the log."""
    details = status.get("FailureDetails", {})
    reasons = [details.get("Reason"), details.get("Message"), status.get("StateChangeReason", {}).get("Message")]
    reasons.append(cluster.get("StateChangeReason", {}).get("Message"))
    why = "; ".join(dict.fromkeys(reason.strip().rstrip(".") for reason in reasons if reason and reason.strip()))
    # EMR's copy of the log exists even if the job did not start.
    emr_log = f"{step.folder.partition('/fruits/')[0]}/fruits/logs/{step.cluster}/steps/{step.identifier}/stderr.gz"
    text = read_text(account, f"{step.folder}/{LOG}") or read_text(account, emr_log) or ""
    tail = "\n".join(text.rstrip().splitlines()[-TAIL_LINES:])
    return JobError(
        f"{step.name} on {step.cluster} ended in the state {str(status['State']).lower()}, without a result"
        f"{f': {why}' if why else ''}. Completed parts are kept: run the same command again to resume."
        + (f"\nThe end of its log:\n{tail}" if tail else "")
    )


def read_text(account: Account, address: str) -> str | None:
    """Return the text of an object, or None if it does not exist."""
    body = account.read(address)
    if body is None:
        return None
    return (gzip.decompress(body) if address.endswith(".gz") else body).decode("utf-8", errors="replace")

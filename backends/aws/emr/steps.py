"""A job on EMR, from here: the cluster is started, followed until the step is done, and ends with it."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from backends.aws.account.clients import TAG, Account, explained
from backends.aws.account.vpc import find_network
from backends.aws.emr.request import job_flow, step
from backends.aws.staging.staged import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.errors import InputError, JobError, SettingsError
from fruits.storage.s3.errors import FORBIDDEN
from fruits.storage.s3.settings import S3Settings

__all__ = ["ACTIVE", "Step", "asked_to_leave", "clusters", "end", "follow", "job_log", "start", "start_step"]

ACTIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
DONE = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")
SECONDS = 10.0  # between two looks
LINES = 30  # of a log that are shown where a step failed
# In words, what EMR's states mean to somebody who waits.
CLUSTER_STATES = {
    "STARTING": "waiting for machines",
    "BOOTSTRAPPING": "the nodes build their environment",
    "RUNNING": "the cluster is up",
    "WAITING": "the cluster is up, and idle",
    "TERMINATING": "the cluster is ending",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A job on its way.

    Attributes
    ----------
    cluster, identifier : str
        EMR's names of the cluster and of the step.
    name : str
        Ours; the tag of the cluster where it is one for this job.
    folder : str
        The address where the step leaves its log and its result.
    own : bool
        Whether the cluster was made for this job, and ends with it.
    """

    cluster: str
    identifier: str
    name: str
    folder: str
    own: bool


def clusters(account: Account, name: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the description of each cluster of ours that is not ended, or of those that are called `name`."""
    emr = account.client("emr")
    with explained("look up the clusters"):
        for page in emr.get_paginator("list_clusters").paginate(ClusterStates=[*ACTIVE, "TERMINATING"]):
            for found in page["Clusters"]:
                try:
                    described = emr.describe_cluster(ClusterId=found["Id"])["Cluster"]
                except emr.exceptions.ClientError as error:
                    # The list has everybody's, and the user's policy lets those alone be described that carry our tag.
                    if error.response["Error"]["Code"] not in FORBIDDEN:
                        raise
                    continue
                tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}
                if TAG in tags and name in (None, tags[TAG]):
                    yield described | {"Tags": tags}


def start(
    account: Account, settings: EmrCluster, *, name: str, bucket: str, staged: StagedFiles, steps: Sequence[Any] = ()
) -> str:
    """Start a cluster, and return EMR's name of it.

    Raises
    ------
    SettingsError
        ``fruits cluster init`` was not run here.
    InputError
        AWS does not permit it.
    JobError
        AWS cannot do it.
    """
    network = find_network(account, settings)
    request = job_flow(settings, name=name, bucket=bucket, staged=staged, network=network, steps=steps)
    with explained("start the cluster"):
        return str(account.client("emr").run_job_flow(**request)["JobFlowId"])


def start_step(
    account: Account, settings: EmrCluster, words: Sequence[str], *, entry: str, bucket: str, staged: StagedFiles
) -> Step:
    """Start a job: on the long-lived cluster that is called like `entry` where one is up, or else on one of its own.

    Parameters
    ----------
    account : Account
    settings : EmrCluster
    words : sequence of str
        The command line after ``fruits``.
    entry : str
        The name of the cluster in ``cluster.yaml``.
    bucket : str
        Without ``s3://``.
    staged : StagedFiles
    """
    name = f"fruits-{words[0]}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
    folder = f"s3://{bucket}/fruits/jobs/{name}"
    asked = step(name, staged=staged, folder=folder, s3=S3Settings.from_environment(), words=words)
    emr = account.client("emr")
    up = next((found for found in clusters(account, entry) if found["Status"]["State"] in ACTIVE), None)
    if up is not None:
        with explained(f"add the job to the cluster {entry}"):
            added = emr.add_job_flow_steps(JobFlowId=up["Id"], Steps=[asked | {"ActionOnFailure": "CONTINUE"}])
        return Step(up["Id"], added["StepIds"][0], name, folder, own=False)
    cluster = start(account, settings, name=name, bucket=bucket, staged=staged, steps=[asked])
    try:
        with explained("look up the step"):
            identifier = emr.list_steps(ClusterId=cluster)["Steps"][0]["Id"]
    except BaseException:
        end(account, cluster)
        raise
    return Step(cluster, identifier, name, folder, own=True)


def end(account: Account, cluster: str) -> None:
    """End a cluster and all that runs on it."""
    with explained(f"end the cluster {cluster}"):
        account.client("emr").terminate_job_flows(JobFlowIds=[cluster])


def follow(
    account: Account,
    job: Step,
    *,
    tell: Callable[[str], None],
    log: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait for a step, telling what happens, and return its report.

    Parameters
    ----------
    account : Account
    job : Step
    tell : callable
        Is told the states of the cluster and of the step, in words.
    log : callable
        Is given each line that the job itself writes.
    wait : callable, default ``time.sleep``
        Waits for so many seconds.

    Raises
    ------
    InputError
        The job says that what it was given cannot be used.
    JobError
        The job failed, or the cluster did.
    """
    emr = account.client("emr")
    told, seen = "", 0
    while True:
        with explained("look up the cluster and its step"):
            cluster = emr.describe_cluster(ClusterId=job.cluster)["Cluster"]["Status"]
            status = emr.describe_step(ClusterId=job.cluster, StepId=job.identifier)["Step"]["Status"]
        state = str(status["State"])
        words = f"{job.name}: {CLUSTER_STATES.get(cluster['State'], cluster['State'])}; the step is {state.lower()}"
        if words != told:
            tell(words)
            told = words
        over = state in DONE or str(cluster["State"]).startswith("TERMINATED")
        text = _content(account, f"{job.folder}/stderr.txt") or ""
        lines = (text if over else text[: text.rfind("\n") + 1]).splitlines()  # the last one may be half written
        for line in lines[seen:]:
            log(line)
        seen = max(seen, len(lines))
        if over:
            return _outcome(account, job, status, cluster)
        wait(SECONDS)


def asked_to_leave(job: Step) -> bool:
    """Ask whether a job goes on when nobody follows it any more; without a terminal it does not."""
    if not sys.stdin.isatty():
        return False
    print(f"\n{job.name} is under way on {job.cluster}. Leave it running? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def job_log(account: Account, bucket: str, name: str) -> str:
    """Return what a job wrote so far.

    Raises
    ------
    SettingsError
        Nothing of a job of that name is in the bucket.
    """
    address = f"s3://{bucket}/fruits/jobs/{name}/stderr.txt"
    found = _content(account, address)
    if found is None:
        raise SettingsError(f"{address}: not there. The job {name} has not begun, or another bucket is its own.")
    return found


def _outcome(account: Account, job: Step, status: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, Any]:
    content = _content(account, f"{job.folder}/result.json")
    result: dict[str, Any] = json.loads(content) if content else {}
    answer = result.get("answer")
    if status["State"] == "COMPLETED" and isinstance(answer, dict) and "error" not in answer:
        return answer
    if isinstance(answer, dict) and "error" in answer:
        raised = InputError if result.get("exit_code") == InputError.exit_code else JobError
        where = f"(said by {job.name} on {job.cluster}; its log: {job.folder}/stderr.txt)"
        raise raised(f"{answer['error']['message']}\n{where}")
    details = status.get("FailureDetails", {})
    reasons = [details.get("Reason"), details.get("Message"), status.get("StateChangeReason", {}).get("Message")]
    reasons.append(cluster.get("StateChangeReason", {}).get("Message"))
    why = "; ".join(dict.fromkeys(reason.strip().rstrip(".") for reason in reasons if reason and reason.strip()))
    tail = _tail(account, job)
    raise JobError(
        f"{job.name} on {job.cluster} ended as {str(status['State']).lower()}, and the job left no result"
        f"{': ' + why if why else ''}. What is finished is kept: start the same command again to go on."
        + (f"\nThe end of its log:\n{tail}" if tail else "")
    )


def _tail(account: Account, job: Step) -> str:
    """Return the end of what the job wrote, or else of what EMR kept of the step."""
    kept = f"{job.folder.partition('/fruits/')[0]}/fruits/logs/{job.cluster}/steps/{job.identifier}/stderr.gz"
    text = _content(account, f"{job.folder}/stderr.txt") or _content(account, kept) or ""
    return "\n".join(text.rstrip().splitlines()[-LINES:])


def _content(account: Account, address: str) -> str | None:
    """Return the text of an object, or None where it is not there."""
    body = account.read(address)
    if body is None:
        return None
    return (gzip.decompress(body) if address.endswith(".gz") else body).decode("utf-8", errors="replace")

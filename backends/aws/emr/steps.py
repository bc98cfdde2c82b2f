"""Steps of EMR: submit a job as a step, find it again, and look up its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.tags import TAG
from backends.aws.emr.clusters import ACTIVE, end_cluster, find_cluster, list_clusters, start_cluster
from backends.aws.emr.request import step_request
from backends.aws.emr.submitted import JobState, SubmittedJob, job_folder
from backends.aws.job_arguments import job_prefix, new_name
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.storage.s3.settings import S3Settings

__all__ = ["step_state", "submit_step"]

DONE = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")
CLUSTER_STATES = {
    "STARTING": "waiting for instances",
    "BOOTSTRAPPING": "the nodes build their environment",
    "RUNNING": "the cluster is running",
    "WAITING": "the cluster is idle",
    "TERMINATING": "the cluster is shutting down",
    "TERMINATED": "the cluster has ended",
    "TERMINATED_WITH_ERRORS": "the cluster has failed",
}


def submit_step(
    account: Account,
    settings: EmrCluster,
    arguments: Sequence[str],
    *,
    entry: str,
    bucket: str,
    staged: StagedFiles,
    notify: Callable[[str], None],
) -> SubmittedJob:
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
            f"To start anew, end it first: {running.down}"
        )
        return running
    name = new_name(job_prefix(arguments))
    folder, s3 = job_folder(bucket, name), S3Settings.from_environment()
    request = step_request(name, staged=staged, folder=folder, s3=s3, arguments=arguments)
    emr, region = account.client("emr"), account.region_name
    active = find_cluster(account, entry)
    if active is not None:
        with translated_errors(f"add the job to the cluster {entry}"):
            added = emr.add_job_flow_steps(JobFlowId=active["Id"], Steps=[request | {"ActionOnFailure": "CONTINUE"}])
        return SubmittedJob(name, bucket, region, active["Id"], added["StepIds"][0], entry)
    cluster = start_cluster(account, settings, name=name, bucket=bucket, staged=staged, steps=[request], notify=notify)
    try:
        with translated_errors("look up the step"):
            identifier = emr.list_steps(ClusterId=cluster)["Steps"][0]["Id"]
    except BaseException:
        end_cluster(account, cluster)
        raise
    return SubmittedJob(name, bucket, region, cluster, identifier, name)


def _running(account: Account, prefix: str, entry: str, bucket: str) -> Iterator[SubmittedJob]:
    """Yield the steps that have not ended, and whose names start with a prefix."""
    for cluster in list_clusters(account):
        owner = str(cluster["Tags"][TAG])
        if cluster["Status"]["State"] in ACTIVE and (owner.startswith(prefix) or owner == entry):
            with translated_errors("look up the steps"):
                pages = account.client("emr").get_paginator("list_steps").paginate(ClusterId=cluster["Id"])
                steps = [step for page in pages for step in page["Steps"]]
            for step in steps:
                if str(step["Name"]).startswith(prefix) and step["Status"]["State"] not in DONE:
                    yield SubmittedJob(step["Name"], bucket, account.region_name, cluster["Id"], step["Id"], owner)


def step_state(account: Account, job: SubmittedJob) -> JobState:
    """Return the state of a step and its cluster."""
    emr = account.client("emr")
    with translated_errors("look up the cluster and its step"):
        cluster = emr.describe_cluster(ClusterId=job.cluster)["Cluster"]["Status"]
        step = emr.describe_step(ClusterId=job.cluster, StepId=job.identifier)["Step"]["Status"]
    where, state = str(cluster["State"]), str(step["State"])
    details = step.get("FailureDetails", {})
    changes = [each.get("StateChangeReason", {}).get("Message") for each in (step, cluster)]
    return JobState(
        f"{CLUSTER_STATES.get(where, where)}; the step is {state.lower()}",
        over=state in DONE or where.startswith("TERMINATED"),
        completed=state == "COMPLETED",
        reasons=[details.get("Reason"), details.get("Message"), *changes],
    )

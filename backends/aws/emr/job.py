"""A job on Spark on EMR: submit it as a step, find it again, look up its state, and end it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backends.aws.account.clients import Account, Notify, translated_errors
from backends.aws.account.tags import TAG
from backends.aws.emr.clusters import ACTIVE, end_cluster, find_cluster, list_clusters, start_cluster
from backends.aws.emr.request import step_request
from backends.aws.emr.submission import run_submitted
from backends.aws.emr.submitted import JobState, SubmittedJob
from backends.aws.job_arguments import job_prefix, new_name
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.clusters.cluster import Cluster
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.progress.reporter import Progress

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


def run_job(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on EMR, and return its report; see :func:`~backends.aws.emr.submission.run_submitted`."""
    return run_submitted(command, job, cluster, progress, on="spark-yarn", submit=submit_step)


class Step(SubmittedJob):
    """A job that was submitted as a step of a cluster."""

    def state(self) -> JobState:
        """Return the state of the step and its cluster."""
        emr = self.account.client("emr")
        with translated_errors("look up the cluster and its step"):
            cluster = emr.describe_cluster(ClusterId=self.cluster)["Cluster"]["Status"]
            step = emr.describe_step(ClusterId=self.cluster, StepId=self.identifier)["Step"]["Status"]
        where, state = str(cluster["State"]), str(step["State"])
        details = step.get("FailureDetails", {})
        changes = [each.get("StateChangeReason", {}).get("Message") for each in (step, cluster)]
        return JobState(
            f"{CLUSTER_STATES.get(where, where)}; the step is {state.lower()}",
            over=state in DONE or where.startswith("TERMINATED"),
            completed=state == "COMPLETED",
            reasons=[details.get("Reason"), details.get("Message"), *changes],
        )

    def end(self) -> None:
        """End the cluster that was started for the step, or cancel the step on a long-lived cluster."""
        if self.owner == self.name:
            return end_cluster(self.account, self.cluster)
        with translated_errors(f"cancel {self.name}"):
            self.account.client("emr").cancel_steps(
                ClusterId=self.cluster, StepIds=[self.identifier], StepCancellationOption="TERMINATE_PROCESS"
            )


def submit_step(
    account: Account, settings: EmrCluster, arguments: Sequence[str], *, entry: str, staged: StagedFiles, notify: Notify
) -> Step:
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
    staged : StagedFiles
    notify : callable
        Receives messages.
    """
    for running in _running(account, job_prefix(arguments), entry, staged.bucket):
        notify(running.found)
        return running
    name = new_name(job_prefix(arguments))
    request = step_request(name, staged, arguments)
    emr, active = account.client("emr"), find_cluster(account, entry)
    if active is not None:
        with translated_errors(f"add the job to the cluster {entry}"):
            added = emr.add_job_flow_steps(JobFlowId=active["Id"], Steps=[request | {"ActionOnFailure": "CONTINUE"}])
        return Step(account, name, staged.bucket, active["Id"], added["StepIds"][0], entry)
    cluster = start_cluster(account, settings, name=name, staged=staged, steps=[request], notify=notify)
    try:
        with translated_errors("look up the step"):
            identifier = emr.list_steps(ClusterId=cluster)["Steps"][0]["Id"]
    except BaseException:
        end_cluster(account, cluster)
        raise
    return Step(account, name, staged.bucket, cluster, identifier, name)


def _running(account: Account, prefix: str, entry: str, bucket: str) -> Iterator[Step]:
    """Yield the steps that have not ended, and whose names start with a prefix."""
    for cluster in list_clusters(account):
        owner = str(cluster["Tags"][TAG])
        if cluster["Status"]["State"] in ACTIVE and (owner.startswith(prefix) or owner == entry):
            with translated_errors("look up the steps"):
                pages = account.client("emr").get_paginator("list_steps").paginate(ClusterId=cluster["Id"])
                steps = [step for page in pages for step in page["Steps"]]
            for step in steps:
                if str(step["Name"]).startswith(prefix) and step["Status"]["State"] not in DONE:
                    yield Step(account, step["Name"], bucket, cluster["Id"], step["Id"], owner)

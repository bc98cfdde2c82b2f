"""A job on EMR Serverless: an application, a job run in it, its state, and its end.

The environment is an archive that Spark unpacks in the folder of the driver and of each executor:
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/using-python.html
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml

from backends.aws.account.clients import Account, Notify, translated_errors
from backends.aws.account.resources import job_runs
from backends.aws.account.stack import Installed, find_installed
from backends.aws.account.tags import tags_of
from backends.aws.emr.emr_step import SUBMITTED
from backends.aws.emr.submission import run_submitted
from backends.aws.emr.submitted import JobState, SubmittedJob
from backends.aws.job_arguments import job_prefix, new_name, submit_arguments
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrServerlessCluster
from fruits.clusters.cluster import Cluster
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.progress.reporter import Progress

ENDED = ("SUCCESS", "FAILED", "CANCELLED")
SPARK: dict[str, str] = yaml.safe_load((files("backends.aws") / "serverless.yaml").read_text(encoding="utf-8"))


def application_request(settings: EmrServerlessCluster, name: str) -> dict[str, Any]:
    """Return the keyword arguments of ``create_application``; an idle application costs nothing."""
    return {
        "name": f"fruits-{name}",
        "releaseLabel": settings.release,
        "type": "SPARK",
        "architecture": "X86_64",
        "maximumCapacity": {"cpu": f"{settings.maximum_vcpus} vCPU", "memory": f"{settings.maximum_vcpus * 4} GB"},
        "autoStartConfiguration": {"enabled": True},
        "autoStopConfiguration": {"enabled": True, "idleTimeoutMinutes": settings.idle_minutes},
        "tags": tags_of(name, settings.tags),
    }


def job_request(
    settings: EmrServerlessCluster,
    name: str,
    *,
    application: str,
    installed: Installed,
    staged: StagedFiles,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Return the keyword arguments of ``start_job_run`` for ``fruits ARGUMENTS``."""
    conf = SPARK | {"spark.archives": f"{staged.environment}#environment"} | settings.conf
    logs = {"enabled": True, "logGroupName": installed.log_group, "logStreamNamePrefix": name}
    program, *its_arguments = submit_arguments(name, staged, arguments)
    return {
        "applicationId": application,
        "executionRoleArn": installed.serverless_role,
        "name": name,
        "executionTimeoutMinutes": settings.max_hours * 60,
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": program,
                "entryPointArguments": its_arguments,
                "sparkSubmitParameters": " ".join(f"--conf {key}={value}" for key, value in conf.items()),
            }
        },
        "configurationOverrides": {"monitoringConfiguration": {"cloudWatchLoggingConfiguration": logs}},
        "tags": tags_of(name, settings.tags),
    }


def run_job(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on EMR Serverless, and return its report; see :func:`~backends.aws.emr.submission.run_submitted`."""
    return run_submitted(command, job, cluster, progress, on=SUBMITTED, submit=submit_run)


class JobRun(SubmittedJob):
    """A job that was submitted as a job run of an application."""

    def state(self) -> JobState:
        """Return the state of the job run."""
        with translated_errors("look up the job"):
            found = self.account.client("emr-serverless").get_job_run(**self._identifiers())["jobRun"]
        state = str(found["state"])
        return JobState(state.lower(), state in ENDED, state == "SUCCESS", [found.get("stateDetails")])

    def end(self) -> None:
        """Cancel the job run."""
        with translated_errors(f"cancel {self.name}"):
            self.account.client("emr-serverless").cancel_job_run(**self._identifiers())

    def _identifiers(self) -> dict[str, str]:
        return {"applicationId": self.cluster, "jobRunId": self.identifier}


def submit_run(
    account: Account,
    settings: EmrServerlessCluster,
    arguments: Sequence[str],
    *,
    entry: str,
    staged: StagedFiles,
    notify: Notify,
) -> JobRun:
    """Submit a job to the application of a cluster; see :func:`backends.aws.emr.job.submit_step`."""
    prefix = job_prefix(arguments)
    for each in job_runs(account):
        if each.name.startswith(prefix):
            running = JobRun(account, each.name, staged.bucket, str(each.detail), each.identifier, each.name)
            notify(running.found)
            return running
    name, installed, application = new_name(prefix), find_installed(account), _application(account, settings, entry)
    request = job_request(
        settings, name, application=application, installed=installed, staged=staged, arguments=arguments
    )
    with translated_errors("start the job"):
        identifier = account.client("emr-serverless").start_job_run(**request)["jobRunId"]
    return JobRun(account, name, staged.bucket, application, identifier, name)


def _application(account: Account, settings: EmrServerlessCluster, name: str) -> str:
    """Return the application of a cluster of ``cluster.yaml``; create it if it does not exist."""
    client = account.client("emr-serverless")
    request = application_request(settings, name)
    with translated_errors("look up the applications"):
        for page in client.get_paginator("list_applications").paginate():
            for each in page["applications"]:
                same = each["name"] == request["name"] and each["releaseLabel"] == settings.release
                if same and each["state"] != "TERMINATED":
                    return str(each["id"])
    with translated_errors("create the application"):
        return str(client.create_application(**request)["applicationId"])

"""A job on EMR Serverless: an application, a job run in it, its state, and its end.

The environment is an archive that Spark unpacks in the folder of the driver and of each executor:
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/using-python.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.resources import job_runs
from backends.aws.account.stack import Installed, find_installed
from backends.aws.account.tags import tags_of
from backends.aws.emr.emr_step import SUBMITTED
from backends.aws.emr.job import prepare
from backends.aws.emr.releases import release
from backends.aws.emr.submitted import JobState, SubmittedJob, await_report, job_folder
from backends.aws.job_arguments import job_prefix, new_name
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrServerlessCluster
from fruits.clusters.cluster import Cluster
from fruits.errors import SettingsError
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.progress.reporter import Progress
from fruits.storage.s3.settings import S3Settings

__all__ = ["application_request", "job_request", "run_job"]

ENDED = ("SUCCESS", "FAILED", "CANCELLED")
PYTHON = "./environment/bin/python3.11"  # below the folder in which Spark unpacks the archive
SPARK = {
    "spark.driver.cores": "4",
    "spark.driver.memory": "4g",
    "spark.driver.memoryOverhead": "3g",
    "spark.executor.cores": "4",
    "spark.executor.memory": "3g",
    "spark.executor.memoryOverhead": "4g",  # the four Python workers
    "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": PYTHON,
    "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": PYTHON,
    "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
}


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
    folder: str,
    s3: S3Settings,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Return the keyword arguments of ``start_job_run`` for ``fruits ARGUMENTS``."""
    conf = SPARK | {"spark.archives": f"{staged.environment}#environment"} | settings.conf
    shown = json.dumps({key: value for key, value in asdict(s3).items() if value})
    return {
        "applicationId": application,
        "executionRoleArn": installed.serverless_role,
        "name": name,
        "executionTimeoutMinutes": settings.max_hours * 60,
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": staged.step,
                "entryPointArguments": [folder, shown, *arguments],
                "sparkSubmitParameters": " ".join(f"--conf {key}={value}" for key, value in conf.items()),
            }
        },
        "configurationOverrides": {
            "monitoringConfiguration": {
                "cloudWatchLoggingConfiguration": {
                    "enabled": True,
                    "logGroupName": installed.log_group,
                    "logStreamNamePrefix": name,
                }
            }
        },
        "tags": tags_of(name, settings.tags),
    }


def run_job(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on EMR Serverless, and return its report.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : fruits.jobs.job.Job
    cluster : fruits.clusters.cluster.Cluster
        With an :class:`EmrServerlessCluster` in ``cloud``.
    progress : fruits.progress.reporter.Progress

    Raises
    ------
    InputError
        The job cannot run; checked here, or reported by the job.
    JobError
        The job failed.
    """
    settings = cast(EmrServerlessCluster, cluster.cloud)
    if release(settings.release).brings_python:
        raise SettingsError(f"release {settings.release}: not available on EMR Serverless here. Allowed: emr-7.*.")
    account, bucket, staged, arguments, log = prepare(command, job, settings, SUBMITTED, progress)
    installed = find_installed(account)
    application = _application(account, settings, cluster.name)
    client = account.client("emr-serverless")
    prefix = job_prefix(arguments)
    running = next((each for each in job_runs(account) if each.name.startswith(prefix)), None)
    if running is not None:
        name, application, identifier = running.name, str(running.detail), running.identifier
        progress.note(f"{name} runs already, with the same arguments; following it")
    else:
        name = new_name(prefix)
        request = job_request(
            settings,
            name,
            application=application,
            installed=installed,
            staged=staged,
            folder=job_folder(bucket, name),
            s3=S3Settings.from_environment(),
            arguments=arguments,
        )
        with translated_errors("start the job"):
            identifier = client.start_job_run(**request)["jobRunId"]
    submitted = SubmittedJob(name, bucket, account.region_name, application, identifier, name)
    identifiers = {"applicationId": application, "jobRunId": identifier}

    def look() -> JobState:
        with translated_errors("look up the job"):
            found = client.get_job_run(**identifiers)["jobRun"]
        state = str(found["state"])
        return JobState(state.lower(), state in ENDED, state == "SUCCESS", [found.get("stateDetails")])

    def end() -> None:
        with translated_errors(f"cancel {name}"):
            client.cancel_job_run(**identifiers)

    return await_report(account, submitted, look, end, progress=progress, log=log)


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

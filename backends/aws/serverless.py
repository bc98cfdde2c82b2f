"""A job on EMR Serverless: an application, a job run in it, its state, and its end.

The environment is an archive that Spark unpacks in the folder of the driver and of each executor:
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/using-python.html
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from backends.aws.account.clients import Account, translated_errors
from backends.aws.account.stack import Installed, find_installed
from backends.aws.account.tags import tags_of
from backends.aws.emr.emr_step import LOG, SUBMITTED
from backends.aws.emr.job import prepare
from backends.aws.emr.releases import release
from backends.aws.emr.steps import confirm_leaving, job_prefix, new_lines, outcome, read_text
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrServerlessCluster
from fruits.clusters.cluster import Cluster
from fruits.errors import JobError, SettingsError
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport, report_from_dict
from fruits.progress.reporter import Progress
from fruits.storage.s3.settings import S3Settings

__all__ = ["application_request", "job_request", "run_job"]

POLL_SECONDS = 10.0
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
    shown = json.dumps({key: value for key, value in dataclasses.asdict(s3).items() if value})
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
    settings = cluster.cloud
    if not isinstance(settings, EmrServerlessCluster):
        raise SettingsError(f"--cluster {cluster.name}: not a cluster of EMR Serverless.")
    if release(settings.release).brings_python:
        raise SettingsError(f"release {settings.release}: not available on EMR Serverless here. Allowed: emr-7.*.")
    account, bucket, staged, arguments, log = prepare(command, job, settings, SUBMITTED, progress)
    installed = find_installed(account)
    application = _application(account, settings, cluster.name)
    client = account.client("emr-serverless")
    run = _running(account, application, job_prefix(arguments))
    if run is not None:
        name, identifier = run["name"], run["id"]
        progress.note(f"{name} runs already, with the same arguments; following it")
    else:
        name = f"{job_prefix(arguments)}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
        request = job_request(
            settings,
            name,
            application=application,
            installed=installed,
            staged=staged,
            folder=f"s3://{bucket}/fruits/jobs/{name}",
            s3=S3Settings.from_environment(),
            arguments=arguments,
        )
        with translated_errors("start the job"):
            identifier = client.start_job_run(**request)["jobRunId"]
    log_command = f"fruits cluster logs {name} --bucket s3://{bucket}"
    progress.note(f"{name} is submitted to the application {application}; its log: {log_command}")
    folder = f"s3://{bucket}/fruits/jobs/{name}"
    try:
        return report_from_dict(_follow(account, application, identifier, folder, name, progress.note, log))
    except KeyboardInterrupt:
        if not confirm_leaving(name, application):
            with translated_errors(f"cancel {name}"):
                client.cancel_job_run(applicationId=application, jobRunId=identifier)
            progress.note(f"{name} is cancelled")
        raise


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


def _running(account: Account, application: str, prefix: str) -> Mapping[str, Any] | None:
    """Return the job run that has not ended, and whose name starts with a prefix."""
    client = account.client("emr-serverless")
    with translated_errors("look up the jobs"):
        pages = client.get_paginator("list_job_runs").paginate(applicationId=application)
        runs = [run for page in pages for run in page["jobRuns"]]
    return next((run for run in runs if run.get("name", "").startswith(prefix) and run["state"] not in ENDED), None)


def _follow(
    account: Account,
    application: str,
    identifier: str,
    folder: str,
    name: str,
    notify: Callable[[str], None],
    log: Callable[[str], None],
) -> dict[str, Any]:
    client = account.client("emr-serverless")
    last, seen = "", 0
    while True:
        with translated_errors("look up the job"):
            run = client.get_job_run(applicationId=application, jobRunId=identifier)["jobRun"]
        state = str(run["state"])
        if state != last:
            notify(f"{name}: {state.lower()}")
            last = state
        lines = new_lines(read_text(account, f"{folder}/{LOG}") or "", over=state in ENDED)
        for line in lines[seen:]:
            log(line)
        seen = max(seen, len(lines))
        if state in ENDED:
            answer = outcome(account, folder, f"{name} in the application {application}")
            if answer is not None and state == "SUCCESS":
                return answer
            raise JobError(
                f"{name} ended in the state {state.lower()}, without a result: {run.get('stateDetails', '')}. "
                "Completed parts are kept: run the same command again to resume."
            )
        time.sleep(POLL_SECONDS)

"""A job on Spark on EMR: check it here, stage the files, submit it as a step, and follow it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from backends.aws.account.clients import Account, bucket_of, translated_errors
from backends.aws.account.preflight import check_quotas
from backends.aws.account.stack import find_installed
from backends.aws.emr.clusters import end_cluster
from backends.aws.emr.releases import release
from backends.aws.emr.steps import step_state, submit_step
from backends.aws.emr.submitted import await_report
from backends.aws.job_arguments import command_line
from backends.aws.staging.stage import is_staged, stage
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster, EmrServerlessCluster
from fruits.clusters.cluster import Cluster
from fruits.errors import DatasetError
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.jobs.identity import check_same
from fruits.jobs.job import Job
from fruits.jobs.output import current_commit
from fruits.jobs.report import Report, SliceReport
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.packaged import PACKAGED
from fruits.progress.json_log import JsonLog
from fruits.progress.reporter import Progress
from fruits.storage.folder import Folder
from fruits.text import without_secrets

__all__ = ["ensure_staged", "prepare", "run_job"]


def run_job(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on EMR, and return its report.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : fruits.jobs.job.Job
    cluster : fruits.clusters.cluster.Cluster
        With an :class:`EmrCluster` in ``cloud``.
    progress : fruits.progress.reporter.Progress

    Raises
    ------
    InputError
        The job cannot run; checked here, before a cluster is started, or reported by the job.
    JobError
        The job or the cluster failed.
    """
    settings = cast(EmrCluster, cluster.cloud)
    account, bucket, staged, arguments, log = prepare(command, job, settings, "spark-yarn", progress)
    step = submit_step(
        account, settings, arguments, entry=cluster.name, bucket=bucket, staged=staged, notify=progress.note
    )

    def end() -> None:
        if step.own:
            return end_cluster(account, step.cluster)
        with translated_errors(f"cancel {step.name}"):
            account.client("emr").cancel_steps(
                ClusterId=step.cluster, StepIds=[step.identifier], StepCancellationOption="TERMINATE_PROCESS"
            )

    return await_report(account, step, partial(step_state, account, step), end, progress=progress, log=log)


def prepare(
    command: str, job: Job, settings: EmrCluster | EmrServerlessCluster, cluster: str, progress: Progress
) -> tuple[Account, str, StagedFiles, list[str], Callable[[str], None]]:
    """Check a job here, and stage its files: on EMR the same errors take minutes and cost money.

    Returns the account, the bucket, the staged files, the arguments of ``fruits``, and the receiver of the job's log.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : fruits.jobs.job.Job
    settings : EmrCluster or EmrServerlessCluster
    cluster : str
        The cluster of ``cluster.yaml`` that the nodes use.
    progress : fruits.progress.reporter.Progress
    """
    arguments = command_line(command, job)
    bucket = bucket_of(settings, out=job.out)
    account = Account.for_cluster(settings, bucket)
    account.identity()
    out = Folder.at(job.out)
    out.check()
    current = current_commit(out, job)
    if current is not None and not job.overwrite and "images" in current.job:
        images = without_secrets(Folder.at(job.images).address)
        check_same(out, current, current.job | {"images": images, "limit": job.limit}, ())
    if next(iter(Listing(open_source(job.images, job.source_options()), limit=1)), None) is None:
        raise DatasetError(f"{job.images}: no image found. Give a folder of images laid out as <label>/<file>.")
    backbone = job.backbone if job.model is None else str(ScaledPCA.load(job.model).network["backbone"])
    backbone = backbone or PACKAGED
    staged = ensure_staged(account, settings, bucket, backbone=backbone, notify=progress.note)
    if job.weights is None and backbone != PACKAGED:
        arguments += ["--weights", f"{staged.weights}/{backbone}.safetensors"]
    arguments += ["--cluster", cluster]
    if isinstance(progress, JsonLog):
        return account, bucket, staged, [*arguments, "--log-json"], progress.relay
    return account, bucket, staged, arguments, progress.note


def ensure_staged(
    account: Account,
    settings: EmrCluster | EmrServerlessCluster,
    bucket: str,
    *,
    backbone: str = PACKAGED,
    notify: Callable[[str], None],
) -> StagedFiles:
    """Return the staged files for the release of a cluster; stage them if they are missing or outdated."""
    contents = release(settings.release)
    staged = StagedFiles.for_release(bucket, contents)
    environment = isinstance(settings, EmrServerlessCluster)
    if is_staged(account, staged, (backbone,), environment=environment):
        return staged
    find_installed(account)  # fails before 250 MB are gathered and uploaded
    if isinstance(settings, EmrCluster):
        check_quotas(account, settings, notify)
    return stage(account, bucket, contents, backbones=(backbone,), environment=environment, notify=notify)

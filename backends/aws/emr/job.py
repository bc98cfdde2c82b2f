"""A job on Spark on EMR: what would fail there is found here first; then it is staged, started and followed."""

from __future__ import annotations

from collections.abc import Callable

from backends.aws.account.clients import Account, bucket_of
from backends.aws.emr.releases import release
from backends.aws.emr.steps import asked_to_leave, end, follow, start_step
from backends.aws.job_arguments import command_line
from backends.aws.staging.staged import StagedFiles
from backends.aws.staging.wheelhouse import is_staged, stage
from fruits.clusters.clouds import EmrCluster
from fruits.clusters.cluster import Cluster
from fruits.errors import DatasetError, SettingsError
from fruits.images.listing import Listing
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport, report_from_dict
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.packaged import PACKAGED
from fruits.progress.json_log import JsonLog
from fruits.progress.reporter import Progress
from fruits.storage.folder import Folder

__all__ = ["run_job", "staged_for"]

DEFAULT_BACKBONE = "MobileNetV2"


def run_job(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on EMR and return its report; see :func:`backends.aws.emr.steps.follow`.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : fruits.jobs.job.Job
    cluster : fruits.clusters.cluster.Cluster
        With the settings of EMR in ``cloud``.
    progress : fruits.progress.reporter.Progress
    """
    settings = cluster.cloud
    if not isinstance(settings, EmrCluster):
        raise SettingsError(f"--cluster {cluster.name}: not a cluster of EMR.")
    words = command_line(command, job)
    where = bucket_of(settings, out=job.out)
    account = Account.of(settings, where)
    account.identity()
    # What would fail there in minutes, and for money, fails here at once.
    Folder.at(job.out).check()
    if next(iter(Listing(job.images, limit=1)), None) is None:
        raise DatasetError(f"{job.images}: no image found. Give a folder of images laid out as <label>/<file>.")
    network = job.backbone
    if job.model is not None:
        network = str(ScaledPCA.load(job.model).network["backbone"])
    network = network or DEFAULT_BACKBONE
    staged = staged_for(account, settings, where, backbone=network, tell=progress.note)
    if job.weights is None and network != PACKAGED:
        words += ["--weights", f"{staged.weights}/{network}.safetensors"]
    words += ["--cluster", "spark-yarn"]
    log: Callable[[str], None] = progress.note
    if isinstance(progress, JsonLog):
        words.append("--log-json")
        log = progress.relay
    step = start_step(account, settings, words, entry=cluster.name, bucket=where, staged=staged)
    progress.note(f"{step.name} is on {step.cluster}; its log: fruits cluster logs {step.name} --bucket s3://{where}")
    try:
        return report_from_dict(follow(account, step, tell=progress.note, log=log))
    except KeyboardInterrupt:
        if asked_to_leave(step):
            progress.note(f"left running; end it with: fruits cluster down {step.name}")
        elif step.own:
            end(account, step.cluster)
            progress.note(f"{step.cluster} is ending")
        raise


def staged_for(
    account: Account,
    settings: EmrCluster,
    bucket: str,
    *,
    backbone: str = DEFAULT_BACKBONE,
    tell: Callable[[str], None],
) -> StagedFiles:
    """Return what is staged for the release of a cluster, staged anew where it is missing or of other sources."""
    carried = release(settings.release, for_job=True)
    staged = StagedFiles.of(bucket, str(carried.python))
    if is_staged(account, staged, (backbone,)):
        return staged
    return stage(account, bucket, carried, backbones=(backbone,), tell=tell)

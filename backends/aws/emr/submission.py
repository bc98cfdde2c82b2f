"""The way of every job to a Spark cluster in AWS: check it here, stage the files, submit it, and follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from backends.aws.account.clients import Account, Notify, bucket_of
from backends.aws.emr.submitted import SubmittedJob, await_report
from backends.aws.job_arguments import command_line
from backends.aws.staging.stage import ensure_staged
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


def run_submitted(
    command: str, job: Job, cluster: Cluster, progress: Progress, *, on: str, submit: Callable[..., SubmittedJob]
) -> Report | SliceReport:
    """Run a job on EMR or EMR Serverless, and return its report.

    Everything is checked here first: on EMR the same errors take minutes and cost money.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : fruits.jobs.job.Job
    cluster : fruits.clusters.cluster.Cluster
    progress : fruits.progress.reporter.Progress
    on : str
        The cluster of ``cluster.yaml`` that the nodes use.
    submit : callable
        :func:`backends.aws.emr.job.submit_step` or :func:`backends.aws.serverless.submit_run`.

    Raises
    ------
    InputError
        The job cannot run; checked here, before anything is started, or reported by the job.
    JobError
        The job or the cluster failed.
    """
    settings = cast(EmrCluster | EmrServerlessCluster, cluster.cloud)
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
    arguments += ["--cluster", on]
    log: Notify = progress.note
    if isinstance(progress, JsonLog):
        arguments, log = [*arguments, "--log-json"], progress.relay
    submitted = submit(account, settings, arguments, entry=cluster.name, staged=staged, notify=progress.note)
    return await_report(submitted, progress=progress, log=log)

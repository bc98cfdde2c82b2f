"""A job on Spark on EMR: check it here, stage the files, submit it as a step, and follow it."""

from __future__ import annotations

from collections.abc import Callable

from backends.aws.account.clients import Account, bucket_of, translated_errors
from backends.aws.emr.clusters import end_cluster
from backends.aws.emr.releases import release
from backends.aws.emr.steps import SubmittedStep, confirm_leaving, follow_step, submit_step
from backends.aws.job_arguments import command_line
from backends.aws.staging.stage import is_staged, stage
from backends.aws.staging.staged_files import StagedFiles
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

__all__ = ["backbone_of", "check_addresses", "ensure_staged", "run_job"]

DEFAULT_BACKBONE = "MobileNetV2"


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
    settings = cluster.cloud
    if not isinstance(settings, EmrCluster):
        raise SettingsError(f"--cluster {cluster.name}: not an EMR cluster.")
    arguments = command_line(command, job)
    bucket = bucket_of(settings, out=job.out)
    account = Account.for_cluster(settings, bucket)
    account.identity()
    check_addresses(job)
    backbone = backbone_of(job)
    staged = ensure_staged(account, settings, bucket, backbone=backbone, notify=progress.note)
    if job.weights is None and backbone != PACKAGED:
        arguments += ["--weights", f"{staged.weights}/{backbone}.safetensors"]
    arguments += ["--cluster", "spark-yarn"]
    log: Callable[[str], None] = progress.note
    if isinstance(progress, JsonLog):
        arguments.append("--log-json")
        log = progress.relay
    step = submit_step(
        account, settings, arguments, entry=cluster.name, bucket=bucket, staged=staged, notify=progress.note
    )
    progress.note(
        f"{step.name} is submitted to {step.cluster}; its log: fruits cluster logs {step.name} --bucket s3://{bucket}"
    )
    try:
        return report_from_dict(follow_step(account, step, notify=progress.note, log=log))
    except KeyboardInterrupt:
        _stop_or_leave(account, step, progress)
        raise
    except Exception:
        raise
    except BaseException:  # SIGTERM: there may be no time for more than this
        progress.note(
            f"{step.name} continues on {step.cluster}. The same command follows it again; to end it: "
            f"fruits cluster down {step.name if step.own else cluster.name}"
        )
        raise


def ensure_staged(
    account: Account,
    settings: EmrCluster,
    bucket: str,
    *,
    backbone: str = DEFAULT_BACKBONE,
    notify: Callable[[str], None],
) -> StagedFiles:
    """Return the staged files for the release of a cluster; stage them if they are missing or outdated."""
    contents = release(settings.release)
    staged = StagedFiles.for_release(bucket, contents)
    if is_staged(account, staged, (backbone,)):
        return staged
    return stage(account, bucket, contents, backbones=(backbone,), notify=notify)


def check_addresses(job: Job) -> None:
    """Check the output and the images here: on EMR the same errors take minutes and cost money."""
    Folder.at(job.out).check()
    if next(iter(Listing(job.images, limit=1)), None) is None:
        raise DatasetError(f"{job.images}: no image found. Give a folder of images laid out as <label>/<file>.")


def backbone_of(job: Job) -> str:
    """Return the network of a job: the one that it names, or that of its model."""
    backbone = job.backbone if job.model is None else str(ScaledPCA.load(job.model).network["backbone"])
    return backbone or DEFAULT_BACKBONE


def _stop_or_leave(account: Account, step: SubmittedStep, progress: Progress) -> None:
    """After Ctrl-C, leave the job running if the user confirms it; otherwise end its cluster, or its step."""
    if confirm_leaving(step.name, step.cluster):
        progress.note(f"left running; end it with: fruits cluster down {step.name}")
    elif step.own:
        end_cluster(account, step.cluster)
        progress.note(f"{step.cluster} is shutting down")
    else:
        with translated_errors(f"cancel {step.name}"):
            account.client("emr").cancel_steps(
                ClusterId=step.cluster, StepIds=[step.identifier], StepCancellationOption="TERMINATE_PROCESS"
            )
        progress.note(f"{step.name} is cancelled")

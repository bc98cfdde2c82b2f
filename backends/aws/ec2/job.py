"""A job on Dask on EC2: the cluster is created for the job and ended after it; the driver runs here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import cast

from distributed import Client
from distributed.security import Security

from backends.aws.account.clients import Account, Notify, bucket_of
from backends.aws.account.preflight import check_quotas
from backends.aws.account.resources import end_resources_of, secrets_address
from backends.aws.account.subnets import find_subnets
from backends.aws.ec2.dask_node import Secrets
from backends.aws.ec2.launch import client_address, prepare_launch
from backends.aws.ec2.machines import Machines
from backends.aws.job_arguments import command_line, new_name
from backends.aws.staging.stage import ensure_staged
from backends.aws.staging.staged_files import StagedFiles
from backends.dask.cluster import attach
from backends.dask.executor import DaskExecutor
from fruits.clusters.clouds import DaskEc2Cluster
from fruits.clusters.cluster import Cluster
from fruits.errors import SettingsError
from fruits.executor import Executor
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.jobs.report import Report, SliceReport
from fruits.progress.reporter import Progress
from fruits.storage.folder import Folder

# Must be the same on both sides. Dask compares its own versions again on connecting.
MATCHED = ("cloudpickle", "dask", "distributed", "openvino")
WORKER_SECONDS = 1800  # an instance may take 15 minutes to start, and Spot has none at times


def run_job(command: str, job: Job, cluster: Cluster, progress: Progress) -> Report | SliceReport:
    """Run a job on a cluster that is created for it, and return its report.

    Parameters
    ----------
    command : {"run", "fit", "transform"}
    job : fruits.jobs.job.Job
    cluster : fruits.clusters.cluster.Cluster
        With a :class:`DaskEc2Cluster` in ``cloud``.
    progress : fruits.progress.reporter.Progress
    """
    work = {"run": pipeline.run, "fit": pipeline.fit, "transform": pipeline.transform}[command]
    with open_executor(cluster, job, notify=progress.note) as executor:
        return work(job, executor, progress=progress)


@contextmanager
def open_executor(cluster: Cluster, job: Job, *, notify: Notify) -> Iterator[Executor]:
    """Yield an executor on a cluster that is created for the job; see :func:`open_client`.

    The files for the instances are staged first, if they are missing or built from other sources.

    Parameters
    ----------
    cluster : fruits.clusters.cluster.Cluster
        With a :class:`DaskEc2Cluster` in ``cloud``.
    job : fruits.jobs.job.Job
    notify : callable
        Receives progress messages.
    """
    settings = cast(DaskEc2Cluster, cluster.cloud)
    command_line("run", job)  # rejects local paths, which instances cannot read
    bucket = bucket_of(settings, out=job.out)
    account = Account.for_cluster(settings, bucket)
    account.identity()
    client_address(account, settings, find_subnets(account, settings))  # before the wheels are gathered
    check_quotas(account, settings, notify)
    staged = ensure_staged(account, settings, bucket, notify=notify)
    name = new_name(cluster.name)
    notify(
        f"starting {name}; it shuts down with the job, {settings.idle_minutes} minutes after it lost this machine, or "
        f"after {settings.max_hours} hours"
    )
    with open_client(account, settings, name=name, staged=staged, notify=notify) as client:
        yield DaskExecutor(client=client, worker_timeout=WORKER_SECONDS)


@contextmanager
def open_client(
    account: Account, settings: DaskEc2Cluster, *, name: str, staged: StagedFiles, notify: Notify
) -> Iterator[Client]:
    """Yield a client of a new cluster; end the cluster on exit.

    Parameters
    ----------
    account : Account
    settings : DaskEc2Cluster
    name : str
        The name of the job; the tag of every resource.
    staged : StagedFiles
        For the Python that runs here. Instances read the cluster's secrets in the same bucket.
    notify : callable
        Receives messages.

    Raises
    ------
    SettingsError
        The staged versions differ from those installed here, or the settings cannot be met.
    JobError
        AWS rejected a request, or the scheduler did not start. Everything that was created is ended.
    """
    security = Security.temporary()
    secrets = Secrets(security.tls_client_cert, security.tls_client_key, settings.idle_minutes * 60)
    address = secrets_address(staged.bucket, name)
    folder, _, file = address.rpartition("/")
    with ExitStack() as stack:
        try:
            check_versions(Folder(staged.wheelhouse).read("requirements.txt").decode())
        except FileNotFoundError as error:
            raise SettingsError(f"Nothing is staged at {staged.root}. Run the same command again.") from error
        stack.callback(end_resources_of, account, name)
        stack.callback(Folder(folder).remove_files, [file])
        secrets.write(Folder(folder), file)
        machines = Machines(account, prepare_launch(account, settings, name, staged, address), notify)
        here, inside = machines.start_scheduler()
        client = stack.enter_context(attach(here, security))
        stack.enter_context(machines.workers(inside))
        yield client


def check_versions(requirements: str) -> None:
    """Compare the staged package versions with those installed here.

    Parameters
    ----------
    requirements : str
        The ``requirements.txt`` of the wheelhouse.

    Raises
    ------
    SettingsError
        A version differs.
    """
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", requirements, re.MULTILINE))
    different = [
        f"{package} {pinned.get(package, 'none')} (here: {version(package)})"
        for package in MATCHED
        if pinned.get(package) != version(package)
    ]
    if different:
        raise SettingsError(
            f"The staged packages differ from those installed here: {'; '.join(different)}. Install the staged "
            "versions: pip install --require-hashes -r requirements/light.txt, or run from the staged wheel."
        )

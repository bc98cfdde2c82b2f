"""EMR clusters: list, start and end them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backends.aws.account.clients import Account, Notify, translated_errors
from backends.aws.account.preflight import check_quotas
from backends.aws.account.stack import find_installed
from backends.aws.account.subnets import find_subnets
from backends.aws.account.tags import TAG, parse_tags
from backends.aws.emr.request import job_flow
from backends.aws.staging.staged_files import StagedFiles
from fruits.clusters.clouds import EmrCluster
from fruits.storage.s3.errors import FORBIDDEN

ACTIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")


def list_clusters(account: Account, name: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the description of each Fruits cluster that has not ended, or of those with the tag `name`."""
    emr = account.client("emr")
    with translated_errors("look up the clusters"):
        for page in emr.get_paginator("list_clusters").paginate(ClusterStates=[*ACTIVE, "TERMINATING"]):
            for listed in page["Clusters"]:
                try:
                    described = emr.describe_cluster(ClusterId=listed["Id"])["Cluster"]
                except emr.exceptions.ClientError as error:
                    # EMR lists every cluster of the account; the user's policy allows describing tagged ones only.
                    if error.response["Error"]["Code"] not in FORBIDDEN:
                        raise
                    continue
                tags = parse_tags(described.get("Tags", ()))
                if TAG in tags and name in (None, tags[TAG]):
                    yield described | {"Tags": tags}


def find_cluster(account: Account, name: str) -> dict[str, Any] | None:
    """Return the description of the active cluster with the tag `name`, or None."""
    return next((found for found in list_clusters(account, name) if found["Status"]["State"] in ACTIVE), None)


def start_cluster(
    account: Account, settings: EmrCluster, *, name: str, staged: StagedFiles, steps: Sequence[Any] = (), notify: Notify
) -> str:
    """Start a cluster, and return its identifier.

    Raises
    ------
    SettingsError
        ``fruits cluster init`` was not run in this region, or a quota is too small.
    InputError
        The credentials or the permissions do not suffice.
    JobError
        AWS rejected the request for another reason.
    """
    installed, subnets = find_installed(account), find_subnets(account, settings)
    check_quotas(account, settings, notify)
    request = job_flow(settings, name=name, staged=staged, installed=installed, subnets=subnets, steps=steps)
    with translated_errors("start the cluster"):
        return str(account.client("emr").run_job_flow(**request)["JobFlowId"])


def end_cluster(account: Account, identifier: str) -> None:
    """End a cluster and every step on it."""
    with translated_errors(f"end the cluster {identifier}"):
        account.client("emr").terminate_job_flows(JobFlowIds=[identifier])

"""Options of ``fruits cluster``, and the cluster entry that they select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from backends.aws.account.clients import Account, bucket_of
from fruits.cli import options as options
from fruits.clusters.clouds import CloudCluster, EmrCluster
from fruits.clusters.resolve import resolve
from fruits.errors import SettingsError

EntryName = Annotated[str, typer.Argument(metavar="NAME", help="An EMR cluster of cluster.yaml.")]
Entry = Annotated[str, typer.Option("--cluster", metavar="NAME", help="A cluster of cluster.yaml.")]
Region = Annotated[
    str | None, typer.Option("--region", metavar="NAME", help="The AWS region; default: the region of the bucket.")
]
DefaultRegion = Annotated[
    str | None,
    typer.Option(
        "--region", metavar="NAME", help="The AWS region; default: AWS_REGION, or the region in ~/.aws/config."
    ),
]
Bucket = Annotated[
    str | None,
    typer.Option(
        "--bucket", metavar="ADDRESS", envvar="FRUITS_BUCKET", help="s3://name; default: `bucket` in cluster.yaml."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", metavar="", help="Show the effect of the command without making changes.")
]
Yes = Annotated[bool, typer.Option("--yes", metavar="", help="Answer every question with yes.")]


@dataclass(frozen=True, slots=True)
class AccountOptions:
    """Options of a command about the resources of one region."""

    region: DefaultRegion = None


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Options of a command about a cluster of ``cluster.yaml``."""

    bucket: Bucket = None
    region: Region = None
    cluster_file: options.ClusterFile = None

    def place(self, settings: CloudCluster) -> tuple[Account, str]:
        """Return the account of a cluster in its region, and its bucket without ``s3://``."""
        bucket = bucket_of(settings, self.bucket)
        return Account.for_cluster(settings, bucket, self.region), bucket


def cloud_settings(entry: str, file: str | None) -> CloudCluster:
    """Return the settings of a cloud cluster in ``cluster.yaml``."""
    settings = resolve(cluster=entry, file=file).cloud
    if settings is None:
        raise SettingsError(f"{entry}: not a cloud cluster. Give a cluster with a `cloud` in cluster.yaml.")
    return settings


def emr_settings(entry: str, file: str | None) -> EmrCluster:
    """Return the settings of an EMR cluster in ``cluster.yaml``."""
    settings = cloud_settings(entry, file)
    if not isinstance(settings, EmrCluster):
        raise SettingsError(f"{entry}: not an EMR cluster. Give a cluster with `cloud: emr` in cluster.yaml.")
    return settings

"""Options of ``fruits cluster``, and the cluster entry that they select."""

from __future__ import annotations

from typing import Annotated

import typer

from fruits.clusters.clouds import CloudCluster, EmrCluster
from fruits.clusters.resolve import resolve
from fruits.errors import SettingsError

__all__ = [
    "Bucket",
    "DefaultRegion",
    "DryRun",
    "Entry",
    "EntryName",
    "JobName",
    "Name",
    "Region",
    "Yes",
    "cloud_settings",
    "emr_settings",
]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A cluster of cluster.yaml, or a job.")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="A job, by the name that it printed at its start.")]
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

"""Options shared by several commands, each with its help, panel and shell completion."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from fruits.cli.values import reject_empty
from fruits.errors import FruitsError

__all__ = [
    "ALL_COLUMNS",
    "Backbone",
    "Backend",
    "Cluster",
    "ClusterFile",
    "Columns",
    "Components",
    "Crops",
    "Debug",
    "Decode",
    "Engine",
    "FollowLinks",
    "Format",
    "Images",
    "IncludeHidden",
    "Json",
    "KeepPlan",
    "Limit",
    "LogJson",
    "MaxRejectFraction",
    "Model",
    "Out",
    "Overwrite",
    "PartitionSize",
    "Quiet",
    "S3Endpoint",
    "Sample",
    "Seed",
    "Shards",
    "Solver",
    "Weights",
    "Workers",
]

COMPUTATION, EXECUTION, OUTPUT, DISPLAY = "Computation", "Execution", "Output", "Display"
ALL_COLUMNS = "path,label,features,scaled_features,pca_features"


def _clusters(incomplete: str) -> list[str]:
    """Return the cluster names for shell completion; none if cluster.yaml is invalid."""
    from fruits.clusters.load import load

    try:
        return [name for name in load().clusters if name.startswith(incomplete)]
    except FruitsError:
        return []


def _set_endpoint(endpoint: str | None) -> str | None:
    """Set the endpoint variable of this process, which its workers inherit."""
    if endpoint is not None:
        from fruits.storage.s3.settings import ENDPOINT_VARIABLE, S3Settings

        os.environ[ENDPOINT_VARIABLE] = S3Settings(endpoint=endpoint).endpoint or ""
    return endpoint


def _one_of(*names: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Images = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="The folder of images, <label>/<file>: a local path or a URL such as s3://bucket/folder.",
        show_default=False,
        callback=reject_empty,
    ),
]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="The output folder. Run the same command again to resume a stopped job.",
        show_default=False,
        callback=reject_empty,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="FOLDER",
        help="The fitted model: the --out of a run or fit.",
        show_default=False,
        callback=reject_empty,
    ),
]

Components = Annotated[
    str,
    typer.Option(
        "--components",
        metavar="COUNT|FRACTION",
        help="The number of components (200), or the fraction of variance to keep (0.95).",
        rich_help_panel=COMPUTATION,
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="The network: MobileNetV2 (default), ResNet50 or EfficientNetV2B0.",
        autocompletion=_one_of("MobileNetV2", "ResNet50", "EfficientNetV2B0"),
        rich_help_panel=COMPUTATION,
    ),
]
# `parser=str` leaves the check of the value to Job, whose message lists the allowed values.
Engine = Annotated[
    Literal["openvino", "tensorflow"] | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        parser=str,
        help="The inference engine: openvino (default) or tensorflow.",
        autocompletion=_one_of("openvino", "tensorflow"),
        rich_help_panel=COMPUTATION,
    ),
]
Decode = Annotated[
    Literal["reduced", "full"] | None,
    typer.Option(
        "--decode",
        metavar="NAME",
        parser=str,
        help="Decode large JPEGs at a reduced scale (reduced, default) or at full size (full), several times slower.",
        autocompletion=_one_of("reduced", "full"),
        rich_help_panel=COMPUTATION,
    ),
]
Crops = Annotated[
    int,
    typer.Option(
        "--crops",
        metavar="COUNT",
        help="2: store the features of the centre crop of each image too. The network then runs twice on an image.",
        rich_help_panel=COMPUTATION,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="The weights of the network; default: packaged, cached or downloaded.",
        rich_help_panel=COMPUTATION,
    ),
]
Solver = Annotated[
    Literal["exact", "native"],
    typer.Option(
        "--solver",
        metavar="NAME",
        parser=str,
        help="exact, or native: fit with the estimators of dask-ml or Spark ML.",
        autocompletion=_one_of("exact", "native"),
        rich_help_panel=COMPUTATION,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="COUNT",
        help="Use only the first COUNT images by path, which are those of the first labels; see --sample.",
        rich_help_panel=COMPUTATION,
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        "--sample",
        metavar="COUNT",
        help="Use only a sample of COUNT images, with images of every label in proportion.",
        rich_help_panel=COMPUTATION,
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="NUMBER", help="Choose another sample.", rich_help_panel=COMPUTATION),
]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        metavar="",
        help="Follow links to folders, and to files outside of IMAGES; by default they are skipped and counted.",
        rich_help_panel=COMPUTATION,
    ),
]
IncludeHidden = Annotated[
    bool,
    typer.Option(
        "--include-hidden",
        metavar="",
        help="Include hidden files and folders (.*), and folders such as __MACOSX; by default they are skipped.",
        rich_help_panel=COMPUTATION,
    ),
]
MaxRejectFraction = Annotated[
    float,
    typer.Option(
        "--max-reject-fraction",
        metavar="FRACTION",
        help="Fail if more than this fraction of the images is rejected.",
        rich_help_panel=COMPUTATION,
    ),
]

Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="Run on this machine with dask (default), spark or local.",
        autocompletion=_one_of("dask", "spark", "local"),
        rich_help_panel=EXECUTION,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Run on this cluster of cluster.yaml.",
        autocompletion=_clusters,
        rich_help_panel=EXECUTION,
    ),
]
ClusterFile = Annotated[
    str | None,
    typer.Option(
        "--cluster-file",
        metavar="FILE",
        help="A path or URL to read instead of ./cluster.yaml, whose header documents the precedence of settings.",
        rich_help_panel=EXECUTION,
    ),
]
S3Endpoint = Annotated[
    str | None,
    typer.Option(
        "--s3-endpoint",
        metavar="URL",
        help="The URL of an S3-compatible server; default: AWS_ENDPOINT_URL_S3, else AWS.",
        callback=_set_endpoint,
        rich_help_panel=EXECUTION,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="COUNT",
        help="The number of parallel tasks; default: one per CPU within the quota.",
        rich_help_panel=EXECUTION,
    ),
]
PartitionSize = Annotated[
    int,
    typer.Option(
        "--partition-size", metavar="COUNT", help="Images per partition, the unit of work.", rich_help_panel=EXECUTION
    ),
]
Shards = Annotated[
    str | None,
    typer.Option(
        "--shards",
        metavar="I/N",
        help="Process only the I-th of N slices of the partitions. To finish the job, run it once without --shards.",
        rich_help_panel=EXECUTION,
    ),
]

KeepPlan = Annotated[
    bool,
    typer.Option(
        "--keep-plan",
        metavar="",
        help="Resume with the stored plan instead of listing the images again; images added since are not included.",
        rich_help_panel=EXECUTION,
    ),
]

Format = Annotated[
    Literal["parquet", "csv"],
    typer.Option(
        "--format",
        metavar="NAME",
        parser=str,
        help="The file format of the rows: parquet or csv.",
        autocompletion=_one_of("parquet", "csv"),
        rich_help_panel=OUTPUT,
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        "--columns", metavar="NAMES", help="The columns of the rows, separated by commas.", rich_help_panel=OUTPUT
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", metavar="", help="Delete a different job in --out first.", rich_help_panel=OUTPUT),
]

Quiet = Annotated[
    bool, typer.Option("--quiet", metavar="", help="Show only the result, no progress.", rich_help_panel=DISPLAY)
]
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        metavar="",
        help="Write progress and errors to stderr as JSON lines, one per event. Redirect them with 2> job.jsonl.",
        rich_help_panel=DISPLAY,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", metavar="", help="Write the result to stdout as one JSON object.", rich_help_panel=DISPLAY),
]
Debug = Annotated[
    bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.", rich_help_panel=DISPLAY)
]

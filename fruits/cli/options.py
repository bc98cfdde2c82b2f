"""The options that commands of ``fruits.cli.main`` share, each with its help, its panel and its completion."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from fruits.errors import FruitsError, SettingsError

__all__ = [
    "ALL_COLUMNS",
    "Backbone",
    "Backend",
    "Cluster",
    "ClusterFile",
    "Columns",
    "Components",
    "Debug",
    "Engine",
    "FollowLinks",
    "Format",
    "Images",
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
    "Shards",
    "Solver",
    "Weights",
    "Workers",
    "said",
]

WHAT, WHERE, OUTPUT, SHOWN = "What is computed", "Where it runs", "What comes out", "What is shown"
ALL_COLUMNS = "path,label,features,scaled_features,pca_features"


def _clusters(incomplete: str) -> list[str]:
    """Return the names of the clusters, for the shell's completion; a faulty file has none."""
    from fruits.clusters import config

    try:
        return [name for name in config.load().clusters if name.startswith(incomplete)]
    except FruitsError:
        return []


def _reach(endpoint: str | None) -> str | None:
    """Put the endpoint where this process, and the workers that it starts, look for it."""
    if endpoint is not None:
        from fruits.storage.s3.settings import ENDPOINT_VARIABLE, S3Settings

        os.environ[ENDPOINT_VARIABLE] = S3Settings(endpoint=endpoint).endpoint or ""
    return endpoint


def said(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse an empty address, as of a variable that is not set: it would mean the current folder."""
    if value == "":
        name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
        raise SettingsError(f"{name} is empty, as of a variable that is not set. Give a path or an address.")
    return value


def _one_of(*names: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Images = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="The folder of the images, <label>/<file>: a path, or an address such as s3://bucket/folder.",
        show_default=False,
        callback=said,
    ),
]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="The folder of the output. A job that was stopped goes on there.",
        show_default=False,
        callback=said,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="FOLDER",
        help="The fitted model: the --out of a run or a fit.",
        show_default=False,
        callback=said,
    ),
]

Components = Annotated[
    str,
    typer.Option(
        "--components",
        metavar="COUNT|SHARE",
        help="How many components: a count (200), or the share of variance to reach (0.95).",
        rich_help_panel=WHAT,
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="The Keras application: MobileNetV2 (default), ResNet50 or EfficientNetV2B0.",
        autocompletion=_one_of("MobileNetV2", "ResNet50", "EfficientNetV2B0"),
        rich_help_panel=WHAT,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="What runs the network: openvino (default) or tensorflow.",
        autocompletion=_one_of("openvino", "tensorflow"),
        rich_help_panel=WHAT,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="FILE", help="The weights; default: found or fetched.", rich_help_panel=WHAT),
]
Solver = Annotated[
    str,
    typer.Option(
        "--solver",
        metavar="NAME",
        help="exact, or native: the estimators of dask-ml or Spark ML.",
        autocompletion=_one_of("exact", "native"),
        rich_help_panel=WHAT,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="COUNT", help="Use the first so many images only.", rich_help_panel=WHAT),
]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        metavar="",
        help="Take links to files outside of IMAGES for images too; else they are passed over and counted.",
        rich_help_panel=WHAT,
    ),
]
MaxRejectFraction = Annotated[
    float,
    typer.Option(
        "--max-reject-fraction",
        metavar="SHARE",
        help="Fail when a larger share of the images cannot be used.",
        rich_help_panel=WHAT,
    ),
]

Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="dask (default), spark or local, on this machine.",
        autocompletion=_one_of("dask", "spark", "local"),
        rich_help_panel=WHERE,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="A cluster of cluster.yaml.",
        autocompletion=_clusters,
        rich_help_panel=WHERE,
    ),
]
ClusterFile = Annotated[
    str | None,
    typer.Option(
        "--cluster-file",
        metavar="FILE",
        help="Read this, a path or an address, instead of ./cluster.yaml; its top says what wins.",
        rich_help_panel=WHERE,
    ),
]
S3Endpoint = Annotated[
    str | None,
    typer.Option(
        "--s3-endpoint",
        metavar="URL",
        help="Where s3:// is, if not at AWS; default: AWS_ENDPOINT_URL_S3.",
        callback=_reach,
        rich_help_panel=WHERE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="COUNT", help="How many tasks at once; default: one per core.", rich_help_panel=WHERE
    ),
]
PartitionSize = Annotated[
    int,
    typer.Option("--partition-size", metavar="COUNT", help="Images per unit of work.", rich_help_panel=WHERE),
]
Shards = Annotated[
    str | None,
    typer.Option(
        "--shards",
        metavar="I/N",
        help="Do the I-th of N slices of the partitions only; the same command without it ends the job.",
        rich_help_panel=WHERE,
    ),
]

KeepPlan = Annotated[
    bool,
    typer.Option(
        "--keep-plan",
        metavar="",
        help="Go on with the job in OUT without listing the images again: those that were added are not seen.",
        rich_help_panel=WHERE,
    ),
]

Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        help="The format of the rows: parquet or csv.",
        autocompletion=_one_of("parquet", "csv"),
        rich_help_panel=OUTPUT,
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        "--columns", metavar="NAMES", help="The columns of the rows, with commas between.", rich_help_panel=OUTPUT
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", metavar="", help="Throw away another job that --out holds.", rich_help_panel=OUTPUT),
]

Quiet = Annotated[
    bool, typer.Option("--quiet", metavar="", help="Show no progress, only the result.", rich_help_panel=SHOWN)
]
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        metavar="",
        help="Write progress and errors to stderr as JSON lines, one for each event: 2> job.jsonl keeps them.",
        rich_help_panel=SHOWN,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", metavar="", help="Write the result to stdout as one JSON object.", rich_help_panel=SHOWN),
]
Debug = Annotated[
    bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.", rich_help_panel=SHOWN)
]

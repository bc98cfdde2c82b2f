"""Options shared by several commands, each with its help, panel and shell completion, and groups of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial, wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fruits.cli.values import check_address
from fruits.errors import FruitsError

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster as ResolvedCluster
    from fruits.progress.reporter import Progress

ALL_COLUMNS = "path,label,features,scaled_features,pca_features"

source = partial(typer.Option, rich_help_panel="Images", callback=check_address)
computation = partial(typer.Option, rich_help_panel="Computation")
execution = partial(typer.Option, rich_help_panel="Execution")
output = partial(typer.Option, rich_help_panel="Output")
display = partial(typer.Option, rich_help_panel="Display")
address = partial(typer.Option, show_default=False, callback=check_address)
argument = partial(typer.Argument, show_default=False)

Quiet = Annotated[bool, display("--quiet", metavar="", help="Show only the result, no progress.")]
Json = Annotated[bool, display("--json", metavar="", help="Write the result to stdout as one JSON object.")]
Debug = Annotated[bool, display("--debug", metavar="", help="Show the traceback of an error.")]


def option_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command for typer, in which each keyword-only parameter that is a dataclass is replaced by its fields.

    The fields become options, in their order; the command receives them as one value. ``--json`` and ``--debug``, which
    only the entry point reads, are added.
    """
    parameters: list[Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in signature(command, eval_str=True).parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            options = signature(groups[name], eval_str=True).parameters.values()
            parameters += [option.replace(kind=Parameter.KEYWORD_ONLY) for option in options]
        else:
            parameters.append(parameter)
    for name, kind in (("json", Json), ("debug", Debug)):
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=kind))

    @wraps(command)
    def ungrouped(*, json: bool, debug: bool, **values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    ungrouped.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    return ungrouped


def given(*groups: Any) -> list[str]:
    """Return the options in several groups whose values differ from the defaults."""
    options = ((field, getattr(group, field.name)) for group in groups for field in fields(group))
    return [f"--{field.name.replace('_', '-')}" for field, value in options if value != field.default]


def settings(*groups: Any) -> dict[str, Any]:
    """Return the fields of several groups of options by name."""
    return {name: value for group in groups for name, value in asdict(group).items()}


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


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Return the shell completion of a value that is one of some names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def choice(panel: Callable[..., Any], option: str, *names: str, help: str) -> Any:
    """Return an option for one of some names; the library checks the value, and lists the allowed ones."""
    return panel(option, metavar="NAME", parser=str, help=help, autocompletion=one_of(*names))


def _columns(incomplete: str) -> list[str]:
    """Return the lists that one more column makes of a list of columns, for shell completion."""
    *given, last = incomplete.split(",")
    return [",".join([*given, name]) for name in ALL_COLUMNS.split(",") if name not in given and name.startswith(last)]


Images = Annotated[
    str,
    argument(
        metavar="IMAGES",
        help="The folder of images, <label>/<file>, or a manifest, Parquet files or tar archives: a local path or a "
        "URL such as s3://bucket/folder.",
        callback=check_address,
    ),
]
Out = Annotated[
    str,
    address("--out", metavar="FOLDER", help="The output folder. Run the same command again to resume a stopped job."),
]
Model = Annotated[str, address("--model", metavar="FOLDER", help="The fitted model: the --out of a run or fit.")]
RecogniserFolder = Annotated[
    str, address("--recogniser", metavar="REC", help="The recogniser: the --out of a training.")
]
OutputFolder = Annotated[str, argument(metavar="OUT", help="The --out of a completed command.")]

Components = Annotated[
    str,
    computation(
        "--components",
        metavar="COUNT|FRACTION",
        help="The number of components (200), or the fraction of variance to keep (0.95).",
    ),
]
Backbone = Annotated[
    str | None,
    computation(
        "--backbone",
        metavar="NAME",
        help="The network: MobileNetV2 (default), ResNet50 or EfficientNetV2B0.",
        autocompletion=one_of("MobileNetV2", "ResNet50", "EfficientNetV2B0"),
    ),
]
Weights = Annotated[
    str | None,
    computation(
        "--weights",
        metavar="FILE",
        help="The weights of the network; default: packaged, cached or downloaded.",
        callback=check_address,
    ),
]
Solver = Annotated[
    Literal["exact", "native"],
    choice(
        computation,
        "--solver",
        "exact",
        "native",
        help="exact, or native: fit with the estimators of dask-ml or Spark ML.",
    ),
]
ClusterFile = Annotated[
    str | None,
    execution(
        "--cluster-file",
        metavar="FILE",
        help="A path or URL to read instead of ./cluster.yaml, whose header documents the precedence of settings.",
        callback=check_address,
    ),
]
S3Endpoint = Annotated[
    str | None,
    execution(
        "--s3-endpoint",
        metavar="URL",
        help="The URL of an S3-compatible server; default: AWS_ENDPOINT_URL_S3, else AWS.",
        callback=_set_endpoint,
    ),
]
Format = Annotated[
    Literal["parquet", "csv"],
    choice(output, "--format", "parquet", "csv", help="The file format of the rows: parquet or csv."),
]
Columns = Annotated[
    str,
    output("--columns", metavar="NAMES", help="The columns of the rows, separated by commas.", autocompletion=_columns),
]
NoReport = Annotated[
    bool, output("--no-report", metavar="", help="Write no report page. To write it later: fruits report OUT.")
]
KeepModel = Annotated[
    bool,
    output(
        "--keep-model",
        metavar="",
        help="With --update: keep the model, and write only the rows of added and changed images.",
    ),
]
Crops = Annotated[
    int,
    computation(
        "--crops",
        metavar="COUNT",
        help="2: store the features of the centre crop of each image too. The network then runs twice on an image.",
        autocompletion=one_of("1", "2"),
    ),
]
Backgrounds = Annotated[
    str | None,
    computation(
        "--backgrounds",
        metavar="FOLDER",
        help="Paste images with a white border onto these photographs, to train a recogniser of photographs.",
        callback=check_address,
    ),
]
Overwrite = Annotated[
    bool,
    output(
        "--overwrite",
        metavar="",
        help="Replace a different job in --out; features of the same network and decoding are used again.",
    ),
]
Update = Annotated[
    bool,
    output(
        "--update",
        metavar="",
        help="Bring the job in --out to the current images: only added and changed images are featurized.",
    ),
]

FollowLinks = Annotated[
    bool,
    computation(
        "--follow-links",
        metavar="",
        help="Follow links to folders, and to files outside of IMAGES; by default they are skipped and counted.",
    ),
]
IncludeHidden = Annotated[
    bool,
    computation(
        "--include-hidden",
        metavar="",
        help="Include hidden files and folders (.*), and folders such as __MACOSX; by default they are skipped.",
    ),
]
MaxRejectFraction = Annotated[
    float,
    computation(
        "--max-reject-fraction", metavar="FRACTION", help="Fail if more than this fraction of the images is rejected."
    ),
]


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """The network of a job; the fields are those of :class:`fruits.Job`."""

    backbone: Backbone = None
    engine: Annotated[
        Literal["openvino", "tensorflow"] | None,
        choice(
            computation,
            "--engine",
            "openvino",
            "tensorflow",
            help="The inference engine: openvino (default) or tensorflow.",
        ),
    ] = None
    weights: Weights = None
    decode: Annotated[
        Literal["reduced", "full"] | None,
        choice(
            computation,
            "--decode",
            "reduced",
            "full",
            help="Decode large JPEGs at a reduced scale (reduced, default) or at full size (full), which is slower.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of a source; the fields are those of :class:`fruits.Job`."""

    image_column: Annotated[
        str | None,
        source(
            "--image-column",
            metavar="NAME",
            help="The column of images in Parquet files that contain them, such as image.bytes.",
        ),
    ] = None
    path_column: Annotated[
        str | None,
        source("--path-column", metavar="NAME", help="The column of paths in a manifest: .parquet, .csv or .jsonl."),
    ] = None
    label_column: Annotated[
        str | None,
        source(
            "--label-column", metavar="NAME", help="The column of labels; default: the label is the folder in the path."
        ),
    ] = None
    label_regex: Annotated[
        str | None,
        source(
            "--label-regex",
            metavar="REGEX",
            help="Find the label in the path of an image: the first group, or the one named label.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class VersionedSourceOptions(SourceOptions):
    """The options of a source whose images may change between jobs; the fields are those of :class:`fruits.Job`."""

    version_column: Annotated[
        str | None,
        source(
            "--version-column",
            metavar="NAME",
            help="The column of a value that changes with the image, such as an ETag, for --update.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """The selection of images; the fields are those of :class:`fruits.Job`."""

    limit: Annotated[
        int | None,
        computation(
            "--limit",
            metavar="COUNT",
            help="Use only the first COUNT images by path, which are those of the first labels; see --sample.",
        ),
    ] = None
    sample: Annotated[
        int | None,
        computation(
            "--sample",
            metavar="COUNT",
            help="Use only a sample of COUNT images, with images of every label in proportion.",
        ),
    ] = None
    seed: Annotated[int, computation("--seed", metavar="NUMBER", help="Choose another sample.")] = 0
    follow_links: FollowLinks = False
    include_hidden: IncludeHidden = False
    max_reject_fraction: MaxRejectFraction = 0.1


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The cluster of a job."""

    backend: Annotated[
        str | None,
        execution(
            "--backend",
            metavar="NAME",
            help="Run on this machine with dask (default), spark or local.",
            autocompletion=one_of("dask", "spark", "local"),
            callback=check_address,
        ),
    ] = None
    cluster: Annotated[
        str | None,
        execution(
            "--cluster",
            metavar="NAME",
            help="Run on this cluster of cluster.yaml.",
            autocompletion=_clusters,
            callback=check_address,
        ),
    ] = None
    cluster_file: ClusterFile = None
    workers: Annotated[
        int | None,
        execution(
            "--workers", metavar="COUNT", help="The number of parallel tasks; default: one per CPU within the quota."
        ),
    ] = None

    def resolve(self) -> ResolvedCluster:
        """Return the cluster that the options, the environment and ``cluster.yaml`` select."""
        from fruits.clusters.resolve import resolve

        return resolve(cluster=self.cluster, backend=self.backend, workers=self.workers, file=self.cluster_file)


@dataclass(frozen=True, slots=True)
class PartitionOptions:
    """The division of a job; the fields are those of :class:`fruits.Job`."""

    partition_size: Annotated[
        int | None,
        execution(
            "--partition-size",
            metavar="COUNT",
            help="Images per partition, the unit of work; no result depends on it. Default: 3 or more a worker.",
        ),
    ] = None
    shards: Annotated[
        str | None,
        execution(
            "--shards",
            metavar="I/N",
            help="Process only the I-th of N slices of the partitions. To finish the job, run it once without "
            "--shards.",
        ),
    ] = None
    keep_plan: Annotated[
        bool,
        execution(
            "--keep-plan",
            metavar="",
            help="Resume with the stored plan instead of listing the images again; images added since are not "
            "included.",
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class DisplayOptions:
    """The display of progress, results and errors."""

    quiet: Quiet = False
    log_json: Annotated[
        bool,
        display(
            "--log-json",
            metavar="",
            help="Write progress and errors to stderr as JSON lines, one per event. Redirect them with 2> job.jsonl.",
        ),
    ] = False

    def progress(self) -> Progress:
        """Return the progress listener."""
        from fruits.progress.select import to_stderr

        return to_stderr(quiet=self.quiet, log_json=self.log_json)

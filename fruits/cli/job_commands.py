"""Commands that run a job: ``demo``, ``run``, ``fit`` and ``transform``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.cli.values import local_path, parse_columns, parse_components, reject_empty
from fruits.errors import SettingsError
from fruits.jobs.job import Job
from fruits.progress.select import to_stderr
from fruits.text import canonical, native

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster
    from fruits.progress.reporter import Progress

__all__ = ["demo", "fit", "run", "transform"]


def demo(
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="The folder for images and output; default: a new temporary folder.",
            callback=reject_empty,
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", metavar="COUNT", help="Number of generated images.")] = 240,
    components: options.Components = "0.95",
    backend: options.Backend = None,
    cluster: options.Cluster = None,
    cluster_file: options.ClusterFile = None,
    workers: options.Workers = None,
    quiet: options.Quiet = False,
    log_json: options.LogJson = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Run a complete job on a small generated dataset, including a few corrupt files."""
    folder = Path(tempfile.mkdtemp(prefix="fruits-demo-") if out is None else native(local_path(out)))
    # The job and the cluster are validated before anything is written.
    job = Job(
        images=canonical(str(folder / "images")),
        out=canonical(str(folder / "output")),
        components=parse_components(components),
        partition_size=32,
    )
    place = _resolve(cluster, backend, workers, cluster_file)
    progress = to_stderr(quiet=quiet, log_json=log_json)
    _generate_images(folder / "images", images, progress)
    return _run_job("run", job, place, progress)


def _generate_images(folder: Path, images: int, progress: Progress) -> None:
    """Generate the images of the demo, or check that an earlier demo generated as many."""
    files = images + min(3, images // 9)  # a share of corrupt files that stays below --max-reject-fraction
    if not folder.exists():
        from fruits.images.sample import generate

        with progress.stage("sample", total=None) as stage:
            stage.advance(generate(folder, images=images, broken=files - images))
    elif files != (existing := sum(path.is_file() for path in folder.rglob("*"))):
        raise SettingsError(
            f"--images {images}: {folder} contains {existing:,} files; this demo needs {files:,}. "
            "Give another --out, or the --images of the first run."
        )


def run(
    images: options.Images,
    out: options.Out,
    components: options.Components = "0.95",
    backbone: options.Backbone = None,
    engine: options.Engine = None,
    weights: options.Weights = None,
    decode: options.Decode = None,
    crops: options.Crops = 1,
    solver: options.Solver = "exact",
    limit: options.Limit = None,
    sample: options.Sample = None,
    seed: options.Seed = 0,
    follow_links: options.FollowLinks = False,
    include_hidden: options.IncludeHidden = False,
    max_reject_fraction: options.MaxRejectFraction = 0.1,
    backend: options.Backend = None,
    cluster: options.Cluster = None,
    cluster_file: options.ClusterFile = None,
    workers: options.Workers = None,
    s3_endpoint: options.S3Endpoint = None,
    partition_size: options.PartitionSize = 1024,
    shards: options.Shards = None,
    keep_plan: options.KeepPlan = False,
    format: options.Format = "parquet",
    columns: options.Columns = options.ALL_COLUMNS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    log_json: options.LogJson = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Fit a model on the images and write their rows."""
    job = Job(
        images=images,
        out=out,
        components=parse_components(components),
        backbone=backbone,
        engine=engine,
        weights=weights,
        decode=decode,
        crops=crops,
        solver=solver,
        format=format,
        columns=parse_columns(columns),
        partition_size=partition_size,
        limit=limit,
        sample=sample,
        seed=seed,
        follow_links=follow_links,
        include_hidden=include_hidden,
        max_reject_fraction=max_reject_fraction,
        overwrite=overwrite,
        shards=shards,
        keep_plan=keep_plan,
    )
    place = _resolve(cluster, backend, workers, cluster_file)
    return _run_job("run", job, place, to_stderr(quiet=quiet, log_json=log_json))


def fit(
    images: options.Images,
    out: options.Out,
    components: options.Components = "0.95",
    backbone: options.Backbone = None,
    engine: options.Engine = None,
    weights: options.Weights = None,
    decode: options.Decode = None,
    crops: options.Crops = 1,
    solver: options.Solver = "exact",
    limit: options.Limit = None,
    sample: options.Sample = None,
    seed: options.Seed = 0,
    follow_links: options.FollowLinks = False,
    include_hidden: options.IncludeHidden = False,
    max_reject_fraction: options.MaxRejectFraction = 0.1,
    backend: options.Backend = None,
    cluster: options.Cluster = None,
    cluster_file: options.ClusterFile = None,
    workers: options.Workers = None,
    s3_endpoint: options.S3Endpoint = None,
    partition_size: options.PartitionSize = 1024,
    shards: options.Shards = None,
    keep_plan: options.KeepPlan = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    log_json: options.LogJson = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Fit a model on the images; write no rows."""
    job = Job(
        images=images,
        out=out,
        components=parse_components(components),
        backbone=backbone,
        engine=engine,
        weights=weights,
        decode=decode,
        crops=crops,
        solver=solver,
        partition_size=partition_size,
        limit=limit,
        sample=sample,
        seed=seed,
        follow_links=follow_links,
        include_hidden=include_hidden,
        max_reject_fraction=max_reject_fraction,
        overwrite=overwrite,
        shards=shards,
        keep_plan=keep_plan,
    )
    place = _resolve(cluster, backend, workers, cluster_file)
    return _run_job("fit", job, place, to_stderr(quiet=quiet, log_json=log_json))


def transform(
    images: options.Images,
    model: options.Model,
    out: options.Out,
    backbone: options.Backbone = None,
    engine: options.Engine = None,
    weights: options.Weights = None,
    limit: options.Limit = None,
    sample: options.Sample = None,
    seed: options.Seed = 0,
    follow_links: options.FollowLinks = False,
    include_hidden: options.IncludeHidden = False,
    max_reject_fraction: options.MaxRejectFraction = 0.1,
    backend: options.Backend = None,
    cluster: options.Cluster = None,
    cluster_file: options.ClusterFile = None,
    workers: options.Workers = None,
    s3_endpoint: options.S3Endpoint = None,
    partition_size: options.PartitionSize = 1024,
    shards: options.Shards = None,
    keep_plan: options.KeepPlan = False,
    format: options.Format = "parquet",
    columns: options.Columns = options.ALL_COLUMNS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    log_json: options.LogJson = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Apply a fitted model to other images and write their rows, in one pass."""
    job = Job(
        images=images,
        out=out,
        backbone=backbone,
        engine=engine,
        weights=weights,
        format=format,
        columns=parse_columns(columns),
        partition_size=partition_size,
        limit=limit,
        sample=sample,
        seed=seed,
        follow_links=follow_links,
        include_hidden=include_hidden,
        max_reject_fraction=max_reject_fraction,
        overwrite=overwrite,
        model=model,
        shards=shards,
        keep_plan=keep_plan,
    )
    place = _resolve(cluster, backend, workers, cluster_file)
    return _run_job("transform", job, place, to_stderr(quiet=quiet, log_json=log_json))


def _resolve(cluster: str | None, backend: str | None, workers: int | None, file: str | None) -> Cluster:
    """Return the cluster that the options, the environment and ``cluster.yaml`` select."""
    from fruits.clusters.resolve import resolve

    return resolve(cluster=cluster, backend=backend, workers=workers, file=file)


def _run_job(command: str, job: Job, cluster: Cluster, progress: Progress) -> CommandResult:
    """Run a job on a cluster and return its report."""
    import backends
    from fruits.cli.display import show_report
    from fruits.jobs import pipeline

    if cluster.cloud is not None:
        report = backends.load_cloud(cluster.cloud.cloud)(command, job, cluster, progress)
    else:
        run_pipeline = {"run": pipeline.run, "fit": pipeline.fit, "transform": pipeline.transform}[command]
        with backends.load(cluster.backend).from_cluster(cluster) as executor:
            progress.note(_describe(cluster))
            report = run_pipeline(job, executor, progress=progress)
    return CommandResult(report.to_dict(), lambda console: show_report(console, report, job.out))


def _describe(cluster: Cluster) -> str:
    """Return the backend and its address or number of workers, for the log."""
    if cluster.address is not None:
        return f"{cluster.backend} at {cluster.address}"
    return f"{cluster.backend} on this machine, {cluster.workers} worker{'s' if cluster.workers != 1 else ''}"

"""Commands that run a job: ``demo``, ``run``, ``fit`` and ``transform``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.cli.values import local_path, parse_columns, parse_components
from fruits.errors import SettingsError
from fruits.jobs.job import Job
from fruits.text import canonical, native

if TYPE_CHECKING:
    from fruits.clusters.cluster import Cluster
    from fruits.progress.reporter import Progress


def demo(
    *,
    out: Annotated[
        str | None,
        options.address(
            "--out", metavar="FOLDER", help="The folder for images and output; default: a new temporary folder."
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", metavar="COUNT", help="Number of generated images.")] = 240,
    components: options.Components = "0.95",
    cluster: options.ClusterOptions,
    display: options.DisplayOptions,
) -> CommandResult:
    """Run a complete job on a small generated dataset, including a few corrupt files."""
    # The cluster, its packages and the job are validated before images are generated.
    place = cluster.resolve()
    if place.cloud is None:
        import backends

        backends.load(place.backend)
    folder = Path(tempfile.mkdtemp(prefix="fruits-demo-") if out is None else native(local_path(out)))
    job = Job(
        images=canonical(str(folder / "images")),
        out=canonical(str(folder / "output")),
        components=parse_components(components),
        partition_size=32,
    )
    progress = display.progress()
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
    *,
    images: options.Images,
    out: options.Out,
    components: options.Components = "0.95",
    source: options.VersionedSourceOptions,
    network: options.NetworkOptions,
    crops: options.Crops = 1,
    solver: options.Solver = "exact",
    selection: options.SelectionOptions,
    cluster: options.ClusterOptions,
    s3_endpoint: options.S3Endpoint = None,
    partitions: options.PartitionOptions,
    format: options.Format = "parquet",
    columns: options.Columns = options.ALL_COLUMNS,
    overwrite: options.Overwrite = False,
    update: options.Update = False,
    keep_model: options.KeepModel = False,
    no_report: options.NoReport = False,
    display: options.DisplayOptions,
) -> CommandResult:
    """Fit a model on the images and write their rows."""
    job = Job(
        images=images,
        out=out,
        components=parse_components(components),
        crops=crops,
        solver=solver,
        **options.settings(source, network, selection, partitions),
        format=format,
        columns=parse_columns(columns),
        overwrite=overwrite,
        update=update,
        keep_model=keep_model,
        report=not no_report,
    )
    return _run_job("run", job, cluster.resolve(), display.progress())


def fit(
    *,
    images: options.Images,
    out: options.Out,
    components: options.Components = "0.95",
    source: options.VersionedSourceOptions,
    network: options.NetworkOptions,
    crops: options.Crops = 1,
    backgrounds: options.Backgrounds = None,
    solver: options.Solver = "exact",
    selection: options.SelectionOptions,
    cluster: options.ClusterOptions,
    s3_endpoint: options.S3Endpoint = None,
    partitions: options.PartitionOptions,
    overwrite: options.Overwrite = False,
    update: options.Update = False,
    no_report: options.NoReport = False,
    display: options.DisplayOptions,
) -> CommandResult:
    """Fit a model on the images; write no rows."""
    job = Job(
        images=images,
        out=out,
        components=parse_components(components),
        crops=crops,
        backgrounds=backgrounds,
        solver=solver,
        **options.settings(source, network, selection, partitions),
        overwrite=overwrite,
        update=update,
        report=not no_report,
    )
    return _run_job("fit", job, cluster.resolve(), display.progress())


def transform(
    *,
    images: options.Images,
    model: options.Model,
    out: options.Out,
    source: options.VersionedSourceOptions,
    network: options.NetworkOptions,
    selection: options.SelectionOptions,
    cluster: options.ClusterOptions,
    s3_endpoint: options.S3Endpoint = None,
    partitions: options.PartitionOptions,
    format: options.Format = "parquet",
    columns: options.Columns = options.ALL_COLUMNS,
    overwrite: options.Overwrite = False,
    no_report: options.NoReport = False,
    display: options.DisplayOptions,
) -> CommandResult:
    """Apply a fitted model to other images and write their rows, in one pass."""
    job = Job(
        images=images,
        model=model,
        out=out,
        **options.settings(source, network, selection, partitions),
        format=format,
        columns=parse_columns(columns),
        overwrite=overwrite,
        report=not no_report,
    )
    return _run_job("transform", job, cluster.resolve(), display.progress())


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
            progress.note(describe_cluster(cluster))
            report = run_pipeline(job, executor, progress=progress)
    return CommandResult(report.to_dict(), lambda console: show_report(console, report, job.out))


def describe_cluster(cluster: Cluster) -> str:
    """Return the backend and its address or number of workers, for the log."""
    if cluster.address is not None:
        return f"{cluster.backend} at {cluster.address}"
    return f"{cluster.backend} on this machine, {cluster.workers} worker{'s' if cluster.workers != 1 else ''}"

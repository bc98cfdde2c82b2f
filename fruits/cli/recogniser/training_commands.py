"""Commands that train, evaluate and use a recogniser: ``train``, ``evaluate`` and ``predict``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.cli.values import check_address, parse_weights
from fruits.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fruits.clusters.cluster import Cluster
    from fruits.executor import Executor
    from fruits.jobs.report import Report, SliceReport
    from fruits.progress.reporter import Progress
    from fruits.recogniser.recogniser import Recognition

SourceHelp = "The output of a fit or a run, a folder of images, <label>/<file>, or another source of images."


def train(
    *,
    sources: Annotated[list[str], options.argument(metavar="SOURCE...", help=SourceHelp)],
    out: Annotated[
        str,
        options.address(
            "--out",
            metavar="REC",
            help="The folder of the recogniser. Run the same command again to resume a stopped training.",
        ),
    ],
    source: options.SourceOptions,
    classes: Annotated[
        str | None,
        options.computation(
            "--classes",
            metavar="FILE",
            help="A CSV file label,class; labels that it does not contain are classes of their own.",
            callback=check_address,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        options.computation("--weights", metavar="COUNTS", help="The weight of each SOURCE, such as 1,5; default: 1."),
    ] = None,
    crops: Annotated[
        int,
        options.computation(
            "--crops",
            metavar="COUNT",
            help="2: recognise the whole image and its centre, which suits photographs. The network then runs twice.",
            autocompletion=options.one_of("1", "2"),
        ),
    ] = 1,
    method: Annotated[
        Literal["prototypes", "linear"],
        options.choice(
            options.computation,
            "--method",
            "prototypes",
            "linear",
            help="prototypes, or linear: one direction for each label, which is smaller and less accurate.",
        ),
    ] = "prototypes",
    backgrounds: options.Backgrounds = None,
    unknown: Annotated[
        str | None,
        options.computation(
            "--unknown", metavar="SOURCE", help="Images that belong to no class.", callback=check_address
        ),
    ] = None,
    test: Annotated[
        str | None,
        options.computation(
            "--test", metavar="SOURCE", help="Evaluate on these images, into REC/test.", callback=check_address
        ),
    ] = None,
    max_reject_fraction: options.MaxRejectFraction = 0.1,
    cluster: options.ClusterOptions,
    s3_endpoint: options.S3Endpoint = None,
    overwrite: options.Overwrite = False,
    no_report: options.NoReport = False,
    display: options.DisplayOptions,
) -> CommandResult:
    """Train a recogniser on labelled images.

    Folders of images are featurized into REC/sources first; outputs with features are used as they are.
    """
    from fruits.cli.recogniser.display import show_evaluation, show_training
    from fruits.jobs.stored import feature_source
    from fruits.recogniser.jobs.evaluate import evaluate as run_evaluation
    from fruits.recogniser.jobs.request import Training
    from fruits.recogniser.jobs.train import TEST
    from fruits.recogniser.jobs.train import train as run_training
    from fruits.storage.folder import Folder

    training = Training(
        sources=tuple(sources),
        out=out,
        **asdict(source),
        classes=classes,
        weights=None if weights is None else parse_weights(weights),
        crops=crops,
        method=method,
        backgrounds=backgrounds,
        unknown=unknown,
        test=test,
        max_reject_fraction=max_reject_fraction,
        overwrite=overwrite,
        report=not no_report,
    )
    progress = display.progress()
    with _executor(cluster.resolve(), progress) as executor:
        report = run_training(training, executor, progress=progress)
        if test is None:
            following = f"fruits evaluate SOURCE --recogniser {quote(out)} --out EVALUATION"
            return CommandResult(report.to_dict(), lambda console: show_training(console, report, following))
        folder = (Folder.at(out) / TEST).address
        given = asdict(source) if feature_source(test) is None else {}
        evaluation = run_evaluation(test, out, folder, executor, **given, overwrite=overwrite, progress=progress)

    def show(console: Any) -> None:
        show_training(console, report)
        show_evaluation(console, evaluation, folder, f"fruits predict IMAGE... --recogniser {quote(out)}")

    return CommandResult(report.to_dict() | {"test": evaluation.to_dict()}, show)


def evaluate(
    *,
    source: Annotated[str, options.argument(metavar="SOURCE", help=SourceHelp, callback=check_address)],
    recogniser: options.RecogniserFolder,
    out: Annotated[
        str,
        options.address("--out", metavar="EVAL", help="The folder for report.json, report.html and the predictions."),
    ],
    images: options.SourceOptions,
    left_out: Annotated[
        int,
        options.computation(
            "--left-out",
            metavar="COUNT",
            help="The largest number of labels to leave out of training, a few seconds each; 0 to 200.",
        ),
    ] = 200,
    cluster: options.ClusterOptions,
    s3_endpoint: options.S3Endpoint = None,
    overwrite: options.Overwrite = False,
    display: options.DisplayOptions,
) -> CommandResult:
    """Evaluate a recogniser on labelled images, and on labels that are left out of its training."""
    from fruits.cli.recogniser.display import show_evaluation
    from fruits.recogniser.jobs.evaluate import evaluate as run_evaluation

    progress = display.progress()
    with _executor(cluster.resolve(), progress) as executor:
        evaluation = run_evaluation(
            source,
            recogniser,
            out,
            executor,
            **asdict(images),
            left_out=left_out,
            overwrite=overwrite,
            progress=progress,
        )
    following = f"fruits predict IMAGE... --recogniser {quote(recogniser)}"
    return CommandResult(evaluation.to_dict(), lambda console: show_evaluation(console, evaluation, out, following))


def predict(
    *,
    images: Annotated[
        list[str],
        options.argument(
            metavar="IMAGES_OR_FILE...",
            help="With --out, a folder of images or an output with features; without it, image files.",
        ),
    ],
    recogniser: options.RecogniserFolder,
    out: Annotated[
        str | None,
        options.address(
            "--out", metavar="FOLDER", help="The output folder. Run the same command again to resume a stopped job."
        ),
    ] = None,
    source: options.SourceOptions,
    selection: options.SelectionOptions,
    cluster: options.ClusterOptions,
    s3_endpoint: options.S3Endpoint = None,
    partitions: options.PartitionOptions,
    format: options.Format = "parquet",
    overwrite: options.Overwrite = False,
    display: options.DisplayOptions,
) -> CommandResult:
    """Recognise images: print the result of a few files, or write that of a whole folder."""
    if out is None:
        unused = options.given(source, selection, cluster, partitions)
        if unused := unused + ["--format"] * (format != "parquet") + ["--overwrite"] * overwrite:
            raise SettingsError(
                f"{unused[0]} without --out: not allowed, because single files are read and recognised as they are. "
                f"Leave {unused[0]} out, or give --out and a folder."
            )
        return _predict_files(images, recogniser)
    if len(images) != 1:
        raise SettingsError(
            f"{len(images)} IMAGES with --out: not allowed. Give one folder, or leave --out out to recognise files."
        )
    from fruits.cli.display import show_report
    from fruits.jobs.job import Job
    from fruits.recogniser.jobs.predict import predict as run_prediction

    job = Job(
        images=images[0],
        out=out,
        recogniser=recogniser,
        **options.settings(source, selection, partitions),
        format=format,
        overwrite=overwrite,
    )
    progress = display.progress()
    report: Report | SliceReport
    with _executor(cluster.resolve(), progress) as executor:
        report = run_prediction(job, executor, progress=progress)
    return CommandResult(report.to_dict(), lambda console: show_report(console, report, job.out))


def _predict_files(files: Sequence[str], folder: str) -> CommandResult:
    """Recognise a few files in this process."""
    from fruits.cli.recogniser.display import show_recognitions
    from fruits.recogniser.recogniser import Recogniser
    from fruits.storage.folder import Folder

    for address in files:
        if not Folder.at(address).is_file():
            raise SettingsError(f"{address} is no file. Give image files; or give --out for a whole folder.")
    loaded = Recogniser.load(folder)
    results = loaded.recognise(list(files))
    values = {
        "recogniser": loaded.version,
        "images": [{"path": path, **_values(result)} for path, result in zip(files, results, strict=True)],
    }
    return CommandResult(values, lambda console: show_recognitions(console, files, results))


def _values(result: Recognition) -> dict[str, Any]:
    return {
        "prediction": result.prediction,
        "confidence": result.confidence,
        "top": [each._asdict() for each in result.top],
        "reason": result.reason,
    }


@contextmanager
def _executor(cluster: Cluster, progress: Progress) -> Iterator[Executor]:
    """Yield the executor of a cluster."""
    import backends
    from fruits.cli.job_commands import describe_cluster

    if cluster.cloud is not None:
        raise SettingsError(
            "a cloud cluster runs fit, run and transform. Make the features there with fit, "
            "and give their output as SOURCE to a command on this machine, or on a node of the cluster."
        )
    with backends.load(cluster.backend).from_cluster(cluster) as executor:
        progress.note(describe_cluster(cluster))
        yield executor

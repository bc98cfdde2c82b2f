"""The command line: every command makes frozen values, calls the core, and returns an :class:`Answer` to show.

What is imported here is what ``fruits --help`` needs; the rest is imported by the command that uses it. The answer
goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from fruits.cli import options as options
from fruits.cli.answer import Answer
from fruits.errors import FruitsError, SettingsError
from fruits.progress.select import to_stderr
from fruits.text import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from fruits.clusters.config import Cluster
    from fruits.jobs.job import Job

__all__ = ["Answer", "app", "main"]

STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}
UNFOLDED = 10_000  # columns: a line stays a line where a program reads it
EXAMPLE = "[bold]Example:[/] "

Item = TypeVar("Item")
Result = TypeVar("Result")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 the job failed, 2 bad input, 130 or 143 stopped by a signal."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # Needed also where the words cannot be parsed.
    as_json, log_json, debug = "--json" in words, "--log-json" in words, "--debug" in words
    with _reserved_stdout(as_json), _terminable():
        answer = _answer(words, debug)
    if answer is not None:
        try:
            _write(answer, as_json, log_json)
        except FruitsError as error:  # the rows of a job that is done cannot be shown
            answer = _failure(error, str(error), error.exit_code, debug)
            _write(answer, as_json, log_json)
    sys.exit(0 if answer is None else answer.exit_code)


app = typer.Typer(
    name="fruits",
    help="Labelled images in, standardised PCA-reduced transfer-learning features out, the same on Dask and on Spark.",
    epilog="Begin with: [bold]fruits demo[/]. Then: [bold]fruits run IMAGES --out OUT[/].",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fruits {version('fruits')}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog=EXAMPLE + "fruits demo --backend spark")
def demo(
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Where the images and the output go; default: a new temporary folder.",
            callback=options.said,
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", metavar="COUNT", help="How many images are drawn.")] = 240,
    components: options.Components = "0.95",
    backend: options.Backend = None,
    cluster: options.Cluster = None,
    cluster_file: options.ClusterFile = None,
    workers: options.Workers = None,
    quiet: options.Quiet = False,
    log_json: options.LogJson = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> Answer:
    """Run the whole job on a small sample that is drawn for it, up to three broken files among it."""
    folder = Path(tempfile.mkdtemp(prefix="fruits-demo-") if out is None else _local(out))
    given = locals() | {"images": str(folder / "images"), "out": str(folder / "output"), "partition_size": 32}
    _checked(given)  # nothing is drawn for a job that cannot be
    files = images + min(3, images // 9)  # so many broken ones that they are not too many of all
    if not (folder / "images").exists():
        from fruits.images.sample import generate

        with to_stderr(quiet=quiet, log_json=log_json).stage("sample", total=None) as stage:
            stage.advance(generate(folder / "images", images=images, broken=files - images))
    elif files != (there := sum(path.is_file() for path in (folder / "images").rglob("*"))):
        raise SettingsError(
            f"--images {images}: {folder / 'images'} holds {there:,} files, and {files:,} were to be drawn. "
            "Give another --out, or the --images that it was begun with."
        )
    return _work("run", given)


def _local(folder: str) -> str:
    """Return a folder of this machine, where pictures are drawn."""
    if "://" in folder:
        raise SettingsError(f"{folder}: pictures are drawn on this machine. Give a folder of it.")
    return folder


@app.command(epilog=EXAMPLE + "fruits sample photos/ --images 1000 --labels 5")
def sample(
    folder: Annotated[
        str,
        typer.Argument(metavar="DIR", help="A new folder, or an empty one.", show_default=False, callback=options.said),
    ],
    images: Annotated[int, typer.Option("--images", metavar="COUNT", help="How many images.")] = 240,
    labels: Annotated[int, typer.Option("--labels", metavar="COUNT", help="How many kinds of fruit, up to 8.")] = 8,
    broken: Annotated[int, typer.Option("--broken", metavar="COUNT", help="How many broken files more.")] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="NUMBER", help="Another seed, other images.")] = 0,
    json: options.Json = False,
    debug: options.Debug = False,
) -> Answer:
    """Draw labelled sample images."""
    from fruits.images.sample import generate

    files = generate(_local(folder), images=images, labels=labels, seed=seed, broken=broken)
    return Answer(
        {"folder": os.path.abspath(folder), "files": files},
        lambda console: console.print(f"{files:,} files are in {_shown(folder)}", markup=False, soft_wrap=True),
    )


@app.command(epilog=EXAMPLE + "fruits weights --backbone ResNet50 --weights s3://bucket/resnet50.h5")
def weights(
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    s3_endpoint: options.S3Endpoint = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> Answer:
    """Fetch and verify the ImageNet weights now, so that a job finds them in the cache."""
    from fruits.cli.display import show_weights
    from fruits.network.backbones import backbone as backbone_of
    from fruits.network.weights import find_weights

    network = backbone_of(backbone or "MobileNetV2")
    with to_stderr(quiet=quiet).stage("weights", total=None):
        found = find_weights(network, weights)
    values = {
        "backbone": network.name,
        "source": found.source,
        "digest": found.digest,
        "path": str(found.path),
        "verified": network.weights_digest is not None,
    }
    return Answer(values, lambda console: show_weights(console, values))


@app.command(
    epilog=EXAMPLE + "fruits run photos/ --out out/photos --backend spark --components 200\n\n"
    "In four slices: [bold]fruits run photos/ --out out/photos --shards 1/4[/] to 4/4, and then without --shards."
)
def run(
    images: options.Images,
    out: options.Out,
    components: options.Components = "0.95",
    backbone: options.Backbone = None,
    engine: options.Engine = None,
    weights: options.Weights = None,
    solver: options.Solver = "exact",
    limit: options.Limit = None,
    follow_links: options.FollowLinks = False,
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
) -> Answer:
    """Fit on the images, and write their rows."""
    return _work("run", locals())


@app.command(epilog=EXAMPLE + "fruits fit s3://bucket/train --out s3://bucket/model --cluster dask-address")
def fit(
    images: options.Images,
    out: options.Out,
    components: options.Components = "0.95",
    backbone: options.Backbone = None,
    engine: options.Engine = None,
    weights: options.Weights = None,
    solver: options.Solver = "exact",
    limit: options.Limit = None,
    follow_links: options.FollowLinks = False,
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
) -> Answer:
    """Fit on the images, and write the model."""
    return _work("fit", locals())


@app.command(epilog=EXAMPLE + "fruits transform new-photos/ --model out/photos --out out/new --format csv")
def transform(
    images: options.Images,
    model: options.Model,
    out: options.Out,
    backbone: options.Backbone = None,
    engine: options.Engine = None,
    weights: options.Weights = None,
    limit: options.Limit = None,
    follow_links: options.FollowLinks = False,
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
) -> Answer:
    """Write the rows of other images with a fitted model, in one pass."""
    return _work("transform", locals())


@app.command(
    epilog=EXAMPLE + "fruits status s3://bucket/out\n\nAgain and again: [bold]watch -n 10 fruits status out/photos[/]"
)
def status(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The --out of a job.", show_default=False)],
    s3_endpoint: options.S3Endpoint = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> Answer:
    """Tell how far a job is and whether it moves, from another terminal or another machine.

    It only reads what the job has stored. Exits with 0 where there is a job, complete or not, and with 2 where there is
    none.
    """
    from fruits.cli.display import show_status
    from fruits.jobs.status import status as status_of

    found = status_of(out)
    return Answer(dataclasses.asdict(found), lambda console: show_status(console, found))


@app.command(epilog=EXAMPLE + "fruits verify out/photos")
def verify(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The --out of a finished command.", show_default=False)],
    s3_endpoint: options.S3Endpoint = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> Answer:
    """Read every part of an output, and tell whether each is there and as it was written.

    Exits with 0 where all is whole, and with 1 where it is not: the command that made it, started again, makes what is
    missing or damaged again, and that alone.
    """
    from fruits.jobs.verify import verify as verified

    found = verified(out, to_stderr(quiet=quiet))

    def show(console: Console) -> None:
        for line in (*found.damages, *(f"{name}: not of this job" for name in found.strangers)):
            console.print(str(line), markup=False, soft_wrap=True)
        words = [f"{found.parts:,} parts, {found.bytes:,} bytes, whole"]
        words += [f"{len(found.damages):,} not: start its command again"] * bool(found.damages)
        words += [f"{len(found.strangers):,} not of this job: remove them"] * bool(found.strangers)
        console.print("; ".join(words), soft_wrap=True)

    return Answer(dataclasses.asdict(found), show, 0 if found.is_whole else 1)


@app.command(epilog=EXAMPLE + "fruits compare out/dask out/spark")
def compare(
    a: Annotated[str, typer.Argument(metavar="OUT_A", help="The --out of a finished command.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="OUT_B", help="That of another.", show_default=False)],
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", metavar="NUMBER", min=0, help="The largest difference to pass over.")
    ] = None,
    s3_endpoint: options.S3Endpoint = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> Answer:
    """Tell whether two outputs are identical to the last bit, or where and by how much they differ.

    Exits with 0 where they are the same, and with 1 where they differ by more than the tolerance.
    """
    from fruits.cli.display import show_comparison
    from fruits.jobs.compare import compare as compared

    found = compared(a, b)
    same = found.identical or (tolerance is not None and found.largest <= tolerance)
    values = dataclasses.asdict(found) | {"identical": found.identical, "largest": found.largest, "same": same}
    return Answer(values, lambda console: show_comparison(console, found, tolerance), 0 if same else 1)


@app.command(
    epilog=EXAMPLE + "fruits bench photos/ --set quick --out bench/",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def bench(context: typer.Context) -> Any:
    """Measure this machine, on Dask and on Spark; in a source checkout only."""
    if find_spec("benchmarks") is None:
        raise SettingsError(
            "fruits bench: the benchmarks are part of the source checkout, and only the installed package is here. "
            "Get the source, and there: pip install -e '.[all,bench]'."
        )
    if find_spec("psutil") is None:
        raise SettingsError("fruits bench: psutil is not installed. Install it with: pip install -e '.[all,bench]'.")
    # Not imported by name: the package must be whole without it.
    return import_module("benchmarks.cli").call(context.args)


@app.command(
    epilog=EXAMPLE + "fruits cluster init s3://my-fruits --region eu-west-3 --dry-run",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def cluster(context: typer.Context) -> Any:
    """Prepare an account of AWS, and see, start and end clusters there."""
    return import_module("backends.aws.cli").call(context.args)


def _work(command: str, given: dict[str, Any]) -> Answer:
    """Do the work that the options ask for, and return its report."""
    job, cluster = _checked(given)
    import backends
    from fruits.cli.display import show_report
    from fruits.jobs import pipeline  # after the checks, which are to be quick

    progress = to_stderr(quiet=given["quiet"], log_json=given["log_json"])
    if cluster.cloud is not None:
        report = backends.load_cloud(cluster.cloud.cloud)(command, job, cluster, progress)
    else:
        work = {"run": pipeline.run, "fit": pipeline.fit, "transform": pipeline.transform}[command]
        with backends.load(cluster.backend).of(cluster) as executor:
            progress.note(_place(cluster))
            report = work(job, executor, progress=progress)
    return Answer(report.to_dict(), lambda console: show_report(console, report))


def _checked(given: dict[str, Any]) -> tuple[Job, Cluster]:
    """Return the job and the place that the options ask for."""
    from fruits.clusters import config
    from fruits.jobs.job import Job

    settings = {field.name: given[field.name] for field in dataclasses.fields(Job) if field.name in given}
    if "components" in settings:
        settings["components"] = _number(settings["components"])
    if "columns" in settings:
        settings["columns"] = tuple(name.strip() for name in settings["columns"].split(","))
    job = Job(**settings)
    cluster = config.resolve(
        cluster=given["cluster"], backend=given["backend"], workers=given["workers"], file=given["cluster_file"]
    )
    return job, cluster


def _number(text: str) -> int | float:
    """Return ``--components`` as the job takes it: a count is written without a point."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise SettingsError(
            f"--components {text}: not a number. "
            "Allowed: a count of at least 1, such as 200, or a fraction of variance between 0 and 1, such as 0.95."
        ) from None


def _place(cluster: Cluster) -> str:
    """Return in words where a job runs."""
    if cluster.address is not None:
        return f"{cluster.backend} at {_shown(cluster.address)}"
    return f"{cluster.backend} on this machine, {cluster.workers} worker{'s' if cluster.workers != 1 else ''}"


def _answer(words: list[str], debug: bool) -> Answer | None:
    """Return what the command found, or what went wrong; None where the parser has answered itself, as for --help."""
    try:
        returned = app(words, prog_name="fruits", standalone_mode=False)
    except FruitsError as error:
        return _failure(error, str(error), error.exit_code, debug)
    except typer.TyperException as error:
        return _failure(error, _usage(error), 2, debug)
    except KeyboardInterrupt:
        returned = 128 + signal.SIGINT  # what typer makes of those that it sees
    except _Terminated:
        returned = 128 + signal.SIGTERM
    except Exception as error:
        message = f"{type(error).__name__}: {error}\nThis was not foreseen. The same command with --debug shows where."
        return _failure(error, message, 1, debug)
    if isinstance(returned, Answer):
        return returned
    if returned in STOPPED:
        message = "Stopped. What is finished is kept: run the same command again to go on."
        return Answer(_error("Stopped", message, returned), lambda console: console.print(message), returned)
    return None


def _failure(error: Exception, message: str, exit_code: int, debug: bool) -> Answer:
    message = without_secrets(message)

    def show(console: Console) -> None:
        from rich.text import Text

        if debug:
            trace = _shown(without_secrets("".join(traceback.format_exception(error))))
            console.print(trace, markup=False, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("Error: ", "bold red"), _shown(message)), soft_wrap=not console.is_terminal)

    return Answer(_error(type(error).__name__, message, exit_code), show, exit_code)


def _shown(text: str) -> str:
    """Return lines in which nothing that somebody else chose steers the terminal."""
    from fruits.text import printable

    return "\n".join(map(printable, text.split("\n")))


def _error(kind: str, message: str, exit_code: int) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "exit_code": exit_code}}


def _usage(error: typer.TyperException) -> str:
    """Return what is wrong with the words of the command line, and where to read what is allowed."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if message.startswith("No such command"):
        group: Any = context.command if context is not None else typer.main.get_command(app)
        message += f" Allowed: {', '.join(group.commands)}."
    return message if context is None else f"{message}\n{context.command_path} --help shows what is allowed."


def _write(answer: Answer, as_json: bool, log_json: bool) -> None:
    """Write JSON or a result to stdout, and to stderr what went wrong: in words, or as the last event of the log."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    stdout = Console(highlight=False, width=None if terminal else UNFOLDED)
    stderr = Console(stderr=True, highlight=False)
    failed = "error" in answer.values
    if failed and log_json:
        from fruits.progress.json_log import JsonLog

        error = answer.values["error"]
        JsonLog().event("error", error["message"], type=error["type"], exit_code=error["exit_code"])
    elif failed:
        answer.show(stderr)
    with stdout.capture() as captured:
        if as_json:
            import orjson

            from fruits.text import utf8

            stdout.out(orjson.dumps(utf8(answer.values), option=orjson.OPT_INDENT_2).decode())
        elif not failed:
            answer.show(stdout)
    text = captured.get() if terminal else re.sub(r" +$", "", captured.get(), flags=re.MULTILINE)
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough; the job is done all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _reserved_stdout(reserved: bool) -> Iterator[None]:
    """Keep stdout for the one JSON object: what libraries and child processes write there goes to stderr."""
    if not reserved:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that what is open is closed."""


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()

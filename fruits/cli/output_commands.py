"""Commands that read the output of a job: ``status``, ``report``, ``verify`` and ``compare``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.progress.select import to_stderr
from fruits.text import without_secrets

if TYPE_CHECKING:
    from rich.console import Console


def status(
    out: Annotated[str, options.argument(metavar="OUT", help="The --out of a job.")],
    s3_endpoint: options.S3Endpoint = None,
) -> CommandResult:
    """Show the progress of a job, from another terminal or another machine, or the content of a recogniser.

    Reads stored files only. Exits with 0 if OUT contains a job or a recogniser, complete or not, and with 2 otherwise.
    """
    from fruits.cli.display import show_status
    from fruits.cli.recogniser.display import show_recogniser
    from fruits.jobs.inspect.status import status as read_status
    from fruits.recogniser.jobs.status import recogniser_status

    recogniser = recogniser_status(out)
    if recogniser is not None:
        return CommandResult(dataclasses.asdict(recogniser), lambda console: show_recogniser(console, recogniser))
    progress = read_status(out)
    return CommandResult(dataclasses.asdict(progress), lambda console: show_status(console, progress))


def report(
    out: options.OutputFolder,
    tsne: Annotated[
        bool,
        typer.Option("--tsne", metavar="", help="Add a map by t-SNE of up to 1,500 images; needs the extra report."),
    ] = False,
    s3_endpoint: options.S3Endpoint = None,
    quiet: options.Quiet = False,
) -> CommandResult:
    """Write the report page of a run, fit, transform or train again.

    It shows labels, variance, a map with pictures, near-duplicates, outliers, rejects, speed and settings.
    """
    from fruits.recogniser.jobs.report import write_report

    with to_stderr(quiet=quiet).stage("report", total=None):
        address = without_secrets(write_report(out, tsne=tsne))
    return CommandResult({"report": address}, lambda console: console.print(f"Wrote {address}", soft_wrap=True))


def verify(
    out: options.OutputFolder, s3_endpoint: options.S3Endpoint = None, quiet: options.Quiet = False
) -> CommandResult:
    """Check every part of an output against its checksum.

    Exits with 0 if all parts are present and intact and rows/ contains no other file, and with 1 otherwise.

    Run the command of the job again to regenerate missing and corrupt parts.

    The sources of a recogniser are listed, to show whether it is stale.
    """
    from fruits.cli.display import show_verification
    from fruits.cli.recogniser.display import show_recogniser
    from fruits.jobs.inspect.verify import verify as verify_output
    from fruits.recogniser.jobs.status import recogniser_status

    verification = verify_output(out, to_stderr(quiet=quiet))
    recogniser = recogniser_status(out, list_images=True) if verification.is_intact else None

    def show(console: Console) -> None:
        show_verification(console, verification)
        if recogniser is not None:
            show_recogniser(console, recogniser)

    values = dataclasses.asdict(verification) | ({} if recogniser is None else {"sources": recogniser.sources})
    return CommandResult(values, show, 0 if verification.is_intact else 1)


def compare(
    a: Annotated[str, options.argument(metavar="OUT_A", help="The --out of a completed command.")],
    b: Annotated[str, options.argument(metavar="OUT_B", help="The --out of another one.")],
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", metavar="NUMBER", min=0, help="The largest difference that still passes."),
    ] = None,
    s3_endpoint: options.S3Endpoint = None,
) -> CommandResult:
    """Compare two outputs bit by bit, and list the differences.

    Exits with 0 if they are identical or within the tolerance, and with 1 otherwise.
    """
    from fruits.cli.display import show_comparison
    from fruits.jobs.inspect.compare import compare as compare_outputs

    comparison = compare_outputs(a, b)
    identical, largest = comparison.identical, comparison.largest
    same = identical or (tolerance is not None and largest <= tolerance)
    values = dataclasses.asdict(comparison) | {"identical": identical, "largest": largest, "same": same}
    return CommandResult(values, lambda console: show_comparison(console, comparison, tolerance), 0 if same else 1)

"""Subcommands of ``fruits bench``, available in a source checkout."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from fruits.cli import options as options
from fruits.cli.result import CommandResult
from fruits.errors import DatasetError, JobError, SettingsError
from fruits.machine.cpus import available_cpus

DEFAULT = "measure"
OUT = "bench"
MOST_MEGAPIXELS = 50  # larger images are rejected

app = typer.Typer(
    name="fruits bench",
    help="Measure this machine. Cases take turns, each run has its own process, and every answer is checked.\n\n"
    "[bold]fruits bench IMAGES[/] is short for [bold]fruits bench measure IMAGES[/].",
    epilog="Start with: [bold]fruits bench IMAGES --set quick --out bench/[/]. The standard set takes about 40 minutes "
    "on 2 cores.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def call(argv: Sequence[str]) -> Any:
    """Run a subcommand; without a name, ``measure``."""
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    arguments = list(argv) or ["--help"]
    if arguments[0] not in names | {"-h", "--help"}:
        if (similar := get_close_matches(arguments[0], names, 1)) and not os.path.exists(arguments[0]):
            message = f"fruits bench {arguments[0]}: no such command or folder. Did you mean {similar[0]}?"
            raise SettingsError(message)
        arguments.insert(0, DEFAULT)
    return app(arguments, prog_name="fruits bench", standalone_mode=False)


def _list(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def _counts(option: str, text: str | None) -> list[int]:
    try:
        counts = [int(part.replace("_", "")) for part in _list(text)]
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise SettingsError(f"--{option} {text}: not allowed. Allowed: counts of at least 1, separated by commas.")
    return counts


def _sizes(text: str | None) -> list[float]:
    """Return sizes in megapixels; 0 without any."""
    try:
        sizes = [float(part) for part in _list(text)]
    except ValueError:
        sizes = [0.0]
    if any(not 0 < size <= MOST_MEGAPIXELS for size in sizes):
        raise SettingsError(
            f"--megapixels {text}: not allowed. Allowed: numbers above 0, up to {MOST_MEGAPIXELS}, separated by commas."
        )
    return sizes or [0.0]


@app.command()
@options.option_groups
def measure(
    images: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGES",
            help="Folder <label>/<file>.jpg on this machine. Its images are repeated under other names if a run needs "
            "more. The scenarios plan, moments and csv need no images.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Folder of the records and the report.")] = OUT,
    set_name: Annotated[
        str, typer.Option("--set", metavar="NAME", help="standard (40 minutes), full (2.5 hours) or quick.")
    ] = "standard",
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="NAMES", help="Scenarios to compare instead of a set, separated by commas."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="NAMES", help="With --scenario: backends; default: dask,spark.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", metavar="COUNTS", help="Numbers of cores, such as 1,2; default: all cores."),
    ] = None,
    count: Annotated[
        str | None,
        typer.Option(
            "--images", metavar="COUNTS", help="With --scenario: numbers of images, rows or keys, such as 5240,20960."
        ),
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="COUNT", min=1, help="With --scenario: runs of each case.")
    ] = 5,
    partition_size: Annotated[
        int | None,
        typer.Option(
            "--partition-size",
            metavar="COUNT",
            min=1,
            help="With --scenario: images per partition; default: as in jobs.",
        ),
    ] = None,
    components: Annotated[
        int, typer.Option("--components", metavar="COUNT", min=1, help="With --scenario: PCA components.")
    ] = 200,
    megapixels: Annotated[
        str | None,
        typer.Option(
            "--megapixels",
            metavar="SIZES",
            help="With --scenario: enlarge the images to these sizes, such as 0.3,3,12.",
        ),
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", metavar="", help="Drop the images from the page cache before each run.")
    ] = False,
    quiet: options.Quiet = False,
) -> CommandResult:
    """Run a set of scenarios, or the named ones, and write records and a report."""
    from benchmarks.measure.session import Session
    from benchmarks.measure.sets import named_groups, set_groups

    cores = _counts("workers", workers) or [available_cpus()]
    if images is not None and not os.path.isdir(images):
        raise DatasetError(f"{images}: no such folder. Give a folder of images on this machine.")
    if scenario is None:
        for option, value in (("--backend", backend), ("--images", count), ("--megapixels", megapixels)):
            if value is not None:
                raise SettingsError(f"{option} {value}: only allowed with --scenario. A set has fixed values.")
        if len(cores) > 1:
            raise SettingsError(f"--workers {workers}: a set takes one count. Give one count, or use --scenario.")
        groups = set_groups(set_name, cores[0])
    else:
        groups = named_groups(
            scenarios=_list(scenario),
            backends=_list(backend),
            workers=cores,
            images=_counts("images", count),
            repeats=repeat,
            partition_size=partition_size,
            components=components,
            megapixels=_sizes(megapixels),
        )
    session = Session(
        images=images,
        out=Path(out),
        command=shlex.join(["fruits", *sys.argv[1:]]),
        cold=cold,
        notify=(lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True)),
    )
    session.measure(groups)
    return _write_report(out)


@app.command()
@options.option_groups
def report(
    folder: Annotated[str, options.argument(metavar="DIR", help="The --out folder of a measurement.")],
) -> CommandResult:
    """Write report.md and report.html (one self-contained page with plots) from the records of a measurement."""
    return _write_report(folder)


@app.command()
@options.option_groups
def compare(
    old: Annotated[str, options.argument(metavar="OLD", help="The --out folder of a measurement.")],
    new: Annotated[str, options.argument(metavar="NEW", help="The --out folder of a later measurement.")],
) -> CommandResult:
    """List cases that became faster or slower, beyond the noise of both measurements."""
    from benchmarks.record import read_records
    from benchmarks.report.changes import changes, changes_table

    common = changes(read_records(old), read_records(new))
    if not common:
        raise SettingsError(f"{old} and {new} have no case in common. Compare two runs of the same set.")
    return CommandResult(
        {"changes": [dataclasses.asdict(change) for change in common]},
        lambda console: console.print(changes_table(common)),
    )


def _write_report(folder: str) -> CommandResult:
    """Write the report of a folder and summarise its runs."""
    from benchmarks.record import read_records
    from benchmarks.report import write_report

    records = read_records(folder)
    wrong = sum(record.answer is not None and record.answer.verdict == "wrong" for record in records)
    failed = sum(record.status == "failed" for record in records)
    if not any(record.status == "done" for record in records):
        raise JobError(f"none of the {len(records)} runs finished. See {folder}/logs.")
    page, text = write_report(Path(folder), records)
    summary = f"{len(records):,} runs, {failed} failed, {wrong} with a wrong answer. Report: {page}, {text}."
    values = {"runs": len(records), "failed": failed, "wrong": wrong, "page": str(page), "text": str(text)}
    return CommandResult(
        values, lambda console: console.print(summary, markup=False, soft_wrap=True), 1 if failed or wrong else 0
    )

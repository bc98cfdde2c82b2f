"""The commands below ``fruits bench``, which mounts them from a source checkout."""

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

__all__ = ["app", "call"]

DEFAULT = "measure"
OUT = "bench"

app = typer.Typer(
    name="fruits bench",
    help="Measure this machine: every run in a process of its own, in turn with the others, its answer checked.\n\n"
    "[bold]fruits bench IMAGES[/] is short for [bold]fruits bench measure IMAGES[/].",
    epilog="Begin with: [bold]fruits bench IMAGES --set quick --out bench/[/]. The standard set takes under 40 minutes "
    "on 2 cores.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def call(words: Sequence[str]) -> Any:
    """Run one of the commands; where none is named, ``measure``."""
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    given = list(words) or ["--help"]
    if given[0] not in names | {"-h", "--help"}:
        if (meant := get_close_matches(given[0], names, 1)) and not os.path.exists(given[0]):
            raise SettingsError(f"fruits bench {given[0]}: no such command, and no such folder. Meant: {meant[0]}?")
        given.insert(0, DEFAULT)
    return app(given, prog_name="fruits bench", standalone_mode=False)


def _list(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def _counts(option: str, text: str | None) -> list[int]:
    try:
        counts = [int(part.replace("_", "")) for part in _list(text)]
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise SettingsError(f"--{option} {text}: not allowed. Allowed: counts of at least 1, with commas between.")
    return counts


@app.command()
def measure(
    images: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGES",
            help="A folder <label>/<file>.jpg on this machine. Its images are repeated under other names where a run "
            "needs more. The scenarios plan, moments and csv need none.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Where records and the report go.")] = OUT,
    set_name: Annotated[
        str, typer.Option("--set", metavar="NAME", help="standard (under 40 minutes), full (75 minutes) or quick.")
    ] = "standard",
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="NAMES", help="Instead of a set: what to compare, with commas between."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", metavar="NAMES", help="With --scenario: on what; default: dask,spark where it can."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="COUNTS", help="How many cores, such as 1,2; default: all.")
    ] = None,
    count: Annotated[
        str | None,
        typer.Option("--images", metavar="COUNTS", help="With --scenario: how many images, rows or keys: 5240,20960."),
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="COUNT", min=1, help="With --scenario: how often each is run.")
    ] = 5,
    partition_size: Annotated[
        int, typer.Option("--partition-size", metavar="COUNT", min=1, help="With --scenario: images per partition.")
    ] = 512,
    components: Annotated[
        int, typer.Option("--components", metavar="COUNT", min=1, help="With --scenario: components of the PCA.")
    ] = 200,
    cold: Annotated[
        bool, typer.Option("--cold", metavar="", help="Drop the images from the page cache before each run.")
    ] = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Run a set of scenarios, or those that are named, and write records and the report."""
    from benchmarks.session import Session
    from benchmarks.sets import asked_groups, set_groups

    cores = _counts("workers", workers) or [os.cpu_count() or 1]
    if images is not None and not os.path.isdir(images):
        raise DatasetError(f"{images}: no such folder. Give a folder of images on this machine.")
    if scenario is None:
        for option, given in (("--backend", backend), ("--images", count)):
            if given is not None:
                raise SettingsError(f"{option} {given}: a set has its own. Name what to run with --scenario.")
        if len(cores) > 1:
            raise SettingsError(f"--workers {workers}: a set takes one count. Give one, or name --scenario.")
        groups = set_groups(set_name, cores[0])
    else:
        groups = asked_groups(
            scenarios=_list(scenario),
            backends=_list(backend),
            workers=cores,
            images=_counts("images", count),
            repeats=repeat,
            partition_size=partition_size,
            components=components,
        )
    session = Session(
        images=images,
        out=Path(out),
        command=shlex.join(["fruits", *sys.argv[1:]]),
        cold=cold,
        tell=(lambda words: None) if quiet else (lambda words: print(words, file=sys.stderr, flush=True)),
    )
    session.measure(groups)
    return _reported(out)


@app.command()
def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The --out of a measurement.", show_default=False)],
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Write report.md and report.html, one self-contained page with plots, of what was measured."""
    return _reported(folder)


@app.command()
def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The --out of a measurement.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="That of another.", show_default=False)],
    json: options.Json = False,
    debug: options.Debug = False,
) -> CommandResult:
    """Tell what became faster or slower, beyond the noise of both."""
    from benchmarks.changes import changes, changes_table
    from benchmarks.record import read_records

    found = changes(read_records(old), read_records(new))
    if not found:
        raise SettingsError(f"{old} and {new} have no case in common. Compare two runs of the same set.")
    return CommandResult(
        {"changes": [dataclasses.asdict(change) for change in found]},
        lambda console: console.print(changes_table(found)),
    )


def _reported(folder: str) -> CommandResult:
    """Write the report of a folder, and return where it is; or say what its runs came to, where none can be written."""
    from benchmarks.record import read_records
    from benchmarks.report import write_report

    records = read_records(folder)
    wrong = sum(record.answer is not None and record.answer.verdict == "wrong" for record in records)
    failed = sum(record.status == "failed" for record in records)
    if not any(record.status == "done" for record in records):
        raise JobError(f"none of the {len(records)} runs came to an end. See {folder}/logs.")
    page, text = write_report(Path(folder), records)
    words = f"{len(records):,} runs, {failed} failed, {wrong} with a wrong answer. Read {page} or {text}."
    values = {"runs": len(records), "failed": failed, "wrong": wrong, "page": str(page), "text": str(text)}
    return CommandResult(
        values, lambda console: console.print(words, markup=False, soft_wrap=True), 1 if failed or wrong else 0
    )

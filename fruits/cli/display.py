"""What the command line draws: tables where people look, and the same as plain lines where a program reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from fruits.jobs.job import COLUMNS
from fruits.jobs.report import Report, SliceReport
from fruits.model.rows import decode_rows
from fruits.storage.folder import Folder
from fruits.text import duration, printable

if TYPE_CHECKING:
    from rich.console import Console

    from fruits.jobs.compare import Comparison
    from fruits.jobs.status import Status

__all__ = ["show_comparison", "show_report", "show_status", "show_weights"]

EXAMPLES = 3  # rows that are shown
COMPONENTS = 5  # components that are shown one by one


def show_report(console: Console, report: Report | SliceReport) -> None:
    """Draw what a job did: counts and speed, the explained variance, a few rows, and where the files are."""
    out = Folder.at(report.out)
    _facts(console, {**_counts(report), **_slowest(report)})
    if isinstance(report, SliceReport):
        _facts(console, _left(report))
        return
    if report.command != "transform":  # which only applies what others' images have given
        _variance(console, report)
    if report.command != "fit":
        _rows(console, list(islice(_examples(out), EXAMPLES)))
    _facts(console, _places(report))


def show_comparison(console: Console, found: Comparison, tolerance: float | None = None) -> None:
    """Draw what a comparison found, and whether a tolerance passes over it."""
    things = ([f"{found.rows:,} rows"] if found.rows else []) + (["model"] if found.model else [])
    if found.identical:
        compared = " and ".join((["model"] if found.model else []) + (["rows"] if found.rows else []))
        count = f"{found.rows:,} rows, " if found.rows else ""
        console.print(Text.assemble(("identical: ", "bold green"), f"{count}{compared} to the last bit"))
        return
    if tolerance is not None and found.largest <= tolerance:
        verdict = (f"the same within {tolerance:g}: ", "bold green")
    else:
        verdict = ("different: ", "bold red")
    console.print(Text.assemble(verdict, f"{' and '.join(things)} compared"))
    lines = [
        (difference.name, f"{difference.values:,}", f"{difference.largest:.3g}", printable(difference.first))
        for difference in found.differences
    ]
    _table(console, ("where", "values", "largest", "first"), lines, right=(1, 2))


def show_status(console: Console, found: Status) -> None:
    """Draw how far a job is."""
    facts = {
        "job": f"{found.command} of {found.images:,} images in {found.partitions:,} "
        f"partition{'s' * (found.partitions != 1)}, {'complete' if found.complete else 'not complete'}"
    }
    for stage in found.stages:
        if stage.unit == "models":
            facts[stage.name] = "done" if stage.done else "to do"
        else:
            facts[stage.name] = f"{stage.done:,} of {stage.total:,} {stage.unit}"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in found.rejects.items())
    rejected = f"{sum(found.rejects.values()):,} rejected" + (f" ({reasons})" if reasons else "")
    used = f"{found.rows:,} used, " if found.rows is not None else f"of the first {found.surveyed:,} partitions "
    facts["images"] = f"{found.images_done:,} of {found.images:,} seen by the network: {used}{rejected}"
    if not found.complete:
        facts["now"] = _movement(found)
    facts["files"] = f"{printable(found.out)}/"
    _facts(console, facts)


def _movement(found: Status) -> str:
    if found.seconds_since_newest is None:
        return "this storage does not tell when a part was stored: whether the job moves is not known"
    since = duration(found.seconds_since_newest)
    if not any(stage.done for stage in found.stages):
        return f"it was begun {since} ago, and no part is stored yet"
    if not found.moves:
        return f"nothing was stored for {since}: the job waits, or was stopped; the same command goes on"
    if found.images_per_second is None or found.seconds_left is None or found.stage is None:
        return f"it moves, or was stopped just now: the last part was stored {since} ago"
    digits = 0 if found.images_per_second >= 10 else 1
    left = f"{duration(found.seconds_left)} left of {found.stage.name}"
    speed = f"{found.images_per_second:,.{digits}f} images/s"
    return f"it moves, or was stopped just now: the last part was stored {since} ago; {speed}, {left}"


def show_weights(console: Console, found: Mapping[str, Any]) -> None:
    """Draw which weights were found, and where they are kept."""
    verified = "the ImageNet weights" if found["verified"] else "no digest is known to compare it with"
    facts = {"weights of": found["backbone"], "from": found["source"], "digest": found["digest"], "": verified}
    _facts(console, facts | {"kept in": found["path"]})


def _counts(report: Report | SliceReport) -> Mapping[str, str]:
    others = (report.ignored if isinstance(report, Report) else None) or 0
    ignored = f", and {others:,} other files that are no images or lead out" if others else ""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.rejects.items())
    resumed = f"; of {report.partitions:,} partitions, {report.resumed:,} done before" if report.resumed else ""
    speed = f"{report.images_per_second:,.0f} images/s" if report.images_per_second else "the network had nothing to do"
    stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.seconds.items())
    return {
        "images": f"{report.images:,}{ignored}",
        "rows": f"{report.rows:,}",
        "rejects": f"{sum(report.rejects.values()):,}" + (f": {reasons}" if reasons else ""),
        "speed": speed + resumed,
        "time": stages,
    }


def _slowest(report: Report | SliceReport) -> Mapping[str, str]:
    lines = []
    for each in report.slowest:
        step, seconds = max(each["steps"].items(), key=lambda item: item[1])
        again = f", attempt {each['attempt']}" if each["attempt"] > 1 else ""
        lines.append(
            f"{duration(each['seconds'])}: {each['stage']} of partition {each['index']:,} on {each['host']} "
            f"(process {each['pid']}{again}), {duration(seconds)} of it {step}"
        )
    return {"slowest": "\n".join(lines)} if lines else {}


def _left(report: SliceReport) -> Mapping[str, str]:
    """Return what a slice is of its job, and what finishes the job."""
    done = report.partitions_of_job - report.partitions_left
    when = "When all are, start" if report.partitions_left else "Start"
    return {
        "slice": f"{report.shards}: done, {report.partitions:,} of the job's {report.partitions_of_job:,} partitions",
        "job": f"{done:,} of {report.partitions_of_job:,} partitions are done. {when} the same command without "
        "--shards: it finishes the job.",
    }


def _variance(console: Console, report: Report) -> None:
    ratios = np.array(report.explained_variance_ratio)
    together = np.cumsum(ratios)
    shown = range(min(COMPONENTS, len(ratios)))
    _table(
        console,
        ("explained variance", *(f"PC{index + 1}" for index in shown), f"all {len(ratios):,} kept"),
        [
            ("of each component", *(f"{ratios[index]:.1%}" for index in shown), ""),
            ("up to it", *(f"{together[index]:.1%}" for index in shown), f"{together[-1]:.1%}"),
        ],
        right=range(1, len(shown) + 2),
    )
    reaching = ", ".join(f"{count:,} reach {float(share):.0%}" for share, count in report.components_reaching.items())
    _facts(console, {"components": reaching})


def _rows(console: Console, examples: Sequence[Mapping[str, Any]]) -> None:
    """Draw rows in the form ``label | features [a, b, …] | scaled_features […] | pca_features […]``."""
    if not examples:
        return
    names = [name for name in COLUMNS if name in examples[0]]
    if "label" in names and len(names) > 1:
        names = [name for name in names if name != "path"]
    if not console.is_terminal:
        for row in examples:
            cells = ((f"{name} " if isinstance(row[name], np.ndarray) else "") + _cell(row[name]) for name in names)
            console.print(" | ".join(cells), markup=False)
        console.print()
        return
    _table(console, names, [[_cell(row[name]) for name in names] for row in examples])


def _examples(out: Folder) -> Iterable[Mapping[str, Any]]:
    """Return the first rows, as far as they are asked for."""
    folder = out / "rows"
    for name in folder.names():
        if not name.startswith("part-"):
            continue
        columns = decode_rows(folder.read(name), name)
        for index in range(len(next(iter(columns.values())))):
            yield {column: values[index] for column, values in columns.items()}


def _cell(value: Any) -> str:
    if isinstance(value, np.ndarray):
        numbers = ", ".join(f"{number:.2f}" for number in value[:2])
        return f"[{numbers}{', …' if len(value) > 2 else ''}]"
    return "(no label)" if value is None else printable(value)


def _places(report: Report) -> Mapping[str, str]:
    parts = {"fit": ("model", "features", "rejects"), "run": ("rows", "model", "features", "rejects")}
    names = parts.get(report.command, ("rows", "rejects"))
    return {"files": f"{printable(report.out)}/", "": ", ".join((*(f"{name}/" for name in names), "report.json"))}


def _facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print names and values, one to a line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, Text(value))
    console.print(grid)


def _table(console: Console, names: Sequence[str], lines: Iterable[Sequence[str]], right: Iterable[int] = ()) -> None:
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False, show_edge=True)
    numbers = set(right)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index in numbers else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)
    if not console.is_terminal:
        console.print()

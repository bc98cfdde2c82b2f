"""Results for people: tables on a terminal, plain lines in a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fruits.images.skipped import describe_skipped
from fruits.jobs.job import COLUMNS
from fruits.jobs.report import REPORT, Report, SliceReport, row_files
from fruits.jobs.reporting.speed_section import bottleneck
from fruits.model.rows import decode_rows
from fruits.storage.commits import OwnedFolder, last_commit
from fruits.storage.folder import Folder
from fruits.text import brief, counted, duration, per_second, printable

if TYPE_CHECKING:
    from rich.console import Console

    from fruits.images.tar.pack import PackReport
    from fruits.jobs.inspect.compare import Comparison, Difference
    from fruits.jobs.inspect.status import Status
    from fruits.jobs.inspect.verify import Verification

EXAMPLE_ROWS = 3
LISTED_COMPONENTS = 5
SLOWEST = 3
NARROW = 64  # columns: below, tables have fewer columns and facts their values on lines of their own
PREDICTED = ("prediction", "confidence", "reason")


def show_report(console: Console, report: Report | SliceReport, out: str) -> None:
    """Print the report of a job: counts, speed, explained variance, example rows of its output, and the files."""
    show_facts(console, {**_counts(report), **_bottleneck(report), **_slowest(report)})
    if isinstance(report, SliceReport):
        show_facts(console, _progress_of_slices(report))
        return
    if report.command in ("fit", "run"):
        _variance(console, report)
    if report.command != "fit":
        _rows(console, list(islice(_examples(Folder.at(out)), EXAMPLE_ROWS)))
    show_facts(console, {**_files(report), **page_of(out, report.out), "next": _next(report, out)})


def _next(report: Report, out: str) -> str:
    """Return the command that is most likely to follow a job."""
    own = quote(out)
    match report.command:
        case "fit":
            return f"fruits transform IMAGES --model {own} --out ROWS"
        case "run" if report.labels is None or report.labels > 1:
            return f"fruits train {own} --out RECOGNISER"
        case "run":
            return f"fruits transform IMAGES --model {own} --out ROWS"
        case _:
            return f"fruits verify {own}"


def show_comparison(console: Console, comparison: Comparison, tolerance: float | None = None) -> None:
    """Print the differences between two outputs, and whether they are within the tolerance."""
    differences = comparison.differences
    model = [difference for difference in differences if difference.name.startswith("model.")]
    rows = [difference for difference in differences if difference not in model]
    compared = ({counted(comparison.rows, "row"): rows} if comparison.rows or rows else {}) | (
        {"model": model} if comparison.model else {}
    )
    if not differences:
        console.print(Text("identical to the last bit: ", "bold green"), " and ".join(compared), sep="")
        return
    if tolerance is not None and comparison.largest <= tolerance:
        result = Text(f"the same within {tolerance:g}: ", "bold green")
    else:
        result = Text("different: ", "bold red")
    console.print(result, "; ".join(_verdict(*entry) for entry in compared.items()), sep="", soft_wrap=True)
    lines = [
        (difference.name, f"{difference.values:,}", f"{difference.largest:.3g}", difference.first)
        for difference in differences
    ]
    _table(console, ("where", "values", "largest", "first"), lines, right=(1, 2))


def _verdict(name: str, differences: Sequence[Difference]) -> str:
    if not differences:
        return f"{name} identical"
    for difference in differences:
        if difference.name == "rows":
            return f"rows in one output only: {difference.values:,}"
    largest = max(difference.largest for difference in differences)
    return f"{name} different" + (f", by at most {largest:.3g}" if largest < math.inf else "")


def show_status(console: Console, status: Status) -> None:
    """Print the progress of a job, stage by stage."""
    facts = {
        "job": f"{status.command} of {counted(status.images, 'image')} in {counted(status.partitions, 'partition')}, "
        f"{'complete' if status.complete else 'incomplete'}"
    }
    for stage in status.stages:
        if stage.unit == "models":
            facts[stage.name] = "done" if stage.done else "not done"
        else:
            facts[stage.name] = f"{stage.done:,} of {stage.total:,} {stage.unit}"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in status.rejects.items())
    rejected = f"{sum(status.rejects.values()):,} rejected" + (f" ({reasons})" if reasons else "")
    rows = (
        f"{counted(status.rows, 'row')}, "
        if status.rows is not None
        else f"in the first {status.surveyed:,} partitions "
    )
    facts["images"] = f"{status.images_done:,} of {status.images:,} featurized: {rows}{rejected}"
    if not status.complete:
        facts["now"] = _activity(status)
    facts["files"] = f"{status.out}/"
    show_facts(console, facts)


def _activity(status: Status) -> str:
    """Describe the latest progress: the speed and time left, or the time since the last stored part."""
    if status.seconds_since_newest is None:
        return "unknown: this storage reports no modification times"
    since = duration(status.seconds_since_newest)
    if not any(stage.done for stage in status.stages):
        return f"started {since} ago, no part stored yet"
    if not status.moves:
        return f"no part stored for {since}: waiting or stopped. Run the same command again to resume"
    running = f"running or just stopped: last part stored {since} ago"
    if status.images_per_second is None or status.seconds_left is None or status.stage is None:
        return running
    speed = per_second(status.images_per_second, "images")
    return f"{running}; {speed}, {duration(status.seconds_left)} left of {status.stage.name}"


def show_verification(console: Console, verification: Verification) -> None:
    """Print each corrupt, missing or unexpected part, and the counts."""
    for line in (*verification.corrupt, *(f"{name}: not part of this job" for name in verification.unexpected)):
        console.print(str(line), soft_wrap=True)
    summary = [f"{counted(verification.parts, 'part')}, {verification.bytes:,} bytes, intact"]
    if verification.corrupt:
        summary.append(f"{len(verification.corrupt):,} corrupt or missing: run the command of the job again")
    if verification.unexpected:
        summary.append(f"{len(verification.unexpected):,} unexpected: remove them")
    console.print("; ".join(summary), soft_wrap=True)


def show_weights(console: Console, weights: Mapping[str, Any]) -> None:
    """Print the source, digest and cached file of the weights."""
    verified = "verified: the ImageNet weights" if weights["verified"] else "not verified: no reference digest"
    facts = {"weights of": weights["backbone"], "from": weights["source"], "digest": weights["digest"], "": verified}
    show_facts(console, facts | {"file": weights["path"]})


def show_pack(console: Console, report: PackReport, out: str) -> None:
    """Print the counts of a pack, and how its archives are used."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.unpacked.items())
    facts = {
        "images": f"{report.images:,}",
        "left out": f"{reasons}; each is named in {printable(out)}/unpacked.jsonl" if reasons else "",
        "skipped": "\n".join(describe_skipped(report.skipped)),
        "archives": f"{len(report.shards):,}, {report.bytes / 1e6:,.1f} MB",
        "next": f"fruits run '{printable(out).rstrip('/')}/*.tar' --out RESULT",
    }
    show_facts(console, {name: value for name, value in facts.items() if value})


def _counts(report: Report | SliceReport) -> Mapping[str, str]:
    labels = getattr(report, "labels", None)
    skipped = "\n".join(describe_skipped(getattr(report, "skipped", None) or {}))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.rejects.items())
    resumed = f"; {report.resumed:,} of {report.partitions:,} partitions already done" if report.resumed else ""
    rate = report.images_per_second
    speed = per_second(rate, "images") if rate else "no image left to featurize"
    stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.seconds.items())
    return {
        "images": f"{report.images:,}" + ("" if labels is None else f", {counted(labels, 'label')}"),
        **({"skipped": skipped} if skipped else {}),
        "rows": f"{report.rows:,}",
        "rejects": f"{sum(report.rejects.values()):,}" + (f": {reasons}" if reasons else ""),
        "speed": speed + resumed,
        "time": stages,
    }


def _bottleneck(report: Report | SliceReport) -> Mapping[str, str]:
    """Return what limits the speed, if it is the reading or decoding of images."""
    limit, advice = bottleneck(report.worker_seconds) if any(report.worker_seconds.values()) else ("", "")
    return {"limit": f"{limit} {advice}"} if advice else {}


def _slowest(report: Report | SliceReport) -> Mapping[str, str]:
    lines = []
    for slow in report.slowest[:SLOWEST]:
        step, seconds = max(slow["steps"].items(), key=lambda item: item[1])
        attempt = f", attempt {slow['attempt']}" if slow["attempt"] > 1 else ""
        lines.append(
            f"{duration(slow['seconds'])}: {slow['stage']} of partition {slow['index']:,} on {slow['host']} "
            f"(process {slow['pid']}{attempt}), {duration(seconds)} of it {step}"
        )
    return {"slowest": "\n".join(lines)} if lines else {}


def _progress_of_slices(report: SliceReport) -> Mapping[str, str]:
    done = report.partitions_of_job - report.partitions_left
    when = "When all are done" if report.partitions_left else "To finish the job"
    return {
        "slice": f"{report.shards} done: {report.partitions:,} of the job's {report.partitions_of_job:,} partitions",
        "job": f"{done:,} of {report.partitions_of_job:,} partitions done. {when}, run the same command without "
        "--shards.",
    }


def _variance(console: Console, report: Report) -> None:
    ratios = np.array(report.explained_variance_ratio)
    cumulative = np.cumsum(ratios)
    shown = range(min(LISTED_COMPONENTS if console.width >= NARROW else 1, len(ratios)))
    _table(
        console,
        ("explained variance", *(f"PC{index + 1}" for index in shown), f"all {len(ratios):,}"),
        [
            ("per component", *(f"{ratios[index]:.1%}" for index in shown), ""),
            ("cumulative", *(f"{cumulative[index]:.1%}" for index in shown), f"{cumulative[-1]:.1%}"),
        ],
        right=range(1, len(shown) + 2),
    )
    reaching = ", ".join(f"{float(share):.0%}: {count:,}" for share, count in report.components_reaching.items())
    show_facts(console, {"components to reach": reaching})


def _rows(console: Console, examples: Sequence[Mapping[str, Any]]) -> None:
    """Print rows in the form ``label | features [a, b, …] | scaled_features […] | pca_features […]``.

    Predictions have the form ``label | prediction | confidence | reason``.
    """
    if not examples:
        return
    names = [name for name in (*COLUMNS, *PREDICTED) if name in examples[0]]
    if "label" in names and len(names) > 1:
        names = [name for name in names if name != "path"]
    if console.width < NARROW or all(row.get("reason") is None for row in examples):
        names = [name for name in names if name != "reason"]
    if console.width < NARROW and "pca_features" in names:
        names = [name for name in names if name not in ("features", "scaled_features")]
    if not console.is_terminal:
        for row in examples:
            cells = ((f"{name} " if name not in ("path", "label") else "") + _cell(row[name], name) for name in names)
            console.print(" | ".join(cells))
        console.print()
        return
    _table(console, names, [[_cell(row[name], name) for name in names] for row in examples])


def _examples(out: Folder) -> Iterable[Mapping[str, Any]]:
    """Yield the rows of an output, reading parts as needed."""
    commit = last_commit(out)
    for name in [] if commit is None else row_files(out, commit):
        columns = decode_rows(out.read(name), name)
        for index in range(len(next(iter(columns.values())))):
            yield {column: values[index] for column, values in columns.items()}


def _cell(value: Any, name: str) -> str:
    if isinstance(value, np.ndarray):
        numbers = ", ".join(f"{number:.2f}" for number in value[:2])
        return f"[{numbers}{', …' if len(value) > 2 else ''}]"
    if value is None:
        return {"label": "(no label)", "prediction": "(not recognised)"}.get(name, "")
    return f"{value:.1%}" if name == "confidence" else printable(brief(value))


def _files(report: Report) -> Mapping[str, str]:
    parts = {"fit": ("model", "features", "rejects"), "run": ("rows", "model", "features", "rejects")}
    names = parts.get(report.command, ("rows", "rejects"))
    return {"files": f"{report.out}/", "": ", ".join(f"{name}/" for name in names)}


def page_of(address: str, shown: str) -> dict[str, str]:
    """Return the fact that names the report page of an output, below its address as it is shown; empty without one."""
    out = Folder.at(address)
    commit = last_commit(out)
    name = "" if commit is None else OwnedFolder(out, commit.owner).name(REPORT, "html")
    return {"report": f"{shown}/{name}"} if name and out.exists(name) else {}


def show_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print names and values, one pair per line; on a narrow terminal, long values below their names."""
    if console.width < NARROW:
        for name, value in facts.items():
            if len(name) + 2 + len(value) <= console.width and "\n" not in value:
                console.print(Text.assemble((name, "bold"), "  " * bool(name), value))
            else:
                console.print(*[Text(name, "bold")] * bool(name), Padding(value, (0, 0, 0, 2)), sep="\n")
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(name, value)
    console.print(grid)


def _table(console: Console, names: Sequence[str], lines: Iterable[Sequence[str]], right: Iterable[int] = ()) -> None:
    """Print a table; `right` lists the right-aligned columns."""
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False, show_edge=True)
    numbers = set(right)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index in numbers else "left", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if not console.is_terminal:
        console.print()

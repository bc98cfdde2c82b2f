"""The section about speed: throughput over time, the steps of the workers, the bottleneck, and slow partitions."""

from __future__ import annotations

from collections.abc import Mapping

from fruits.jobs.report import Report
from fruits.pages.charts import Line, line_chart
from fruits.pages.document import bars, percent, table, text
from fruits.text import duration

ADVICE = {
    "read": "Keep the images nearer to the workers, or in fewer and larger files.",
    "decode": "Smaller images, or more workers, make the job faster; another network would not.",
}
LOST_TIMES = " Partitions of an earlier command or job have no times here."


def speed_section(report: Report) -> str:
    """Return throughput, seconds by step and the slowest partitions of the command that completed the job."""
    resumed = (
        f" {report.resumed:,} of {report.partitions:,} partitions were finished before.{LOST_TIMES}"
        if report.resumed
        else ""
    )
    stages = ", ".join(f"{text(name)} {duration(seconds)}" for name, seconds in report.seconds.items())
    parts = [f"<h2>Speed</h2><p>Stages of the command that completed the job: {stages}.{resumed}</p>"]
    steps = {step: seconds for step, seconds in report.worker_seconds.items() if seconds}
    if not steps:
        return "".join([*parts, "<p>It ran no network: the features were stored already.</p>"])
    total = sum(steps.values())
    shown = sorted(steps.items(), key=lambda item: -item[1])
    by_step = bars([(step, seconds, f"{duration(seconds)}, {percent(seconds / total, 0)}") for step, seconds in shown])
    limit, advice = bottleneck(steps)
    shown_limit = f"<b>{limit}</b> {advice}" if advice else limit
    parts.append(f'<p>{shown_limit}</p><div class="charts">')
    if (throughput := report.throughput) and throughput["seconds"] > 0:
        parts.append(_throughput(**throughput))
    parts.append(f"<div><h3>Seconds of all workers by step</h3>{by_step}</div></div>")
    if report.slowest:
        rows = [
            [
                f"{slow['stage']} {slow['index']:,}",
                text(str(slow["host"])),
                f"{slow['attempt']}",
                duration(slow["seconds"]),
                "{} {}".format(*_longest(slow["steps"])),
            ]
            for slow in report.slowest
        ]
        header = ["partition", "host", "attempt", "duration", "most of it"]
        parts.append("<h3>Slowest partitions</h3>" + table(header, rows))
    return "".join(parts)


def bottleneck(steps: Mapping[str, float]) -> tuple[str, str]:
    """Return what limits the speed, and advice if it is the reading or decoding of images; `steps` are seconds."""
    total = sum(steps.values())
    if steps.get("load", 0.0) > total / 3:
        loading = percent(steps["load"] / total, 0)
        return f"The job is small: loading the network takes {loading} of the workers' time.", ""
    supply = {step: steps.get(step, 0.0) for step in ADVICE}
    if not steps.get("network"):
        return "The network did not run: stored features were used.", ""
    network = percent(steps["network"] / total, 0)
    if sum(supply.values()) <= steps["network"]:
        return f"The network is the bottleneck: it takes {network} of the workers' time.", ""
    step, seconds = max(supply.items(), key=lambda item: item[1])
    name = {"read": "Reading", "decode": "Decoding"}[step]
    taken = f"{percent(seconds / total, 0)} of the workers' time, and the network {network}."
    return f"{name} is the bottleneck: it takes {taken}", ADVICE[step]


def _throughput(seconds: float, interval: float, images: list[float]) -> str:
    starts = [number * interval for number in range(len(images))]
    points = []
    for start, count in zip(starts, images, strict=True):
        length = min(interval, seconds - start)  # the last interval is shorter
        if length > 0:
            points.append((start + length / 2, count / length))
    line = Line(
        [(0.0, points[0][1]), *points, (seconds, points[-1][1])],
        "Images per second over time",
        "seconds",
        "images/s",
        lambda value: f"{value:,.4g}",
        is_filled=True,
    )
    return (
        f"<figure>{line_chart(line)}<figcaption>Images per second, in intervals of {interval:g} s. The images of a "
        "partition are spread evenly over its duration.</figcaption></figure>"
    )


def _longest(steps: Mapping[str, float]) -> tuple[str, str]:
    step, seconds = max(steps.items(), key=lambda item: item[1])
    return text(step), duration(seconds)

"""The plots that the records allow, each with its finding in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from benchmarks.record import Record
from benchmarks.report.plots import NAMES, Line, bars, lines, name_of, stages
from benchmarks.report.summary import Side, ranking, sides

OURS = ("dask", "spark")
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: name, title, finding, description of the axis, drawing function of the width, and records."""

    name: str
    title: str
    finding: str
    axis: str
    draw: Callable[[float], Figure]
    records: tuple[Record, ...]


def plots(records: Sequence[Record]) -> list[Plot]:
    """Return the plots that the records allow."""
    known = [side for side in sides(records) if side.ranked and side.done]
    made = [_throughput(known), _stages(known), *_growth(known), _solvers(known)]
    return [plot for plot in made if plot is not None]


def _throughput(known: Sequence[Side]) -> Plot | None:
    chosen: dict[tuple[str, str, int], Side] = {}
    for side in known:  # of several numbers of images, take the first: its group is the main one
        if side.case.scenario in ("featurize", "bare-loop") or side.case.scenario.startswith("peer-"):
            chosen.setdefault((side.case.scenario, side.case.backend, side.case.workers), side)
    if not chosen:
        return None
    ordered = sorted(chosen.values(), key=lambda side: -side.rate.median)
    images = max(side.case.images for side in ordered)
    rows = [(_named(side, images), side) for side in ordered]
    ceilings = [side for side in known if side.case.scenario == "ceiling"]
    ceiling = max(ceilings, key=lambda side: side.case.workers, default=None)
    limit = None if ceiling is None else (f"network alone, {_cores(ceiling)}", ceiling.rate)
    top = ordered[0]
    finding = f"{name_of(top)} is the fastest, at {top.rate.median:,.0f} images/s on {_cores(top)}."
    if limit is not None and ceiling is not None:
        best = [side for side in ordered if side.case.scenario == "featurize"]
        if best and best[0].case.workers == ceiling.case.workers:
            share = best[0].rate.median / limit[1].median
            finding = f"{name_of(best[0])} reaches {share:.0%} of the network alone on {_cores(ceiling)}."
    return Plot(
        "throughput",
        "Throughput",
        finding,
        "Images per second of work, without start-up. Bars are medians, dots are single runs.",
        lambda width: bars(rows, width, figure=lambda record: record.images_per_second, limit=limit),
        tuple(record for _, side in rows for record in side.records),
    )


def _stages(known: Sequence[Side]) -> Plot | None:
    jobs = [
        side for side in known if side.case.scenario in ("run", "fit", "transform") or side.case.scenario[:4] == "run-"
    ]
    jobs = jobs or [side for side in known if side.case.scenario == "featurize"]
    if not jobs:
        return None
    images = jobs[0].case.images
    jobs = [side for side in jobs if side.case.images == images]
    rows = [(f"{side.case.scenario.split('-')[0]}, {name_of(side)}, {_cores(side)}", side) for side in jobs]
    share = jobs[0].spread(lambda record: record.seconds["start-up"] / record.wall).median
    finding = (
        f"Start-up is {share:.0%} of {jobs[0].case.scenario} on {name_of(jobs[0])} with {images:,} images and "
        "independent of their number."
    )
    return Plot(
        "stages",
        "Time by stage",
        finding,
        "Median seconds of each stage, from the command to the end of the process.",
        lambda width: stages(rows, width),
        tuple(record for side in jobs for record in side.records),
    )


def _growth(known: Sequence[Side]) -> list[Plot]:
    featurized = [side for side in known if side.case.scenario == "featurize" and side.case.backend in OURS]
    if not featurized:
        return []
    most = max(side.case.workers for side in featurized)
    grown = {name: _by_images(featurized, name, most) for name in OURS}
    grown = {name: found for name, found in grown.items() if len(found) > 1}
    if not grown:
        return []
    records = tuple(record for found in grown.values() for side in found for record in side.records)

    def line(backend: str, suffix: str, figure: Callable[[Record], float], dashed: bool = False) -> Line:
        points = tuple((side.case.images, side.spread(figure)) for side in grown[backend])
        return Line(f"{NAMES[backend]}{suffix}", backend, points, dashed)

    seconds = [line(name, "", lambda record: 1000 * record.work / record.case.images) for name in grown]
    memory = [line(name, " worker", lambda record: record.worker_peak / MEGABYTE) for name in grown]
    memory += [line(name, " driver", lambda record: record.driver_peak / MEGABYTE, True) for name in grown]
    return [
        Plot(
            "growth",
            "Seconds per 1,000 images",
            _change(seconds, "seconds per 1,000 images"),
            "Seconds of work per 1,000 images, without start-up. Points are medians, bands the range.",
            lambda width: lines(seconds, width),
            records,
        ),
        Plot(
            "memory",
            "Peak memory",
            _change(memory, "peak memory"),
            "Peak resident memory in MB: largest worker (solid) and driver (dashed).",
            lambda width: lines(memory, width),
            records,
        ),
    ]


def _by_images(featurized: Sequence[Side], backend: str, workers: int) -> list[Side]:
    """Return one side for each number of images, the one with the most repeats."""
    chosen: dict[int, Side] = {}
    for side in featurized:
        if (side.case.backend, side.case.workers) == (backend, workers):
            known = chosen.get(side.case.images)
            if known is None or len(side.done) > len(known.done):
                chosen[side.case.images] = side
    return [chosen[images] for images in sorted(chosen)]


def _change(drawn: Sequence[Line], figure: str) -> str:
    changes = [f"{line.points[-1][1].median / line.points[0][1].median - 1:+.1%} ({line.name})" for line in drawn]
    (least, _), (most, _) = drawn[0].points[0], drawn[0].points[-1]
    return f"From {least:,} to {most:,} images, {figure} changed by {', '.join(changes)}."


def _solvers(known: Sequence[Side]) -> Plot | None:
    found = [side for side in known if side.case.scenario == "moments"]
    if not found:
        return None
    rows = max(side.case.images for side in found)
    ordered = ranking([side for side in found if side.case.images == rows])
    named = [(f"{name_of(side)}, {_cores(side)}", side) for side in ordered]
    fastest, slowest = ordered[0], ordered[-1]
    ratio = slowest.spread(_work).median / fastest.spread(_work).median
    return Plot(
        "solvers",
        f"Fitting {rows:,} x 1,280 features",
        f"{name_of(fastest)} is {ratio:.1f} times as fast as {name_of(slowest)}.",
        "Seconds of work, without start-up. Bars are medians, dots are single runs.",
        lambda width: bars(named, width, figure=_work),
        tuple(record for side in ordered for record in side.records),
    )


def _work(record: Record) -> float:
    return record.work


def _named(side: Side, images: int) -> str:
    fewer = "" if side.case.images == images else f", {side.case.images:,} images"
    return f"{name_of(side)}, {_cores(side)}{fewer}"


def _cores(side: Side) -> str:
    return f"{side.case.workers} core{'s' if side.case.workers != 1 else ''}"

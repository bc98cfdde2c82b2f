"""The report as HTML and Markdown: headline, tables, plots, goals and method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from benchmarks.answers.check import COSINE, LARGEST
from benchmarks.record import Record
from benchmarks.report.figures import plots
from benchmarks.report.goals import goals
from benchmarks.report.plots import colour, name_of
from benchmarks.report.summary import Side, Spread, noise_of, ranking, sides, verdict
from benchmarks.report.svg import PALETTE, drawn, themed
from benchmarks.scenarios import load

__all__ = ["render"]

WIDE, NARROW = 9.4, 3.7  # inches; the page chooses by its own width
BUSY = 0.15  # share of the processors before a run; above it, other processes distort the times
YARDSTICKS = ("bare-loop", "ceiling")
MET = {"short": "missed", "met": "reached", "stretch": "exceeded", "fewer": "too few for this goal"}
UNITS = {"images": "images", "features": "rows", "keys": "keys"}
TITLES = {
    "featurize": "Images to features",
    "run": "Whole job: fit and rows",
    "fit": "Images to a model",
    "transform": "Images to rows with a fitted model",
    "moments": "Features to a model",
    "plan": "Listing and planning",
    "plan-manifest": "Planning from a Parquet manifest",
    "csv": "Rows as CSV",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a ranked table."""

    rank: str
    name: str
    colour: str
    workers: int
    rate: Spread
    seconds: Spread
    compared: str
    whole: float
    driver_peak: float
    worker_peak: float
    cpu: float
    answer: str


@dataclass(frozen=True, slots=True)
class Table:
    """The sides of a group with the same kind of work, the fastest first, and the unranked ones with their reasons."""

    title: str
    unit: str
    images: int
    partition_size: int
    repeats: int
    noise: str
    rows: tuple[Row, ...]
    unranked: tuple[tuple[str, str], ...]
    leads: bool


def render(records: Sequence[Record]) -> tuple[str, str, dict[str, str]]:
    """Return the HTML page, the Markdown text, and the plots as SVG by name."""
    shown, files = [], {}
    for plot in plots(records):
        wide = drawn(plot.draw, WIDE, f"{plot.name}-wide")
        narrow = drawn(plot.draw, NARROW, f"{plot.name}-narrow")
        files[plot.name] = wide
        shown.append(
            {
                "plot": plot,
                "wide": themed(wide, plot.finding),
                "narrow": themed(narrow, plot.finding),
                "commands": sorted({record.command for record in plot.records}),
                "versions": _versions(plot.records),
            }
        )
    first = records[0]
    headline = _headline(records)
    busy = Spread.from_values(record.busy for record in records if record.status != "not run")
    context: dict[str, Any] = {
        "headline": headline[:1].upper() + headline[1:],
        "first": first,
        "machine": first.machine,
        "tables": _tables(records),
        "plots": shown,
        "goals": goals(records),
        "verdicts": MET,
        "palette": PALETTE,
        "largest": LARGEST,
        "cosine": COSINE,
        "noise": _percent(noise_of(records)),
        "load": Spread.from_values(record.load for record in records),
        "busy": busy,
        "disturbed": busy.median > BUSY,
        "steal": Spread.from_values(record.steal for record in records),
        "runs": sum(record.status != "not run" for record in records),
        "cold": any(record.cold for record in records),
        "versions": _versions(records),
        "commits": ", ".join(sorted({record.commit for record in records})),
        "days": " to ".join(sorted({records[0].at[:10], records[-1].at[:10]})),
    }
    environment = Environment(
        loader=PackageLoader("benchmarks.report", "."),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "goal": _goal}
    page = environment.get_template("page.html.j2").render(context)
    text = environment.get_template("page.md.j2").render(context)
    return page, text, files


def _tables(records: Sequence[Record]) -> list[Table]:
    controlled = {record.group for record in records if record.control}
    kinds: dict[tuple[str, str, int], list[Side]] = {}
    for side in sides(records):
        kinds.setdefault((side.group, _kind(side), side.case.images), []).append(side)
    return [
        _table(kind, images, found, noise_of(records, group), leads=group in controlled)
        for (group, kind, images), found in kinds.items()
        if kind != "first-image"  # measures start-up, which is shown among the goals
    ]


def _kind(side: Side) -> str:
    scenario = side.case.scenario
    if scenario in YARDSTICKS or scenario.startswith("peer-"):
        return "featurize"
    return "run" if scenario.startswith("run-") else scenario


def _table(kind: str, images: int, found: Sequence[Side], noise: float | None, *, leads: bool) -> Table:
    ranked = ranking([side for side in found if side.done])
    reference = found[0] if found[0] in ranked else ranked[0] if ranked else None
    places = iter(range(1, len(ranked) + 1))
    rows = []
    for side in ranked:
        ratio = side.rate.median / reference.rate.median if reference is not None else 1.0
        rows.append(
            Row(
                rank="" if side.case.scenario in YARDSTICKS else str(next(places)),
                name=name_of(side),
                colour=next(role for role, (light, _) in PALETTE.items() if light == colour(side)),
                workers=side.case.workers,
                rate=side.rate,
                seconds=side.spread(lambda record: record.work),
                compared="1, by definition" if side is reference else verdict(ratio, noise),
                whole=side.spread(lambda record: record.images_per_second_whole).median,
                driver_peak=side.spread(lambda record: record.driver_peak / 1e6).median,
                worker_peak=side.spread(lambda record: record.worker_peak / 1e6).median,
                cpu=side.spread(lambda record: record.cpu_seconds).median,
                answer=_answer(side),
            )
        )
    others = [side for side in found if side not in ranked]
    unranked = [(f"{name_of(side)}, {side.case.workers} workers", side.fault) for side in others]
    return Table(
        title=TITLES.get(kind, kind) + (", 1 worker" if kind == "featurize" and found[0].case.workers == 1 else ""),
        unit=UNITS[load(found[0].case.scenario).data],
        images=images,
        partition_size=found[0].case.partition_size,
        repeats=max(len(side.records) for side in found),
        noise=_percent(noise),
        rows=tuple(rows),
        unranked=tuple(unranked),
        leads=leads,
    )


def _answer(side: Side) -> str:
    """Describe the agreement of all runs with the reference."""
    answers = [record.answer for record in side.done if record.answer is not None]
    if not answers:
        return "not checked"
    if all(answer.verdict == "identical" for answer in answers):
        return "identical"
    worst = max(answers, key=lambda answer: answer.largest)
    return f"within {worst.largest:.1g}"


def _headline(records: Sequence[Record]) -> str:
    """Summarise throughput, distance to the ceiling and lead over the best peer in one sentence."""
    known = [side for side in sides(records) if side.ranked and side.done]
    group = next((side.group for side in known if side.case.scenario == "featurize"), None)
    ours = [side for side in known if side.group == group and side.case.scenario == "featurize"]
    if not ours:
        first = max(known, key=lambda side: side.rate.median, default=None)
        return f"{name_of(first)} leads" if first is not None else "No run was ranked"
    cores = ours[0].case.workers
    ours = [side for side in ours if side.case.workers == cores]
    rates = [f"{side.rate.median:,.0f}" for side in ours]
    sentence = f"{name_of(ours[0])} processes {rates[0]} images per second"
    sentence += "".join(f" and {name_of(side)} {rate}" for side, rate in zip(ours[1:], rates[1:], strict=True))
    sentence += f", on {cores} core{'s' if cores > 1 else ''}"
    best = max(side.rate.median for side in ours)
    compared = [
        f"{best / side.rate.median:.0%} of the network alone"
        for side in known
        if side.group == group and side.case.scenario == "ceiling" and side.case.workers == cores
    ]
    peers = [side for side in known if side.case.scenario.startswith("peer-") and side.case.workers == cores]
    if peers:
        peer = max(peers, key=lambda side: side.rate.median)
        same_group = [
            side.rate.median for side in known if (side.group, side.case.scenario) == (peer.group, "featurize")
        ]
        if same_group:
            compared.append(f"{max(same_group) / peer.rate.median:.1f} times {name_of(peer)}")
    return f"{sentence}: {' and '.join(compared)}" if compared else sentence


def _versions(records: Sequence[Record]) -> str:
    found = dict(sorted({pair for record in records for pair in record.versions.items()}))
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"


def _figure(value: float) -> str:
    """Format a figure with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _goal(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1%}"
    return f"{value:.2f} x" if unit == "x" else f"{_figure(value)} {unit}"

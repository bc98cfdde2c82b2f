"""The report as HTML and Markdown: headline, tables, plots, goals and method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from benchmarks.answers.check import COSINE, LARGEST
from benchmarks.record import Record
from benchmarks.report.figures import plots
from benchmarks.report.goals import goals
from benchmarks.report.plots import colour, name_of, number
from benchmarks.report.summary import Side, Spread, noise_of, ranking, sides, verdict
from benchmarks.report.svg import PALETTE, drawn, themed
from benchmarks.scenarios import PEERS, load

WIDE, NARROW = 9.4, 3.7  # inches; the page chooses by its own width
BUSY = 0.15  # share of the processors before a run; above it, other processes distort the times
YARDSTICKS = ("bare-loop", "ceiling")
MAIN = {"featurize": 0, "run": 1}  # kinds of work in the headline, by priority
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


Context = dict[str, Any]  # values of a template by name


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
    context: Context = {
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
    environment.filters |= {"figure": number, "goal": _goal}
    page = environment.get_template("page.html.j2").render(context)
    text = environment.get_template("page.md.j2").render(context)
    return page, text, files


def _tables(records: Sequence[Record]) -> list[Context]:
    controlled = {record.group for record in records if record.control}
    found = {
        key: group for key, group in _compared(sides(records)).items() if key.kind != "first-image"
    }  # in the goals
    titles = Counter((_title(key, group), key.images) for key, group in found.items())
    return [
        _table(
            _title(key, group) + (f" ({key.group})" if titles[_title(key, group), key.images] > 1 else ""),
            group,
            noise_of(records, key.group),
            leads=key.group in controlled,
        )
        for key, group in found.items()
    ]


class _Key(NamedTuple):
    """The key of a table, which its sides share: group, kind of work, images, and their size."""

    group: str
    kind: str
    images: int
    megapixels: float


def _compared(known: Sequence[Side]) -> dict[_Key, list[Side]]:
    """Return the sides of each table."""
    found: dict[_Key, list[Side]] = {}
    for side in known:
        key = _Key(side.group, _kind(side), side.case.images, side.case.megapixels)
        found.setdefault(key, []).append(side)
    return found


def _title(key: _Key, found: Sequence[Side]) -> str:
    size = f" of {key.megapixels:g} megapixels" if key.megapixels else ""
    one = {side.case.workers for side in found} == {1} and key.kind == "featurize"
    return TITLES.get(key.kind, key.kind) + size + ", 1 worker" * one


def _kind(side: Side) -> str:
    scenario = side.case.scenario
    if scenario in YARDSTICKS or scenario.startswith("peer-"):
        return "featurize"
    return "run" if scenario.startswith("run-") else scenario


def _table(title: str, found: Sequence[Side], noise: float | None, *, leads: bool) -> Context:
    """Return the sides of a group with the same kind of work, the fastest first, and the unranked ones."""
    ranked = ranking([side for side in found if side.done])
    reference = found[0] if found[0] in ranked else ranked[0] if ranked else None
    places = iter(range(1, len(ranked) + 1))
    rows = []
    for side in ranked:
        ratio = side.rate.median / reference.rate.median if reference is not None else 1.0
        once = min(len(side.done), len(reference.done) if reference is not None else 1) == 1
        rows.append(
            {
                "rank": "" if side.case.scenario in YARDSTICKS or once else str(next(places)),
                "name": name_of(side),
                "colour": next(role for role, (light, _) in PALETTE.items() if light == colour(side)),
                "workers": side.case.workers,
                "rate": side.rate,
                "seconds": side.spread(lambda record: record.work),
                "compared": "one run" if once else "1, by definition" if side is reference else verdict(ratio, noise),
                "whole": side.spread(lambda record: record.images_per_second_whole).median,
                "driver_peak": side.spread(lambda record: record.driver_peak / 1e6).median,
                "worker_peak": side.spread(lambda record: record.worker_peak / 1e6).median,
                "cpu": side.spread(lambda record: record.cpu_seconds).median,
                "answer": _answer(side),
            }
        )
    others = [side for side in found if side not in ranked]
    return {
        "title": title,
        "unit": UNITS[load(found[0].case.scenario).data],
        "images": found[0].case.images,
        "partition_size": found[0].case.partition_size,
        "runs": _runs(ranked),
        "noise": _percent(noise),
        "rows": rows,
        "unranked": [(f"{name_of(side)}, {side.case.workers} workers", side.fault) for side in others],
        "leads": leads,
        "warning": " ".join(dict.fromkeys(side.case.idle for side in found if side.case.idle)),
    }


def _runs(ranked: Sequence[Side]) -> str:
    """Describe the number of runs behind the figures of a table."""
    counts = sorted({len(side.done) for side in ranked})
    if not counts:
        return "No run"
    if counts[-1] == 1:
        return "One run of each: no median, and no comparison"
    return f"Median of {counts[-1]} runs" + (f" (some: {counts[0]})" if len(counts) > 1 else "")


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
    """Summarise the main table in one sentence: throughput, and the ratio to the ceiling and to the best peer in it.

    That is the first table of images to features, or else of whole jobs.
    """
    known = [side for side in sides(records) if side.ranked and side.done]
    tables = sorted(_compared(known).items(), key=lambda item: MAIN.get(item[0].kind, len(MAIN)))
    table = next((found for _, found in tables if any(side.case.scenario in MAIN for side in found)), [])
    ours = [side for side in table if side.case.scenario in MAIN]
    if not ours:
        several = [side for side in known if len(side.done) > 1]
        first = max(several, key=lambda side: side.rate.median, default=None)
        return f"{name_of(first)} leads" if first is not None else "Nothing is compared"
    cores = ours[0].case.workers
    ours, others = ([side for side in of if side.case.workers == cores] for of in (ours, table))
    rates = [f"{side.rate.median:,.{0 if side.rate.median >= 10 else 1}f}" for side in ours]
    work = " in whole jobs" if ours[0].case.scenario == "run" else ""
    size = f" of {ours[0].case.megapixels:g} megapixels" if ours[0].case.megapixels else ""
    sentence = f"{name_of(ours[0])} processes {rates[0]} images{size} per second"
    sentence += "".join(f" and {name_of(side)} {rate}" for side, rate in zip(ours[1:], rates[1:], strict=True))
    sentence += f"{work}, on {cores} core{'s' if cores > 1 else ''}"
    if min(len(side.done) for side in ours) == 1:
        return f"{sentence}, in one run"
    best = max(side.rate.median for side in ours)
    compared = [
        f"{best / side.rate.median:.0%} of the network alone" for side in others if side.case.scenario == "ceiling"
    ]
    peers = [side for side in others if side.case.scenario.removeprefix("run-") in PEERS and len(side.done) > 1]
    if peers:
        peer = max(peers, key=lambda side: side.rate.median)
        compared.append(f"{best / peer.rate.median:.1f} times {name_of(peer)}")
    return f"{sentence}: {' and '.join(compared)}" if compared else sentence


def _versions(records: Sequence[Record]) -> str:
    found = dict(sorted({pair for record in records for pair in record.versions.items()}))
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"


def _goal(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1%}"
    return f"{value:.2f} x" if unit == "x" else f"{number(value)} {unit}"

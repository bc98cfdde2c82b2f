"""Drawing functions for any width: bars with their names above, and lines with their names at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from benchmarks.record import STAGES, Record
from benchmarks.report.summary import Side, Spread
from benchmarks.report.svg import INK, PALETTE, QUIET, RULE

ROW = 0.5  # inches per bar with its name
NARROW = 5.0  # inches; narrower plots leave no room for text beside the bars
NAMES = {
    "dask": "Dask",
    "spark": "Spark",
    "local": "one process, threads",
    "bare-loop": "bare loop, no engine",
    "ceiling": "network alone",
    "peer-notebook": "notebook (Spark, Keras)",
    "peer-tfdata": "tf.data + Keras",
    "peer-ray": "Ray Data + Keras",
    "peer-daft": "Daft + Keras",
    "peer-ray-openvino": "Ray Data + OpenVINO",
    "peer-spark-openvino": "Spark predict_batch_udf + OpenVINO",
    "dask-ml": "dask-ml",
    "spark-ml": "Spark ML",
    "scikit-learn": "scikit-learn",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot: a spread for each number of images."""

    name: str
    role: str
    points: tuple[tuple[int, Spread], ...]
    dashed: bool = False


def name_of(side: Side) -> str:
    """Return the name of a side for plots and tables."""
    scenario, backend = side.case.scenario, side.case.backend
    if scenario == "moments":
        return NAMES[backend] if backend not in ("dask", "spark", "local") else f"exact on {NAMES[backend]}"
    return NAMES.get(scenario.removeprefix("run-")) or NAMES.get(backend, backend)


def colour(side: Side) -> str:
    """Return the colour of a side: one per backend of this project, grey for others."""
    backend = side.case.backend
    role = backend if backend in ("dask", "spark", "local") else "plain" if backend == "processes" else "peer"
    return PALETTE[role][0]


def bars(
    rows: Sequence[tuple[str, Side]],
    width: float,
    *,
    figure: Callable[[Record], float],
    limit: tuple[str, Spread] | None = None,
) -> Figure:
    """Draw one bar per side, with its name above, its figure at the end and a dot for each run.

    Parameters
    ----------
    rows : sequence of (str, Side)
        Names and sides from top to bottom.
    width : float
        Width in inches.
    figure : callable
        Figure of a run.
    limit : (str, Spread), optional
        Name and position of a vertical line, the upper bound of all bars.
    """
    made, axes = _rows([name for name, _ in rows], width)
    longest = max([side.spread(figure).most for _, side in rows] + ([limit[1].median] if limit else []))
    for place, (_, side) in enumerate(rows):
        spread = side.spread(figure)
        axes.barh(place, spread.median, height=0.36, color=colour(side))
        dots = [figure(record) for record in side.done]
        axes.plot(dots, [place] * len(dots), "o", markersize=2.6, color=INK, alpha=0.55, markeredgewidth=0)
        if width > NARROW:
            axes.text(spread.most + longest * 0.015, place, number(spread.median), va="center", weight="bold")
        else:
            _at_the_edge(axes, place, number(spread.median))
    if limit is not None:
        axes.axvline(limit[1].median, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        label = f"{limit[0]} {number(limit[1].median)}"
        axes.text(limit[1].median - longest * 0.012, -0.95, label, ha="right", va="center", color=INK)
    axes.set_xlim(0, longest * (1.1 if width > NARROW else 1.02 if limit is None else 1.2))
    return made


def stages(rows: Sequence[tuple[str, Side]], width: float) -> Figure:
    """Draw stacked bars: the median seconds of each stage of each side."""
    made, axes = _rows([name for name, _ in rows], width)
    longest, seen = 0.0, []
    for place, (_, side) in enumerate(rows):
        start = 0.0
        for stage in STAGES:
            taken = side.spread(lambda record, stage=stage: record.seconds.get(stage, 0.0)).median  # type: ignore[misc]
            if taken > 0:
                axes.barh(place, taken, left=start, height=0.36, color=PALETTE[stage][0])
                seen.append(stage)
            start += taken
        longest = max(longest, start)
        if width > NARROW:
            axes.text(start, place, f"  {number(start)} s", va="center", weight="bold")
        else:
            _at_the_edge(axes, place, f"{number(start)} s")
    axes.set_xlim(0, longest * (1.1 if width > NARROW else 1.02))
    marks = [axes.barh(0, 0, color=PALETTE[stage][0], label=stage) for stage in STAGES if stage in seen]
    columns = len(marks) if width > NARROW else 3
    made.legend(
        handles=marks, loc="outside upper left", ncols=columns, frameon=False, handlelength=0.9, handleheight=0.9
    )
    return made


def lines(drawn: Sequence[Line], width: float) -> Figure:
    """Draw figures against the number of images, from zero, with the range of the runs as a band."""
    made, axes = _figure(width, min(3.4, 0.7 * width))
    counts = sorted({count for line in drawn for count, _ in line.points})
    top = max(spread.most for line in drawn for _, spread in line.points) * 1.12
    for line in drawn:
        paint = PALETTE[line.role][0]
        xs = [count for count, _ in line.points]
        axes.fill_between(
            xs,
            [spread.least for _, spread in line.points],
            [spread.most for _, spread in line.points],
            color=paint,
            alpha=0.18,
            linewidth=0,
        )
        style = (0, (3, 2)) if line.dashed else "-"
        medians = [spread.median for _, spread in line.points]
        axes.plot(xs, medians, marker="o", markersize=4, linewidth=1.6, color=paint, linestyle=style)
    _name_ends(axes, drawn, top, width)
    axes.set_xscale("log")
    axes.set_xlim(counts[0] / 1.25, counts[-1] * (1.9 if width > NARROW else 3.2) * (counts[-1] / counts[0]) ** 0.08)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="both", length=0)
    axes.set_xlabel("images (log scale)")
    return made


def _name_ends(axes: Axes, drawn: Sequence[Line], top: float, width: float) -> None:
    """Write the name of each line at its end, moved up if it would touch the one below."""
    lowest = -1.0
    for line in sorted(drawn, key=lambda line: line.points[-1][1].median):
        count, spread = line.points[-1]
        height = max(spread.median, lowest + top * (0.075 if width > NARROW else 0.1))
        lowest = height
        label = f"{line.name} {number(spread.median)}"
        axes.annotate(
            label, (count, height), xytext=(7, 0), textcoords="offset points", va="center", color=PALETTE[line.role][0]
        )


def _rows(names: Sequence[str], width: float) -> tuple[Figure, Axes]:
    """Return a figure with one row per name, the first on top, with space for a bar below each name."""
    made, axes = _figure(width, ROW * len(names) + 0.5)
    axes.set_ylim(len(names) - 0.55, -1.1)
    axes.set_yticks([])
    for place, name in enumerate(names):
        axes.text(0, place - 0.27, name, va="bottom", color=QUIET)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(axis="x", color=RULE)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6 if width > NARROW else 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    return made, axes


def _at_the_edge(axes: Axes, place: int, text: str) -> None:
    """Write a bar's figure above it at the right edge, for narrow plots."""
    edge = axes.get_yaxis_transform()
    axes.text(1, place - 0.27, text, ha="right", va="bottom", weight="bold", transform=edge)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots()


def number(value: float) -> str:
    """Format a figure with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

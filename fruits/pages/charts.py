"""Charts as SVG, in the colours of the page. A map has no text of its own, so that it is legible at any width."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fruits.pages.document import data_uri, text

WIDTH, HEIGHT = 380, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 354, 12, 252  # of the plot; left of it, 99.6 % and the title fit
STEPS = 5  # of a grid
COLOURS = 7  # that the style defines; of more labels, each has a hue
LEGEND = 14  # labels: of more, hues are too similar to name them
GOLDEN_ANGLE = 137.5  # degrees between two hues, so that the most frequent labels differ most
MAP_WIDTH, MAP_HEIGHT, MARGIN = 720, 480, 34
CELL = 60  # side of a picture on a map, at most one in each cell
POINT = 5

Axis = Callable[[float], float]
Range = tuple[float, float]
Float = npt.NDArray[np.floating]


def axis(low: float, high: float, start: float, stop: float) -> Axis:
    """Return the function from a value to its position."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (stop - start)


def grid(
    x: Axis, y: Axis, x_range: Range, y_range: Range, x_text: Callable[[float], str], y_text: Callable[[float], str]
) -> list[str]:
    """Return the grid lines and their labels, at round numbers of x and in five steps of y."""
    parts = []
    for step in range(STEPS + 1):
        up = y_range[0] + (y_range[1] - y_range[0]) * step / STEPS
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(up):.1f}" y2="{y(up):.1f}"/>',
            f'<text x="{LEFT - 6}" y="{y(up) + 4:.1f}" text-anchor="end">{y_text(up)}</text>',
        ]
    return parts + [
        f'<text x="{x(across):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{x_text(across)}</text>'
        for across in _round_numbers(*x_range)
    ]


def _round_numbers(low: float, high: float) -> list[float]:
    """Return the multiples of a round number in a range, about eight, or its one number."""
    step = _round_up((high - low) / 8)
    if high - low > STEPS:
        step = max(1.0, round(step))  # of counts
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)] or [low]


def chart(shapes: Iterable[str], title: str, x_title: str, y_title: str) -> str:
    """Return a chart of SVG shapes with the titles of its axes."""
    middle = (TOP + BOTTOM) / 2
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(shapes)}'
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{x_title}</text>'
        f'<text x="10" y="{middle}" text-anchor="middle" transform="rotate(-90 10 {middle})">{y_title}</text></svg>'
    )


@dataclass(frozen=True, slots=True)
class Line:
    """The content of a line chart: points, titles, texts of the axes, and dashed lines at some heights.

    Attributes
    ----------
    points : sequence of (float, float)
        In the order of x.
    title, x_title, y_title : str
    y_text : callable
        Formats a value of y.
    top : float, optional
        The upper end of y; default: a round number above the points.
    marks : sequence of float
        Heights of dashed lines.
    is_filled : bool
        Whether the area below the line is coloured.
    """

    points: Sequence[tuple[float, float]]
    title: str
    x_title: str
    y_title: str
    y_text: Callable[[float], str]
    top: float | None = None
    marks: Sequence[float] = ()
    is_filled: bool = False


def line_chart(line: Line) -> str:
    """Return a line from the first to the last x, with y from 0."""
    first, last = line.points[0][0], line.points[-1][0]
    top = line.top or _round_up(max(value for _, value in line.points))
    x, y = axis(first, last, LEFT, RIGHT), axis(0.0, top, BOTTOM, TOP)
    path = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in line.points)
    shapes = grid(x, y, (first, last), (0.0, top), lambda value: f"{value:,.4g}", line.y_text)
    if line.is_filled:
        corners = f"{x(first):.1f},{BOTTOM} {path} {x(last):.1f},{BOTTOM}"
        shapes.append(f'<polygon class="area" points="{corners}"/>')
    shapes += [
        f'<line class="ideal" x1="{LEFT}" x2="{RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>' for mark in line.marks
    ]
    shapes.append(f'<polyline class="line" points="{path}"/>')
    if len(line.points) == 1:
        shapes.append(f'<circle class="dot" cx="{x(first):.1f}" cy="{y(line.points[0][1]):.1f}" r="3.5"/>')
    return chart(shapes, line.title, line.x_title, line.y_title)


def _round_up(value: float) -> float:
    """Return the next number of 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * (1 - 1e-9))


def point_map(places: Float, labels: Sequence[str], pictures: Mapping[int, bytes], title: str) -> str:
    """Return points in the colours of their labels, which are tooltips, and some pictures.

    Parameters
    ----------
    places : ndarray of shape (n, 2)
    labels : sequence of str
        The label of each point; plain text.
    pictures : mapping of int to bytes
        JPEG pictures by number of the point; see :func:`pictured`.
    title : str
        HTML.
    """
    spots = _spots(places)
    groups: dict[str, list[str]] = {}
    for (x, y), label in zip(spots.tolist(), labels, strict=True):
        groups.setdefault(label, []).append(f"M{x:.0f} {y:.0f}h0")
    ranked = sorted(groups, key=lambda label: (-len(groups[label]), label))
    few = len(ranked) <= COLOURS
    colours = {
        label: f"var(--c{number})" if few else f"hsl({number * GOLDEN_ANGLE % 360:.0f} 60% 50%)"
        for number, label in enumerate(ranked)
    }
    paths = [
        f'<path stroke="{colours[label]}" d="{"".join(groups[label])}"><title>{text(label)}</title></path>'
        for label in reversed(ranked)
    ]
    images = [
        f'<image x="{spots[number, 0] - CELL / 2:.0f}" y="{spots[number, 1] - CELL / 2:.0f}" width="{CELL}" '
        f'height="{CELL}" href="{data_uri(picture)}"><title>{text(labels[number])}</title></image>'
        for number, picture in pictures.items()
    ]
    items = "".join(f'<li><i style="background:{colours[label]}"></i>{text(label, 40)}</li>' for label in ranked)
    legend = f'<ul class="legend">{items}</ul>' if len(ranked) <= LEGEND else ""
    return (
        f'<div class="map"><svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" role="img" aria-label="{title}">'
        f'<g fill="none" stroke-width="{POINT}" stroke-linecap="round" opacity=".8">{"".join(paths)}</g>'
        f"{''.join(images)}</svg></div>{legend}"
    )


def pictured(places: Float) -> list[int]:
    """Return the points of a map that get a picture: the first one in each cell whose picture touches no other."""
    taken: list[tuple[float, float]] = []
    chosen = []
    for number, (x, y) in enumerate(_spots(places).tolist()):
        if all(abs(x - left) >= CELL or abs(y - top) >= CELL for left, top in taken):
            taken.append((x, y))
            chosen.append(number)
    return chosen


def _spots(places: Float) -> Float:
    """Return positions in the map; the outermost 0.5 % of the points on each side are moved to its edge."""
    low, high = np.percentile(places, [0.5, 99.5], axis=0) if len(places) > 200 else (places.min(0), places.max(0))
    relative = (np.clip(places, low, high) - low) / np.where(high > low, high - low, 1.0)
    size = np.array([MAP_WIDTH - 2 * MARGIN, MAP_HEIGHT - 2 * MARGIN])
    spots: Float = MARGIN + np.column_stack([relative[:, 0], 1.0 - relative[:, 1]]) * size
    return spots

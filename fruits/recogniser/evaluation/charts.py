"""Charts of an evaluation as SVG, in the colours of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fruits.recogniser.evaluation.metrics import Bin, CoveragePoint

__all__ = ["coverage_chart", "reliability_chart"]

WIDTH, HEIGHT = 380, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 354, 12, 252  # of the plot
TICKS = 5

Axis = Callable[[float], float]


def reliability_chart(bins: Sequence[Bin]) -> str:
    """Return accuracy by confidence: a bar for each bin, wider with more images, and the diagonal of a perfect fit."""
    x, y = _axis(0.0, 1.0, LEFT, RIGHT), _axis(0.0, 1.0, BOTTOM, TOP)
    total = sum(each.images for each in bins)
    shapes = []
    for each in bins:
        width = 6 + 20 * (each.images / total) ** 0.5
        title = (
            f"confidence {each.low:.0%} to {each.high:.0%}: {each.images:,} images, "
            f"mean confidence {each.confidence:.1%}, accuracy {each.accuracy:.1%}"
        )
        left, top = x(each.confidence) - width / 2, y(each.accuracy)
        shapes.append(
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{BOTTOM - top:.1f}"><title>{title}</title></rect>'
        )
    diagonal = f'<line class="ideal" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>'
    return _chart(
        [*_grid(x, y, (0.0, 1.0), (0.0, 1.0)), *shapes, diagonal],
        "Reliability: accuracy by confidence",
        "confidence",
        "accuracy",
    )


def coverage_chart(points: Sequence[CoveragePoint]) -> str:
    """Return the accuracy of the surest images by their fraction."""
    lowest = min(0.99, int(min(each.accuracy for each in points) * 10) / 10)
    x, y = _axis(0.0, 1.0, LEFT, RIGHT), _axis(lowest, 1.0, BOTTOM, TOP)
    path = " ".join(f"{x(each.coverage):.1f},{y(each.accuracy):.1f}" for each in points)
    dots = [
        f'<circle class="dot" cx="{x(each.coverage):.1f}" cy="{y(each.accuracy):.1f}" r="3.5"><title>'
        f"{each.coverage:.0%} of the images, confidence {each.confidence:.1%} or more: accuracy {each.accuracy:.1%}"
        "</title></circle>"
        for each in points
    ]
    return _chart(
        [*_grid(x, y, (0.0, 1.0), (lowest, 1.0)), f'<polyline class="line" points="{path}"/>', *dots],
        "Accuracy by coverage: the surest images first",
        "fraction of images",
        "accuracy",
    )


def _axis(low: float, high: float, start: float, stop: float) -> Axis:
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _grid(x: Axis, y: Axis, x_range: tuple[float, float], y_range: tuple[float, float]) -> list[str]:
    """Return the grid lines and their labels."""
    parts = []
    for tick in range(TICKS + 1):
        across = x_range[0] + (x_range[1] - x_range[0]) * tick / TICKS
        up = y_range[0] + (y_range[1] - y_range[0]) * tick / TICKS
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(up):.1f}" y2="{y(up):.1f}"/>',
            f'<text x="{LEFT - 6}" y="{y(up) + 4:.1f}" text-anchor="end">{up * 100:.3g} %</text>',
            f'<text x="{x(across):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{across * 100:.3g} %</text>',
        ]
    return parts


def _chart(shapes: Sequence[str], title: str, x_title: str, y_title: str) -> str:
    middle = (TOP + BOTTOM) / 2
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(shapes)}'
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{x_title}</text>'
        f'<text x="10" y="{middle}" text-anchor="middle" transform="rotate(-90 10 {middle})">{y_title}</text></svg>'
    )

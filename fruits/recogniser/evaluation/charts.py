"""Charts of an evaluation as SVG, in the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence

from fruits.pages.charts import BOTTOM, LEFT, RIGHT, TOP, Range, axis, chart, grid
from fruits.recogniser.evaluation.metrics import Bin, CoveragePoint


def reliability_chart(bins: Sequence[Bin]) -> str:
    """Return accuracy by confidence: a bar for each bin, wider with more images, and the diagonal of a perfect fit."""
    x, y = axis(0.0, 1.0, LEFT, RIGHT), axis(0.0, 1.0, BOTTOM, TOP)
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
    return chart(
        [*_grid((0.0, 1.0)), *shapes, diagonal],
        "Reliability: accuracy by confidence",
        "confidence",
        "accuracy",
    )


def coverage_chart(points: Sequence[CoveragePoint]) -> str:
    """Return the accuracy of the surest images by their fraction."""
    lowest = min(0.99, int(min(each.accuracy for each in points) * 10) / 10)
    x, y = axis(0.0, 1.0, LEFT, RIGHT), axis(lowest, 1.0, BOTTOM, TOP)
    path = " ".join(f"{x(each.coverage):.1f},{y(each.accuracy):.1f}" for each in points)
    dots = [
        f'<circle class="dot" cx="{x(each.coverage):.1f}" cy="{y(each.accuracy):.1f}" r="3.5"><title>'
        f"{each.coverage:.0%} of the images, confidence {each.confidence:.1%} or more: accuracy {each.accuracy:.1%}"
        "</title></circle>"
        for each in points
    ]
    return chart(
        [*_grid((lowest, 1.0)), f'<polyline class="line" points="{path}"/>', *dots],
        "Accuracy by coverage: the surest images first",
        "fraction of images",
        "accuracy",
    )


def _grid(y_range: Range) -> list[str]:
    x, y = axis(0.0, 1.0, LEFT, RIGHT), axis(*y_range, BOTTOM, TOP)
    return grid(x, y, (0.0, 1.0), y_range, _percent, _percent)


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.3g} %"

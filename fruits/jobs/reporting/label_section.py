"""Sections about labels, which the reports of jobs and of trainings share."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from statistics import median

from fruits.pages.charts import Line, line_chart
from fruits.pages.document import bars

ALL = 30  # labels: up to this many, each has a bar
ENDS = 6  # of more labels, the largest and the smallest that have one
CURVE = 200  # points of a curve of sizes


def label_section(counts: Mapping[str, int], note: str, kind: str = "label") -> str:
    """Return the images per label and their imbalance, in bounded space.

    Parameters
    ----------
    counts : mapping of str to int
        An empty text is the label of images without one.
    note : str
        What was counted; plain text without markup.
    kind : {"label", "class"}
        The word for a label.
    """
    named = {label: count for label, count in counts.items() if label and count}
    several = "classes" if kind == "class" else "labels"
    title = f"<h2>Images per {kind}</h2>"
    if not named:
        return f"{title}<p>No image has a label: all are directly in the image folder.</p>"
    ranked = sorted(named.items(), key=lambda item: (-item[1], item[0]))
    sizes = [count for _, count in ranked]
    without = f" {counts['']:,} images have no label." if counts.get("") else ""
    text = (
        f"<p>{len(ranked):,} {several if len(ranked) > 1 else kind}, {sum(sizes):,} images. The largest has "
        f"{sizes[0]:,}, the smallest {sizes[-1]:,}, a ratio of {sizes[0] / sizes[-1]:,.3g}; the median is "
        f"{median(sizes):,.0f}. Half of the images are in the {_half(sizes):,} largest.{without} "
        f'<span class="soft">Counted: {note}.</span></p>'
    )
    if len(ranked) <= ALL:
        return title + text + bars([(label, count, f"{count:,}") for label, count in ranked])
    steps = sorted({round(at * (len(sizes) - 1) / (CURVE - 1)) for at in range(CURVE)})
    curve = Line(
        [(at + 1, sizes[at]) for at in steps],
        f"Images of each {kind}, the largest first",
        f"{several}, the largest first",
        "images",
        lambda value: f"{value:,.4g}",
        is_filled=True,
    )
    largest, smallest = (
        bars([(label, count, f"{count:,}") for label, count in some]) for some in (ranked[:ENDS], ranked[-ENDS:])
    )
    return (
        f'{title}{text}<div class="charts"><figure>{line_chart(curve)}<figcaption>A steep start or a long tail is an '
        f"imbalance.</figcaption></figure><div><h3>Largest</h3>{largest}<h3>Smallest</h3>{smallest}</div></div>"
    )


def _half(sizes: list[int]) -> int:
    """Return how many of the largest labels have half of the images."""
    images = sum(sizes)
    return next(number for number, total in enumerate(accumulate(sizes), 1) if 2 * total >= images)

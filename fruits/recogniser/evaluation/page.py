"""The report of an evaluation as one HTML page, without scripts and without requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fruits.pages.document import document, pair, percent, table, text, tiles
from fruits.recogniser.evaluation.charts import coverage_chart, reliability_chart
from fruits.recogniser.evaluation.leave_out import LeftOut
from fruits.recogniser.evaluation.metrics import Metrics, UnknownImages

NONE_UNKNOWN = UnknownImages(0, 0)
MOST_CLASSES = 1000  # in the table: a page stays below 2 MB


@dataclass(frozen=True, slots=True)
class Heading:
    """The origin of an evaluation: the recogniser's version, its classes and images, the source, and its address."""

    version: str
    classes: int
    training_images: int
    source: str


def render_page(
    heading: Heading,
    metrics: Metrics | None,
    left_out: Sequence[LeftOut],
    pictures: Mapping[str, bytes],
    examples: Mapping[str, bytes],
    unknown: UnknownImages = NONE_UNKNOWN,
) -> str:
    """Return the page.

    Parameters
    ----------
    heading : Heading
    metrics : Metrics or None
        None if the recogniser knows the label of no image.
    left_out : sequence of LeftOut
        Empty if there were fewer than three labels.
    pictures : mapping of str to bytes
        JPEG pictures of evaluated images, by path; missing ones are left out.
    examples : mapping of str to bytes
        JPEG pictures of a training image of each class.
    unknown : UnknownImages, optional
    """
    images = unknown.images + (0 if metrics is None else metrics.images)
    sections = [
        f"<h1>Recogniser {text(heading.version)}</h1>"
        f'<p class="soft">{heading.classes:,} classes, trained on {heading.training_images:,} images. '
        f"Evaluated on {images:,} images of {text(heading.source)}.</p>",
        _tiles(metrics, left_out, unknown),
        _left_out(left_out),
    ]
    if metrics is not None:
        sections += [
            _charts(metrics),
            _rejections(metrics),
            _confusions(metrics, pictures, examples),
            _mistakes(metrics, pictures, examples),
            _classes(metrics),
        ]
    return document(f"Evaluation of recogniser {heading.version}", sections)


def _tiles(metrics: Metrics | None, left_out: Sequence[LeftOut], unknown: UnknownImages) -> str:
    values = []
    if left_out:
        good, images = sum(each.rejected + each.placed for each in left_out), sum(each.images for each in left_out)
        values.append((percent(good / images), "unseen varieties", "rejected or placed in their class"))
    if metrics is not None:
        low, high = metrics.interval
        values.insert(0, (percent(metrics.top1), "top-1 accuracy", f"95 % interval {percent(low)} to {percent(high)}"))
        values += [
            (percent(metrics.top5), "top-5 accuracy", ""),
            (percent(metrics.kept), "answered", f"of these, {percent(metrics.kept_accuracy)} are right"),
            (percent(metrics.ece), "calibration error", "ten bins; 0 % is ideal"),
        ]
    if unknown.images:
        note = f"of {unknown.images:,} images of labels that it was not trained on"
        values.append((percent(unknown.rejected / unknown.images), "unknown images rejected", note))
    return tiles(values)


def _left_out(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return "<h2>Labels left out</h2><p>Not measured: that takes three labels or more, and was not switched off.</p>"
    images = sum(each.images for each in left_out)
    rejected, placed = sum(each.rejected for each in left_out), sum(each.placed for each in left_out)
    rows = [
        [
            text(each.label),
            f"{each.siblings}",
            f"{each.images:,}",
            percent(each.rejected / each.images),
            percent(each.placed / each.images),
            percent(1 - (each.rejected + each.placed) / each.images),
        ]
        for each in sorted(left_out, key=lambda each: ((each.rejected + each.placed) / each.images, each.label))
    ]
    return (
        "<h2>Labels left out</h2><p>Test images usually show the objects that were trained on, so the accuracy above "
        "is that of known objects. Here, one label at a time is left out of training, and its images are recognised: "
        f"of {images:,} images of {len(left_out):,} labels, {percent(rejected / images)} are rejected, "
        f"{percent(placed / images)} are placed in their class, and "
        f"{percent(1 - (rejected + placed) / images)} are given another class. "
        "Siblings are the other labels of its class.</p>"
        + table(["label", "siblings", "images", "rejected", "placed", "wrong"], rows)
    )


def _charts(metrics: Metrics) -> str:
    return (
        '<h2>Confidence</h2><div class="charts"><figure>'
        f"{reliability_chart(metrics.reliability)}<figcaption>Bars on the dashed line are calibrated; below it, the "
        "recogniser is too sure. A wider bar has more images.</figcaption></figure><figure>"
        f"{coverage_chart(metrics.coverage)}<figcaption>Accuracy if only the surest images are answered."
        "</figcaption></figure></div>"
    )


def _rejections(metrics: Metrics) -> str:
    rows = [[text(each), f"{count:,}", percent(count / metrics.images)] for each, count in metrics.rejected.items()]
    return "<h2>Rejections</h2>" + (table(["reason", "images", "fraction"], rows) if rows else "<p>None.</p>")


def _confusions(metrics: Metrics, pictures: Mapping[str, bytes], examples: Mapping[str, bytes]) -> str:
    rows = [
        [
            text(each.label),
            text(each.prediction),
            f"{each.images:,}",
            pair(pictures.get(each.example), examples.get(each.prediction)),
        ]
        for each in metrics.confusions
    ]
    header = ["class", "recognised as", "images", "pictures"]
    return (
        "<h2>Most confused classes</h2>"
        "<p>Left, an image; right, a training image of the class that it was taken for.</p>"
        + (table(header, rows) if rows else "<p>None.</p>")
    )


def _mistakes(metrics: Metrics, pictures: Mapping[str, bytes], examples: Mapping[str, bytes]) -> str:
    rows = [
        [
            f"{text(each.path)}<br><span class='soft'>{text(each.label)} → {text(each.top[0])}</span>",
            percent(each.confidence),
            pair(pictures.get(each.path), examples.get(each.top[0])),
        ]
        for each in metrics.mistakes
    ]
    header = ["image", "confidence", "pictures"]
    return "<h2>Surest errors</h2>" + (table(header, rows) if rows else "<p>None.</p>")


def _classes(metrics: Metrics) -> str:
    rows = [
        [text(each.label), f"{each.images:,}", percent(each.recall), percent(each.precision)]
        for each in metrics.classes[:MOST_CLASSES]
    ]
    some = f"<p>The {MOST_CLASSES:,} of {len(metrics.classes):,} with the lowest recall; report.json has all.</p>"
    note = some if len(metrics.classes) > MOST_CLASSES else ""
    return f"<h2>Classes</h2>{note}" + table(["class", "images", "recall", "precision"], rows)

"""The report of an evaluation as one HTML page, without scripts and without requests."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fruits.recogniser.evaluation.charts import coverage_chart, reliability_chart
from fruits.recogniser.evaluation.leave_out import LeftOut
from fruits.recogniser.evaluation.metrics import Metrics, UnknownImages
from fruits.text import brief, printable

__all__ = ["Heading", "render_page"]

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f23;--soft:#59636e;--paper:#fff;--panel:#f5f7f9;--rule:#d5dbe1;--mark:#0a66c2;
--bar:#7fb2e5;--ideal:#b4470f}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebee;--soft:#a3adb8;--paper:#14181c;--panel:#1e242a;--rule:#39424c;
--mark:#6cb0f5;--bar:#3f78b0;--ideal:#f0a070}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:60rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--rule)}
p{max-width:44rem}.soft,figcaption{color:var(--soft);font-size:.875rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1rem 0;padding:0}
.tiles li{list-style:none;background:var(--panel);border:1px solid var(--rule);border-radius:.5rem;padding:.75rem}
.tiles b{display:block;font-size:1.6rem;line-height:1.2}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem}
figure{margin:0}svg{width:100%;height:auto}svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--rule)}.bar{fill:var(--bar)}.ideal{stroke:var(--ideal);stroke-width:2;stroke-dasharray:5 4}
.line{fill:none;stroke:var(--mark);stroke-width:2}.dot{fill:var(--mark)}
.scroll{max-height:28rem;overflow:auto;border:1px solid var(--rule);border-radius:.5rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.35rem .4rem;text-align:right;border-bottom:1px solid var(--rule)}
th{position:sticky;top:0;background:var(--panel);vertical-align:bottom;overflow-wrap:normal}
th:first-child,td:first-child{text-align:left;min-width:6rem}
.pair{display:flex;gap:.25rem;justify-content:end}
.pair img{width:48px;height:48px;object-fit:contain;background:var(--panel);border-radius:.25rem}
:focus-visible{outline:3px solid var(--mark)}
"""

NONE_UNKNOWN = UnknownImages(0, 0)
Table = Sequence[Sequence[str]]


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
        f"<h1>Recogniser {escape(heading.version)}</h1>"
        f'<p class="soft">{heading.classes:,} classes, trained on {heading.training_images:,} images. '
        f"Evaluated on {images:,} images of {_text(heading.source)}.</p>",
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
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline';"
        'img-src data:">'
        f'<link rel="icon" href="data:,"><title>Evaluation of recogniser {escape(heading.version)}</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _tiles(metrics: Metrics | None, left_out: Sequence[LeftOut], unknown: UnknownImages) -> str:
    tiles = []
    if left_out:
        good, images = sum(each.rejected + each.placed for each in left_out), sum(each.images for each in left_out)
        tiles.append((_percent(good / images), "unseen varieties", "rejected or placed in their class"))
    if metrics is not None:
        low, high = metrics.interval
        tiles.insert(
            0, (_percent(metrics.top1), "top-1 accuracy", f"95 % interval {_percent(low)} to {_percent(high)}")
        )
        tiles += [
            (_percent(metrics.top5), "top-5 accuracy", ""),
            (_percent(metrics.kept), "answered", f"of these, {_percent(metrics.kept_accuracy)} are right"),
            (_percent(metrics.ece), "calibration error", "ten bins; 0 % is ideal"),
        ]
    if unknown.images:
        note = f"of {unknown.images:,} images of labels that it was not trained on"
        tiles.append((_percent(unknown.rejected / unknown.images), "unknown images rejected", note))
    items = (f'<li><b>{value}</b>{name}<br><span class="soft">{note}</span></li>' for value, name, note in tiles)
    return f'<ul class="tiles">{"".join(items)}</ul>'


def _left_out(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return "<h2>Labels left out</h2><p>Not measured: that takes three labels or more, and was not switched off.</p>"
    images = sum(each.images for each in left_out)
    rejected, placed = sum(each.rejected for each in left_out), sum(each.placed for each in left_out)
    rows = [
        [
            _text(each.label),
            f"{each.siblings}",
            f"{each.images:,}",
            _percent(each.rejected / each.images),
            _percent(each.placed / each.images),
            _percent(1 - (each.rejected + each.placed) / each.images),
        ]
        for each in sorted(left_out, key=lambda each: ((each.rejected + each.placed) / each.images, each.label))
    ]
    return (
        "<h2>Labels left out</h2><p>Test images usually show the objects that were trained on, so the accuracy above "
        "is that of known objects. Here, one label at a time is left out of training, and its images are recognised: "
        f"of {images:,} images of {len(left_out):,} labels, {_percent(rejected / images)} are rejected, "
        f"{_percent(placed / images)} are placed in their class, and "
        f"{_percent(1 - (rejected + placed) / images)} are given another class. "
        "Siblings are the other labels of its class.</p>"
        + _table(["label", "siblings", "images", "rejected", "placed", "wrong"], rows)
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
    rows = [[_text(each), f"{count:,}", _percent(count / metrics.images)] for each, count in metrics.rejected.items()]
    return "<h2>Rejections</h2>" + (_table(["reason", "images", "fraction"], rows) if rows else "<p>None.</p>")


def _confusions(metrics: Metrics, pictures: Mapping[str, bytes], examples: Mapping[str, bytes]) -> str:
    rows = [
        [
            _text(each.label),
            _text(each.prediction),
            f"{each.images:,}",
            _pair(pictures.get(each.example), examples.get(each.prediction)),
        ]
        for each in metrics.confusions
    ]
    header = ["class", "recognised as", "images", "pictures"]
    return (
        "<h2>Most confused classes</h2>"
        "<p>Left, an image; right, a training image of the class that it was taken for.</p>"
        + (_table(header, rows) if rows else "<p>None.</p>")
    )


def _mistakes(metrics: Metrics, pictures: Mapping[str, bytes], examples: Mapping[str, bytes]) -> str:
    rows = [
        [
            f"{_text(each.path)}<br><span class='soft'>{_text(each.label)} → {_text(each.top[0])}</span>",
            _percent(each.confidence),
            _pair(pictures.get(each.path), examples.get(each.top[0])),
        ]
        for each in metrics.mistakes
    ]
    header = ["image", "confidence", "pictures"]
    return "<h2>Surest errors</h2>" + (_table(header, rows) if rows else "<p>None.</p>")


def _classes(metrics: Metrics) -> str:
    rows = [
        [_text(each.label), f"{each.images:,}", _percent(each.recall), _percent(each.precision)]
        for each in metrics.classes
    ]
    return "<h2>Classes</h2>" + _table(["class", "images", "recall", "precision"], rows)


def _table(header: Iterable[str], rows: Table) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _pair(*pictures: bytes | None) -> str:
    encoded = (base64.b64encode(data).decode() for data in pictures if data is not None)
    images = (f'<img alt="" src="data:image/jpeg;base64,{data}">' for data in encoded)
    return f'<span class="pair">{"".join(images)}</span>'


def _text(text: str) -> str:
    return escape(printable(brief(text)))


def _percent(fraction: float | None) -> str:
    return "none" if fraction is None else f"{fraction * 100:.1f} %"

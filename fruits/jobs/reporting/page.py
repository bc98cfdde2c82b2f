"""The page of a run report."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from fruits.jobs.reporting.findings import Findings, PointMap
from fruits.jobs.reporting.label_section import label_section
from fruits.jobs.reporting.neighbours import NEAR, SAME
from fruits.jobs.reporting.speed_section import speed_section
from fruits.jobs.reporting.vectors import Vectors
from fruits.pages.charts import Line, line_chart, point_map
from fruits.pages.document import document, facts, pair, percent, table, text, tiles
from fruits.text import counted

SCREE = 50  # components in the plot of single ones
TSNE_HINT = (
    "A map by t-SNE, which keeps neighbours together: <code>fruits report OUT --tsne</code>, with the extra "
    "<code>report</code>."
)
NO_VECTORS = (
    "<h2>Map, near-duplicates and outliers</h2><p>Not examined: this output stores no principal components, or those "
    "of its source cannot be read any more.</p>"
)


def render(findings: Findings, *, pictures: bool = True) -> str:
    """Return the page, with pictures of images or without."""
    if not pictures:
        findings = replace(findings, pictures={})
    report = findings.report
    origin = findings.job.get("source") or findings.job.get("images") or ""
    sections = [
        f"<h1>fruits {text(report.command)}</h1>"
        f'<p class="soft">Images: {text(str(origin), 200)}<br>Output: {text(report.out, 200)}</p>',
        _tiles(findings),
        label_section(findings.labels.counts, findings.labels.note),
        _variance(findings),
        *_vectors(findings),
        _rejects(findings),
        speed_section(report),
        "<h2>Settings and versions</h2>" + facts(dict(settings(findings.job))),
    ]
    return document(f"fruits {report.command}: {report.out}", sections)


def _tiles(findings: Findings) -> str:
    report = findings.report
    rejected = sum(report.rejects.values())
    labels = sum(1 for label in findings.labels.counts if label)
    values = [
        (f"{report.images:,}", "images listed", ""),
        (f"{report.rows:,}", "usable", ""),
        (f"{rejected:,}", "rejected", percent(rejected / report.images, 2) if rejected else ""),
        (f"{labels:,}", "label" if labels == 1 else "labels", ""),
    ]
    if report.components:
        explained = sum(report.explained_variance_ratio)
        values.append((f"{report.components:,}", "components", f"{percent(explained)} of the variance"))
    if report.images_per_second:
        values.append((f"{report.images_per_second:,.0f}", "images/s", "while the network ran"))
    return tiles(values)


def _variance(findings: Findings) -> str:
    report = findings.report
    ratios = report.explained_variance_ratio
    if not ratios:
        return ""
    scree = Line(
        list(enumerate(ratios[:SCREE], 1)),
        "Scree plot: variance of each component",
        "component",
        "variance",
        lambda value: f"{value * 100:.3g} %",
    )
    total = list(enumerate(accumulate(ratios), 1))
    step = -(-len(total) // 200)
    shares = [float(share) for share in report.components_reaching]
    cumulative = Line(
        [*total[:-1:step], total[-1]],
        "Cumulative variance of the first components",
        "components",
        "cumulative variance",
        lambda value: f"{value * 100:.3g} %",
        top=1.0,
        marks=shares,
    )
    rows = [
        [percent(float(share), 0), f"{count:,}", "yes" if count <= report.components else "no"]
        for share, count in report.components_reaching.items()
    ]
    return (
        f'<h2>Explained variance</h2><div class="charts"><figure>{line_chart(scree)}<figcaption>Scree plot: the '
        f"first {min(SCREE, len(ratios))} components.</figcaption></figure><figure>{line_chart(cumulative)}"
        "<figcaption>Cumulative variance of the components that were kept; dashed, "
        f"{', '.join(percent(share, 0) for share in shares)}.</figcaption></figure><div>"
        f"{table(['variance to reach', 'components needed', 'kept'], rows)}</div></div>"
    )


def _vectors(findings: Findings) -> Iterator[str]:
    vectors = findings.vectors
    if vectors is None or findings.neighbours is None:
        yield NO_VECTORS
        return
    rows, components = vectors.scores.shape
    yield (
        f'<h2>Map</h2><p class="soft">Examined here and in the next two sections: {rows:,} of '
        f"{findings.report.rows:,} rows, in {vectors.parts:,} of {vectors.of:,} parts"
        f"{'' if vectors.parts == vectors.of else ' chosen by hash'}; the first "
        f"{counted(components, 'principal component')}.</p>"
    )
    if findings.pca is not None:
        yield _map(findings, vectors, findings.pca, "PC1 (to the right) and PC2 (upwards)")
    if findings.tsne is not None:
        yield "<h3>t-SNE</h3>" + _map(findings, vectors, findings.tsne, "t-SNE of the first principal components")
    elif findings.pca is not None:
        yield f'<p class="soft">{TSNE_HINT}</p>'
    yield _duplicates(findings, vectors)
    yield _outliers(findings, vectors)


def _map(findings: Findings, vectors: Vectors, found: PointMap, title: str) -> str:
    numbers = found.rows.tolist()
    pictures = {
        number: picture
        for number in found.pictured
        if (picture := findings.pictures.get(vectors.paths[numbers[number]])) is not None
    }
    labels = [_label(vectors.labels[row]) for row in numbers]
    return (
        f"<figure>{point_map(found.places, labels, pictures, title)}<figcaption>{title} of {len(numbers):,} images"
        f"{'' if len(numbers) == len(vectors.paths) else ' chosen by hash'}, {len(pictures):,} of them as pictures. "
        "Labels are tooltips.</figcaption></figure>"
    )


def _duplicates(findings: Findings, vectors: Vectors) -> str:
    found = findings.neighbours
    assert found is not None
    rows = [
        [
            kind,
            f"{np.count_nonzero(np.bincount(found.pairs[numbers].ravel())):,}",
            f"{len(numbers):,}",
            f"{int((found.distances[numbers] < SAME).sum()):,}",
        ]
        for kind, numbers in zip(("within a label", "across labels"), found.split(vectors.labels), strict=True)
    ]
    return (
        f"<h2>Near-duplicates</h2><p>Pairs of images whose distance is at most {percent(NEAR, 0)} of the typical one. "
        "Across labels, one of them may have the wrong label; within a label, they add little to a training. "
        '<span class="soft">Pairs are found by hashing, not by comparing all: almost all close pairs, unless there '
        "are many of one image.</span></p>"
        + table(["pairs", "images in them", "pairs", "with equal features"], rows)
        + _pairs(findings, vectors, "Closest across labels", findings.across)
        + _pairs(findings, vectors, "Closest within a label", findings.within)
    )


def _pairs(findings: Findings, vectors: Vectors, title: str, numbers: Iterable[int]) -> str:
    assert findings.neighbours is not None
    rows = []
    for number in numbers:
        left, right = findings.neighbours.pairs[number].tolist()
        paths = vectors.paths[left], vectors.paths[right]
        rows.append(
            [
                "<br>".join(_named(path, vectors.labels[row]) for path, row in zip(paths, (left, right), strict=True)),
                percent(float(findings.neighbours.distances[number])),
                pair(*(findings.pictures.get(path) for path in paths)),
            ]
        )
    return f"<h3>{title}</h3>" + table(["images", "distance", "pictures"], rows) if rows else ""


def _outliers(findings: Findings, vectors: Vectors) -> str:
    rows = [
        [
            _named(vectors.paths[each.row], vectors.labels[each.row]),
            f"{each.ratio:.2f}",
            pair(findings.pictures.get(vectors.paths[each.row])),
        ]
        for each in findings.outliers
    ]
    return (
        "<h2>Outliers</h2><p>Images far from the mean of their label, in median distances of that label's images; at "
        "most two of a label, of labels with five images or more.</p>"
        + (table(["image", "distance", "picture"], rows) if rows else "<p>None.</p>")
    )


def _rejects(findings: Findings) -> str:
    report, found = findings.report, findings.rejects
    if not report.rejects:
        return "<h2>Rejected images</h2><p>None.</p>"
    rows = []
    for reason, count in sorted(report.rejects.items(), key=lambda item: (-item[1], item[0])):
        examples = found.examples.get(reason, ())
        lines = "<br>".join(
            f"{text(path)}<br><span class='soft'>{text(detail)}</span>" for path, _, _, detail in examples
        )
        pictures = pair(*(findings.pictures.get(path) for path, *_ in examples))
        rows.append([text(reason), f"{count:,}", f'<div class="left">{lines}{pictures}</div>'])
    some = f" Examples are from {found.parts:,} of {found.of:,} parts with rejects." if found.parts < found.of else ""
    header = ["reason", "images", '<div class="left">examples</div>']
    return (
        f"<h2>Rejected images</h2><p>Of each reason, up to five examples; a picture where the file can be decoded now."
        f"{some} <code>rejects/</code> in the output lists all.</p>{table(header, rows)}"
    )


def settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings in an identity by dotted name, as text; those that are not set are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from settings(value, f"{prefix}{name}.")
        elif value is not None and name != "schema":
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _named(path: str, label: str | None) -> str:
    own = posixpath.basename(posixpath.dirname(path))
    shown = "" if label == own else f" <span class='soft'>{text(_label(label))}</span>"
    return f"{text(path) or '(no path)'}{shown}"


def _label(label: str | None) -> str:
    return label or "(no label)"

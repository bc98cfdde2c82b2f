"""The findings of a run report: everything that its page shows, from the stored files of a finished job."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from fruits.errors import SettingsError
from fruits.images.sources.entries import ImageEntry
from fruits.images.sources.folder import FolderSource
from fruits.jobs.report import Report
from fruits.jobs.reporting.counts import MOST_PAGES, LabelCounts, RejectExamples, count_labels, reject_examples
from fruits.jobs.reporting.neighbours import Neighbours, Outlier, find_neighbours, find_outliers
from fruits.jobs.reporting.vectors import Vectors, feature_job, read_vectors
from fruits.jobs.stored import StoredJob
from fruits.jobs.tasks.thumbnails import picture_source, read_pictures
from fruits.pages.charts import pictured
from fruits.storage.prefetch import UNKNOWN_SIZE

MAP_POINTS = 2000
TSNE_POINTS = 1500  # 5 s
TSNE_COMPONENTS = 50  # as its authors advise
SHOWN_PAIRS = 10  # within labels, and across
SHOWN_OUTLIERS = 20
SIDE = 72  # pixels of a picture: 1 to 3 kB each, at most some 260 on a page
PICTURE_SECONDS = 8.0  # for all pictures: large photos take 30 ms each, and a store may be slow
DECODED_NOW = ("unreadable", "changed", "non-finite")  # reasons of rejects whose bytes may be an image after all

Float = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class PointMap:
    """A map of some rows: their numbers, their places, shape (n, 2), and those that get a picture."""

    rows: npt.NDArray[np.int64]
    places: Float
    pictured: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """The content of a run report.

    Attributes
    ----------
    report : Report
    job : mapping of str to object
        The identity of the job.
    labels : LabelCounts
    rejects : RejectExamples
    vectors : Vectors or None
        None if the output stores neither features nor principal components.
    neighbours : Neighbours or None
    within, across : sequence of int
        The pairs to show, of one label and of two, by their number in `neighbours`.
    outliers : sequence of Outlier
    pca, tsne : PointMap or None
    pictures : mapping of str to bytes
        JPEGs by path.
    """

    report: Report
    job: Mapping[str, Any]
    labels: LabelCounts
    rejects: RejectExamples
    vectors: Vectors | None
    neighbours: Neighbours | None
    within: Sequence[int]
    across: Sequence[int]
    outliers: Sequence[Outlier]
    pca: PointMap | None
    tsne: PointMap | None
    pictures: Mapping[str, bytes]


def examine(job: StoredJob, report: Report, *, tsne: bool = False) -> Findings:
    """Return the findings of a finished job.

    Parameters
    ----------
    job : StoredJob
    report : Report
    tsne : bool, default False
        Add a map by t-SNE, which needs scikit-learn.
    """
    origin = feature_job(job)
    vectors = read_vectors(job, origin)
    rejects = reject_examples(job, origin)
    neighbours, within, across, outliers, pca, by_tsne = None, [], [], [], None, None
    if vectors is not None:
        neighbours = find_neighbours(vectors.scores)
        within, across = (
            neighbours.closest(numbers, vectors.labels, SHOWN_PAIRS) for numbers in neighbours.split(vectors.labels)
        )
        outliers = find_outliers(vectors.scores, vectors.labels, SHOWN_OUTLIERS)
        pca = _pca_map(vectors)
        by_tsne = _tsne_map(vectors) if tsne else None
    paths: list[str] = []
    if vectors is not None and neighbours is not None:
        rows = [row for number in (*across, *within) for row in neighbours.pairs[number].tolist()]
        rows += [each.row for each in outliers]
        for each in (pca, by_tsne):
            rows += [] if each is None else each.rows[list(each.pictured)].tolist()
        paths += [vectors.paths[row] for row in rows]
    paths += [path for reason in DECODED_NOW for path, *_ in rejects.examples.get(reason, ())]
    return Findings(
        report=report,
        job=job.commit.job,
        labels=count_labels(job),
        rejects=rejects,
        vectors=vectors,
        neighbours=neighbours,
        within=within,
        across=across,
        outliers=outliers,
        pca=pca,
        tsne=by_tsne,
        pictures=_pictures(origin or job, paths),
    )


def _pca_map(vectors: Vectors) -> PointMap | None:
    if vectors.scores.shape[1] < 2:
        return None
    rows = vectors.by_hash(MAP_POINTS)
    places = vectors.scores[rows, :2]
    return PointMap(rows, places, pictured(places))


def _tsne_map(vectors: Vectors) -> PointMap | None:
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise SettingsError(
            "`tsne`: scikit-learn is not installed. Install it with: pip install 'fruits[report]'."
        ) from error
    rows = vectors.by_hash(TSNE_POINTS)
    if len(rows) < 4 or vectors.scores.shape[1] < 2:
        return None
    scores = vectors.scores[rows, :TSNE_COMPONENTS]
    perplexity = min(30.0, (len(rows) - 1) / 3)
    with threadpool_limits(1):  # its threads wait for each other, for minutes where the machine is busy
        places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scores)
    return PointMap(rows, places, pictured(places))


def _pictures(job: StoredJob, paths: Iterable[str]) -> dict[str, bytes]:
    """Return pictures by path, in the order of the paths, until time is up; images that are gone are left out."""
    if "images" not in job.commit.job:
        return {}
    source = picture_source(job.commit.job)
    if source is None:
        return {}
    wanted = [path for path in dict.fromkeys(paths) if path]
    if len(job.plan.pages) <= MOST_PAGES:
        known = job.entries(wanted)
        entries = [known[path] for path in wanted if path in known]
    elif isinstance(source, FolderSource):  # reading a long list takes minutes; in a folder the path is enough
        entries = [ImageEntry(path, UNKNOWN_SIZE) for path in wanted]
    else:
        return {}
    found: dict[str, bytes] = {}
    end = time.monotonic() + PICTURE_SECONDS
    for entry, picture in zip(entries, read_pictures(source, entries, SIDE), strict=False):
        if picture is not None:
            found[entry.path] = picture
        if time.monotonic() > end:
            break
    return found

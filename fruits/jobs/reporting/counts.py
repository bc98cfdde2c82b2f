"""Images per label, and rejected images, of a finished job: read from a bounded number of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fruits.jobs.reporting.vectors import by_hash
from fruits.jobs.stored import StoredJob
from fruits.jobs.tasks.rejects import Reject, read_rejects
from fruits.plan.pages import PAGE, decode_images
from fruits.storage.checksums import read_part
from fruits.storage.prefetch import UNKNOWN_SIZE
from fruits.text import name_text

MOST_PAGES = 16  # of the list of images: a million images
MOST_PARTS = 64  # with rejects
PER_REASON = 5


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Images by label.

    Attributes
    ----------
    counts : mapping of str to int
        An empty text is the label of images without one.
    note : str
        What was counted.
    """

    counts: Mapping[str, int]
    note: str


def count_labels(job: StoredJob) -> LabelCounts:
    """Return the images by label: of the list up to a million, else of the moments, else of a sample of the list."""
    images = job.plan.images
    pages = range(len(job.plan.pages))
    if len(pages) > MOST_PAGES:
        moments = job.moments()
        if moments is not None and len(moments.classes) > 1:
            return LabelCounts({label or "": part.count for label, part in moments.classes.items()}, "usable images")
    counts: Counter[str] = Counter()
    counted = 0
    for page in sorted(by_hash(pages, str)[:MOST_PAGES]):
        start, count = page * PAGE, min(PAGE, images - page * PAGE)
        ((name, known),) = job.page_checksums(start, count)
        content = read_part(job.owned.folder, name, known)
        for entry in decode_images([content], start, count):
            label = entry.label
            counts.update(label if isinstance(label, tuple) else (label or "",))
        counted += count
    counts = Counter({name_text(label): count for label, count in counts.items()})
    if counted == images:
        return LabelCounts(counts, "listed images")
    return LabelCounts(
        counts, f"{counted:,} of the {images:,} listed images, on {MOST_PAGES} pages of the list chosen by hash"
    )


@dataclass(frozen=True, slots=True)
class RejectExamples:
    """Rejected images by reason, a few of each, from some of the parts that have any."""

    examples: Mapping[str, tuple[Reject, ...]]
    parts: int
    of: int


def reject_examples(job: StoredJob, origin: StoredJob | None) -> RejectExamples:
    """Return examples of the rejects of a job, which the job `origin` stores; without it, there are none."""
    accounts = job.accounts()
    partitions = [each for each in job.plan.partitions if each.index in accounts and accounts[each.index].rejects]
    if origin is None:
        return RejectExamples({}, 0, len(partitions))
    stored = {each.index: each for each in origin.plan.partitions}
    chosen = by_hash(partitions, lambda each: str(each.index))[:MOST_PARTS]
    names = [origin.rejects_name(stored[each.index]) for each in chosen]
    found: dict[str, list[Reject]] = {}
    for content in origin.owned.folder.fetch((name, UNKNOWN_SIZE, "") for name in names):
        if isinstance(content, OSError):
            raise content
        for reject in read_rejects(content):
            found.setdefault(reject[2], []).append(reject)
    examples = {
        reason: tuple(by_hash(rejects, lambda reject: reject[0])[:PER_REASON])
        for reason, rejects in sorted(found.items())
    }
    return RejectExamples(examples, len(chosen), len(partitions))

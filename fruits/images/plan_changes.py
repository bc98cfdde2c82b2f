"""Differences between a stored plan and the current listing: images added, removed or replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fruits.images.listing import ImageEntry
from fruits.images.plan import Plan, read_partition
from fruits.storage.folder import Folder

__all__ = ["changes"]

EXAMPLES = 3  # images named for each kind of change


def changes(stored: Folder, owner: str, plan: Plan, entries: Iterable[ImageEntry]) -> str:
    """Return the differences as text: ``2 replaced (a/1.jpg, a/7.jpg), 1 added (b.jpg)``.

    Both are streamed once, in the order of their paths, so memory does not grow with the number of images.

    Raises
    ------
    DamageError
        The stored plan cannot be read.
    """
    examples: dict[str, list[str]] = {"replaced": [], "added": [], "removed": []}
    counts = dict.fromkeys(examples, 0)
    planned = (entry for partition in plan.partitions() for entry in read_partition(stored, partition, owner))
    for before, now in _side_by_side(planned, iter(entries)):
        if before == now:
            continue
        kind = "added" if before is None else "removed" if now is None else "replaced"
        counts[kind] += 1
        if counts[kind] <= EXAMPLES:
            examples[kind].append((before or now).path)  # type: ignore[union-attr]  # one of them is not None
    return ", ".join(
        f"{count:,} {kind} ({', '.join(examples[kind])}{', …' * (count > EXAMPLES)})"
        for kind, count in counts.items()
        if count
    )


def _side_by_side(
    left: Iterator[ImageEntry], right: Iterator[ImageEntry]
) -> Iterator[tuple[ImageEntry | None, ImageEntry | None]]:
    """Merge two ordered listings: yield pairs of equal paths, with None for a path in one listing only."""
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one.path < two.path):
            yield one, None
            one = next(left, None)
        elif one is None or two.path < one.path:
            yield None, two
            two = next(right, None)
        else:
            yield one, two
            one, two = next(left, None), next(right, None)

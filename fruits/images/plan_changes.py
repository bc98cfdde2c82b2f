"""What has become of the images since their plan was stored: which were added, removed, or written again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fruits.images.listing import ImageEntry
from fruits.images.plan import Plan, read_partition
from fruits.storage.folder import Folder

__all__ = ["changes"]

SHOWN = 3  # images of each kind


def changes(stored: Folder, plan: Plan, entries: Iterable[ImageEntry]) -> str:
    """Return how a listing differs from a stored plan, in words: ``2 replaced (a/1.jpg, a/7.jpg), 1 added (b.jpg)``.

    Both are gone through once, in the order of their paths, and neither is held.

    Raises
    ------
    DamageError
        The stored plan cannot be read.
    """
    found: dict[str, list[str]] = {"replaced": [], "added": [], "removed": []}
    counts = dict.fromkeys(found, 0)
    planned = (entry for partition in plan.partitions() for entry in read_partition(stored, partition))
    for before, now in _side_by_side(planned, iter(entries)):
        if before == now:
            continue
        kind = "added" if before is None else "removed" if now is None else "replaced"
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            found[kind].append((before or now).path)  # type: ignore[union-attr]  # one of them is there
    return ", ".join(
        f"{count:,} {kind} ({', '.join(found[kind])}{', …' * (count > SHOWN)})"
        for kind, count in counts.items()
        if count
    )


def _side_by_side(
    left: Iterator[ImageEntry], right: Iterator[ImageEntry]
) -> Iterator[tuple[ImageEntry | None, ImageEntry | None]]:
    """Yield the entries of two ordered listings, those of one path together."""
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

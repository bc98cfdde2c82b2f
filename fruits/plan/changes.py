"""The differences between a stored list of images and a new one, and the partitions that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fruits.images.sources.entries import ImageEntry
from fruits.plan.partitions import MOST_BYTES, Partition, Plan, Stored
from fruits.text import counted, name_bytes

EXAMPLES = 3  # images named for each kind of change
FULL = 1.5  # times the partition size: a partition that exceeds this is split

Pair = tuple[ImageEntry | None, ImageEntry | None]


def describe_changes(stored: Iterable[ImageEntry], current: Iterable[ImageEntry]) -> str:
    """Return the differences of two ordered listings as text: ``2 replaced (a/1.jpg, a/7.jpg), 1 added (b.jpg)``.

    Both are streamed once, so memory does not grow with the number of images.
    """
    examples: dict[str, list[str]] = {"replaced": [], "added": [], "removed": []}
    counts = dict.fromkeys(examples, 0)
    for before, now in _side_by_side(iter(stored), iter(current)):
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


@dataclass(slots=True)
class Changes:
    """The number of images that differ between two lists."""

    added: int = 0
    changed: int = 0
    deleted: int = 0

    def describe(self, partitions: Sequence[Partition]) -> str:
        """Return the numbers, and that of the partitions that stay, as text."""
        kept = sum(bool(partition.owner) for partition in partitions)
        return (
            f"{counted(self.added, 'image')} added, {self.changed:,} changed, {self.deleted:,} deleted since the "
            f"stored features were computed; {kept:,} of {len(partitions):,} partitions stay as they are"
        )


def is_unchanged(before: ImageEntry, now: ImageEntry) -> bool:
    """Return whether an image has the same content in two lists; False if its version is unknown."""
    return before == now and now.version != ""


@dataclass(slots=True)
class _Piece:
    """A partition under construction: a slice of the new list, and the slice of the stored list that it replaces."""

    partition: Partition
    start: int
    stored_start: int
    images: int = 0
    stored_images: int = 0
    touched: bool = False
    read: int = 0  # bytes of added and changed images

    @property
    def is_whole(self) -> bool:
        """True if it consists of the images of its partition, and no other, and none of them has changed."""
        return self.images == self.stored_images == self.partition.images and not self.touched


def updated_partitions(
    plan: Plan,
    owner: str,
    stored: Iterable[ImageEntry],
    current: Iterable[ImageEntry],
    is_finished: Callable[[Partition], bool],
    retried: Collection[int] = frozenset(),
) -> tuple[tuple[Partition, ...], Changes]:
    """Return the partitions of a new list that keep as many stored features as possible.

    A partition without changes keeps its stored parts. Another one keeps its number and its place in the order of the
    paths, takes in the images added there, and is split where it exceeds one and a half times the partition size, or
    where the images to read exceed 1 GiB.

    Parameters
    ----------
    plan : Plan
        The stored plan.
    owner : str
        The owner of the job of that plan.
    stored, current : iterable of ImageEntry
        The stored and the new list, ordered by path; each is streamed once.
    is_finished : callable
        Returns whether the features of a partition of the stored plan can be used again.
    retried : collection of int
        The numbers of partitions whose rejects are tried again: only their rows stay.
    """
    pieces: list[_Piece] = []
    changes = Changes()
    remaining = iter(plan.partitions)
    place = stored_place = 0
    piece = _Piece(next(remaining), 0, 0)
    end = piece.partition.images

    def close(next_partition: Partition) -> _Piece:
        pieces.append(piece)
        return _Piece(next_partition, place, stored_place)

    for before, now in _side_by_side(iter(stored), iter(current)):
        if before is not None:
            while stored_place == end:
                partition = next(remaining)
                piece = close(partition)
                end += partition.images
        if now is not None and (piece.images >= FULL * plan.partition_size or piece.read >= MOST_BYTES):
            piece = close(piece.partition)
        if before is not None:
            stored_place += 1
            piece.stored_images += 1
        if now is not None:
            place += 1
            piece.images += 1
        if before is None:
            changes.added += 1
        elif now is None:
            changes.deleted += 1
        elif not is_unchanged(before, now):
            changes.changed += 1
        else:
            continue
        piece.touched = True
        piece.read += max(now.size, 0) if now is not None else 0
    pieces.append(piece)
    unused = max(each.index for each in plan.partitions) + 1
    adopted = {
        piece.partition.index
        for piece in pieces
        if piece.is_whole and piece.partition.index not in retried and is_finished(piece.partition)
    }
    used = set(adopted)
    partitions = []
    for piece in pieces:
        base = piece.partition
        source = base.owner or owner
        if piece.is_whole and base.index in adopted:
            partitions.append(Partition(base.index, piece.start, piece.images, source, base.rows_owner))
            continue
        index = base.index if base.index not in used else unused
        unused += index == unused
        used.add(index)
        if piece.images or (piece.stored_images and is_finished(base)):
            kept = Stored(base.index, piece.stored_start, piece.stored_images, source) if is_finished(base) else None
            partitions.append(Partition(index, piece.start, piece.images, stored=kept))
    return tuple(partitions), changes


def _side_by_side(left: Iterator[ImageEntry], right: Iterator[ImageEntry]) -> Iterator[Pair]:
    """Merge two ordered listings: yield pairs of equal paths, with None for a path in one listing only."""
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and name_bytes(one.path) < name_bytes(two.path)):
            yield one, None
            one = next(left, None)
        elif one is None or one.path != two.path:
            yield None, two
            two = next(right, None)
        else:
            yield one, two
            one, two = next(left, None), next(right, None)

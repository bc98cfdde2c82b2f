"""Reading of images inside large files: neighbours are read by one request.

Images are requested in the order of their paths, which is the order of their bytes where ``fruits pack`` wrote the
files, and any other elsewhere. So some images at a time are sorted by their places, read, and returned in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fruits.storage.folder import Folder
from fruits.storage.prefetch import AHEAD, Range

CHUNK = 2**24  # bytes of images that are sorted by place
LONGEST = 2**23  # bytes of a request for several images
GAP = 2**16  # bytes between two images that are read with them


@dataclass(slots=True)
class _Run:
    """Images that one request reads: their numbers in the chunk."""

    range: Range
    images: list[int]


@dataclass(slots=True)
class _Chunk:
    """Some images in their order, and what is known of them."""

    places: list[Range]
    runs: deque[_Run] = field(default_factory=deque)
    found: dict[int, bytes | OSError] = field(default_factory=dict)

    def contents(self) -> Iterator[bytes | OSError]:
        return (self.found.get(index, b"") for index in range(len(self.places)))  # an empty image is not requested


def read_places(folder: Folder, places: Iterable[Range], *, ahead: int = AHEAD) -> Iterator[bytes | OSError]:
    """Yield the content of each image, or the error of its request, in order.

    At most 16 MiB of images are held, besides the 64 MiB that :meth:`fruits.storage.folder.Folder.fetch_ranges`
    prefetches on object stores.

    Parameters
    ----------
    folder : Folder
        The files are below it.
    places : iterable of Range
        Consumed no further than needed.
    ahead : int, default 32
        The largest number of requests at once.
    """
    planned: deque[_Chunk] = deque()

    def ranges() -> Iterator[Range]:
        for chunk in _chunks(places):
            planned.append(chunk)
            yield from [run.range for run in chunk.runs]

    for content in folder.fetch_ranges(ranges(), ahead=ahead):
        while not planned[0].runs:  # only empty images
            yield from planned.popleft().contents()
        chunk = planned[0]
        run = chunk.runs.popleft()
        for index in run.images:
            place = chunk.places[index]
            begin = place.start - run.range.start
            chunk.found[index] = content if isinstance(content, OSError) else content[begin : begin + place.size]
        del content
        if not chunk.runs:
            planned.popleft()
            yield from chunk.contents()
    for chunk in planned:
        yield from chunk.contents()


def _chunks(places: Iterable[Range]) -> Iterator[_Chunk]:
    chunk, held = _Chunk([]), 0
    for place in places:
        if chunk.places and held + place.size > CHUNK:
            yield _planned(chunk)
            chunk, held = _Chunk([]), 0
        chunk.places.append(place)
        held += place.size
    if chunk.places:
        yield _planned(chunk)


def _planned(chunk: _Chunk) -> _Chunk:
    """Add the requests for the images of a chunk."""
    for index in sorted(range(len(chunk.places)), key=chunk.places.__getitem__):
        file, start, size, version = chunk.places[index]
        if not size:
            continue
        last = chunk.runs[-1] if chunk.runs else None
        if last is not None and (last.range.path, last.range.version) == (file, version):
            end = last.range.start + last.range.size
            if start - end <= GAP and start + size - last.range.start <= LONGEST:
                last.range = last.range._replace(size=max(end, start + size) - last.range.start)
                last.images.append(index)
                continue
        chunk.runs.append(_Run(Range(file, start, size, version), [index]))
    return chunk

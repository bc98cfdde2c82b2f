"""Stratified samples: of each label its share of the images, chosen by a hash of the path."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush, heappushpop, heapreplace
from typing import Protocol, TypeVar

from fruits.text import name_bytes


class _Labelled(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def label(self) -> str | tuple[str, ...] | None: ...


Image = TypeVar("Image", bound=_Labelled)


def stratified(images: Callable[[], Iterable[Image]], count: int, seed: int) -> list[Image]:
    """Return `count` images, of each label its share, in the order of the listing.

    The images of a label are chosen by a hash of `seed` and the path: the same images give the same sample in every
    process, and a larger sample contains the smaller one. The memory needed grows with the sample and the number of
    labels, not with the number of images.

    Parameters
    ----------
    images : callable
        Lists the images. It is called twice: to count those of each label, and to choose.
    count : int
        The size of the sample; all images if there are fewer.
    seed : int
        Another seed gives another sample.
    """
    shares = _shares(Counter(_stratum(image) for image in images()), count, seed)
    chosen: dict[str, list[tuple[int, Image]]] = {label: [] for label in shares}
    for image in images():
        label = _stratum(image)
        heap = chosen.get(label, [])  # a label that is new since the first iteration has no share
        item = (-_hash(image.path, seed), image)
        if len(heap) < shares.get(label, 0):
            heappush(heap, item)
        elif heap:
            heappushpop(heap, item)
    return sorted((image for heap in chosen.values() for _, image in heap), key=lambda image: name_bytes(image.path))


def _shares(images: Mapping[str, int], count: int, seed: int) -> dict[str, int]:
    """Return the number of images to take of each label: one, and the others in proportion (Webster's method)."""
    shares = dict.fromkeys(images, 0)
    queue = [(0.0, _hash(label, seed), label) for label in images]
    heapify(queue)
    for _ in range(min(count, sum(images.values()))):
        _, order, label = queue[0]
        shares[label] += 1
        if shares[label] < images[label]:
            heapreplace(queue, ((shares[label] + 0.5) / images[label], order, label))
        else:
            heappop(queue)
    return shares


def _stratum(image: _Labelled) -> str:
    """Return the label of an image, empty for none; images with the same list of labels count as of one label."""
    return "\0".join(image.label) if isinstance(image.label, tuple) else image.label or ""


def _hash(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(name_bytes(f"{seed}/{text}")).digest())

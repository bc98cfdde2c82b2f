"""The bound on the memory of files that are read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import fsspec.asyn
import pytest

from fruits.storage import prefetch
from fruits.storage.prefetch import UNKNOWN_SIZE, File, read_ahead

BOUND = 1000


@pytest.mark.parametrize(
    ("sizes", "at_once"),
    [
        ([50] * 40, 20),
        ([10] * 300, 32),  # the bound on requests
        ([300] * 20, 3),
        ([900] * 6, 1),
        ([2500] * 4, 1),  # larger than the bound: one by one
        ([100, 100, 850, 100, 2500, 10, 10, 990, 20], 2),
    ],
    ids=["small", "tiny", "photos", "large", "too large", "mixed"],
)
def test_files_that_are_requested_or_waiting_take_no_more_than_the_bound(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], at_once: int
) -> None:
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", BOUND)
    waiting: list[int] = []
    most = 0
    full = asyncio.Event()

    async def read(place: str) -> tuple[bytes, str]:
        nonlocal most
        size = sizes[int(place)]
        waiting.append(size)
        assert sum(waiting) <= max(BOUND, size)
        most = max(most, len(waiting))
        if most >= at_once:
            full.set()
        await asyncio.wait_for(full.wait(), 60)  # all requests of a window have been sent
        return bytes(size), ""

    files = ((str(number), size, "") for number, size in enumerate(sizes))
    for size, content in zip(sizes, read_ahead(read, files, loop=fsspec.asyn.get_loop(), ahead=32), strict=True):
        assert isinstance(content, bytes), content
        assert len(content) == size
        waiting.remove(size)
    assert most == at_once


@pytest.mark.parametrize(("size", "at_once"), [(1, 6), (20, 3), (40, 1)])
def test_files_of_unknown_size_count_as_the_last_ones(monkeypatch: pytest.MonkeyPatch, size: int, at_once: int) -> None:
    monkeypatch.setattr(prefetch, "ASSUMED_BYTES", 10)
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 60)
    taken, ahead = [], []

    async def read(place: str) -> tuple[bytes, str]:
        return bytes(size), ""

    def files() -> Iterator[File]:
        for number in range(20):
            taken.append(number)
            yield str(number), UNKNOWN_SIZE, ""

    for number, content in enumerate(read_ahead(read, files(), loop=fsspec.asyn.get_loop(), ahead=32)):
        assert content == bytes(size)
        ahead.append(len(taken) - 1 - number)  # one more is taken than is requested
    assert len(ahead) == 20
    assert ahead[0] == 1
    assert max(ahead) == at_once

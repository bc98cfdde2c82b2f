"""A fixture of jobs on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import backends
from fruits.executor import Executor


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[..., Executor]]:
    """Return a function that opens an executor, or returns the open one of that backend and number of workers."""
    found: dict[str, tuple[int, Executor]] = {}

    def executor(name: str, workers: int | None = None) -> Executor:
        if name in found and workers not in (None, found[name][0]):
            found.pop(name)[1].close()  # Spark allows one session in a process
        if name not in found:
            found[name] = workers or 2, backends.load(name)(workers=workers or 2)
        return found[name][1]

    yield executor
    for _, each in found.values():
        each.close()

"""Fixtures: images of drawn fruit, a small recogniser, and a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fruits.recogniser.files import StoredRecogniser
from tests.recognisers import drawn_fruit, small_recogniser, write
from tests.unit.serving.running import Running, run_server


@pytest.fixture(scope="session")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Return images of drawn fruit by label."""
    return drawn_fruit(tmp_path_factory.mktemp("drawn") / "fruit")


@pytest.fixture(scope="session")
def stored(fruit: dict[str, list[Path]]) -> StoredRecogniser:
    """Return a recogniser of the drawn fruit."""
    return small_recogniser(fruit)


@pytest.fixture(scope="session")
def folder(stored: StoredRecogniser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the recogniser; do not change it."""
    return write(stored, tmp_path_factory.mktemp("recogniser"))


@pytest.fixture(scope="module")  # its child processes must not be found by the tests of another module
def running(folder: Path) -> Iterator[Running]:
    """Return a server without a token."""
    with run_server(folder) as running:
        yield running


@pytest.fixture
def banana(fruit: dict[str, list[Path]]) -> bytes:
    """Return an image of a banana."""
    return fruit["Banana"][0].read_bytes()

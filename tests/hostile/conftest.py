"""What these tests share: examples that are the same in every run, a command in this process, and watched FIFOs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from fruits.cli import main as cli
from fruits.storage.s3.settings import ENDPOINT_VARIABLE

LONG = "FRUITS_LONG" in os.environ  # as `make test-hostile` sets it: every length, every bomb, more of all else
EXAMPLES = settings(
    max_examples=2_000 if LONG else 60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
PATIENCE = 0.4  # seconds, after which what still waits for a FIFO hangs


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """Whether it said in words of its own what is wrong, and ended as bad input or a failed job does."""
        return self.code in (1, 2) and bool(self.err.strip()) and self.foreseen

    @property
    def foreseen(self) -> bool:
        return "Traceback" not in self.err and "Unexpected error" not in self.err


Fruits = Callable[..., Ended]


@pytest.fixture
def fruits(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fruits:
    """Return a function that runs a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:9")  # an option writes there

    def run(*words: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capfd.readouterr())

    return run


@contextmanager
def watched(fifo: Path) -> Iterator[list[str]]:
    """Give a list that names the FIFO once something has hung on it; what hangs is set free, so that the test ends."""
    hung: list[str] = []
    done = threading.Event()

    def watch() -> None:
        waited = PATIENCE
        while not done.wait(waited):
            try:
                writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # possible only where somebody reads
            except OSError:
                waited = 0.05
            else:
                hung.append(fifo.name)
                os.close(writer)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield hung
    finally:
        done.set()
        thread.join()

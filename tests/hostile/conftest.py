"""Shared fixtures: reproducible examples, commands run in this process, and watched FIFOs."""

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
from tests.conftest import LONG

EXAMPLES = settings(
    max_examples=2_000 if LONG else 60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
HANG_SECONDS = 10  # a reader that waits longer for a FIFO hangs; only then does a test take so long


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """True for exit code 1 or 2 with a message that is not a traceback or an unexpected error."""
        return self.code in (1, 2) and bool(self.err.strip()) and self.expected

    @property
    def expected(self) -> bool:
        """True if the output has neither a traceback nor an unexpected error."""
        return "Traceback" not in self.err and "Unexpected error" not in self.err


Fruits = Callable[..., Ended]


@pytest.fixture
def fruits(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fruits:
    """Return a function that runs a command in this process, in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:9")  # restored after the test; --s3-endpoint sets it

    def run(*argv: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in argv])
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capfd.readouterr())

    return run


@contextmanager
def watched(fifo: Path) -> Iterator[list[str]]:
    """Yield a list that receives the name of the FIFO if a reader hangs on it; then release the reader."""
    hung: list[str] = []
    done = threading.Event()

    def watch() -> None:
        waited = HANG_SECONDS
        while not done.wait(waited):
            try:
                writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # fails unless a reader has opened it
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

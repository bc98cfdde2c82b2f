"""What a piece of work takes, measured from outside of the tests' own process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
CEILING = 8 * 2**30  # of addresses: a test that finds a bomb must not bring the machine down


class Taken(NamedTuple):
    """What one call took: seconds, the highest memory of the process in bytes, and what came of it."""

    seconds: float
    memory: int
    answer: str


def call(function: Callable[[], object]) -> Taken:
    """Return what a call took, in this process; what it raises is its answer."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory is counted from here
    start = time.perf_counter()
    try:
        answer = repr(function())
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().split()
    return Taken(seconds, int(status[status.index("VmHWM:") + 1]) * 1024, answer[:300])


def apart(module: str, *arguments: object, timeout: float = 60) -> dict[str, Taken]:
    """Run a module of these tests as a process, and return what it says each of its calls took."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    return {name: Taken(*taken) for name, taken in json.loads(done.stdout.splitlines()[-1]).items()}


def say(calls: Sequence[tuple[str, Callable[[], object]]]) -> None:
    """Make the calls one by one, and write what each took to stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (CEILING, CEILING))
    print(json.dumps({name: call(function) for name, function in calls}))

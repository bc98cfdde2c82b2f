"""Time and peak memory of calls, measured in a child process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESS_SPACE = 8 * 2**30  # bytes; a decompression bomb must not exhaust the machine


class Measurement(NamedTuple):
    """Seconds of CPU time, peak memory of the process in bytes, and the result of one call."""

    seconds: float
    memory: int
    result: str


def measure(function: Callable[[], object]) -> Measurement:
    """Measure a call in this process; an exception becomes the result."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory
    start = time.process_time()
    try:
        result = repr(function())
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text().split()
    return Measurement(seconds, int(status[status.index("VmHWM:") + 1]) * 1024, result[:300])


def run_module(module: str, *arguments: object, timeout: float = 300) -> dict[str, Measurement]:
    """Run a module of these tests as a child process, and return its measurements by name."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    return {name: Measurement(*values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}


def print_measurements(calls: Iterable[tuple[str, Callable[[], object]]]) -> None:
    """Run the calls one by one, and print their measurements as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    print(json.dumps({name: measure(function) for name, function in calls}))

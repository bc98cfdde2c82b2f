"""Run a command and measure the resources used by its whole process tree."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.2
GRACE_SECONDS = 10.0
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources used by a process tree, as in the fields of :class:`benchmarks.record.Record`."""

    exit_code: int | None  # None after a timeout
    wall: float
    cpu_seconds: float
    steal: float
    driver_peak: int
    worker_peak: int
    java_peak: int
    tree_peak: int


def watch(command: Sequence[str], *, env: Mapping[str, str], log: Path, timeout: float) -> Usage:
    """Run `command` in a new session and return the resources used by it and all its descendants.

    Peaks are the kernel's high-water marks (``VmHWM``), sampled five times a second. Processes that outlive the command
    are killed, so that they cannot disturb the next run.
    """
    _adopt_orphans()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    reaped_before, times_before = _reaped_seconds(), psutil.cpu_times()
    tree = _Tree()
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**env, "FRUITS_BENCH_STARTED": repr(start)},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() - start < timeout:
                tree.sample(process.pid, before)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_SECONDS)
            exit_code = process.poll()
            wall = time.monotonic() - start
        finally:
            _terminate(process, before)
    cpu_seconds = max(_reaped_seconds() - reaped_before, sum(tree.cpu.values()))
    others = {pid: peak for pid, peak in tree.peaks.items() if pid != process.pid}
    return Usage(
        exit_code=exit_code,
        wall=wall,
        cpu_seconds=cpu_seconds,
        steal=_steal(times_before),
        driver_peak=tree.peaks.get(process.pid, 0),
        worker_peak=max((peak for pid, peak in others.items() if pid not in tree.java), default=0),
        java_peak=max((peak for pid, peak in others.items() if pid in tree.java), default=0),
        tree_peak=tree.total_peak,
    )


class _Tree:
    """Peaks and CPU times of the processes of a run, collected by repeated sampling."""

    def __init__(self) -> None:
        self.peaks: dict[int, int] = {}
        self.cpu: dict[int, float] = {}
        self.java: set[int] = set()
        self.total_peak = 0

    def sample(self, root: int, before: set[int]) -> None:
        total = 0
        for process in psutil.Process().children(recursive=True):
            if process.pid in before:
                continue
            with suppress(psutil.Error, OSError), process.oneshot():
                times, resident = process.cpu_times(), process.memory_info().rss
                total += resident
                self.cpu[process.pid] = times.user + times.system
                peak = max(resident, _high_water(process.pid))
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0), peak)
                if process.pid != root and process.name() == "java":
                    self.java.add(process.pid)
        self.total_peak = max(self.total_peak, total)


def _high_water(pid: int) -> int:
    if sys.platform != "linux":
        return 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that they can be measured and killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reaped_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _steal(before: psutil._ntuples.scputimes) -> float:
    after = psutil.cpu_times()
    passed = sum(after) - sum(before)
    return (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / passed if passed else 0.0


def _terminate(process: subprocess.Popen[bytes], before: set[int]) -> None:
    """Terminate the remaining processes of a run and reap them."""
    remaining = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    _, remaining = psutil.wait_procs(remaining, timeout=GRACE_SECONDS if process.poll() is None else 2.0)
    for child in remaining:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(remaining, timeout=GRACE_SECONDS)
    process.wait()

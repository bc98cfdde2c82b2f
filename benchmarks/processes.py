"""Run a command in a process tree of its own, and tell what the whole tree used."""

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

__all__ = ["Usage", "watch"]

SAMPLE_SECONDS = 0.2
GRACE_SECONDS = 10.0
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes used; see the fields of the same names of :class:`benchmarks.record.Record`."""

    exit_code: int | None  # None: it took too long, and was ended
    wall: float
    cpu_seconds: float
    steal: float
    driver_peak: int
    worker_peak: int
    java_peak: int
    tree_peak: int


def watch(command: Sequence[str], *, env: Mapping[str, str], log: Path, timeout: float) -> Usage:
    """Run `command` in a session of its own until it ends, and return what it and all its descendants used.

    Peaks are those that the kernel keeps for each process (``VmHWM``), looked up five times a second. Processes that
    outlive the command are ended: nothing of one run is there during the next.
    """
    _adopt_orphans()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    used_before, times_before = _reaped_seconds(), psutil.cpu_times()
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
            _end(process, before)
    used = max(_reaped_seconds() - used_before, sum(tree.cpu.values()))
    peaks = tree.peaks
    others = {pid: peak for pid, peak in peaks.items() if pid != process.pid}
    return Usage(
        exit_code=exit_code,
        wall=wall,
        cpu_seconds=used,
        steal=_steal(times_before),
        driver_peak=peaks.get(process.pid, 0),
        worker_peak=max((peak for pid, peak in others.items() if pid not in tree.java), default=0),
        java_peak=max((peak for pid, peak in others.items() if pid in tree.java), default=0),
        tree_peak=tree.together,
    )


class _Tree:
    """What is known of the processes of a run, from looking at them again and again."""

    def __init__(self) -> None:
        self.peaks: dict[int, int] = {}
        self.cpu: dict[int, float] = {}
        self.java: set[int] = set()
        self.together = 0

    def sample(self, root: int, before: set[int]) -> None:
        together = 0
        for process in psutil.Process().children(recursive=True):
            if process.pid in before:
                continue
            with suppress(psutil.Error, OSError), process.oneshot():
                times, resident = process.cpu_times(), process.memory_info().rss
                together += resident
                self.cpu[process.pid] = times.user + times.system
                peak = max(resident, _high_water(process.pid))
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0), peak)
                if process.pid != root and process.name() == "java":
                    self.java.add(process.pid)
        self.together = max(self.together, together)


def _high_water(pid: int) -> int:
    if sys.platform != "linux":
        return 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _adopt_orphans() -> None:
    """Make processes whose parent ends children of this one, so that they can be seen, counted and ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reaped_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _steal(before: psutil._ntuples.scputimes) -> float:
    after = psutil.cpu_times()
    passed = sum(after) - sum(before)
    return (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / passed if passed else 0.0


def _end(process: subprocess.Popen[bytes], before: set[int]) -> None:
    """End what is left of a run, and reap it."""
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    _, left = psutil.wait_procs(left, timeout=GRACE_SECONDS if process.poll() is None else 2.0)
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(left, timeout=GRACE_SECONDS)
    process.wait()

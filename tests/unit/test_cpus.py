from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from fruits.clusters.resolve import resolve
from fruits.machine import cpus


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 CPUs, and an empty folder of control groups."""
    monkeypatch.setattr(cpus, "MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    return tmp_path


def write(groups: Path, membership: str, files: dict[str, str]) -> None:
    (groups / "proc").write_text(membership)
    for name, text in files.items():
        path = groups / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


V1 = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/\n", {}, 64),
        ("0::/pods/a\n", {"cpu.max": "max 100000", "pods/cpu.max": "300000 100000", "pods/a/cpu.max": "max 1"}, 3),
        ("0::/pods/a\n", {"pods/cpu.max": "800000 100000", "pods/a/cpu.max": "100000 50000"}, 2),
        ("0::/system.slice/of-the-host\n", {"cpu.max": "400000 100000"}, 4),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "100000", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/\n", {"cpu.max": "rubbish"}, 64),
    ],
)
def test_quota_of_the_container_limits_the_default_of_every_backend(
    groups: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    write(groups, membership, files)
    assert cpus.available_cpus() == expected
    assert resolve(environ={}).workers == expected
    assert backends.load("dask")().parallelism == expected


def test_machine_without_control_groups_uses_its_affinity() -> None:
    assert cpus.available_cpus() == 64


PROGRAM = "from fruits.machine.cpus import available_cpus; print(available_cpus())"


def test_quota_of_a_real_control_group_is_respected(tmp_path: Path) -> None:
    group = Path("/sys/fs/cgroup/cpu/fruits-test")
    if not group.parent.joinpath("cpu.cfs_quota_us").exists() and not group.parent.parent.joinpath("cpu.max").exists():
        group = Path("/sys/fs/cgroup/fruits-test")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be created: {error}")
    try:
        version_1 = (group / "cpu.cfs_quota_us").exists()
        (group / ("cpu.cfs_quota_us" if version_1 else "cpu.max")).write_text("50000" if version_1 else "50000 100000")
        join = f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(__import__('os').getpid())); "
        done = subprocess.run([sys.executable, "-c", join + PROGRAM], capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no quota can be set: {error}")
    finally:
        group.rmdir()
    assert int(done.stdout) == math.ceil(0.5), done.stderr

"""Speed of a whole ``fruits fit`` on images on S3, compared with a local disk.

``python -m tests.s3.speed IMAGES --rounds 3`` measures a folder on a local disk, the same folder on S3, and the same
images on S3 as tar archives that ``fruits pack`` wrote. The server and a proxy that adds 30 ms to every request run on
one core; the driver and its two workers share another for all sources. The result is therefore the cost of S3 to the
workers, without that of the server. A round measures every source once; a ratio is one of the same round. On a machine
with other load, compare CPU seconds, with ``--backend local`` (other backends do not count those of their workers), and
the seconds in which the workers waited for images (``read``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from tests.s3.server import served

FRUITS = Path(sys.executable).with_name("fruits")
DISK = "folder on disk"
SOURCES = {DISK: "", "folder on S3": "s3://images", "tars on S3": "s3://tars/*.tar"}


def main() -> None:
    """Measure, and print the result as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=2048)
    parser.add_argument("--partition-size", type=int, default=1024)
    parser.add_argument("--shard-size", default="256MB")
    parser.add_argument("--delay", type=float, default=0.03)
    parser.add_argument("--backend", default="dask")
    arguments = parser.parse_args()
    server_core, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for bucket in ("out", "images", "tars"):
            (root / "s3" / bucket).mkdir(parents=True)
        for path in sorted(path for path in arguments.images.rglob("*") if path.is_file())[: arguments.limit]:
            target = root / "s3" / "images" / path.relative_to(arguments.images)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        os.sched_setaffinity(0, {server_core})  # inherited by the server and the proxy
        proxy_command = [sys.executable, "-m", "tests.s3.proxy", "--delay", str(arguments.delay)]
        with served(root / "s3") as server:
            with subprocess.Popen([*proxy_command, server.address], stdout=subprocess.PIPE, text=True) as proxy:
                try:
                    assert proxy.stdout is not None
                    environ = os.environ | server.environ(proxy.stdout.readline().strip())
                    os.sched_setaffinity(0, {others[0]})
                    packing = ["pack", "s3://images", "--out", "s3://tars", "--shard-size", arguments.shard_size]
                    packed = _fruits(packing, environ)
                    os.environ.update(environ)
                    reading = [_reading(root, arguments.partition_size) for _ in range(arguments.rounds)]
                    rounds = [_round(root, number, arguments, environ) for number in range(arguments.rounds)]
                finally:
                    proxy.terminate()
    print(json.dumps({"pack": packed, "without a job": reading, **_summary(rounds)}, indent=2))


def _reading(root: Path, partition_size: int) -> dict[str, Any]:
    """Return the seconds and the CPU seconds of listing the images of every source, and of reading all of them."""
    found: dict[str, Any] = {}
    for name, address in SOURCES.items():
        source = open_source(address or str(root / "s3" / "images"))
        times = [(time.perf_counter(), time.process_time())]
        entries = list(Listing(source))
        times.append((time.perf_counter(), time.process_time()))
        for start in range(0, len(entries), partition_size):
            for content in source.read(entries[start : start + partition_size]):
                assert isinstance(content, bytes)
        times.append((time.perf_counter(), time.process_time()))
        steps = zip(("list", "read"), times, times[1:], strict=False)
        found[name] = {
            step: {"seconds": round(after[0] - before[0], 3), "CPU seconds": round(after[1] - before[1], 3)}
            for step, before, after in steps
        }
    return found


def _round(root: Path, number: int, arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Run a job on every source."""
    found = {}
    for source, address in SOURCES.items():
        out = f"{root}/out-{number}" if source == DISK else f"s3://out/{source.split()[0]}-{number}"
        command = ["fit", address or str(root / "s3" / "images"), "--out", out, "--components", "8", "--workers", "2"]
        command += ["--partition-size", str(arguments.partition_size), "--backend", arguments.backend, "--quiet"]
        found[source] = _fruits(command, environ)
        print(source, found[source], file=sys.stderr)
    return found


def _fruits(command: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the images, the seconds of a command from start to end, and the speed of its stage of images."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(FRUITS), *command, "--json"], env=environ, check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = json.loads(done.stdout)
    steps = {name: report[name] for name in ("images_per_second", "worker_seconds") if name in report}
    return {"images": report["images"], "seconds": round(seconds, 2), "CPU seconds": round(cpu, 2), **steps}


def _summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each source its times, and its speed as a multiple of that of the local disk."""
    summary = {}
    for source in SOURCES:
        found = [each[source] for each in rounds]
        summary[source] = {
            "images_per_second": [each["images_per_second"] for each in found],
            "read": [each["worker_seconds"]["read"] for each in found],
        }
        for name in ("seconds", "CPU seconds"):
            ratios = [each[DISK][name] / each[source][name] for each in rounds]
            summary[source][name] = [each[name] for each in found]
            summary[source][f"speed of the disk, by {name}"] = {
                "median": round(statistics.median(ratios), 3),
                "from": round(min(ratios), 3),
                "to": round(max(ratios), 3),
            }
    return summary


if __name__ == "__main__":
    main()

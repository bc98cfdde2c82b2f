"""Speed of whole jobs on images on S3, compared with a local disk, and with Ray Data.

``python -m tests.s3.speed IMAGES --rounds 3`` measures ``fruits fit`` on a folder on a local disk, on the same folder
on S3, and on the same images on S3 as tar archives that ``fruits pack`` wrote. ``--megapixels 12`` enlarges the images
to photos, ``--format png`` writes them as PNG, and ``--peer`` adds Ray Data with the same network and decoding
(``benchmarks.peers.ray_openvino``) on disk and on S3, and compares its features. ``--s3 tars`` leaves out the folder on
S3, of which large data sets take long. The output of a job is on S3 if its images are; ``--output disk`` writes all
outputs to the local disk, so that only the place of the images differs.

The server and a proxy that adds 30 ms to every request run on one core; the driver and its two workers share another
for all sources. The result is therefore the cost of S3 to the workers, without that of the server. A round measures
every source once; a ratio is one of the same round. On a machine with other load, compare CPU seconds, which are those
of all processes of a job, and the seconds in which the workers waited for images (``read``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.answers.reference import read_features
from benchmarks.inputs.images import Originals
from benchmarks.measure.process_tree import watch
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from tests.s3.server import served

FRUITS = [sys.executable, "-m", "fruits"]
RAY = [sys.executable, "-m", "benchmarks.peers.ray_openvino"]
DISK = "folder on disk"
FOLDER = "folder on S3"
SOURCES = {DISK: "", FOLDER: "s3://images", "tars on S3": "s3://tars/*.tar"}
PEERS = {"Ray Data on disk": "", "Ray Data on S3": "s3://images"}
COMPONENTS = "8"
TIMEOUT = 3600.0


def main() -> None:
    """Measure, and print the result as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=2048)
    parser.add_argument("--megapixels", type=float, default=0.0)
    parser.add_argument("--format", choices=["jpg", "png"], default="jpg")
    parser.add_argument("--partition-size", type=int, default=1024)
    parser.add_argument("--shard-size", default="256MB")
    parser.add_argument("--delay", type=float, default=0.03)
    parser.add_argument("--backend", default="dask")
    parser.add_argument("--s3", choices=["all", "tars"], default="all")
    parser.add_argument("--output", choices=["with images", "disk"], default="with images")
    parser.add_argument("--peer", action="store_true")
    arguments = parser.parse_args()
    if arguments.peer and arguments.format != "jpg":
        parser.error("--peer reads JPEG only")
    sources = {name: address for name, address in SOURCES.items() if arguments.s3 == "all" or name != FOLDER}
    server_core, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for bucket in ("out", "images", "tars"):
            (root / "s3" / bucket).mkdir(parents=True)
        _copy(arguments, root)
        os.sched_setaffinity(0, {server_core})  # inherited by the server and the proxy
        proxy_command = [sys.executable, "-m", "tests.s3.proxy", "--delay", str(arguments.delay)]
        with served(root / "s3") as server:
            with subprocess.Popen([*proxy_command, server.address], stdout=subprocess.PIPE, text=True) as proxy:
                try:
                    assert proxy.stdout is not None
                    environ = os.environ | server.environ(proxy.stdout.readline().strip())
                    os.sched_setaffinity(0, {others[0]})
                    packing = ["pack", "s3://images", "--out", "s3://tars", "--shard-size", arguments.shard_size]
                    packed = _timed([*FRUITS, *packing, "--json"], root, environ)
                    os.environ.update(environ)
                    reading = [_reading(root, sources, arguments.partition_size) for _ in range(arguments.rounds)]
                    rounds = [_round(root, sources, number, arguments, environ) for number in range(arguments.rounds)]
                finally:
                    proxy.terminate()
    print(json.dumps({"pack": packed, "without a job": reading, **_summary(rounds)}, indent=2))


def _copy(arguments: argparse.Namespace, root: Path) -> None:
    """Copy the images, enlarged if requested, into the bucket."""
    folder = arguments.images
    if arguments.megapixels:
        originals = Originals.below(str(folder), arguments.limit)
        folder = Path(originals.enlarged(arguments.megapixels, root / "cache").folder)
    for path in sorted(folder.rglob("*.jpg"))[: arguments.limit]:
        target = root / "s3" / "images" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if arguments.format == "png":
            with Image.open(path) as image:
                image.save(target.with_suffix(".png"), compress_level=1)
        else:
            shutil.copyfile(path, target)


def _reading(root: Path, sources: Mapping[str, str], partition_size: int) -> dict[str, Any]:
    """Return the seconds and the CPU seconds of listing the images of every source, and of reading all of them."""
    found: dict[str, Any] = {}
    for name, address in sources.items():
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


def _round(
    root: Path, sources: Mapping[str, str], number: int, arguments: argparse.Namespace, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Run a job on every source, and the peer."""
    found = {}
    disk = str(root / "s3" / "images")
    for source, address in sources.items():
        name = _output_name(source, number)
        out = str(root / name) if source == DISK or arguments.output == "disk" else f"s3://out/{name}"
        command = ["fit", address or disk, "--out", out, "--components", COMPONENTS, "--workers", "2"]
        command += ["--partition-size", str(arguments.partition_size), "--backend", arguments.backend, "--quiet"]
        found[source] = _timed([*FRUITS, *command, "--json"], root, environ)
        print(source, found[source], file=sys.stderr)
    paths, expected, _ = read_features(root / _output_name(DISK, number) / "features")
    for source, address in PEERS.items() if arguments.peer else ():
        out = str(root / _output_name(source, number))
        command = [address or disk, "--out", out, "--components", COMPONENTS, "--workers", "2"]
        found[source] = _timed([*RAY, *command], root, environ)
        peer_paths, features, _ = read_features(Path(out, "features"))
        assert peer_paths == paths
        found[source]["largest difference of a feature"] = float(np.abs(features - expected).max())
        print(source, found[source], file=sys.stderr)
    return found


def _output_name(source: str, number: int) -> str:
    return f"{source.replace(' ', '-')}-{number}"


def _timed(command: Sequence[str], root: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the seconds of a command from start to end, its CPU seconds and memory, and what it reports."""
    log = root / "log.txt"
    usage = watch(command, env=environ, log=log, timeout=TIMEOUT)
    lines = log.read_text("utf-8", errors="replace")
    if usage.exit_code != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {usage.exit_code}\n{lines}")
    start = re.search(r"(?m)^\{", lines)
    assert start is not None
    reported, _ = json.JSONDecoder().raw_decode(lines, start.start())
    names = ("images", "images_per_second", "worker_seconds", "featurize")
    return {
        "seconds": round(usage.wall, 2),
        "CPU seconds": round(usage.cpu_seconds, 2),
        "driver, MB": round(usage.driver_peak / 1e6),
        "worker, MB": round(usage.worker_peak / 1e6),
        **{name: reported[name] for name in names if name in reported},
    }


def _summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each source its times, and its speed as a multiple of that of the local disk."""
    summary = {}
    for source in rounds[0]:
        found = [each[source] for each in rounds]
        summary[source] = {
            "images_per_second": [each.get("images_per_second") for each in found],
            "read": [each.get("worker_seconds", {}).get("read") for each in found],
            "worker, MB": max(each["worker, MB"] for each in found),
            "largest difference of a feature": max(each.get("largest difference of a feature", 0) for each in found),
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

"""Load test of a server on this machine: ``python -m benchmarks.load --recogniser REC --photos FOLDER``."""

from __future__ import annotations

import argparse
import io
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.load.client import Load, run_clients
from benchmarks.load.server import ServerProcess, network_rate
from benchmarks.measure.results import write_results
from fruits.images.decode import EXTENSIONS
from fruits.machine.cpus import available_cpus

PHOTOS = 200  # at most
MEGA = 1e6
TWELVE = (4000, 3000)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Load test of fruits serve.")
    parser.add_argument("--recogniser", metavar="REC", required=True, help="recogniser to serve")
    parser.add_argument("--photos", metavar="FOLDER", required=True, help="folder of photographs, such as 348 px")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each load; default 10")
    parser.add_argument(
        "--soak", type=float, default=60, help="duration of the load for memory; default 60, 3600 = 1 h"
    )
    parser.add_argument("--starts", type=int, default=5, help="number of starts; default 5")
    parser.add_argument("--out", metavar="FOLDER", default="bench", help="folder of load.md and load.json")
    return parser


def _photos(folder: str) -> list[bytes]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not paths:
        raise SystemExit(f"--photos {folder}: no image below it.")
    return [path.read_bytes() for path in paths[:: -(-len(paths) // PHOTOS)]]


def _large(photo: bytes) -> bytes:
    """Return a photograph enlarged to 12 megapixels, with the noise of a sensor, so that it is as large as one."""
    enlarged = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize(TWELVE, Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).normal(0, 6, enlarged.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(enlarged + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _broken(photos: list[bytes]) -> list[bytes]:
    """Return photographs, of which one in twenty is cut."""
    return [photo[: len(photo) // 3] if number % 20 == 7 else photo for number, photo in enumerate(photos)]


def main() -> None:
    """Measure, print the table, and write it with the raw figures."""
    arguments = _parser().parse_args()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    photos = _photos(arguments.photos)
    large = [_large(photo) for photo in photos[:4]]
    cpus = available_cpus()
    loaded_before = os.getloadavg()[0]
    starts, idle = [], []
    for _ in range(arguments.starts):
        with ServerProcess(arguments.recogniser, out / "server.log") as server:
            starts.append(server.start_seconds)
            time.sleep(1)
            idle.append(server.memory())
    bare = [network_rate(cpus, 3)]
    with ServerProcess(arguments.recogniser, out / "server.log") as server:
        run_clients(server.port, photos, 1, seconds=1)
        cpu = server.cpu_seconds()
        one = run_clients(server.port, photos, 1, seconds=arguments.seconds)
        cpu = (server.cpu_seconds() - cpu) / len(one.accepted)
        eight = run_clients(server.port, photos, 8, seconds=arguments.seconds)
        bare.append(network_rate(cpus, 3))
        many = run_clients(server.port, photos, 64, seconds=arguments.seconds)
        twelve = run_clients(server.port, large, 1, seconds=arguments.seconds)
        broken = run_clients(server.port, _broken(photos), 8, seconds=arguments.seconds)
        before = len(server.samples)
        soak = run_clients(server.port, [*photos, *large], 8, seconds=arguments.soak)
        memory = [used for _, used in server.samples[before:]]
    rate_alone, cpu_alone = np.mean(bare, axis=0)
    third = max(1, len(memory) // 3)
    rows = [
        ("ready after start, median", f"{np.median(starts):.2f} s", "1 s"),
        ("memory idle, median", f"{np.median(idle) / MEGA:.0f} MB", "200 MB"),
        ("one client, p50 / p99", _latency(one), "12 / 20 ms"),
        ("8 clients, rate", f"{eight.rate:.0f}/s, {eight.rate / rate_alone:.2f} of the network alone", "180/s, 0.9"),
        ("8 clients, p50 / p99", _latency(eight), "p99 60 ms"),
        ("64 clients, statuses", _statuses(many), "200 and 503 only"),
        ("64 clients, p50 / p99 of 200", _latency(many), "p99 250 ms"),
        ("64 clients, slowest answer", f"{max(many.all_answers):.0f} ms", "none hangs"),
        (f"12 megapixels ({len(large[0]) / MEGA:.1f} MB), p50 / p99", _latency(twelve), "p50 200 ms"),
        ("8 clients, 5 % corrupt, statuses", _statuses(broken), "200 and 422 only"),
        (f"memory, peak in {arguments.soak:.0f} s of 8 clients", f"{max(memory) / MEGA:.0f} MB", "500 MB"),
        (
            "memory, median of first / last third",
            f"{np.median(memory[:third]) / MEGA:.0f} / {np.median(memory[-third:]) / MEGA:.0f} MB",
            "flat",
        ),
        (
            "CPU time of a photo: server, network alone, client",
            f"{1e3 * cpu:.1f}, {1e3 * cpu_alone:.1f}, {1e3 * one.client_cpu_seconds / len(one.accepted):.1f} ms",
            "",
        ),
        ("network alone, before and after", " and ".join(f"{rate:.0f}/s" for rate, _ in bare), ""),
        ("load average before", f"{loaded_before:.1f} on {cpus} CPUs", ""),
    ]
    text = "| what | measured | target |\n| --- | --- | --- |\n" + "".join(
        f"| {what} | {measured} | {target} |\n" for what, measured, target in rows
    )
    loads = {"one": one, "eight": eight, "many": many, "twelve": twelve, "broken": broken, "soak": soak}
    figures = {"starts": starts, "idle": idle, "bare": bare, "memory": memory, "loads": loads}
    write_results(arguments.out, "load", text, figures)


def _latency(load: Load) -> str:
    return f"{load.percentile(50):.1f} / {load.percentile(99):.1f} ms"


def _statuses(load: Load) -> str:
    return ", ".join(f"{status}: {count}" for status, count in sorted(load.statuses.items()))


if __name__ == "__main__":
    main()

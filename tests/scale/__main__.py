"""Simulate a job of a hundred million images, to measure the memory and time of the driver and the engine.

python -m tests.scale [--partitions 100000] [--partition-size 1000] [--workers 2] [--backend dask] [--out FOLDER]

Each backend runs ``fit`` in two processes. The first stops when half of the partitions are completed; the second
resumes with the stored plan. Each process prints a line of JSON.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import psutil

import backends
from fruits.jobs import output, pipeline
from fruits.jobs.job import Job
from fruits.progress.reporter import Silent
from fruits.storage.folder import Folder
from tests.scale import standins


class StageTimer(Silent):
    """A listener that measures the wall and CPU seconds of the driver in each stage."""

    def __init__(self):
        self._starts = []

    def stage(self, name, *, total, unit="images"):
        self._starts.append((name, time.perf_counter(), time.process_time()))
        return super().stage(name, total=total, unit=unit)

    def seconds(self):
        """Return the wall seconds and the CPU seconds by stage, up to now."""
        wall, cpu = {}, {}
        for (name, *start), (_, *end) in itertools.pairwise(
            [*self._starts, ("", time.perf_counter(), time.process_time())]
        ):
            for seconds, begin, until in zip((wall, cpu), start, end, strict=True):
                seconds[name] = round(seconds.get(name, 0.0) + until - begin, 2)
        return wall, cpu


def simulate(backend, *, partitions, partition_size, workers, out, stop_at=None):
    """Run ``fit`` on simulated images; return the measurements."""
    job = Job(
        images="nowhere",
        out=out,
        components=2,
        partition_size=partition_size,
        limit=partitions * partition_size,
        keep_plan=Path(out, "commits").exists(),
    )
    before = standins.counted("featurize", out)
    timer = StageTimer()
    with (
        mock.patch.object(output, "open_source", standins.Source),
        mock.patch.object(pipeline, "compile_network", return_value=standins.NeuralNetwork()),
        backends.load(backend)(workers=workers) as inner,
    ):
        executor = standins.SimulatingExecutor(inner, stop_at)
        begin = time.perf_counter()
        try:
            pipeline.fit(job, executor, progress=timer)
        except KeyboardInterrupt:
            if stop_at is None:
                raise
        wall, cpu = timer.seconds()
        java = java_usage()
    featurized = standins.counted("featurize", out) - before
    return {
        "backend": backend,
        "workers": workers,
        "partitions": partitions,
        "images": partitions * partition_size,
        "featurized": featurized,
        "ms_per_partition": round(1000 * wall["featurize"] / featurized, 2),
        "largest_number_held": executor.held,
        "driver_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "driver_cpu_ms_per_partition": round(1000 * cpu["featurize"] / featurized, 2),
        "restart_seconds": round(sum(wall.get(name, 0.0) for name in ("model", "engine", "survey")), 1),
        "seconds": wall,
        "driver_cpu_seconds": cpu,
        **java,
        "all_seconds": round(time.perf_counter() - begin, 1),
    }


def java_usage():
    """Return the peak memory and CPU seconds of the Java processes that this process started."""
    java = [process for process in psutil.Process().children(recursive=True) if process.name() == "java"]
    return {
        "java_mb": max((peak_memory(process.pid) for process in java), default=0) // 2**20,
        "java_cpu_seconds": round(sum(sum(process.cpu_times()[:2]) for process in java), 1),
    }


def peak_memory(pid):
    """Return the peak memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=100_000)
    parser.add_argument("--partition-size", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", action="append", choices=("dask", "spark", "local"))
    parser.add_argument("--out", help="default: a folder in memory, removed at the end")
    parser.add_argument("--stop-at", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = {"partitions": options.partitions, "partition_size": options.partition_size, "workers": options.workers}
    if options.one:
        print(
            json.dumps(simulate(options.backend[0], **settings, out=options.out, stop_at=options.stop_at)), flush=True
        )
        return
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = tempfile.mkdtemp(prefix="fruits-scale-", dir=options.out or shared)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    try:
        for backend in options.backend or ("dask", "spark"):
            command = [
                sys.executable,
                "-m",
                "tests.scale",
                "--one",
                f"--backend={backend}",
                f"--out={root}/{backend}",
                *arguments,
            ]
            subprocess.run([*command, f"--stop-at={options.partitions // 2}"], check=True)
            subprocess.run(command, check=True)
            times = standins.counted("featurize", f"{root}/{backend}")
            parts = len(Folder.at(f"{root}/{backend}/features").names())
            print(json.dumps({"backend": backend, "parts": parts, "tasks_run": times}), flush=True)
            shutil.rmtree(f"{root}/{backend}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()

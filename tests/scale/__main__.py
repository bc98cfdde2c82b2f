"""A job of a hundred million images, simulated: what the driver and the engine need for it, and nobody else.

python -m tests.scale [--partitions 100000] [--partition-size 1000] [--workers 2] [--backend dask] [--out FOLDER]

Each backend fits on the images in two processes: the first is stopped when half of the partitions are done, the second
does the rest, on the plan that is there. What is printed is JSON, a line for each process.
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
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.storage.folder import Folder
from tests.scale import standins


def simulate(backend, *, partitions, partition_size, workers, out, stop_at=None):
    """Fit on images that do not exist; return what it took."""
    job = Job(
        images="nowhere",
        out=out,
        components=2,
        partition_size=partition_size,
        limit=partitions * partition_size,
        keep_plan=Path(out, "job.json").exists(),
    )
    stages, driver_cpu, told = {}, {}, []

    class Stages(pipeline.Silent):
        def stage(self, name, *, total, unit="images"):
            told.append((name, time.perf_counter(), time.process_time()))
            return super().stage(name, total=total, unit=unit)

    before = standins.counted("featurize", out)
    with (
        mock.patch.multiple(pipeline, Listing=standins.Listing, compile_network=lambda *_: standins.NeuralNetwork()),
        backends.load(backend)(workers=workers) as inner,
    ):
        executor = standins.Watched(inner, stop_at)
        begin = time.perf_counter()
        try:
            pipeline.fit(job, executor, progress=Stages())
        except KeyboardInterrupt:
            if stop_at is None:
                raise
        told.append(("", time.perf_counter(), time.process_time()))
        for (name, *start), (_, *end) in itertools.pairwise(told):
            for kind, at, until in zip((stages, driver_cpu), start, end, strict=True):
                kind[name] = round(kind.get(name, 0.0) + until - at, 2)
        java = [process for process in psutil.Process().children(recursive=True) if process.name() == "java"]
        java_peak = max((high_water(process.pid) for process in java), default=0)
        java_cpu = sum(sum(process.cpu_times()[:2]) for process in java)
    done = standins.counted("featurize", out) - before
    return {
        "backend": backend,
        "workers": workers,
        "partitions": partitions,
        "images": partitions * partition_size,
        "featurized": done,
        "ms_per_partition": round(1000 * stages["featurize"] / done, 2),
        "largest_number_held": executor.held,
        "driver_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "java_mb": java_peak // 2**20,
        "driver_cpu_ms_per_partition": round(1000 * driver_cpu["featurize"] / done, 2),
        "restart_seconds": round(sum(stages.get(name, 0.0) for name in ("network", "engine", "survey")), 1),
        "seconds": stages,
        "driver_cpu_seconds": driver_cpu,
        "java_cpu_seconds": round(java_cpu, 1),
        "all_seconds": round(time.perf_counter() - begin, 1),
    }


def high_water(pid):
    """Return the peak of a process's memory, in bytes."""
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
    asked = parser.parse_args()
    settings = {"partitions": asked.partitions, "partition_size": asked.partition_size, "workers": asked.workers}
    if asked.one:
        print(json.dumps(simulate(asked.backend[0], **settings, out=asked.out, stop_at=asked.stop_at)), flush=True)
        return
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = tempfile.mkdtemp(prefix="fruits-scale-", dir=asked.out or shared)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    try:
        for backend in asked.backend or ("dask", "spark"):
            one = [
                sys.executable,
                "-m",
                "tests.scale",
                "--one",
                f"--backend={backend}",
                f"--out={root}/{backend}",
                *words,
            ]
            subprocess.run([*one, f"--stop-at={asked.partitions // 2}"], check=True)
            subprocess.run(one, check=True)
            times = standins.counted("featurize", f"{root}/{backend}")
            parts = len(Folder.at(f"{root}/{backend}/features").parts())
            print(json.dumps({"backend": backend, "parts": parts, "tasks_run": times}), flush=True)
            shutil.rmtree(f"{root}/{backend}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()

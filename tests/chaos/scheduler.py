"""Kill Dask's scheduler or the Java process of Spark's driver: a clear error within a minute, and a resumable job."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

import orjson
import psutil

from tests.chaos.site import BIN, STAGES, Site, Tally, Violation

BACKENDS = ("dask", "spark")
ERROR_SECONDS = 60
START_SECONDS = 60


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Finish one job whose scheduler is killed once."""
    with site.out() as out:
        moment = site.moment(random, out, STAGES[2:])
        assert moment is not None
        with _cluster(site, backend) as (where, scheduler), site.command(out, *where) as command:
            if command.reaches(moment):
                victim = scheduler or next(iter(command.named("java")))
                victim.send_signal(signal.SIGKILL)
                started = time.monotonic()
                tally.faults[f"{backend} scheduler killed"] += 1
                tally.seen[f"at {moment.stage}"] += 1
                answer = command.wait(ERROR_SECONDS)
                tally.seen["longest seconds to the error"] = max(
                    tally.seen["longest seconds to the error"], round(time.monotonic() - started)
                )
                if command.process.returncode not in (0, 1):
                    raise Violation(f"{out.name}: exit {command.process.returncode}: {answer}")
                if "error" in answer and answer["error"]["type"] not in ("JobError", "TaskError"):
                    raise Violation(f"{out.name}: at {moment}: not a clear error: {answer}")
                tally.seen["errors" if "error" in answer else "finished without an error"] += 1
            else:
                tally.seen["moments missed"] += 1
                command.wait()
        site.check_unfinished(out)
        with site.command(out, *site.where("local")) as command:
            command.done()
        site.check(out, tally)


@contextmanager
def _cluster(site: Site, backend: str) -> Iterator[tuple[tuple[str, ...], psutil.Process | None]]:
    """Yield the arguments that choose the cluster, and its scheduler unless the command starts it."""
    if backend == "spark":
        yield site.where("spark"), None
        return
    folder = site.root / f"cluster-{uuid4().hex[:8]}"
    folder.mkdir()
    file = folder / "scheduler.json"
    options = ("--no-dashboard", "--scheduler-file", str(file))
    started = [_start(folder, "scheduler", "--host", "tcp://127.0.0.1", "--port", "0", *options)]
    try:
        deadline = time.monotonic() + START_SECONDS
        while not file.exists() or not file.read_bytes().strip():
            if time.monotonic() > deadline or started[0].poll() is not None:
                raise Violation(f"no scheduler: {(folder / 'log').read_text()[-1000:]}")
            time.sleep(0.05)
        address = orjson.loads(file.read_bytes())["address"]
        for _ in range(2):
            own = ("--nthreads", "1", "--host", "127.0.0.1", "--local-directory", str(folder))
            started.append(_start(folder, "worker", *own, *options))
        cluster_file = folder / "cluster.yaml"
        cluster_file.write_text(f"clusters: {{chaos: {{backend: dask, address: '{address}'}}}}\n")
        yield ("--cluster", "chaos", "--cluster-file", str(cluster_file)), psutil.Process(started[0].pid)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [BIN / "dask", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )

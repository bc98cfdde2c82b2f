"""Run two commands on one --out, or two workers on one partition, at once; the output must be that of one.

On Spark, two workers: one is stopped during a partition, speculative execution starts a second attempt, and the first
continues during or after the second.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from random import Random

import psutil

from tests.chaos.site import Site, Tally, Violation

BACKENDS = ("local", "dask", "spark")
PAUSE_SECONDS = (1.0, 8.0)
SPECULATION = {  # not supported with local[n]; hence local-cluster
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.minTaskRuntime": "100ms",
    "spark.speculation.multiplier": "1.5",
    "spark.speculation.quantile": "0.5",
    "spark.pyspark.python": sys.executable,
    "spark.executorEnv.PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Run a pair of commands, the second started at a random moment of the first; or one job with twin workers."""
    if backend == "spark":
        _speculate(site, random, tally)
        return
    with site.out() as out:
        moment = site.moment(random, out)
        assert moment is not None
        where = ("--backend", backend, "--workers", "1")
        with site.command(out, *where) as first:
            if not first.reaches(moment):
                tally.seen["moments missed"] += 1
            with site.command(out, *where) as second:
                tally.faults["twin started"] += 1
                tally.seen[f"at {moment.stage}"] += 1
                for command in (first, second):
                    answer = command.wait()
                    if "error" in answer and answer["error"]["type"] not in (
                        "OutputError",
                        "TaskError",
                        "StorageError",
                    ):
                        raise Violation(f"{out.name}: at {moment}: not a clear error: {answer}")
                    tally.seen["rejected or failed" if "error" in answer else "twins that finished"] += 1
                    site.check_unfinished(out)
        with site.command(out, *where) as last:
            last.done()
        site.check(out, tally)


def _speculate(site: Site, random: Random, tally: Tally) -> None:
    cluster_file = site.root / "speculation.yaml"
    conf = "".join(f"      {name}: '{value}'\n" for name, value in SPECULATION.items())
    cluster_file.write_text(
        f"clusters:\n  chaos:\n    backend: spark\n    address: 'local-cluster[2,1,1024]'\n    conf:\n{conf}"
    )
    with site.out() as out:
        moment = site.moment(random, out, ("rejects", "features", "rows"))
        assert moment is not None
        environ = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(site.root / "work")}
        with site.command(out, "--cluster", "chaos", "--cluster-file", str(cluster_file), **environ) as command:
            workers = [
                process
                for process in (command.named("pyspark.daemon") if command.reaches(moment) else [])
                if "pyspark.daemon" in process.parent().cmdline()
            ]
            if workers:
                victim = random.choice(workers)
                victim.send_signal(signal.SIGSTOP)
                tally.faults["worker stopped beside its twin"] += 1
                tally.seen[f"at {moment.stage}"] += 1
                time.sleep(random.uniform(*PAUSE_SECONDS))
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGCONT)
                    tally.seen["stopped workers continued"] += 1
            else:
                tally.seen["moments missed"] += 1
            command.done()
        site.check(out, tally)

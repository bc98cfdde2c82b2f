"""A standalone Spark cluster that authenticates and encrypts: master and worker on one host, a worker on another."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyspark
import pytest

from backends.spark.java import find_java
from tests.hosts.conftest import BIN, Site
from tests.hosts.network import Host, until

MASTER = "spark://left:7077"
CUT_OFF_SECONDS = 180
SPARK_HOME = Path(pyspark.__file__).parent
QUICK_START = "-XX:TieredStopAtLevel=1"  # four Java processes share few cores
ENVIRON = {
    "SPARK_HOME": str(SPARK_HOME),
    "SPARK_CONF_DIR": "/tmp",
    "SPARK_DAEMON_JAVA_OPTS": QUICK_START,
    "JAVA_HOME": str(find_java(pyspark.__version__)),
}
# On each host's disk, so that the secret is on no command line and in no cluster file.
DEFAULTS = f"""
spark.authenticate true
spark.authenticate.secret {os.urandom(16).hex()}
spark.network.crypto.enabled true
spark.executor.extraJavaOptions {QUICK_START}
"""
# Shorter timeouts for lost hosts; the rest of CUT_OFF_SECONDS is the duration of the job.
CONF = {
    "spark.network.timeout": "30s",
    "spark.network.timeoutInterval": "10s",
    "spark.executor.heartbeatInterval": "5s",
    "spark.pyspark.python": str(BIN / "python"),
}


@pytest.fixture
def cluster(site: Site) -> Site:
    """Start the cluster, and write the user's cluster file."""
    for host in site.hosts.hosts.values():
        (host.disk / "spark-defaults.conf").write_text(DEFAULTS)
    left, right = site.hosts["left"], site.hosts["right"]

    def start(host: Host, name: str, *arguments: object) -> None:
        command = (SPARK_HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{name.lower()}.{name}")
        own = ("--host", host.name, "--webui-port", 0)
        running.append(host.start(*command, *own, *arguments, log=f"{name.lower()}.log", **ENVIRON))

    running = []
    start(left, "Master", "--port", 7077)
    until(lambda: "New state: ALIVE" in left.log("master.log"), "the master", seconds=120, running=running)
    for host in (left, right):
        start(host, "Worker", MASTER, "--cores", 1, "--memory", "1g", "--work-dir", "/tmp/work")
    until(lambda: left.log("master.log").count("Registering worker") == 2, "the workers", seconds=120, running=running)
    site.cluster_file(backend="spark", address=MASTER, conf=CONF)
    return site


def test_a_job_on_three_hosts_gives_the_same_bits_as_on_one(cluster: Site) -> None:
    assert f"spark at {MASTER}" in cluster.wait(cluster.fruits_run(**ENVIRON))
    cluster.same_bits()


def test_a_disconnected_host_does_not_change_the_result(cluster: Site) -> None:
    job = cluster.fruits_run(**ENVIRON)
    until(lambda: cluster.parts("features") >= 6, "the sixth part", seconds=120, running=[job])
    cluster.hosts.cut("right")
    cut = time.monotonic()
    assert cluster.parts("features") < 30
    cluster.wait(job, CUT_OFF_SECONDS)
    print(f"done {time.monotonic() - cut:.0f} s after the cut")
    cluster.same_bits()

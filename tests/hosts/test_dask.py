"""A Dask cluster over TLS: the scheduler and a worker on one host, a worker on another, the user on a third."""

from __future__ import annotations

import time

import pytest
from distributed.security import Security

from tests.hosts.conftest import BIN, Site
from tests.hosts.network import until

SCHEDULER = "tls://left:8786"
# Dask closes a connection after 30 s without data (distributed.comm.timeouts.tcp); the rest is the duration of the job.
CUT_OFF_SECONDS = 120


@pytest.fixture
def cluster(site: Site) -> Site:
    """Start the cluster with new certificates, and write the user's cluster file."""
    security = Security.temporary()
    for host in site.hosts.hosts.values():
        (host.disk / "ca.pem").write_text(security.tls_ca_file)
        (host.disk / "cert.pem").write_text(security.tls_worker_cert)
        (host.disk / "key.pem").write_text(security.tls_worker_key)
    left, right = site.hosts["left"], site.hosts["right"]
    tls = ("--tls-ca-file", "/tmp/ca.pem", "--tls-cert", "/tmp/cert.pem", "--tls-key", "/tmp/key.pem")
    scheduler = left.start(
        BIN / "dask", "scheduler", "--host", "tls://left", "--no-dashboard", *tls, log="scheduler.log"
    )
    running = [scheduler]
    until(lambda: "Scheduler at" in left.log("scheduler.log"), "the scheduler", seconds=60, running=running)
    for host in (left, right):
        own = ("--host", host.name, "--nthreads", 1, "--local-directory", "/tmp", "--no-dashboard")
        running.append(host.start(BIN / "dask", "worker", SCHEDULER, *own, *tls, log="worker.log"))
    until(lambda: left.log("scheduler.log").count("Register worker") == 2, "the workers", seconds=60, running=running)
    site.cluster_file(backend="dask", address=SCHEDULER)
    return site


CLIENT = {  # Dask's own settings, as environment variables
    "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "/tmp/ca.pem",
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": "/tmp/cert.pem",
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": "/tmp/key.pem",
}


def test_a_job_on_three_hosts_gives_the_same_bits_as_on_one(cluster: Site) -> None:
    assert f"dask at {SCHEDULER}" in cluster.wait(cluster.fruits_run(**CLIENT))
    cluster.same_bits()


def test_a_disconnected_host_does_not_change_the_result(cluster: Site) -> None:
    job = cluster.fruits_run(**CLIENT)
    until(lambda: cluster.parts("features") >= 6, "the sixth part", seconds=60, running=[job])
    cluster.hosts.cut("right")
    cut = time.monotonic()
    assert cluster.parts("features") < 30
    cluster.wait(job, CUT_OFF_SECONDS)
    scheduler = cluster.hosts["left"].log("scheduler.log")
    assert f"Remove worker addr: tls://{cluster.hosts['right'].address}" in scheduler
    print(f"done {time.monotonic() - cut:.0f} s after the cut")
    cluster.same_bits()


@pytest.mark.parametrize("settings", [{}, {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "/tmp/ca.pem"}])
def test_a_missing_client_certificate_names_the_settings(cluster: Site, settings: dict[str, str]) -> None:
    job = cluster.fruits_run(**settings)
    assert job.wait(60) == 2
    assert "not set: " in (output := cluster.desk.log("job.log"))
    assert ("distributed.comm.tls.ca-file" in output) == (not settings)
    assert "distributed.comm.tls.client.key" in output

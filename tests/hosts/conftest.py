"""Three hosts that share only a network: ``desk`` has the S3 server and the user, the others have the workers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import backends
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from fruits.network.weights import cache_folder
from tests.hosts.network import ROOT, Host, Network, missing, network, until

BIN = Path(sys.executable).parent
IMAGES = 640
JOB = {"partition_size": 16, "components": 40}  # 41 partitions
BUCKET = "s3://fruits"
JOB_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        item.add_marker(pytest.mark.timeout(600))  # three hosts share few cores
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@dataclass(frozen=True)
class Local:
    """The images, and the output of the local backend for them, on the disk of the machine."""

    images: Path
    out: Path


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tmp_path_factory.mktemp("local")
    local = Local(folder / "images", folder / "out")
    generate(local.images, images=IMAGES, broken=3)
    with backends.load("local")(workers=2) as executor:
        pipeline.run(Job(images=str(local.images), out=str(local.out), **JOB), executor)
    return local


@dataclass(frozen=True)
class Site:
    """The hosts, with the images on a running S3 server."""

    hosts: Network

    @property
    def desk(self) -> Host:
        """The host of the user."""
        return self.hosts["desk"]

    @property
    def stored(self) -> Path:
        """The folder of the bucket on the S3 server's disk."""
        return self.desk.disk / "s3" / "fruits"

    def parts(self, kind: str) -> int:
        """Return the number of stored parts of a kind."""
        return len(list((self.stored / "out" / kind).glob("part-*")))

    def cluster_file(self, **cluster: object) -> None:
        """Write the user's cluster file, with one cluster called ``hosts``."""
        (self.desk.disk / "cluster.yaml").write_text(yaml.safe_dump({"clusters": {"hosts": cluster}}))

    def fruits_run(self, **environ: str) -> subprocess.Popen[str]:
        """Start ``fruits run`` on the user's host, with the cluster ``hosts``."""
        options = [word for name, value in JOB.items() for word in (f"--{name.replace('_', '-')}", value)]
        place = ("--cluster-file", "/tmp/cluster.yaml", "--cluster", "hosts")
        command = (BIN / "fruits", "run", f"{BUCKET}/images", "--out", f"{BUCKET}/out", *options, *place)
        return self.desk.start(*command, log="job.log", **environ)

    def wait(self, job: subprocess.Popen[str], seconds: float = JOB_SECONDS) -> str:
        """Return the output of a job; fail if it fails or exceeds a timeout."""
        try:
            code = job.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the job did not end within {seconds:g} s; its output: {self.desk.log('job.log')}")
        assert code == 0, self.desk.log("job.log")
        return self.desk.log("job.log")

    def same_bits(self) -> None:
        """Compare the output with that of the local backend, using ``fruits compare``."""
        done = self.desk.run(BIN / "fruits", "compare", "/tmp/local", f"{BUCKET}/out", timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.fixture
def site(local: Local) -> Iterator[Site]:
    environ = {
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONPATH": str(ROOT),  # test this checkout, not an installed package
        "LANG": "C.UTF-8",
        "AWS_ENDPOINT_URL": "http://desk:9000",
        "AWS_ACCESS_KEY_ID": "fruits",
        "AWS_SECRET_ACCESS_KEY": "of-the-hosts",
        "AWS_DEFAULT_REGION": "eu-west-3",
        "FRUITS_CACHE": "/tmp/cache",
        "OMP_NUM_THREADS": "1",
    }
    with network("desk", "left", "right", environ=environ) as hosts:
        desk = hosts["desk"]
        shutil.copytree(local.images, desk.disk / "s3" / "fruits" / "images")
        shutil.copytree(local.out, desk.disk / "local")
        shutil.copytree(cache_folder("networks").parent, desk.disk / "cache")
        key = f"{environ['AWS_ACCESS_KEY_ID']},{environ['AWS_SECRET_ACCESS_KEY']}"
        command = (BIN / "rclone", "serve", "s3", "/tmp/s3", "--addr", "desk:9000", "--auth-key", key)
        server = desk.start(*command, log="s3.log")
        until(lambda: "Starting s3 server" in desk.log("s3.log"), "the S3 server", seconds=20, running=[server])
        yield Site(hosts)

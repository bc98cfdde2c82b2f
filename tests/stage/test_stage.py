"""The full wheelhouse of a node, the environment built from it, and the archive of EMR Serverless: make test-stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyspark
import pytest

from backends.aws.emr.emr_step import RESULT, SUBMITTED
from backends.aws.emr.releases import DEFAULT, RELEASES
from backends.aws.serverless import SPARK
from backends.aws.staging.wheelhouse import build_environment, gather
from backends.spark.java import find_java
from fruits.images.sample import generate
from tests.aws.python_build import python_archive
from tests.outputs import is_complete
from tests.s3.server import served

EMR = Path(__file__).parents[2] / "backends" / "aws" / "emr"
RELEASE = RELEASES[DEFAULT]
PYTHON = SPARK["spark.executorEnv.PYSPARK_PYTHON"]


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staged") / "wheelhouse"
    gather(folder, RELEASE)
    return folder


@pytest.mark.timeout(900)
def test_a_job_runs_in_an_environment_built_from_the_wheelhouse(wheelhouse: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [EMR / "bootstrap_emr.sh", wheelhouse, tmp_path / "prefix", f"python{RELEASE.python}"],
        capture_output=True,
        text=True,
        env={"PATH": path, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    arguments = ["demo", "--out", str(tmp_path / "demo"), "--images", "40", "--backend", "dask", "--workers", "1"]
    job = subprocess.run(
        [tmp_path / "prefix" / "bin" / "fruits", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert job.returncode == 0, job.stderr
    assert is_complete(tmp_path / "demo" / "output")


@pytest.mark.timeout(900)
def test_a_job_runs_from_the_archive_that_spark_unpacks(wheelhouse: Path, tmp_path: Path) -> None:
    """As on EMR Serverless: executors in processes of their own, whose environment comes from ``spark.archives``."""
    archive = tmp_path / "environment.tar.gz"
    build_environment(python_archive(tmp_path / "build"), wheelhouse, RELEASE, archive)
    driver = tmp_path / "driver"
    with tarfile.open(archive) as packed:  # EMR Serverless unpacks it in the folder of the driver too
        packed.extractall(driver / "environment", filter="tar")
    (tmp_path / "s3" / "fruits").mkdir(parents=True)
    generate(tmp_path / "s3" / "fruits" / "images", images=40)
    home = Path(pyspark.__file__).parent
    with served(tmp_path / "s3") as server:
        environ = {
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            "SPARK_HOME": str(home),
            "JAVA_HOME": str(find_java(pyspark.__version__)),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": PYTHON,
            "PYSPARK_DRIVER_PYTHON": PYTHON,
            **server.environ(),
        }
        conf = {
            "spark.archives": f"{archive}#environment",
            "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
            "spark.ui.enabled": "false",
            **{f"spark.executorEnv.{name}": value for name, value in server.environ().items()},
        }
        options = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        arguments = ["run", "s3://fruits/images", "--out", "s3://fruits/out", "--components", "4"]
        step = [EMR / "emr_step.py", "s3://fruits/jobs/x", json.dumps({"endpoint": server.endpoint}), *arguments]
        submit = [home / "bin" / "spark-submit", "--master", "local-cluster[1,2,2048]", *options]
        command = [*submit, *step, "--cluster", SUBMITTED]
        done = subprocess.run(command, cwd=driver, env=environ, capture_output=True, text=True)
        result = json.loads((server.root / "fruits" / "jobs" / "x" / RESULT).read_text())
    assert result["exit_code"] == done.returncode == 0, done.stderr[-3000:]
    assert result["answer"]["rows"] == 40
    unpacked = [line for line in done.stderr.splitlines() if "Unpacking an archive" in line or "Untarring" in line]
    assert unpacked, done.stderr[-3000:]

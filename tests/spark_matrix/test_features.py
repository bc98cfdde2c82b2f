"""Workers with an old Python and an old Spark compute the same features, bit for bit, as a current Python."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest

from backends.spark.executor import SparkExecutor
from backends.spark.java import find_java
from fruits.images.sources.kinds import open_source
from fruits.jobs.tasks.featurize import FeaturizeSettings, featurize
from fruits.plan.partitions import even_partitions
from fruits.storage.commits import OwnedFolder, last_commit
from fruits.storage.folder import Folder
from tests.plans import planned

ROOT = Path(__file__).resolve().parents[2]
IMAGES, PARTITION_SIZE = 63, 8


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Images, their plan and features, and the network, written by the Python in FRUITS_PYTHON."""
    folder = tmp_path_factory.mktemp("reference")
    python = os.environ.get("FRUITS_PYTHON", sys.executable)
    subprocess.run([python, "-m", "tests.spark_matrix.reference", str(folder)], cwd=ROOT, check=True, timeout=170)
    return folder


def test_features_equal_those_of_another_python(reference, tmp_path):
    for folder in ("commits", "plan"):
        shutil.copytree(reference / "out" / folder, tmp_path / folder)
    network = pickle.loads((reference / "network.pickle").read_bytes())
    commit = last_commit(Folder(str(reference / "out")))
    out = OwnedFolder(Folder(str(tmp_path)), commit.owner, commit.number)
    fingerprint = commit.job["features"]["fingerprint"]
    source = FeaturizeSettings(open_source(str(reference / "images")), out, network, fingerprint)
    partitions = even_partitions(IMAGES, PARTITION_SIZE)
    with SparkExecutor() as executor:  # reuses a running session of the suite
        reports = executor.map(featurize, [planned(partition, commit.owner) for partition in partitions], shared=source)
    assert sum(report.rows for report in reports) == IMAGES - 3
    for kind in ("features", "rejects"):
        expected = sorted((reference / "out" / kind).iterdir())
        assert len(expected) == len(partitions)
        for part in expected:
            assert pq.read_table(tmp_path / kind / part.name).equals(pq.read_table(part))


@pytest.mark.skipif(pyspark.__version__ < "4", reason="Spark Connect is supported from Spark 4 on")
def test_frames_of_spark_connect_have_the_bits_of_another_python(reference):
    variables = {
        "JAVA_HOME": str(find_java(pyspark.__version__)),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    command = [sys.executable, "-m", "tests.spark_matrix.connect", str(reference)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"equal {IMAGES - 3} 3\n")

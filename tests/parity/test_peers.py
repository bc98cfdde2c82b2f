"""The benchmark peers do the same work: their features and PCA scores agree with those of Fruits."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from backends.local import LocalExecutor
from benchmarks.peers import PEERS
from fruits.images.sample import generate
from fruits.jobs import pipeline
from fruits.jobs.job import Job
from tests.conftest import LONG

IMAGES = 24
COMPONENTS = 3
TESTED = [name for name in PEERS if name != "ray"]  # ray_openvino has its session and files, daft its model
SHORTER = {"notebook": "peer.PARTITIONS = 2; "}  # one network is built per partition

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not LONG, reason="`make test-peers`; half a minute each. test_bench.py measures one"),
]


def read(folder: Path) -> tuple[list[tuple[str, str]], dict[str, np.ndarray]]:
    """Return the paths and labels of Parquet rows, sorted by path, and their vectors as float64."""
    table = pq.read_table(folder).sort_by("path").to_pydict()
    keys = list(zip(table.pop("path"), table.pop("label"), strict=True))
    return keys, {name: np.array(values, np.float64) for name, values in table.items()}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "images of fruit"
    generate(folder, images=IMAGES, labels=4)
    for file in folder.rglob("*.*"):
        if file.suffix != ".jpg":  # peers read no other format
            file.unlink()
    return folder


@pytest.fixture(scope="module")
def reference(images: Path) -> Path:
    out = images.with_name("reference")
    job = Job(images=str(images), out=str(out), components=COMPONENTS, columns=("path", "label", "pca_features"))
    with LocalExecutor(workers=1) as executor:
        pipeline.run(job, executor)
    return out


@pytest.mark.parametrize("name", TESTED)
def test_a_peer_gives_the_features_and_scores_of_fruits(
    name: str, images: Path, reference: Path, tmp_path: Path
) -> None:
    module = f"benchmarks.peers.{name}"
    missing = [package for package in importlib.import_module(module).REQUIRES if not importlib.util.find_spec(package)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'fruits[bench,spark,tensorflow]'")
    program = (
        f"from benchmarks.peers import command_line, {name} as peer; {SHORTER.get(name, '')}command_line(peer.run)"
    )
    command = [sys.executable, "-c", program, str(images)]
    command += ["--out", str(tmp_path / "out"), "--components", str(COMPONENTS)]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    seconds = json.loads(done.stdout)
    assert list(seconds) == ["start", "featurize", "fit", "write"]
    assert min(seconds.values()) > 0

    keys, found = read(tmp_path / "out" / "features")
    expected_keys, expected = read(reference / "features")
    assert keys == expected_keys
    assert len(keys) >= 20
    largest = 0 if name.endswith("openvino") else 1e-3  # the same network and decoding give the same bits
    assert np.abs(found["features"] - expected["features"]).max() <= largest
    assert cosines(found["features"], expected["features"]).min() >= 0.9999

    # Signs, and n or n - 1 in the standard deviation, differ between libraries; the cosine ignores both.
    row_keys, rows = read(tmp_path / "out" / "rows")
    assert row_keys == expected_keys
    assert list(rows) == ["features", "scaled_features", "pca_features"]
    expected_scores = read(reference / "rows")[1]["pca_features"]
    assert np.abs(cosines(rows["pca_features"].T, expected_scores.T)).min() >= 0.9999

"""An image that crashes the decoder is rejected, and the job continues. Each job runs in a separate process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import backends
from tests.conformance.conftest import ENGINES
from tests.outputs import stored

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
# A sitecustomize module, which every process of the job imports first.
CRASHING_DECODER = """
import signal
from PIL.BmpImagePlugin import BmpImageFile

load = BmpImageFile.load

def crash(self):
    if self.size == (13, 13):
        signal.raise_signal(signal.SIGSEGV)
    return load(self)

BmpImageFile.load = crash
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """30 images in four partitions; two of the second one have 13 x 13 pixels."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(30):
        size = 13 if number in (9, 12) else 20
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{number:02d}.bmp")
    (folder / "14.bmp").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def crashing_decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    (folder / "sitecustomize.py").write_text(CRASHING_DECODER)
    return folder


def run_job(name, images, out, *path):
    return subprocess.run(
        [sys.executable, "-m", "tests.conformance.crashing", name, str(images), str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "undisturbed"
    done = run_job("local", images, out)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"empty": 1}), done.stderr
    return features(out)


def features(out):
    rows = [row for part in sorted((out / "features").glob("part-*")) for row in pq.read_table(part).to_pylist()]
    return {row["path"]: row["features"] for row in rows}


@pytest.mark.parametrize("name", list(backends.BACKENDS))
def test_image_that_crashes_the_decoder_is_rejected(name, images, crashing_decoder, undisturbed, tmp_path):
    out = tmp_path / "out"
    done = run_job(name, images, out, crashing_decoder)
    if not ENGINES[name].processes:  # the driver crashes too; the same command resumes
        assert done.returncode == -signal.SIGSEGV
        done = run_job(name, images, out, crashing_decoder)
    assert (done.returncode, json.loads(done.stdout or "{}")) == (0, {"crashed": 2, "empty": 1}), done.stderr
    rejects = pq.read_table(stored(out, "rejects/part-00001.parquet")).to_pylist()
    assert [row["path"] for row in rejects] == ["09.bmp", "12.bmp", "14.bmp"]
    assert "SIGSEGV" in rejects[0]["detail"]
    assert features(out) == {path: values for path, values in undisturbed.items() if path not in ("09.bmp", "12.bmp")}
    assert [str(path) for path in out.rglob("*.tmp")] == []

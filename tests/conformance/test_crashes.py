"""An image that crashes the decoder is rejected, and the job continues. Each job runs in a separate process.

None of its processes imports modules from the current folder, also after the death of a worker.
"""

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
SECONDS = 300
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

NAMES = """
    fruits backends tests numpy pandas pyarrow PIL dask distributed tornado cloudpickle pyspark py4j psutil yaml
    openvino cryptography threadpoolctl orjson fsspec numbers types json random typing signal queue socket
    struct enum re copy ssl abc io os site runpy threading traceback inspect ast token secrets platform pickle
    selectors logging decimal calendar sitecustomize usercustomize string code multiprocessing subprocess
    asyncio tempfile
""".split()


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


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of modules and packages that record their import, and its record."""
    folder, record = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("record") / "imports"
    source = f"open({str(record)!r}, 'a').write(__file__ + chr(10))\nraise SystemExit(77)\n"
    for number, name in enumerate(NAMES):
        if number % 2:
            (folder / name).mkdir()
        (folder / (f"{name}/__init__.py" if number % 2 else f"{name}.py")).write_text(source)
    return folder, record


def run_job(name, images, out, *path, folder=ROOT):
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("crashing.py")), name, str(images), str(out)],
        cwd=folder,
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
def test_image_that_crashes_the_decoder_is_rejected_and_nothing_in_the_current_folder_is_imported(
    name, images, crashing_decoder, hostile, undisturbed, tmp_path
):
    out, (folder, record) = tmp_path / "out", hostile
    done = run_job(name, images, out, crashing_decoder, folder=folder)
    if not ENGINES[name].processes:  # the driver crashes too; the same command resumes
        assert done.returncode == -signal.SIGSEGV
        done = run_job(name, images, out, crashing_decoder, folder=folder)
    assert not record.exists(), record.read_text()
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == set(NAMES)  # nothing was written there either
    assert (done.returncode, json.loads(done.stdout or "{}")) == (0, {"crashed": 2, "empty": 1}), done.stderr
    rejects = pq.read_table(stored(out, "rejects/part-00001.parquet")).to_pylist()
    assert [row["path"] for row in rejects] == ["09.bmp", "12.bmp", "14.bmp"]
    assert "SIGSEGV" in rejects[0]["detail"]
    assert features(out) == {path: values for path, values in undisturbed.items() if path not in ("09.bmp", "12.bmp")}
    assert [str(path) for path in out.rglob("*.tmp")] == []


SOLVE = """
import numpy as np
from fruits.model.eigh import eigh
assert eigh(np.eye(3))[0].tolist() == [1, 1, 1]
"""


def test_solver_process_imports_nothing_from_the_current_folder(hostile, tmp_path):
    folder, record = hostile
    (tmp_path / "solve.py").write_text(SOLVE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "solve.py")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert not record.exists(), record.read_text()
    assert done.returncode == 0, done.stderr


def test_modules_of_the_hostile_folder_record_their_import(hostile, tmp_path):
    """The tests above can fail."""
    folder, record = hostile
    done = subprocess.run([sys.executable, "-m", "calendar"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 77
    assert str(folder) in record.read_text()
    record.unlink()


@pytest.mark.parametrize("started", [["-c", "{}"], ["-m", "program"]], ids=["-c", "-m"])
def test_current_folder_is_not_passed_on_where_python_itself_added_it(started, tmp_path):
    program = "from fruits.machine.subprocesses import import_folders; print(*import_folders(), sep=chr(10))"
    (tmp_path / "program.py").write_text(program)
    arguments = [argument.replace("{}", program) for argument in started]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True)
    folders = done.stdout.splitlines()
    assert str(ROOT) in folders, done.stderr
    assert str(tmp_path) not in folders
    environ["PYTHONPATH"] += os.pathsep + str(tmp_path)  # named by the user
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert str(tmp_path) in done.stdout.splitlines(), done.stderr

"""No process of a job imports modules from the current folder, also after the death of a worker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from tests.conformance.conftest import ENGINES
from tests.conformance.test_crashes import CRASHING_DECODER, ROOT, SECONDS, images

__all__ = ["images"]

NAMES = """
    fruits backends tests numpy pandas pyarrow PIL dask distributed tornado cloudpickle pyspark py4j psutil yaml
    openvino cryptography threadpoolctl orjson fsspec numbers types json random typing signal queue socket
    struct enum re copy ssl abc io os site runpy threading traceback inspect ast token secrets platform pickle
    selectors logging decimal calendar sitecustomize usercustomize string code multiprocessing subprocess
    asyncio tempfile
""".split()


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


@pytest.mark.parametrize("name", list(backends.BACKENDS))
def test_nothing_in_the_current_folder_is_imported(name, images, hostile, tmp_path):
    folder, record = hostile
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "sitecustomize.py").write_text(CRASHING_DECODER)

    def run():
        return subprocess.run(
            [sys.executable, str(Path(__file__).with_name("crashing.py")), name, str(images), str(tmp_path / "out")],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "decoder"), str(ROOT)])},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    done = run()
    if not ENGINES[name].processes:  # the driver crashed
        assert done.returncode == -signal.SIGSEGV
        done = run()
    assert not record.exists(), record.read_text()
    assert (done.returncode, json.loads(done.stdout or "{}")) == (0, {"crashed": 2, "empty": 1}), done.stderr
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == set(NAMES)  # nothing was written there either


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
    """The test above can fail."""
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

"""Output, child processes and open ports of each executor, observed from outside in a separate process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import backends
from tests.conformance import tasks
from tests.conformance.conftest import ENGINES, JAVA_WARNING
from tests.processes import ended, listening

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300


@pytest.fixture(params=list(backends.BACKENDS))
def name(request):
    return request.param


@pytest.fixture
def program(name, tmp_path):
    """Return a function that starts tests.conformance.lifecycle in its own session, without thread limits."""
    environ = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.lifecycle", name, str(tmp_path), *arguments],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_executor_is_silent_leaves_no_process_and_can_start_again(program, name):
    process = program()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err.replace(JAVA_WARNING, "")) == (0, "")
    printed = json.loads(out)
    assert [parallelism for parallelism, *_ in printed["observed"]] == [2, 2]
    assert printed["left"] == []
    if ENGINES[name].processes:
        for _, environs, children in printed["observed"]:
            assert children
            assert environs == [{name: "1" for name in environs[0]}] * 4


def test_executor_listens_on_loopback_and_ctrl_c_stops_it_silently(program, name, tmp_path):
    if not ENGINES[name].processes:
        pytest.skip(f"the tasks of {name} run in the driver's process, which waits for running tasks")
    process = program("wait")
    tasks.wait_for(tmp_path / "0")
    family = psutil.Process(process.pid).children(recursive=True)
    addresses = {ip for member in (psutil.Process(process.pid), *family) for ip, _ in listening(member)}
    assert addresses == {"127.0.0.1"}
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err.replace(JAVA_WARNING, "")) == (130, "", "")
    assert ended(family)

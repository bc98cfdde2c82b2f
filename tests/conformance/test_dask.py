"""Tests of Dask only: running clusters, replacement of workers, and arguments."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from fruits.errors import JobError, SettingsError
from tests.conformance import tasks

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

from backends.dask import cluster as dask_cluster  # noqa: E402
from backends.dask.executor import DaskExecutor  # noqa: E402


@pytest.fixture
def cluster():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def test_attached_cluster_is_left_running(cluster):
    for _ in range(2):
        with DaskExecutor(address=cluster.scheduler_address) as executor:
            assert executor.parallelism == 3
            assert executor.map(tasks.square, range(9)) == [n * n for n in range(9)]
    assert cluster.status.name == "running"


def test_address_of_the_dashboard(cluster):
    with DaskExecutor(address=cluster.scheduler_address) as executor:
        assert urlsplit(executor.dashboard).port == urlsplit(cluster.dashboard_link).port
    with DaskExecutor(workers=1, dashboard_address="127.0.0.1:0") as executor:
        assert executor.dashboard.startswith("http://127.0.0.1:")


def worker_setting(name, shared):
    return dask.config.get(name)


def test_started_workers_have_profiling_and_frequent_ticks_disabled():
    names = ["distributed.worker.profile.enabled", "distributed.admin.tick.interval"]
    before = [dask.config.get(name) for name in names]
    with DaskExecutor(workers=1) as executor:
        assert executor.map(worker_setting, names) == [False, "1s"]
    assert [dask.config.get(name) for name in names] == before


def test_workers_that_join_later_receive_the_shared_value(cluster):
    with DaskExecutor(address=cluster.scheduler_address) as executor:

        def progress(index, outcome):
            if executor.parallelism == 3:
                cluster.scale(2)
                cluster.wait_for_workers(2)

        assert executor.map(tasks.echo, range(60), shared="it", progress=progress) == [(n, "it") for n in range(60)]
        assert executor.parallelism == 6


def fruits_plugins(plugins):
    return [name for name in plugins if "fruits" in name]


def test_map_removes_its_shared_value_from_scheduler_and_workers(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        with DaskExecutor(client=client) as executor:
            executor.map(tasks.echo, range(9), shared="it")
        assert client.run_on_scheduler(lambda dask_scheduler: fruits_plugins(dask_scheduler.worker_plugins)) == []
        assert client.run(lambda dask_worker: fruits_plugins(dask_worker.plugins)) == {
            worker: [] for worker in client.nthreads()
        }


def workers_of_this_process():
    workers = set()
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # a zombie has no command line
            if "spawn_main" in " ".join(process.cmdline()):
                workers.add(process)
    return workers


@pytest.mark.timeout(120)
def test_worker_stopped_during_its_start_does_not_delay_closing(monkeypatch):
    monkeypatch.setattr(dask_cluster, "CLOSE_SECONDS", 2)
    others = workers_of_this_process()
    with DaskExecutor(workers=1) as executor:
        executor.start()
        (first,) = workers_of_this_process() - others
        first.kill()
        while not (second := workers_of_this_process() - others - {first}):
            time.sleep(0.005)
        second.pop().suspend()
    assert workers_of_this_process() == others


@pytest.mark.timeout(120)
def test_workers_that_exited_are_replaced(monkeypatch):
    monkeypatch.setattr(dask_cluster, "CHECK_SECONDS", 0.2)
    with DaskExecutor(workers=2) as executor:
        executor.start()
        cluster = executor._cluster
        first = set(cluster.workers.values())
        for nanny in first:
            cluster.sync(nanny.close)
        assert executor.map(tasks.square, [1, 2, 3]) == [1, 4, 9]
        executor.start()
        assert first.isdisjoint(cluster.workers.values())


@pytest.mark.timeout(120)
def test_script_without_main_guard_is_an_error(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "from backends.dask import cluster, executor as dask\n"
        "dask.POLL_SECONDS = cluster.CHECK_SECONDS = 0.2\n"
        "with dask.DaskExecutor(workers=1) as executor:\n"
        "    executor.start()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'Move its statements below a line: if __name__ == "__main__":' in done.stderr
    assert "JobError: Dask workers exit as they start, 3 times so far" in done.stderr


def test_address_without_scheduler_is_rejected(monkeypatch):
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(SettingsError, match=r"tcp://127\.0\.0\.1:9 .*dask scheduler"):
        DaskExecutor(address="tcp://127.0.0.1:9").start()


def test_missing_certificate_settings_are_named():
    with pytest.raises(SettingsError, match=r"not set: .*tls\.ca-file.*tls\.client\.cert.*tls\.client\.key"):
        DaskExecutor(address="tls://127.0.0.1:9").start()


def test_invalid_address_is_rejected():
    with pytest.raises(SettingsError, match="bogus"):
        DaskExecutor(address="bogus://127.0.0.1:1").start()


def test_cluster_with_other_versions_is_rejected(cluster, monkeypatch):
    def other(self):
        packages = {"python": "3.11.7.final.0", "dask": "2026.8.0", "distributed": "2026.8.0"}
        return {
            "client": {"packages": packages},
            "scheduler": {"packages": packages},
            "workers": {"tcp://far:1": {"packages": packages | {"dask": "2020.1.0", "python": "3.12.1.final.0"}}},
        }

    monkeypatch.setattr(distributed.Client, "get_versions", other)
    with pytest.raises(SettingsError, match=r"python 3\.12\.1.* on tcp://far:1 .*dask 2020\.1\.0"):
        DaskExecutor(address=cluster.scheduler_address).start()


def test_contradicting_arguments_are_rejected():
    with pytest.raises(SettingsError, match="not several"):
        DaskExecutor(workers=2, address="tcp://127.0.0.1:1")


@pytest.mark.timeout(120)
def test_scheduler_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("backends.dask.executor.ANSWER_SECONDS", 1)
    file = tmp_path / "scheduler.json"
    dask_command = Path(sys.executable).with_name("dask")
    options = ["--host", "tcp://127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    with subprocess.Popen([dask_command, "scheduler", *options], stderr=subprocess.DEVNULL) as process:
        try:
            while not file.exists() or not file.read_bytes().strip():
                assert process.poll() is None
                time.sleep(0.05)
            with DaskExecutor(address=json.loads(file.read_bytes())["address"]) as executor:
                assert executor.parallelism == 1
                process.send_signal(signal.SIGSTOP)
                with pytest.raises(JobError, match="has not answered for 1 seconds"):
                    _ = executor.parallelism
                process.send_signal(signal.SIGCONT)
        finally:
            process.kill()


def test_scheduler_that_exits_is_an_error():
    cluster = distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    with (
        DaskExecutor(address=cluster.scheduler_address) as executor,
        pytest.raises(JobError, match="scheduler is gone"),
    ):
        executor.map(tasks.square, range(50), progress=lambda *_: cluster.close())

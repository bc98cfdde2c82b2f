"""Tests of Dask only: running clusters, replacement of workers, and arguments."""

import asyncio
import copy
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from threadpoolctl import threadpool_info

from fruits.errors import JobError, SettingsError
from tests.conformance import tasks
from tests.processes import ended, listening

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

from backends.dask import cluster as dask_cluster  # noqa: E402
from backends.dask import executor as dask_executor  # noqa: E402
from backends.dask import local_cluster as dask_local  # noqa: E402
from backends.dask.cluster import CONFIG  # noqa: E402
from backends.dask.executor import DaskExecutor  # noqa: E402
from backends.dask.local_cluster import LocalCluster  # noqa: E402


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


def descendants(process):
    """Return a process and those that it started; not multiprocessing's tracker, which ends later."""
    members = []
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # a zombie has no command line
            if "resource_tracker" not in str(member.cmdline()):
                members.append(member)
    return members


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def local_cluster(check, workers=1):
    """Run a coroutine function on a cluster in this process."""

    async def run():
        async with LocalCluster(workers, "auto") as cluster:
            await check(cluster)

    with dask.config.set(CONFIG):
        asyncio.run(run())


def test_worker_stopped_during_its_start_does_not_delay_closing(monkeypatch):
    monkeypatch.setattr(dask_local, "CLOSE_SECONDS", 2)
    stopped = []

    async def check(cluster):
        await until(lambda: cluster._nannies and cluster._nannies[0].pid)
        stopped.append(psutil.Process(cluster._nannies[0].pid))
        stopped[0].suspend()

    local_cluster(check)
    assert ended(stopped)


def test_workers_that_exited_are_replaced():
    async def check(cluster):
        await until(lambda: len(cluster.scheduler.workers) == 2)
        first = set(cluster.scheduler.workers)
        await asyncio.gather(*(nanny.close() for nanny in list(cluster._nannies.values())))
        await until(lambda: len(cluster.scheduler.workers) == 2 and first.isdisjoint(cluster.scheduler.workers))

    local_cluster(check, workers=2)


def test_workers_that_never_start_are_an_error(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "a_module_that_does_not_exist")
    message = "Dask workers exit as they start, 3 times so far: ModuleNotFoundError: No module named 'a_module_that"
    with DaskExecutor(workers=1) as executor, pytest.raises(JobError, match=message):
        executor.start()


@pytest.mark.parametrize("arguments", [["script.py"], ["-"]], ids=["script", "stdin"])
def test_script_without_main_guard_runs_once(tmp_path, arguments):
    script = (
        "import backends, builtins\n"
        "print('imported')\n"
        "with backends.load('dask')(workers=1) as executor:\n"
        "    print(executor.map(builtins.divmod, [7], shared=2))\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, input=script, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n[(3, 1)]\n", "")


def test_two_executors_closed_in_opening_order_leave_this_process_unchanged():
    def state():
        handlers = [handler.level for handler in logging.getLogger("distributed").handlers]
        return dict(os.environ), copy.deepcopy(dask.config.config), handlers, list(sys.path), threadpool_info()

    before = state()
    first, second = DaskExecutor(workers=1), DaskExecutor(workers=1)
    try:
        assert first.map(tasks.square, [2]) == second.map(tasks.square, [2]) == [4]
        assert first._client.scheduler.address != second._client.scheduler.address
        first.close()
        assert second.map(tasks.square, [3]) == [9]
    finally:
        first.close()
        second.close()
    assert state() == before


def test_cluster_ends_with_its_driver(tmp_path):
    program = (
        "import backends, time; e = backends.load('dask')(workers=1)\n"
        "e.start(); print('ready', flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "ready\n"
        family = descendants(psutil.Process(driver.pid))
        assert len(family) >= 4  # the driver, its cluster, the server that forks, and a worker
        driver.kill()
    assert ended(family)


STRANGER = """
import asyncio, json, os, ssl, sys, urllib.request
from distributed import Client
from distributed.core import connect
from distributed.security import Security
other = Security.temporary()
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # after the imports: Python may be in a folder of root

async def attempts(addresses, ports):
    for address in addresses:
        plain = address.replace("tls://", "tcp://")
        for where, options in ((plain, {}), (address, {"connection_args": other.get_connection_args("client")})):
            try:
                comm = await connect(where, timeout=3, **options.get("connection_args", {}))
                await comm.write({"op": "identity", "reply": True})
                print("answered", where, await asyncio.wait_for(comm.read(), 3))
            except Exception as error:
                print("refused", where, type(error).__name__, file=sys.stderr)
    for port in ports:
        for page in ("health", "info/main/workers.html", "json/counts.json", "sitemap.json", "metrics"):
            try:
                print("answered", urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=3).read()[:99])
            except Exception as error:
                print("refused", port, page, type(error).__name__, file=sys.stderr)
    try:
        client = await Client(addresses[0].replace("tls://", "tcp://"), asynchronous=True, timeout=3)
        print("answered", await client.submit(os.getuid))
    except Exception as error:
        print("refused", "client", type(error).__name__, file=sys.stderr)

asyncio.run(attempts(*json.loads(sys.argv[1])))
"""


def test_other_users_of_this_machine_are_refused():
    if os.getuid() != 0:
        pytest.skip("needs root, to connect as another user")
    with DaskExecutor(workers=1) as executor:
        executor.start()
        client = executor._client
        ((worker, info),) = client.scheduler_info(n_workers=-1)["workers"].items()
        addresses = [client.scheduler.address, worker, info["nanny"]]
        assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
        ports = {port for member in descendants(psutil.Process()) for _, port in listening(member)}
        assert {int(address.rpartition(":")[2]) for address in addresses} <= ports
        arguments = json.dumps([addresses, sorted(ports)])
        done = subprocess.run([sys.executable, "-c", STRANGER, arguments], cwd="/", capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert done.stderr.count("refused") == 2 * len(addresses) + 5 * len(ports) + 1
        # Unix sockets, such as that of the server that forks workers, are in folders of this user alone.
        for member in descendants(psutil.Process()):
            for connection in member.net_connections("unix"):
                assert not connection.laddr.startswith(("@", "\0")), connection
                assert not connection.laddr or Path(connection.laddr).parent.stat().st_mode & 0o077 == 0, connection
        assert executor.map(tasks.square, [3]) == [9]


def test_folder_whose_path_is_too_long_for_sockets_is_named(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    message = r"x \(AF_UNIX path too long\)\. Set TMPDIR"
    with DaskExecutor(workers=1) as executor, pytest.raises(SettingsError, match=message):
        executor.start()


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
    with pytest.raises(
        SettingsError,
        match=r"tcp://far:1: python 3\.12\.1.* \(this machine has 3\.11\.7.*\), dask 2020\.1\.0 \(",
    ):
        DaskExecutor(address=cluster.scheduler_address).start()


def test_contradicting_arguments_are_rejected():
    with pytest.raises(SettingsError, match="not several"):
        DaskExecutor(workers=2, address="tcp://127.0.0.1:1")


def test_scheduler_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
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
                monkeypatch.setattr(dask_executor, "ANSWER_SECONDS", 1)
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


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(dask_executor, "POLL_SECONDS", 0.2)


INSTRUCTION = r"has had no workers for 2 seconds.*start workers with `dask worker tcp://127\.0\.0\.1:\d+ --nthreads 1`"


@pytest.mark.usefixtures("impatient")
def test_attached_scheduler_without_workers_is_reported_and_then_an_error():
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        DaskExecutor(address=cluster.scheduler_address, worker_timeout=2) as executor,
    ):
        notes = []
        executor.notify = notes.append
        with pytest.raises(JobError, match=INSTRUCTION):
            executor.start()
        assert notes == [f"the Dask scheduler at {cluster.scheduler_address} has no workers; waiting up to 2 s"]
        cluster.scale(1)
        cluster.wait_for_workers(1)
        assert executor.map(tasks.square, [3]) == [9]


@pytest.mark.usefixtures("impatient")
def test_departure_of_the_last_worker_is_reported_and_then_an_error():
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        DaskExecutor(address=cluster.scheduler_address, worker_timeout=2) as executor,
    ):
        notes = []
        executor.notify = notes.append

        def depart(*_):
            cluster.scale(0)
            while cluster.scheduler.workers:
                time.sleep(0.01)

        with pytest.raises(JobError, match=INSTRUCTION):
            executor.map(tasks.square, range(50), progress=depart)
        assert len(notes) == 1


def test_workers_without_fruits_are_named_in_one_message(monkeypatch, cluster):
    from importlib.metadata import PackageNotFoundError

    def run(self, function, name, on_error):
        missing = {"version": PackageNotFoundError(name), "find_spec": None}[function.__name__]
        return dict.fromkeys(["tcp://a:1", "tcp://b:1"], missing)

    monkeypatch.setattr(distributed.Client, "run", run)
    message = (
        r"^The Dask cluster at .* does not fit this machine\. tcp://a:1, tcp://b:1: fruits 0\.1\.0 is not installed"
    )
    with DaskExecutor(address=cluster.scheduler_address) as executor, pytest.raises(SettingsError, match=message):
        executor.start()


WORKER = """
import asyncio, sys
from importlib import metadata

class Missing:  # an environment without the package
    def find_spec(name, *_):
        if name.partition(".")[0] in ("fruits", "backends"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

version = metadata.version

def other_version(name):
    if name == "fruits" and sys.argv[2] == "missing":
        raise metadata.PackageNotFoundError(name)
    return "2020.1.0" if name == "dask" and sys.argv[2] == "version" else version(name)

metadata.version = other_version
if sys.argv[2] == "missing":
    sys.meta_path.insert(0, Missing)
from distributed import Worker

async def main():
    async with Worker(sys.argv[1], nthreads=1, dashboard=False) as worker:
        await worker.finished()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ("missing", r"tcp://\S+: fruits 0\.1\.0 is not installed \(pip install 'fruits\[dask\]'\)\. Install the same"),
        ("version", r"tcp://\S+: dask 2020\.1\.0 \(this machine has 20[\d.]+\)\. Install the same"),
    ],
)
def test_real_worker_that_does_not_fit_is_named_in_one_message(tmp_path, difference, message):
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        subprocess.Popen(
            [sys.executable, "-c", WORKER, cluster.scheduler_address, difference],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as worker,
        DaskExecutor(address=cluster.scheduler_address) as executor,
    ):
        try:
            with pytest.raises(SettingsError, match=message):
                executor.map(tasks.square, [3])
        finally:
            worker.kill()


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1", "missing port number"), ("http://127.0.0.1:8787", "unknown address scheme")]
)
def test_invalid_address_is_one_message(address, reason):
    program = f"import backends; backends.load('dask')(address={address!r}).start()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(rf"SettingsError: No Dask scheduler answered at {address}.*{reason}", done.stderr)
    assert "Exception ignored" not in done.stderr

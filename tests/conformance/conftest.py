"""What the suite needs of each engine: how it is made, handed something, and what it cannot do."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

import backends

WORKERS = 2
JAVA_SAYS = "WARNING: Using incubator modules: jdk.incubator.vector\n"  # that of Spark 4, and nothing silences it


@dataclass(frozen=True)
class Engine:
    """One row for each backend: a deviation from the suite has to be written down here.

    ``hand_in`` lends an executor a client or a session of the caller's, and checks in the end that it is still open.
    ``processes``: tasks run in processes of their own. Where they do not, the death of a worker is that of the job,
    and results and shared values do not travel.
    """

    hand_in: Callable[[], AbstractContextManager[object]] | None
    processes: bool


@contextmanager
def lend_client() -> Iterator[object]:
    from distributed import Client, LocalCluster

    from backends.dask.executor import DaskExecutor

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with DaskExecutor(client=client) as executor:
            yield executor
        assert client.submit(sum, (1, 2)).result() == 3


@contextmanager
def lend_session() -> Iterator[object]:
    from pyspark.sql import SparkSession

    from backends.spark.executor import SparkExecutor

    session = SparkSession.getActiveSession()  # Spark allows one in a process: that of the fixture `executor`
    with SparkExecutor(session=session) as executor:
        yield executor
    assert session.range(3).count() == 3


ENGINES = {
    "dask": Engine(hand_in=lend_client, processes=True),
    "spark": Engine(hand_in=lend_session, processes=True),
    "local": Engine(hand_in=None, processes=False),
}
assert set(ENGINES) == set(backends.BACKENDS)  # a new backend has to be added above


@pytest.fixture(scope="session", params=list(backends.BACKENDS))
def engine(request):
    return request.param


@pytest.fixture(scope="session")
def executor(engine):
    with backends.load(engine)(workers=WORKERS) as executor:
        yield executor


@pytest.fixture
def lent(engine, executor):
    """An executor on something of the caller's."""
    hand_in = ENGINES[engine].hand_in
    if hand_in is None:
        pytest.skip(f"{engine} takes nothing")
    with hand_in() as lent:
        yield lent


@pytest.fixture
def processes(engine):
    """Leave out a backend whose tasks run in the driver's process."""
    if not ENGINES[engine].processes:
        pytest.skip(f"the tasks of {engine} run in this process")

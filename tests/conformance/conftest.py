"""Properties of each engine that the suite depends on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

import backends

WORKERS = 2
JAVA_WARNING = "WARNING: Using incubator modules: jdk.incubator.vector\n"  # of Spark 4; it cannot be disabled


@dataclass(frozen=True)
class Engine:
    """Differences of one backend from the suite.

    Attributes
    ----------
    external : callable, optional
        Yields an executor on a client or session of the caller, and checks at the end that it is still open.
    processes : bool
        Tasks run in separate processes. Otherwise the death of a worker ends the job, and nothing is pickled.
    native : bool
        The executor is a :class:`fruits.executor.NativeSolver`.
    """

    external: Callable[[], AbstractContextManager[object]] | None
    processes: bool
    native: bool


@contextmanager
def external_client() -> Iterator[object]:
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
def external_session() -> Iterator[object]:
    from pyspark.sql import SparkSession

    from backends.spark.executor import SparkExecutor

    session = SparkSession.getActiveSession()  # of the fixture `executor`: Spark allows one in a process
    with SparkExecutor(session=session) as executor:
        yield executor
    assert session.range(3).count() == 3


ENGINES = {
    "dask": Engine(external=external_client, processes=True, native=True),
    "spark": Engine(external=external_session, processes=True, native=True),
    "local": Engine(external=None, processes=False, native=False),
}
assert set(ENGINES) == set(backends.BACKENDS)  # add new backends above


@pytest.fixture(scope="session", params=list(backends.BACKENDS))
def engine(request):
    return request.param


@pytest.fixture(scope="session")
def executor(engine):
    with backends.load(engine)(workers=WORKERS) as executor:
        yield executor


@pytest.fixture
def external(engine, executor):
    """An executor on a client or session of the caller."""
    open_external = ENGINES[engine].external
    if open_external is None:
        pytest.skip(f"{engine} accepts no client or session")
    with open_external() as external:
        yield external


@pytest.fixture
def processes(engine):
    """Skip a backend whose tasks run in the driver's process."""
    if not ENGINES[engine].processes:
        pytest.skip(f"the tasks of {engine} run in this process")

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import backends
import fruits
from backends.local import LocalExecutor
from fruits import executor
from fruits.errors import DatasetError, SettingsError, TaskError
from fruits.executor import check_executor, native_solver, run_with_retries


@pytest.fixture(autouse=True)
def delays(monkeypatch):
    """Record the delays between retries instead of sleeping."""
    slept = []
    monkeypatch.setattr(executor.time, "sleep", slept.append)
    return slept


def test_value_is_returned():
    assert run_with_retries(lambda item, shared: item + shared, 2, 3, 0).result() == 5


def test_failed_task_is_retried_with_growing_delays_until_it_succeeds(delays):
    calls = []

    def third_time(item, shared):
        calls.append(item)
        if len(calls) < 3:
            raise OSError("connection reset")
        return "done"

    assert run_with_retries(third_time, 1, None, 5).result() == "done"
    assert delays == [0.2, 0.4]


def test_error_names_the_item_the_cause_and_the_number_of_attempts():
    def always(item, shared):
        raise ValueError("no good")

    outcome = run_with_retries(always, "partition 7", None, 2)
    with pytest.raises(TaskError, match=r"partition 7 failed after 3 attempts. ValueError: no good") as caught:
        outcome.result()
    assert "Traceback" not in str(caught.value)
    assert "in always" in caught.value.__notes__[0]


def test_input_error_is_not_retried():
    calls = []

    def refuse(item, shared):
        calls.append(item)
        raise DatasetError("bad")

    with pytest.raises(DatasetError, match="bad"):
        run_with_retries(refuse, 1, None, 5).result()
    assert len(calls) == 1


def test_linear_algebra_uses_one_thread_in_a_task():
    import numpy as np

    assert np.linalg.norm([3.0, 4.0]) == 5  # loads numpy's library
    with threadpool_limits(2):
        pools = run_with_retries(lambda item, shared: threadpool_info(), 1, None, 0).result()
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}


@pytest.mark.parametrize("controlled", [False, True], ids=["", "main thread controls the limit"])
def test_linear_algebra_uses_one_thread_until_the_last_of_overlapping_maps_ends(controlled):
    import numpy as np

    assert np.linalg.norm([3.0, 4.0]) == 5  # loads numpy's library
    threads = lambda: {pool["num_threads"] for pool in threadpool_info()}  # noqa: E731
    before = threads()
    if controlled:
        with threadpool_limits(2):
            pass
    other_runs, this_ended = threading.Event(), threading.Event()

    def wait(item, shared):
        other_runs.set()
        assert this_ended.wait(60)
        return threads()

    with ThreadPoolExecutor(1) as pool:

        def this(item, shared):
            running = pool.submit(LocalExecutor().map, wait, [1])
            assert other_runs.wait(60)
            return running, threads()

        ((other, here),) = LocalExecutor().map(this, [1])
        this_ended.set()
        assert here == {1}
        assert other.result() == [{1}]
    LocalExecutor().map(lambda *_: None, [1])  # the limit is lifted by the thread that set it
    assert threads() == before


def test_backend_without_estimators_is_not_a_native_solver():
    with pytest.raises(SettingsError, match=r"'local' has no estimators.*dask or spark"):
        native_solver(LocalExecutor())


@pytest.mark.parametrize("name", ["local", "dask", "spark"])
def test_class_in_the_place_of_an_executor_is_explained(name):
    loaded = backends.load(name)
    with pytest.raises(SettingsError, match=rf'{loaded.__name__} is a class.*backends.load\("{name}"\)\(workers=2\)'):
        check_executor(loaded)
    with pytest.raises(SettingsError, match=r"is a class of executors"), loaded:
        pass
    job = fruits.Job(images="i", out="o")
    with pytest.raises(SettingsError, match=r"is a class of executors"):
        fruits.run(job, loaded)
    check_executor(loaded(workers=2))


def test_other_values_in_the_place_of_an_executor_are_explained():
    with pytest.raises(SettingsError, match=r"'dask' is not an executor. Create one"):
        fruits.fit(fruits.Job(images="i", out="o"), "dask")


def test_repr_of_an_executor_is_the_call_that_creates_it():
    assert repr(backends.load("local")(workers=3)) == "LocalExecutor(workers=3)"
    assert repr(backends.load("dask")(workers=3)) == "DaskExecutor(workers=3)"
    assert repr(backends.load("dask")(address="tcp://h:1")) == "DaskExecutor(address='tcp://h:1')"
    assert repr(backends.load("spark")(workers=3)) == "SparkExecutor(workers=3)"
    assert repr(backends.load("spark")(master="yarn")) == "SparkExecutor(master='yarn')"


def test_traceback_of_a_task_contains_no_secret():
    def fail(item, shared):
        raise OSError("http://user:pa55word@host/x is gone")

    with pytest.raises(TaskError) as caught:
        run_with_retries(fail, "x", None, 0).result()
    assert "http://***@host/x" in str(caught.value)
    assert "http://***@host/x" in caught.value.__notes__[0]
    assert "pa55word" not in str(caught.value) + caught.value.__notes__[0].replace(
        'raise OSError("http://user:pa55word@host/x is gone")', ""
    )


@pytest.mark.parametrize(("workers", "allowed"), [(0, "1 or more"), (1.5, "a whole number"), ("2", "a whole number")])
@pytest.mark.parametrize("backend", ["local", "dask", "spark"])
def test_count_of_workers_is_checked(backend, workers, allowed):
    with pytest.raises(SettingsError, match=rf"^`workers` = .*: not allowed. Allowed: {allowed}\.$"):
        backends.load(backend)(workers=workers)

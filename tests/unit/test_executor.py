import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from backends.local import LocalExecutor
from fruits import executor
from fruits.errors import DatasetError, SettingsError, TaskError
from fruits.executor import native_solver, run_with_retries


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


def test_backend_without_estimators_is_not_a_native_solver():
    with pytest.raises(SettingsError, match=r"'local' has no estimators.*dask or spark"):
        native_solver(LocalExecutor())

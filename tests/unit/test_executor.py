import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from backends.local import LocalExecutor
from fruits import executor
from fruits.errors import DatasetError, SettingsError, TaskError
from fruits.executor import attempt


@pytest.fixture(autouse=True)
def delays(monkeypatch):
    """Let no test wait: retries are counted here, and slept nowhere."""
    slept = []
    monkeypatch.setattr(executor.time, "sleep", slept.append)
    return slept


def test_a_value_comes_back():
    assert attempt(lambda item, shared: item + shared, 2, 3, 0).result() == 5


def test_a_failure_is_tried_again_with_growing_pauses_until_it_works(delays):
    calls = []

    def third_time(item, shared):
        calls.append(item)
        if len(calls) < 3:
            raise OSError("the network blinked")
        return "done"

    assert attempt(third_time, 1, None, 5).result() == "done"
    assert delays == [0.2, 0.4]


def test_a_failure_that_stays_names_the_item_the_cause_and_the_number_of_attempts():
    def always(item, shared):
        raise ValueError("no good")

    outcome = attempt(always, "partition 7", None, 2)
    with pytest.raises(TaskError, match=r"partition 7 failed after 3 attempts. ValueError: no good") as caught:
        outcome.result()
    assert "Traceback" not in str(caught.value)
    assert "in always" in caught.value.__notes__[0]


def test_bad_input_is_not_tried_again():
    calls = []

    def refuse(item, shared):
        calls.append(item)
        raise DatasetError("bad")

    with pytest.raises(DatasetError, match="bad"):
        attempt(refuse, 1, None, 5).result()
    assert len(calls) == 1


def test_linear_algebra_has_one_thread_in_a_task():
    import numpy as np

    assert np.linalg.norm([3.0, 4.0]) == 5  # numpy's library is loaded
    with threadpool_limits(2):
        pools = attempt(lambda item, shared: threadpool_info(), 1, None, 0).result()
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}


def test_a_backend_without_estimators_says_so():
    with pytest.raises(SettingsError, match=r"'local' has no estimators.*dask or spark"):
        LocalExecutor().fit_native([], [], 1)

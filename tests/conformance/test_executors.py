"""The suite for all executors."""

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from fruits.errors import DatasetError, SettingsError, TaskError
from tests.conformance import tasks
from tests.conformance.conftest import ENGINES, WORKERS


@dataclass(frozen=True)
class Point:
    name: str
    index: int


def test_name_and_number_of_slots(engine, executor):
    assert executor.name == engine
    assert executor.parallelism == WORKERS
    assert executor.dashboard is None  # the default


def test_results_are_in_item_order(executor):
    executor.start()
    assert executor.map(tasks.square, range(25)) == [n * n for n in range(25)]


@pytest.mark.parametrize("items", [[], [7]])
def test_zero_and_one_items(executor, items):
    reported = []
    results = executor.map(tasks.square, items, progress=lambda index, outcome: reported.append(outcome.value))
    assert results == reported == [n * n for n in items]


@pytest.mark.parametrize(
    "item",
    ["Äpfel/梨 \u202e🍐\n#%'\"", (len, "abc"), ["a", ("b",)], {"a": 1}, Point("Straße", 3), None],
    ids=["text", "call", "list", "dict", "dataclass", "none"],
)
def test_item_reaches_the_worker_unchanged(executor, item):
    assert executor.map(tasks.echo, [item], shared=item) == [(item, item)]


def test_progress_is_called_once_per_item_on_the_drivers_thread_with_host_and_process(engine, executor):
    reported, threads, places = [], set(), set()

    def progress(index, outcome):
        reported.append((index, outcome.value))
        places.add((outcome.host, outcome.pid != os.getpid()))
        assert outcome.attempt == 1
        assert outcome.seconds > 0
        threads.add((os.getpid(), threading.get_ident()))

    executor.map(tasks.square, range(12), progress=progress)
    assert sorted(reported) == [(n, n * n) for n in range(12)]
    assert threads == {(os.getpid(), threading.get_ident())}
    assert places == {(socket.gethostname(), ENGINES[engine].processes)}


def test_progress_is_called_while_the_map_runs(executor, tmp_path):
    last = 4 * WORKERS
    executor.map(
        tasks.behind_gate,
        range(last + 1),
        shared=(str(tmp_path / "gate"), last),
        retries=0,
        progress=lambda *_: (tmp_path / "gate").touch(),
    )


def test_only_a_window_of_items_is_submitted_at_a_time(executor):
    class Watched(Sequence):
        taken = 0

        def __len__(self):
            return 60

        def __getitem__(self, index):
            self.taken = max(self.taken, index + 1)
            return index

    items, reported, ahead = Watched(), [], []

    def progress(index, outcome):
        reported.append(index)
        ahead.append(items.taken - len(reported))

    executor.map(tasks.square, items, progress=progress)
    assert len(reported) == 60
    assert max(ahead) <= 4 * WORKERS


def test_shared_value_is_delivered_once_to_each_worker(engine, executor, tmp_path):
    value = tasks.Counted(str(tmp_path), "a value")
    assert executor.map(tasks.use, range(30), shared=value) == ["a value"] * 30
    counts = tasks.recorded(tmp_path)
    if ENGINES[engine].processes:
        assert counts.pop("pickled") == 1
        assert 1 <= len(counts) <= WORKERS
        assert set(counts.values()) == {1}
    else:
        assert counts == {}


def test_an_input_error_of_the_shared_value_is_raised_unchanged(processes, executor):
    with pytest.raises(SettingsError, match=r"^this worker has another network$"):
        executor.map(tasks.echo, range(3), shared=tasks.Refusing())
    assert executor.map(tasks.square, [3]) == [9]


def test_each_map_uses_its_own_shared_value(executor):
    for shared in ("one", "two"):
        assert executor.map(tasks.echo, range(6), shared=shared) == [(n, shared) for n in range(6)]


def test_shared_value_of_20_megabytes(executor):
    shared = os.urandom(20_000_000)
    assert executor.map(tasks.checksum, range(4), shared=shared) == [tasks.checksum(0, shared)] * 4


def test_results_of_a_megabyte(executor):
    assert executor.map(tasks.megabyte, range(8)) == [bytes([n]) * 2**20 for n in range(8)]


def test_tasks_run_in_the_expected_process_with_one_thread_for_linear_algebra(engine, executor):
    for process, threads in executor.map(tasks.describe, range(6)):
        assert (process != os.getpid()) == ENGINES[engine].processes
        assert set(threads) <= {1}


def test_item_is_retried_exactly_as_often_as_it_fails(executor, tmp_path):
    schedule = {1: 1, 4: 2}
    attempts = {}
    results = executor.map(
        tasks.by_schedule,
        range(6),
        shared=(str(tmp_path), schedule),
        retries=2,
        progress=lambda index, outcome: attempts.update({index: outcome.attempt}),
    )
    assert results == list(range(6))
    assert attempts == {n: 1 + schedule.get(n, 0) for n in range(6)}
    assert tasks.recorded(tmp_path) == {str(n): 1 + schedule.get(n, 0) for n in range(6)}


@pytest.mark.parametrize("retries", [0, 1])
def test_error_names_the_item_and_its_cause_when_retries_are_exhausted(executor, tmp_path, retries):
    with pytest.raises(TaskError, match=r"(?s)^pear failed .*ValueError: attempt on pear"):
        executor.map(tasks.by_schedule, ["apple", "pear"], shared=(str(tmp_path), {"pear": 9}), retries=retries)
    assert tasks.recorded(tmp_path)["pear"] == retries + 1
    assert executor.map(tasks.square, [3]) == [9]


def test_input_error_is_raised_unchanged_and_not_retried(executor, tmp_path):
    with pytest.raises(DatasetError, match=r"^stone is not a fruit$"):
        executor.map(tasks.refuse, ["stone"], shared=str(tmp_path))
    assert tasks.recorded(tmp_path) == {"stone": 1}


def test_result_that_cannot_be_pickled_names_its_item(processes, executor):
    with pytest.raises(TaskError, match=r"^a cherry failed"):
        executor.map(tasks.lock, ["a cherry"], retries=0)


def test_items_of_killed_workers_are_run_again(processes, executor, tmp_path):
    schedule = {3: 1, 8: 2}
    attempts = {}
    results = executor.map(
        tasks.die,
        range(12),
        shared=(str(tmp_path), schedule),
        progress=lambda index, outcome: attempts.update({index: outcome.attempt}),
    )
    assert results == list(range(12))
    assert all(attempts[n] > deaths for n, deaths in schedule.items())
    counts = tasks.recorded(tmp_path)
    # Results that are still on a worker when another item kills it are computed again.
    assert all(counts[str(n)] > deaths for n, deaths in schedule.items())


@pytest.mark.parametrize("retries", [0, 2])
def test_error_names_the_item_whose_workers_die(processes, executor, tmp_path, retries):
    items = ["apple", "pear", "plum", "quince", "peach"]
    with pytest.raises(TaskError, match=r"^plum failed.*the worker died"):
        executor.map(tasks.die, items, shared=(str(tmp_path), {"plum": 99}), retries=retries)
    assert tasks.recorded(tmp_path)["plum"] == retries + 1
    assert executor.map(tasks.square, range(6)) == [n * n for n in range(6)]


def test_interrupt_stops_the_map_but_not_the_executor(executor):
    def progress(index, outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor.map(tasks.square, range(40), progress=progress)
    assert executor.map(tasks.square, range(6)) == [n * n for n in range(6)]


def test_external_client_or_session_is_left_open(external):
    assert external.map(tasks.square, range(12)) == [n * n for n in range(12)]

"""The one suite that every executor passes."""

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from fruits.errors import DatasetError, TaskError
from tests.conformance import tasks
from tests.conformance.conftest import ENGINES, WORKERS


@dataclass(frozen=True)
class Place:
    name: str
    index: int


def test_it_has_a_name_and_as_many_slots_as_asked_for(engine, executor):
    assert executor.name == engine
    assert executor.parallelism == WORKERS
    assert executor.dashboard is None  # unless it is asked for


def test_results_come_in_the_order_of_the_items(executor):
    executor.start()
    assert executor.map(tasks.square, range(25)) == [n * n for n in range(25)]


@pytest.mark.parametrize("items", [[], [7]])
def test_no_item_and_one_item(executor, items):
    told = []
    results = executor.map(tasks.square, items, progress=lambda index, outcome: told.append(outcome.value))
    assert results == told == [n * n for n in items]


@pytest.mark.parametrize(
    "item",
    ["Äpfel/梨 \u202e🍐\n#%'\"", (len, "abc"), ["a", ("b",)], {"a": 1}, Place("Straße", 3), None],
    ids=["text", "call", "list", "dict", "dataclass", "none"],
)
def test_an_item_arrives_as_it_is(executor, item):
    assert executor.map(tasks.echo, [item], shared=item) == [(item, item)]


def test_progress_is_told_once_for_each_item_on_the_drivers_thread_and_where_it_ran(engine, executor):
    told, threads, places = [], set(), set()

    def progress(index, outcome):
        told.append((index, outcome.value))
        places.add((outcome.host, outcome.pid != os.getpid()))
        assert outcome.attempt == 1
        assert outcome.seconds > 0
        threads.add((os.getpid(), threading.get_ident()))

    executor.map(tasks.square, range(12), progress=progress)
    assert sorted(told) == [(n, n * n) for n in range(12)]
    assert threads == {(os.getpid(), threading.get_ident())}
    assert places == {(socket.gethostname(), ENGINES[engine].processes)}


def test_progress_is_told_while_the_map_runs(executor, tmp_path):
    last = 4 * WORKERS
    executor.map(
        tasks.behind_gate,
        range(last + 1),
        shared=(str(tmp_path / "gate"), last),
        retries=0,
        progress=lambda *_: (tmp_path / "gate").touch(),
    )


def test_what_is_submitted_is_a_window_and_not_the_job(executor):
    class Watched(Sequence):
        taken = 0

        def __len__(self):
            return 60

        def __getitem__(self, index):
            self.taken = max(self.taken, index + 1)
            return index

    items, told, ahead = Watched(), [], []

    def progress(index, outcome):
        told.append(index)
        ahead.append(items.taken - len(told))

    executor.map(tasks.square, items, progress=progress)
    assert len(told) == 60
    assert max(ahead) <= 4 * WORKERS


def test_the_shared_value_is_delivered_once_to_each_worker(engine, executor, tmp_path):
    value = tasks.Counted(str(tmp_path), "a value")
    assert executor.map(tasks.use, range(30), shared=value) == ["a value"] * 30
    noted = tasks.notes(tmp_path)
    if ENGINES[engine].processes:
        assert noted.pop("pickled") == 1
        assert 1 <= len(noted) <= WORKERS
        assert set(noted.values()) == {1}
    else:
        assert noted == {}


def test_each_map_has_its_own_shared_value(executor):
    for shared in ("one", "two"):
        assert executor.map(tasks.echo, range(6), shared=shared) == [(n, shared) for n in range(6)]


def test_a_shared_value_of_20_megabytes(executor):
    shared = os.urandom(20_000_000)
    assert executor.map(tasks.checksum, range(4), shared=shared) == [tasks.checksum(0, shared)] * 4


def test_results_of_a_megabyte(executor):
    assert executor.map(tasks.megabyte, range(8)) == [bytes([n]) * 2**20 for n in range(8)]


def test_tasks_run_where_the_table_says_on_one_thread_of_linear_algebra(engine, executor):
    for process, threads in executor.map(tasks.describe, range(6)):
        assert (process != os.getpid()) == ENGINES[engine].processes
        assert set(threads) <= {1}


def test_an_item_is_tried_again_exactly_as_often_as_it_fails(executor, tmp_path):
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
    assert tasks.notes(tmp_path) == {str(n): 1 + schedule.get(n, 0) for n in range(6)}


@pytest.mark.parametrize("retries", [0, 1])
def test_an_item_that_keeps_failing_is_named_with_its_cause(executor, tmp_path, retries):
    with pytest.raises(TaskError, match=r"(?s)^pear failed .*ValueError: attempt on pear"):
        executor.map(tasks.by_schedule, ["apple", "pear"], shared=(str(tmp_path), {"pear": 9}), retries=retries)
    assert tasks.notes(tmp_path)["pear"] == retries + 1
    assert executor.map(tasks.square, [3]) == [9]


def test_an_input_error_is_raised_as_it_is_and_never_retried(executor, tmp_path):
    with pytest.raises(DatasetError, match=r"^stone is no fruit$"):
        executor.map(tasks.refuse, ["stone"], shared=str(tmp_path))
    assert tasks.notes(tmp_path) == {"stone": 1}


def test_a_result_that_cannot_travel_names_its_item(processes, executor):
    with pytest.raises(TaskError, match=r"^a cherry failed"):
        executor.map(tasks.lock, ["a cherry"], retries=0)


def test_a_worker_that_is_killed_costs_nothing_but_time(processes, executor, tmp_path):
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
    noted = tasks.notes(tmp_path)
    # A result that was still on a worker when another item killed it is made once more.
    assert all(noted[str(n)] > deaths for n, deaths in schedule.items())


@pytest.mark.parametrize("retries", [0, 2])
def test_an_item_whose_workers_keep_dying_is_named(processes, executor, tmp_path, retries):
    items = ["apple", "pear", "plum", "quince", "peach"]
    with pytest.raises(TaskError, match=r"^plum failed.*the worker that ran it died"):
        executor.map(tasks.die, items, shared=(str(tmp_path), {"plum": 99}), retries=retries)
    assert tasks.notes(tmp_path)["plum"] == retries + 1
    assert executor.map(tasks.square, range(6)) == [n * n for n in range(6)]


def test_an_interrupt_stops_the_map_and_not_the_executor(executor):
    def progress(index, outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor.map(tasks.square, range(40), progress=progress)
    assert executor.map(tasks.square, range(6)) == [n * n for n in range(6)]


def test_what_was_handed_in_is_left_open(lent):
    assert lent.map(tasks.square, range(12)) == [n * n for n in range(12)]

"""Heartbeats, with a simulated clock and event."""

import queue
import threading

import pytest

from fruits.errors import JobError
from fruits.plan.partitions import Partition
from fruits.progress.heartbeat import SECONDS, UnderWay, Waiting, heartbeat
from fruits.progress.reporter import Silent

TIMEOUT = 60  # seconds


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Ended(threading.Event):
    """An event whose wait ends when the test lets time pass."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.timeouts = queue.Queue()
        self.elapsed = queue.Queue()

    def wait(self, timeout=None):
        self.timeouts.put(timeout)
        self.clock.now += self.elapsed.get(timeout=TIMEOUT)
        return self.is_set()

    def set(self):
        super().set()
        self.elapsed.put(0.0)

    def let_pass(self, seconds):
        """Let seconds pass, and return the timeout of the next wait."""
        self.elapsed.put(seconds)
        return self.timeouts.get(timeout=TIMEOUT)


class Recorder(Silent):
    def __init__(self):
        self.events = []

    def event(self, name, text=None, **fields):
        self.events.append((name, text, fields))


def heartbeat_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fruits-heartbeat")]


def test_heartbeat_is_reported_when_idle_and_its_thread_ends_with_the_stage():
    clock, listener = Clock(), Recorder()
    ended = Ended(clock)
    waiting = Waiting(2, 5, 2, [("partition 3 (8 images)", 45.0), ("partition 4 (8 images)", 31.0)])
    with heartbeat("featurize", listener, lambda: waiting, clock=clock, ended=ended) as finished:
        assert ended.timeouts.get(timeout=TIMEOUT) == SECONDS
        assert ended.let_pass(20) == SECONDS - 20  # woken early
        finished()
        assert ended.let_pass(SECONDS - 20) == 20  # an item has finished since
        assert listener.events == []
        assert ended.let_pass(20) == SECONDS
        assert ended.let_pass(SECONDS) == SECONDS
        assert len(heartbeat_threads()) == 1
    assert heartbeat_threads() == []
    unfinished = (
        "waiting on 2 workers for partition 3 (8 images) for 45.0 s, partition 4 (8 images) for 31.0 s; 5 to come"
    )
    assert [text for _, text, _ in listener.events] == [
        f"featurize: still running; no progress for 30.0 s; {unfinished}",
        f"featurize: still running; no progress for 1 min 00 s; {unfinished}",
    ]
    name, _, fields = listener.events[0]
    assert name == "heartbeat"
    assert fields == {
        "stage": "featurize",
        "idle_seconds": 30.0,
        "under_way": 2,
        "to_come": 5,
        "workers": 2,
        "waiting_for": [
            {"item": "partition 3 (8 images)", "seconds": 45.0},
            {"item": "partition 4 (8 images)", "seconds": 31.0},
        ],
    }


def test_heartbeat_of_a_stage_without_items():
    clock, listener = Clock(), Recorder()
    ended = Ended(clock)
    with heartbeat("solve", listener, clock=clock, ended=ended):
        ended.timeouts.get(timeout=TIMEOUT)
        ended.let_pass(SECONDS)
    assert listener.events == [
        (
            "heartbeat",
            "solve: still running; no progress for 30.0 s",
            {"stage": "solve", "idle_seconds": 30.0},
        )
    ]


def test_thread_ends_when_the_stage_fails():
    with pytest.raises(KeyboardInterrupt), heartbeat("featurize", Recorder()):
        raise KeyboardInterrupt
    assert heartbeat_threads() == []


def test_running_items_are_the_first_unfinished_ones_since_a_worker_was_free():
    clock = Clock()
    under_way = UnderWay([Partition(index, 8 * index, 8) for index in range(6)], lambda: 2, clock=clock)
    assert under_way.waiting() == Waiting(2, 4, 2, [("partition 0 (8 images)", 0.0), ("partition 1 (8 images)", 0.0)])
    clock.now += 10
    under_way.finish(1)
    clock.now += 5
    under_way.finish(2)
    clock.now += 1
    assert under_way.waiting() == Waiting(2, 2, 2, [("partition 0 (8 images)", 16.0), ("partition 3 (8 images)", 1.0)])
    for index in (0, 3, 4):
        under_way.finish(index)
    assert under_way.waiting() == Waiting(1, 0, 2, [("partition 5 (8 images)", 0.0)])


def test_first_items_are_named_and_the_rest_counted():
    waiting = UnderWay(range(20), lambda: 8, clock=Clock()).waiting()
    assert str(waiting) == "waiting on 8 workers for 0 for 0.0 s, 1 for 0.0 s, 2 for 0.0 s, and 5 more; 12 to come"


def test_heartbeat_is_reported_even_if_the_engine_does_not_respond():
    def gone():
        raise JobError("The Dask scheduler is gone.")

    text = str(UnderWay(range(3), gone, clock=Clock()).waiting())
    assert text == "waiting for 0 for 0.0 s; 2 to come. The Dask scheduler is gone."

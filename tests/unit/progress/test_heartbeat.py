"""The sign of life, on a clock and a condition of the test's own."""

import queue
import threading

import pytest

from fruits.errors import JobError
from fruits.images.plan import Partition
from fruits.progress.heartbeat import SECONDS, UnderWay, Waiting, heartbeat
from fruits.progress.reporter import Silent

PATIENCE = 60  # seconds, for what happens at once


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Ended(threading.Event):
    """An end that is waited for until the test lets so many seconds pass."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.asked = queue.Queue()
        self.passing = queue.Queue()

    def wait(self, timeout=None):
        self.asked.put(timeout)
        self.clock.now += self.passing.get(timeout=PATIENCE)
        return self.is_set()

    def set(self):
        super().set()
        self.passing.put(0.0)

    def let_pass(self, seconds):
        """Let seconds pass, and return for how many the thread waits then."""
        self.passing.put(seconds)
        return self.asked.get(timeout=PATIENCE)


class Told(Silent):
    def __init__(self):
        self.events = []

    def event(self, name, text=None, **fields):
        self.events.append((name, text, fields))


def beating():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fruits-heartbeat")]


def test_it_beats_where_nothing_has_finished_for_so_long_and_ends_with_the_stage():
    clock, told = Clock(), Told()
    ended = Ended(clock)
    waiting = Waiting(2, 5, 2, [("partition 3 (8 images)", 45.0), ("partition 4 (8 images)", 31.0)])
    with heartbeat("featurize", told, lambda: waiting, clock=clock, ended=ended) as finished:
        assert ended.asked.get(timeout=PATIENCE) == SECONDS
        assert ended.let_pass(20) == SECONDS - 20  # woken too early
        finished()
        assert ended.let_pass(SECONDS - 20) == 20  # something has finished meanwhile
        assert told.events == []
        assert ended.let_pass(20) == SECONDS
        assert ended.let_pass(SECONDS) == SECONDS
        assert len(beating()) == 1
    assert beating() == []
    words = "waiting on 2 workers for partition 3 (8 images) for 45.0 s, partition 4 (8 images) for 31.0 s; 5 to come"
    assert [text for _, text, _ in told.events] == [
        f"featurize: still running; no progress for 30.0 s; {words}",
        f"featurize: still running; no progress for 1 min 00 s; {words}",
    ]
    name, _, fields = told.events[0]
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


def test_a_stage_without_items_says_that_it_is_still_at_it():
    clock, told = Clock(), Told()
    ended = Ended(clock)
    with heartbeat("solve", told, clock=clock, ended=ended):
        ended.asked.get(timeout=PATIENCE)
        ended.let_pass(SECONDS)
    assert told.events == [
        (
            "heartbeat",
            "solve: still running; no progress for 30.0 s",
            {"stage": "solve", "idle_seconds": 30.0},
        )
    ]


def test_no_thread_is_left_where_the_stage_fails():
    with pytest.raises(KeyboardInterrupt), heartbeat("featurize", Told()):
        raise KeyboardInterrupt
    assert beating() == []


def test_what_is_under_way_are_the_lowest_that_are_not_done_since_there_was_room_for_them():
    clock = Clock()
    under_way = UnderWay([Partition(index, 8) for index in range(6)], lambda: 2, clock=clock)
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


def test_many_are_counted_and_the_first_are_named():
    waiting = UnderWay(range(20), lambda: 8, clock=Clock()).waiting()
    assert str(waiting) == "waiting on 8 workers for 0 for 0.0 s, 1 for 0.0 s, 2 for 0.0 s, and 5 more; 12 to come"


def test_an_engine_that_cannot_be_asked_is_no_reason_to_say_nothing():
    def gone():
        raise JobError("The Dask scheduler is gone.")

    words = str(UnderWay(range(3), gone, clock=Clock()).waiting())
    assert words == "waiting for 0 for 0.0 s; 2 to come. The Dask scheduler is gone."

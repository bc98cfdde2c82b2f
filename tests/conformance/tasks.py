"""What the suite sends to workers. Everything that a task is to be seen doing, it writes down as a file."""

import os
import signal
import threading
import time
import uuid
import zlib
from pathlib import Path

from threadpoolctl import threadpool_info

from fruits.errors import DatasetError

GATE_SECONDS = 60


def square(item, shared):
    return item * item


def echo(item, shared):
    return item, shared


def describe(item, shared):
    return os.getpid(), [pool["num_threads"] for pool in threadpool_info()]


def environ(item, shared):
    return {name: os.environ.get(name) for name in shared}


def checksum(item, shared):
    return len(shared), zlib.crc32(shared)


def megabyte(item, shared):
    return bytes([item]) * 2**20


def lock(item, shared):
    """Return what does not pickle."""
    return threading.Lock()


def behind_gate(item, shared):
    """Return when the gate is open; only the last item has one."""
    gate, last = shared
    if item == last:
        wait_for(Path(gate))
    return item


def wait_for(path):
    end = time.monotonic() + GATE_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} never came")
        time.sleep(0.01)


def sleep_forever(item, shared):
    note(shared, item)
    wait_for(Path(shared) / "never")


def by_schedule(item, shared):
    """Fail as often as the schedule says, and count the attempts."""
    folder, schedule = shared
    if note(folder, item) <= schedule.get(item, 0):
        raise ValueError(f"attempt on {item}")
    return item


def refuse(item, shared):
    note(shared, item)
    raise DatasetError(f"{item} is no fruit")


def die(item, shared):
    """Kill the worker as often as the schedule says, and count the attempts."""
    folder, schedule = shared
    if note(folder, item) <= schedule.get(item, 0):
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def use(item, shared):
    return shared.value


class Counted:
    """A value that writes down each time it is pickled and unpickled, and by whom."""

    def __init__(self, folder, value):
        self.folder, self.value = folder, value

    def __getstate__(self):
        note(self.folder, "pickled")
        return self.folder, self.value

    def __setstate__(self, state):
        self.folder, self.value = state
        note(self.folder, f"unpickled by {os.getpid()}")


def note(folder, what):
    """Write down that something happened; return how often it has, now."""
    place = Path(folder) / str(what)
    place.mkdir(exist_ok=True)
    (place / uuid.uuid4().hex).touch()
    return len(os.listdir(place))


def notes(folder):
    """Return what happened, and how often."""
    return {place.name: len(os.listdir(place)) for place in Path(folder).iterdir()}

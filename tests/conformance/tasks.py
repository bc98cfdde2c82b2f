"""Tasks of the suite. They record their calls as files, which the tests count."""

import importlib.util
import os
import signal
import threading
import time
import uuid
import zlib
from pathlib import Path

from threadpoolctl import threadpool_info

from fruits.errors import DatasetError, SettingsError

GATE_SECONDS = 300


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
    """Return a value that cannot be pickled."""
    return threading.Lock()


def behind_gate(item, shared):
    """Return immediately; for the last item, wait for the gate file."""
    gate, last = shared
    if item == last:
        wait_for(Path(gate))
    return item


def wait_for(path):
    end = time.monotonic() + GATE_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} was not created")
        time.sleep(0.01)


def sleep_forever(item, shared):
    record(shared, item)
    wait_for(Path(shared) / "never")


def by_schedule(item, shared):
    """Record the call; raise an exception in as many calls as scheduled for the item."""
    folder, schedule = shared
    if record(folder, item) <= schedule.get(item, 0):
        raise ValueError(f"attempt on {item}")
    return item


def refuse(item, shared):
    record(shared, item)
    raise DatasetError(f"{item} is not a fruit")


def die(item, shared):
    """Record the call; kill the worker in as many calls as scheduled for the item."""
    folder, schedule = shared
    if record(folder, item) <= schedule.get(item, 0):
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def use(item, shared):
    return shared.value


class Counted:
    """A value that records each pickling, and each unpickling with its process."""

    def __init__(self, folder, value):
        self.folder, self.value = folder, value

    def __getstate__(self):
        record(self.folder, "pickled")
        return self.folder, self.value

    def __setstate__(self, state):
        self.folder, self.value = state
        record(self.folder, f"unpickled by {os.getpid()}")


class Refusing:
    """A value that workers refuse: of another version of the package, for example."""

    def __reduce__(self):
        return refuse_to_unpickle, ()


def refuse_to_unpickle():
    raise SettingsError("this worker has another network")


def record(folder, event):
    """Record an event; return how often it has been recorded."""
    place = Path(folder) / str(event)
    place.mkdir(exist_ok=True)
    (place / uuid.uuid4().hex).touch()
    return len(os.listdir(place))


def recorded(folder):
    """Return the events and their counts."""
    return {place.name: len(os.listdir(place)) for place in Path(folder).iterdir()}


def loaded_from(item, shared):
    """Return the files that the modules of this name are, or would be, imported from."""
    spec = importlib.util.find_spec(item)
    return spec.origin if spec is not None else None

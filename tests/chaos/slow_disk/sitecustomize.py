"""Imported by Python at start-up: delay each file operation below FRUITS_SLOW by 50 ms, and count the operations."""

import atexit
import builtins
import io
import os
import time

FOLDER = os.environ["FRUITS_SLOW"]
DELAY_SECONDS = 0.05
operations = 0


def delay(operation):
    def delayed(path, *args, **kwargs):
        global operations
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(FOLDER + os.sep):
            operations += 1
            time.sleep(DELAY_SECONDS)
        return operation(path, *args, **kwargs)

    return delayed


def delayed_fsync(descriptor, fsync=os.fsync):
    global operations
    operations += 1
    time.sleep(DELAY_SECONDS)
    fsync(descriptor)


@atexit.register
def write_count():
    with open(f"{FOLDER}.slow", "a") as file:
        file.write(f"{operations}\n")


for name in ("open", "stat", "replace", "rename", "unlink", "mkdir", "listdir", "scandir"):
    setattr(os, name, delay(getattr(os, name)))
builtins.open = io.open = delay(builtins.open)
os.fsync = delayed_fsync

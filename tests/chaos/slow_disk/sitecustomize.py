"""On a process's path, it makes each operation on the files below FRUITS_SLOW take 50 ms longer, and counts them."""

import atexit
import builtins
import io
import os
import time

FOLDER = os.environ["FRUITS_SLOW"]
DELAY_SECONDS = 0.05
counted = 0


def slow(operation):
    def slower(path, *args, **kwargs):
        global counted
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(FOLDER + os.sep):
            counted += 1
            time.sleep(DELAY_SECONDS)
        return operation(path, *args, **kwargs)

    return slower


def slow_fsync(descriptor, fsync=os.fsync):
    global counted
    counted += 1
    time.sleep(DELAY_SECONDS)
    fsync(descriptor)


@atexit.register
def tell():
    with open(f"{FOLDER}.slow", "a") as file:
        file.write(f"{counted}\n")


for name in ("open", "stat", "replace", "rename", "unlink", "mkdir", "listdir", "scandir"):
    setattr(os, name, slow(getattr(os, name)))
builtins.open = io.open = slow(builtins.open)
os.fsync = slow_fsync

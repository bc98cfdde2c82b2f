"""A program that runs a backend from its start to its end, twice; given `wait`, it stays in a task for good.

It prints what it saw as JSON. What else reaches the terminal is the engine's own.
"""

import json
import os
import sys
from contextlib import suppress

import backends
from fruits.executor import Executor
from tests.conformance import tasks

NAMES = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]  # pinned on workers, and left alone here


def main(name, folder, wait=None):
    before = {variable: os.environ.get(variable) for variable in NAMES}
    seen = []
    for workers in (2, 1):
        with backends.load(name)(workers=workers) as executor:
            assert isinstance(executor, Executor)
            executor.start()
            if wait:
                executor.map(tasks.sleep_forever, range(8), shared=folder)
            seen.append([executor.parallelism, executor.map(tasks.environ, range(4), shared=NAMES), children()])
    assert {variable: os.environ.get(variable) for variable in NAMES} == before
    print(json.dumps({"seen": seen, "left": children()}))


def children():
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            found.append(" ".join(child.cmdline()))
    # multiprocessing keeps its tracker until the process ends
    return [command for command in found if "resource_tracker" not in command]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)

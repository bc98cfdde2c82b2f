"""Start and close an executor of a backend twice, and print observations as JSON.

With `wait`, block in a task forever. Any other output comes from the engine.
"""

import json
import os
import sys
from contextlib import suppress

import backends
from fruits.executor import Executor
from tests.conformance import tasks

NAMES = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]  # set on workers, and unchanged in this process


def main(name, folder, wait=None):
    before = {variable: os.environ.get(variable) for variable in NAMES}
    observed = []
    opened = backends.load(name)(workers=2)
    for _ in range(2):
        with opened as executor:
            assert isinstance(executor, Executor)
            executor.start()
            if wait:
                executor.map(tasks.sleep_forever, range(8), shared=folder)
            observed.append([executor.parallelism, executor.map(tasks.environ, range(4), shared=NAMES), children()])
    assert {variable: os.environ.get(variable) for variable in NAMES} == before
    print(json.dumps({"observed": observed, "left": children()}))


def children():
    import psutil

    commands = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it exited after it was listed
            commands.append(" ".join(child.cmdline()))
    # multiprocessing's tracker runs until this process exits
    return [command for command in commands if "resource_tracker" not in command]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)

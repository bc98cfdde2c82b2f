"""The process of a Dask cluster on this machine: ``python -m backends.dask WORKERS MEMORY_LIMIT [DASHBOARD]``.

Workers are forked from a server that has imported their packages: a worker takes 0.1 s of CPU time instead of 0.5 s.
The server starts first, so that it imports them while this process does.
"""

import json
import os
import signal
import sys
import tempfile
from multiprocessing import forkserver, util

# Dask imports numpy and pandas, if present.
PRELOADED = ["backends.dask.local_cluster", "backends.dask.worker", "numpy", "pandas", "backends.preload"]
ENVIRONMENT = {  # must be set before numpy is imported; Dask sets it later
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "PYTHONHASHSEED": "6640",
}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers inherit it: the driver handles Ctrl-C, and closes them
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Python 3.11.0 lets every user of this machine connect to the server: CVE-2022-42919.
    util.abstract_sockets_supported = False  # type: ignore[misc]
    forkserver.set_forkserver_preload(PRELOADED)
    try:
        forkserver.ensure_running()
    except OSError as error:
        text = (
            f"Dask cannot start workers: no socket can be created in {tempfile.gettempdir()} ({error}). Set TMPDIR to "
            "a writable folder, the path of which has at most 70 characters."
        )
        print(json.dumps({"unsuitable": text}), flush=True)
        sys.exit()

    from backends.dask.local_cluster import main

    main(*sys.argv[1:])

"""What a local session starts its Python workers from: ``python -m backends.spark_daemon``.

PySpark's own daemon, which forks a worker for each slot, but without what it costs around each task, 0.1 to 0.2 s.
What every worker needs is imported once, before it forks, and kept out of the garbage collection after each task.
Spark's archives are taken off the path: while one is on it, Python reads its whole index again for every task
(``importlib.invalidate_caches``). PySpark is installed here, outside of them.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path


def _archived(entry: str) -> bool:
    return any(part.startswith(("pyspark.zip", "py4j-", "spark-core_")) for part in Path(entry).parts)


sys.path[:] = [entry for entry in sys.path if not _archived(entry)]
for entry in [entry for entry in sys.path_importer_cache if _archived(entry)]:
    del sys.path_importer_cache[entry]
sys.modules.pop("org", None)  # the standard library has looked for Jython by now, and met Spark's package of that name

import pandas  # noqa: E402, F401
import pyarrow  # noqa: E402, F401
from pyspark import daemon  # noqa: E402

import backends.spark  # noqa: E402, F401

if __name__ == "__main__":
    gc.freeze()
    daemon.manager()

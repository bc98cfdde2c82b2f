"""List and plan millions of generated keys on the driver: those of an object store, or of a manifest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

import fsspec

from benchmarks.inputs.keys import GeneratedFileSystem
from benchmarks.inputs.manifest import MANIFEST_COLUMNS
from benchmarks.scenarios.task import Task, Timings
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.images.sources.options import SourceOptions
from fruits.plan.pages import write_list
from fruits.storage.folder import Folder


def run(task: Task) -> Timings:
    """List the keys and store the list. The manifest is written by another process, whose memory does not count."""
    count, out = task.case.images, Folder(task.out)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fruits-bench-") as folder:
        if task.case.scenario == "plan-manifest":
            path = f"{folder}/keys.parquet"
            subprocess.run([sys.executable, "-m", "benchmarks.inputs.manifest", str(count), path], check=True)
            source = open_source(path, SourceOptions(**MANIFEST_COLUMNS))
        else:
            fsspec.register_implementation("generated", GeneratedFileSystem, clobber=True)
            source = open_source(f"generated://{count}")
        begin = time.perf_counter()
        images = write_list(Listing(source).tables(), out / "plan")
        seconds = {"listing": time.perf_counter() - begin}
    out.write_json("plan.json", {"images": images.images, "digest": images.digest})
    return Timings(seconds=seconds, unmeasured=begin - start)

"""List and plan millions of generated keys on the driver."""

from __future__ import annotations

import time

import fsspec

from benchmarks.inputs.keys import GeneratedFileSystem
from benchmarks.scenarios.task import Task, Timings
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.plan.pages import write_list
from fruits.storage.folder import Folder


def run(task: Task) -> Timings:
    """List the keys and store the list."""
    fsspec.register_implementation("generated", GeneratedFileSystem, clobber=True)
    begin = time.perf_counter()
    out = Folder(task.out)
    images = write_list(Listing(open_source(f"generated://{task.case.images}")).tables(), out / "plan")
    seconds = {"listing": time.perf_counter() - begin}
    out.write_json("plan.json", {"images": images.images, "digest": images.digest})
    return Timings(seconds=seconds)

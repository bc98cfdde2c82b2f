"""List and plan millions of generated keys on the driver."""

from __future__ import annotations

import time

import fsspec

from benchmarks.inputs.keys import GeneratedFileSystem
from benchmarks.scenarios.task import Task, Timings
from fruits.images.listing import Listing
from fruits.images.plan import make_plan
from fruits.storage.folder import Folder


def run(task: Task) -> Timings:
    """List the keys, plan partitions of 1,024 and store the plan."""
    fsspec.register_implementation("generated", GeneratedFileSystem, clobber=True)
    begin = time.perf_counter()
    out = Folder(task.out)
    plan = make_plan(Listing(f"generated://{task.case.images}"), 1024, out / "plan")
    seconds = {"listing": time.perf_counter() - begin}
    out.write_json("plan.json", {"images": plan.images, "digest": plan.digest})
    return Timings(seconds=seconds)

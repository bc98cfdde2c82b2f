"""The table of campaigns, and how one is held: job after job, until so many faults have been injected."""

from __future__ import annotations

import time
from random import Random

from tests.chaos import clock, driver, inputs, scheduler, storage, twins, workers
from tests.chaos.site import Site, Tally, Violation

CAMPAIGNS = {  # with the faults of the long form on each backend
    "driver": (driver, {"dask": 60, "local": 30, "spark": 10}),
    "workers": (workers, {"dask": 140, "spark": 60}),
    "scheduler": (scheduler, {"dask": 20, "spark": 10}),
    "twins": (twins, {"local": 20, "dask": 10, "spark": 10}),
    "storage": (storage, {"local": 30, "dask": 20}),
    "inputs": (inputs, {"local": 20, "dask": 10}),
    "clock": (clock, {"local": 10, "dask": 10, "spark": 5}),
}


def hold(name: str, site: Site, backend: str, seed: int, count: int) -> Tally:
    """Inject `count` faults, print the line of counts, and return them.

    Every job has a seed of its own, which is printed with what it violated.
    """
    module, _ = CAMPAIGNS[name]
    tally = Tally()
    started = time.monotonic()
    jobs = 0
    try:
        while tally.faults.total() < count and jobs < 3 * count:  # a moment may be missed, but not for ever
            jobs += 1
            random = Random(f"{seed} {name} {backend} {jobs}")
            try:
                module.campaign(site, backend, random, count - tally.faults.total(), tally)
            except Violation as violation:
                tally.violations.append(str(violation))
                print(f"VIOLATION in {name} on {backend}, seed {seed}, job {jobs}: {violation}", flush=True)
    finally:  # also of a campaign that is ended early: its last job is not counted as finished
        seconds = time.monotonic() - started
        print(f"{name} on {backend}, seed {seed}: {jobs} jobs in {seconds:.0f} s, {tally}", flush=True)
    return tally

"""The campaigns, and a function that runs one: job after job until enough faults are injected."""

from __future__ import annotations

import time
from random import Random

from tests.chaos import clock, driver, inputs, scheduler, storage, twins, workers
from tests.chaos.site import Site, Tally, Violation

CAMPAIGNS = {  # name → module, number of faults of the long form by backend
    "driver": (driver, {"dask": 60, "local": 30, "spark": 10}),
    "workers": (workers, {"dask": 140, "spark": 60}),
    "scheduler": (scheduler, {"dask": 20, "spark": 10}),
    "twins": (twins, {"local": 20, "dask": 10, "spark": 10}),
    "storage": (storage, {"local": 30, "dask": 20}),
    "inputs": (inputs, {"local": 20, "dask": 10}),
    "clock": (clock, {"local": 10, "dask": 10, "spark": 5}),
}


def run_campaign(name: str, site: Site, backend: str, seed: int, count: int) -> Tally:
    """Inject `count` faults, print a line of counts and return the tally.

    Each job derives its random numbers from the seed and its own number, which are printed with every violation.
    """
    module, _ = CAMPAIGNS[name]
    tally = Tally()
    started = time.monotonic()
    jobs = 0
    try:
        while (
            tally.faults.total() < count and jobs < 3 * count
        ):  # some jobs end before their fault; limit the number of tries
            jobs += 1
            random = Random(f"{seed} {name} {backend} {jobs}")
            try:
                module.campaign(site, backend, random, count - tally.faults.total(), tally)
            except Violation as violation:
                tally.violations.append(str(violation))
                print(f"VIOLATION in {name} on {backend}, seed {seed}, job {jobs}: {violation}", flush=True)
    finally:  # print the counts of an interrupted campaign, too
        seconds = time.monotonic() - started
        print(f"{name} on {backend}, seed {seed}: {jobs} jobs in {seconds:.0f} s, {tally}", flush=True)
    return tally

"""The clock is set an hour forward or back in mid-job: nothing comes of it."""

from __future__ import annotations

import glob
from random import Random

from tests.chaos.site import STAGES, Site, Tally

BACKENDS = ("local", "dask", "spark")
# Debian's package faketime; every process of the command reads the time through it.
LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)
HOUR = 3600


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Finish one job under which the clock is set once."""
    if LIBRARY is None:
        raise SystemExit("the clock cannot be set for one job alone: libfaketime is missing (apt-get install faketime)")
    step = random.choice((HOUR, -HOUR))
    with site.out() as out:
        clock = site.root / f"{out.name}.clock"
        clock.write_text("+0")
        environ = {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # setting a clock does not touch that one
            "NO_FAKE_STAT": "1",  # nor the times of files that are there
        }
        moment = site.moment(random, out, STAGES[1:])
        assert moment is not None
        with site.command(out, *site.where(backend), **environ) as command:
            if command.reaches(moment):
                clock.write_text(f"{step:+d}")
                tally.faults[f"{'forward' if step > 0 else 'back'} an hour"] += 1
                tally.seen[f"at {moment.stage}"] += 1
            else:
                tally.seen["moments missed"] += 1
            command.done()
        site.check(out, tally)

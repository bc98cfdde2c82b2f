"""Set the clock an hour forward or back during a job; the result must not change."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from tests.chaos.site import STAGES, Site, Tally

BACKENDS = ("local", "dask", "spark")
HOUR = 3600
COMPILER = shutil.which("cc")
SOURCE = Path(__file__).with_name("set_clock.c")


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Finish one job during which the clock of all its processes is set once."""
    step = random.choice((HOUR, -HOUR))
    clock = site.root / "clock"
    _set(clock, 0)
    environ = _environ(site)
    with site.out() as out:
        moment = site.moment(random, out, STAGES[1:])
        assert moment is not None
        with site.command(out, *site.where(backend), **environ) as command:
            if command.reaches(moment):
                _set(clock, step)
                tally.faults[f"{'forward' if step > 0 else 'back'} an hour"] += 1
                tally.seen[f"at {moment.stage}"] += 1
            else:
                tally.seen["moments missed"] += 1
            command.done()
        site.check(out, tally)


def _environ(site: Site) -> dict[str, str]:
    """Compile and try the library that is preloaded to set the clock of one job; return the variables for it."""
    library = site.root / "set_clock.so"
    # Found by its name, because a path in LD_PRELOAD ends at a space.
    folders = os.pathsep.join(filter(None, (str(site.root), os.environ.get("LD_LIBRARY_PATH"))))
    environ = {"LD_PRELOAD": library.name, "LD_LIBRARY_PATH": folders, "FRUITS_CLOCK": str(site.root / "clock")}
    if not library.exists():
        if COMPILER is None:
            raise SystemExit(
                "the clock campaign needs a C compiler (cc) for the library that sets the clock of one job"
            )
        subprocess.run([COMPILER, "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        _set(site.root / "clock", HOUR)
        read = [sys.executable, "-c", "import time; print(time.time())"]
        ahead = float(subprocess.run(read, env=environ, check=True, capture_output=True).stdout) - time.time()
        assert HOUR - 60 < ahead < HOUR + 60, ahead
        _set(site.root / "clock", 0)
    return environ


def _set(clock: Path, seconds: int) -> None:
    """Set the clock of every process that reads the file `clock`."""
    with clock.open("r+b" if clock.exists() else "wb") as file:
        file.write(struct.pack("@i", seconds))

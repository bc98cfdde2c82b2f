"""The campaigns: python -m tests.chaos [CAMPAIGN …] --seed 1 --count 100.

Prints a line of counts for each campaign and backend, and exits with 1 where anything that must hold did not.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaigns import CAMPAIGNS, hold
from tests.chaos.site import Site


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, help="faults of each campaign on each backend; default: as in its table")
    parser.add_argument("--backend", choices=("dask", "local", "spark"), help="this one only")
    parser.add_argument("--images", type=int, default=240)
    given = parser.parse_args()
    if unknown := sorted(set(given.campaigns) - CAMPAIGNS.keys()):
        parser.error(f"no campaign {', '.join(unknown)}; there are {', '.join(CAMPAIGNS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the commands under way are ended too
    violations = 0
    with tempfile.TemporaryDirectory(prefix="fruits-chaos-", ignore_cleanup_errors=True) as folder:
        site = Site(Path(folder), images=given.images)
        for name in given.campaigns or CAMPAIGNS:
            module, counts = CAMPAIGNS[name]
            for backend in module.BACKENDS:
                if given.backend in (None, backend):
                    tally = hold(name, site, backend, given.seed, given.count or counts[backend])
                    violations += len(tally.violations)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

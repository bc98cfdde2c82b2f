"""Run chaos campaigns: python -m tests.chaos [CAMPAIGN …] --seed 1 --count 100.

Print one line of counts for each campaign and backend; exit with 1 if an invariant was violated.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaigns import CAMPAIGNS, run_campaign
from tests.chaos.site import Site


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"one of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--count", type=int, help="faults per campaign and backend; default: those of the table in campaigns.py"
    )
    parser.add_argument("--backend", choices=("dask", "local", "spark"), help="run on this backend only")
    parser.add_argument("--images", type=int, default=240)
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.campaigns) - CAMPAIGNS.keys()):
        parser.error(f"unknown campaign {', '.join(unknown)}. Allowed: {', '.join(CAMPAIGNS)}.")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # exits through the clean-up, which kills the running commands
    violations = 0
    with tempfile.TemporaryDirectory(prefix="fruits-chaos-", ignore_cleanup_errors=True) as folder:
        site = Site(Path(folder), images=arguments.images)
        for name in arguments.campaigns or CAMPAIGNS:
            module, counts = CAMPAIGNS[name]
            for backend in module.BACKENDS:
                if arguments.backend in (None, backend):
                    tally = run_campaign(name, site, backend, arguments.seed, arguments.count or counts[backend])
                    violations += len(tally.violations)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

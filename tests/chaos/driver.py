"""Kill the command at random moments, alone or with all its processes, and restart it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.chaos.site import Command, Site, Tally, Violation, finished
from tests.outputs import is_complete

BACKENDS = ("dask", "local", "spark")
KILLS = 4  # most per job


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Finish one job that is killed up to `faults` times."""
    with site.out() as out:
        _job(site, backend, random, min(faults, random.randint(1, KILLS)), tally, out)


def _job(site: Site, backend: str, random: Random, kills: int, tally: Tally, out: Path) -> None:
    where = site.where(backend)
    kept, complete = finished(out), is_complete(out)
    moment = site.moment(random, out) if kills else None
    with site.command(out, *where) as command:
        if moment is not None and command.reaches(moment):
            group = random.random() < 0.5
            command.kill(group=group)
            tally.faults["command and its group" if group else "command alone"] += 1
            tally.seen[f"at {moment.stage}"] += 1
            site.check_unfinished(out)
            _check_kept(kept, finished(out), tally)
            _job(site, backend, random, kills - 1, tally, out)  # processes left by the killed command may still run
            _check_left(command, tally)
            return
        report = command.done()
        if moment is not None:
            tally.seen["moments missed"] += 1
    now = finished(out)
    _check_kept(kept, now, tally)
    tally.seen["parts done after a restart"] += len(now) - len(kept) if kept else 0
    # For a job that was already complete, the command returns the stored report.
    if not complete and report["resumed"] < sum(name.startswith("features/") for name in kept):
        raise Violation(f"{out.name}: {report['resumed']} partitions resumed of {sorted(kept)}")
    site.check(out, tally)


def _check_kept(before: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]], tally: Tally) -> None:
    # Partial moments are removed when the job completes.
    expected = {name: identity for name, identity in before.items() if name in now or not name.startswith("moments/")}
    again = [name for name, identity in expected.items() if now.get(name) != identity]
    tally.seen["finished parts kept"] += len(before) - len(again)
    tally.seen["finished parts written again"] += len(again)
    if again:
        raise Violation(f"written again or missing: {again[:5]}")


def _check_left(command: Command, tally: Tally) -> None:
    if not command.leaves_nothing():
        tally.seen["processes left running"] += len(command.family())
        raise Violation(f"left running: {[' '.join(process.cmdline())[:80] for process in command.family()]}")

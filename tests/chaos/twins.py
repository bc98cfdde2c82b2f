"""Two commands work on one --out at once: one wins, or both agree, and nothing is torn."""

from __future__ import annotations

from random import Random

from tests.chaos.site import Site, Tally, Violation

BACKENDS = ("local", "dask")


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Run one pair, the second from a random moment of the first on."""
    with site.out() as out:
        moment = site.moment(random, out)
        assert moment is not None
        where = ("--backend", backend, "--workers", "1")
        with site.command(out, *where) as first:
            if not first.reaches(moment):
                tally.seen["moments missed"] += 1
            with site.command(out, *where) as second:
                tally.faults["twin started"] += 1
                tally.seen[f"at {moment.stage}"] += 1
                for command in (first, second):
                    answer = command.wait()
                    if "error" in answer and answer["error"]["type"] not in (
                        "OutputError",
                        "TaskError",
                        "StorageError",
                    ):
                        raise Violation(f"{out.name}: at {moment}: not a clear error: {answer}")
                    tally.seen["refused or failed" if "error" in answer else "twins that finished"] += 1
                    site.check_unfinished(out)
        with site.command(out, *where) as last:
            last.done()
        site.check(out, tally)

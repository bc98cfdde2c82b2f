"""Kill workers, stop them for longer than the engine waits, or limit their memory, at random moments of every stage."""

from __future__ import annotations

import resource
import signal
import threading
from contextlib import suppress
from random import Random

import psutil

from tests.chaos.site import LIMIT_SECONDS, STAGES, Command, Site, Tally, Violation

BACKENDS = ("dask", "spark")
FAULTS = 4  # most per job
LINES = {"dask": ("multiprocessing.forkserver",), "spark": ("backends.spark.daemon",)}
STOPPED_SECONDS = {"dask": 90, "spark": 30}  # until a stopped worker is replaced
KINDS = ("killed", "stopped", "without memory")
MEMORY_SECONDS = 0.5
RETRIES_USED_UP = ("3 of 3 times", "after 3 attempts")


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Finish one job with up to `faults` faults in its workers."""
    where = site.where(backend)
    with site.out() as out:
        stages = [random.choice(STAGES[2:]) for _ in range(min(faults, random.randint(1, FAULTS)))]
        timers = []
        stopped = 0
        with site.command(out, *where) as command:
            for stage in sorted(stages, key=STAGES.index):
                moment = site.moment(random, out, (stage,))
                if moment is None or not command.reaches(moment):
                    tally.seen["moments missed"] += 1
                    continue
                kind = random.choice(KINDS)
                if (timer := _inject(kind, command, backend, random)) is None:
                    tally.seen["moments missed"] += 1
                    continue
                timers.append(timer)
                tally.faults[kind] += 1
                stopped += kind == "stopped"
                tally.seen[f"at {stage}"] += 1
            answer = command.wait(LIMIT_SECONDS + stopped * STOPPED_SECONDS[backend])
            for timer in timers:
                timer.cancel()
        if "error" in answer:  # a partition failed three times; the same command resumes
            if not any(words in answer["error"]["message"] for words in RETRIES_USED_UP):
                raise Violation(f"{out.name}: {answer}")
            tally.seen["jobs failed with retries used up, and resumed"] += 1
            site.check_unfinished(out)
            with site.command(out, *where) as command:
                command.done()
        site.check(out, tally)


def _inject(kind: str, command: Command, backend: str, random: Random) -> threading.Timer | None:
    """Inject a fault into a random worker; return the timer that undoes it, or None without a worker."""
    workers = [process for process in command.named(*LINES[backend]) if _is_forked(process, LINES[backend])]
    if not workers:
        return None
    victim = random.choice(workers)
    timer = threading.Timer(0, lambda: None)
    try:
        if kind == "killed":
            victim.send_signal(signal.SIGKILL)
        elif kind == "stopped":
            victim.send_signal(signal.SIGSTOP)  # never continued: the engine must replace it
        else:
            before = resource.prlimit(victim.pid, resource.RLIMIT_AS)
            resource.prlimit(victim.pid, resource.RLIMIT_AS, (victim.memory_info().vms, before[1]))
            timer = threading.Timer(MEMORY_SECONDS, _lift, (victim, before))
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    timer.start()
    return timer


def _is_forked(process: psutil.Process, lines: tuple[str, ...]) -> bool:
    """Return True for a worker, and False for the process that forks the workers."""
    with suppress(psutil.NoSuchProcess):
        parent = process.parent()
        return parent is not None and any(line in " ".join(parent.cmdline()) for line in lines)
    return False


def _lift(victim: psutil.Process, before: tuple[int, int]) -> None:
    try:
        resource.prlimit(victim.pid, resource.RLIMIT_AS, before)
    except ProcessLookupError:
        return

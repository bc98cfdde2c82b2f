"""Storage faults: a full, read-only, forbidden or slow disk during a job; parts deleted, truncated or flipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.chaos.site import STAGES, Command, Site, Tally, Violation, all_files

BACKENDS = ("local", "dask")
PARTS = ("deleted", "truncated", "flipped")
DISKS = ("full", "read-only", "forbidden", "slow")
SHIM = Path(__file__).parent / "slow_disk"
# Root without the capabilities that override file permissions.
BOUND = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")
ROOM_KIB = (100, 1500)  # of the 3 MB that the output of 240 images takes


def campaign(site: Site, backend: str, random: Random, faults: int, tally: Tally) -> None:
    """Finish one job with one storage fault."""
    kind = random.choice((*PARTS, *DISKS) if os.geteuid() == 0 else PARTS)  # mounting needs root
    where = site.where(backend)
    with site.out() as out:
        if kind in PARTS:
            _corrupt(kind, site, out, where, random, tally)
        elif kind == "forbidden":
            _forbid(site, out, where, random, tally)
        elif kind == "slow":
            _slow_down(site, out, where, tally)
        else:
            _disturb_disk(kind, site, out, where, random, tally)


def _corrupt(kind: str, site: Site, out: Path, where: tuple[str, ...], random: Random, tally: Tally) -> None:
    moment = site.moment(random, out, STAGES[1:])
    assert moment is not None
    with site.command(out, *where) as command:
        if command.reaches(moment):
            if random.random() < 0.5:
                return _corrupt_during_job(kind, out, command, random, tally, site)
            command.kill(group=True)
        else:
            tally.seen["moments missed"] += 1
    files = [name for name in all_files(out) if not name.endswith(".tmp")]
    if not files:
        tally.seen["moments missed"] += 1
        return
    victim = _corrupt_part(kind, out, files, random)
    tally.faults[kind] += 1
    _restart(f"{kind} {victim}", site, out, where, tally)


def _corrupt_during_job(kind: str, out: Path, command: Command, random: Random, tally: Tally, site: Site) -> None:
    """Corrupt a part while the job runs: the command fails with a clear error, or the next one regenerates the part."""
    files = [
        name for name in all_files(out) if name.startswith(("features/", "moments/")) and not name.endswith(".tmp")
    ]
    if not files:
        tally.seen["moments missed"] += 1
        return
    victim = _corrupt_part(kind, out, files, random)
    tally.faults[f"{kind} during the job"] += 1
    _check_clear_error(f"{kind} {victim} during the job", command.wait())
    command.end()
    _restart(f"{kind} {victim} during the job", site, out, site.where("local"), tally)


def _corrupt_part(kind: str, out: Path, files: list[str], random: Random) -> str:
    """Corrupt a random file of a random folder, and return its name."""
    folder = random.choice(sorted({name.rpartition("/")[0] for name in files}))
    victim = random.choice([name for name in files if name.rpartition("/")[0] == folder])
    size = (out / victim).stat().st_size
    if kind == "deleted":
        (out / victim).unlink()
    elif kind == "truncated":
        os.truncate(out / victim, random.randrange(size))
    else:
        data = bytearray((out / victim).read_bytes())
        data[random.randrange(size)] ^= 1 << random.randrange(8)
        (out / victim).write_bytes(data)
    return victim


def _disturb_disk(kind: str, site: Site, out: Path, where: tuple[str, ...], random: Random, tally: Tally) -> None:
    room = random.randint(*ROOM_KIB) if kind == "full" else 2**20
    with _disk(out, room) as remount:
        with site.command(out / "job", *where) as command:
            if kind == "read-only":
                moment = site.moment(random, out / "job", STAGES)
                assert moment is not None
                if command.reaches(moment):
                    if not remount("ro"):
                        tally.seen["moments missed"] += 1  # a file was open for writing: the remount failed
                    else:
                        tally.faults[kind] += 1
            else:
                tally.faults[kind] += 1
            _check_clear_error(kind, command.wait())
        remount("rw,size=1g")
        _restart(kind, site, out / "job", where, tally)


def _forbid(site: Site, out: Path, where: tuple[str, ...], random: Random, tally: Tally) -> None:
    """Remove the permission to write, or to read and write, from a folder of the output during a job."""
    moment = site.moment(random, out, STAGES[2:])
    assert moment is not None
    with site.command(out, *where, through=BOUND) as command:
        if not command.reaches(moment):
            tally.seen["moments missed"] += 1
            return
        folder = random.choice([out, *(path for path in out.iterdir() if path.is_dir())])
        before = folder.stat().st_mode
        folder.chmod(random.choice((0o000, 0o500)))
        tally.faults["forbidden"] += 1
        try:
            _check_clear_error("forbidden", command.wait())
        finally:
            folder.chmod(before)
    _restart(f"forbidden {folder.name}", site, out, where, tally)


def _slow_down(site: Site, out: Path, where: tuple[str, ...], tally: Tally) -> None:
    """Delay each operation on the output by 50 ms: the job is slower and otherwise the same."""
    paths = os.pathsep.join(filter(None, (str(SHIM), os.environ.get("PYTHONPATH"))))
    tally.faults["slow"] += 1
    with site.command(out, *where, PYTHONPATH=paths, FRUITS_SLOW=str(out)) as command:
        command.done()
    counted = sum(map(int, (out.parent / f"{out.name}.slow").read_text().split()))
    if counted < len(all_files(out)):
        raise Violation(f"slow: {counted} operations were delayed, but {len(all_files(out))} files were written")
    tally.seen["delayed operations"] += counted
    site.check(out, tally)


def _restart(fault: str, site: Site, out: Path, where: tuple[str, ...], tally: Tally) -> None:
    """Start the same command again: it regenerates the corrupt parts, or refuses, and then --overwrite succeeds."""
    with site.command(out, *where) as command:
        answer = command.wait()
        _check_clear_error(fault, answer)
    if "error" in answer:
        site.check_unfinished(out)
        tally.seen["refused, then overwritten"] += 1
        tally.seen[f"refused: {fault.split('/')[0]}"] += 1
        with site.command(out, *where, "--overwrite") as command:
            command.done()
    else:
        tally.seen["regenerated"] += 1
    try:
        site.check(out, tally)
    except Violation as violation:
        raise Violation(f"{fault}: {violation}") from violation


def _check_clear_error(fault: str, answer: dict[str, dict[str, str]]) -> None:
    if "error" in answer and "Unexpected error" in answer["error"]["message"]:
        raise Violation(f"{fault}: not a clear error: {answer}")


@contextmanager
def _disk(folder: Path, kib: int) -> Iterator[Callable[[str], bool]]:
    """Mount a disk of a given size in memory; yield a function that remounts it and returns whether that succeeded."""
    folder.mkdir()

    def mount(options: str) -> bool:
        return subprocess.run(["mount", "-o", options, "chaos", folder], stderr=subprocess.DEVNULL).returncode == 0

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "chaos", folder], check=True)
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)

"""What campaigns work on: a small set of images, the undisturbed answer to it, and jobs of the real command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import orjson
import psutil
import pyarrow.parquet as pq

from fruits.images.sample import generate
from fruits.jobs.compare import compare

BIN = Path(sys.executable).parent
MARK = "FRUITS_CHAOS"  # an environment variable by which every process that comes of a command is known
STAGES = ("plan", "job.json", "rejects", "features", "moments/level-1", "model", "rows")  # as they are first written
REPORT = "report.json"
LIMIT_SECONDS = 180  # for a whole job, which takes ten
END_SECONDS = 60  # for what a killed command leaves running
START_SECONDS = 4.0  # how far into a command's start a random moment lies at most
JITTER_SECONDS = 0.02  # how long after a file appears a random moment lies at most
POLL_SECONDS = 0.001

Stored = dict[str, bytes]
Identity = tuple[int, int]


class Violation(AssertionError):
    """Something that must hold, every time, does not."""


@dataclass(slots=True)
class Tally:
    """What a campaign did and saw, as counts."""

    faults: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        seen = "".join(f", {what} {count}" for what, count in sorted(self.seen.items()))
        return f"faults {self.faults.total()} ({faults}){seen}, violations {len(self.violations)}"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of a job that can be watched from outside: so many files of a stage are there, or being written."""

    stage: str  # one of STAGES, or "start": before anything is written
    files: int
    after: float  # seconds

    def __str__(self) -> str:
        return f"{self.stage} {self.files} + {self.after * 1000:.0f} ms"


class Site:
    """A folder with images and the undisturbed answer, in which jobs are run.

    Parameters
    ----------
    root : Path
        A folder to fill.
    images : int
        How many images are drawn; three broken ones come in addition.
    partition_size : int, default 8
    """

    def __init__(self, root: Path, *, images: int, partition_size: int = 8) -> None:
        self.root = root
        self.images = root / "images"
        self.partition_size = partition_size
        generate(self.images, images=images, broken=3)
        self.listed = Counter(str(path.relative_to(self.images)) for path in self.images.rglob("*") if path.is_file())
        self.undisturbed = root / "undisturbed"
        with self.command(self.undisturbed, *self.where("local")) as command:
            command.done()
        self.answer = stored(self.undisturbed)
        self.files = {stage: len(entries(self.undisturbed, stage)) for stage in STAGES}

    @staticmethod
    def where(backend: str) -> tuple[str, ...]:
        """Return the words that choose a backend: one thread, or two processes."""
        return ("--backend", backend, "--workers", "1" if backend == "local" else "2")

    @contextmanager
    def out(self) -> Iterator[Path]:
        """Yield the address of an output folder, which is removed in the end."""
        out = self.root / f"out-{uuid4().hex[:8]}"
        try:
            yield out
        finally:
            shutil.rmtree(out, ignore_errors=True)  # what a killed command left may still write there

    @contextmanager
    def command(
        self, out: Path, *where: str, images: Path | None = None, through: tuple[str, ...] = (), **environ: str
    ) -> Iterator[Command]:
        """Start the job on `out`, with these images or others, perhaps through another command that starts it.

        Whatever comes of it is ended in the end.
        """
        words = [
            *through,
            str(BIN / "fruits"),
            "run",
            str(images or self.images),
            "--out",
            str(out),
            "--components",
            "40",
            "--json",
            "--quiet",
        ]
        words += ["--partition-size", str(self.partition_size), *where]
        command = Command(words, out, self.root / "said", environ)
        try:
            yield command
        finally:
            command.end()

    def moment(self, random: Random, out: Path, stages: tuple[str, ...] = ("start", *STAGES)) -> Moment | None:
        """Return a random moment of a random stage, of those that the job on `out` has still before it."""
        there = {stage: len(entries(out, stage)) for stage in STAGES}
        ahead = [stage for stage in stages if stage == "start" or there[stage] < self.files[stage]]
        if not ahead:
            return None
        stage = random.choice(ahead)
        if stage == "start":
            return Moment(stage, 0, random.uniform(0, START_SECONDS))
        # Half of them at once, where a file may be half written.
        after = random.choice((0.0, random.uniform(0, JITTER_SECONDS)))
        return Moment(stage, random.randint(there[stage] + 1, self.files[stage]), after)

    def check_unfinished(self, out: Path) -> None:
        """Raise where a folder says that it is complete, and is not."""
        if (out / REPORT).exists() and stored(out) != self.answer:
            raise Violation(f"{out.name}: {REPORT} is there and the job is not complete")

    def check(self, out: Path, tally: Tally) -> None:
        """Raise where a finished job differs in anything from the undisturbed one; count what was compared."""
        accounted = Counter(path for name in ("rows", "rejects") for path in paths(out / name))
        missing, extra = self.listed - accounted, accounted - self.listed
        tally.seen["images compared"] += accounted.total()
        tally.seen["images missing"] += missing.total()
        tally.seen["images twice"] += extra.total()
        if missing or extra:
            raise Violation(f"{out.name}: missing {sorted(missing)[:3]}, twice {sorted(extra)[:3]}")
        found = compare(str(self.undisturbed), str(out))
        if not found.identical:
            raise Violation(f"{out.name}: {found.differences}")
        files = stored(out)
        if wrong := sorted(
            name for name in files.keys() | self.answer.keys() if files.get(name) != self.answer.get(name)
        ):
            raise Violation(f"{out.name}: stored otherwise: {wrong[:3]}")
        tally.seen["files compared"] += len(files)
        tally.seen["temporary files left"] += sum(name.endswith(".tmp") for name in all_files(out))
        tally.seen["jobs finished"] += 1


class Command:
    """The command line in a process group of its own, and every process that comes of it."""

    def __init__(self, words: list[str], out: Path, said: Path, environ: dict[str, str]) -> None:
        self.out = out
        self.mark = uuid4().hex
        said.mkdir(exist_ok=True)
        self._answer, self._errors = said / f"{self.mark}.json", said / f"{self.mark}.err"
        with self._answer.open("wb") as answer, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                words,
                env=os.environ | {MARK: self.mark} | environ,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=errors,
                process_group=0,
            )

    def reaches(self, moment: Moment) -> bool:
        """Return at a moment, or False when the command has ended before."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while moment.files and len(entries(self.out, moment.stage)) < moment.files:
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise Violation(f"{self.out.name}: {moment} not reached within {LIMIT_SECONDS} s")
            time.sleep(POLL_SECONDS)
        try:
            self.process.wait(moment.after)
        except subprocess.TimeoutExpired:
            return True
        return False

    def family(self) -> list[psutil.Process]:
        """Return the processes that came of this command and run now, the command included."""
        entry = f"{MARK}={self.mark}".encode()
        found = []
        for pid in psutil.pids():
            try:
                if entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(pid))
            except (OSError, psutil.NoSuchProcess):  # it has ended, or is not ours
                continue
        return found

    def named(self, *words: str) -> list[psutil.Process]:
        """Return the processes of the family, the command aside, whose command lines hold one of the words."""
        found = []
        for process in self.family():
            try:
                line = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            if process.pid != self.process.pid and any(word in line for word in words):
                found.append(process)
        return found

    def kill(self, *, group: bool) -> None:
        """Kill the command, as the kernel does it, alone or with the other processes of its group."""
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """Return what the command answered.

        Raises
        ------
        Violation
            It did not end in time, or did not answer with one JSON object.
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Violation(f"{self.out.name}: it has not ended within {seconds:.0f} s") from None
        try:
            answer: dict[str, Any] = orjson.loads(self._answer.read_bytes())
        except orjson.JSONDecodeError:
            raise Violation(f"{self.out.name}: exit {self.process.returncode}: {self.errors}") from None
        return answer

    def done(self) -> dict[str, Any]:
        """Return the report of a command that has to succeed."""
        answer = self.wait()
        if self.process.returncode:
            raise Violation(f"{self.out.name}: exit {self.process.returncode}: {answer}")
        return answer

    @property
    def errors(self) -> str:
        """The end of what it said on stderr."""
        return self._errors.read_text(errors="replace")[-2000:]

    def leaves_nothing(self) -> bool:
        """Tell whether every process of a killed command ends of itself."""
        _, alive = psutil.wait_procs(self.family(), timeout=END_SECONDS)
        return not alive

    def end(self) -> None:
        """Kill what is left of the family."""
        while left := self.family():
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, timeout=1)
            self.process.poll()


def entries(out: Path, stage: str) -> set[str]:
    """Return the names of the files of a stage that are there or being written: a temporary name counts as its own."""
    folder, name = (out, stage) if stage.endswith(".json") else (out / stage, "")
    try:
        there = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    names = {".".join(entry[1:].split(".")[:2]) if entry.endswith(".tmp") else entry for entry in there}
    return {entry for entry in names if not name or entry == name}


def all_files(out: Path) -> list[str]:
    """Return the names of all files below a folder, in order."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def stored(out: Path) -> Stored:
    """Return every file that holds a part of the answer, with its bytes."""
    return {name: (out / name).read_bytes() for name in all_files(out) if name != REPORT and not name.endswith(".tmp")}


def finished(out: Path) -> dict[str, Identity]:
    """Return the parts that are done, each with its inode and time: another where it was written again.

    The rejects of a partition count when its features, which are written after them, are there.
    """
    found = {}
    for name in all_files(out):
        folder = name.partition("/")[0]
        done = folder in ("features", "moments", "rows") or (
            folder == "rejects" and (out / "features" / Path(name).name).exists()
        )
        if done and not name.endswith(".tmp"):
            status = (out / name).stat()
            found[name] = status.st_ino, status.st_mtime_ns
    return found


def paths(folder: Path) -> Iterator[str]:
    """Yield the paths that the Parquet parts in a folder list."""
    for part in sorted(folder.glob("part-*.parquet")):
        yield from pq.read_table(part, columns=["path"])["path"].to_pylist()

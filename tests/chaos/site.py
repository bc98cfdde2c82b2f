"""The test bed of the campaigns: a small image set, its undisturbed output, and jobs on the real command line."""

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
from fruits.jobs.inspect.compare import compare
from fruits.jobs.inspect.verify import verify
from fruits.progress.reporter import Silent
from tests.outputs import OWNER, contents, is_complete
from tests.processes import ended

BIN = Path(sys.executable).parent
MARK = "FRUITS_CHAOS"  # environment variable that marks all processes of a command
STAGES = (
    "commits",
    "plan",
    "rejects",
    "features",
    "moments/features-1",
    "model",
    "rows",
)  # in the order of their first files
LIMIT_SECONDS = 300  # for a whole job, which takes about 10 s
END_SECONDS = 60  # for processes left by a killed command
START_SECONDS = 4.0  # latest random moment within the start of a command
JITTER_SECONDS = 0.02  # latest random moment after a file appears
POLL_SECONDS = 0.001

Stored = dict[str, bytes]
Identity = tuple[int, int]


class Violation(AssertionError):
    """A violated invariant."""


@dataclass(slots=True)
class Tally:
    """Counts of a campaign's faults and observations."""

    faults: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        seen = "".join(f", {name} {count}" for name, count in sorted(self.seen.items()))
        return f"faults {self.faults.total()} ({faults}){seen}, violations {len(self.violations)}"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of a job, defined by the number of files of a stage that are stored or being written."""

    stage: str  # one of STAGES, or "start": before anything is written
    files: int
    after: float  # seconds

    def __str__(self) -> str:
        return f"{self.stage} {self.files} + {self.after * 1000:.0f} ms"


class Site:
    """A folder with images and an undisturbed output, in which jobs are run.

    Parameters
    ----------
    root : Path
        Folder to create everything in.
    images : int
        Number of generated images; three corrupt ones are added.
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
        """Return the arguments that choose a backend: one thread, or two processes."""
        return ("--backend", backend, "--workers", "1" if backend == "local" else "2")

    @contextmanager
    def out(self) -> Iterator[Path]:
        """Yield the path of a new output folder and delete the folder at the end."""
        out = self.root / f"out-{uuid4().hex[:8]}"
        try:
            yield out
        finally:
            shutil.rmtree(out, ignore_errors=True)  # processes left by a killed command may still write to it

    @contextmanager
    def command(
        self, out: Path, *where: str, images: Path | None = None, through: tuple[str, ...] = (), **environ: str
    ) -> Iterator[Command]:
        """Start the job on `out` and kill all its processes at the end.

        Parameters
        ----------
        out : Path
        *where : str
            Arguments that choose the backend or cluster.
        images : Path, optional
            Other images than those of the site.
        through : tuple of str
            Command that starts the job's command.
        **environ : str
            Additional environment variables.
        """
        argv = [
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
        argv += ["--partition-size", str(self.partition_size), *where]
        command = Command(argv, out, self.root / "output", environ)
        try:
            yield command
        finally:
            command.end()

    def moment(self, random: Random, out: Path, stages: tuple[str, ...] = ("start", *STAGES)) -> Moment | None:
        """Return a random moment of a random stage that the job on `out` has not finished; None if all are finished."""
        counts = {stage: len(entries(out, stage)) for stage in STAGES}
        ahead = [stage for stage in stages if stage == "start" or counts[stage] < self.files[stage]]
        if not ahead:
            return None
        stage = random.choice(ahead)
        if stage == "start":
            return Moment(stage, 0, random.uniform(0, START_SECONDS))
        # Half of the moments are immediate: the file may be half written.
        after = random.choice((0.0, random.uniform(0, JITTER_SECONDS)))
        return Moment(stage, random.randint(counts[stage] + 1, self.files[stage]), after)

    def check_unfinished(self, out: Path) -> None:
        """Raise if a folder is marked as complete and is incomplete."""
        if is_complete(out) and stored(out) != self.answer:
            raise Violation(f"{out.name}: marked as complete, but it is not")

    def check(self, out: Path, tally: Tally) -> None:
        """Raise if a finished job differs from the undisturbed one; count the compared images and files."""
        accounted = Counter(path for name in ("rows", "rejects") for path in paths(out / name))
        missing, extra = self.listed - accounted, accounted - self.listed
        tally.seen["images compared"] += accounted.total()
        tally.seen["images missing"] += missing.total()
        tally.seen["images twice"] += extra.total()
        if missing or extra:
            raise Violation(f"{out.name}: missing {sorted(missing)[:3]}, twice {sorted(extra)[:3]}")
        comparison = compare(str(self.undisturbed), str(out))
        if not comparison.identical:
            raise Violation(f"{out.name}: {comparison.differences}")
        files = stored(out)
        if wrong := sorted(
            name for name in files.keys() | self.answer.keys() if files.get(name) != self.answer.get(name)
        ):
            raise Violation(f"{out.name}: different contents: {wrong[:3]}")
        verification = verify(str(out), Silent())
        if not verification.is_intact:
            raise Violation(f"{out.name}: corrupt {verification.corrupt[:3]}, unexpected {verification.unexpected[:3]}")
        tally.seen["files compared"] += len(files)
        tally.seen["temporary files left"] += sum(name.endswith(".tmp") for name in all_files(out))
        tally.seen["jobs finished"] += 1


class Command:
    """A command in a new process group, with all processes that it starts."""

    def __init__(self, argv: list[str], out: Path, logs: Path, environ: dict[str, str]) -> None:
        self.out = out
        self.mark = uuid4().hex
        logs.mkdir(exist_ok=True)
        self._answer, self._errors = logs / f"{self.mark}.json", logs / f"{self.mark}.err"
        with self._answer.open("wb") as answer, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                argv,
                env=os.environ | {MARK: self.mark} | environ,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=errors,
                process_group=0,
            )

    def reaches(self, moment: Moment) -> bool:
        """Wait for a moment; return False if the command ends before it."""
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
        """Return the running processes of this command, itself included."""
        entry = f"{MARK}={self.mark}".encode()
        found = []
        for pid in psutil.pids():
            try:
                if entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(pid))
            except (OSError, psutil.NoSuchProcess):  # ended, or owned by another user
                continue
        return found

    def named(self, *words: str) -> list[psutil.Process]:
        """Return the processes of the family, without the command, whose command line contains one of the words."""
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
        """Kill the command with SIGKILL, alone or with its process group."""
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """Return the JSON object that the command printed.

        Raises
        ------
        Violation
            The command did not end in time, or printed no JSON object.
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Violation(f"{self.out.name}: still running after {seconds:.0f} s") from None
        try:
            answer: dict[str, Any] = orjson.loads(self._answer.read_bytes())
        except orjson.JSONDecodeError:
            raise Violation(f"{self.out.name}: exit {self.process.returncode}: {self.errors}") from None
        return answer

    def done(self) -> dict[str, Any]:
        """Return the report of a command that must succeed."""
        answer = self.wait()
        if self.process.returncode:
            raise Violation(f"{self.out.name}: exit {self.process.returncode}: {answer}")
        return answer

    @property
    def errors(self) -> str:
        """The last 2,000 characters of stderr."""
        return self._errors.read_text(errors="replace")[-2000:]

    def leaves_nothing(self) -> bool:
        """Return True if all processes of a killed command end without help."""
        return ended(self.family(), seconds=END_SECONDS)

    def end(self) -> None:
        """Kill the remaining processes of the family."""
        while remaining := self.family():
            for process in remaining:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.poll()
            ended(remaining, seconds=1)


def entries(out: Path, stage: str) -> set[str]:
    """Return the names of a stage's files, stored or being written under a temporary name."""
    try:
        listed = os.listdir(out / stage)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {".".join(entry[1:].split(".")[:2]) if entry.endswith(".tmp") else entry for entry in listed}


def all_files(out: Path) -> list[str]:
    """Return the names of all files below a folder, in order."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def stored(out: Path) -> Stored:
    """Return the contents of the parts and arrays by their names without the owner, except temporary files.

    The manifest and the metadata of the model contain names with the owner.
    """
    return {
        OWNER.sub("", name): data
        for name, data in contents(out).items()
        if not name.endswith(".tmp") and not name.startswith(("manifest/", "model/model"))
    }


def finished(out: Path) -> dict[str, Identity]:
    """Return the finished parts, each with its inode and modification time, which change when it is written again.

    The rejects of a partition are finished when its features, which are written after them, are stored. Moments and
    rows are finished when the manifest lists them; unlisted ones are written again, from stored features.
    """
    found = {}
    pages = (path.read_text() for path in (out / "manifest").glob("*.sha256"))
    listed = {line.partition("  ")[2] for page in pages for line in page.splitlines()}
    for name in all_files(out):
        folder = name.partition("/")[0]
        done = (
            folder == "features"
            or name in listed
            or (folder == "rejects" and (out / "features" / Path(name).name).exists())
        )
        if done and not name.endswith(".tmp"):
            status = (out / name).stat()
            found[name] = status.st_ino, status.st_mtime_ns
    return found


def paths(folder: Path) -> Iterator[str]:
    """Yield the column `path` of all Parquet parts of a folder."""
    for part in sorted(folder.glob("part-*.parquet")):
        yield from pq.read_table(part, columns=["path"])["path"].to_pylist()

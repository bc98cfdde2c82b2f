"""Records: one line of JSON per run, with one schema for all scenarios and backends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import orjson

from benchmarks.cases import Case
from fruits.errors import SettingsError

SCHEMA = "fruits.bench/1"
RECORDS = "records.jsonl"
WORK = ("listing", "featurize", "fit", "transform", "write")
STAGES = ("start-up", *WORK, "shutdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine of a run: `memory` in bytes, `cores` as counted by the operating system."""

    cpu: str
    cores: int
    memory: int
    system: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Comparison of a run's answer with the reference.

    Attributes
    ----------
    what : str
        Kind of the answer: ``features``, ``model``, ``rows``, ``plan`` or ``csv``.
    verdict : {"identical", "close", "wrong"}
        ``identical``: equal bits; ``close``: within the tolerance for peers; otherwise ``wrong``.
    digest : str
        SHA-256 of the answer, independent of the order in which it was written.
    largest : float
        Largest absolute difference of any value; -1 if the shapes differ.
    cosine : float or None
        Least cosine between the features of an image and the reference; for a model, between components.
    detail : str
        Reason for the verdict ``wrong``.
    """

    what: str
    verdict: Literal["identical", "close", "wrong"]
    digest: str
    largest: float = 0.0
    cosine: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run of a case.

    Attributes
    ----------
    session, group, at : str
        Session, group of cases in it, and start of the run (ISO 8601, UTC).
    commit : str
        Commit of this project, with ``+`` after it if files were changed.
    command : str
        Command line of the session.
    versions : dict of str to str
        Versions of Python and of the relevant packages.
    machine : Machine
    case : Case
    repeat : int
        From 0.
    control : bool
        True for the second run of the baseline in a turn.
    cold : bool
        True if the images were dropped from the page cache before the run; otherwise they had been read before.
    status : {"done", "failed", "not run"}
    reason : str
        Reason for a status other than ``done``.
    load, busy : float
        Load average (1 minute) and busy share of the processors just before the run.
    steal : float
        Share of the run's time that the hypervisor gave to other machines.
    seconds : dict of str to float
        By stage, one of :data:`STAGES`. ``start-up`` lasts from the command to the first work, imports included.
    worker_seconds : dict of str to float
        By step within a stage, summed over the workers; empty for scenarios without this detail.
    wall : float
        Seconds from the command to the end of the process.
    driver_peak, worker_peak, java_peak, tree_peak : int
        Peak resident memory in bytes: of the started process, of the largest other process (0 without one), of Java,
        and of all processes together (shared pages counted once per process).
    cpu_seconds : float
        CPU time of all processes of the run.
    bytes_written : int
        Size of the output.
    answer : Agreement or None
        None if the run did not finish.
    """

    schema: str = SCHEMA
    session: str
    group: str
    at: str
    commit: str
    command: str
    versions: dict[str, str]
    machine: Machine
    case: Case
    repeat: int
    control: bool = False
    cold: bool = False
    status: Literal["done", "failed", "not run"] = "done"
    reason: str = ""
    load: float = 0.0
    busy: float = 0.0
    steal: float = 0.0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    worker_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    wall: float = 0.0
    driver_peak: int = 0
    worker_peak: int = 0
    java_peak: int = 0
    tree_peak: int = 0
    cpu_seconds: float = 0.0
    bytes_written: int = 0
    answer: Agreement | None = None

    @property
    def work(self) -> float:
        """Seconds of work: all stages but start-up and shutdown."""
        return sum(self.seconds.get(stage, 0.0) for stage in WORK)

    @property
    def images_per_second(self) -> float:
        """Images per second of work, without start-up."""
        return self.case.images / self.work if self.work else 0.0

    @property
    def images_per_second_whole(self) -> float:
        """Images per second from the command to the end of the process, start-up and shutdown included."""
        return self.case.images / self.wall if self.wall else 0.0

    @property
    def ranked(self) -> bool:
        """True if the run finished and its answer is not wrong."""
        return self.status == "done" and (self.answer is None or self.answer.verdict != "wrong")

    def to_json(self) -> bytes:
        """Return the record and its rates as one line of JSON."""
        cores = self.case.workers
        rates = {
            "images_per_second": self.images_per_second,
            "images_per_second_per_core": self.images_per_second / cores,
            "images_per_second_whole": self.images_per_second_whole,
            "images_per_second_whole_per_core": self.images_per_second_whole / cores,
        }
        values = dataclasses.asdict(self)
        rounded = {name: round(value, 3) for name, value in rates.items()}
        return orjson.dumps(values | {"rates": rounded}, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Parse a line written by :meth:`to_json`.

        Raises
        ------
        SettingsError
            The line is not a record of this schema.
        """
        try:
            values: dict[str, Any] = orjson.loads(line)
            schema = values.get("schema")
            if schema != SCHEMA:
                raise SettingsError(f"unknown schema {schema!r}. Allowed: {SCHEMA!r}.")
            del values["rates"]
            answer = values.pop("answer")
            return cls(
                **values
                | {
                    "machine": Machine(**values["machine"]),
                    "case": Case(**values["case"]),
                    "answer": None if answer is None else Agreement(**answer),
                }
            )
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise SettingsError(f"not a record of {SCHEMA}: {error}.") from error


def append(folder: Path, record: Record) -> None:
    """Append a record to the file of a folder."""
    with (folder / RECORDS).open("ab") as file:
        file.write(record.to_json())


def read_records(folder: str | Path) -> list[Record]:
    """Return the records of a folder; for a group measured in several sessions, those of the last session.

    Raises
    ------
    SettingsError
        The folder has no records, or a line is not a record.
    """
    path = Path(folder, RECORDS)
    if not path.is_file():
        raise SettingsError(
            f"{folder}: no {RECORDS}. Give the --out folder of a measurement: fruits bench IMAGES --out FOLDER."
        )
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            records.append(Record.from_json(line))
        except SettingsError as error:
            raise SettingsError(f"{path}, line {number}: {error}") from error
    last = {record.group: record.session for record in records}
    return [record for record in records if record.session == last[record.group]]

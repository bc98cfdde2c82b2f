"""One record per run, as a line of JSON: one schema for every scenario and every engine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import orjson

from benchmarks.cases import Case
from fruits.errors import SettingsError

__all__ = ["RECORDS", "SCHEMA", "STAGES", "Agreement", "Machine", "Record", "append", "read_records"]

SCHEMA = "fruits.bench/1"
RECORDS = "records.jsonl"
WORK = ("listing", "featurize", "fit", "transform", "write")
STAGES = ("start-up", *WORK, "shutdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a run took place: `memory` in bytes, `cores` as the system counts them."""

    cpu: str
    cores: int
    memory: int
    system: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How the answer of a run compares with the reference, the local backend's.

    Attributes
    ----------
    what : str
        What was compared: ``features``, ``model``, ``rows``, ``plan`` or ``csv``.
    verdict : {"identical", "close", "wrong"}
        ``identical`` to the last bit; ``close``: within the tolerance of those who may differ; else ``wrong``.
    digest : str
        The SHA-256 of the answer, in an order that does not depend on who wrote it.
    largest : float
        The largest absolute difference of any value; -1 where the two cannot be compared value by value.
    cosine : float or None
        The least cosine between an image's features and the reference's; for a model, between two components.
    detail : str
        In words, what is wrong.
    """

    what: str
    verdict: Literal["identical", "close", "wrong"]
    digest: str
    largest: float = 0.0
    cosine: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run, in a process of its own.

    Attributes
    ----------
    session, group, at : str
        The session of runs, the group of cases within it, and when the run began (ISO 8601, UTC).
    commit, command : str
        Of this project (with ``+`` where files had been changed); and what was typed to start the session.
    versions : dict of str to str
        Of Python and of every package that may matter.
    machine : Machine
    case : Case
    repeat : int
        From 0.
    control : bool
        Whether this is the second of two equal sides.
    cold : bool
        Whether the images were dropped from the system's page cache before. Warm: they had been read before.
    status : {"done", "failed", "not run"}
    reason : str
        Why it was not done, or not run.
    load, busy, steal : float
        The load average (1 minute) and the busy share of the processors just before, with nothing of ours running; and
        the share of the run's time that the hypervisor gave to others.
    seconds : dict of str to float
        By stage, of :data:`STAGES`. ``start-up`` is from the command to the first work, imports included.
    worker_seconds : dict of str to float
        Of the steps within a stage, added up over the workers, where the scenario knows them.
    wall : float
        Seconds from the command to the end of the process.
    driver_peak, worker_peak, java_peak, tree_peak : int
        Bytes of resident memory: the most that the started process held, that the largest other process held (0:
        there was none), that Java held, and that all held together (shared pages counted each time).
    cpu_seconds : float
        Of all processes of the run.
    bytes_written : int
        The size of what the run left behind.
    answer : Agreement or None
        None where the run was not done, or has no answer to check.
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
        """Whether it may be ranked: it was done, and its answer is not wrong."""
        return self.status == "done" and (self.answer is None or self.answer.verdict != "wrong")

    def to_json(self) -> bytes:
        """Return the record as one line, with the rates that follow from it."""
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
        """Return the record that a line holds.

        Raises
        ------
        SettingsError
            The line is no record, or of another schema.
        """
        try:
            values: dict[str, Any] = orjson.loads(line)
            schema = values.get("schema")
            if schema != SCHEMA:
                raise SettingsError(f"a record of schema {schema!r} is not known here. Allowed: {SCHEMA!r}.")
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
    """Add a record to those of a folder."""
    with (folder / RECORDS).open("ab") as file:
        file.write(record.to_json())


def read_records(folder: str | Path) -> list[Record]:
    """Return the records of a folder; of a group that was measured in several sessions, those of the last.

    Raises
    ------
    SettingsError
        There are none, or a line is not one.
    """
    path = Path(folder, RECORDS)
    if not path.is_file():
        raise SettingsError(f"{folder}: no {RECORDS} there. Give the --out of: fruits bench IMAGES --out FOLDER.")
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            records.append(Record.from_json(line))
        except SettingsError as error:
            raise SettingsError(f"{path}, line {number}: {error}") from error
    last = {record.group: record.session for record in records}
    return [record for record in records if record.session == last[record.group]]

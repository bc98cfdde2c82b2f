"""Reports: the result of a job, stored when it completes, and the result of a slice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fruits.errors import DamageError, OutputError
from fruits.jobs.stored import StoredJob
from fruits.storage.commits import Commit, last_commit
from fruits.storage.folder import Folder
from fruits.text import brief

REPORT = "report"  # report-OWNER.json


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The result of a finished job, also stored in its output as ``report-OWNER.json``.

    Attributes
    ----------
    command : str
        ``fit``, ``run``, ``transform`` or ``predict``.
    out : str
        The output folder.
    images, rows : int
        The number of listed images, and of usable ones.
    rejects : dict of str to int
        The number of unusable images by reason; ``images = rows + sum(rejects.values())``.
    ignored : int or None
        The number of files below the image folder that were skipped; None with ``keep_plan``, which lists nothing.
    partitions, resumed : int
        The number of partitions, and of those that an earlier command finished.
    seconds : dict of str to float
        The duration of each stage on the driver.
    worker_seconds : dict of str to float
        The duration of each step, summed over the workers.
    images_per_second : float
        Images that this command featurized, per second of that stage; 0 if none.
    components : int
        The number of components of the model; 0 for predictions, which use none.
    explained_variance_ratio : list of float
        The explained variance ratio of each component.
    components_reaching : dict of str to int
        The number of components, kept or not, that reach 80, 90 and 95 % of the variance.
    slowest : list of dict
        The ten slowest partitions of this command, if there are more than eight: ``stage``, ``index``, ``host``,
        ``pid``, ``attempt``, ``seconds``, and the seconds of its ``steps``.
    labels : int or None
        The number of labels of the images; None with ``keep_plan``.
    skipped : dict of str to int, or None
        `ignored` by kind; see :data:`fruits.images.skipped.KINDS`.
    throughput : dict
        Of the partitions that this command featurized: the ``seconds`` that they took, the ``interval`` in seconds, and
        the number of ``images`` in each of at most 120 intervals; empty if there were none.
    """

    command: str
    out: str
    images: int
    rows: int
    rejects: dict[str, int]
    ignored: int | None
    partitions: int
    resumed: int
    seconds: dict[str, float]
    worker_seconds: dict[str, float]
    images_per_second: float
    components: int = 0
    explained_variance_ratio: list[float] = field(default_factory=list)
    components_reaching: dict[str, int] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    labels: int | None = None
    skipped: dict[str, int] | None = None
    throughput: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Report({self.command!r}, out={self.out!r}, images={self.images}, rows={self.rows}, "
            f"rejects={sum(self.rejects.values())}, components={self.components})"
        )

    @classmethod
    def of(cls, values: dict[str, object], origin: str) -> Report:
        """Return the report that :meth:`to_dict` converted to these values.

        Raises
        ------
        DamageError
            The values are not a report; the message names `origin`.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = brief(".".join(map(str, problem["loc"])))
            raise DamageError(
                f"{origin} is corrupt: {name}: {problem['msg']}. Remove it, and start the same command again."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, repr=False)
class SliceReport:
    """The result of a slice of a job (``--shards``); it is not stored.

    Attributes
    ----------
    command, out, images, rows, rejects, partitions, resumed, seconds, worker_seconds, images_per_second, slowest
        As in :class:`Report`, for the slice alone.
    shards : str
        The slice, such as ``2/4``.
    partitions_of_job, partitions_left : int
        The number of partitions of the whole job, and of those that were not featurized when this slice ended. If none
        is left, the same command without ``--shards`` finishes the job.
    """

    command: str
    out: str
    shards: str
    images: int
    rows: int
    rejects: dict[str, int]
    partitions: int
    resumed: int
    partitions_of_job: int
    partitions_left: int
    seconds: dict[str, float]
    worker_seconds: dict[str, float]
    images_per_second: float
    slowest: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return (
            f"SliceReport({self.command!r}, out={self.out!r}, shards={self.shards!r}, images={self.images}, "
            f"rows={self.rows}, rejects={sum(self.rejects.values())}, partitions_left={self.partitions_left})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return dataclasses.asdict(self)


def report_from_dict(values: dict[str, Any]) -> Report | SliceReport:
    """Return the report that its ``to_dict`` converted to these values."""
    return SliceReport(**values) if "shards" in values else Report(**values)


def row_files(out: Folder, commit: Commit) -> list[str]:
    """Return the names of the rows of an output in the order of its images, below the folder; empty for a fit.

    Raises
    ------
    DamageError
        The plan of the output is corrupt.
    """
    if commit.job["command"] == "fit":
        return []
    job = StoredJob.load(out, commit)
    return [job.rows_name(partition) for partition in job.plan.partitions]


def reason(error: OSError) -> str:
    """Return the reason of an error, and its file, which can be one of an input, or a temporary one."""
    name = error.filename2 or error.filename  # of a rename: the second is not temporary
    file = f": {name}" if isinstance(name, str) else ""
    return f"{error.strerror}{file}" if error.strerror else str(error)


@contextmanager
def reading(out: str) -> Iterator[None]:
    """Translate an OSError of reading an output."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{out} cannot be read: {reason(error)}. Make it readable, or restore it.") from error


def finished(out: Folder) -> Commit:
    """Return the last commit of an output folder that is complete.

    Raises
    ------
    OutputError
        The folder cannot be read, or contains no complete output.
    """
    with reading(out.address):
        commit = last_commit(out)
    if commit is None or not commit.complete:
        state = "its job has not finished" if commit is not None else "no job has written to it"
        raise OutputError(f"{out.address}: no finished output ({state}). Give the `out` of a finished command.")
    return commit

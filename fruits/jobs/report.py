"""What a finished job did, which is the content of ``report.json``, and what a slice of a job did."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from fruits.errors import DamageError, OutputError
from fruits.storage.folder import Folder
from fruits.text import brief

__all__ = ["REPORT", "Report", "SliceReport", "finished", "report_of"]

REPORT = "report.json"  # which means that everything is there


@dataclass(frozen=True, slots=True)
class Report:
    """What a finished job did; also stored as ``report.json``.

    Attributes
    ----------
    command : str
        ``fit``, ``run`` or ``transform``.
    out : str
        The output folder.
    images, rows : int
        How many images were listed, and how many of them were used.
    rejects : dict of str to int
        How many were not used, by reason; ``images = rows + sum(rejects.values())``.
    ignored : int or None
        Files below the images' folder that are no images, and links that lead out of it and were not to be followed;
        None where the images were not listed (``keep_plan``).
    partitions, resumed : int
        How many partitions there are, and how many of them were found done when this command started.
    seconds : dict of str to float
        The time of each stage, as the driver saw it.
    worker_seconds : dict of str to float
        The time of each step, added up over the workers.
    images_per_second : float
        Images that went through the network in this command, per second of that stage; 0 when all were done before.
    components : int
        The number of components of the model.
    explained_variance_ratio : list of float
        Of each component.
    components_reaching : dict of str to int
        How many components, kept or not, reach 80, 90 and 95 % of the variance.
    slowest : list of dict
        The three partitions of this command that took longest, where there are more than eight: ``stage``, ``index``,
        ``host``, ``pid``, ``attempt``, ``seconds``, and the seconds of its ``steps``.
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
    components: int
    explained_variance_ratio: list[float]
    components_reaching: dict[str, int]
    slowest: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, values: dict[str, object], origin: str) -> Report:
        """Return the report that :meth:`to_dict` made these values of.

        Raises
        ------
        DamageError
            They are not what a report says; names `origin`.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = brief(".".join(map(str, problem["loc"])))
            raise DamageError(
                f"{origin} is damaged: {name}: {problem['msg']}. Remove it, and start the same command again."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the report as values that JSON knows."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class SliceReport:
    """What a slice of a job did, which ``--shards`` asks for; it is not stored.

    Attributes
    ----------
    command, out, images, rows, rejects, partitions, resumed, seconds, worker_seconds, images_per_second, slowest
        As in :class:`Report`, of the slice alone.
    shards : str
        Which slice of how many: ``2/4``.
    partitions_of_job, partitions_left : int
        How many partitions the whole job has, and for how many of them the network had still to run when this slice
        ended. When none is left, the same command without ``--shards`` finishes the job.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the report as values that JSON knows."""
        return dataclasses.asdict(self)


def report_of(values: dict[str, Any]) -> Report | SliceReport:
    """Return the report that ``to_dict`` gave as these values."""
    return SliceReport(**values) if "shards" in values else Report(**values)


def finished(out: Folder) -> Folder:
    """Return an output folder that a finished job has left.

    Raises
    ------
    OutputError
        It cannot be read, or there is no report in it.
    """
    try:
        found = out.exists(REPORT)
    except OSError as error:
        raise OutputError(f"{out.address} cannot be read: {error.strerror or error}.") from error
    if not found:
        raise OutputError(
            f"{out.address}: no finished output ({REPORT} is missing). Give the --out of a finished command."
        )
    return out

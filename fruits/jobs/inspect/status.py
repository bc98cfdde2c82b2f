"""The progress of a job, derived from its stored parts: from any machine, while it runs or after it was stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fruits.errors import OutputError
from fruits.jobs.job import FITTING
from fruits.jobs.stored import StoredJob
from fruits.jobs.tasks.moments import levels
from fruits.jobs.tasks.rejects import ACCOUNT
from fruits.storage.commits import COMMITS, last_commit
from fruits.storage.folder import Folder
from fruits.storage.stores import FileInfo
from fruits.text import without_secrets

WINDOW = 64  # newest parts of a stage, from which its speed is estimated
SURVEYED = 2000  # partitions whose rejects are read, at most; this takes seconds
STILL_SECONDS = 60.0  # without a new part, and five usual intervals, before a job counts as stalled


@dataclass(frozen=True, slots=True)
class StageStatus:
    """The progress of a stage.

    Attributes
    ----------
    name : str
        The name in the job's progress.
    done, total : int
        The number of stored parts, and of all parts.
    unit : str
        The unit of a part: ``partitions``, ``groups`` or ``models``.
    """

    name: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class Status:
    """The progress of a job.

    Attributes
    ----------
    out, command : str
        The output folder, and ``fit``, ``run`` or ``transform``.
    complete : bool
        Whether the output is complete.
    images, partitions : int
        The number of listed images, and of partitions.
    stages : list of StageStatus
        In the order of execution.
    images_done : int
        The number of featurized images.
    rejects : dict of str to int
        The number of unusable images by reason, in the first `surveyed` finished partitions.
    surveyed : int
        The number of partitions whose rejects were counted: all finished ones, up to 2,000.
    rows : int or None
        The number of usable images; None if not all rejects were counted.
    seconds_since_newest : float or None
        Since the last part was stored, by the clocks of the storage and of this machine; None if the storage reports
        no times.
    moves : bool
        Whether parts are stored at the usual pace; False if the job is complete.
    images_per_second, seconds_left : float or None
        Estimates for the current stage, if it counts partitions; None if unknown or stalled.
    """

    out: str
    command: str
    complete: bool
    images: int
    partitions: int
    stages: list[StageStatus]
    images_done: int
    rejects: dict[str, int]
    surveyed: int
    rows: int | None
    seconds_since_newest: float | None
    moves: bool
    images_per_second: float | None
    seconds_left: float | None

    @property
    def stage(self) -> StageStatus | None:
        """The current stage; None if all are complete."""
        return _under_way(self.stages)


def status(out: str, *, now: Callable[[], float] = time.time) -> Status:
    """Return the progress of the job in an output folder; nothing is changed.

    Parameters
    ----------
    out : str
        A local path or any fsspec URL.
    now : callable, default ``time.time``
        Returns the seconds since the epoch.

    Raises
    ------
    OutputError
        The folder contains no job, or cannot be read.
    """
    folder = Folder.at(out)
    try:
        return _status(folder, now)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}. Give the `out` of a job that can be read.") from error
    except (KeyError, TypeError, ValueError, pa.ArrowInvalid) as error:
        raise OutputError(f"{folder.address} is corrupt: {type(error).__name__}: {error}.") from error


def _status(out: Folder, now: Callable[[], float]) -> Status:
    commit = last_commit(out)
    if commit is None:
        raise OutputError(f"{out.address}: no job here, or its images are still being listed. Give the `out` of a job.")
    if commit.job["command"] == "train":
        raise OutputError(f"{out.address} is a recogniser. Give the `out` of a job.")
    job = StoredJob.load(out, commit)
    plan = job.plan
    parts = _parts(job)
    stages = [StageStatus(name, len(found), total, unit) for name, (found, total, unit) in parts.items()]
    network = next((found for found, _, unit in parts.values() if unit == "partitions"), {})
    done = [partition for partition in plan.partitions if partition.index in network]
    rejects, surveyed = _rejects(out, {job.rejects_name(partition).rpartition("/")[2] for partition in done})
    images_done = sum(partition.images for partition in done)
    commits = (out / COMMITS).files().values()
    stored = [
        *(file.modified for file in commits),
        *(file.modified for found, *_ in parts.values() for file in found.values()),
    ]
    idle = max(0.0, now() - max(stored)) if max(stored) else None
    under_way = next((found for found, total, _ in parts.values() if len(found) < total), {})
    interval = _interval(under_way)
    moves = not commit.complete and idle is not None and idle <= max(STILL_SECONDS, 5 * (interval or 0))
    stage = _under_way(stages)
    per_part = interval if moves and stage is not None and stage.unit == "partitions" else None
    return Status(
        out=without_secrets(out.address),
        command=str(commit.job["command"]),
        complete=commit.complete,
        images=plan.images,
        partitions=len(plan.partitions),
        stages=stages,
        images_done=images_done,
        rejects=rejects,
        surveyed=surveyed,
        rows=images_done - sum(rejects.values()) if surveyed == len(network) else None,
        seconds_since_newest=None if idle is None else round(idle, 1),
        moves=moves,
        images_per_second=round(plan.images / len(plan.partitions) / per_part, 1) if per_part else None,
        seconds_left=round((stage.total - stage.done) * per_part, 1) if per_part and stage is not None else None,
    )


def _under_way(stages: Sequence[StageStatus]) -> StageStatus | None:
    return next((stage for stage in stages if stage.done < stage.total), None)


def _parts(job: StoredJob) -> dict[str, tuple[Mapping[int, FileInfo], int, str]]:
    """Return the stored parts, the number of parts and the unit of each stage, in the order of execution."""
    owned, identity, partitions = job.owned, job.commit.job, job.plan.partitions
    count, has_source = len(partitions), "source" in identity
    found: dict[str, tuple[Mapping[int, FileInfo], int, str]] = {}
    if identity["command"] in FITTING:
        if not has_source:
            features = {job.features_name(partition): partition.index for partition in partitions}
            found["featurize"] = _stored(owned.folder, "features", features), count, "partitions"
        model = _stored(owned.folder, "model", {owned.name("model/model", "json"): 0})
        if identity["solver"] == "exact" and not has_source and not job.commit.base:
            found["moments"] = _merged(job, model)
        found["solve" if identity["solver"] == "exact" else "native fit"] = model, 1, "models"
    if identity["command"] != "fit":
        names = {job.rows_name(partition): partition.index for partition in partitions}
        is_direct = identity["command"] not in FITTING and not has_source
        found[identity["command"] if is_direct else "rows"] = _stored(owned.folder, "rows", names), count, "partitions"
    return found


def _merged(job: StoredJob, model: Mapping[int, FileInfo]) -> tuple[Mapping[int, FileInfo], int, str]:
    """Return the stored nodes of the merge tree; a complete job has removed all but their sum."""
    tree = levels([partition.images for partition in job.plan.partitions])
    nodes = [
        job.owned.part(f"moments/features-{group.level}", group.index, "safetensors")
        for level in tree
        for group in level
    ]
    if model:
        return dict.fromkeys(range(len(nodes)), model[0]), len(nodes), "groups"
    found: dict[int, FileInfo] = {}
    for level in tree:
        found |= _stored(
            job.owned.folder, f"moments/features-{level[0].level}", {name: n for n, name in enumerate(nodes)}
        )
    return found, len(nodes), "groups"


def _stored(out: Folder, folder: str, names: Mapping[str, int]) -> dict[int, FileInfo]:
    """Return the stored files of a folder by the number of their name."""
    files = (out / folder).files().items()
    return {names[name]: file for file_name, file in files if (name := f"{folder}/{file_name}") in names}


def _rejects(out: Folder, done: Container[str]) -> tuple[dict[str, int], int]:
    """Return the number of rejects by reason, and the number of partitions that were read for it."""
    stored = (out / "rejects").files()
    names = [name for name in stored if name in done]
    counts: Counter[str] = Counter()
    surveyed = 0
    for content in (out / "rejects").fetch((name, stored[name].size, "") for name in islice(names, SURVEYED)):
        if isinstance(content, OSError):
            raise content
        account = orjson.loads((pq.read_schema(BytesIO(content)).metadata or {})[ACCOUNT])
        counts.update(account["rejects"])
        surveyed += 1
    return dict(sorted(counts.items())), surveyed


def _interval(parts: Mapping[int, FileInfo]) -> float | None:
    """Return the mean interval between the newest parts, in seconds."""
    times: Sequence[float] = sorted(file.modified for file in parts.values())[-WINDOW:]
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None

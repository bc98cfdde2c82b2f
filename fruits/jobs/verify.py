"""Verification of a finished output: every part exists and has the SHA-256 that the manifest lists."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fruits.errors import ModelError, OutputError
from fruits.images.plan import Plan, plan_file
from fruits.jobs.identity import JOB, stored_plan
from fruits.jobs.report import finished
from fruits.jobs.tasks.moments import moments_name
from fruits.model.moments import levels
from fruits.model.scaled_pca import ScaledPCA
from fruits.progress.reporter import Progress
from fruits.storage.checksums import CorruptPart, CorruptPartError, Manifest, read_part
from fruits.storage.folder import Folder, is_temporary, part_name

__all__ = ["Verification", "verify"]

READERS = 8


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification.

    Attributes
    ----------
    parts, bytes : int
        The number of intact parts, and their size.
    corrupt : tuple of CorruptPart
        The missing and the corrupt parts.
    unexpected : tuple of str
        Files in the folders of the parts that do not belong to this job, by name below the output folder.
    """

    parts: int
    bytes: int
    corrupt: tuple[CorruptPart, ...]
    unexpected: tuple[str, ...]

    @property
    def is_intact(self) -> bool:
        """Whether no part is corrupt, and no file unexpected."""
        return not (self.corrupt or self.unexpected)


def verify(address: str, progress: Progress) -> Verification:
    """Read every part of a finished output, and compare it with the manifest.

    Parameters
    ----------
    address : str
        The output folder.
    progress : Progress
        The listener for the count of parts.

    Raises
    ------
    OutputError
        There is no finished output at this address.
    """
    out = finished(Folder.at(address))
    if not out.exists(JOB):
        raise OutputError(
            f"{out.address}: no finished output ({JOB} is missing). Give the --out of a finished command."
        )
    identity = out.read_json(JOB)
    try:
        expected = list(_part_names(identity, stored_plan(out, identity)))
    except (KeyError, ValueError) as error:
        raise OutputError(f"{out.address}/{JOB} is corrupt: {error!r}. Use --overwrite to start again.") from error
    manifest = Manifest.load(out)
    corrupt: list[CorruptPart] = []
    intact = size = 0

    def check(name: str) -> int | CorruptPart:
        known = manifest.get(name)
        if known is None:
            return CorruptPart(name, "not in the manifest")
        try:
            return len(read_part(out, name, known))
        except CorruptPartError as error:
            return error.part

    with progress.stage("verify", total=len(expected), unit="parts") as stage, ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(check, expected):
            if isinstance(found, CorruptPart):
                corrupt.append(found)
            else:
                intact, size = intact + 1, size + found
            stage.advance(1)
    if identity["command"] != "transform":
        try:
            ScaledPCA.load(out / "model")
        except ModelError as error:
            corrupt.append(CorruptPart("model", str(error)))
    return Verification(intact, size, tuple(corrupt), tuple(_unexpected_files(out, expected)))


def _unexpected_files(out: Folder, expected: list[str]) -> Iterator[str]:
    """Yield the files in the folders of the parts that are not parts of the job."""
    for folder in sorted({name.rpartition("/")[0] for name in expected}):
        names = {f"{folder}/{name}" for name in (out / folder).names() if not is_temporary(name)}
        yield from sorted(names.difference(expected))


def _part_names(identity: dict[str, object], plan: Plan) -> Iterator[str]:
    """Yield the names of the parts of a finished job."""
    partitions = plan.partitions()
    yield from (f"plan/{name}" for name in sorted({plan_file(partition) for partition in partitions}))
    folders = [("rejects", "parquet")]
    if identity["command"] != "transform":
        folders.append(("features", "parquet"))
        if identity["solver"] == "exact":
            for level in levels(len(partitions)):
                yield from (moments_name(group.level, group.index) for group in level)
    if identity["command"] != "fit":
        folders.append(("rows", str(identity["format"])))
    for folder, suffix in folders:
        yield from (f"{folder}/{part_name(partition.index, suffix)}" for partition in partitions)

"""Whether a finished output is whole: every part is there, and has the SHA-256 that its manifest states."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fruits.errors import ModelError, OutputError
from fruits.images.plan import Plan, plan_file
from fruits.jobs.identity import JOB, stored_plan
from fruits.jobs.report import finished
from fruits.model.moments import levels
from fruits.model.scaled_pca import ScaledPCA
from fruits.progress.reporter import Progress
from fruits.storage.checksums import Damage, Manifest, PartError, read_part
from fruits.storage.folder import Folder, is_temporary, part_name

__all__ = ["Verification", "verify"]

READERS = 8


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes
    ----------
    parts, bytes : int
        How many parts are whole, and how many bytes they have.
    damages : tuple of Damage
        What is missing or damaged.
    strangers : tuple of str
        Parts that are there and are not of this job, by their names below the output folder.
    """

    parts: int
    bytes: int
    damages: tuple[Damage, ...]
    strangers: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to mend."""
        return not (self.damages or self.strangers)


def verify(address: str, progress: Progress) -> Verification:
    """Read every part of a finished output, and return what is whole and what is not.

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
    about = out.read_json(JOB)
    try:
        expected = list(_expected(about, stored_plan(out, about)))
    except (KeyError, ValueError) as error:
        raise OutputError(f"{out.address}/{JOB} is damaged: {error!r}. Use --overwrite to begin anew.") from error
    manifest = Manifest.load(out)
    damages: list[Damage] = []
    strangers: list[str] = []
    whole = size = 0

    def look(name: str) -> int | Damage:
        known = manifest.get(name)
        if known is None:
            return Damage(name, "not in the manifest")
        try:
            return len(read_part(out, name, known))
        except PartError as error:
            return error.damage

    with progress.stage("verify", total=len(expected), unit="parts") as stage, ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(look, expected):
            if isinstance(found, Damage):
                damages.append(found)
            else:
                whole, size = whole + 1, size + found
            stage.advance(1)
    for folder in sorted({name.rpartition("/")[0] for name in expected}):
        there = [f"{folder}/{name}" for name in (out / folder).names() if not is_temporary(name)]
        strangers += sorted(set(there) - set(expected))
    if about["command"] != "transform":
        try:
            ScaledPCA.load(out / "model")
        except ModelError as error:
            damages.append(Damage("model", str(error)))
    return Verification(whole, size, tuple(damages), tuple(strangers))


def _expected(about: dict[str, object], plan: Plan) -> Iterator[str]:
    """Yield the names of the parts that a finished job has."""
    partitions = plan.partitions()
    yield from (f"plan/{name}" for name in sorted({plan_file(partition) for partition in partitions}))
    folders = [("rejects", "parquet")]
    if about["command"] != "transform":
        folders.append(("features", "parquet"))
        if about["solver"] == "exact":
            for level in levels(len(partitions)):
                folder = f"moments/level-{level[0].level}"
                yield from (f"{folder}/{part_name(group.index, 'safetensors')}" for group in level)
    if about["command"] != "fit":
        folders.append(("rows", str(about["format"])))
    for folder, suffix in folders:
        yield from (f"{folder}/{part_name(partition.index, suffix)}" for partition in partitions)

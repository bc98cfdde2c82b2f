"""The output of a job: claim a folder for a new job, resume an unfinished one, or refuse.

The last commit of a folder names the job that owns it; see :mod:`fruits.storage.commits`. A new job claims a folder
with a commit before it writes anything else there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from fruits.errors import DatasetError, OutputError, SettingsError
from fruits.images.listing import ImageEntry, Listing
from fruits.images.plan import Plan, make_plan
from fruits.jobs.identity import check_same, describe, is_same, stored_plan
from fruits.jobs.job import Job
from fruits.jobs.stages import StageRunner
from fruits.model.components import check_components
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork
from fruits.storage.checksums import MANIFEST, CorruptPart, CorruptPartError, Manifest, checksum, read_part
from fruits.storage.commits import COMMITS, OLD_JOB, Commit, OwnedFolder, claim, last_commit, last_number, owner_in
from fruits.storage.folder import Folder, is_temporary

__all__ = ["FOLDERS", "Output", "open_output"]

FOLDERS = ("plan", "rejects", "features", "moments", "model", "rows", MANIFEST)
LISTED_AT_ONCE = 1000  # images between two progress counts: counting each of 100,000,000 takes minutes


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder that this command may write to.

    Attributes
    ----------
    owned : OwnedFolder
        The folder, as its owner.
    commit : Commit
        The last commit of the job.
    plan : Plan
        The partitions of the images.
    manifest : Manifest
        The checksums of the parts that earlier commands wrote.
    fresh : bool
        Whether this command starts the job; False if it resumes one.
    labels : int or None
        The number of labels of the images; None if nothing was listed (``keep_plan``).
    skipped : dict of str to int, or None
        The number of files that the listing skipped, by kind; None if nothing was listed.
    """

    owned: OwnedFolder
    commit: Commit
    plan: Plan
    manifest: Manifest
    fresh: bool
    labels: int | None = None
    skipped: dict[str, int] | None = None

    @property
    def folder(self) -> Folder:
        """The output folder."""
        return self.owned.folder

    def plan_checksum(self, index: int) -> bytes:
        """Return the SHA-256 of a plan file."""
        return bytes.fromhex(self.commit.files[self.owned.part("plan", index, "parquet")])

    def subfolders(self) -> list[str]:
        """Return the folders of the parts, with one for each level of the moments; the empty string is the root."""
        levels = [f"moments/{name}" for name in (self.folder / "moments").names()]
        return ["", *FOLDERS, *levels]


def open_output(command: str, job: Job, network: NeuralNetwork, model: ScaledPCA | None, runner: StageRunner) -> Output:
    """List and plan the images, and return the output, new or resumed.

    Parameters
    ----------
    command : {"fit", "run", "transform"}
    job : Job
    network : NeuralNetwork
    model : ScaledPCA or None
        The fitted model of a transform.
    runner : StageRunner
        Reports the listing.

    Raises
    ------
    DatasetError
        The folder contains no images, or too few.
    OutputError
        The output folder cannot be written, or contains another job or other files.
    SettingsError
        ``keep_plan`` without a stored plan, or more components than the images allow.
    """
    out = Folder.at(job.out)
    out.check()
    current = _current(out, job)
    if job.keep_plan:
        return _resume_kept_plan(command, job, network, model, out, current)
    with tempfile.TemporaryDirectory(prefix="fruits-plan-") as temporary:
        spool = _PlanSpool(Path(temporary))
        listing = Listing(
            job.images,
            limit=job.limit,
            sample=job.sample,
            seed=job.seed,
            follow_links=job.follow_links,
            include_hidden=job.include_hidden,
        )
        with runner.timed("listing") as advance:
            plan = make_plan(_counted(listing, advance), job.partition_size, spool)
        _check_plan(command, job, plan, listing)
        for line in listing.describe_skipped():
            runner.progress.note(f"skipped {line}")
        identity = describe(command, job, plan, network, model)
        commit, fresh = _claim_or_resume(out, job, current, identity, spool.checksums, listing)
        output = _opened(out, commit, plan, fresh=fresh, labels=listing.labels, skipped=dict(listing.skipped))
        for part in spool.store(output):
            runner.progress.event("damage", f"corrupt: {part}; regenerating", parts=[str(part)])
    return output


def _current(out: Folder, job: Job) -> Commit | None:
    """Return the last commit of a folder; raise if the folder contains anything but an output."""
    if out.is_file():
        raise OutputError(f"`out` {job.out} is a file. Give a folder, or a path that does not exist yet.")
    names = [name for name in out.names() if not is_temporary(name)]  # temporary files of a killed writer
    if COMMITS in names:
        try:
            current = last_commit(out)
        except OutputError:
            if not job.overwrite:
                raise
            return Commit(last_number(out), "", {})
        if current is not None:
            return current
        names.remove(COMMITS)  # the first commit is missing or under way
    if OLD_JOB in names:
        if not job.overwrite:
            raise OutputError(
                f"`out` {job.out} contains the output of an earlier version of Fruits, whose format differs. Use "
                "`overwrite` to replace it, or give another folder."
            )
    elif names and all(name in FOLDERS or owner_in(name) for name in names):
        if not job.overwrite:
            raise OutputError(
                f"`out` {job.out} contains parts of a job, but its commits are missing. Use `overwrite` to start over, "
                "or give another folder."
            )
    elif names:
        raise OutputError(
            f"`out` {job.out} contains other files ({', '.join(names[:3])}) and no job. "
            "Give an empty folder, or one that does not exist yet."
        )
    return None


def _claim_or_resume(
    out: Folder,
    job: Job,
    current: Commit | None,
    identity: dict[str, object],
    plan_files: Mapping[str, str],
    listing: Listing,
) -> tuple[Commit, bool]:
    """Return a commit of the requested job, and whether this command created it."""
    while True:
        if current is not None and is_same(current.job, identity) and not (job.overwrite and current.complete):
            return current, False
        if current is not None and not job.overwrite:
            check_same(out, current, identity, listing)
        claimed = claim(out, identity, plan_files, (current.number if current is not None else 0) + 1)
        if claimed is not None:
            return claimed, True
        current = last_commit(out)  # a twin, another slice, or another job was faster


def _resume_kept_plan(
    command: str, job: Job, network: NeuralNetwork, model: ScaledPCA | None, out: Folder, current: Commit | None
) -> Output:
    """Return the output of a job that is resumed without listing its images."""
    if current is None:
        raise SettingsError(f"`keep_plan`: {job.out} contains no job yet. Leave it out for the first command.")
    plan = replace(stored_plan(out, current), partition_size=job.partition_size)
    check_same(out, current, describe(command, job, plan, network, model), ())
    return _opened(out, current, plan, fresh=False)


def _opened(
    out: Folder,
    commit: Commit,
    plan: Plan,
    *,
    fresh: bool,
    labels: int | None = None,
    skipped: dict[str, int] | None = None,
) -> Output:
    """Return an output after removing the files of other jobs."""
    owned = OwnedFolder(out, commit.owner, commit.number)
    manifest = Manifest(owned) if fresh else Manifest.load(owned)
    output = Output(owned, commit, plan, manifest, fresh, labels, skipped)
    for folder in output.subfolders():
        owned.remove_foreign(folder)
    return output


def _check_plan(command: str, job: Job, plan: Plan, listing: Listing) -> None:
    """Raise, before anything starts, if the job cannot succeed."""
    if plan.images == 0:
        skipped = "".join(f"\n  {line}" for line in listing.describe_skipped())
        raise DatasetError(
            f"{job.images}: no image found. Give a folder <label>/<file> of JPEG, PNG, WebP, BMP, TIFF or GIF images. "
            f"{'Skipped:' if skipped else 'The folder is empty.'}{skipped}"
        )
    if command != "transform":
        features = backbone(job.backbone or "MobileNetV2").features
        check_components(job.components, plan.images, features)


class _PlanSpool:
    """The files of a plan on the local disk, until the output is claimed.

    A plan has 20 to 30 bytes an image. Nothing is written to the output before its owner, and thus the listing, is
    known.
    """

    def __init__(self, folder: Path) -> None:
        self.checksums: dict[str, str] = {}
        self._folder = folder

    def write(self, name: str, data: bytes) -> None:
        """Take a plan file; see :func:`fruits.images.plan.make_plan`."""
        stem, _, suffix = name.rpartition(".")
        self.checksums[f"plan/{stem}-{{owner}}.{suffix}"] = checksum(data).hex()
        (self._folder / name).write_bytes(data)

    def store(self, output: Output) -> Iterator[CorruptPart]:
        """Store the plan files that are missing or corrupt in an output; yield those of a resumed job."""
        for template, known in self.checksums.items():
            name = template.format(owner=output.owned.owner)
            if not output.fresh:
                try:
                    read_part(output.folder, name, bytes.fromhex(known))
                    continue
                except CorruptPartError as error:
                    yield error.part
            local = template.removeprefix("plan/").replace("-{owner}", "")
            output.owned.write(name, (self._folder / local).read_bytes())


def _counted(listing: Listing, advance: Callable[[int], None]) -> Iterator[ImageEntry]:
    entries = iter(listing)
    while batch := list(islice(entries, LISTED_AT_ONCE)):
        yield from batch
        advance(len(batch))

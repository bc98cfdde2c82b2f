"""The output of a job: claim a folder for a new job, resume an unfinished one, update a finished one, or refuse.

The last commit of a folder names the job that owns it; see :mod:`fruits.storage.commits`. A new job claims a folder
with a commit before it writes anything else there. If the features of its predecessor have the same identity, they are
used again: the plan of the new job names the partitions that keep their parts, and those that are merged with changes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from fruits.errors import DamageError, DatasetError, OutputError, SettingsError, StorageError
from fruits.images.sources.kinds import open_source
from fruits.images.sources.listing import Listing
from fruits.jobs.identity import check_same, describe, is_extension, is_same, is_update
from fruits.jobs.job import FITTING, Job
from fruits.jobs.report import reason
from fruits.jobs.stages import StageRunner
from fruits.jobs.stored import StoredJob, stored_base, untouched_base
from fruits.jobs.tasks.rows import Encoder
from fruits.model.components import check_components
from fruits.model.rows import RowEncoder
from fruits.plan.changes import updated_partitions
from fruits.plan.pages import ImageList, write_list
from fruits.plan.partitions import Partition, Plan, bounded_partitions, default_size
from fruits.plan.spool import PageSpool
from fruits.storage.checksums import MANIFEST, Manifest, checksum, read_part
from fruits.storage.commits import (
    COMMITS,
    OLD_JOB,
    Commit,
    OwnedFolder,
    claim,
    is_old_output,
    last_commit,
    last_number,
    owner_in,
)
from fruits.storage.folder import Folder, is_temporary

FOLDERS = ("plan", "rejects", "features", "added", "removed", "moments", "model", "rows", MANIFEST)


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder that this command may write to.

    Attributes
    ----------
    job : StoredJob
        The job in the folder: its commit, its plan, and the checksums of the parts that are stored.
    features : StoredJob
        The job whose folder contains the features: `job`, or another one whose output is the source.
    fresh : bool
        Whether this command starts the job; False if it resumes one.
    base : StoredJob, optional
        The predecessor whose features are used again.
    labels : int or None
        The number of labels of the images; None if nothing was listed (``keep_plan``, or a source with features).
    skipped : dict of str to int, or None
        The number of files that the listing skipped, by kind; None if nothing was listed.
    """

    job: StoredJob
    features: StoredJob
    fresh: bool
    base: StoredJob | None = None
    labels: int | None = None
    skipped: dict[str, int] | None = None

    @property
    def owned(self) -> OwnedFolder:
        """The output folder, as the job owns it."""
        return self.job.owned

    @property
    def folder(self) -> Folder:
        """The output folder."""
        return self.job.owned.folder

    @property
    def commit(self) -> Commit:
        """The last commit of the job."""
        return self.job.commit

    @property
    def plan(self) -> Plan:
        """The list of images and its partitions."""
        return self.job.plan

    @property
    def has_source(self) -> bool:
        """True if the features are those of another output."""
        return self.features is not self.job

    def subfolders(self) -> list[str]:
        """Return the folders of the parts, with one for each level of the moments; the empty string is the root."""
        levels = [f"moments/{name}" for name in (self.folder / "moments").names() if "." not in name]
        return ["", *FOLDERS, *levels]


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a command that opening an output depends on.

    Attributes
    ----------
    command : {"fit", "run", "transform", "predict"}
    job : Job
    features : mapping
        The identity of the features.
    encoder : Encoder or None
        The encoder of a transform or of predictions, or that of an update that keeps its model.
    source : StoredJob or None
        The job whose features are used, if the images are an output.
    runner : StageRunner
        Reports the listing.
    """

    command: str
    job: Job
    features: Mapping[str, Any]
    encoder: Encoder | None
    source: StoredJob | None
    runner: StageRunner

    def identity(self, images: ImageList) -> dict[str, Any]:
        """Return the identity of the job."""
        return describe(self.command, self.job, images, self.features, self.encoder, self.source)


def open_output(request: Request) -> Output:
    """List and plan the images, and return the output, new or resumed.

    Raises
    ------
    DatasetError
        The folder contains no images, or too few.
    OutputError
        The output folder cannot be written, or contains another job or other files.
    SettingsError
        ``keep_plan`` without a stored plan, another partition size than that of the stored plan, or more components
        than the images allow.
    """
    job, source, runner = request.job, request.source, request.runner
    out = Folder.at(job.out)
    out.check()
    current = current_commit(out, job)
    if job.keep_plan:
        return _resume_kept_plan(request, out, current)
    with tempfile.TemporaryDirectory(prefix="fruits-plan-") as temporary:
        spool = PageSpool(Path(temporary))
        if source is not None:
            _check_images(request, source.plan.images, "")
            for name, known in source.page_checksums(0, source.plan.images):
                spool.write(name, read_part(source.owned.folder, name, known))
            spool.list, spool.labels = source.plan.list, source.plan.labels
            return _claim_or_resume(request, out, current, spool)
        listing = Listing(
            open_source(job.images, job.source_options()), limit=job.limit, sample=job.sample, seed=job.seed
        )
        with runner.timed("listing") as advance:
            spool.list = write_list(_counted(listing.tables(), advance), spool)
        spool.labels = listing.labels
        _check_images(request, spool.list.images, "".join(f"\n  {line}" for line in listing.describe_skipped()))
        for line in listing.describe_skipped():
            runner.progress.note(f"skipped {line}")
        output = _claim_or_resume(request, out, current, spool)
        return replace(output, labels=listing.labels, skipped=dict(listing.skipped))


@contextmanager
def storage_errors(out: str) -> Iterator[None]:
    """Translate an OSError of the driver's own reads and writes of an output."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"`out` = {out}: {reason(error)}. Stored parts are kept: fix the cause, then start the same command again."
        ) from error


def current_commit(out: Folder, job: Job) -> Commit | None:
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
        if current is not None and current.job["command"] == "train":
            raise OutputError(f"`out` {job.out} contains a recogniser. Give another folder.")
        if current is not None:
            return current
        names.remove(COMMITS)  # the first commit is missing or under way
    if OLD_JOB in names and is_old_output(out):
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


def _claim_or_resume(request: Request, out: Folder, current: Commit | None, spool: PageSpool) -> Output:
    """Return the output of the requested job, which this command starts or resumes."""
    job, identity = request.job, request.identity(spool.list)
    while True:
        if current is not None and is_same(current.job, identity) and not _starts_again(request, out, current, spool):
            try:
                return _resume(request, out, current, spool)
            except DamageError:
                if untouched_base(out, current) is None:
                    raise
        continues = current is not None and (
            is_extension(current.job, identity) or (job.update and is_update(current.job, identity))
        )
        if current is not None and not job.overwrite and not continues:
            check_same(out, current, identity, spool.images())
        base = _base(out, current, identity) if current is not None else None
        try:
            plan = _new_plan(request, base, spool)
        except DamageError as error:  # of the base, which another command may just have started or replaced
            request.runner.progress.event("damage", f"corrupt: {error}; nothing is used again", parts=[str(error)])
            base = None
            plan = _new_plan(request, None, spool)
        files = {"plan/partitions-{owner}.parquet": checksum(plan.encode()).hex()}
        claimed = claim(
            out,
            identity,
            files,
            (current.number if current is not None else 0) + 1,
            partition_size=plan.partition_size,
            base=base.commit.number if base is not None else 0,
        )
        if claimed is not None:
            return _start(request, out, claimed, plan, base, spool)
        current = last_commit(out)  # a twin, another slice, or another job was faster


def _starts_again(request: Request, out: Folder, current: Commit, spool: PageSpool) -> bool:
    """Return whether the job in an output starts again instead of being resumed.

    A job on stored features does if they are in other parts since. Another one does if its output is complete, by an
    overwrite, or by an update that tries rejects again.
    """
    job = request.job
    if request.source is not None:
        name = OwnedFolder(out, current.owner).name("plan/partitions", "parquet")
        if current.files.get(name) != checksum(_new_plan(request, None, spool).encode()).hex():
            return True
    if not current.complete or not job.update:
        return job.overwrite and current.complete
    try:
        return bool(StoredJob.load(out, current).retried())
    except DamageError:  # a resumed job regenerates the damaged file
        return False


def _base(out: Folder, current: Commit, identity: Mapping[str, Any]) -> StoredJob | None:
    """Return the current job of a folder if its features can be used again."""
    same = all(current.job.get(key) == identity.get(key) for key in ("images", "source", "features"))
    if not same or not current.owner or identity["command"] not in FITTING:
        return None
    try:
        stored: StoredJob | None = StoredJob.load(out, current)
    except DamageError:
        stored = untouched_base(out, current)
    return stored if stored is not None and stored.has_features else None


def _new_plan(request: Request, base: StoredJob | None, spool: PageSpool) -> Plan:
    """Return the plan of a new job; where features are stored already, their partitions stay."""
    job, size = request.job, request.job.partition_size
    if request.source is not None:
        source = request.source
        partitions = tuple(
            Partition(each.index, each.start, each.images, each.owner or source.owned.owner)
            for each in source.plan.partitions
        )
        return spool.plan(source.plan.partition_size, partitions)
    if base is None:
        known = sum(each for each in spool.sizes() if each > 0)
        size = size or default_size(spool.list.images, request.runner.executor.parallelism, known)
        return spool.plan(size, bounded_partitions(spool.sizes(), size))
    _check_partition_size(job, base.plan.partition_size)
    partitions, changes = updated_partitions(
        base.plan, base.owned.owner, base.images(), spool.images(), base.is_finished, base.retried()
    )
    request.runner.progress.note(changes.describe(partitions))
    if isinstance(request.encoder, RowEncoder) and base.has_rows_of(request.encoder.model):
        owner = base.owned.owner
        partitions = tuple(replace(each, rows_owner=each.owner and (each.rows_owner or owner)) for each in partitions)
    else:
        partitions = tuple(replace(each, rows_owner="") for each in partitions)
    return spool.plan(base.plan.partition_size, partitions)


def _start(
    request: Request, out: Folder, commit: Commit, plan: Plan, base: StoredJob | None, spool: PageSpool
) -> Output:
    """Return the output of a job that has just claimed its folder."""
    owned = OwnedFolder(out, commit.owner, commit.number)
    manifest = Manifest(owned)
    job = StoredJob(owned, commit, plan, manifest)
    output = Output(job, request.source or job, True, base)
    plan_name = owned.name("plan/partitions", "parquet")
    if base is None:
        _remove_foreign(output)
        owned.write(plan_name, plan.encode())
    spool.store(owned)
    if base is not None:
        adopted = [partition for partition in plan.partitions if partition.owner]
        names = [name for each in adopted for name in (job.features_name(each), job.rejects_name(each))]
        names += [job.rows_name(each) for each in adopted if each.rows_owner]
        manifest.add({name: known for name in names if (known := base.manifest.get(name)) is not None})
        manifest.flush()
    if request.job.keep_model and isinstance(request.encoder, RowEncoder):
        for name, data in request.encoder.model.encode(owned.owner).items():
            owned.write(f"model/{name}", data)
    if base is not None:
        # The plan marks that all of this is stored. Until then, the next command uses the base, of which nothing is
        # removed.
        owned.write(plan_name, plan.encode())
        _remove_foreign(output)
    return output


def _resume(request: Request, out: Folder, commit: Commit, spool: PageSpool) -> Output:
    """Return the output of a job that an earlier command started; restore corrupt files of its plan."""
    _check_partition_size(request.job, commit.partition_size)
    progress = request.runner.progress
    owned = OwnedFolder(out, commit.owner, commit.number)
    try:
        job = StoredJob.load(out, commit)
    except DamageError as error:
        progress.event("damage", f"corrupt: {error}; regenerating", parts=[str(error)])
        if request.source is not None:
            plan = _new_plan(request, None, spool)
        else:
            plan = spool.plan(commit.partition_size, bounded_partitions(spool.sizes(), commit.partition_size))
        name = owned.name("plan/partitions", "parquet")
        if checksum(plan.encode()).hex() != commit.files.get(name):
            raise DamageError(
                f"{out.address}/{name} is corrupt or missing. It depends on the updates of this output, so that it "
                "cannot be made from the images. Use `overwrite` to start over."
            ) from error
        owned.write(name, plan.encode())
        job = StoredJob.load(out, commit)
    output = Output(job, request.source or job, False, stored_base(out, commit))
    _remove_foreign(output)
    for part in spool.restore(owned):
        progress.event("damage", f"corrupt: {part}; regenerating", parts=[str(part)])
    return output


def _resume_kept_plan(request: Request, out: Folder, current: Commit | None) -> Output:
    """Return the output of a job that is resumed without listing its images."""
    if current is None:
        raise SettingsError(f"`keep_plan`: {request.job.out} contains no job yet. Leave it out for the first command.")
    try:
        stored = StoredJob.load(out, current)
        names = {f"plan/{name}" for name in (out / "plan").names()}
        if missing := [name for name, _ in stored.page_checksums(0, stored.plan.images) if name not in names]:
            raise DamageError(missing[0])
    except DamageError as error:
        raise DamageError(
            f"`keep_plan`: the plan in {request.job.out} is incomplete or corrupt: {error.args[0]}. Leave `keep_plan` "
            "out for the next command, which lists the images."
        ) from error
    check_same(out, current, request.identity(stored.plan.list), ())
    _check_partition_size(request.job, current.partition_size)
    output = Output(stored, request.source or stored, False, stored_base(out, current))
    _remove_foreign(output)
    return output


def _check_partition_size(job: Job, stored: int) -> None:
    if job.partition_size not in (None, stored):
        raise OutputError(
            f"`partition_size` = {job.partition_size}: {job.out} is stored in partitions of {stored}, and keeps them. "
            "Leave `partition_size` out, or give another `out`. No result depends on it."
        )


def _remove_foreign(output: Output) -> None:
    """Remove the files of other jobs, except those that this one uses."""
    owned, base = output.owned, output.base
    kept = set()
    if not output.has_source:
        for each in output.plan.partitions:
            kept |= {output.job.features_name(each), output.job.rejects_name(each)}
            if each.rows_owner:
                kept.add(output.job.rows_name(each))
            if each.stored is not None:
                kept.add(owned.part("features", each.stored.partition, "parquet", each.stored.owner))
    if base is not None:
        kept |= {base.owned.name("plan/partitions", "parquet"), base.owned.name("plan/accounts", "parquet")}
        kept |= {base.owned.name("moments/total", "safetensors"), *dict(base.page_checksums(0, base.plan.images))}

    def keep(name: str) -> bool:
        return name in kept or (
            base is not None and name.startswith(f"{MANIFEST}/") and owner_in(name) == base.owned.owner
        )

    owned.remove_foreign(output.subfolders(), keep)


def _check_images(request: Request, images: int, skipped: str) -> None:
    """Raise, before anything starts, if the job cannot succeed."""
    job = request.job
    if images == 0:
        raise DatasetError(
            f"{job.images}: no image found. Give a folder <label>/<file> of JPEG, PNG, WebP, BMP, TIFF or GIF images. "
            f"{'Skipped:' if skipped else 'The folder is empty.'}{skipped}"
        )
    if request.command in FITTING:
        check_components(job.components, images, int(request.features["length"]))


def _counted(tables: Iterable[pa.Table], advance: Callable[[int], None]) -> Iterator[pa.Table]:
    for table in tables:
        yield table
        advance(table.num_rows)

"""The output of a job: open a new or an unfinished one, or refuse it.

An output folder belongs to the job in its ``job.json``, which is written before any part. ``report.json`` is written
last and marks the output as complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from fruits.errors import DamageError, DatasetError, InputError, OutputError, SettingsError
from fruits.images.listing import ImageEntry, Listing
from fruits.images.plan import Plan, make_plan, plan_file
from fruits.jobs.identity import JOB, check_same, describe, is_same, stored_plan
from fruits.jobs.job import Job
from fruits.jobs.report import REPORT
from fruits.jobs.stages import StageRunner
from fruits.model.components import check_components
from fruits.model.scaled_pca import ScaledPCA
from fruits.network.backbones import backbone
from fruits.network.featurizer import NeuralNetwork
from fruits.storage.checksums import CorruptPartError, Manifest, checksum, read_part
from fruits.storage.folder import Folder, is_temporary

__all__ = ["FOLDERS", "Output", "open_output"]

# Everything that a job writes, in the order of removal: the completion marker first, the job identity last.
FOLDERS = ("rows", "model", "moments", "features", "rejects", "manifest", "plan")
STORED = (REPORT, *FOLDERS, JOB)
LISTED_AT_ONCE = 1000  # images between two progress counts: counting each of 100,000,000 takes minutes


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder that this command may write to.

    Attributes
    ----------
    folder : Folder
    identity : dict
        The content of ``job.json``.
    plan : Plan
        The partitions of the images.
    plan_checksums : mapping of str to bytes
        The SHA-256 of each plan file, by name.
    manifest : Manifest
        The checksums of the parts that earlier commands wrote.
    fresh : bool
        Whether this command starts the job; False if it resumes one.
    ignored : int or None
        The number of listed files that are not images; None if nothing was listed (``keep_plan``).
    """

    folder: Folder
    identity: dict[str, object]
    plan: Plan
    plan_checksums: Mapping[str, bytes]
    manifest: Manifest
    fresh: bool
    ignored: int | None

    def check_owner(self) -> None:
        """Raise an ``OutputError`` if another command has replaced this job since it was opened."""
        try:
            owned = is_same(self.folder.read_json(JOB), self.identity)
        except FileNotFoundError:
            owned = False
        if not owned:
            raise OutputError(
                f"{self.folder.address} was replaced by another job, started with --overwrite, while this one ran. "
                "Give each job its own --out."
            )


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
        There are no images, or too few.
    OutputError
        The folder cannot be written, or contains another job or other files.
    SettingsError
        ``keep_plan`` without a stored plan, or more components than the images allow.
    """
    out = Folder.at(job.out)
    out.check()
    resume = _contains_job(out, job)
    planner = _Planner(command, job, out, runner)
    if job.keep_plan:
        plan = _kept_plan(out, job, resume)
    else:
        plan = planner.plan(store=not resume)
    identity = describe(command, job, plan, network, model)
    if resume and job.overwrite and not _is_unfinished(out, identity):
        for name in STORED:
            out.remove(name)
        resume = False
        plan = planner.plan(store=True)
        identity = describe(command, job, plan, network, model)
    resume = resume or out.exists(JOB)  # a twin, or another slice, may have started the job meanwhile
    if resume:
        check_same(out, out.read_json(JOB), identity, planner.listing)
    else:
        out.write_json(JOB, identity)
    manifest = Manifest.load(out) if resume else Manifest(out)
    checksums = _known_plan(out, plan, manifest) if job.keep_plan else planner.checksums
    if resume and not job.keep_plan:
        planner.restore(plan)
    manifest.add(checksums)
    manifest.flush()
    ignored = None if job.keep_plan else planner.listing.ignored
    return Output(out, identity, plan, checksums, manifest, not resume, ignored)


def _contains_job(out: Folder, job: Job) -> bool:
    """Return whether the folder contains a job; raise if it contains anything else."""
    if out.is_file():
        raise OutputError(f"--out {job.out} is a file. Give a folder, or a path that does not exist yet.")
    names = [name for name in out.names() if not is_temporary(name)]  # temporary files of a killed writer
    unexpected = [name for name in names if name not in STORED and not name.startswith(".")]
    if JOB in names or names in ([], ["plan"]) or out.exists(JOB):
        return JOB in names
    if unexpected or "manifest" not in names:
        raise OutputError(
            f"--out {job.out} contains other files ({', '.join((unexpected or names)[:3])}) and no job. "
            "Give an empty folder, or one that does not exist yet."
        )
    if not job.overwrite:
        raise OutputError(
            f"--out {job.out} contains parts of a job, but its {JOB} is missing. Use --overwrite to start again, "
            "or give another folder."
        )
    return True


def _is_unfinished(out: Folder, identity: dict[str, object]) -> bool:
    """Return whether the folder contains this very job, not yet complete."""
    try:
        return is_same(out.read_json(JOB), identity) and not out.exists(REPORT)
    except (FileNotFoundError, OutputError):  # missing or corrupt
        return False


def _kept_plan(out: Folder, job: Job, resume: bool) -> Plan:
    """Return the stored plan, with the requested partition size."""
    if not resume:
        raise SettingsError(f"--keep-plan: {job.out} contains no job yet. Leave it out for the first command.")
    return replace(stored_plan(out, out.read_json(JOB)), partition_size=job.partition_size)


def _known_plan(out: Folder, plan: Plan, manifest: Manifest) -> dict[str, bytes]:
    """Return the checksums of the plan files from the manifest."""
    names = sorted({f"plan/{plan_file(partition)}" for partition in plan.partitions()})
    checksums = {name: known for name in names if (known := manifest.get(name)) is not None}
    if len(checksums) < len(names):
        raise DamageError(
            f"{out.address}/manifest does not list every file of the plan. Start the command again without --keep-plan."
        )
    return checksums


class _Planner:
    """Lists and plans the images of a job, and stores the plan on request."""

    def __init__(self, command: str, job: Job, out: Folder, runner: StageRunner) -> None:
        self.listing = Listing(job.images, limit=job.limit, follow_links=job.follow_links)
        self.checksums: Mapping[str, bytes] = {}
        self._command = command
        self._job = job
        self._out = out
        self._runner = runner

    def plan(self, *, store: bool) -> Plan:
        """Return the plan of the images as they are now; raise before anything starts if the job cannot succeed."""
        files = _PlanFiles(self._out, store)
        with self._runner.timed("listing") as advance:
            plan = make_plan(_counted(self.listing, advance), self._job.partition_size, files)
        self.checksums = files.checksums
        try:
            self._check(plan)
        except InputError:
            if store:  # leave the output as it was
                self._out.remove("plan")
                self._out.remove_if_empty()
            raise
        if store:
            files.remove_others()
        if self.listing.links_out:
            self._runner.progress.note(
                f"skipped {self.listing.links_out:,} links to files outside {self._job.images}; --follow-links "
                "includes them"
            )
        return plan

    def restore(self, plan: Plan) -> None:
        """Store the plan again if a stored plan file is missing or corrupt."""
        try:
            for name, known in self.checksums.items():
                read_part(self._out, name, known)
        except CorruptPartError as error:
            self._runner.progress.event("damage", f"corrupt: {error.part}; regenerating", parts=[str(error.part)])
            if self.plan(store=True) != plan:
                raise DamageError(
                    f"{self._job.images} changed while this command ran, and the stored plan is corrupt. "
                    "Start the command again with --overwrite."
                ) from error

    def _check(self, plan: Plan) -> None:
        job, listing = self._job, self.listing
        if plan.images == 0:
            others = f"; none of its {listing.ignored:,} files is an image" if listing.ignored else " and is empty"
            if listing.links_out:
                others += f", and {listing.links_out:,} are links to files outside it; --follow-links includes them"
            raise DatasetError(
                f"{job.images}: no image found{others}. Give a folder <label>/<file> of JPEG, PNG, WebP, BMP, "
                "TIFF or GIF images."
            )
        if self._command != "transform":
            features = backbone(job.backbone or "MobileNetV2").features
            check_components(job.components, plan.images, features)


class _PlanFiles:
    """Records the checksums of plan files, and stores the files on request."""

    def __init__(self, out: Folder, store: bool) -> None:
        self.checksums: dict[str, bytes] = {}
        self._out = out
        self._store = store

    def write(self, name: str, data: bytes) -> None:
        self.checksums[f"plan/{name}"] = checksum(data)
        if self._store:
            self._out.write(f"plan/{name}", data)

    def remove_others(self) -> None:
        """Remove the files of an earlier, longer plan that was never started."""
        for name in (self._out / "plan").names():
            if f"plan/{name}" not in self.checksums and not is_temporary(name):
                self._out.remove(f"plan/{name}")


def _counted(listing: Listing, advance: Callable[[int], None]) -> Iterator[ImageEntry]:
    entries = iter(listing)
    while batch := list(islice(entries, LISTED_AT_ONCE)):
        yield from batch
        advance(len(batch))

"""A job as its output stores it: the plan, the checksums and accounts of its parts, and the moments of its features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from fruits.errors import DamageError, JobError, OutputError
from fruits.images.sources.entries import ImageEntry, table_entries
from fruits.jobs.job import FITTING
from fruits.jobs.tasks.rejects import read_account
from fruits.jobs.tasks.reports import PartitionReport
from fruits.model.moments import Moments
from fruits.model.scaled_pca import ScaledPCA
from fruits.plan.pages import decode_images, pages_of
from fruits.plan.partitions import Partition, Plan
from fruits.storage.checksums import MANIFEST, CorruptPartError, Manifest, checksum, parse_page, read_part
from fruits.storage.commits import Commit, OwnedFolder, last_commit, read_commit
from fruits.storage.folder import READERS, Folder
from fruits.storage.parquet import number_array, read_table, text_array, write_table

TRANSIENT = {"unreadable", "changed", "crashed", "timeout"}  # reasons of rejects that may be gone at the next attempt
ACCOUNTS = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("rejects", pa.string(), nullable=False),  # JSON: the number of rejects by reason
    ]
)


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as its output stores it.

    Attributes
    ----------
    owned : OwnedFolder
        The output folder, as the job owns it.
    commit : Commit
    plan : Plan
    manifest : Manifest
    """

    owned: OwnedFolder
    commit: Commit
    plan: Plan
    manifest: Manifest

    @classmethod
    def load(cls, folder: Folder, commit: Commit) -> StoredJob:
        """Return the job of a commit.

        Raises
        ------
        DamageError
            Its plan is missing or corrupt.
        """
        owned = OwnedFolder(folder, commit.owner, commit.number)
        name = owned.name("plan/partitions", "parquet")
        plan = Plan.decode(read_part(folder, name, _listed(commit, name)))
        return cls(owned, commit, plan, Manifest.load(owned))

    @property
    def has_features(self) -> bool:
        """True for a job that stores features, also one that was interrupted."""
        return self.commit.job["command"] in FITTING and "source" not in self.commit.job

    @property
    def moments_digest(self) -> str:
        """The SHA-256 of the moments of a complete job: it changes with its rows, and not with their partitions.

        Jobs with one list of images have other rows if some of them could not be read by one job.
        """
        return _listed(self.commit, self.owned.name("moments/total", "safetensors")).hex()

    @property
    def plan_digest(self) -> str:
        """The SHA-256 of the partitions, and of the names of their features."""
        return _listed(self.commit, self.owned.name("plan/partitions", "parquet")).hex()

    def features_name(self, partition: Partition) -> str:
        """Return the name of the features of a partition, below the output folder."""
        return self.owned.part("features", partition.index, "parquet", partition.owner)

    def rejects_name(self, partition: Partition) -> str:
        """Return the name of the rejects of a partition, below the output folder."""
        return self.owned.part("rejects", partition.index, "parquet", partition.owner)

    def rows_name(self, partition: Partition) -> str:
        """Return the name of the rows of a partition, below the output folder."""
        suffix = str(self.commit.job["format"])
        return self.owned.part("rows", partition.index, suffix, partition.rows_owner)

    def part_name(self, folder: Literal["features", "rows"], partition: Partition) -> str:
        """Return the name of the part of a partition in a folder, below the output folder."""
        return self.features_name(partition) if folder == "features" else self.rows_name(partition)

    def stored_partitions(self, folder: Literal["features", "rows"]) -> set[int]:
        """Return the numbers of the partitions whose parts exist in a folder."""
        names = {f"{folder}/{name}" for name in (self.owned.folder / folder).names()}
        return {each.index for each in self.plan.partitions if self.part_name(folder, each) in names}

    def is_finished(self, partition: Partition) -> bool:
        """Return whether the features of a partition are known to be stored."""
        return all(self.manifest.get(name) for name in (self.features_name(partition), self.rejects_name(partition)))

    def page_checksums(self, start: int, images: int) -> tuple[tuple[str, bytes], ...]:
        """Return the names and checksums of the pages that contain some images."""
        numbers = pages_of(start, images)
        return tuple((self.owned.part("plan", number, "parquet"), self.plan.pages[number]) for number in numbers)

    def images(self) -> Iterator[ImageEntry]:
        """Yield the images of the job, in the order of their paths; one page is in memory at a time."""
        pages = self.page_checksums(0, self.plan.images)
        contents = (read_part(self.owned.folder, name, known) for name, known in pages)
        return decode_images(contents, 0, self.plan.images)

    def entries(self, paths: Collection[str]) -> dict[str, ImageEntry]:
        """Return the entries of the images of some paths, as rows contain them, by path; others are left out.

        The time is that of reading the list.
        """
        wanted = text_array([path.encode() for path in paths], pa.binary())
        found: dict[str, ImageEntry] = {}
        for name, known in self.page_checksums(0, self.plan.images):
            table = read_table(read_part(self.owned.folder, name, known))
            found |= {entry.path: entry for entry in table_entries(table.filter(pc.is_in(table["path"], wanted)))}
        return found

    def final_files(self) -> dict[str, bytes]:
        """Return the SHA-256 of every file of a complete output, by name; without those on a corrupt page."""
        files = {name: bytes.fromhex(known) for name, known in self.commit.files.items()}

        def listed(name: str) -> dict[str, bytes]:
            with suppress(CorruptPartError):
                return parse_page(read_part(self.owned.folder, name, files[name]))
            return {}

        with ThreadPoolExecutor(READERS) as pool:
            pages = list(pool.map(listed, [name for name in files if name.startswith(f"{MANIFEST}/")]))
        for page in pages:
            files |= page
        return files | dict(self.page_checksums(0, self.plan.images))

    def accounts(self) -> dict[int, PartitionReport]:
        """Return the reports of the partitions, by index; of an unfinished job, those that are known to be intact.

        Raises
        ------
        DamageError
            Those of a complete job are missing or corrupt.
        """
        if not self.commit.complete:
            finished = [partition for partition in self.plan.partitions if self.is_finished(partition)]
            with ThreadPoolExecutor(READERS) as pool:
                reports = [report for report in pool.map(self._account, finished) if report is not None]
            return {report.index: report for report in reports}
        name = self.owned.name("plan/accounts", "parquet")
        data = read_part(self.owned.folder, name, _listed(self.commit, name))
        try:
            columns = read_table(data).to_pydict()
            rejects = map(orjson.loads, columns["rejects"])
            numbers = (columns[name] for name in ("index", "images", "rows"))
            reports = [PartitionReport(*each) for each in zip(*numbers, rejects, strict=True)]
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DamageError(f"{name} is corrupt: {error}. Use `overwrite` to start over.") from error
        return {report.index: report for report in reports}

    def retried(self) -> set[int]:
        """Return the numbers of the partitions with rejects that might be readable now.

        The version of an image does not change with its access rights.
        """
        return {index for index, report in self.accounts().items() if TRANSIENT & report.rejects.keys()}

    def has_rows_of(self, model: ScaledPCA) -> bool:
        """Return whether the rows of the job are those of a model: it is a complete run, and stores this model."""
        files = {f"model/{name}": checksum(data).hex() for name, data in model.encode(self.owned.owner).items()}
        return (
            self.commit.complete and self.commit.job["command"] == "run" and files.items() <= self.commit.files.items()
        )

    def _account(self, partition: Partition) -> PartitionReport | None:
        """Return the report of a finished partition from its rejects; None if they are missing or corrupt."""
        name = self.rejects_name(partition)
        try:
            return read_account(partition, name, read_part(self.owned.folder, name, self.manifest.get(name)))[0]
        except CorruptPartError:
            return None

    def moments(self) -> Moments | None:
        """Return the moments of all features of a complete job; None if they are missing or corrupt."""
        name = self.owned.name("moments/total", "safetensors")
        if name not in self.commit.files:
            return None
        try:
            return Moments.from_bytes(read_part(self.owned.folder, name, _listed(self.commit, name)))
        except (CorruptPartError, ValueError):
            return None


def _listed(commit: Commit, name: str) -> bytes:
    known = commit.files.get(name)
    if known is None:
        raise DamageError(f"the commit of the job does not list {name}. Use `overwrite` to start over.")
    return bytes.fromhex(known)


def encode_accounts(reports: Iterable[PartitionReport]) -> bytes:
    """Return the accounts of the partitions of a complete job as the content of a file."""
    # As text: bytes from orjson occupy a kilobyte each.
    rows = sorted((each.index, each.images, each.rows, orjson.dumps(dict(each.rejects)).decode()) for each in reports)
    *numbers, rejects = zip(*rows, strict=True)
    columns = [number_array(np.array(column, np.int64)) for column in numbers]
    texts = text_array([each.encode() for each in rejects], pa.string())
    return write_table(pa.table([*columns, texts], schema=ACCOUNTS))


def stored_base(out: Folder, commit: Commit) -> StoredJob | None:
    """Return the predecessor of an unfinished job; None if it has none, or its files are damaged."""
    try:
        return StoredJob.load(out, read_commit(out, commit.base)) if commit.base else None
    except (JobError, OutputError, FileNotFoundError):
        return None


def untouched_base(out: Folder, commit: Commit) -> StoredJob | None:
    """Return the predecessor of a job that was killed before it stored its plan; None if it has removed any file."""
    base = stored_base(out, commit)
    if base is None:
        return None
    names = {f"{folder}/{name}" for folder in ("features", "rejects") for name in (out / folder).names()}
    finished = [each for each in base.plan.partitions if base.is_finished(each)]
    is_untouched = all({base.features_name(each), base.rejects_name(each)} <= names for each in finished)
    return base if is_untouched else None


def feature_source(address: str) -> StoredJob | None:
    """Return the complete job whose output an address is; None if it is no output.

    Raises
    ------
    OutputError
        The job is not complete, or stores no features.
    """
    folder = Folder.at(address)
    try:
        commit = last_commit(folder)
    except OutputError:
        raise
    except Exception:  # of any store of fsspec: the listing reports an address that cannot be read
        return None
    if commit is None:
        return None
    if commit.job["command"] == "train":
        raise OutputError(f"{folder.address} is a recogniser. Give a folder of images, or the output of a `fit`.")
    if not commit.complete:
        raise OutputError(f"{folder.address} is the output of a job that has not finished. Finish that job first.")
    stored = StoredJob.load(folder, commit)
    if not stored.has_features:
        origin: Mapping[str, Any] = commit.job
        instead = origin.get("source") or origin["images"]
        raise OutputError(
            f"{folder.address} is an output without features. Give {instead}, or the output of a `fit` or a `run`."
        )
    return stored

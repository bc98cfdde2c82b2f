"""Lists of images in a folder of pages."""

from __future__ import annotations

from collections.abc import Iterable

from fruits.images.sources.entries import ImageEntry, entry_tables
from fruits.jobs.tasks.featurize import PlannedPartition
from fruits.plan.pages import ImageList, decode_images, pages_of, write_list
from fruits.plan.partitions import Partition, Plan, even_partitions
from fruits.storage.checksums import checksum
from fruits.storage.commits import OwnedFolder, claim
from fruits.storage.folder import Folder, part_name


def stored_list(folder: Folder, start: int, images: int) -> list[ImageEntry]:
    """Return images of the list that a folder of pages contains."""
    pages = (folder.read(part_name(number, "parquet")) for number in pages_of(start, images))
    return list(decode_images(pages, start, images))


def through_storage(entries: Iterable[ImageEntry], folder: Folder) -> list[ImageEntry]:
    """Write a list to a folder of pages, and return it as it is read back."""
    return stored_list(folder, 0, write_list(entry_tables(entries), folder).images)


def planned(partition: Partition, owner: str = "") -> PlannedPartition:
    """Return the item with which a job featurizes a partition of a list below ``plan/``."""
    numbers = pages_of(partition.start, partition.images)
    return PlannedPartition(partition, tuple((f"plan/{part_name(n, 'parquet', owner)}", None) for n in numbers))


def claimed(folder: Folder, job: dict[str, str], images: int, partition_size: int) -> OwnedFolder:
    """Claim a folder for a job with a plan, but without a list of its images."""
    pages = tuple(b"\0" * 32 for _ in pages_of(0, images))
    plan = Plan(ImageList(images, ""), partition_size, even_partitions(images, partition_size), pages).encode()
    commit = claim(folder, job, {"plan/partitions-{owner}.parquet": checksum(plan).hex()}, 1)
    assert commit is not None
    owned = OwnedFolder(folder, commit.owner, commit.number)
    owned.write(owned.name("plan/partitions", "parquet"), plan)
    return owned
